"""What is at the path that a user calls a model: found, and refused, before anything imports Keras."""

import glob
import os
import pathlib
import sys
import zipfile

from kseg.data.datasets.image_folders import holds_dataset
from kseg.data.records.manifest import MANIFEST
from kseg.inference.hub import local_path
from kseg.inference.label_marks import CLASSES_FILE
from kseg.inference.outside.description import describe_file
from kseg.inference.outside.file_kinds import KSEG, LABEL_MAPS, SEEDS, seed_runs
from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import reading
from kseg.io.text import count_text
from kseg.io.zips import DAMAGED
from kseg.runs.workdir import FLAGS_FILE, RunFolder, run_of

ZIP, HDF5 = b"PK", b"\x89HDF\r\n\x1a\n"  # how a .keras file begins, and one of an earlier Keras
_MODELS = (
    "Give a run folder, a .keras, ONNX or TFLite file, a SavedModel folder, a folder of label maps, or the description "
    "of one (docs/how-to/contestants.md)."
)
_OWN = "Give a run folder or a .keras file."


def described_model(path, offered=_MODELS):
    """Return the `outside.description.Description` of a path that `load_model` takes.

    Args:
        offered: what a message says that the user may give.
    Raises:
        FileNotFoundError: nothing there. ValueError: a description that cannot be, a folder that is no model.
    """
    path = local_path(path)
    if not path.exists():
        raise MissingFileError(f"No model at {path}: {offered[0].lower()}{offered[1:]}")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} must be a file or a folder, but is neither. {offered}")
    described = describe_file(path)
    if described.kind == KSEG:
        weights_file(described.file, offered)
    if described.kind == SEEDS:
        _check_finished(described.file)
    return described


def described_models(model):
    """Return the description of each path of a model or a list of them, as `described_model` does; none may be twice.

    A keras.Model is passed over. Anything else is refused while Keras is not imported, so that nothing can be one.
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    described = []
    for one in models:
        if isinstance(one, (str, os.PathLike)):
            described.append(described_model(one))
        elif "keras" not in sys.modules:
            raise no_model(one)
    check_differ(models)
    return described


def check_differ(models):
    """Raise InputError for a path that is twice in a list of models: it would count twice in their mean."""
    twice = next((one for one in models if isinstance(one, (str, os.PathLike)) and models.count(one) > 1), None)
    if twice is not None:
        raise InputError(f"Models of an ensemble must differ, but {twice} was given twice.")


def no_model(given):
    """Return the InputError for something that is given as a model and is none."""
    return InputError(f"model must be a keras.Model or the path of one, or a list of those, got {given!r}.")


def check_own_weights(path):
    """As `described_model`, but refuse all that `init_from` does not take: it needs a run folder or a .keras file."""
    described = described_model(path, offered=_OWN)
    if described.kind != KSEG:
        raise InputError(f"init_from must be a run folder or a .keras file, got {path} ({described.kind}). {_OWN}")


def check_labels_images(model):
    """As `described_models`; refuse a folder of label maps too: it cannot label other images."""
    for described in described_models(model):
        if described.kind == LABEL_MAPS:
            raise InputError(
                f"{described.file} holds PNG files alone: as a model it is a folder of label maps, which has "
                f"predictions of its own images and of no others. {_MODELS}"
            )


def unfinished_run(source):
    """Return the folder (pathlib.Path) of the run that a model is of and that has not finished; else None."""
    if source is None:
        return None
    run = run_of(local_path(source))
    if run.finished or not (run.workdir / FLAGS_FILE).exists():
        return None
    return run.workdir


def _check_finished(folder):
    """Raise InputError unless every run in the folder of a study's seeds has its scores, which it writes last."""
    unfinished = [run.name for run in seed_runs(folder) if not RunFolder(run).finished]
    if unfinished:
        raise InputError(
            f"{folder} is the mean of its runs, but these have not finished: {', '.join(unfinished)}. Continue the "
            "study, or name the runs that are to be averaged."
        )


def _is_of_label_maps(file):
    return file.suffix == ".png" or file.name == CLASSES_FILE or file.name.startswith(".")


def weights_file(path, offered=_MODELS):
    """Return the .keras file of a run folder, or that file itself; InputError for a folder without one."""
    if not path.is_dir():
        with reading(path), open(path, "rb") as file:
            begin = file.read(8)
        if not begin.startswith((ZIP, HDF5)):
            what = "does not begin as one does" if begin else "is empty"
            raise InputError(f"{path} is damaged or not a .keras file: it {what}. {offered}")
        _check_begun(path, begin, offered)
        return path
    kept = RunFolder(path).stored_model()
    if not kept.exists():
        # glob.glob passes over a folder that goes meanwhile; Path.glob raises.
        root = glob.escape(str(path))
        seeds = [pathlib.Path(seed) for n in range(1, 4) for seed in glob.glob(os.path.join(root, "*/" * n + "seed-*"))]
        if contestants := sorted({run.parent for run in seeds if (run / FLAGS_FILE).exists()}):
            raise InputError(
                f"{path} holds the seeds of {count_text(len(contestants), 'contestant')} of a study: give the folder "
                f"of one, such as {contestants[0]}."
            )
        if (path / FLAGS_FILE).exists():
            raise InputError(
                f"The run in {path} has not finished: there is no {kept.name} yet. Start its command again to "
                "continue it."
            )
        if (path / MANIFEST).exists():
            raise InputError(f"{path} is a record folder: it holds images, and no model. {offered}")
        if holds_dataset(path):
            raise InputError(f"{path} is a dataset's folder: it holds images and labels, and no model. {offered}")
        others = [file for file in sorted(path.iterdir()) if not _is_of_label_maps(file)]
        runs = [file for file in others if (file / FLAGS_FILE).exists()]
        other = f" (it holds {others[0].name})" if others else ""
        hint = f"Give one of the runs in it, such as {runs[0]}." if runs else offered
        raise InputError(
            f"{path} holds neither saved_model.pb nor {kept.name}, and not PNG files alone{other}: it is no model, no "
            f"scored run and no folder of label maps. {hint}"
        )
    return kept


def _check_begun(path, begin, offered):
    """Raise InputError for a file that begins as a .keras file does, but is none; deeper damage is Keras' to find."""
    if begin.startswith(HDF5):
        raise InputError(
            f"{path} begins as an HDF5 file, which Keras wrote before .keras. Load it with Keras and save it as a "
            ".keras file: keras.models.load_model(PATH).save('model.keras'). If it holds weights alone, build the "
            "model and call load_weights first."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED as error:
        raise InputError(f"{path} is damaged or not a .keras file: {error}. {offered}") from error
    if "config.json" not in names:
        raise InputError(f"{path} is a zip, but damaged or not a .keras file: it holds no config.json. {offered}")


def model_files(model):
    """Return the paths that no output may touch when a model is read: its own, and those of the run that it lies in.

    Args:
        model: a path that `load_model` takes, or a list of models; anything else (a keras.Model) is of no file.
    """
    if isinstance(model, (list, tuple)):
        return [file for one in model for file in model_files(one)]
    if not isinstance(model, (str, pathlib.Path)):
        return []
    path = local_path(model)
    if not path.exists():
        return [path]
    described = describe_file(path)
    if described.kind == SEEDS:
        return [file for run in seed_runs(described.file) for file in model_files(run)]
    if path not in described.file.parents:  # else it is a server's folder, all of which belongs to the model
        path = described.file
    others = [file for file in described.files if file != path]
    runs = [folder for folder in (path, path.absolute().parent) if (folder / FLAGS_FILE).exists()]
    parts = [part for folder in runs for part in RunFolder(folder).parts]
    if path in runs:
        return [*parts, *others]
    return [path, *parts, *others]
