"""The protocol "fischer2021": data brought to the network's size; the network in training mode if asked for."""

import pathlib

import keras
import numpy as np
from keras import ops
from PIL import Image

from kseg.data.augmentation.apply_numpy import nearest_label
from kseg.data.augmentation.plan import ROW
from kseg.data.pipeline.examples import Examples
from kseg.inference.compatibility import check_batch_norm
from kseg.inference.finite import check_logits, image_names
from kseg.inference.label_model import LabelModel, class_names
from kseg.inference.predictor import classes_and_finite, predictor
from kseg.io.errors import InputError
from kseg.io.progress import progress_bar
from kseg.layers.preprocessing import preprocess_layer
from kseg.metrics.fischer2021_scores import Fischer2021Scores, Fischer2021Sums
from kseg.metrics.scores import check_complete
from kseg.runs.workdir import FLAGS_FILE, RunFolder
from kseg.settings import Resize

LABEL_RESIZES = ("nearest", "smooth")


def evaluate_fischer2021(
    model, data, *, batch_size=1, progress=False, label_resize="nearest", train_mode_statistics=False
):
    """Score a model as the paper's authors do (`kseg.metrics.fischer2021_scores`), at the size that it works at.

    With `train_mode_statistics` batch norm takes the batch's statistics and dropout drops, seeded; a last batch smaller
    than the first is then skipped, as theirs was. No variable of the model changes.

    Args:
        model: keras.Model that gives logits, of a fixed size or with the size of its training.
        data: of `data.pipeline.load.open_split`, or an iterable of (image, label), taken in the batches that come.
        batch_size: images of a batch (the authors': 1 for R2U-Net, 2 for SegNet-ASPP). progress: show a bar of images.
        label_resize: "nearest", or "smooth" (`data.augment.smooth_label` on the dataset's own ids).
    Returns:
        kseg.metrics.fischer2021_scores.Fischer2021Scores
    Raises:
        ValueError: an unknown label_resize, or "smooth" for an iterable; a model of no size; no image, or not all of a
            split; a batch too small for a layer that normalises over it.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    height, width = network_size(model)
    batches, num_classes, expected = _batches(model, data, batch_size, (height, width), label_resize)
    whole = None  # an iterable's first batch says what is a whole one
    all_names = ()
    if isinstance(data, Examples):
        whole = batch_size
        all_names = data.split.names
    predict = None
    if not train_mode_statistics:
        predict = predictor(model)
    sums = Fischer2021Sums(num_classes)
    seen = 0
    with progress_bar("evaluate", expected, shown=progress, warm=True) as bar:
        for images, labels in batches:
            images = np.asarray(images)
            names = image_names(all_names, seen, len(images))
            seen += len(images)
            whole = whole or len(images)
            if len(images) >= whole or not train_mode_statistics:
                predict = predict or training_predictor(model, whole)
                for truth, guess in zip(np.asarray(labels), predict(images, height, width, names), strict=True):
                    sums.update(truth, guess)
            bar.update(len(images))
    check_complete(seen, expected)
    if not sums.images:
        raise InputError(f"{seen} images do not fill one batch of {whole}. Use a smaller batch_size.")
    return Fischer2021Scores(
        **sums.result(),
        images=sums.images,
        expected_images=seen,
        out_of_range=sums.out_of_range,
        height=height,
        width=width,
        label_resize=label_resize,
        train_mode_statistics=train_mode_statistics,
    )


def _batches(model, data, batch_size, size, label_resize):
    """Return the batches at a size, the number of classes, and how many images must come (None: not known)."""
    if label_resize not in LABEL_RESIZES:
        raise InputError(f"label_resize must be one of {', '.join(LABEL_RESIZES)}, got {label_resize!r}.")
    if isinstance(data, Examples):
        return record_batches(data, *size, batch_size, label_resize), data.label_set.num_classes, len(data)
    if label_resize == "smooth":
        raise InputError('label_resize="smooth" mixes the dataset\'s own ids, so it needs a record folder.')
    return resized_batches(data, *size), len(class_names(model)), None


def network_size(model):
    """Return the (height, width) that a model works at; ValueError for a model that takes any, or does not tell."""
    if isinstance(model, LabelModel):
        raise InputError("The fischer2021 protocol needs the network itself: give the run folder or its .keras file.")
    size = tuple(model.input_shape[1:3])
    if None in size:
        size = getattr(preprocess_layer(model), "size", None)
    if not size:
        raise InputError(
            f"The fischer2021 protocol scores at the network's size, but {model.name} takes any size. Build it for "
            "one, or set the size of its Preprocess layer."
        )
    return size


def stored_label_resize(model):
    """Return the label_resize of a run folder; "nearest" for any other model, or a run that does not say."""
    if not isinstance(model, (str, pathlib.Path)) or not (pathlib.Path(model) / FLAGS_FILE).exists():
        return "nearest"
    return RunFolder(pathlib.Path(model)).stored_or_none().get("label_resize", "nearest")


def record_batches(source, height, width, batch_size, label_resize):
    """Give every example of a `data.examples.Examples` once, in file-name order, resized as in training.

    The rows of a plan that changes nothing: image bilinear and antialiased, label as `label_resize` says. The last
    batch may be smaller.
    """
    rows = np.zeros(len(source), ROW)
    rows["record"] = np.arange(len(rows))
    rows["scale"] = 1
    rows["color"] = np.eye(3, 4)
    whole = len(rows) - len(rows) % batch_size
    for part, size in ((rows[:whole], batch_size), (rows[whole:], len(rows) - whole)):
        if len(part):
            plan = part.reshape(-1, size)
            resize = Resize(height, width, label_resize=label_resize)
            yield from source.training_batches(lambda plan=plan: [plan], size, resize)


def resized_batches(data, height, width):
    """Bring an iterable of (image, label), single or batched, to a size: images bilinear, labels nearest."""
    for image, label in data:
        image = np.asarray(image)
        label = np.asarray(label)
        if image.ndim == 3:
            image = image[None]
            label = label[None]
        if image.ndim != 4 or label.shape != image.shape[:3] or image.dtype != np.uint8:
            raise InputError(
                "Data must be pairs of uint8 images (B, H, W, 3) and labels (B, H, W), "
                f"got {image.dtype} {image.shape} and {label.shape}."
            )
        bilinear = Image.Resampling.BILINEAR
        images = [np.asarray(Image.fromarray(one).resize((width, height), bilinear)) for one in image]
        yield np.stack(images), np.stack([nearest_label(one, height, width) for one in label])


def training_predictor(model, batch_size):
    """Return a `predictor` of a model in training mode, which it leaves alone.

    The images have the model's size. State lives outside the model: what batch norm would store is dropped, and each
    dropout layer draws from a seed of its own, the same in every call of this function.
    """
    check_batch_norm(model, batch_size)
    variables = {id(variable): variable for variable in model.variables}.values()
    seeds = [v for v in variables if v.name == "seed_generator_state"]
    weights = [v for v in variables if v.name != "seed_generator_state"]

    def forward(values, states, images):
        mapping = [*zip(weights, values, strict=True), *zip(seeds, states, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logits = model(ops.cast(images, "float32"), training=True)
            return classes_and_finite(ops.cast(logits, "float32")), [scope.get_current_value(seed) for seed in seeds]

    forward = _compiled(forward)
    values = [ops.convert_to_tensor(v) for v in weights]
    states = [ops.convert_to_tensor(np.array([i, 0]), dtype=v.dtype) for i, v in enumerate(seeds)]

    def predict(images, height, width, names):
        nonlocal states
        (ids, finite), states = forward(values, states, ops.convert_to_tensor(images))
        check_logits(finite, names, model)
        return np.asarray(ids)

    return predict


def _compiled(forward):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(forward, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(forward)
    return forward
