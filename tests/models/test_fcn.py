"""FCN and ParseNet on VGG16: counts, which maps are joined, dilation, and VGG16's dense layers as convolutions."""

import logging

import h5py
import keras
import numpy as np
import pytest

from kseg.models import fcn
from kseg.models.backbones import vgg
from kseg.models.pretrained import weights as encoders

BUILDERS = {"fcn32s": fcn.fcn32s, "fcn16s": fcn.fcn16s, "fcn8s": fcn.fcn8s, "parsenet": fcn.parsenet}
LAYERS = [f"block{block}_conv{i}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]


def _random(model, seed=0):
    """Weights that are not the initial ones, biases included, of a size that keeps maps of size 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        fan_in = int(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 25
        weight.assign(rng.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    return model


def _count(name, n, classes):
    """Parameters with n base filters: each convolution's kernel and bias, the two scales of ParseNet."""
    widths = [1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8]
    pairs = zip([3] + [n * width for width in widths], [n * width for width in widths], strict=False)
    encoder = sum(9 * i * o + o for i, o in pairs)
    dense = 49 * 8 * n * 64 * n + 64 * n + (64 * n) ** 2 + 64 * n
    upsample = 16 * classes**2

    def score(channels):
        return channels * classes + classes

    head = {
        "fcn32s": score(64 * n),
        "fcn16s": score(64 * n) + score(8 * n) + upsample,
        "fcn8s": score(64 * n) + score(8 * n) + score(4 * n) + 2 * upsample,
        "parsenet": score(2 * 64 * n) + 2 * 64 * n,
    }
    return encoder + dense + head[name]


def test_parameter_counts():
    # At full width VGG16 without its last layer has 134,260,544 parameters, 14,714,688 in the 13 convolutions.
    assert _count("fcn32s", 64, 34) == 134_260_544 + 4096 * 34 + 34
    for name in ("fcn32s", "fcn16s", "parsenet"):
        assert BUILDERS[name]((32, 32, 3), 34, base_filters=4).count_params() == _count(name, 4, 34)
    assert fcn.fcn8s((32, 32, 3), 34, initializer="zeros").count_params() == _count("fcn8s", 64, 34)


@pytest.mark.parametrize(
    "name, pools", [("fcn32s", ()), ("fcn16s", ("pool4",)), ("fcn8s", ("pool4", "pool3")), ("parsenet", None)]
)
def test_which_maps_are_joined(name, pools):
    model = BUILDERS[name]((64, 96, 3), 5, base_filters=2, seed=7)
    get = model.get_layer
    assert get("fc6").kernel.shape == (7, 7, 16, 128) and get("fc7").kernel.shape == (1, 1, 128, 128)
    assert get("fc6").input is get("block5_pool").output and get("fc6").input.shape == (None, 2, 3, 16)
    assert get("fc7").input is get("fc6_dropout").output
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [(layer.rate, layer.seed) for layer in dropouts] == [(0.5, 7), (0.5, 8)]
    if pools is None:
        scores = get("score").output
        assert get("norm_map").input is get("mean").input is get("fc7_dropout").output
        assert get("norm_image").input is get("mean").output and get("mean").output.shape == (None, 128)
        assert get("score_image").input.shape == (None, 1, 1, 128)
    else:
        scores = get("score_fc7").output
        assert get("score_fc7").input is get("fc7_dropout").output
    for pool in pools or ():
        assert get(f"upsample_{pool}").input is scores
        assert get(f"score_{pool}").input is get(f"block{pool[-1]}_pool").output
        left, right = get(f"add_{pool}").input
        assert (left, right) == (get(f"upsample_{pool}").output, get(f"score_{pool}").output)
        scores = get(f"add_{pool}").output
    last = model.layers[-1]
    assert last.input is scores and last.output.shape == (None, 64, 96, 5)
    assert last.weights == [] and last.interpolation == "bilinear"  # the last upsampling is not learned
    assert last.size == (32 // 2 ** len(pools or ()),) * 2
    assert not any(layer.name.startswith(("score_", "upsample_")) and not layer.trainable for layer in model.layers)
    assert "fc6_dropout" not in {x.name for x in BUILDERS[name]((32, 32, 3), 2, base_filters=2, dropout=0).layers}


@pytest.mark.parametrize("layer", ["upsample_pool4", "logits"])
def test_upsampled_ramps_stay_linear_inside(layer):
    # Output i of a layer that multiplies by f lies at (i + .5) / f - .5 of the input; class c has the slope c + 1.
    layer = fcn.fcn16s((64, 64, 3), 3, base_filters=2).get_layer(layer)
    factor, size = (2, 6) if layer.name != "logits" else (16, 6)
    place = np.arange(size)[:, None] + 10 * np.arange(size)
    x = (place[..., None] * np.array([1, 2, 3]))[None].astype("float32")
    line = (np.arange(size * factor) + 0.5) / factor - 0.5
    expected = (line[:, None] + 10 * line)[..., None] * np.array([1, 2, 3])
    inside = slice(factor, -factor)
    np.testing.assert_allclose(layer(x)[0, inside, inside], expected[inside, inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilated_vgg16_has_the_maps_of_the_strided_one(output_stride):
    def build(stride):
        image = keras.Input((64, 96, 3))
        return keras.Model(image, vgg.vgg16(image, 2, output_stride=stride, initializer="he_normal")["out"])

    strided = _random(build(32))
    dilated = build(output_stride)
    dilated.set_weights(strided.get_weights())
    image = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype("float32")
    dense = dilated(image)
    step = 32 // output_stride
    assert dense.shape == (1, 64 // output_stride, 96 // output_stride, 16)
    expected = strided(image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(dense[:, ::step, ::step], expected, rtol=1e-4, atol=1e-5)
    strides = {layer.name: layer.strides for layer in dilated.layers if isinstance(layer, keras.layers.MaxPooling2D)}
    assert [strides[f"block{i}_pool"] for i in (1, 2, 3)] == [(2, 2)] * 3
    rates = {dilated.get_layer(f"block5_conv{i}").dilation_rate for i in (1, 2, 3)}
    assert rates == {(16 // output_stride,) * 2}


def test_another_output_stride_is_an_error():
    with pytest.raises(ValueError, match="output_stride must be one of 8, 16, 32, got 4"):
        vgg.vgg16(keras.Input((32, 32, 3)), 2, output_stride=4, initializer="zeros")


def test_parsenet_starts_with_two_different_kernels():
    model = fcn.parsenet((64, 64, 3), 3, base_filters=2)
    kernels = [np.asarray(model.get_layer(name).kernel) for name in ("score_map", "score_image")]
    assert kernels[0].shape == kernels[1].shape and not np.isclose(*kernels).any()


def test_parsenet_scores_the_normalised_map_beside_the_normalised_mean():
    model = _random(fcn.parsenet((64, 64, 3), 3, base_filters=2))
    for key in ("norm_map", "norm_image"):
        model.get_layer(key).gamma.assign(np.random.default_rng(3).uniform(1, 10, 128))
    parts = keras.Model(model.input, [model.get_layer("fc7_relu").output, model.get_layer("score").output])
    x, scores = (np.asarray(y, "float64") for y in parts(np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3))))
    both = np.concatenate([x, np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)], -1)
    gammas = [np.asarray(model.get_layer(key).gamma) for key in ("norm_map", "norm_image")]
    unit = [v / np.sqrt((v**2).sum(-1, keepdims=True) + 1e-6) for v in np.split(both, 2, -1)]
    joined = np.concatenate([v * gamma for v, gamma in zip(unit, gammas, strict=True)], -1)
    kernel = np.concatenate([model.get_layer(f"score_{key}").kernel for key in ("map", "image")], 2)[0, 0]
    expected = joined @ kernel + np.asarray(model.get_layer("score_map").bias)
    assert np.ptp(x, (1, 2)).max() > 0.01  # a map that is not constant
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


# ---- VGG16's dense layers as convolutions


def _dense(seed=4):
    """fc1 and fc2 of a VGG16 of 4 base filters: 7 x 7 x 32 values to 256, and 256 to 256. (in, out)."""
    rng = np.random.default_rng(seed)
    shapes = {"fc1": (7 * 7 * 32, 256), "fc2": (256, 256)}
    return {
        name: (rng.normal(0, 0.02, s).astype("f4"), rng.normal(0, 0.1, s[1:]).astype("f4"))
        for name, s in shapes.items()
    }


def _convolutions():
    model = _random(fcn.fcn32s((32, 32, 3), 2, base_filters=4))
    return {name: model.get_layer(name).get_weights() for name in LAYERS}


def _write(path, layers):
    with h5py.File(path, "w") as file:
        for name, (kernel, bias) in layers.items():
            file[f"{name}/{name}_W_1:0"] = kernel
            file[f"{name}/{name}_b_1:0"] = bias


def _check_dense(model, flat, dense):
    """fc6 at the centre of a 7x7 map and fc7 after it are the dense layers on the map as `flat` flattens it."""
    x = np.random.default_rng(5).uniform(0, 1, (7, 7, 32)).astype("float32")
    expected = flat(x)
    for name, (kernel, bias) in zip(("fc6", "fc7"), dense.values(), strict=True):
        layer = model.get_layer(name)
        expected = np.maximum(expected @ kernel + bias, 0)
        x = np.maximum(layer(x[None])[0], 0)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(x[3, 3], expected, rtol=1e-4, atol=1e-4)


def test_dense_layers_of_keras_become_convolutions(tmp_path):
    convolutions = _convolutions()
    dense = _dense()
    rest = {"predictions": (np.zeros((256, 10)), np.zeros(10))}
    _write(tmp_path / "vgg.h5", convolutions | dense | rest)
    model = fcn.fcn16s((32, 32, 3), 3, base_filters=4)
    report = encoders.load_encoder_weights(model, "vgg16", tmp_path / "vgg.h5")
    assert len(report["used"]) == 30 and report["initial"] == []
    assert report["unused"] == ["predictions/predictions_W_1:0", "predictions/predictions_b_1:0"]
    _check_dense(model, lambda x: x.reshape(-1), dense)
    np.testing.assert_array_equal(model.get_layer("block1_conv1").kernel, convolutions["block1_conv1"][0][:, :, ::-1])
    assert model.get_layer("preprocess").mean == encoders.CAFFE_MEAN


def test_dense_layers_of_torchvision_become_convolutions(tmp_path, monkeypatch):
    convolutions = _convolutions()
    dense = _dense()
    state = {}
    for name, index in zip(LAYERS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True):
        state[f"features.{index}.weight"] = convolutions[name][0].transpose(3, 2, 0, 1)
        state[f"features.{index}.bias"] = convolutions[name][1]
    for (kernel, bias), index in zip(dense.values(), (0, 3), strict=True):
        state[f"classifier.{index}.weight"] = kernel.T
        state[f"classifier.{index}.bias"] = bias
    state["classifier.6.bias"] = np.zeros(10)
    (tmp_path / "vgg.pth").write_bytes(b"")
    monkeypatch.setattr(encoders.torch_file, "read_state_dict", lambda path: state)
    model = fcn.parsenet((32, 32, 3), 3, base_filters=4, encoder_weights=tmp_path / "vgg.pth")
    _check_dense(model, lambda x: x.transpose(2, 0, 1).reshape(-1), dense)
    assert model.get_layer("preprocess").mean == encoders.IMAGENET_MEAN
    report = encoders.load_encoder_weights(model, "vgg16", tmp_path / "vgg.pth")
    assert len(report["used"]) == 30 and report["unused"] == ["classifier.6.bias"]


def test_a_file_without_dense_layers_leaves_them_as_they_are_and_says_so(tmp_path, caplog):
    convolutions = _convolutions()
    dense = _dense()
    _write(tmp_path / "notop.h5", convolutions)
    model = fcn.fcn8s((32, 32, 3), 3, base_filters=4)
    before = [model.get_layer(name).get_weights() for name in ("fc6", "fc7")]
    with caplog.at_level(logging.INFO, "kseg"):
        report = encoders.load_encoder_weights(model, "vgg16", tmp_path / "notop.h5")
    assert report["initial"] == ["fc6", "fc7"] and len(report["used"]) == 26 and report["unused"] == []
    assert "26 of 30 encoder arrays" in caplog.text and "left at their initial values: fc6, fc7" in caplog.text
    for name, weights in zip(("fc6", "fc7"), before, strict=True):
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], weights[0])
    _write(tmp_path / "torn.h5", convolutions | dense)
    with h5py.File(tmp_path / "torn.h5", "a") as file:
        del file["fc1/fc1_b_1:0"]  # a part of the dense layers is no file without them
    with pytest.raises(ValueError, match="fc1/bias is missing"):
        encoders.load_encoder_weights(model, "vgg16", tmp_path / "torn.h5")


def test_full_vgg16_is_fetched_for_fcn_only(monkeypatch):
    def fetch(name, url, cache_subdir, file_hash):
        asked.append((name, file_hash))
        raise Exception("no network")

    asked = []
    monkeypatch.setattr(keras.utils, "get_file", fetch)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Identity(name="preprocess")(image)
    encoder = keras.Model(image, vgg.vgg16(x, 2, initializer="zeros")["out"])
    for model in (encoder, fcn.fcn32s((32, 32, 3), 2, base_filters=2)):
        with pytest.raises(FileNotFoundError, match="Cannot download the encoder weights vgg16"):
            encoders.load_encoder_weights(model, "vgg16", "imagenet")
    # Keras' own names and checksums (keras.applications.vgg16).
    stem = "vgg16_weights_tf_dim_ordering_tf_kernels"
    assert asked == [
        (f"{stem}_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
        (f"{stem}.h5", "64373286793e3c8b2b4e3219cbf3544b"),
    ]
