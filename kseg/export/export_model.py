"""`kseg.export_model`: write a model in a format of other programs, prove it, and only then put it into its place."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
from typing import Any, Literal

import keras
import numpy as np

from kseg.export import EXPORTERS
from kseg.export.checked_output import checked_output
from kseg.export.export_card import card_of_run, export_card
from kseg.export.exported_facts import checked_model
from kseg.export.layouts import last_of, lay_out, own_paths
from kseg.export.proof import in_a_process, in_this_process, prove
from kseg.export.proof_images import IMAGES, ProofImages, calibration_images, images_for
from kseg.export.serving import compute_dtype, in_float32
from kseg.inference.compatibility import warn_of_other_records
from kseg.inference.model_paths import unfinished_run
from kseg.inference.outside.carried_files import CLASSES, REPORT, carried_table
from kseg.inference.outside.file_kinds import model_in
from kseg.io.errors import InputError
from kseg.io.files import (
    StrPath,
    json_text,
    replacing,
    replacing_content,
    writing,
)
from kseg.io.text import bytes_text
from kseg.runs.model_card import CARD_FILE, is_users

QUICK_IMAGES = 3


def export_model(
    model: keras.Model | StrPath,
    path: StrPath,
    *,
    format: str = "savedmodel",
    quantize: Literal["float16", "int8"] | None = None,
    layout: Literal["plain", "server"] = "plain",
    calibration_data: StrPath | None = None,
    data_dir: StrPath | None = None,
    label_set: dict[str, Any] | None = None,
    quick: bool = False,
    images: ProofImages | None = None,
    card: str | None = None,
    progress: bool = False,
) -> pathlib.Path:
    """Write a model for programs that have no kseg, prove that it does the same, and return the path.

    What is written takes images uint8 (B, H, W, 3), RGB, of any size, and gives labels uint8 (B, H, W) and confidence
    float32 (B, H, W), the probability of the label. Normalisation, resizing and padding are inside, and so are three
    texts: classes.json (names, colours, the dataset's own ids), report.json (the proof) and README.md (the model card).
    docs/how-to/export.md shows how to use them.

    The proof: the format's own runtime opens the file in a fresh process, without kseg, and labels at least 20 images
    of three sizes in two batch sizes; labels, confidences and the mean IoU on the validation split must be Keras'
    within `kseg.export.proof.LIMITS`. Otherwise nothing is written.

    Args:
        model: keras.Model that gives logits, a run folder or a .keras file.
        path: the file or folder to write: new, or an earlier export of kseg's, which is replaced when the new one is
            proved. A link stays a link.
        format: a key of `kseg.export.EXPORTERS`. quantize: None, "float16" or "int8".
        layout: "server" for a folder that a server takes as it is: TensorFlow Serving that of a savedmodel, Triton that
            of an onnx, a model repository whose model has the folder's name.
        calibration_data: for int8: a record folder (its training split) or a folder of photographs.
        data_dir: record folder or folder of photographs to prove it on; None: the records of the run, else streets
            that kseg draws.
        label_set: dict of name, classes and palette, if the model does not carry it.
        quick: prove it on three images, a SavedModel in this process, without scores and times, as a training run does
            at its end.
        images: `kseg.export.proof_images.ProofImages` in place of all of these. card: the model card of its run
            (Markdown as kseg writes it); None: README.md of the finished run that `model` names. progress: show a bar.
    Returns:
        pathlib.Path
    Raises:
        ValueError: the export does not do what the model does (kseg.export.proof.ExportError); no class names; a
            backend other than TensorFlow; a file or folder that holds something else; one that is, holds or lies in
            what is read; a package that is missing.
        OSError: it could not be written; what was there stays. KeyboardInterrupt: after Ctrl-C, likewise.
        FloatingPointError: a weight is nan or infinite; it names the weight.
    """
    path = checked_output(model, path, format, quantize, layout, data_dir, calibration_data)
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
    return path


def export_saved_model(
    model: keras.Model | StrPath,
    path: StrPath,
    *,
    label_set: dict[str, Any] | None = None,
    images: ProofImages | None = None,
    card: str | None = None,
) -> pathlib.Path:
    """Write a SavedModel that takes images of any size: `export_model` with the quick proof.

    Args:
        model, path, label_set, images, card: as in `export_model`.
    Returns:
        pathlib.Path of the folder.
    Raises:
        As `export_model`.
    """
    return export_model(model, path, label_set=label_set, quick=True, images=images, card=card)


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


def _memory(latency):
    peak = latency["peak_memory_bytes"]
    return f", at most {peak / 1e6:.0f} MB of memory" if peak else ""


def summary(path, format):
    """Return in lines what the report inside an export says."""
    report = carried_table(model_in(path), EXPORTERS[format].kind, REPORT)
    agreement = report["agreement"]
    latency = report["latency"]
    lines = [
        f"Proved on {report['images']}: {agreement['pixels']:.3%} of the pixels have Keras' label.",
        f"{bytes_text(report['bytes'])}; {latency['width']}x{latency['height']} in {latency['median_ms']:.1f} ms "
        f"(quartiles {latency['quartiles_ms'][0]:.1f} to {latency['quartiles_ms'][1]:.1f}){_memory(latency)}.",
    ]
    if report["scores"]:
        scores = report["scores"]
        lines.insert(
            1,
            f"Mean IoU on the {scores['images']} images of split {scores['split']}: {scores['mean_iou']:.4f}, Keras' "
            f"{scores['keras_mean_iou']:.4f}.",
        )
    if len(agreement["classes_seen"]) < 2:
        lines.append(
            f"All of these pixels are of one class ({', '.join(agreement['classes_seen'])}), so this proves little."
        )
    return "\n".join([*lines, *report["notes"]])
