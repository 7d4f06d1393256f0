"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without running code from its pickle.

Two formats are read: the zip file of PyTorch 1.6 and later, and the stream of pickles before it (as in
torchvision's older files). The unpickler knows the names that a state dict needs; any other is an error.
"""

import collections
import functools
import io
import pickle
import struct
import zipfile
import zlib

import numpy as np

from kseg.io.errors import InputError
from kseg.io.zips import check_unpacked, read_member

# What unpickling arbitrary bytes out of an arbitrary zip may raise.
_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError)
_DAMAGED += (TypeError, AttributeError, RuntimeError, OverflowError, OSError)  # a place beyond the end
_MAGIC = 0x1950A86A20F9469CFC6C  # opens the stream of pickles
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


def _tensor(storage, offset, size, stride, *_):
    """The view that a tensor is of its storage; refused where it would reach outside."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or min(stride, default=0) < 0 or (0 not in size and last >= storage.size):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} lies outside its storage")
    if 0 in size:
        return np.empty(size, storage.dtype)
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _parameter(data, *_):
    return data


_NAMES = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Admits the names of a state dict; `storage(key, dtype, count)` gives the array of a storage."""

    def __init__(self, file, storage):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module, name):
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a state dict does not need")
        return _NAMES[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or (view and view[0] is not None):
            raise pickle.UnpicklingError("it holds a storage of a type that is not supported")
        return self._storage(str(key), dtype, int(count))


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        check_unpacked(archive, path)
        most = sum(member.file_size for member in archive.infolist())
        content = functools.cache(functools.partial(read_member, archive, most=most))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("it is a zip file without the data.pkl of a PyTorch checkpoint")
        root = pickles[0][: -len("data.pkl")]
        if f"{root}byteorder" in archive.namelist() and content(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("it was written on a big-endian machine")

        def storage(key, dtype, count):
            return np.frombuffer(content(f"{root}data/{key}"), dtype, count)

        return _Unpickler(io.BytesIO(content(pickles[0])), storage).load()


def _read_stream(path):
    storages = {}

    def storage(key, dtype, count):
        # The bytes come after all the pickles: tensors are views of an array that is filled below.
        if key not in storages:
            claimed = count * dtype.itemsize + sum(array.nbytes for array in storages.values())
            if count < 0 or claimed > path.stat().st_size:
                raise pickle.UnpicklingError(f"storage {key} is larger than the file")
            storages[key] = np.empty(count, dtype)
        return storages[key]

    with path.open("rb") as file:
        if _Unpickler(file, storage).load() != _MAGIC:
            raise pickle.UnpicklingError("it is not a PyTorch checkpoint")
        _Unpickler(file, storage).load()  # protocol version
        _Unpickler(file, storage).load()  # sizes of the writing machine's types
        state = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            count = int.from_bytes(file.read(8), "little")
            array = storages[str(key)]
            data = file.read(array.nbytes)
            if count != array.size or len(data) != array.nbytes:
                raise EOFError(f"storage {key} is incomplete")
            array[:] = np.frombuffer(data, array.dtype)
    return state


def read_state_dict(path):
    """Reads the arrays of a PyTorch state dict file (`torch.save(model.state_dict(), path)`).

    Args: `path`: pathlib.Path of a .pth file. Nothing in it is executed, and PyTorch is not needed.
    Returns: dict from name to numpy array.
    Raises: ValueError if the file is damaged or anything else than a state dict of dense tensors.
    """
    try:
        state = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except _DAMAGED as error:
        raise InputError(
            f"Cannot read {path} as a PyTorch state dict: {error}. "
            "Save it with torch.save(model.state_dict(), path), or get the file anew."
        ) from error
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise InputError(f"{path} holds no tensors by name. Save it with torch.save(model.state_dict(), path).")
    return arrays
