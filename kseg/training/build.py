"""The model of a training run: built for the run's sizes and classes, given what it must carry, and checked."""

import contextlib
import json

import keras
import numpy as np

from kseg import losses
from kseg.export.exported_facts import carried
from kseg.inference.compatibility import check_classes, check_graph, check_input, check_weights
from kseg.inference.loading import DAMAGED, why_not_loaded
from kseg.io.errors import InputError
from kseg.io.progress import say
from kseg.layers.preprocessing import preprocess_layer
from kseg.models import MODELS, build_model, options_of
from kseg.models.auxiliary_head import add_auxiliary_head
from kseg.models.pretrained.weights import encoder_layers
from kseg.runs.architecture import architecture
from kseg.settings import CLASS_WEIGHTS
from kseg.training.finetuning import start_from
from kseg.training.optimizers import make_optimizer
from kseg.training.schedules import learning_rate
from kseg.training.trainers.keras_internals import every_layer


def make_terms(split, outputs, loss, class_weights, focal_gamma, top_k_share):
    """Return the Terms of a run.

    Args:
        split: the training examples, whose pixel counts give the class weights.
        outputs: channels of the logits, at least the label set's classes.
        loss, class_weights, focal_gamma, top_k_share: as in `kseg.settings.Settings`.
    """
    counts = split.pixel_counts() if class_weights in CLASS_WEIGHTS[1:] else ()
    weights = losses.class_weights(class_weights, counts, split.label_set.num_classes)
    if weights is not None:  # an output beyond the classes is never the truth: any weight would do
        weights = np.pad(weights, (0, outputs - len(weights)))
    return losses.loss_terms(loss, weights, focal_gamma, top_k_share)


def build_optimizer(settings, total_steps, epoch_steps=1, encoder=()):
    """Return the optimizer of a run of `total_steps`; `encoder`: of `training_parts`."""
    return make_optimizer(
        settings.optimizer,
        learning_rate(**settings.schedule(total_steps, epoch_steps)),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        encoder=encoder,
        encoder_lr_multiplier=settings.encoder_lr_multiplier,
        encoder_start_step=settings.freeze_encoder_epochs * epoch_steps,
        loss_scaling=settings.mixed_precision == "float16",
    )


_POLICIES = {"none": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_for_run(model, options, settings, split, size, resumed=False):
    """Build the model of a run; the strategy's scope and the precision policy are the caller's.

    Args:
        model, options: a name of MODELS and its builder's options; or a keras.Model that a user's function built, or
            that function, and nothing.
        settings: `kseg.settings.Settings`. split: the training examples, whose label set the model learns.
        size: (height, width) that images are brought to. Training on crops makes a model of free size, whose Preprocess
            layer carries this, as does that of a free model trained at a size of the settings: whole images are then
            scored at the scale that was trained.
        resumed: a checkpoint has all weights. Those that the run started from (encoder_weights, init_from) are not
            read: their files may be gone.
    Returns:
        keras.Model, its label set and size in its Preprocess layer if it has one.
    Raises:
        ValueError: an option, size, class or output count that does not fit.
    """
    classes = split.label_set.num_classes
    outputs = settings.num_outputs or classes
    if outputs < classes:
        raise InputError(
            f"num_outputs must be at least the {classes} classes of label set {split.label_set.name}, got {outputs}."
        )
    if resumed:
        options = {name: value for name, value in options.items() if name != "encoder_weights"}
    if isinstance(model, str):
        if model in MODELS and "seed" in options_of(model):
            options = {"seed": settings.seed, **options}
        built = build_model(model, (None, None, 3) if settings.crop else (*size, 3), outputs, **options)
    else:
        built = model if isinstance(model, keras.Model) else model()
    check_input(built, size, settings.crop)
    layer = preprocess_layer(built)
    if layer is not None:
        layer.label_set = carried(split)
        if settings.height or settings.crop:  # else a model of free size goes on taking images as they are
            layer.size = tuple(size)
    check_classes(built, split.label_set, "the records", outputs)
    if settings.init_from and not resumed:
        say(start_from(built, settings.init_from))
    check_weights(built)
    return built


def own_architecture(model):
    """Return what a user's function has built as `RunFolder.check_architecture` takes it; ValueError for no model."""
    check_graph(model)
    found = architecture(model)
    if found is None:
        check_loads(model)  # which says why
    return found


def check_loads(model):
    """Raise ValueError unless the model of a user's function can be read back from a file, as best.keras must be.

    Its architecture goes through the text that a file holds, by the calls of Keras that save and load. Weights are not
    written (FCN-32s has 540 MB): a file holds them by layer, in the order of the variables, whose shapes are compared.
    """
    try:
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
        config["compile_config"] = None  # what training adds; no file has it
        with keras.device("cpu:0"):
            again = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except DAMAGED as error:
        lambdas = [f"'{layer.name}'" for layer in every_layer(model) if isinstance(layer, keras.layers.Lambda)]
        reason = why_not_loaded(error)
        if lambdas and "Lambda" in reason:
            reason = (
                f"{', '.join(lambdas)} is a Lambda layer, whose code would run wherever the file is loaded. Write a "
                "layer class, or call keras.ops on the tensor."
            )
        raise InputError(f"Model '{model.name}' could not be loaded from its own file: {reason}") from error
    for layer, other in zip(model.layers, again.layers, strict=True):
        shapes, found = ([tuple(weight.shape) for weight in one.weights] for one in (layer, other))
        if shapes != found:
            raise InputError(
                f"Model '{model.name}' could not be loaded from its own file: layer '{layer.name}' "
                f"({type(layer).__name__}) has weights of shapes {shapes}, but {found} when it is loaded. Create all "
                "of them in __init__ or build, from what get_config gives."
            )


def training_parts(model, settings, epoch_steps):
    """Return what training has beyond the model; the strategy's scope and the precision policy are the caller's.

    Args:
        model, settings: of `build_for_run`. epoch_steps: optimizer steps of an epoch.
    Returns:
        (encoder, parts): the encoder's trainable variables if a setting is about them, else none; the keywords of
        `Trainer.build` that this run needs.
    Raises:
        ValueError: a model without an encoder or a place for the auxiliary head; another backend than TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow" and (settings.freeze_encoder_epochs or settings.auxiliary_weight):
        raise InputError(
            f"freeze_encoder_epochs and auxiliary_weight need KERAS_BACKEND=tensorflow, got {backend}. Leave them out."
        )
    encoder = []
    parts = {"ema_momentum": settings.ema_momentum}
    if settings.freeze_encoder_epochs or settings.encoder_lr_multiplier != 1:
        encoder = [variable for layer in encoder_layers(model) for variable in layer.trainable_variables]
    if settings.freeze_encoder_epochs:
        parts["frozen"] = encoder
        parts["frozen_steps"] = settings.freeze_encoder_epochs * epoch_steps
    if settings.auxiliary_weight:
        parts["auxiliary"] = add_auxiliary_head(model, settings.seed)
        parts["auxiliary_weight"] = settings.auxiliary_weight
    return encoder, parts


@contextlib.contextmanager
def precision(name):
    """A context in which layers are built for the setting mixed_precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
