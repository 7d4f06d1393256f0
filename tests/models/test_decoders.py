"""Decoders on other encoders: what each joins, parameter counts, sizes, weights, and what they refuse.

test_contract.py has every decoder on VGG16 and on a ResNet: shapes, free sizes, mixed precision, training under XLA.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from decoders import DECODERS, build, image

import kseg
from kseg.export.export_model import export_saved_model
from kseg.models import MODELS, build_model, common, fpn, options_of
from kseg.models.auxiliary_head import add_auxiliary_head
from kseg.models.backbones import encode, resnet
from kseg.training.trainers.remat import Rematerialized

UNETS = ("unet", "resunet", "runet", "r2unet")
NEW = ("deeplabv3plus", "fpn", "segformer")


@pytest.fixture
def shallow(monkeypatch):
    """A ResNet-50 of four blocks, where depth does not matter."""
    monkeypatch.setitem(resnet.BLOCKS, "resnet50", (1, 1, 1, 3))


def _trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def _sources(tensor, name):
    """The inputs of the layer of that name, as (layer's name, height)."""
    return [(part._keras_history.operation.name, part.shape[1]) for part in tensor.get_layer(name).input]


# ---- parameter counts at full width, on a ResNet-50 of 64 channels at stride 2, 256 at 4, 512, 1024 and 2048 at 32

RESNET50 = 23_534_592  # test_deeplabv3.py derives it
CHANNELS = {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}
CLASSES = 34


def _conv(k, i, o):
    return k * k * i * o + o + 2 * o  # kernel, bias, the norm's two


def _unet_count(block):
    """Up by a 3x3 convolution to the level's width, then a block of that and the skip; none at stride 1."""
    total = 0
    channels = 2048
    for stride, width in ((16, 256), (8, 128), (4, 64), (2, 32), (1, 16)):
        total += _conv(3, channels, width) + block(width + CHANNELS.get(stride, 0), width)
        channels = width
    return RESNET50 + total + 16 * CLASSES + CLASSES


LATERALS = sum((CHANNELS[stride] + 1) * 256 for stride in (4, 8, 16, 32))
PYRAMID = 4 * (9 * 256 * 256 + 256)
# 1x1, three 3x3, the pooled 1x1; five 1x1 parts of the projection, its one bias and batch norm.
ASPP = 2 * _conv(1, 2048, 256) + 3 * _conv(3, 2048, 256) + 5 * 256 * 256 + 3 * 256
COUNTS = {
    "unet": (_unet_count(lambda i, o: _conv(3, i, o) + _conv(3, o, o)), 33_336_242),
    # 1x1 projection with bias, two 3x3 convolutions of its width
    "resunet": (_unet_count(lambda i, o: i * o + o + 2 * _conv(3, o, o)), 30_655_138),
    # the projection; two recurrent kernels with a bias and three batch norms
    "r2unet": (_unet_count(lambda i, o: i * o + o + 2 * (9 * o * o + o + 3 * 2 * o)), 30_659_106),
    "runet": (_unet_count(lambda i, o: i * o + o + 2 * (9 * o * o + o + 3 * 2 * o)), 30_659_106),
    # the map of stride 4 to 48 channels, two 3x3 convolutions of the 48 + 256
    "deeplabv3plus": (
        RESNET50 + ASPP + _conv(1, 256, 48) + _conv(3, 304, 256) + _conv(3, 256, 256) + 257 * CLASSES,
        40_384_178,
    ),
    # laterals, four 3x3; the branch has three convolutions from stride 32, two from 16, one from 8 and from 4
    "fpn": (
        RESNET50 + LATERALS + PYRAMID + 4 * _conv(3, 256, 128) + 3 * _conv(3, 128, 128) + 129 * CLASSES,
        28_508_066,
    ),
    "segformer": (RESNET50 + LATERALS + _conv(1, 4 * 256, 256) + 257 * CLASSES, 24_790_306),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    by_parts, number = COUNTS[name]
    model = build_model(name, (32, 32, 3), CLASSES, encoder="resnet50", initializer="zeros")
    assert _trainable(model) == by_parts == number


# ---- what is joined


@pytest.mark.parametrize("encoder", ["vgg16", "resnet50"])
@pytest.mark.parametrize("name", UNETS)
def test_unets_join_the_encoder_s_map_of_each_stride(name, encoder, shallow):
    model = build(name, encoder, (64, 96))
    _, maps = encode(encoder, (64, 96, 3), base_filters=4)
    widths = {16: 16, 8: 8, 4: 4, 2: 2, 1: 1}  # 4 * base_filters at stride 16
    for stride, width in widths.items():
        level = stride.bit_length()
        up = model.get_layer(f"decoder{level}_up_relu").output
        assert up.shape == (None, 64 // stride, 96 // stride, width)
        joins = [layer for layer in model.layers if layer.name == f"decoder{level}_skip"]
        assert len(joins) == (stride in maps)
        for join in joins:
            skip, below = join.input
            assert below is up and skip.shape == maps[stride].shape
            assert skip._keras_history.operation.name == maps[stride]._keras_history.operation.name
    residual = [layer.name for layer in model.layers if layer.name.endswith("_residual")]
    expected = {"resunet": (5, 4, 3, 2, 1), "r2unet": (5, 4, 3, 2, 1)}.get(name, ())
    assert residual == [f"decoder{level}_residual" for level in expected]
    recurrent = [layer.name for layer in model.layers if layer.name.endswith("_conv1_add2")]
    assert len(recurrent) == (5 if name in ("runet", "r2unet") else 0)


def test_a_stride_that_the_encoder_lacks_has_no_skip(monkeypatch):
    """ConvNeXt and Mix Transformers begin at stride 4."""

    def begins_at_4(*arguments, **options):
        image, maps = encode(*arguments, **options)
        return image, {stride: x for stride, x in maps.items() if stride >= 4}

    monkeypatch.setattr(kseg.models.unet, "encode", begins_at_4)
    model = build("unet", "vgg16", (64, 64))
    skips = [layer.name for layer in model.layers if layer.name.endswith("_skip")]
    assert skips == ["decoder5_skip", "decoder4_skip", "decoder3_skip"]
    assert model.get_layer("decoder1_conv1").input is model.get_layer("decoder1_up_relu").output


def test_added_skips_are_projected_to_the_decoder_s_width(shallow):
    model = build("unet", "resnet50", (64, 64), skip="add", upsampling="transposed")
    for level, channels in ((5, 16), (4, 8), (3, 4), (2, 2)):
        join = model.get_layer(f"decoder{level}_skip")
        assert isinstance(join, keras.layers.Add) and join.output.shape[-1] == channels
        assert join.input[0] is model.get_layer(f"decoder{level}_skip_projection").output
        assert isinstance(model.get_layer(f"decoder{level}_up"), keras.layers.Conv2DTranspose)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_deeplabv3plus_joins_at_stride_4(output_stride, shallow):
    model = build("deeplabv3plus", "resnet50", (64, 96), output_stride=output_stride)
    assert model.get_layer("preprocess").multiple == output_stride
    rates = [model.get_layer(f"aspp_atrous{i}").dilation_rate[0] for i in (1, 2, 3)]
    assert rates == [rate * 16 // output_stride for rate in (6, 12, 18)]
    assert model.get_layer("aspp_conv").input.shape == (None, 64 // output_stride, 96 // output_stride, 128)
    low = model.get_layer("low_level")
    assert low.input is model.get_layer("conv2_block1_out").output and low.filters == 3  # 48 of 256, here of 16
    assert _sources(model, "decoder_skip") == [("low_level_relu", 16), ("aspp_upsampling", 16)]
    assert [model.get_layer(f"decoder_conv{i}").kernel_size for i in (1, 2)] == [(3, 3)] * 2


def test_fpn_joins_every_level_twice(shallow):
    model = build("fpn", "resnet50", (64, 96))
    ends = {32: "conv5_block3_out", 16: "conv4_block1_out", 8: "conv3_block1_out", 4: "conv2_block1_out"}
    for stride, end in ends.items():
        assert model.get_layer(f"lateral{stride}").input is model.get_layer(end).output
    for stride in (16, 8, 4):  # each lateral meets the doubled sum from below
        height = 64 // stride
        assert _sources(model, f"top_down{stride}") == [
            (f"lateral{stride}", height),
            (f"top_down{stride}_nearest", height),
        ]
        assert model.get_layer(f"pyramid{stride}").input is model.get_layer(f"top_down{stride}").output
    assert model.get_layer("top_down8_nearest").input is model.get_layer("top_down16").output
    into = [("segmentation32_up3", 16), ("segmentation16_up2", 16), ("segmentation8_up1", 16)]
    assert _sources(model, "segmentation") == [*into, ("segmentation4_conv1_relu", 16)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.GroupNormalization)]
    assert len(norms) == 3 + 2 + 1 + 1 and {layer.groups for layer in norms} == {8}  # 32, where that many channels are
    assert fpn.GROUPS == 32


def test_segformer_joins_all_levels_at_stride_4(shallow):
    model = build("segformer", "resnet50", (64, 96))
    into = [(f"linear{stride}_upsampling", 16) for stride in (32, 16, 8)]
    assert _sources(model, "levels") == [*into, ("linear4", 16)]
    assert model.get_layer("levels").output.shape == (None, 16, 24, 4 * 16)
    assert model.get_layer("fuse").kernel_size == (1, 1) and not model.get_layer("linear4").dilation_rate[0] > 1
    assert model.get_layer("fuse_dropout").rate == 0.1


@pytest.mark.parametrize("name", NEW)
def test_scores_are_upsampled_bilinearly_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(name, "vgg16", (32, 64))
    finally:
        keras.config.set_dtype_policy("float32")
    logits, out = keras.Model(model.input, [model.get_layer("logits").output, model.output])(image((2, 32, 64, 3)))
    assert logits.shape == (2, 8, 16, 3) and out.dtype == logits.dtype == "float32"
    np.testing.assert_allclose(out, tf.image.resize(logits, (32, 64)), rtol=1e-5, atol=1e-5)


# ---- options


def test_the_decoder_has_a_width_of_its_own():
    assert build("fpn", "vgg16", (32, 32), decoder_filters=6).get_layer("segmentation4_conv1").filters == 3
    assert build("segformer", "vgg16", (32, 32), decoder_filters=6).get_layer("fuse").filters == 6
    assert build("deeplabv3plus", "vgg16", (32, 32), decoder_filters=32).get_layer("low_level").filters == 6
    unet = build("unet", "vgg16", (32, 32), decoder_filters=48)
    assert [unet.get_layer(f"decoder{level}_conv2").filters for level in (5, 4, 3, 2, 1)] == [48, 24, 12, 6, 3]
    drop = build("segformer", "vgg16", (32, 32), dropout=0.3, seed=7).get_layer("fuse_dropout")
    assert (drop.rate, drop.seed) == (0.3, 7)
    drop = build("deeplabv3plus", "vgg16", (32, 32), dropout=0.3, seed=7).get_layer("aspp_dropout")
    assert (drop.rate, drop.seed) == (0.3, 7)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("unet", {"encoder": "vgg16", "depth": 5}, "depth is of the U-Nets' own encoder, got 5 with encoder 'vgg16'"),
        ("r2unet", {"encoder_weights": "x.h5"}, "encoder_weights needs an encoder, such as resnet50, got 'x.h5' alone"),
        ("unet", {"decoder_filters": 64}, "decoder_filters needs an encoder, such as resnet50, got 64 alone"),
        ("runet", {"encoder": "resnet18"}, "encoder must be one of .*got 'resnet18'"),
        ("unet", {"encoder": 3}, "encoder must be one of .*got 3"),
        ("unet", {"depth": True}, "depth must be a whole number of at least 1, got True"),
        ("fpn", {"encoder": None}, "encoder must be one of .*got None"),
        ("fpn", {"decoder_filters": 0}, "decoder_filters must be a whole number of at least 1, got 0"),
        ("segformer", {"decoder_filters": 2.5}, "decoder_filters must be a whole number of at least 1, got 2.5"),
        ("deeplabv3plus", {"output_stride": 32}, "output_stride must be one of 16, 8, got 32"),
    ],
)
def test_unfit_options_are_errors(name, options, text):
    with pytest.raises(kseg.InputError, match=text):
        build_model(name, (64, 64, 3), 3, **options)


@pytest.mark.parametrize("name", DECODERS)
def test_sizes_are_multiples_of_the_deepest_stride(name):
    multiple = 16 if name == "deeplabv3plus" else 32
    with pytest.raises(
        kseg.InputError, match=f"must be multiples of {multiple}, got 40x64. Choose a size that fits, such as"
    ):
        build(name, "vgg16", (40, 64))


def test_an_encoder_without_a_stride_that_is_needed_is_an_error():
    with pytest.raises(kseg.InputError, match="maps of strides 4, 8, 16, 32, but 'mine' has 8, 16. Choose another"):
        common.at_strides({8: 0, 16: 0}, fpn.STRIDES, "mine")
    assert common.at_strides({2: 0, 4: 1, 16: 2}, (16, 4), "mine") == {16: 2, 4: 1}


# ---- weights, the own encoder, training


def test_weights_fill_the_encoder_of_every_decoder(tmp_path, monkeypatch):
    """The file that fills DeepLabV3's VGG16 fills that of the others, and nothing else."""
    called = []
    monkeypatch.setattr(
        "kseg.models.backbones.load_encoder",
        lambda model, encoder, source: called.append((model.name, encoder, source)),
    )
    for name in DECODERS:
        build(name, "vgg16", (32, 32), encoder_weights="weights.h5")
    assert called == [(name, "vgg16", "weights.h5") for name in DECODERS]


def test_published_weights_give_the_maps_of_keras_vgg16(tmp_path):
    reference = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    random = np.random.default_rng(1)
    reference.set_weights([random.normal(0, 0.02, weight.shape) for weight in reference.weights])
    reference.save_weights(tmp_path / "vgg.weights.h5")
    model = build_model("fpn", (32, 32, 3), 3, encoder="vgg16", encoder_weights=tmp_path / "vgg.weights.h5")
    pixels = image((1, 32, 32, 3))
    expected = reference(keras.applications.vgg16.preprocess_input(pixels.astype("float32")))
    ours = keras.Model(model.input, model.get_layer("block5_pool").output)(pixels)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", UNETS)
def test_without_an_encoder_it_is_the_paper_s_of_depth_5(name):
    keras.utils.set_random_seed(0)
    given = build_model(name, (16, 16, 3), 3, base_filters=2, depth=5)
    keras.utils.set_random_seed(0)
    default = build_model(name, (16, 16, 3), 3, base_filters=2)
    assert [weight.path for weight in given.weights] == [weight.path for weight in default.weights]
    for a, b in zip(given.get_weights(), default.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    names = [weight.path.split("/")[0] for weight in default.weights]
    assert names[0].startswith("encoder1") and names[-1] == "logits" and "decoder4_up" in names


@pytest.mark.parametrize("name", NEW)
def test_a_step_of_training_lowers_the_loss_and_remat_gives_the_same(name):
    """A small step against the gradient of a batch lowers its loss, and every kernel has a gradient."""
    keras.utils.set_random_seed(0)
    dropout = {"dropout": 0.0} if "dropout" in options_of(name) else {}
    model = build(name, "vgg16", (32, 64), **dropout)
    pixels = tf.constant(image((2, 32, 64, 3)))
    labels = tf.constant(np.digitize(pixels.numpy().mean(-1), [90, 160]))

    def loss_of(forward):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, forward(pixels)))
        return loss, tape.gradient(loss, model.trainable_variables)

    before, gradients = loss_of(lambda x: model(x, training=True))
    forward = Rematerialized(model, (32, 64))
    again, others = loss_of(forward)
    assert float(again) == pytest.approx(float(before), rel=1e-5)
    top = max(np.abs(gradient).max() for gradient in gradients)
    for variable, gradient, other in zip(model.trainable_variables, gradients, others, strict=True):
        assert np.abs(gradient).max() > 0 or variable.path.endswith("bias"), variable.path
        np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-5 * top)
        variable.assign_sub(1e-3 * gradient / top)
    assert float(loss_of(lambda x: model(x, training=True))[0]) < float(before)


@pytest.mark.parametrize("name", DECODERS)
def test_an_auxiliary_head_is_at_stride_16(name, shallow):
    model = build(name, "resnet50", (64, 64))
    trained = add_auxiliary_head(model)
    assert trained.get_layer("auxiliary_conv").input is model.get_layer("conv4_block1_out").output
    assert [tuple(output.shape) for output in trained.outputs] == [(None, 64, 64, 3)] * 2


@pytest.mark.parametrize("name", NEW)
def test_a_saved_model_gives_the_labels_of_the_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = build(name, "vgg16", (None, None))
    label_set = {"name": "three", "classes": list("abc"), "palette": [[9, 9, 9]] * 3}
    model.get_layer("preprocess").label_set = label_set
    export_saved_model(model, tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    pixels = image((2, 32, 64, 3))
    found = served(images=tf.constant(pixels))
    expected = tf.nn.softmax(model(pixels)).numpy()
    np.testing.assert_allclose(found["confidence"], expected.max(-1), atol=5e-3)
    assert np.mean(found["labels"].numpy() == expected.argmax(-1)) > 0.99


def test_every_builder_with_an_encoder_takes_its_weights():
    for name in MODELS:
        options = options_of(name)
        assert "encoder" not in options or {"encoder_weights", "base_filters", "initializer"} <= set(options)
    assert [name for name in MODELS if "encoder" in options_of(name)] == [
        *("unet", "runet", "resunet", "r2unet", "deeplabv3"),
        *NEW,
    ]
