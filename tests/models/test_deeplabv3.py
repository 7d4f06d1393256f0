"""DeepLabV3 and its ResNets: Keras' network, dilation against stride, parameter counts, weights, ASPP's batch norm."""

import functools
import importlib.util
import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import kseg
from kseg.inference.compatibility import check_batch_norm
from kseg.models import unet
from kseg.models.backbones import resnet
from kseg.models.deeplabv3 import deeplabv3
from kseg.models.pretrained import weights
from kseg.training.trainers import make_trainer

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype="uint8")


def _randomize(model):
    """Biases, scales and moving statistics that are not the initial ones; kernels stay."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif not weight.path.endswith("kernel"):
            weight.assign(random.normal(0, 0.2, weight.shape))


def _backbone(shape, name, base_filters, **options):
    image = keras.Input(shape)
    return keras.Model(image, resnet.resnet(image, name, base_filters, **options))


def _maps(model, names, image):
    return keras.Model(model.input, [model.get_layer(name).output for name in names])(image)


def _norms(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def _close(ours, theirs, rtol=1e-4):
    theirs = np.asarray(theirs)
    assert theirs.std() > 0
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


@pytest.fixture(scope="module")
def reference():
    """Keras' ResNet-50, random weights and statistics."""
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    _randomize(model)
    return model


@pytest.fixture(scope="module")
def full():
    """DeepLabV3 on ResNet-50 at full width."""
    return deeplabv3((32, 32, 3), 34, initializer="zeros")  # fast to build


@pytest.fixture(scope="module")
def small():
    """A narrow one that works at 64x96, with weights and statistics that are not the initial ones."""
    keras.utils.set_random_seed(0)
    model = deeplabv3((64, 96, 3), 5, base_filters=4, dropout=0)
    _randomize(model)
    return model


@pytest.fixture
def shallow(monkeypatch):
    """Where depth does not matter: fewer blocks, built in a third of the time."""
    monkeypatch.setitem(resnet.BLOCKS, "resnet50", (1, 2, 2, 3))


# ---- the ResNets


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_a_resnet_gives_the_maps_of_keras_at_every_stride(name):
    """Strides 2 to 32 of an image whose deepest map is 1x2; random weights and statistics."""
    shape = (32, 64, 3)
    theirs = {"resnet50": keras.applications.ResNet50, "resnet101": keras.applications.ResNet101}[name]
    network = theirs(weights=None, include_top=False, input_shape=shape)
    _randomize(network)
    image = keras.Input(shape)
    maps = resnet.resnet_maps(image, name, 64, output_stride=32, initializer="zeros")
    ours = keras.Model(image, list(maps.values()))
    names = [layer.name for layer in network.layers[1:]]
    assert [layer.name for layer in keras.Model(image, maps[32]).layers[1:]] == names
    for layer in ours.layers[1:]:
        layer.set_weights(network.get_layer(layer.name).get_weights())
    pixels = (IMAGES[:1, :32, :64] - np.float32(120)) / 60
    # The last layers of Keras' stages: He et al. 2015, table 1.
    last = {"resnet50": 6, "resnet101": 23}[name]
    layers = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", f"conv4_block{last}_out", "conv5_block3_out"]
    assert list(maps) == [2, 4, 8, 16, 32]
    for stride, one, other in zip(maps, ours(pixels), _maps(network, layers, pixels), strict=True):
        assert one.shape[1:3] == (32 // stride, 64 // stride)
        _close(one, other)


def test_dilation_keeps_what_stride_skips(shallow):
    keras.utils.set_random_seed(2)
    image = (IMAGES[:1] - np.float32(120)) / 60
    strided = _backbone((64, 96, 3), "resnet50", 4, output_stride=32)
    _randomize(strided)
    expected = strided(image)
    assert expected.shape == (1, 2, 3, 128)
    for output_stride, step in ((16, 2), (8, 4)):
        dilated = _backbone((64, 96, 3), "resnet50", 4, output_stride=output_stride)
        dilated.set_weights(strided.get_weights())
        maps = dilated(image)
        assert maps.shape[1:3] == (2 * step, 3 * step)
        _close(maps[:, ::step, ::step], expected)


# Dilation of the 3x3 convolutions of each stage's blocks: (2, 4, 8) at output stride 16 is the paper's own example of
# the multi grid (section 4.3); at 8 the last two stages keep the resolution, at a half and a quarter of the step.
DILATIONS = {
    16: {2: [1] * 3, 3: [1] * 4, 4: [1] * 6, 5: [2, 4, 8]},
    8: {2: [1] * 3, 3: [1] * 4, 4: [2] * 6, 5: [4, 8, 16]},
}


@pytest.mark.parametrize("output_stride", [16, 8])
def test_strides_and_rates(output_stride, small):
    model = small if output_stride == 16 else deeplabv3((64, 96, 3), 5, output_stride=8, base_filters=4)
    for stage, dilations in DILATIONS[output_stride].items():
        convolutions = [model.get_layer(f"conv{stage}_block{i}_2_conv") for i in range(1, len(dilations) + 1)]
        assert [layer.dilation_rate for layer in convolutions] == [(rate, rate) for rate in dilations]
        stride = min(2**stage, output_stride)
        assert {layer.output.shape[1:3] for layer in convolutions} == {(64 // stride, 96 // stride)}
        previous = min(2 ** (stage - 1), output_stride) if stage > 2 else 4
        for name in ("0", "1"):  # the projection and the first 1x1 convolution
            assert model.get_layer(f"conv{stage}_block1_{name}_conv").strides == (stride // previous,) * 2
    aspp = model.get_layer("aspp")
    assert aspp.dilation_rates == [rate * 16 // output_stride for rate in (6, 12, 18)]
    assert aspp.output.shape == (None, 64 // output_stride, 96 // output_stride, 16)


# ---- the whole model


def _conv(k, i, o):
    return k * k * i * o + o + 2 * o  # kernel, bias, batch norm's two (VGG16 has none)


def _resnet_count(blocks):
    total = _conv(7, 3, 64)
    i = 64
    for f, count in zip((64, 128, 256, 512), blocks, strict=True):
        total += _conv(1, i, 4 * f)
        for _ in range(count):
            total = total + _conv(1, i, f) + _conv(3, f, f) + _conv(1, f, 4 * f)
            i = 4 * f
    return total


def _aspp_count(i):
    # 1x1, three 3x3 and the pooled 1x1 from i to 256, without biases; 1x1 from 5 * 256; a batch norm each.
    return (1 + 3 * 9 + 1) * i * 256 + 5 * 256 * 256 + 6 * 2 * 256


VGG = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), *[(512, 512)] * 5)
HEAD = 256 * 34 + 34


def _trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_parameter_counts(full):
    assert _resnet_count((3, 4, 6, 3)) == 23_534_592 and _resnet_count((3, 4, 23, 3)) == 42_552_832
    assert _trainable(full) == _resnet_count((3, 4, 6, 3)) + _aspp_count(2048) + HEAD == 39_078_434
    model = deeplabv3((32, 32, 3), 34, encoder="resnet101", initializer="zeros")
    assert _trainable(model) == _resnet_count((3, 4, 23, 3)) + _aspp_count(2048) + HEAD == 58_096_674
    model = deeplabv3((32, 32, 3), 34, encoder="vgg16", initializer="zeros")
    assert _trainable(model) == sum(_conv(3, i, o) - 2 * o for i, o in VGG) + _aspp_count(512) + HEAD == 18_855_266


def test_scores_are_upsampled_bilinearly(small):
    logits, out = _maps(small, ["logits", small.layers[-1].name], IMAGES)
    assert logits.shape == (2, 4, 6, 5) and out.dtype == "float32"
    np.testing.assert_allclose(out, tf.image.resize(logits, (64, 96)), rtol=1e-5, atol=1e-5)


def test_options(small):
    drop = deeplabv3((32, 32, 3), 5, base_filters=2, seed=7, encoder="vgg16").get_layer("aspp_dropout")
    assert (drop.rate, drop.seed) == (0.1, 7)
    assert "aspp_dropout" not in [layer.name for layer in small.layers]
    assert small.get_layer("aspp").dropout == 0  # which would have no seed
    kinds = {type(small.get_layer(name).kernel_initializer).__name__ for name in ("conv1_conv", "logits")}
    assert kinds == {"HeNormal"}


def test_sizes_are_multiples_of_the_output_stride(shallow):
    # 48x80 are multiples of 16 and not of 32; 40x72 of 8 and not of 16.
    assert deeplabv3((48, 80, 3), 5, base_filters=2).output_shape == (None, 48, 80, 5)
    assert deeplabv3((40, 72, 3), 5, base_filters=2, output_stride=8).output_shape == (None, 40, 72, 5)
    with pytest.raises(ValueError, match="must be multiples of 16, got 40x72. Choose a size that fits, such as"):
        deeplabv3((40, 72, 3), 5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encoder": "resnet18"}, "encoder must be one of .*got 'resnet18'"),
        ({"output_stride": 32}, "output_stride must be one of 16, 8, got 32"),
        ({"multi_grid": (1, 2)}, r"multi_grid must be three positive dilation factors, got \(1, 2\)"),
        ({"multi_grid": (1, 0, 2)}, "multi_grid must be three positive dilation factors"),
        ({"encoder": "vgg16", "multi_grid": (1, 1, 1)}, "multi_grid is an option of the ResNets"),
    ],
)
def test_unfit_options_are_errors(options, text):
    with pytest.raises(ValueError, match=text):
        deeplabv3((32, 32, 3), 5, base_filters=2, **options)


@pytest.mark.parametrize("training", [False, True])
def test_without_keras_cv_the_pyramid_is_ours_and_equal(monkeypatch, shallow, caplog, training):
    with_package = deeplabv3((64, 96, 3), 5, base_filters=4, dropout=0.0)
    monkeypatch.setitem(sys.modules, "keras_cv", None)  # importing it is an ImportError
    with caplog.at_level("INFO", "kseg"):
        ours = deeplabv3((64, 96, 3), 5, base_filters=4, dropout=0.0)
    assert "keras-cv cannot be imported" in caplog.text
    assert type(with_package.get_layer("aspp")).__module__.startswith("keras_cv")
    assert isinstance(ours.get_layer("aspp"), kseg.layers.SpatialPyramidPooling)
    _randomize(with_package)
    ours.set_weights(with_package.get_weights())  # the same shapes in the same order
    names = [weight.path.split("/")[-1] for weight in ours.weights]
    assert names == [weight.path.split("/")[-1] for weight in with_package.weights]
    _close(ours(IMAGES, training=training), with_package(IMAGES, training=training), 1e-5)
    for mine, theirs in zip(ours.non_trainable_weights, with_package.non_trainable_weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)  # moving statistics


def test_a_model_without_keras_cv_is_read_back(monkeypatch, shallow, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    model = deeplabv3((64, 96, 3), 5, base_filters=4)
    _randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = kseg.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match="aspp/.* normalises over the batch alone"):
        check_batch_norm(loaded, 1)


ON_JAX = """
import sys
sys.modules["tensorflow"] = None  # importing it is an error
import keras
import numpy as np
from kseg.models import build_model
folder = sys.argv[1]
assert keras.backend.backend() == "jax"
model = build_model("deeplabv3", (64, 96, 3), 5, base_filters=4, dropout=0.0)
weights = np.load(folder + "/weights.npz")
model.set_weights([weights[name] for name in weights])
np.save(folder + "/logits.npy", model.predict(np.load(folder + "/images.npy"), verbose=0))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_same_scores_on_jax_without_tensorflow(tmp_path, root):
    model = deeplabv3((64, 96, 3), 5, base_filters=4, dropout=0.0)
    _randomize(model)
    np.savez(tmp_path / "weights.npz", *model.get_weights())
    np.save(tmp_path / "images.npy", IMAGES)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", ON_JAX, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    _close(np.load(tmp_path / "logits.npy"), model(IMAGES), 1e-4)


# ---- encoder weights


def _write_published(model, path):
    """The layout of the published files: LAYER/LAYER/VARIABLE:0."""
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            group = file.create_group(layer.name)
            for weight in layer.weights:
                group[f"{layer.name}/{weight.name}:0"] = weight.numpy()


@pytest.mark.parametrize("style", ["published.h5", "keras3.weights.h5"])
def test_encoder_weights_give_the_maps_of_keras_resnet50(style, reference, full, tmp_path):
    path = tmp_path / style
    if style == "published.h5":
        _write_published(reference, path)
    else:
        reference.save_weights(path)
    for layer in full.layers:
        if layer.name.startswith("conv"):
            layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    weights.load_encoder_weights(full, "resnet50", path)
    names, image = ["conv1_relu", "conv2_block1_out"], IMAGES[:, :32, :32]  # RGB here, BGR minus the mean there
    expected = _maps(reference, names, keras.applications.resnet.preprocess_input(image.astype("float32")))
    for ours, theirs in zip(_maps(full, names, image), expected, strict=True):
        _close(ours, theirs, 1e-3)
    for layer in reference.layers:
        if layer.weights and layer.name != "conv1_conv":
            for ours, theirs in zip(full.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


# ---- ASPP's batch norms, which are inside a layer


def test_every_batch_norm_is_found(small):
    # ResNet-50: the stem, 16 blocks of three, four projections; ASPP: five branches and the projection.
    assert len(_norms(small)) == 1 + 16 * 3 + 4 + 6
    trainer = make_trainer("one", 2)
    trainer.trained = small
    trainer.devices = 2
    trainer.synchronize_batch_norm(True)
    assert all(layer.synchronized for layer in _norms(small))
    trainer.synchronize_batch_norm(False)
    assert not any(layer.synchronized for layer in _norms(small))


def test_one_image_is_too_few_for_the_pooled_branch(small, tmp_path):
    check_batch_norm(small, 2)
    with pytest.raises(ValueError, match="deeplabv3 needs a batch of at least 2 images: aspp/.* normalises over"):
        check_batch_norm(small, 1)
    records = tiny.write_records(tmp_path)
    settings = {**tiny.SETTINGS, "batch_size": 1}
    build = functools.partial(deeplabv3, (32, 64, 3), 3, base_filters=2, encoder="vgg16")
    with pytest.raises(ValueError, match="needs a batch of at least 2 images"):
        kseg.train(build, records, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    image = keras.Input((8, 8, 3))  # nothing pooled; and a layer that is not built yet
    check_batch_norm(keras.Model(image, keras.layers.BatchNormalization()(image)), 1)


def test_one_crop_of_one_deepest_pixel_is_too_little():
    free = unet.unet((None, None, 3), 3, base_filters=2, depth=3)  # multiples of 4
    check_batch_norm(free, 2, (4, 4))
    check_batch_norm(free, 1, (4, 8))
    with pytest.raises(ValueError, match="a crop of 4x4 is one pixel of its deepest map"):
        check_batch_norm(free, 1, (4, 4))


# ---- saved and free-sized (test_contract.py has what every model keeps)


def test_reloaded_keras_file_is_equal_without_keras_cv_imported(small, tmp_path, monkeypatch):
    small.save(tmp_path / "model.keras")
    custom = keras.saving.get_custom_objects()
    for name in [name for name in custom if name.startswith("keras_cv")]:
        monkeypatch.delitem(custom, name)
    for name in ("keras_cv", "keras_cv.src.layers.spatial_pyramid"):
        monkeypatch.delitem(sys.modules, name)
    loaded = kseg.inference.loading.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), small(IMAGES))
    with pytest.raises(ValueError, match="aspp/.* normalises over the batch alone"):
        check_batch_norm(loaded, 1)


def test_free_size_in_a_graph_of_unknown_sizes(shallow):
    keras.utils.set_random_seed(0)
    fixed = deeplabv3((64, 96, 3), 5, base_filters=4)
    _randomize(fixed)
    free = deeplabv3((None, None, 3), 5, base_filters=4)
    free.set_weights(fixed.get_weights())
    np.testing.assert_array_equal(kseg.predict(free, list(IMAGES)), np.argmax(fixed(IMAGES), axis=-1))
