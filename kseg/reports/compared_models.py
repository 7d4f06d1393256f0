"""What a comparison is of: the models, by names that differ. Nothing here imports Keras."""

import pathlib

from kseg.data.records.manifest import record_files
from kseg.inference.hub import hub_name, on_hub
from kseg.inference.model_paths import model_files
from kseg.inference.outside.file_kinds import SEED, seed_runs
from kseg.io.errors import InputError
from kseg.io.files import checked_path, reading
from kseg.io.outputs import refuse_inputs
from kseg.reports.page.output_folder import check_folder


def checked_models(models, data_dir, output):
    """Return name -> model or path; refuse what cannot be compared, and an output where no page can be.

    Args: as those of `kseg.reports.comparison.compare`.
    Raises:
        InputError: fewer than two models, a model twice, an output that is read or that holds other things.
    """
    named = _named(models)
    output, data_dir = checked_path(output, "output"), checked_path(data_dir, "data_dir")
    read = [path for model in named.values() for path in model_files(model)]
    refuse_inputs([output], [*read, *record_files(data_dir)])
    check_folder(output)
    return named


def _named(models):
    if not isinstance(models, (dict, list, tuple)) or (
        isinstance(models, dict) and not all(isinstance(name, str) for name in models)
    ):
        raise InputError(f"models must be a list of paths, or a dict of name -> model or path, got {models!r}.")
    if isinstance(models, dict):
        named = dict(models)
    else:
        paths = [path if on_hub(path) else checked_path(path, "a model of a list") for path in models]
        named = short_names(paths) if paths else {}
    if len(named) < 2:
        raise InputError(f"A comparison needs two models or more, got {len(named)}: {', '.join(named) or 'none'}.")
    return named


def short_names(paths):
    """Return name -> path: the last parts of each path, as few as say which model it is and make the names differ."""
    parts = [_parts(path) for path in paths]
    twice = next((path for path, own in zip(paths, parts, strict=True) if parts.count(own) > 1), None)
    if twice is not None:
        raise InputError(f"Models must be different, but {twice} was given twice.")
    least = [_least(path, own) for path, own in zip(paths, parts, strict=True)]
    for more in range(max(map(len, parts))):
        names = ["/".join(own[-(count + more) :]) for own, count in zip(parts, least, strict=True)]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, paths, strict=True))


def _parts(path):
    if on_hub(path):
        return tuple(hub_name(path).split("/"))
    return pathlib.Path(path).absolute().parts


def _least(path, parts):
    """Return how many of the last parts of a path say which model it is.

    In a study that is MODEL/DATA for the folder of the seeds, and MODEL/DATA/seed-0 for one of its runs.
    """
    least = 1 + (parts[-1] in {"best.keras", "last.keras", "saved_model"})  # every run has those
    if SEED.fullmatch(parts[-least]):
        return least + 2
    folder = pathlib.Path(path)
    with reading(folder):
        return least + (not on_hub(path) and folder.is_dir() and bool(seed_runs(folder)))
