"""kseg/models/costs.py: multiply-adds as a hand counts them, every application of every layer."""

import keras
import pytest

from kseg.models import costs
from kseg.models.deeplabv3 import deeplabv3
from kseg.models.unet import r2unet


def _count(*layers, shape=(6, 4, 3)):
    image = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return costs.multiply_adds(keras.Model(image, x))


CASES = {
    # 6 * 4 places, each 3 * 3 places of 3 channels for 5
    "plain": (keras.layers.Conv2D, {"filters": 5, "kernel_size": 3, "padding": "same"}, 24 * 9 * 15),
    # every second row and column: 3 * 2 places
    "strided": (keras.layers.Conv2D, {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"}, 6 * 9 * 15),
    # without padding 4 * 2 places remain
    "valid": (keras.layers.Conv2D, {"filters": 5, "kernel_size": 3}, 8 * 9 * 15),
    # holes cost nothing
    "dilated": (
        keras.layers.Conv2D,
        {"filters": 5, "kernel_size": 3, "dilation_rate": 6, "padding": "same"},
        24 * 9 * 15,
    ),
    # each output channel sees one input channel
    "grouped": (keras.layers.Conv2D, {"filters": 6, "kernel_size": 3, "groups": 3, "padding": "same"}, 24 * 9 * 6),
    # each of the 6 * 4 inputs is spread over 4 * 4 outputs
    "transposed": (
        keras.layers.Conv2DTranspose,
        {"filters": 5, "kernel_size": 4, "strides": 2, "padding": "same"},
        24 * 16 * 15,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_multiply_adds_of_a_layer_are_those_counted_by_hand(case):
    layer, options, expected = CASES[case]
    assert _count(layer(**options)) == expected


def test_a_layer_counts_as_often_as_it_is_called_and_layers_inside_layers_count():
    shared = keras.layers.Conv2D(3, 3, padding="same")
    assert _count(shared, shared, shared) == 3 * 24 * 9 * 9
    inner = keras.Sequential([keras.layers.Conv2D(5, 1), keras.layers.Conv2D(2, 1)])
    assert _count(inner, inner, shape=(6, 4, 2)) == 2 * 24 * (2 * 5 + 5 * 2)
    plain = keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.MaxPooling2D()
    assert _count(*plain) == 0


def test_counting_leaves_the_layers_as_they_were():
    before = [layer.call for layer in costs.COUNTED]
    test_a_layer_counts_as_often_as_it_is_called_and_layers_inside_layers_count()
    assert [layer.call for layer in costs.COUNTED] == before
    assert "call" not in vars(keras.layers.Conv2D)  # it inherits it


def test_facts_are_parameters_that_train_and_multiply_adds():
    x = keras.Input((6, 4, 3))
    y = keras.layers.Conv2D(5, 3, strides=2, padding="same")(x)
    y = keras.layers.BatchNormalization()(y)  # 10 that train, 10 that do not
    model = keras.Model(x, keras.layers.Conv2D(2, 1, use_bias=False)(y))
    assert costs.facts(model) == {"parameters": 135 + 5 + 10 + 10, "multiply_adds": 6 * 135 + 6 * 10}


def test_free_sizes_need_to_be_given():
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(5, 3, padding="same")])
    with pytest.raises(ValueError, match=r"fixed size, got \(None, None, 3\)"):
        costs.multiply_adds(model)
    assert costs.multiply_adds(model, (6, 4, 3)) == 24 * 9 * 15


def test_r2unet_costs_its_formula():
    # Per place: a 1x1 projection and two kernels of 3x3, each applied 1 + 2 times; up: a 3x3 from the level below.
    width = {level: 4 * 2 ** (level - 1) for level in range(1, 6)}
    places = {level: (32 // 2 ** (level - 1)) * (48 // 2 ** (level - 1)) for level in range(1, 6)}

    def block(level, channels):
        return places[level] * (channels * width[level] + 2 * 3 * 9 * width[level] ** 2)

    encoder = sum(block(level, 3 if level == 1 else width[level - 1]) for level in range(1, 6))
    up = sum(places[level] * 9 * width[level + 1] * width[level] for level in range(1, 5))
    decoder = sum(block(level, 2 * width[level]) for level in range(1, 5))
    logits = places[1] * width[1] * 7
    assert costs.multiply_adds(r2unet((32, 48, 3), 7, base_filters=4)) == encoder + up + decoder + logits


def test_deeplabv3_counts_what_is_inside_its_pyramid():
    # VGG16 of 4 filters, 64x32 down to 4x2; ASPP of 16 on 32 channels, of the mean at one place; scores of 7.
    encoder = 0
    channels = 3
    for height, widths in ((64, (4, 4)), (32, (8, 8)), (16, (16,) * 3), (8, (32,) * 3), (4, (32,) * 3)):
        for width in widths:
            encoder = encoder + height * height // 2 * 9 * channels * width
            channels = width
    branches = 8 * 32 * 16 + 3 * 8 * 9 * 32 * 16 + 1 * 32 * 16
    aspp = branches + 8 * 5 * 16 * 16
    model = deeplabv3((64, 32, 3), 7, encoder="vgg16", base_filters=4)
    assert costs.multiply_adds(model) == encoder + aspp + 8 * 16 * 7
