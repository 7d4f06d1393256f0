"""kseg.losses.functional against definitions in float64 NumPy: one image, one class, one pixel after the other."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kseg import losses
from kseg.losses import functional

WEIGHTS = [0.5, 2.0, 1.0]
CASES = {
    "cross_entropy": (functional.cross_entropy_sum, {}),
    "focal": (functional.focal_sum, {"gamma": 2.0}),
    "focal_weighted": (functional.focal_sum, {"gamma": 0.5, "class_weights": WEIGHTS}),
    "top_k": (functional.top_k_cross_entropy_sum, {"share": 0.3}),
    "top_k_weighted": (functional.top_k_cross_entropy_sum, {"share": 0.5, "class_weights": WEIGHTS}),
    "dice": (functional.dice_sum, {}),
    "lovasz": (functional.lovasz_softmax_sum, {}),
}


def _example():
    """Four images 4x5 of 3 classes: 3, 200 and 255 are not valid. One valid pixel; many, no class 2; none; all."""
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 3, 200, 255], (4, 4, 5)).astype(np.uint8)
    labels[0] = 255
    labels[2] = 200
    labels[0, 3, 1] = 2
    labels[3] = rng.integers(0, 3, (4, 5))
    return labels, 2 * rng.normal(size=(4, 4, 5, 3))


def _cross_entropies(label, scores, weights=(1, 1, 1)):
    return np.array([-weights[y] * math.log(p[y]) for y, p in zip(label, scores, strict=True)])


def _focal(label, scores, gamma, class_weights=(1, 1, 1)):
    pairs = zip(label, scores, strict=True)
    return sum(-class_weights[y] * (1 - p[y]) ** gamma * math.log(p[y]) for y, p in pairs)


def _top_k(label, scores, share, class_weights=(1, 1, 1)):
    hardest = sorted(_cross_entropies(label, scores, class_weights), reverse=True)
    return np.mean(hardest[: math.ceil(share * len(label))])


def _dice(label, scores):
    found = []
    for c in set(label):
        truth = label == c
        found.append(1 - 2 * scores[truth, c].sum() / (scores[:, c].sum() + truth.sum()))
    return np.mean(found)


def _jaccard_loss(truth, wrong):
    """1 - IoU of a class if exactly the pixels `wrong` are predicted wrongly."""
    predicted = truth ^ wrong
    return 1 - (truth & predicted).sum() / (truth | predicted).sum()


def _lovasz(label, scores):
    found = []
    for c in set(label):
        truth = label == c
        errors = np.where(truth, 1 - scores[:, c], scores[:, c])
        wrong = np.zeros(len(label), bool)
        loss = 0.0
        for i in np.argsort(-errors):
            before = _jaccard_loss(truth, wrong)
            wrong[i] = True
            loss += errors[i] * (_jaccard_loss(truth, wrong) - before)
        found.append(loss)
    return np.mean(found)


DEFINITIONS = {
    functional.cross_entropy_sum: lambda label, scores: _cross_entropies(label, scores).sum(),
    functional.focal_sum: _focal,
    functional.top_k_cross_entropy_sum: _top_k,
    functional.dice_sum: _dice,
    functional.lovasz_softmax_sum: _lovasz,
}


def _expected(name, labels, logits):
    """The definition over the valid pixels of each image that has one, added up."""
    total, options = CASES[name]
    found = 0.0
    for label, z in zip(labels.reshape(len(labels), -1), logits.reshape(len(labels), -1, 3), strict=True):
        valid = label < 3
        scores = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        found += DEFINITIONS[total](label[valid], scores[valid], **options) if valid.any() else 0.0
    return found


@pytest.fixture(scope="module", params=["shapes known when it runs", "XLA"])
def found(request):
    """{name: (sum, gradient)} of the example."""
    labels, logits = _example()
    sizes = [tf.TensorSpec([None] * 3, tf.uint8), tf.TensorSpec([None, None, None, 3], tf.float32)]

    @tf.function(jit_compile=request.param == "XLA", input_signature=None if request.param == "XLA" else sizes)
    def run(labels, logits):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            totals = {name: total(labels, logits, **options) for name, (total, options) in CASES.items()}
        return {name: (total, tape.gradient(total, logits)) for name, total in totals.items()}

    return run(tf.constant(labels), tf.constant(logits, tf.float32))


@pytest.mark.parametrize("name", CASES)
def test_sum_and_gradient_are_those_of_the_definition(name, found):
    labels, logits = _example()
    assert float(found[name][0]) == pytest.approx(_expected(name, labels, logits), rel=2e-6)
    slopes = np.zeros_like(logits)
    for i in np.ndindex(*labels.shape, 3):
        if labels[i[:3]] < 3:
            step = np.zeros_like(logits)
            step[i] = 1e-6
            image = slice(i[0], i[0] + 1)
            ends = (_expected(name, labels[image], (logits + s * step)[image]) for s in (1, -1))
            slopes[i] = np.subtract(*ends) / 2e-6
    np.testing.assert_allclose(found[name][1], slopes, atol=2e-6)
    assert not np.asarray(found[name][1])[labels > 2].any()  # exactly 0 where no label is


def test_counts_are_of_valid_pixels_and_of_images_that_have_one():
    labels, _ = _example()
    assert float(functional.valid_pixels(labels, 3)) == (labels < 3).sum()
    assert float(functional.valid_images(labels, 3)) == 3
    assert float(functional.valid_images(labels, 3, ignore_label=2)) == 2  # the only label of the first


def test_lovasz_of_hard_predictions_is_one_minus_the_mean_iou():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, (1, 50, 60))
    predicted = rng.integers(0, 5, (1, 50, 60))
    labels[0, :20, 5:] = 255
    valid = labels < 4
    ious = [(valid & (labels == c) & (predicted == c)).sum() for c in range(4)]
    ious = [both / (valid & ((labels == c) | (predicted == c))).sum() for c, both in enumerate(ious)]
    logits = 200 * np.eye(5, dtype=np.float32)[predicted]  # a softmax of 0 and 1
    assert float(functional.lovasz_softmax_sum(labels, logits)) == pytest.approx(1 - np.mean(ious), rel=1e-6)


def test_lovasz_slopes_keep_their_digits_in_large_images():
    """The 1 - IoU of neighbours in the order differ in the sixth digit here: float32 differences would be 1 % off."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (1, 512, 512))
    logits = rng.normal(size=(1, 512, 512, 2)).astype(np.float32)
    with tf.GradientTape() as tape:
        logits = tf.Variable(logits)
        total = functional.lovasz_softmax_sum(labels, logits)
    margin = np.float64(logits[..., 0] - logits[..., 1]).ravel()
    truth = labels.ravel()
    scores = 1 / (1 + np.exp(-margin))
    errors = np.where(truth == 0, 1 - scores, scores)  # with two classes the same for both
    order = np.argsort(-errors)
    steps = np.zeros((2, truth.size))
    for c in (0, 1):
        own = truth[order] == c
        ious = (own.sum() - np.cumsum(own)) / (own.sum() + np.cumsum(~own))
        steps[c, order] = -np.diff(ious, prepend=1.0)
    assert float(total) == pytest.approx((errors * steps).sum(-1).mean(), rel=1e-5)
    expected = np.where(truth == 0, -1, 1) * scores * (1 - scores) * steps.mean(0)
    ratio = np.asarray(tape.gradient(total, logits))[0, ..., 0].ravel() / expected
    assert (abs(ratio - 1) < 1e-4).mean() > 0.95  # but for neighbours that float32 cannot tell apart


@pytest.mark.parametrize("name", CASES)
def test_nothing_valid_and_certain_scores_give_finite_gradients(name):
    total, options = CASES[name]
    logits = tf.Variable(np.float32([[[[80, 0, -80], [-80, 0, 80], [0, 0, 0]]]]))  # p = 1, p = 0, p = 1/3
    for labels, bound in (([[[255, 3, 200]]], 0), ([[[0, 0, 255]]], np.inf), ([[[0, 255, 255]]], 1e-6)):
        with tf.GradientTape() as tape:
            value = total(np.uint8(labels), logits, **options)
        gradient = np.asarray(tape.gradient(value, logits))
        assert np.isfinite(gradient).all() and np.isfinite(value) and 0 <= float(value) <= bound
        assert np.abs(gradient).max() <= bound


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name):
    total, options = CASES[name]
    labels, logits = _example()
    rounded = tf.cast(logits, tf.bfloat16)
    value = total(labels, rounded, **options)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(float(total(labels, tf.cast(rounded, tf.float32), **options)), rel=1e-6)


def test_limits_give_cross_entropy():
    labels, logits = _example()
    whole = float(functional.cross_entropy_sum(labels, logits, WEIGHTS))
    assert float(functional.focal_sum(labels, logits, 0.0, WEIGHTS)) == pytest.approx(whole, rel=1e-6)
    image = labels[3:], logits[3:]  # all 20 pixels are valid
    mean = float(functional.cross_entropy_sum(*image, WEIGHTS)) / 20
    assert float(functional.top_k_cross_entropy_sum(*image, 1.0, WEIGHTS)) == pytest.approx(mean, rel=1e-6)


def test_a_sum_divides_each_loss_by_its_own_count_over_the_whole_batch():
    """20 + 1 + some valid pixels in three of four images; parts of the batch add up to the same terms."""
    labels, logits = _example()
    terms = losses.loss_terms("cross_entropy+0.5*dice+2*lovasz_softmax")
    pixels = (labels < 3).sum()
    expected = _expected("cross_entropy", labels, logits) / pixels
    expected += (0.5 * _expected("dice", labels, logits) + 2 * _expected("lovasz", labels, logits)) / 3
    assert float(losses.mean_of_terms(terms, labels, tf.constant(logits))) == pytest.approx(expected, rel=2e-6)
    halves = [slice(0, 1), slice(1, 4)]
    parts = 0.0
    for term in terms:
        count = sum(float(term.count(labels[half], 3)) for half in halves)
        parts += term.weight * sum(float(term.total(labels[half], logits[half])) for half in halves) / count
    assert parts == pytest.approx(expected, rel=2e-6)
