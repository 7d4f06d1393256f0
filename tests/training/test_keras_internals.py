"""The private names of Keras that training is built on: a test for each, so that a new Keras says which it changed."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.training.trainers import keras_internals


def functional():
    image = keras.Input((4, 4, 2))
    inner = keras.Sequential([keras.layers.Conv2D(2, 1, name="inside"), keras.layers.Dropout(0.5, seed=3)])
    x = inner(image)
    return keras.Model(image, {"a": keras.layers.Dropout(0.5, name="dropped")(x), "b": keras.ops.relu(x)})


def check_flatten_layers():
    names = [layer.name for layer in keras_internals.every_layer(functional())]
    assert "inside" in names and "dropped" in names


def check_seed_generators():
    (generator,) = keras_internals.seed_generators(keras.layers.Dropout(0.5, seed=3))
    assert callable(generator.next)
    (inside,) = keras_internals.seed_generators(functional().get_layer("dropped"))
    assert inside is not generator


def check_functional():
    """A Sequential's graph."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    image, output, nodes = keras_internals.graph_of(model)
    assert [node.operation for node in nodes] == model.layers
    assert nodes[0].input_tensors == [image] and nodes[1].outputs == [output]


def check_nodes_by_depth():
    """The nodes, computed one by one from `fill_in`, give what the model gives."""
    image = keras.Input((4,))
    x = keras.layers.Dense(3)(image)
    model = keras.Model(image, keras.layers.Add()([x, keras.layers.Dense(3)(x)]))
    start, output, nodes = keras_internals.graph_of(model)
    assert len(nodes) == 3 and keras_internals.graph_of(keras.layers.Dense(1)) is None
    batch = tf.constant(np.random.default_rng(0).random((2, 4), np.float32))
    values = {id(start): batch}
    for node in nodes:
        args, kwargs = node.arguments.fill_in(values)
        values[id(node.outputs[0])] = node.operation(*args, **kwargs)
    np.testing.assert_allclose(values[id(output)], model(batch), rtol=1e-6)


def check_outputs_struct():
    _, outputs, nodes = keras_internals.graph_of(functional())
    assert set(outputs) == {"a", "b"}
    assert all(any(value is made for node in nodes for made in node.outputs) for value in outputs.values())


def check_call_context_args():
    assert keras_internals.takes_training(keras.layers.BatchNormalization())
    operations = [node.operation for node in keras_internals.graph_of(functional())[2]]
    (relu,) = [operation for operation in operations if not isinstance(operation, keras.Layer)]
    assert not keras_internals.takes_training(relu)


class _Noted(keras_internals.OwnRates, keras.optimizers.SGD):
    calls = ()

    def finish_updates(self):
        self.calls += ("finish",)

    def _clip_gradients(self, grads):
        self.calls += ("clip",)
        return super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        self.calls += ("sum",)
        return super()._all_reduce_sum_gradients(grads_and_vars)


def _optimizer():
    """After a step of rate 1 with gradient (3, 0) and (4,), of length 5, clipped to 2.5."""
    optimizer = _Noted(1.0, global_clipnorm=2.5)
    variables = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    optimizer.apply([tf.constant([3.0, 0.0]), tf.constant([4.0])], variables)
    return optimizer, variables


def check_clip_gradients():
    """Keras calls it where it would clip a replica's part; here that does nothing."""
    optimizer, _ = _optimizer()
    assert "clip" in optimizer.calls


def check_all_reduce_sum_gradients():
    """Keras calls it once, and what it gives is applied."""
    optimizer, variables = _optimizer()
    assert optimizer.calls.count("sum") == 1
    np.testing.assert_allclose(np.concatenate([v.numpy() for v in variables]), [-1.5, 0.0, -2.0], rtol=1e-6)


def check_backend_update_step():
    """Keras calls it once a step, after the sum, and all variables have been updated when it ends."""
    optimizer, _ = _optimizer()
    assert optimizer.calls.count("finish") == 1 and optimizer.calls[-1] == "finish"


def check_get_variable_index():
    optimizer, variables = _optimizer()
    assert [optimizer.index_of(variable) for variable in variables] == [0, 1]


class _NotedAdam(keras_internals.OwnRates, keras.optimizers.Adam):
    """After its first step, of gradient g, the moments are .1 g and .001 g^2."""


def _moments():
    optimizer = _NotedAdam(1.0)
    variable = keras.Variable([0.0, 0.0])
    optimizer.apply([tf.constant([3.0, 0.0])], [variable])
    return [moment.numpy() for moment in optimizer.moments_of(variable)]


def check_momentums():
    np.testing.assert_allclose(_moments()[0], [0.3, 0.0], rtol=1e-6)


def check_velocities():
    np.testing.assert_allclose(_moments()[1], [0.009, 0.0], rtol=1e-6)


CHECKS = {name.removeprefix("check"): check for name, check in globals().items() if name.startswith("check_")}


@pytest.mark.parametrize("name", CHECKS)
def test_keras_still_has(name):
    CHECKS[name]()


def test_no_other_file_uses_them(root):
    """But for batch norms in inference, which stands below training."""
    used = {
        (path.relative_to(root / "kseg").as_posix(), name)
        for path in (root / "kseg").rglob("*.py")
        for name in CHECKS
        if re.search(rf"\.{name}\b|\"{name}\"|def {name}\b", path.read_text())
    }
    here = "training/trainers/keras_internals.py"
    before_training = {(path, "_flatten_layers") for path in ("inference/compatibility.py", "export/serving.py")}
    assert used == {(here, name) for name in CHECKS} | before_training
