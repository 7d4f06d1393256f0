"""Files as `torch.save` writes them, where there is no PyTorch."""

import collections
import pickle
import sys
import types
import zipfile

import numpy as np


class _Persistent(pickle.Pickler):
    """Writes storages as torch.save does: by reference, with a class of module `torch`."""

    def persistent_id(self, thing):
        return thing.pid if isinstance(thing, _Storage) else None


class _Storage:
    def __init__(self, key, count):
        self.pid = ("storage", _fake("torch", "FloatStorage"), key, "cpu", count)


class _Tensor:
    def __init__(self, key, shape):
        self.key = key
        self.shape = shape

    def __reduce__(self):
        count = int(np.prod(self.shape))
        strides = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        storage = _Storage(self.key, count)
        return _fake("torch._utils", "_rebuild_tensor_v2"), (storage, 0, self.shape, strides, False, {})


def _fake(module, name):
    """A function that pickles as `module.name`; PyTorch itself need not be there."""
    return getattr(_FAKES[module], name)


def _fake_modules():
    modules = {}
    for module, name in (("torch", "FloatStorage"), ("torch._utils", "_rebuild_tensor_v2")):
        modules[module] = types.ModuleType(module)
        thing = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(modules[module], name, thing)
    return modules


_FAKES = _fake_modules()


def write_state_dict(path, state):
    """Write {name: float32 array} as the zip file of PyTorch 1.6 and later."""
    before = {name: sys.modules.get(name) for name in _FAKES}
    sys.modules.update(_FAKES)
    tensors = collections.OrderedDict((name, _Tensor(str(i), a.shape)) for i, (name, a) in enumerate(state.items()))
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("vgg16/data.pkl", "w") as file:
                _Persistent(file, protocol=2).dump(tensors)
            archive.writestr("vgg16/byteorder", "little")
            for i, array in enumerate(state.values()):
                archive.writestr(f"vgg16/data/{i}", array.astype("<f4").tobytes())
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
