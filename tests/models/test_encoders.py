"""Random VGG16 weights in every layout: the first maps must be those of the source network."""

import collections
import pickle
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from torch_files import write_state_dict

from kseg.models.pretrained import weights
from kseg.models.pretrained.torch_file import read_state_dict
from kseg.models.segnet import segnet

LAYERS = [f"block{block}_conv{i}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
TORCH = dict(zip(LAYERS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype="uint8")


@pytest.fixture(scope="module")
def vgg():
    """Keras' VGG16 with random weights, biases included."""
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.02, weight.shape) for weight in model.weights])
    return model


@pytest.fixture
def model():
    return segnet((32, 32, 3), 4, initializer="zeros")  # fast to build


def _first_maps(model, image, name="block1_conv1"):
    """The first convolution's maps after ReLU, which is part of the layer in Keras' VGG16 and not in ours."""
    layer = model.get_layer(name)
    maps = keras.Model(model.input, layer.output)(image)
    return np.maximum(maps, 0)


def _write_keras(path, vgg, style):
    if style == "weights.h5":
        vgg.save_weights(path)
        return
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if style == "whole model" else file
        for name in LAYERS:
            kernel, bias = vgg.get_layer(name).get_weights()
            keys = {"published": (f"{name}_W_1:0", f"{name}_b_1:0")}.get(style, (f"{name}/kernel:0", f"{name}/bias:0"))
            root[f"{name}/{keys[0]}"] = kernel
            root[f"{name}/{keys[1]}"] = bias
        root.create_group("block1_pool")


@pytest.mark.parametrize("style", ["published", "keras 2", "whole model", "weights.h5"])
def test_keras_layouts(style, vgg, model, tmp_path):
    path = tmp_path / ("vgg.weights.h5" if style == "weights.h5" else "vgg.h5")
    _write_keras(path, vgg, style)
    report = weights.load_encoder_weights(model, "vgg16", path)
    assert len(report["used"]) == 26 and report["unused"] == []
    reference = _first_maps(vgg, keras.applications.vgg16.preprocess_input(IMAGE.astype("float32")))
    np.testing.assert_allclose(_first_maps(model, IMAGE), reference, rtol=1e-3, atol=1e-3)
    for name in LAYERS[1:]:
        for ours, theirs in zip(model.get_layer(name).get_weights(), vgg.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_report_names_what_is_unused(vgg, model, tmp_path):
    _write_keras(tmp_path / "vgg.h5", vgg, "published")
    with h5py.File(tmp_path / "vgg.h5", "a") as file:
        file["predictions/predictions_W_1:0"] = np.zeros((4, 5))
    report = weights.load_encoder_weights(model, "vgg16", tmp_path / "vgg.h5")
    assert report["unused"] == ["predictions/predictions_W_1:0"]


def test_unfit_files_are_errors_that_name_every_array(vgg, model, tmp_path):
    before = model.get_weights()
    path = tmp_path / "vgg.h5"
    _write_keras(path, vgg, "keras 2")
    with h5py.File(path, "a") as file:
        del file["block2_conv1/block2_conv1/bias:0"]
        del file["block3_conv1/block3_conv1/kernel:0"]
        file["block3_conv1/block3_conv1/kernel:0"] = np.zeros((3, 3, 128, 255), "float32")
    text = r"block2_conv1/bias is missing; .*kernel:0 has shape \(3, 3, 128, 255\).* needs \(3, 3, 128, 256\)"
    with pytest.raises(ValueError, match=text):
        weights.load_encoder_weights(model, "vgg16", path)
    path.write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match="Cannot read .*vgg.h5 as HDF5"):
        weights.load_encoder_weights(model, "vgg16", path)
    with pytest.raises(FileNotFoundError, match="No encoder weights at .*none.h5"):
        weights.load_encoder_weights(model, "vgg16", tmp_path / "none.h5")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_narrow_encoder_is_an_error(vgg, tmp_path):
    _write_keras(tmp_path / "vgg.h5", vgg, "published")
    with pytest.raises(ValueError, match="build with base_filters=64"):
        segnet((32, 32, 3), 4, base_filters=16, encoder_weights=tmp_path / "vgg.h5")


def test_imagenet_without_a_network_says_what_to_put_where(model, monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure")  # what keras.utils.get_file raises

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        weights.load_encoder_weights(model, "vgg16", "imagenet")
    place = tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert "6d6bbae143d832006294945121d1f1fc" in str(error.value) and str(place) in str(error.value)


@pytest.fixture
def torch_state(vgg):
    """torchvision's names and layout (OIHW), with a classifier that the encoder has no use for."""
    state = collections.OrderedDict()
    for name, index in TORCH.items():
        kernel, bias = vgg.get_layer(name).get_weights()
        state[f"features.{index}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        state[f"features.{index}.bias"] = bias
    state["classifier.0.bias"] = np.zeros(7, "float32")
    return state


def _torch_reference(state):
    """The first maps of torchvision's network: RGB/255, mean and deviation, correlation, ReLU."""
    x = (IMAGE[0] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, C, 3, 3)
    maps = np.einsum("hwcij,ocij->hwo", windows, state["features.0.weight"]) + state["features.0.bias"]
    return np.maximum(maps, 0)[None]


def test_torchvision_layout_without_torch(torch_state, model, tmp_path):
    path = tmp_path / "vgg16.pth"
    write_state_dict(path, torch_state)
    report = weights.load_encoder_weights(model, "vgg16", path)
    assert len(report["used"]) == 26 and report["unused"] == ["classifier.0.bias"]
    np.testing.assert_allclose(_first_maps(model, IMAGE), _torch_reference(torch_state), rtol=1e-4, atol=1e-5)
    kernel = model.get_layer("block4_conv2").get_weights()[0]
    np.testing.assert_array_equal(kernel, torch_state["features.19.weight"].transpose(2, 3, 1, 0))


def test_a_pickle_that_asks_for_more_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("executed",)

    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Attack(), protocol=2))
    with pytest.raises(ValueError, match=re.escape("asks for __builtin__.print") + "|builtins.print"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", pickle.dumps({"a": 1}), b"\x80\x02]q\x00."])
def test_damaged_torch_files_are_errors(content, tmp_path):
    (tmp_path / "b.pth").write_bytes(content)
    with pytest.raises(ValueError, match="b.pth"):
        read_state_dict(tmp_path / "b.pth")


def test_torn_storage_is_an_error(torch_state, tmp_path):
    path = tmp_path / "c.pth"
    state = {"features.0.bias": torch_state["features.0.bias"]}
    write_state_dict(path, state)
    short = tmp_path / "short.pth"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(short, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name)[: 100 if "/data/" in name else None])
    np.testing.assert_array_equal(read_state_dict(path)["features.0.bias"], state["features.0.bias"])
    with pytest.raises(ValueError, match="Cannot read .*short.pth as a PyTorch state dict"):
        read_state_dict(short)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_files_of_pytorch_itself(zipped, model, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    convolutions = []
    channels = 3
    for name in LAYERS:
        width = 64 * 2 ** min(int(name[5]) - 1, 3)
        convolutions.append((name, torch.nn.Conv2d(channels, width, 3, padding=1)))
        channels = width
    state = {f"features.{TORCH[name]}.{k}": v for name, c in convolutions for k, v in c.state_dict().items()}
    path = tmp_path / "vgg16.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert len(weights.load_encoder_weights(model, "vgg16", path)["used"]) == 26
    mean, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.tensor(IMAGE) / 255 - mean) / scale).permute(0, 3, 1, 2)
    reference = torch.relu(convolutions[0][1](x)).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(_first_maps(model, IMAGE), reference, rtol=1e-4, atol=1e-5)
