"""Checkpoints: a NumPy zip each (a torn one shows), written under a temporary name, synced, then renamed."""

import dataclasses
import io
import itertools
import json
import math
import pathlib
import re
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np

from kseg.io.errors import InputError
from kseg.io.files import replacing
from kseg.io.zips import check_unpacked

_FORMAT = "kseg-checkpoint-1"
_NAME = re.compile(r"step-(\d+)\.npz")
# What reading a file of arbitrary bytes as a zip of arrays may raise.
_BROKEN = (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, RuntimeError, zipfile.BadZipFile)
_BROKEN += (zlib.error, struct.error, SyntaxError, OverflowError, tokenize.TokenError)


@dataclasses.dataclass
class TrainState:
    """The state of a run: what a checkpoint holds besides the variables, and what the loop over epochs carries along.

    step: optimizer steps done. total_steps: those of the whole run; None if an earlier kseg did not store it.
    best, best_epoch: the best value so far of what chooses the epoch, and the epoch from which patience counts: the one
    of that value, or the one at which a run that patience had ended was extended.
    history: a row for each finished epoch. stopped: whether the run ended before its last step.
    sums: what the current epoch has added up (`Trainer.sums`), kept until it is validated. cut: the same for an epoch
    that the end of the run cuts short.
    normalization: (mean, scale) of the model's Preprocess layer, None without one; UNKNOWN if an earlier kseg did not
    store it.
    """

    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stopped: bool = False
    sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    cut: dict[str, Any] | None = None
    total_steps: int | None = None
    normalization: list[Any] | str | None = None


UNKNOWN = "unknown"
_NAMES = {"sums": "epoch"}  # of what a file calls otherwise


def save_checkpoint(folder, state, variables):
    """Write the state of a run and its variables, then delete all but the two newest checkpoints.

    Args:
        folder: the run's checkpoints folder, made if missing.
        state: TrainState, JSON types in all its fields; its step names the file.
        variables: dict of lists of keras.Variable, by what they belong to ("model", "optimizer", ...).
    Returns:
        pathlib.Path of the checkpoint.
    Raises:
        OSError: it could not be written; the earlier checkpoints stay.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    shapes = {}
    for group, members in variables.items():
        shapes[group] = [list(variable.shape) for variable in members]
        arrays |= {f"{group}/{i}": np.asarray(variable.value) for i, variable in enumerate(members)}
    values = {_NAMES.get(name, name): value for name, value in vars(state).items() if name != "step"}
    header = {"format": _FORMAT, "step": state.step, "shapes": shapes, "state": values}
    path = folder / f"step-{state.step:08}.npz"
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    for old in list_checkpoints(folder)[:-2]:
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
        TrainState
    Raises:
        ValueError: the file is torn, not from kseg, or of another model; names the file and the checkpoint before it.
    """
    path = pathlib.Path(path)
    earlier = [other.name for other in list_checkpoints(path.parent) if other.name < path.name]
    way_out = "There is no earlier one: use a new workdir."
    if earlier:
        way_out = f"Delete it to continue from {earlier[-1]}."
    try:
        header, arrays = _read(path)
    except _BROKEN as error:
        raise InputError(f"Checkpoint {path} is torn or not from kseg ({error}). {way_out}") from error
    if missing := [group for group in variables if group not in header["shapes"]]:
        raise InputError(
            f"Checkpoint {path} holds no {missing[0]} variables: another version of kseg wrote it. Use a new workdir; "
            "init_from starts it from the weights of this run's best.keras or last.keras."
        )
    for group, members in variables.items():
        stored = header["shapes"][group]
        wanted = [list(variable.shape) for variable in members]
        if stored != wanted:  # names tell nothing: Keras numbers unnamed layers through the whole process
            differing = [pair for pair in itertools.zip_longest(stored, wanted) if pair[0] != pair[1]]
            raise InputError(
                f"Checkpoint {path} is of another model or optimizer: it has {len(stored)} {group} variables, this run "
                f"has {len(wanted)}; {len(differing)} differ in shape, first {differing[0]}. {way_out}"
            )
    for group, members in variables.items():
        for i, variable in enumerate(members):
            variable.assign(arrays[f"{group}/{i}"])
    return header["state"]


def _read(path):
    """Return (header, arrays) of a checkpoint, each of the shape that the header gives it.

    Each member is read to its end, where zipfile compares its checksum; np.load stops where an array's own header says.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise InputError("it is compressed")
        check_unpacked(archive, path)
        arrays = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in archive.infolist()}
    header = json.loads(bytes(arrays.pop("header")))
    if header["format"] != _FORMAT:
        raise InputError(f"format {header['format']!r}")
    wanted = {f"{group}/{i}": s for group, shapes in header["shapes"].items() for i, s in enumerate(shapes)}
    if wanted != {name: list(array.shape) for name, array in arrays.items()} or not isinstance(header["state"], dict):
        raise InputError("its arrays are not those of its header")
    state = TrainState(int(header["step"]), normalization=UNKNOWN)
    for field in list(vars(state))[1:]:
        setattr(state, field, header["state"].get(_NAMES.get(field, field), getattr(state, field)))
    return {**header, "state": state}, arrays


def _array(data):
    """Return the array of a .npy file, without room for more than the file has."""
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise InputError(f"{len(data) - file.tell()} bytes do not make an array of shape {shape} and type {dtype}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
