"""The update rules of a run: expectations in NumPy, from the papers' formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import blocks
from kseg.settings import make_settings
from kseg.training import optimizers
from kseg.training.build import build_optimizer
from kseg.training.schedules import Schedule


def _variables(*values, names=None):
    names = names or ["kernel"] * len(values)
    return [keras.Variable(np.asarray(value, "float32"), name=name) for value, name in zip(values, names, strict=True)]


def _apply(optimizer, variables, gradients):
    optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients], variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_the_rate_drops_at_its_epochs():
    settings = make_settings(epochs=9, lr_schedule="steps", lr_drop_epochs="2, 4.5", lr_drop_factor=0.5, warmup_steps=2)
    rate = build_optimizer(settings, total_steps=90, epoch_steps=10)._learning_rate
    # Drops at steps 20 and 45; the rise is over steps 0 and 1.
    expected = {0: 0.5e-3, 1: 1e-3, 19: 1e-3, 20: 0.5e-3, 44: 0.5e-3, 45: 0.25e-3, 89: 0.25e-3}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-6)
    again = Schedule.from_config(rate.get_config())
    assert all(float(again(step)) == float(rate(step)) for step in expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_drop_epochs": "3"}, "go together, got constant and '3'"),
        ({"lr_schedule": "steps"}, "go together, got steps and ''"),
        ({"lr_schedule": "steps", "lr_drop_epochs": "3,2"}, "rising numbers such as 30,60,90, got '3,2'"),
        ({"lr_schedule": "steps", "lr_drop_epochs": "0,2"}, "rising numbers"),
        ({"lr_schedule": "steps", "lr_drop_epochs": "nan"}, "rising numbers"),
        ({"lr_schedule": "steps", "lr_drop_epochs": "soon"}, "rising numbers such as 30,60,90, got 'soon'"),
        ({"optimizer": "adamw"}, "optimizer=adamw needs a weight_decay above 0, got 0"),
        ({"best_by": "loss"}, "best_by must be one of mean_iou, pixel_accuracy"),
        ({"clip_norm": -1.0}, "clip_norm must be at least 0"),
    ],
)
def test_settings_that_do_not_go_together(values, message):
    with pytest.raises(ValueError, match=message):
        make_settings(epochs=1, **values)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_is_decoupled_and_of_kernels_alone(name):
    """With zero gradients what changes is the decay, w - rate * decay * w, also after momentum had time to gather."""
    image = keras.Input((8, 8, 2))
    x = blocks.recurrent_conv(image, steps=1, name="beta")  # a layer that is called like what is left out
    model = keras.Model(image, keras.layers.Conv2D(3, 1, bias_initializer="ones")(x))
    settings = make_settings(epochs=1, optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(settings, 10)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    for _ in range(3):
        after = _apply(optimizer, model.trainable_variables, map(np.zeros_like, before))
    names = [variable.name for variable in model.trainable_variables]
    # One kernel for both steps of the recurrence with one bias, a norm for each, and the last convolution.
    assert sorted(names) == ["beta", "beta", "bias", "bias", "gamma", "gamma", "kernel", "kernel"]
    for kind, old, new in zip(names, before, after, strict=True):
        np.testing.assert_allclose(new, old * ((1 - 0.1 * 0.5) ** 3 if kind == "kernel" else 1), rtol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True], ids=["float32", "float16"])
def test_the_whole_gradient_is_clipped_after_the_loss_is_unscaled(wrapped):
    precision = "float16" if wrapped else "none"
    settings = make_settings(
        epochs=1, optimizer="sgd", momentum=0.0, learning_rate=1.0, clip_norm=2.5, mixed_precision=precision
    )
    optimizer = build_optimizer(settings, 10)
    variables = _variables([0.0, 0.0], [0.0])
    optimizer.build(variables)
    scale = float(optimizer.scale_loss(1.0))
    assert (scale > 1) == wrapped
    # |(3, 0, 4)| = 5, twice what is allowed; then a short one, which stays.
    after = _apply(optimizer, variables, [np.array([3.0, 0.0]) * scale, np.array([4.0]) * scale])
    np.testing.assert_allclose(np.concatenate(after), [-1.5, 0, -2], rtol=1e-6)
    after = _apply(optimizer, variables, [np.array([0.0, 1.0]) * scale, np.array([0.0])])
    np.testing.assert_allclose(np.concatenate(after), [-1.5, -1, -2], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_encoder_s_rate_scales_its_steps_and_its_decay(name):
    def run(learning_rate, multiplier, encoder):
        settings = make_settings(
            epochs=1,
            optimizer=name,
            learning_rate=learning_rate,
            weight_decay=0.1,
            encoder_lr_multiplier=multiplier,
        )
        variables = _variables([1.0, 2.0], [3.0])
        optimizer = build_optimizer(settings, 10, encoder=variables[:1] if encoder else ())
        for gradient in (1.0, -0.3, 0.5):
            after = _apply(optimizer, variables, [[gradient, 2 * gradient], [gradient]])
        return after

    got = run(0.1, 0.1, True)
    whole = run(0.1, 1.0, False)
    tenth = run(0.01, 1.0, False)
    np.testing.assert_allclose(got[0], tenth[0], rtol=1e-6)  # as a run at a tenth of the rate
    np.testing.assert_allclose(got[1], whole[1], rtol=1e-6)
    assert not np.allclose(tenth[0], whole[0], rtol=1e-3)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_encoder_that_starts_late_steps_as_one_that_starts_then(name):
    """Adam's correction for moments that begin at zero counts from the encoder's first step, not from the run's."""
    gradients = [0.5, -1.0, 0.25]
    settings = make_settings(epochs=9, optimizer=name, learning_rate=0.1, freeze_encoder_epochs=2)
    fresh = _variables([1.0])
    (encoder, head) = _variables([1.0], [1.0])
    optimizer = build_optimizer(settings, 90, epoch_steps=10, encoder=[encoder])
    optimizer.build([encoder, head])
    for _ in range(20):
        _apply(optimizer, [head], [[1.0]])
    assert float(encoder[0]) == 1
    plain = build_optimizer(make_settings(epochs=9, optimizer=name, learning_rate=0.1), 90)
    for gradient in gradients:
        late = _apply(optimizer, [encoder, head], [[gradient], [1.0]])[0]
        expected = _apply(plain, fresh, [[gradient]])[0]
        np.testing.assert_allclose(late, expected, rtol=1e-5)


SHAPES = [(3, 3, 5, 7), (7,), (1, 1, 7, 2), (1,), (65, 33)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("encoder", [False, True])
def test_adam_s_rule_as_a_function_has_the_bits_of_keras(compiled, encoder, monkeypatch):
    """Twelve steps, with decay, a rate that changes, and an encoder that starts late and has a rate of its own."""
    settings = {"optimizer": "adamw", "weight_decay": 0.01, "learning_rate": 0.05, "lr_schedule": "poly", "epochs": 4}
    if encoder:
        settings |= {"encoder_lr_multiplier": 0.1, "freeze_encoder_epochs": 1}

    def run():
        random = np.random.default_rng(0)
        variables = _variables(*(random.normal(size=shape) for shape in SHAPES))
        own = variables[:2] if encoder else ()
        optimizer = build_optimizer(make_settings(**settings), 12, epoch_steps=3, encoder=own)
        optimizer.build(variables)
        step = lambda *gradients: optimizer.apply(list(gradients), variables)  # noqa: E731
        step = tf.function(step, autograph=False) if compiled else step
        for _ in range(12):
            step(*(tf.constant(random.normal(size=shape), tf.float32) for shape in SHAPES))
        return [np.asarray(variable.value) for variable in (*variables, *optimizer.variables)]

    assert optimizers._takes_rule(tf.zeros(()))
    monkeypatch.setattr(optimizers, "_TOGETHER", 2)  # the last call of five variables has one
    calls = []
    rule = optimizers._adam_rule
    monkeypatch.setattr(optimizers, "_adam_rule", lambda *options: calls.append(options) or rule(*options))
    ours = run()
    assert sum(count for *_, count in calls) >= len(SHAPES)
    monkeypatch.setattr(optimizers, "_takes_rule", lambda gradient: False)
    calls.clear()
    for value, other in zip(ours, run(), strict=True):
        np.testing.assert_array_equal(value, other)
    assert not calls


def test_the_graph_of_a_step_has_adam_s_rule_once(monkeypatch):
    """Four variables of four shapes, two a call: two calls of one function that is not inlined."""
    monkeypatch.setattr(optimizers, "_TOGETHER", 2)
    variables = _variables(*(np.zeros(shape) for shape in SHAPES[:4]))
    optimizer = build_optimizer(make_settings(epochs=1), 10)
    optimizer.build(variables)
    step = tf.function(lambda *gradients: optimizer.apply(list(gradients), variables), autograph=False)
    graph = step.get_concrete_function(*(tf.zeros(shape) for shape in SHAPES[:4])).graph.as_graph_def()
    calls = [node.attr["f"].func.name for node in graph.node if node.op == "StatefulPartitionedCall"]
    assert len(calls) == 2 and len(set(calls)) == len(graph.library.function) == 1
    assert graph.library.function[0].attr["_noinline"].b
    assert not any(node.op == "AssignSubVariableOp" for node in graph.node)
