"""Write a model in a format of other programs, prove it, and only then put it into its place."""

import contextlib
import functools
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading

import keras
import numpy as np

from kseg.export import EXPORTERS
from kseg.export.export_card import card_of_run, export_card
from kseg.export.exported_facts import checked_model
from kseg.export.layouts import last_of, lay_out, own_paths
from kseg.export.proof import in_a_process, in_this_process, prove
from kseg.export.proof_images import IMAGES, calibration_images, images_for
from kseg.export.serving import compute_dtype, in_float32
from kseg.inference.compatibility import warn_of_other_records
from kseg.inference.model_paths import unfinished_run
from kseg.inference.outside.carried_files import CLASSES, REPORT
from kseg.io.errors import InputError
from kseg.io.files import json_text, replacing, replacing_content, writing
from kseg.runs.model_card import CARD_FILE, is_users

QUICK_IMAGES = 3


def write_export(
    model,
    path,
    *,
    format,
    quantize,
    layout,
    calibration_data,
    data_dir,
    label_set,
    quick,
    images,
    card,
    progress,
):
    """Do what `kseg.export_model` does at a path that `checked_output` has judged; arguments and errors as there."""
    exporter = EXPORTERS[format]
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"A {exporter.kind} export needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}.")
    quantize = quantize or exporter.default
    calibration = None
    if quantize == "int8":
        calibration = calibration_images(calibration_data)
    source = model if isinstance(model, (str, os.PathLike)) else None
    model, facts = checked_model(model, label_set)
    if images is None:
        images = images_for(model, source, data_dir, QUICK_IMAGES if quick else IMAGES)
    if images.split is not None:
        warn_of_other_records(model, images.split.manifest, data_dir)
        if not facts.get("ids"):
            facts["ids"] = images.split.label_set.raw_ids()
    with writing(path), tempfile.TemporaryDirectory(prefix="kseg-export-") as folder:
        made = pathlib.Path(folder, f"model{exporter.suffix}")
        with _ctrl_c_kept():
            batches = calibration and functools.partial(_batches, calibration)
            exporter.functions.write(model, made, quantize, batches)
            report = {"format": format, "bytes": _size_of(made)}
            report["converted_with"] = {name: sys.modules[name].__version__ for name in exporter.converters}
            converted = format != "savedmodel"  # to operations, and a runtime, that are not TensorFlow's
            # Some TFLite files end the process that runs them.
            start = in_this_process if quick and not converted else in_a_process
            asked = in_float32(model) if converted else model
            report["computed_in"] = compute_dtype(asked)
            compare = functools.partial(prove, asked, kind=exporter.kind, quantize=quantize)
            with start(made, exporter.kind) as runtime:
                report |= compare(runtime, images, progress=progress, scored=not quick)
            texts = {name: f"{json_text(table, 1)}\n" for name, table in ((CLASSES, facts), (REPORT, report))}
            texts[CARD_FILE] = export_card(
                card or card_of_run(source), model.name, facts, report, unfinished_run(source) is not None
            )
            exporter.functions.embed(made, texts)
            if converted:  # the texts have changed the file
                with start(made, exporter.kind) as runtime:
                    compare(runtime, images.first(), scored=False)
        if layout == "server":
            made = _as_served(made, pathlib.Path(folder, "served"), path, exporter, facts, texts)
        _put(made, path, exporter, layout)


def _batches(images):
    return (image[np.newaxis] for image in images)


def _size_of(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _as_served(made, folder, path, exporter, facts, texts):
    """Return a folder that holds a written model as its server takes it, and the model's texts."""
    folder.mkdir()
    lay_out(made, folder, exporter, path.name, facts)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _put(made, path, exporter, layout):
    """Move what was written to its place, completely or not at all. A model card that is the user's stays."""
    if made.is_dir():
        last = last_of(exporter, path.name) if layout == "server" else exporter.last
        with replacing_content(path, own_paths(exporter), CLASSES, last) as folder:
            with writing(path):
                shutil.copytree(made, folder, dirs_exist_ok=True)
            if is_users(path / CARD_FILE):
                shutil.copyfile(path / CARD_FILE, folder / CARD_FILE)
        return
    with replacing(path) as temporary:
        shutil.copyfile(made, temporary)


@contextlib.contextmanager
def _ctrl_c_kept():
    """A block that ends with KeyboardInterrupt after a Ctrl-C, also where a callback of TensorFlow's swallowed it.

    Python ignores what is raised in a callback. Another handler than Python's own (that of a training run) is left.
    """
    own = signal.getsignal(signal.SIGINT)
    if own is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def note(number, frame):
        came.append(number)
        own(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
    if came:
        raise KeyboardInterrupt
