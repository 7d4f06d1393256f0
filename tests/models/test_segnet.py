"""SegNet and SegNet-ASPP: structure, parameter counts, saving, XLA, mixed precision, another backend."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import layers, models
from kseg.models.segnet import segnet, segnet_aspp, segnet_aspp_fischer2021

SMALL = {"base_filters": 2}


def _image(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


def _trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# The trunk's 25 convolutions, channels in and out: 9 * i * o + o each (kernel, bias), 2 * o of batch norm.
PAIRS = [
    *((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)),
    *((256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)),
    *((512, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 256)),
    *((256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)),
]
TRUNK = sum(9 * i * o + 3 * o for i, o in PAIRS)
# 1x1 and image branch 64 -> 256, three 3x3, their batch norms, projection 1280 -> 256 with its own.
ASPP = 2 * (64 * 256 + 256) + 3 * (9 * 64 * 256 + 256) + 5 * 512 + 1280 * 256 + 256 + 512
TAIL = 9 * 256 * 256 + 256 + 512


def test_parameter_counts():
    assert TRUNK == 29_443_008
    zeros = {"initializer": "zeros"}  # fast to build
    assert _trainable(segnet((32, 32, 3), 34, **zeros)) == TRUNK + 9 * 64 * 34 + 34 == 29_462_626
    transposed = segnet((32, 32, 3), 11, decoder="transposed", **zeros)
    assert _trainable(transposed) == TRUNK + 9 * 64 * 11 + 11 == 29_449_355
    head = 256 * 34 + 34
    assert _trainable(segnet_aspp((32, 32, 3), 34, **zeros)) == TRUNK + ASPP + TAIL + head == 30_849_762
    options = {"norm": "per_conv", "decoder_initializer": "zeros", **zeros}
    assert _trainable(segnet_aspp_fischer2021((32, 32, 3), 34, **options)) == TRUNK + ASPP + TAIL + head
    without = segnet_aspp_fischer2021((32, 32, 3), 34, tail=False, **options)
    assert _trainable(without) == TRUNK + ASPP + head == 30_259_170
    more = segnet_aspp_fischer2021((32, 32, 3), 34, decoder_convs=13, **options)
    assert _trainable(more) == _trainable(without) + TAIL + 9 * 64 * 64 + 64 + 2 * 64


def test_encoder_is_vgg16_and_the_decoder_its_mirror():
    model = segnet((64, 96, 3), 5, base_filters=4)
    convolutions = {x.name: x for x in model.layers if isinstance(x, keras.layers.Conv2D)}
    vgg = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 96, 3))
    for name in [layer.name for layer in vgg.layers if isinstance(layer, keras.layers.Conv2D)]:
        assert convolutions[name].filters * 16 == vgg.get_layer(name).filters
        assert convolutions[name].output.shape[1:3] == vgg.get_layer(name).output.shape[1:3]
    assert len(convolutions) == 26
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers) == 25
    decoder = [x.filters for x in convolutions.values() if x.name.startswith("decoder")]
    assert decoder == [32, 32, 32, 32, 32, 16, 16, 16, 8, 8, 4, 4]
    for block in range(1, 6):  # each unpooling takes the indices of the pooling of its own size
        unpool = model.get_layer(f"decoder{block}_unpool")
        pool = model.get_layer(f"block{block}_pool")
        assert unpool.input[1] is pool.output[1]
    assert model.get_layer("logits").activation is keras.activations.linear


@pytest.mark.parametrize("depth", [3, 4])
def test_fewer_blocks_are_the_outer_ones(depth):
    """VGG16's first blocks under their mirror, joined at the same sizes; what lies deeper is gone."""
    model = segnet((48, 96, 3), 5, base_filters=4, depth=depth)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    # 2, 2, 3, 3 convolutions in the encoder's blocks; as many in the decoder's, the last of which gives the scores
    assert len(convolutions) == 2 * sum((2, 2, 3, 3)[:depth])
    whole = {layer.name for layer in segnet((64, 96, 3), 5, base_filters=4).layers}
    gone = {
        name for name in whole if any(f"{part}{block}_" in name for part in ("block", "decoder") for block in (4, 5))
    }
    if depth == 4:
        gone = {name for name in gone if "5_" in name}
    assert {layer.name for layer in model.layers} == whole - gone
    assert model.get_layer(f"block{depth}_pool").output[0].shape[1:3] == (48 / 2**depth, 96 / 2**depth)
    for block in range(1, depth + 1):
        assert model.get_layer(f"decoder{block}_unpool").input[1] is model.get_layer(f"block{block}_pool").output[1]
    assert model.get_layer("preprocess").multiple == 2**depth
    with pytest.raises(ValueError, match=f"multiples of {2**depth}, got 36x96"):
        segnet((36, 96, 3), 5, depth=depth)
    with pytest.raises(ValueError, match="depth must be 1 to 5, got 6: VGG16 has 5 blocks"):
        segnet((64, 64, 3), 5, depth=6)
    with pytest.raises(ValueError, match="depth must be 3 to 5, got 2: aspp_stride=8 needs a map of an eighth"):
        segnet_aspp((32, 32, 3), 5, depth=2, aspp_stride=8)
    x = np.random.default_rng(0).integers(0, 256, (1, 48, 96, 3)).astype("float32")
    assert np.isfinite(model(x)).all()


def test_aspp_at_an_eighth_of_three_blocks_is_between_encoder_and_decoder():
    model = segnet_aspp((32, 64, 3), 5, base_filters=3, depth=3, aspp_stride=8, dropout=0)
    assert model.get_layer("aspp_mean").input is model.get_layer("block3_pool").output[0]
    assert model.get_layer("decoder3_unpool").input[0] is model.get_layer("aspp_projection_relu").output


def test_transposed_decoder():
    model = segnet((32, 32, 3), 5, decoder="transposed", **SMALL)
    kinds = [x for x in model.layers if isinstance(x, keras.layers.Conv2DTranspose)]
    assert len(kinds) == 13 and {x.strides for x in kinds} == {(1, 1)}
    aspp = segnet_aspp((32, 32, 3), 5, decoder="transposed", **SMALL)
    assert sum(isinstance(x, keras.layers.Conv2DTranspose) for x in aspp.layers) == 12
    with pytest.raises(ValueError, match="decoder must be one of conv, transposed, got 'bilinear'"):
        segnet((32, 32, 3), 5, decoder="bilinear")


def test_options_of_segnet_aspp():
    model = segnet_aspp((32, 32, 3), 7, base_filters=3, rates=(2, 5), dropout=0.25, initializer="glorot_normal")
    assert [model.get_layer(f"aspp_atrous{i}").dilation_rate for i in (1, 2)] == [(2, 2), (5, 5)]
    assert model.get_layer("aspp_dropout").rate == 0.25
    assert model.get_layer("tail").filters == model.get_layer("aspp_conv").filters == 12
    kinds = {type(model.get_layer(name).kernel_initializer).__name__ for name in ("block1_conv1", "tail", "logits")}
    assert kinds == {"GlorotNormal"}
    assert "aspp_dropout" not in [layer.name for layer in segnet_aspp((32, 32, 3), 7, dropout=0, **SMALL).layers]


def test_aspp_at_an_eighth_is_the_same_network_with_its_pyramid_earlier():
    full = segnet_aspp((64, 96, 3), 5, base_filters=3)
    eighth = segnet_aspp((64, 96, 3), 5, base_filters=3, aspp_stride=8)
    assert eighth.get_layer("aspp_conv").output.shape == (None, 8, 12, 12)
    assert full.get_layer("aspp_conv").output.shape == (None, 64, 96, 12)
    # What comes in has 4 * 3 channels and not 3 (a 1x1, three 3x3 and the mean's 1x1 of 12 filters); the tail has 3.
    more = (1 + 3 * 9 + 1) * (12 - 3) * 12 - 9 * (12 - 3) * 12
    assert _trainable(eighth) - _trainable(full) == more
    assert eighth.output_shape == full.output_shape == (None, 64, 96, 5)
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype("float32")
    assert np.isfinite(eighth(x)).all()


def test_width_of_aspp():
    model = segnet_aspp((32, 32, 3), 5, base_filters=4, aspp_filters=6)
    assert model.get_layer("tail").filters == model.get_layer("aspp_conv").filters == 6
    assert model.get_layer("decoder1_conv1").filters == 4
    same = segnet_aspp((32, 32, 3), 5, base_filters=4, aspp_filters=16)
    assert _trainable(same) == _trainable(segnet_aspp((32, 32, 3), 5, base_filters=4))
    with pytest.raises(ValueError, match=r"aspp_filters must be 4 \* base_filters = 16 at aspp_stride=8, got 6"):
        segnet_aspp((32, 32, 3), 5, base_filters=4, aspp_filters=6, aspp_stride=8)
    with pytest.raises(ValueError, match="aspp_stride must be one of 1, 8, got 2"):
        segnet_aspp((32, 32, 3), 5, aspp_stride=2)


@pytest.mark.parametrize("build", [segnet, segnet_aspp])
def test_bilinear_unpooling_has_the_same_weights(build):
    keras.utils.set_random_seed(0)
    indices = build((32, 64, 3), 5, **SMALL)
    bilinear = build((32, 64, 3), 5, unpooling="bilinear", **SMALL)
    assert [w.path.split("/")[-2:] for w in bilinear.weights] == [w.path.split("/")[-2:] for w in indices.weights]
    bilinear.set_weights(indices.get_weights())
    kinds = [type(bilinear.get_layer(f"decoder{block}_unpool")) for block in range(1, 6)]
    assert set(kinds) == {keras.layers.UpSampling2D}
    x = _image(1, 32, 64, 3)
    assert np.abs(np.asarray(bilinear(x)) - np.asarray(indices(x))).max() > 1e-3
    with pytest.raises(ValueError, match="unpooling must be one of indices, bilinear, got 'nearest'"):
        build((32, 32, 3), 5, unpooling="nearest")


def test_the_paper_s_segnet_aspp_is_segnet_aspp_but_for_its_options():
    """Weights by name and value are those of `segnet_aspp`; four norms by width take the place of the trunk's 25."""
    options = {"initializer": "glorot_normal", **SMALL}
    keras.utils.set_random_seed(0)
    ours = segnet_aspp((32, 32, 3), 5, decoder="transposed", **options)
    keras.utils.set_random_seed(0)
    paper = segnet_aspp_fischer2021((32, 32, 3), 5, norm="per_conv", decoder_initializer="glorot_normal", **options)
    assert [weight.path for weight in paper.weights] == [weight.path for weight in ours.weights]
    for mine, theirs in zip(ours.get_weights(), paper.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert paper.get_layer("preprocess").scale == (255, 255, 255)
    norms = {f"block{b}_conv{i}_bn" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)}
    norms |= {f"decoder{b}_conv{i}_bn" for b, n in enumerate((1, 2, 3, 3, 3), 1) for i in range(1, n + 1)}
    shared = segnet_aspp_fischer2021((32, 32, 3), 5, **SMALL)
    names = {weight.path.split("/")[0] for weight in ours.weights}
    assert norms <= names and len(norms) == 25
    expected = names - norms | {f"norm_{width}" for width in (2, 4, 8, 16)}  # 64, 128, 256, 512 channels
    assert {weight.path.split("/")[0] for weight in shared.weights} == expected


def test_dropout_of_segnet_is_around_the_deepest_blocks():
    drops = [x.name for x in segnet((32, 32, 3), 5, dropout=0.5, **SMALL).layers if "dropout" in x.name]
    assert drops == [f"block{i}_dropout" for i in (3, 4, 5)] + [f"decoder{i}_dropout" for i in (5, 4, 3)]
    assert not [x for x in segnet((32, 32, 3), 5, **SMALL).layers if isinstance(x, keras.layers.Dropout)]


def test_sizes():
    with pytest.raises(ValueError, match="multiples of 32, got 500x375. Choose a size that fits, such as 512x384"):
        segnet((500, 375, 3), 5)
    with pytest.raises(ValueError, match=r"multiples of 32, got \?x33"):
        segnet_aspp((None, 33, 3), 5)
    free = segnet_aspp((None, None, 3), 5, **SMALL)
    fixed = segnet_aspp((32, 64, 3), 5, **SMALL)
    fixed.set_weights(free.get_weights())
    x = _image(2, 32, 64, 3)
    np.testing.assert_array_equal(free(x), fixed(x))
    assert free(_image(1, 64, 32, 3)).shape == (1, 64, 32, 5)
    assert (free.get_layer("preprocess").size, fixed.get_layer("preprocess").size) == (None, (32, 64))
    assert fixed.get_layer("preprocess").multiple == 32


def test_build_model_says_what_there_is():
    model = models.build_model("segnet", (32, 32, 3), 4, base_filters=2)
    assert model.name == "segnet" and model.output.shape == (None, 32, 32, 4)
    with pytest.raises(ValueError, match="Unknown model 'segmet'. Choose one of .*segnet, segnet_aspp"):
        models.build_model("segmet", (32, 32, 3), 4)
    with pytest.raises(
        ValueError, match="no option rate. Its options are 'base_filters', 'depth', 'decoder', 'unpooling', 'rates',"
    ):
        models.build_model("segnet_aspp", (32, 32, 3), 4, rate=3)
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 2, got 1"):
        models.build_model("segnet", (32, 32, 3), 1)
    for shape in ((32, 32), (32, 32, 4), (0, 32, 3)):
        with pytest.raises(ValueError, match="input_shape must be"):
            models.build_model("segnet", shape, 4)


def _step(model, x, y):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    return loss, tape.gradient(loss, model.trainable_variables)


@pytest.mark.slow  # test_contract.py trains every model under XLA
def test_xla_gives_the_same_gradients_and_statistics():
    keras.utils.set_random_seed(1)
    x, y = tf.constant(_image(2, 64, 64, 3)), tf.constant(_image(2, 64, 64) % 5, "int32")
    model = segnet_aspp((64, 64, 3), 5, base_filters=4, dropout=0)
    weights = model.get_weights()
    np.testing.assert_allclose(tf.function(model, jit_compile=True)(x), model(x), rtol=1e-4, atol=1e-4)
    results = []
    for jit in (False, True):
        model.set_weights(weights)
        loss, gradients = tf.function(lambda x, y: _step(model, x, y), jit_compile=jit)(x, y)
        flat = np.concatenate([np.ravel(gradient) for gradient in gradients])
        results.append((float(loss), flat, model.get_weights()))
    (loss, gradient, after), (loss_xla, gradient_xla, after_xla) = results
    assert loss_xla == pytest.approx(loss, rel=1e-4)
    # As a whole: rounding that flips one maximum moves single entries by more than rounding.
    assert np.linalg.norm(gradient_xla - gradient) < 0.03 * np.linalg.norm(gradient)
    for plain, xla in zip(after, after_xla, strict=True):  # moving statistics
        np.testing.assert_allclose(xla, plain, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_bfloat16_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        model = segnet_aspp((32, 32, 3), 3, base_filters=4)
    finally:
        keras.config.set_dtype_policy("float32")
    image = _image(2, 32, 32, 3)
    label = (image[..., 0] > 127).astype("int32") + (image[..., 1] > 127)
    assert model.get_layer("tail").compute_dtype == "bfloat16"
    assert model(image).dtype == "float32" and model.get_layer("logits").compute_dtype == "float32"
    optimizer = keras.optimizers.Adam(3e-3)

    @tf.function
    def train(x, y):
        loss, gradients = _step(model, x, y)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    optimizer.build(model.trainable_variables)
    losses = [float(train(image, label)) for _ in range(12)]
    assert np.isfinite(losses).all() and losses[-1] < 0.95 * losses[0]


PORTABLE = """
import sys
sys.modules["tensorflow"] = None  # importing it is an error
import numpy as np
import keras
assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
from kseg import blocks, layers
from kseg.models import build_model
folder = sys.argv[1]
model = build_model("segnet_aspp", (32, 32, 3), 5, base_filters=4)
model.load_weights(folder + "/w.weights.h5")
x = np.load(folder + "/x.npy")
np.save(folder + "/logits.npy", model.predict(x, verbose=0))
loaded = keras.models.load_model(folder + "/m.keras")
for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
    np.testing.assert_array_equal(ours, theirs)
image = keras.Input((8, 8, 3))  # the same layers in small: XLA takes its time over the whole model
pooled, indices = layers.MaxPooling2DWithArgmax()(blocks.conv_bn_relu(image, 4, name="a"))
model = keras.Model(image, blocks.aspp(layers.MaxUnpooling2D()([pooled, indices]), 4, (1,)))
model.compile(optimizer="sgd", loss="mse")
losses = model.fit(x[:, :8, :8] / 255, x[:, :8, :8, :1] / 255, epochs=5, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.slow
def test_same_model_on_jax_without_tensorflow(tmp_path, root):
    model = segnet_aspp((32, 32, 3), 5, base_filters=4)
    x = _image(2, 32, 32, 3)
    model(x, training=True)
    model.save_weights(tmp_path / "w.weights.h5")
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PORTABLE, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(x), atol=1e-4)


def test_folded_parts_start_with_the_variance_of_the_whole():
    # he_normal over 5 * 32 inputs: standard deviation sqrt(2 / 160); 32 * 32 draws a part, five parts.
    keras.utils.set_random_seed(0)
    model = segnet_aspp((32, 32, 3), 5, base_filters=8)
    parts = [x for x in model.layers if x.name.startswith("aspp_projection_") and x.name[16:] != "bn" and x.weights]
    kernels = np.concatenate([part.get_weights()[0].ravel() for part in parts])
    assert len(parts) == 5 and kernels.std() == pytest.approx(np.sqrt(2 / 160), rel=0.05)
