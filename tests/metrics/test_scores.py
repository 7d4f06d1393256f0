"""One matrix, five scores: expectations are derived by hand or by scikit-learn."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import metrics
from kseg.metrics.scores import count_of_classes
from kseg.score_table import SCORES

# Rows truth, columns prediction, last column: outside the classes. Row sums 10, 5, 5; column sums 9, 6, 4;
# N = 20. Class 0: TP 8, FN 2, FP 1, TN 9; class 1: TP 4, FN 1, FP 2, TN 13; class 2: TP 3, FN 2, FP 1, TN 14.
MATRIX = np.array([[8, 1, 1, 0], [1, 4, 0, 0], [0, 1, 3, 1]])
CLASSES = ("road", "car", "sky")


def _pixels(matrix, outside):
    """Labels and predictions whose counts are `matrix`."""
    cells = [(t, p, n) for t, row in enumerate(matrix) for p, n in enumerate(row)]
    labels = np.concatenate([np.full(n, t) for t, p, n in cells])
    predictions = np.concatenate([np.full(n, p if p < len(matrix) else outside) for t, p, n in cells])
    return labels, predictions


def test_confusion_matrix_counts_outside_predictions_ignored_and_out_of_range_labels():
    labels, predictions = _pixels(MATRIX, outside=200)
    labels = np.concatenate([labels, [255, 255, 254, 77, 3]]).astype(np.uint8)  # two ignored, three no class
    predictions = np.concatenate([predictions, [0, 200, 0, 1, 2]]).astype(np.uint8)
    matrix, out_of_range = metrics.confusion_matrix(labels, predictions, 3)
    np.testing.assert_array_equal(matrix, MATRIX)
    assert matrix.dtype == np.int64 and out_of_range == 3
    # Negative ids are outside too; an ignored id may lie among the classes.
    matrix, out_of_range = metrics.confusion_matrix(np.array([0, 1, -1]), np.array([-1, 1, 0]), 2, ignore_label=1)
    np.testing.assert_array_equal(matrix, [[0, 0, 1], [0, 0, 0]])
    assert out_of_range == 1


@pytest.mark.parametrize("ignore_label", [255, 2, 300])
def test_labels_of_one_byte_count_like_any_integers(ignore_label):
    """They have a faster way of their own."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 256, 3000).astype(np.uint8)
    predictions = random.integers(-3, 300, 3000)
    labels[:1500] %= 6
    for guess in (predictions, predictions.astype(np.uint8)):
        matrix, strange = metrics.confusion_matrix(labels, guess, 5, ignore_label)
        expected, out_of_range = metrics.confusion_matrix(labels.astype(np.int32), guess, 5, ignore_label)
        np.testing.assert_array_equal(matrix, expected)
        assert matrix.dtype == np.int64 and strange == out_of_range > 0


def test_class_scores_by_hand():
    scores = metrics.five_scores(MATRIX)
    expected = {
        "accuracy": [17 / 20, 17 / 20, 17 / 20],
        "sensitivity": [8 / 10, 4 / 5, 3 / 5],
        "specificity": [9 / 10, 13 / 15, 14 / 15],
        "f1": [16 / 19, 8 / 11, 6 / 9],
        "jaccard": [8 / 11, 4 / 7, 3 / 6],
    }
    assert tuple(scores) == metrics.SCORE_NAMES
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-15)
        assert metrics.five_scores(MATRIX, "macro")[name] == pytest.approx(np.mean(values), rel=1e-15)


def test_micro_scores_by_hand():
    # Sums over the classes: TP 15, FN 5, FP 4 (the prediction outside the classes is nobody's FP), TN 36.
    expected = dict(zip(metrics.SCORE_NAMES, (51 / 60, 15 / 20, 36 / 40, 30 / 39, 15 / 24), strict=True))
    assert metrics.five_scores(MATRIX, "micro") == pytest.approx(expected, rel=1e-15)


def test_agrees_with_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 2000)
    predictions = rng.integers(0, 5, 2000)
    predictions = np.where(rng.random(2000) < 0.6, labels, predictions)
    matrix, _ = metrics.confusion_matrix(labels, predictions, 5)
    np.testing.assert_array_equal(matrix[:, :5], sk.confusion_matrix(labels, predictions))
    for average in (None, "macro", "micro"):
        scores = metrics.five_scores(matrix, average)
        np.testing.assert_allclose(scores["jaccard"], sk.jaccard_score(labels, predictions, average=average))
        np.testing.assert_allclose(scores["f1"], sk.f1_score(labels, predictions, average=average))
        np.testing.assert_allclose(scores["sensitivity"], sk.recall_score(labels, predictions, average=average))


def test_a_class_absent_from_truth_and_prediction_is_left_out_of_every_mean():
    # Class 1 is nowhere: an IoU of 0 would lower a mean, its accuracy and specificity of 1 would lift theirs.
    # Class 0: TP 3, FN 1, FP 0, TN 4; class 2: TP 4, FN 0, FP 1, TN 3. N = 8.
    matrix = np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]])
    macro = metrics.five_scores(matrix, "macro")
    assert macro["jaccard"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert macro["accuracy"] == pytest.approx(7 / 8)
    assert macro["specificity"] == pytest.approx((4 / 4 + 3 / 4) / 2)
    assert all(np.isnan(values[1]) for values in metrics.five_scores(matrix).values())
    # A class predicted but absent from the truth does count: IoU 0, sensitivity 0/0.
    predicted = metrics.five_scores(np.array([[3, 1], [0, 0]]))
    assert predicted["jaccard"][1] == 0 and np.isnan(predicted["sensitivity"][1])
    assert all(np.isnan(value) for value in metrics.five_scores(np.zeros((2, 3), int), "macro").values())


def test_frequency_weighted_iou_by_hand():
    # Shares of the truth 10/20, 5/20, 5/20; IoU 8/11, 4/7, 3/6 as above. A class only predicted has no weight.
    scores = metrics.Scores.from_confusion_matrix(MATRIX, CLASSES, 1)
    assert scores.frequency_weighted_iou == pytest.approx((2 * 8 / 11 + 4 / 7 + 3 / 6) / 4, rel=1e-15)
    only_predicted = metrics.Scores.from_confusion_matrix(np.array([[3, 1], [0, 0]]), "ab", 1)
    assert only_predicted.frequency_weighted_iou == 3 / 4
    nothing = metrics.Scores.from_confusion_matrix(np.zeros((2, 2), int), "ab", 1)
    assert np.isnan(nothing.frequency_weighted_iou)


def test_scores_hold_more_pixels_than_int32():
    # Twice Cityscapes' training set in one cell: 1.2e10 pixels.
    scores = metrics.Scores.from_confusion_matrix(np.array([[12 * 10**9, 0], [1, 1]]), ["a", "b"], images=5950)
    assert scores.per_class["b"]["sensitivity"] == 0.5 and scores.confusion_matrix.sum() == 12 * 10**9 + 2
    assert scores.pixel_accuracy == 1 - 1 / (12 * 10**9 + 2)


def test_scores_table_and_warning():
    scores = metrics.Scores.from_confusion_matrix(MATRIX, CLASSES, 500, out_of_range=3)
    lines = str(scores).splitlines()
    assert lines[0].split() == list(metrics.SCORE_NAMES)
    assert [line.split()[0] for line in lines[1:6]] == ["macro", "micro", *CLASSES]
    assert len({len(line) for line in lines[:6]}) == 1  # the columns are aligned
    # Macro jaccard by hand: (8/11 + 4/7 + 1/2) / 3 = .5996, weighted by 2, 1 and 1: .6315; pixel accuracy 15/20.
    assert lines[6] == "mean IoU 0.5996 over all 3 classes"
    assert "frequency-weighted IoU 0.6315, pixel accuracy 0.7500, 500/500 images" in lines[7]
    assert lines[8].startswith("WARNING: 3 pixels")
    assert "WARNING" not in str(dataclasses.replace(scores, out_of_range=0))
    short = metrics.Scores.from_confusion_matrix(MATRIX, CLASSES, 496, expected_images=500)
    assert "496/500 images" in str(short)
    per_image = dict.fromkeys(metrics.SCORE_NAMES, 0.25) | {"f1": float("nan")}
    lines = str(dataclasses.replace(scores, per_image=per_image)).splitlines()
    assert lines[3].split() == ["per", "image", "0.2500", "0.2500", "0.2500", "-", "0.2500"]
    assert len({len(line) for line in lines[:7]}) == 1


def test_the_table_says_which_classes_entered_the_mean():
    # a: 4 of 5 pixels right, one taken for c, which no label has; b and d are nowhere. (4/5 + 0) / 2 = .4.
    counts = np.zeros((4, 5), int)
    counts[0, [0, 2]] = 4, 1
    scores = metrics.Scores.from_confusion_matrix(counts, "abcd", 1)
    assert scores.scored_classes == ("a", "c") and scores.mean_iou == pytest.approx(0.4)
    lines = str(scores).splitlines()
    assert "mean IoU 0.4000 over 2 of 4 classes (without b, d)" in lines
    assert "Predicted but in no label, so IoU 0: c" in lines
    counts[0, 1] = 1
    counts[3, 3] = 1
    whole = str(metrics.Scores.from_confusion_matrix(counts, "abcd", 1))
    assert "over all 4 classes" in whole and "so IoU 0: b, c" in whole
    assert count_of_classes(("b",), "abc") == "1 of 3 classes (b)"  # the shorter list
    assert count_of_classes((), "abc") == "0 of 3 classes (none)"


def test_scores_json_round_trip_with_nan_as_null(tmp_path):
    absent = np.array([[3, 0], [0, 0]])
    scores = metrics.Scores.from_confusion_matrix(absent, ["a", "NaN"], images=2, out_of_range=1)
    scores.to_json(tmp_path / "scores.json")
    table = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    fields = {field.name for field in dataclasses.fields(scores)} - {"epoch", "step", "reads"}  # which not all have
    assert set(table) == {*fields, *SCORES, "scored_classes"}
    of_a_run = dataclasses.replace(scores, epoch=2, step=30, reads="Keras")
    of_a_run.to_json(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["epoch"] == 2
    assert metrics.Scores.from_json(tmp_path / "run.json").step == 30
    assert metrics.Scores.from_json(tmp_path / "run.json").reads == "Keras"
    assert table["scored_classes"] == ["a"]
    assert table["mean_iou"] == 1 and table["per_class"]["NaN"]["jaccard"] is None
    assert table["confusion_matrix"] == [[3, 0, 0], [0, 0, 0]]
    again = metrics.Scores.from_json(tmp_path / "scores.json")
    assert str(again) == str(scores) and again.classes == scores.classes
    assert again.confusion_matrix.dtype == np.int64 and np.isnan(again.per_class["NaN"]["f1"])
    assert sorted(os.listdir(tmp_path)) == ["run.json", "scores.json"]  # no temporary file is left
    for key in ("frequency_weighted_iou", "per_image", "scored_classes"):  # files of older kseg lack them
        table.pop(key)
    (tmp_path / "scores.json").write_text(json.dumps(table))
    assert metrics.Scores.from_json(tmp_path / "scores.json").per_image == {} == again.per_image
    (tmp_path / "scores.json").write_text('{"mean_iou": 1}')
    with pytest.raises(ValueError, match="scores.json must be a table of scores"):
        metrics.Scores.from_json(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int), 2), "shape"),
        (lambda: metrics.confusion_matrix(np.zeros(2), np.zeros(2, int), 2), "integers"),
        (lambda: metrics.five_scores(np.zeros((2, 4), int)), r"\(C, C \+ 1\)"),
        (lambda: metrics.five_scores(np.full((2, 2), 0.5)), "float64"),
        (lambda: metrics.five_scores(MATRIX, "weighted"), "weighted"),
        (lambda: metrics.Scores.from_confusion_matrix(MATRIX, ["a", "b"], 1), "3 classes"),
        (lambda: metrics.Scores.from_confusion_matrix(MATRIX, ["a", "b", "b"], 1), "different names"),
        (lambda: metrics.SegmentationScores(3, average="none"), "none"),
        (lambda: metrics.SegmentationScores(3).update_state(0, 0, sample_weight=1), "no sample weights"),
        (lambda: metrics.batch_confusion_matrix(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 3)), 3), "labels"),
        (lambda: metrics.batch_confusion_matrix(np.zeros((1, 2, 2)), np.zeros((1, 2, 3, 3)), 3), "labels"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def _batch(seed=0, shape=(2, 6, 5), classes=3, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 200, 255], shape).astype(dtype)
    return labels, rng.normal(size=(*shape, classes)).astype(np.float32)


@pytest.mark.parametrize("jit", [False, True])
def test_batch_matrix_equals_numpy_also_under_xla_and_with_dynamic_sizes(jit):
    signature = [tf.TensorSpec([None] * 3, tf.uint8), tf.TensorSpec([None, None, None, 4])]
    count = tf.function(
        lambda y, z: metrics.batch_confusion_matrix(y, z, 3), input_signature=signature, jit_compile=jit
    )
    for shape in [(2, 6, 5), (1, 3, 7)]:
        labels, logits = _batch(shape=shape, classes=4)  # logit 3 is outside the three classes
        expected, out_of_range = metrics.confusion_matrix(labels, logits.argmax(-1), 3)
        counted = count(labels, logits).numpy()
        np.testing.assert_array_equal(counted[:3], expected)
        assert counted.dtype == np.int32 and counted[3].sum() == out_of_range > 0 and expected[:, 3].sum() > 0
    ids = metrics.batch_confusion_matrix(labels, logits.argmax(-1), 3)
    np.testing.assert_array_equal(ids, counted)


def test_batch_matrix_takes_the_first_of_equal_logits():
    logits = np.array([[[[0.0, -0.0, 0.0]]], [[[1.0, 2.0, 2.0]]]], np.float32)
    counted = np.asarray(metrics.batch_confusion_matrix(np.zeros((2, 1, 1), int), logits, 3))
    np.testing.assert_array_equal(counted[0], [1, 1, 0, 0])


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_metric_sums_batches_and_resets(average):
    metric = metrics.SegmentationScores(3, average=average)
    total = 0
    update = tf.function(metric.update_state, jit_compile=True)
    for seed in range(3):
        labels, logits = _batch(seed)
        update(tf.constant(labels), tf.constant(logits))
        total = total + metrics.confusion_matrix(labels, logits.argmax(-1), 3)[0]
    np.testing.assert_array_equal(metric.matrix(), total)
    expected = {
        **metrics.five_scores(total, average),
        "mean_iou": metrics.five_scores(total, "macro")["jaccard"],
        "pixel_accuracy": np.trace(total[:, :3]) / total.sum(),
    }
    expected[f"{average}_accuracy"] = expected.pop("accuracy")  # no other accuracy than that of pixels has a bare name
    assert {name: float(value) for name, value in metric.result().items()} == pytest.approx(expected, rel=1e-6)
    scores = metric.scores(CLASSES, images=6)
    assert scores.out_of_range > 0 and scores.images == 6 and scores.classes == CLASSES
    assert len(metric.variables) == 1 and metric.variables[0].dtype == "int64"
    assert metrics.SegmentationScores.from_config(metric.get_config()).average == average
    metric.reset_state()
    assert metric.matrix().sum() == 0 and np.isnan(metric.result()["mean_iou"])


def test_metric_state_passes_int32():
    metric = metrics.SegmentationScores(2)
    metric.counts.assign(np.pad([[2**31 - 1]], ((0, 2), (0, 2))))
    metric.update_state(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2, 2), np.float32))
    assert metric.matrix()[0, 0] == 2**31 + 3


@pytest.mark.parametrize("jit", [False, True])
def test_metric_in_fit_equals_the_matrix_of_the_predictions(jit):
    labels, _ = _batch(shape=(5, 4, 4))
    images = np.random.default_rng(2).normal(size=(5, 4, 4, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1, use_bias=False)])
    # The kernel stays as it is: the loss is constant, so the training scores are those of the predictions.
    model.compile("sgd", lambda y, z: keras.ops.sum(z) * 0, metrics=[metrics.SegmentationScores(3)], jit_compile=jit)
    logs = model.fit(images, labels, validation_data=(images[:2], labels[:2]), batch_size=2, verbose=0).history
    predictions = np.argmax(model(images), -1)
    for prefix, n in [("", 5), ("val_", 2)]:  # 5 images in batches of 2: the ragged last one counts
        macro = metrics.five_scores(metrics.confusion_matrix(labels[:n], predictions[:n], 3)[0], "macro")
        right = (predictions[:n] == labels[:n]).sum() / np.isin(labels[:n], range(3)).sum()
        macro["macro_accuracy"] = macro.pop("accuracy")
        for name, value in {**macro, "mean_iou": macro["jaccard"], "pixel_accuracy": right}.items():
            assert logs[prefix + name][0] == pytest.approx(value, rel=1e-6)
    assert "accuracy" not in logs
