"""Blocks: names, the folded ASPP against its plain form, initial variances."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import blocks, layers


def test_conv_bn_relu_is_three_layers_by_name():
    image = keras.Input((8, 8, 3))
    for transposed, layer in ((False, keras.layers.Conv2D), (True, keras.layers.Conv2DTranspose)):
        y = blocks.conv_bn_relu(image, 5, transposed=transposed, name="a")
        model = keras.Model(image, y)
        assert [type(part) for part in model.layers[1:]] == [
            layer,
            layers.BatchNormalization,
            keras.layers.ReLU,
        ]
        assert [part.name for part in model.layers[1:]] == ["a", "a_bn", "a_relu"]
        assert y.shape == (None, 8, 8, 5) and len(model.get_layer("a").weights) == 2


def _randomise(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in model.weights])


def _plain_aspp(x, folded, filters, rates):
    """The module as published: all branches concatenated, the image's one tiled, one 1x1 projection."""
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    maps = [blocks.conv_bn_relu(x, filters, 1, name="aspp_conv")]
    for i, rate in enumerate(rates, 1):
        maps.append(blocks.conv_bn_relu(x, filters, dilation_rate=rate, name=f"aspp_atrous{i}"))
    image = blocks.conv_bn_relu(mean, filters, 1, name="aspp_image")
    maps.append(keras.layers.UpSampling2D(x.shape[1:3], interpolation="nearest")(image))
    y = keras.layers.Conv2D(filters, 1, name="projection")(keras.layers.Concatenate()(maps))
    y = layers.BatchNormalization(name="aspp_projection_bn")(y)
    plain = keras.Model(x, keras.layers.ReLU()(y))
    keys = ["conv"] + [f"atrous{i}" for i in range(1, len(rates) + 1)] + ["image"]
    parts = [folded.get_layer(f"aspp_projection_{key}") for key in keys]
    kernel = np.concatenate([part.get_weights()[0] for part in parts], axis=2)
    plain.get_layer("projection").set_weights([kernel, parts[0].get_weights()[1]])
    for layer in plain.layers:
        if layer.weights and layer.name != "projection":
            layer.set_weights(folded.get_layer(layer.name).get_weights())
    return plain


def test_folded_aspp_equals_the_plain_form():
    filters = 4
    rates = (1, 2, 3)
    image = keras.Input((6, 8, 5))
    folded = keras.Model(image, blocks.aspp(image, filters, rates, dropout=0))
    _randomise(folded)
    plain = _plain_aspp(image, folded, filters, rates)
    assert folded.count_params() == plain.count_params()
    x = tf.constant(np.random.default_rng(1).normal(size=(3, 6, 8, 5)), "float32")
    for training in (False, True):
        np.testing.assert_allclose(folded(x, training=training), plain(x, training=training), rtol=1e-5, atol=1e-5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        losses = [tf.reduce_sum(model(x, training=True) ** 3) for model in (folded, plain)]
    for get in (lambda model: x, lambda model: model.get_layer("aspp_atrous2").kernel.value):
        ours, theirs = (tape.gradient(loss, get(m)) for loss, m in zip(losses, (folded, plain), strict=True))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_aspp_never_makes_the_wide_map():
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, blocks.aspp(image, 16, (2, 4), dropout=0))
    assert max(layer.output.shape[-1] for layer in model.layers) == 16
    assert model.get_layer("aspp_projection_image").output.shape == (None, 1, 1, 16)


@pytest.mark.parametrize("name", ["he_normal", "glorot_normal", "glorot_uniform"])
def test_a_part_of_a_kernel_has_the_variance_of_the_whole(name):
    # Whole: 1280 -> 256. Part: 256 of its inputs. Both draws have the standard deviation of the whole.
    whole = np.array(keras.initializers.get({"class_name": name, "config": {"seed": 0}})((1, 1, 1280, 256)))
    part = blocks.part_initializer(name, 256, 1280, 256)
    assert np.array(part((1, 1, 256, 256))).std() == pytest.approx(whole.std(), rel=0.02)
    again = keras.initializers.get(keras.initializers.serialize(part))
    assert again.get_config() == part.get_config()


def test_other_initialisers_stay():
    assert isinstance(blocks.part_initializer("zeros", 1, 2, 3), keras.initializers.Zeros)


def test_aspp_trains_on_two_images_not_on_one():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, blocks.aspp(image, 4, (1,)))
    with pytest.raises(ValueError, match="aspp_image_bn.*at least 2 images per device"):
        model(np.zeros((1, 4, 4, 3), "float32"), training=True)
    assert model(np.zeros((1, 4, 4, 3), "float32")).shape == (1, 4, 4, 4)
    assert model(np.zeros((2, 4, 4, 3), "float32"), training=True).shape == (2, 4, 4, 4)


def test_aspp_needs_rates():
    for rates in ((), (6, 0)):
        with pytest.raises(ValueError, match="rates must be positive"):
            blocks.aspp(keras.Input((4, 4, 3)), 4, rates)


def test_dropout_follows_its_seed():
    image = keras.Input((4, 4, 3))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    same = []
    for seed in (1, 1, 2):
        model = keras.Model(image, blocks.aspp(image, 8, (1,), seed=seed))
        _randomise(model)
        same.append(np.array(model(x, training=True)) == 0)
    assert (same[0] == same[1]).all() and (same[0] != same[2]).any()
