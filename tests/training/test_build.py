"""A user's model is read back before the first step: what a file could not hold is told then, by its name."""

import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg.inference.label_model import label_set_of
from kseg.inference.loading import with_label_set
from kseg.io.errors import InputError
from kseg.training.build import check_loads


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("building"))


def model_of(layer, kind=keras.Model):
    image = keras.Input((32, 64, 3))
    return kind(image, keras.layers.Conv2D(3, 1)(layer(image)), name="mine")


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class UnregisteredModel(keras.Model):
    pass


def unregistered_function(x):
    return 2 * x


@keras.saving.register_keras_serializable("tests")
class Times(keras.layers.Layer):
    """Registered, but `get_config` does not give what __init__ needs."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = np.float32(factor)

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable("tests")
class WithoutConfig(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x


@keras.saving.register_keras_serializable("tests")
class Growing(keras.layers.Layer):
    """Its weights depend on what `get_config` leaves out."""

    def __init__(self, depth=1, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [keras.layers.Conv2D(3, 1) for _ in range(depth)]

    def build(self, shape):
        for convolution in self.convolutions:
            convolution.build(shape)

    def call(self, x):
        for convolution in self.convolutions:
            x = convolution(x)
        return x

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable("tests")
class Whole(Growing):
    """As a layer should be."""

    def get_config(self):
        return {**super().get_config(), "depth": len(self.convolutions)}


DECORATOR = r"@keras\.saving\.register_keras_serializable\(\)"
REFUSED = {
    "class": (lambda: model_of(Unregistered()), f"the class Unregistered is not registered. Write .*{DECORATOR}"),
    "model": (lambda: model_of(Unregistered(), UnregisteredModel), "the class Unregistered(Model)? is not registered"),
    "function": (
        lambda: model_of(keras.layers.Activation(unregistered_function)),
        f"the function unregistered_function is not registered. Write .*{DECORATOR}",
    ),
    "nested": (
        lambda: model_of(keras.Sequential([keras.Input((32, 64, 3)), Unregistered()])),
        "the class Unregistered is not registered",
    ),
    "lambda": (
        lambda: model_of(keras.layers.Lambda(lambda x: 2 * x, name="twice")),
        "'twice' is a Lambda layer.* Write a layer class, or call keras.ops",
    ),
    "argument": (lambda: model_of(Times(2)), "missing 1 required positional argument: 'factor'"),
    "config": (lambda: model_of(WithoutConfig(object())), r"WithoutConfig .* must override `get_config\(\)`"),
    "weights": (
        lambda: model_of(Growing(2, name="growing")),
        r"layer 'growing' \(Growing\) has weights of shapes \[\(1, 1, 3, 3\), \(3,\), \(1, 1, 3, 3\), \(3,\)\], but "
        r"\[\(1, 1, 3, 3\), \(3,\)\] when it is loaded",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_loaded_is_told_by_its_name(name):
    build, message = REFUSED[name]
    with pytest.raises(InputError, match=f"^Model 'mine' could not be loaded from its own file: .*{message}"):
        check_loads(build())


@pytest.mark.parametrize("build", [lambda: model_of(Whole(2)), tiny.build_tiny], ids=["whole", "tiny"])
def test_what_can_be_loaded_passes_and_stays_as_it_was(build, tmp_path):
    model = build()
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    check_loads(model)
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value)
    model.save(tmp_path / "model.keras")
    assert kseg.load_model(tmp_path / "model.keras").count_params() == model.count_params()


def test_training_stops_before_the_first_step_and_writes_nothing(records, tmp_path):
    steps = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_: steps.append(1))
    with pytest.raises(InputError, match="the class Unregistered is not registered"):
        kseg.train(
            lambda: model_of(Unregistered()),
            records,
            tmp_path / "run",
            callbacks=[callback],
            **tiny.SETTINGS,
        )
    assert not steps and not (tmp_path / "run").exists()


def test_a_file_of_an_unregistered_class_says_which(tmp_path):
    model_of(Unregistered()).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="model.keras needs the class Unregistered. Import the module"):
        kseg.load_model(tmp_path / "model.keras")


def test_a_model_without_preprocess_carries_the_classes_of_its_run():
    """The layer would hold them in its file; what `kseg.train` returns can be exported without naming them again."""
    model = with_label_set(model_of(keras.layers.ReLU()), tiny.LABELS)
    assert label_set_of(model) == tiny.LABELS
    with_label_set(model, {**tiny.LABELS, "name": "other"})
    assert label_set_of(model)["name"] == tiny.LABELS["name"]  # one that knows its classes keeps them
    assert label_set_of(model_of(keras.layers.ReLU())) is None
