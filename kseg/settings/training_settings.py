"""The settings of a training run: one definition for `kseg.train` and for the flags of kseg train."""

from __future__ import annotations  # field types are read as text

import dataclasses
import itertools
import math
import os
from typing import Any

from kseg.io.errors import InputError, plain
from kseg.score_table import SCORES
from kseg.settings.loss_grammar import (
    CLASS_WEIGHTS,
    FOCAL_GAMMA,
    LOSSES,
    TAKING_WEIGHTS,
    TOP_K_SHARE,
    parse_class_weights,
    parse_loss,
)
from kseg.settings.model_names import OPTION_FLAGS

_KINDS = {"bool": "True or False", "int": "a whole number", "float": "a finite number", "str": "text"}


def _setting(default, help, **options):
    """A field of Settings.

    Options: `choices`; `lower` and `upper`, bounds; `form`, an example of a text that has to be of some form; `needs`,
    (another setting, the values of it under which this one has an effect).
    """
    return dataclasses.field(default=default, metadata={"help": help, **options})


def _typed(field, value):
    """Return a field's value in the Python type of its annotation; NumPy scalars and path objects are accepted.

    Raises:
        ValueError: it has another type (True is not a number, 2.0 is not a whole number), or is not finite.
    """
    kind, _, optional = field.type.partition(" | ")
    given = value
    value = plain(value)
    if kind == "str" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    fits = type(value).__name__ == kind or (kind == "str" and isinstance(value, str))
    if (optional and value is None) or (fits and (kind != "float" or math.isfinite(value))):
        return value
    form = ""
    if "form" in field.metadata:
        form = f" such as {field.metadata['form']!r}"
    if optional:
        form += " or None"
    raise InputError(f"{field.name} must be {_KINDS[kind]}{form}, got {given!r}.")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes. The defaults change nothing.

    scale_min, scale_max: uniform scale of image and label. flip: mirror half of them. brightness: largest shift, as
    a share of 255. contrast, saturation: largest relative change. hue: largest rotation, as a share of the circle.
    """

    scale_min: float = 1.0
    scale_max: float = 1.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


@dataclasses.dataclass(frozen=True)
class Resize:
    """The size that images and labels are resized to.

    height, width: of the whole image, in pixels. crop: (height, width) of the crops taken from it, None for no crops.
    label_resize: "nearest", or "smooth": the dataset's own ids as if grey levels, before they become training ids.
    """

    height: int
    width: int
    crop: tuple[int, int] | None = None
    label_resize: str = "nearest"


# Headings of the settings in --help: each field and those after it, as far as the next heading.
GROUPS = {
    "height": "Images and labels",
    "batch_size": "Optimizer",
    "init_from": "Weights",
    "loss": "Loss",
    "scale_min": "Augmentation",
    "seed": "Reproducibility, speed and memory",
    "validate_every_epochs": "Scores and checkpoints",
}


def check_accumulation(batch_size, accumulate_steps):
    """Raise InputError unless a batch can be dealt out to so many passes."""
    if batch_size % accumulate_steps:
        raise InputError(
            f"batch_size must be a multiple of accumulate_steps, got {batch_size} and {accumulate_steps}. "
            f"Take {-(-batch_size // accumulate_steps) * accumulate_steps}."
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `kseg.train` takes by keyword; the help of each is in its metadata.

    Raises:
        ValueError: a value has the wrong type, is not finite, is out of bounds, or conflicts with another one.
    """

    height: int | None = _setting(
        None, "Resize images to this height in pixels; empty: the size in the records.", lower=1
    )
    width: int | None = _setting(
        None, "Resize images to this width in pixels; empty: the size in the records.", lower=1
    )
    crop_height: int | None = _setting(
        None, "Train on random crops of this height, cut from --height x --width; empty: no crop.", lower=1
    )
    crop_width: int | None = _setting(None, "Width of the random crops; give both or neither.", lower=1)
    label_resize: str = _setting(
        "nearest",
        "How to resize training labels. smooth blends ids like grey levels, which makes new ids (in the paper's code).",
        choices=("nearest", "smooth"),
    )
    label_set: str = _setting("train_ids", "The classes to learn: a label set of the records.")
    label_space: str = _setting(
        "", "Which ids the labels hold, for records without dataset.json: train_ids or label_ids."
    )
    num_outputs: int | None = _setting(
        None, "Number of output channels, if more than classes (as in the paper's code); at most 254.", lower=2
    )
    batch_size: int = _setting(4, "Images per optimizer step, on all devices together.", lower=1, upper=2**16)
    accumulate_steps: int = _setting(
        1,
        "Split each batch into this many parts, run them in turn and sum their gradients. A step then needs the memory "
        "of one part. The result is that of the whole batch, except for dropout and batch norm (per-part statistics).",
        lower=1,
    )
    epochs: int = _setting(
        0,
        "Passes over the training images; or give --train_steps. Raise it to extend a run, even a finished one.",
        lower=0,
    )
    train_steps: int = _setting(0, "Optimizer steps; or give --epochs.", lower=0)
    optimizer: str = _setting("adam", "Update rule.", choices=("adam", "adamw", "sgd"))
    learning_rate: float = _setting(1e-3, "Learning rate after warm-up.", lower=0.0)
    lr_schedule: str = _setting(
        "constant",
        "How the learning rate falls. poly: (1 - step/steps)^0.9 (DeepLab). cosine: to 0. steps: at --lr_drop_epochs.",
        choices=("constant", "poly", "cosine", "steps"),
    )
    lr_drop_epochs: str = _setting(
        "",
        "For --lr_schedule=steps: drop the rate after these epochs, in rising order, e.g. 30,60,90 (or 2.5).",
        form="30,60,90",
    )
    lr_drop_factor: float = _setting(
        0.1,
        "For --lr_schedule=steps: multiply the learning rate by this at each drop.",
        lower=0.0,
        needs=("lr_schedule", ("steps",)),
    )
    warmup_steps: int = _setting(0, "Raise the learning rate linearly from 0 over this many steps.", lower=0)
    momentum: float = _setting(0.9, "Momentum for --optimizer=sgd.", lower=0.0, needs=("optimizer", ("sgd",)))
    weight_decay: float = _setting(
        0.0,
        "Decoupled: each step subtracts rate x decay of each kernel, with every optimizer. For SGD, papers add decay "
        "to the gradient, where momentum m amplifies it 1/(1 - m) times.",
        lower=0.0,
    )
    clip_norm: float = _setting(0.0, "Clip the global gradient norm to this; 0: off.", lower=0.0)
    encoder_lr_multiplier: float = _setting(
        1.0, "Multiply the learning rate by this in the encoder (the layers that --encoder_weights loads).", lower=0.0
    )
    freeze_encoder_epochs: int = _setting(
        0, "Freeze the encoder for this many epochs; its batch norms still update their statistics.", lower=0
    )
    auxiliary_weight: float = _setting(
        0.0,
        "Weight of the loss at an auxiliary head, for models on VGG16 or a ResNet (.4 in PSPNet), in training only; "
        "0: no head.",
        lower=0.0,
    )
    init_from: str = _setting(
        "", "Start from the weights of this run folder or .keras file, for all layers whose names and shapes match."
    )
    ema_momentum: float = _setting(
        0.0,
        "Average the weights and batch-norm statistics over the steps with this momentum, then score and export the "
        "average; 0: off. At step t the momentum is at most (1 + t) / (10 + t).",
        lower=0.0,
    )
    loss: str = _setting(
        "cross_entropy",
        f"Loss over the valid pixels: one of {', '.join(LOSSES)}, or a sum such as cross_entropy+0.5*dice.",
        form="cross_entropy+0.5*dice",
    )
    class_weights: str = _setting(
        "none",
        f"Weights of the classes in {', '.join(TAKING_WEIGHTS)}. One of {', '.join(CLASS_WEIGHTS)}, computed from the "
        "training pixels (1 for the median class), or a number for each class, such as 1,2,0.5.",
        form="1,2,0.5",
    )
    focal_gamma: float = _setting(FOCAL_GAMMA, "Exponent of the focal loss; 0 gives cross entropy.", lower=0.0)
    top_k_share: float = _setting(
        TOP_K_SHARE,
        "Share of each image's valid pixels that top_k_cross_entropy counts, the hardest ones; above 0, at most 1.",
        lower=0.0,
    )
    scale_min: float = _setting(
        0.5, "Smallest factor by which image and label are randomly scaled.", lower=0.01, upper=16.0
    )
    scale_max: float = _setting(
        2.0, "Largest factor by which image and label are randomly scaled.", lower=0.01, upper=16.0
    )
    flip: bool = _setting(True, "Mirror half of the training images.")
    brightness: float = _setting(0.1, "Largest random shift of brightness, as a share of 255.", lower=0.0, upper=1.0)
    contrast: float = _setting(0.2, "Largest random relative change of contrast.", lower=0.0, upper=1.0)
    saturation: float = _setting(0.2, "Largest random relative change of saturation.", lower=0.0, upper=1.0)
    hue: float = _setting(0.02, "Largest random rotation of hue, as a share of the full circle.", lower=0.0, upper=0.5)
    seed: int = _setting(
        0, "Random seed for initial weights, image order, augmentation and dropout.", lower=0, upper=2**32 - 1
    )
    mixed_precision: str = _setting(
        "none",
        "Precision of the layers' arithmetic; weights, loss and scores stay float32.",
        choices=("none", "bfloat16", "float16"),
    )
    remat: bool = _setting(
        False, "Save memory: recompute feature maps for the gradient instead of keeping them. About a third slower."
    )
    onednn: str = _setting(
        "auto",
        "Use oneDNN's kernels on the CPU. auto: yes for narrow networks; TensorFlow decides for wide ones. A run keeps "
        "the choice it started with.",
        choices=("auto", "on", "off"),
    )
    deterministic: bool = _setting(
        False, "Make repeated runs on a GPU bit-identical; slower. On a CPU they are bit-identical anyway."
    )
    validate_every_epochs: int = _setting(
        1, "Epochs between two scorings of the validation split; the end of the run is always scored.", lower=1
    )
    checkpoint_every_steps: int = _setting(
        500, "Steps between two checkpoints; one is also written at the end of each epoch.", lower=1
    )
    logger: str = _setting(
        "tensorboard",
        "Where to log the run, beside history.csv: some of tensorboard, wandb, mlflow, joined by commas; empty: "
        "nowhere. docs/how-to/loggers.md says what each needs.",
    )
    keep: str = _setting(
        "best",
        "Which epoch's weights to score at the end and export: best validation score, last, or lowest training loss.",
        choices=("best", "last", "lowest_loss"),
    )
    best_by: str = _setting(
        "mean_iou",
        "Validation score that decides which epoch is best (macro means); not with --keep=lowest_loss.",
        choices=SCORES,
        needs=("keep", ("best", "last")),
    )
    patience: int = _setting(
        0,
        "Stop after this many epochs without a better --best_by score (--keep=lowest_loss: a lower loss); 0: never.",
        lower=0,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _typed(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # frozen for everyone else
            choices = field.metadata.get("choices")
            lower = field.metadata.get("lower")
            if choices and value not in choices:
                raise InputError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}.")
            if lower is not None and value is not None and value < lower:
                raise InputError(f"{field.name} must be at least {lower}, got {value!r}.")
            upper = field.metadata.get("upper", 2**31 - 1)  # of any number: nothing that is larger can be meant
            if isinstance(value, (int, float)) and value > upper:
                raise InputError(f"{field.name} must be at most {upper}, got {value!r}.")
        weighted = parse_class_weights(self.class_weights) != "none"
        parse_loss(self.loss, weighted, self.focal_gamma, self.top_k_share)
        if not (self.epochs or self.train_steps):
            raise InputError("Give either --epochs or --train_steps, above 0: nothing says how long to train.")
        if self.epochs and self.train_steps:
            raise InputError(
                f"Give either --epochs or --train_steps, got --epochs={self.epochs} and "
                f"--train_steps={self.train_steps}."
            )
        check_accumulation(self.batch_size, self.accumulate_steps)
        from kseg.io.images import MAX_PIXELS  # here, for --help needs no NumPy

        for rows, columns in (("height", "width"), ("crop_height", "crop_width")):
            pair = getattr(self, rows), getattr(self, columns)
            if (pair[0] is None) != (pair[1] is None):
                given, absent = (rows, columns) if pair[1] is None else (columns, rows)
                raise InputError(
                    f"Give both --{rows} and --{columns} or neither, got --{given}={getattr(self, given)} without "
                    f"--{absent}."
                )
            if pair[0] and pair[0] * pair[1] > MAX_PIXELS:
                raise InputError(
                    f"--{rows} times --{columns} must be at most {MAX_PIXELS:,} pixels, got {pair[0]}x{pair[1]}."
                )
        if (self.num_outputs or 0) > 254:  # labels 254 and 255 are no classes
            raise InputError(f"num_outputs must be at most 254, got {self.num_outputs}.")
        if self.scale_min > self.scale_max:
            raise InputError(f"scale_min must not exceed scale_max, got {self.scale_min} and {self.scale_max}.")
        if (self.lr_schedule == "steps") != bool(self.drop_epochs):
            raise InputError(
                f"--lr_schedule=steps and --lr_drop_epochs go together, got {self.lr_schedule} and "
                f"{self.lr_drop_epochs!r}."
            )
        for name in without_effect(vars(self)):
            other, values = self.__dataclass_fields__[name].metadata["needs"]
            raise InputError(
                f"--{name} has no effect with --{other}={getattr(self, other)}, got {getattr(self, name)}: leave it "
                f"out, or choose --{other}={' or '.join(values)}."
            )
        if self.optimizer == "adamw" and not self.weight_decay:
            raise InputError(
                "--optimizer=adamw needs a --weight_decay above 0, got 0. Set one (.01 is common), or use adam."
            )
        if not self.ema_momentum < 1:
            raise InputError(f"ema_momentum must be below 1, got {self.ema_momentum}.")
        if not self.momentum < 1:
            raise InputError(f"momentum must be below 1, got {self.momentum}.")

    def total_steps(self, images: int) -> int:
        """Return the optimizer steps of the whole run over this many training images; only full batches count."""
        return self.train_steps or self.epochs * (images // self.batch_size)

    @property
    def drop_epochs(self) -> list[float]:
        """The epochs of lr_drop_epochs, floats."""
        try:
            epochs = [float(part) for part in self.lr_drop_epochs.split(",")] if self.lr_drop_epochs else []
        except ValueError:
            epochs = [-1.0]
        if not all(0 < a < b for a, b in itertools.pairwise([*epochs, float("inf")])):
            raise InputError(f"lr_drop_epochs must be rising numbers such as 30,60,90, got {self.lr_drop_epochs!r}.")
        return epochs

    def schedule(self, total_steps: int, epoch_steps: int) -> dict[str, Any]:
        """Return what `training.schedules.learning_rate` takes, by name, for a run of this many steps."""
        return {
            "learning_rate": self.learning_rate,
            "total_steps": total_steps,
            "decay": self.lr_schedule,
            "warmup_steps": self.warmup_steps,
            "drops": tuple(round(epoch * epoch_steps) for epoch in self.drop_epochs),
            "drop_factor": self.lr_drop_factor,
        }

    @property
    def augmentation(self) -> Augmentation:
        """The Augmentation of the training images."""
        ranges = {field.name: getattr(self, field.name) for field in dataclasses.fields(Augmentation)}
        return Augmentation(**ranges)

    def resize(self, size: tuple[int, int]) -> Resize:
        """Return the Resize of the training images; `size`: (height, width) of the run's images, before any crop."""
        return Resize(*size, self.crop, self.label_resize)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to, or None for their size in the records."""
        return (self.height, self.width) if self.height else None

    @property
    def crop(self) -> tuple[int, int] | None:
        """(height, width) of the random crops, or None."""
        return (self.crop_height, self.crop_width) if self.crop_height else None


def without_effect(values):
    """Return the names of the settings that are not at their defaults and have no effect under the others.

    Args:
        values: {name: value}, in Python's types or as text; a name that is missing has its default.
    """
    found = []
    for field in dataclasses.fields(Settings):
        if "needs" not in field.metadata or str(values.get(field.name, field.default)) == str(field.default):
            continue
        other, wanted = field.metadata["needs"]
        if values.get(other, Settings.__dataclass_fields__[other].default) not in wanted:
            found.append(field.name)
    return found


def make_settings(**values):
    """Build Settings from keyword arguments; an unknown name is a ValueError that lists the known ones."""
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in values:
        if name not in known:
            if name in OPTION_FLAGS:
                raise InputError(f"{name} is an option of a model, no setting: model_options={{{name!r}: ...}}.")
            raise InputError(f"Unknown setting {name!r}. Settings are: {', '.join(known)}.")
    return Settings(**values)
