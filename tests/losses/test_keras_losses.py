"""Cross entropy as (sum, count), Keras losses, and the class weights: expectations in float64 NumPy or by hand."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import losses
from kseg.io.errors import InputError

WEIGHTS = [0.5, 2.0, 1.0]


def _example(seed=0):
    """Labels with ignored (255) and out-of-range (3, 200) pixels, and logits (2, 4, 5, 3)."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3, 200, 255], (2, 4, 5)).astype(np.uint8)
    return labels, (3 * rng.normal(size=(2, 4, 5, 3))).astype(np.float32)


def _expected(labels, logits, weights=(1, 1, 1)):
    """(sum, count, gradient): w * -log softmax at the label, and w * (softmax - one-hot)."""
    valid = labels < 3
    truth = np.where(valid, labels, 0)
    softmax = np.exp(np.float64(logits))
    softmax /= softmax.sum(-1, keepdims=True)
    one_hot = np.eye(3)[truth]
    weight = np.asarray(weights)[truth] * valid
    gradient = weight[..., None] * (softmax - one_hot)
    return -(weight * np.log((softmax * one_hot).sum(-1))).sum(), valid.sum(), gradient


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("fast", [True, False])
def test_sum_count_and_gradient(jit, weights, fast, monkeypatch):
    labels, logits = _example()
    if not fast:  # the formula of the other backends, on TensorFlow's tensors
        monkeypatch.setattr(keras.backend, "backend", lambda: "another")

    @tf.function(jit_compile=jit)
    def run(labels, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total, count = losses.cross_entropy(labels, logits, weights)
        return total, count, tape.gradient(total, logits)

    total, count, gradient = run(tf.constant(labels), tf.constant(logits))
    expected = _expected(labels, logits, weights or (1, 1, 1))
    assert float(total) == pytest.approx(expected[0], rel=1e-5)
    assert float(count) == expected[1] < labels.size  # the denominator is not the sum of the weights
    np.testing.assert_allclose(gradient, expected[2], atol=1e-6)


def test_ignored_255_never_becomes_a_class():
    # Two pixels, one of them ignored: the loss is that of the other: log 2 for equal logits.
    for extreme in ([100.0, -100.0], [-100.0, 100.0]):
        logits = np.array([[[extreme, [0.0, 0.0]]]], np.float32)
        total, count = losses.cross_entropy(np.array([[[255, 1]]], np.uint8), logits)
        assert float(total) == pytest.approx(np.log(2)) and float(count) == 1
    # An ignored id among the classes works too.
    total, count = losses.cross_entropy(np.array([[[0, 1]]]), logits, ignore_label=0)
    assert float(total) == pytest.approx(np.log(2)) and float(count) == 1


def test_bfloat16_logits_are_summed_in_float32():
    labels = np.zeros((1, 40, 50), np.uint8)
    logits = tf.zeros((1, 40, 50, 3), tf.bfloat16)
    total, count = losses.cross_entropy(labels, logits)
    # 2000 pixels of log 3: bfloat16 (8 bits) would stop counting at 256.
    assert total.dtype == tf.float32 and float(total) == pytest.approx(2000 * np.log(3), rel=1e-6)
    assert count.dtype == tf.float32 and float(count) == 2000


def test_extreme_logits_stay_finite():
    logits = np.array([[[[1e4, 0.0, -1e4], [0.0, 1e4, 0.0]]]], np.float32)
    total, _ = losses.cross_entropy(np.array([[[2, 1]]]), logits)
    assert float(total) == pytest.approx(2e4)


def test_loss_of_a_batch_without_a_valid_pixel_is_zero_and_so_is_its_gradient():
    loss = losses.CrossEntropy(WEIGHTS)
    logits = tf.Variable(_example()[1])
    with tf.GradientTape() as tape:
        value = loss(tf.fill((2, 4, 5), tf.constant(255, tf.uint8)), logits)
    assert float(value) == 0
    np.testing.assert_array_equal(tape.gradient(value, logits), np.zeros_like(logits))


def test_compiles_into_a_model_and_keeps_its_configuration(tmp_path):
    labels, _ = _example()
    images = np.random.default_rng(3).normal(size=(2, 4, 5, 2)).astype(np.float32)
    model = keras.Sequential([keras.Input((4, 5, 2)), keras.layers.Conv2D(3, 1)])
    model.compile(keras.optimizers.SGD(0.5), losses.CrossEntropy(WEIGHTS), jit_compile=True)
    expected = _expected(labels, np.asarray(model(images)), WEIGHTS)
    assert model.evaluate(images, labels, verbose=0) == pytest.approx(expected[0] / expected[1], rel=1e-5)
    history = model.fit(images, labels, epochs=15, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loss = keras.models.load_model(tmp_path / "model.keras").loss
    assert loss.get_config() == model.loss.get_config() and loss.class_weights == WEIGHTS


def test_median_frequency_by_hand():
    # Shares of the classes that have pixels .6, .3, .1: median .3, weights .5, 1, 3. Class 2 has none.
    weights = losses.median_frequency_weights([60, 30, 0, 10])
    np.testing.assert_allclose(weights, [0.5, 1, 0, 3], rtol=1e-6)
    # The paper's frequency: class 3's pixels over those of the images that hold it, 10/20 = .5; the median of
    # .6, .3, .5 is .5.
    weights = losses.median_frequency_weights([60, 30, 0, 10], present_pixels=[100, 100, 0, 20])
    np.testing.assert_allclose(weights, [5 / 6, 5 / 3, 0, 1], rtol=1e-6)
    # An even number of classes: the median is the mean of the middle two, (.4 + .2) / 2 = .3.
    np.testing.assert_allclose(losses.median_frequency_weights([4, 1, 3, 2])[[0, 3]], [0.625, 1.25], rtol=1e-6)


def test_class_weights_by_name():
    counts = [60, 30, 0, 10]
    assert losses.class_weights("none", counts, 4) is None
    np.testing.assert_allclose(losses.class_weights("median_frequency", counts, 4), [0.5, 1, 0, 3], rtol=1e-6)
    # 1 / sqrt(.6), 1 / sqrt(.3), 1 / sqrt(.1), times sqrt(.3) for the median class to have 1.
    roots = losses.class_weights("inverse_sqrt_frequency", counts, 4)
    np.testing.assert_allclose(roots, [np.sqrt(0.5), 1, 0, np.sqrt(3)], rtol=1e-6)
    np.testing.assert_array_equal(losses.class_weights("1, 2,.5,0", (), 4), np.float32([1, 2, 0.5, 0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, z: losses.cross_entropy(y, z, [1, 2]), "3 classes"),
        (lambda y, z: losses.cross_entropy(y, z, [1, 2, -1]), ">= 0"),
        (lambda y, z: losses.cross_entropy(y, z, [1, 2, np.nan]), "finite"),
        (lambda y, z: losses.cross_entropy(y[..., None], z), "labels"),
        (lambda y, z: losses.cross_entropy(y[:, :3], z), "labels"),
        (lambda y, z: losses.CrossEntropy()(y, z, sample_weight=1.0), "no sample weights"),
        (lambda y, z: losses.class_weights("inverse", [1, 2], 2), "median_frequency"),
        (lambda y, z: losses.class_weights("median_frequency", [1, 2], 3), "3 classes, the data 2"),
        (
            lambda y, z: losses.class_weights("1,2", [1, 2, 3], 3),
            "class_weights must be 3 numbers, one for each class, got 2",
        ),
        (lambda y, z: losses.SegmentationLoss()(y, z, sample_weight=1.0), "SegmentationLoss takes no sample weights"),
        (lambda y, z: losses.SegmentationLoss("dice", WEIGHTS), "class_weights has no effect with loss dice"),
        (lambda y, z: losses.median_frequency_weights([0, 0]), "not all 0"),
        (lambda y, z: losses.median_frequency_weights([1, -1]), ">= 0"),
        (lambda y, z: losses.median_frequency_weights([1, 2], [1, 2, 3]), "one per class"),
        (lambda y, z: losses.median_frequency_weights([5, 2], [4, 2]), "more pixels"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(*_example())
    assert "\n" not in str(error.value)


_SUM = "cross_entropy+2*focal+0.5*top_k_cross_entropy+3*dice+1.5*lovasz_softmax"


def test_a_sum_of_losses_keeps_its_configuration():
    loss = losses.SegmentationLoss(_SUM, WEIGHTS, focal_gamma=1.5, top_k_share=0.4, ignore_label=2, name="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again.get_config() | {"class_weights": WEIGHTS, "focal_gamma": 1.5, "ignore_label": 2} == again.get_config()
    labels, logits = _example()
    assert (
        float(again(labels, logits)) == float(loss(labels, logits)) != float(losses.SegmentationLoss()(labels, logits))
    )


_JAX = """
import jax, sys, keras, numpy as np
from kseg import losses, metrics
rng = np.random.default_rng(0)
labels = rng.choice([0, 1, 2, 200, 255], (5, 4, 4)).astype(np.uint8)
images = rng.normal(size=(5, 4, 4, 3)).astype(np.float32)
model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1, use_bias=False)])
model.compile("sgd", losses.CrossEntropy([1, 2, 0.5]), metrics=[metrics.SegmentationScores(3)])
matrix, _ = metrics.confusion_matrix(labels, np.asarray(model(images)).argmax(-1), 3)
macro = metrics.five_scores(matrix, "macro")
# One batch an epoch: the first epoch's scores are those of the untrained weights.
history = model.fit(images, labels, batch_size=5, epochs=3, shuffle=False, verbose=0).history
macro["macro_accuracy"] = macro.pop("accuracy")  # the bare name would be taken for the share of pixels
assert all(abs(history[name][0] - macro[name]) < 1e-6 for name in macro), (history, macro)
assert abs(history["pixel_accuracy"][0] - np.trace(matrix[:, :3]) / matrix.sum()) < 1e-6
assert history["loss"][-1] < history["loss"][0], history["loss"]
# The loss of one batch by hand: nll of the valid pixels times their weight, over their number.
logits = np.asarray(model(images), np.float64)
nll = np.log(np.exp(logits).sum(-1))[labels < 3] - logits[labels < 3, labels[labels < 3]]
expected = (nll * np.array([1, 2, 0.5])[labels[labels < 3]]).sum() / (labels < 3).sum()
got = float(losses.CrossEntropy([1, 2, 0.5])(labels, model(images)))
assert abs(got - expected) < 1e-6, (got, expected)
metric = metrics.SegmentationScores(2)
state = np.zeros((2, 3, 3), np.int32)
state[:, 0, 0] = [2**30 - 1, 5]  # 6 * 2**30 - 1 pixels, past int32
metric.counts.assign(state)
metric.update_state(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2, 2), np.float32))
assert metric.matrix()[0, 0] == 6 * 2**30 + 3, metric.matrix()
assert abs(float(metric.result()["sensitivity"]) - 1) < 1e-6
assert metric.variables[0].dtype == "int32" and len(metric.variables) == 1
logits = (3 * rng.normal(size=(5, 4, 4, 3))).astype(np.float32)
kinds = [losses.SegmentationLoss(name) for name in sys.argv[1].split("+")]
both = jax.jit(lambda z: [jax.value_and_grad(lambda z: loss(labels, z))(z) for loss in kinds])(logits)
for value, gradient in both:
    print(float(value), float((np.asarray(gradient) ** 2).sum()))
assert "tensorflow" not in sys.modules
"""


def test_loss_and_metric_run_on_jax_without_tensorflow():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", _JAX, _SUM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)  # the numbers that the program draws
    labels = rng.choice([0, 1, 2, 200, 255], (5, 4, 4)).astype(np.uint8)
    rng.normal(size=(5, 4, 4, 3))
    logits = tf.Variable((3 * rng.normal(size=(5, 4, 4, 3))).astype(np.float32))
    for line, name in zip(done.stdout.splitlines(), _SUM.split("+"), strict=True):
        with tf.GradientTape() as tape:
            value = losses.SegmentationLoss(name)(labels, logits)
        squares = float(tf.reduce_sum(tape.gradient(value, logits) ** 2))
        np.testing.assert_allclose([float(x) for x in line.split()], [float(value), squares], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.SegmentationLoss("dice")])
@pytest.mark.parametrize(("shape", "found"), [((2, 4, 4, 1), "4, 4, 1"), ((2, 4, 4, 3), "4, 4, 3")])
def test_labels_with_a_last_axis_are_told_in_fit(loss, shape, found):
    """As for Keras' own losses: (B, H, W, 1), and one-hot."""
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", loss=loss)
    with pytest.raises(InputError, match=rf"got \(\w+, {found}\) and .*give labels\[..., 0\] of \(B, H, W, 1\)"):
        model.fit(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(shape, np.uint8), verbose=0)
