"""`kseg.export_model`: refuse what can be refused while Keras is not imported; then write and prove the export."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any, Literal

from kseg.export import EXPORTERS
from kseg.export.checked_output import checked_output
from kseg.inference.outside.carried_files import REPORT, carried_table
from kseg.inference.outside.file_kinds import model_in
from kseg.io.files import StrPath
from kseg.io.text import bytes_text

if TYPE_CHECKING:
    import keras

    from kseg.export.proof_images import ProofImages


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
    from kseg.export.writing import write_export

    write_export(
        model,
        path,
        format=format,
        quantize=quantize,
        layout=layout,
        calibration_data=calibration_data,
        data_dir=data_dir,
        label_set=label_set,
        quick=quick,
        images=images,
        card=card,
        progress=progress,
    )
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
