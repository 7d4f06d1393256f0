"""What tells two models of users' functions apart, and what does not."""

import re

import keras
import pytest
import tiny

from kseg.runs.architecture import architecture, difference


def build(filters=4, activation="relu", rate=0.2, name=None, extra=False, crossed=False, seed=None, start="zeros"):
    image = keras.Input((8, 8, 3))
    a = keras.layers.Conv2D(filters, 1, activation=activation, kernel_initializer=start, name=name)(image)
    b = keras.layers.Dropout(rate, seed=seed)(a)
    pair = [b, a] if crossed else [a, b]
    x = keras.layers.Concatenate()(pair)
    if extra:
        x = keras.layers.BatchNormalization()(x)
    return keras.Model(image, keras.layers.Conv2D(3, 1)(x + 1.0))


def nested(filters):
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(filters, 1)], name="inner")
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(3, 1)(inner(image)))


def test_what_keras_numbers_and_draws_is_no_difference():
    """The second of two equal builds has other names and seeds; the last one also other initial weights."""
    first = architecture(build())
    assert [row["class"] for row in first] == ["InputLayer", "Conv2D", "Dropout", "Concatenate", "Add", "Conv2D"]
    assert first[1]["weights"] == [[1, 1, 3, 4], [4]]
    for other in (build(), build(name="mine"), build(seed=5), build(start="ones")):
        assert difference(first, architecture(other)) is None
    assert difference(architecture(tiny.build_tiny()), architecture(tiny.build_tiny())) is None
    assert difference(architecture(nested(4)), architecture(nested(4))) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": 5, "name": "c"}, r"filters of layer 'c' \(Conv2D\) was 4, is 5"),
        ({"activation": "tanh", "name": "c"}, r"activation of layer 'c' \(Conv2D\) was \"relu\", is \"tanh\""),
        ({"rate": 0.5}, r"rate of layer 'dropout\S*' \(Dropout\) was 0.2, is 0.5"),
        ({"crossed": True}, r"inputs of layer 'concatenate\S*' \(Concatenate\) "),
        ({"extra": True}, r"layer 'batch_normalization\S*' was Add, is BatchNormalization"),
    ],
)
def test_the_first_difference_is_told(changes, message):
    assert re.match(message, difference(architecture(build()), architecture(build(**changes))))


def test_layers_at_the_end_and_inside_of_nested_models_count():
    before = architecture(build())
    assert difference(before[:-1], before).endswith("(Conv2D) is new")
    assert difference(before, before[:-1]).endswith("(Conv2D) is gone")
    assert "'inner'" in difference(architecture(nested(4)), architecture(nested(6)))


def test_a_setting_that_another_keras_added_is_no_difference():
    before = architecture(build())
    now = architecture(build())
    now[1]["settings"]["added_later"] = None
    assert difference(before, now) is None and difference(now, before) is None
