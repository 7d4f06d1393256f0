"""`kseg.train`: refuse what can be refused, and choose TensorFlow's kernels, while it is not imported; then train."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kseg.data.augmentation.plan import check_batch
from kseg.data.class_weights import class_weights
from kseg.data.records.manifest import MANIFEST, NO_VALIDATION, load_manifest
from kseg.inference.model_paths import check_own_weights
from kseg.io.errors import InputError, check_divides, is_whole
from kseg.io.files import StrPath, checked_path, is_url, list_files
from kseg.io.outputs import check_writable
from kseg.io.progress import announce_keras
from kseg.io.runtime import choose_kernels
from kseg.models import builders_loaded, check_name
from kseg.runs.workdir import RunFolder, describe
from kseg.settings import (
    WIDTH,
    check_encoder_options,
    check_model_options,
    current_options,
    make_settings,
    options_in_source,
    parse_class_weights,
    size_multiple,
)
from kseg.training.arguments import check_arguments, check_model, check_strategy
from kseg.training.logs import chosen_loggers

if TYPE_CHECKING:
    import keras


def train(
    model: str | Callable[[], keras.Model],
    data_dir: StrPath,
    workdir: StrPath,
    *,
    model_options: dict[str, Any] | None = None,
    strategy: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **settings: Any,
) -> tuple[keras.Model, list[dict[str, Any]]]:
    """Train a model, then score it on every validation image, draw predictions.png and export a SavedModel.

    Args:
        model: a name of `kseg.MODELS`, or a function without arguments that builds a keras.Model giving logits; it
            is called inside the strategy's scope and under the precision policy.
        data_dir: record folder with the splits train and val.
        workdir: the run's folder. The same call with the same workdir continues where a killed run stopped, to
            bit-identical weights. A finished run is loaded, and a line says that it is finished. With more epochs or
            train_steps it continues too, finished or not. The files it started from (init_from, encoder_weights) are
            not needed again. A function that builds other layers, or another Keras backend, is another run. A run
            that failed before its first checkpoint starts again with the settings given now.
        model_options: of the model's builder, JSON types.
        strategy: `training.trainers.make_trainer`'s; in a group of workers each calls this with the same arguments
            and a workdir that all see, and the chief alone writes.
        callbacks: list of keras.callbacks.Callback; their own state is not restored on resume.
        settings: fields of `kseg.settings.Settings`.
    Returns:
        (keras.Model, list of dict): the trained model (of the epoch that `keep` names) and a row per epoch.
    Raises:
        ValueError: bad settings, data, options, a model that could not be loaded from its file, a workdir of another
            configuration or in use; nothing is written then.
        OSError: a file could not be written; the last good state stays, and the same call continues from it.
        FloatingPointError: the loss or a gradient was not finite, or the scores of an image; names the step or the
            image, the last good checkpoint stays.
        ConnectionError: another worker of the group is gone.
        SystemExit (code 143), KeyboardInterrupt: after SIGTERM or Ctrl-C, when the current step is in a checkpoint;
            during the last export when that, and with it the run, is finished.
    """
    _check_given(model, data_dir, workdir, model_options, callbacks)
    settings = make_settings(**settings)
    refuse_early(model, data_dir, workdir, model_options, strategy, settings)
    check_strategy(strategy)
    choose_for_run(model, workdir, model_options, settings.onednn)
    announce_keras()
    from kseg.training import train

    return train.train(
        model,
        data_dir,
        workdir,
        model_options=model_options,
        strategy=strategy,
        callbacks=callbacks,
        **vars(settings),
    )


def _check_given(model, data_dir, workdir, model_options, callbacks):
    """Refuse what is no model, no path or no record folder: all settings are for a model and records that are there."""
    check_model(model, model_options)
    if isinstance(model, str):
        check_name(model)
    check_arguments(data_dir, workdir, callbacks)
    if not is_url(data_dir):
        list_files(os.fspath(data_dir))


def refuse_early(model, data_dir, workdir, model_options, strategy, settings):
    """Refuse what needs neither Keras nor TensorFlow to be seen: they take many seconds to import.

    Something that is no model, a model or an option that does not exist, a size that the model cannot take, a run in
    the workdir with other settings, a workdir that holds something else or cannot be written, a missing file of
    init_from or encoder_weights, a label set that the records do not have, class weights of another number of classes,
    fewer images than a batch, images of several sizes and no size to train at, a logger that is not installed.
    """
    options = check_model(model, model_options)
    folder = RunFolder(pathlib.Path(checked_path(workdir, "workdir")))
    folder.check_is_folder()
    manifest = check_run(model, data_dir, options, settings, begins=folder.never_saved)
    if not folder.finished:
        check_writable(folder.workdir.absolute(), "workdir")
    stored = folder.stored_or_none()
    if manifest is None or stored is None:
        return
    backend = stored.get("backend", "")
    with contextlib.suppress(KeyError):  # records without this split
        wanted = describe(model, data_dir, options, strategy, settings, manifest.digest, backend)
        folder.check(wanted, len(manifest.splits["train"]), silent=True)


def check_run(model, data_dir, options, settings, *, begins):
    """Refuse, of what `refuse_early` does, all that no workdir is needed for.

    Args:
        options: as `arguments.check_model` returns them. begins: whether the run has no checkpoint yet: it needs the
            files of init_from and encoder_weights.
    Returns:
        the records' manifest, or None where there is none that can be read.
    """
    multiple = 1
    if isinstance(model, str) and not builders_loaded():  # else MODELS may hold more, and is asked later
        check_name(model)
        named = current_options(model, options)
        check_model_options(model, named, options_in_source(model))
        multiple = size_multiple(model, named)
    chosen_loggers(settings.logger)
    if size := settings.crop or settings.size:
        check_divides(*size, multiple)
    if settings.init_from and options.get("encoder_weights"):
        raise InputError("encoder_weights and init_from both set the encoder's weights. Give one of them.")
    if settings.init_from and begins:  # else a checkpoint has the weights
        check_own_weights(settings.init_from)
    if begins:
        check_encoder_options(options)
    if not isinstance(data_dir, (str, os.PathLike)) or not os.path.exists(os.path.join(data_dir, MANIFEST)):
        return None
    try:
        manifest = load_manifest(data_dir)
    except InputError:  # told when all that the arguments themselves say has been judged
        return None
    _check_records(manifest, data_dir, settings, multiple)
    return manifest


def _check_records(manifest, data_dir, settings, multiple):
    """Refuse settings that do not fit records; multiple: of what height and width must be multiples."""
    label_set = manifest.info.label_set(settings.label_set)
    if isinstance(parse_class_weights(settings.class_weights), list):
        class_weights(settings.class_weights, None, label_set.num_classes)
    if "val" not in manifest.splits:
        raise InputError(f"{data_dir}: {NO_VALIDATION}.")
    if "train" in manifest.splits:  # else that is what must be said first
        check_batch(len(manifest.splits["train"]), settings.batch_size)
        if settings.size is None:
            size = manifest.splits["train"].common_size()
            if settings.crop is None:
                check_divides(*size, multiple)


def choose_for_run(model, workdir, model_options, onednn):
    """Choose the kernels of a run before TensorFlow is imported.

    Args: `model`, `workdir`, `model_options`: as in `train`. `onednn`: its setting.
    """
    stored = RunFolder(pathlib.Path(checked_path(workdir, "workdir"))).stored_or_none()
    choose_kernels_for(model, model_options, onednn, None if stored is None else stored.get("onednn", ""))


def choose_kernels_for(model, model_options, onednn, stored=None):
    """Choose the kernels of a model; stored: as in `kseg.io.runtime.choose_kernels`."""
    width = model_options.get("base_filters", WIDTH) if isinstance(model_options, dict) else WIDTH
    choose_kernels(onednn, stored, width if isinstance(model, str) and is_whole(width) else None)
