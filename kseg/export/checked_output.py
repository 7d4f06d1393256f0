"""What an export is asked for: its format, numbers and place. Nothing here imports Keras."""

import importlib.util
import os
import pathlib

from kseg.data.datasets.listing import walk_files
from kseg.data.records.manifest import record_files
from kseg.export import EXPORTERS, LAYOUTS
from kseg.export.layouts import own_paths
from kseg.inference.model_paths import described_model, model_files
from kseg.inference.outside.carried_files import CLASSES, carried_table
from kseg.inference.outside.file_kinds import KSEG, SEEDS, kind_of
from kseg.io.errors import InputError
from kseg.io.files import check_own, checked_path, is_url
from kseg.io.images import IMAGE_EXTENSIONS
from kseg.io.outputs import refuse_inputs
from kseg.io.text import checked_name

ALREADY = "A model is exported from its run folder or its .keras file, but this one is read as {}{}. Give one of those."
_SUFFIXES = (".keras", ".h5", ".hdf5", ".pb", ".tflite", ".onnx", ".pt", ".pth", ".zip")


def checked_output(model, path, format, quantize=None, layout="plain", data_dir=None, calibration_data=None):
    """Return the path of an export (pathlib.Path) if it can be written there; arguments as of `export_model`.

    Raises:
        InputError: a format, or what it cannot do; a place that is an input, of another kind, or not kseg's.
    """
    exporter = _chosen(format, quantize, calibration_data, layout)
    path = pathlib.Path(checked_path(path, "path"))
    for folder in filter(None, (data_dir, calibration_data)):
        if not has_records(folder):
            photographs(folder)
    if isinstance(model, (str, os.PathLike)):
        described = described_model(model)
        if described.kind not in (KSEG, SEEDS):
            raise InputError(ALREADY.format(described.kind, f", got {model}"))
    # A run's SavedModel is no input: its weights are read from the .keras file.
    files = [file for file in model_files(model) if file.name != "saved_model"]
    refuse_inputs([path], [*files, *(folder for folder in (data_dir, calibration_data) if folder)])
    _check_place(path, exporter, format, layout)
    return path


def has_records(data):
    """Whether a folder holds records."""
    return is_url(data) or any(map(os.path.exists, record_files(data)))


def photographs(folder):
    """Return the paths (pathlib.Path) of the photographs in a folder; InputError for another place, and for none."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder} must be a record folder or a folder of photographs, but there is no such folder.")
    paths = [pathlib.Path(path) for path in walk_files(str(folder)) if path.lower().endswith(IMAGE_EXTENSIONS)]
    if not paths:
        raise InputError(
            f"{folder} holds neither records nor photographs ({', '.join(IMAGE_EXTENSIONS)}). Give a record folder "
            "(kseg prepare writes one) or a folder of photographs."
        )
    return sorted(paths)


def _chosen(format, quantize, calibration_data, layout):
    """Return the Exporter; InputError for another one, or what it cannot do."""
    if format not in tuple(EXPORTERS):
        raise InputError(f"format must be one of {', '.join(EXPORTERS)}, got {format!r}.")
    exporter = EXPORTERS[format]
    if quantize is not None and quantize not in exporter.quantize:
        takers = [name for name, one in EXPORTERS.items() if quantize in one.quantize]
        able = ", ".join(exporter.quantize) or "float32 alone"
        raise InputError(
            f"Format {format} holds {able}, got quantize={quantize!r}. "
            f"Formats with {quantize}: {', '.join(takers) or 'none'}."
        )
    if layout not in LAYOUTS:
        raise InputError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
    if layout == "server" and not exporter.server:
        able = [f"{name} ({one.server})" for name, one in EXPORTERS.items() if one.server]
        raise InputError(f"No server takes format {format} as it is. Formats with layout server: {', '.join(able)}.")
    if (quantize == "int8") != (calibration_data is not None):
        raise InputError(
            "quantize='int8' and calibration_data go together: int8 is fitted to the values that real images give. "
            "Give the record folder that the model was trained on, or a folder of photographs."
        )
    _check_installed(exporter, format)
    return exporter


def _check_installed(exporter, format):
    for package in exporter.needs:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"This export needs the package {package}. Install it with pip install 'kseg[{format}]'.")


def _check_place(path, exporter, format, layout):
    """Refuse a path that is not one of this format, or that holds what kseg did not export."""
    if layout == "server":
        checked_name(path.name)
    if not exporter.suffix or layout == "server":
        if path.suffix in _SUFFIXES:
            other = next((name for name, one in EXPORTERS.items() if one.suffix == path.suffix), None)
            advice = f" Format {other} writes such a file." if other and layout == "plain" else ""
            raise InputError(
                f"Format {format} writes a folder, whose name must not end in {path.suffix}, got {path}.{advice}"
            )
        check_own(pathlib.Path(os.path.realpath(path)), own_paths(exporter), CLASSES)
        return
    if path.suffix != exporter.suffix:
        raise InputError(f"A file of format {format} must end in {exporter.suffix}, got {path}.")
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise InputError(f"{path} must be a file, but is something else. Choose another output.")
    if kind_of(path) != exporter.kind or carried_table(path, exporter.kind) is None:
        raise InputError(f"{path} is there already, and kseg did not export it. Choose another output, or remove it.")
