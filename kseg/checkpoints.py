"""Checkpoints: a NumPy zip each (a torn one shows), written under a temporary name, synced, then renamed."""

import itertools
import json
import os
import pathlib
import re
import zipfile

import numpy as np

_FORMAT = "kseg-checkpoint-1"
_NAME = re.compile(r"step-(\d+)\.npz")


def save_checkpoint(folder, step, variables, state, keep=2):
    """Write the variables and the state of a run at `step`, then delete all but the `keep` newest checkpoints.

    Args:
        folder: the run's checkpoints folder, made if missing.
        step: optimizer steps done; it names the file.
        variables: dict of lists of keras.Variable, by what they belong to ("model", "optimizer", ...).
        state: JSON types, whatever else the run needs to go on.
        keep: how many of the newest stay.
    Returns:
        pathlib.Path of the checkpoint.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays, shapes = {}, {}
    for group, members in variables.items():
        shapes[group] = [list(variable.shape) for variable in members]
        arrays |= {f"{group}/{i}": np.asarray(variable.value) for i, variable in enumerate(members)}
    header = {"format": _FORMAT, "step": step, "shapes": shapes, "state": state}
    path = folder / f"step-{step:08}.npz"
    temporary = folder / f".tmp-{path.name}"
    with open(temporary, "wb") as file:
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder):
    """Return the paths of the checkpoints in a folder, oldest first; a missing folder has none."""
    folder = pathlib.Path(folder)
    found = [path for path in folder.glob("step-*.npz") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name)[1]))


def restore_checkpoint(path, variables):
    """Read a checkpoint into variables of the same shapes, all or none.

    Args:
        path: a file of `save_checkpoint`. variables: as there.
    Returns:
        (step, state)
    Raises:
        ValueError: the file is torn or foreign, or of another model; it names the file and the checkpoint before it.
    """
    path = pathlib.Path(path)
    earlier = [other.name for other in list_checkpoints(path.parent) if other.name < path.name]
    way_out = f"Delete it to go on from {earlier[-1]}." if earlier else "There is no earlier one: use a new workdir."
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(bytes(file["header"]))
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']!r}")
            arrays = {name: file[name] for name in file.files if name != "header"}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"Checkpoint {path} is torn or not one of kseg's ({error}). {way_out}") from error
    for group, members in variables.items():
        stored, wanted = header["shapes"].get(group, []), [list(variable.shape) for variable in members]
        if stored != wanted:  # names tell nothing: Keras numbers unnamed layers through the whole process
            differing = [pair for pair in itertools.zip_longest(stored, wanted) if pair[0] != pair[1]]
            raise ValueError(
                f"Checkpoint {path} is of another model or optimizer: of its {len(stored)} {group} variables and the "
                f"{len(wanted)} of this run {len(differing)} differ in shape, first {differing[0]}. {way_out}"
            )
    for group, members in variables.items():
        for i, variable in enumerate(members):
            variable.assign(arrays[f"{group}/{i}"])
    return header["step"], header["state"]
