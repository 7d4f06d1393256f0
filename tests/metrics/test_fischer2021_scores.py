"""Protocol fischer2021: its rule against scikit-learn and by hand; a model that training mode leaves as it was."""

import json

import keras
import numpy as np
import pytest
import tiny
from PIL import Image
from scenes import make_cityscapes

import kseg
from kseg.commands import evaluate_command
from kseg.data.augmentation.apply_numpy import nearest_label, smooth_label
from kseg.data.records.prepare import prepare_dataset
from kseg.evaluation.fischer2021_protocol import network_size, record_batches, stored_label_resize
from kseg.layers import BatchNormalization, Preprocess
from kseg.metrics import SCORE_NAMES
from kseg.metrics.fischer2021_scores import Fischer2021Sums, image_scores
from kseg.runs.workdir import FLAGS_FILE

NAMES = ("image 0", "image 1")


@pytest.fixture(scope="module")
def stateful():
    """A model whose training mode differs: batch norm with statistics of its own, and dropout."""
    image = keras.Input((16, 32, 3))
    x = Preprocess((124, 116, 104), (60, 60, 60), multiple=16)(image)
    x = keras.layers.Conv2D(8, 3, padding="same", kernel_initializer=keras.initializers.HeNormal(seed=0))(x)
    x = BatchNormalization()(x)
    x = keras.layers.Dropout(0.5, seed=5)(x)
    model = keras.Model(image, keras.layers.Conv2D(3, 1, kernel_initializer=keras.initializers.HeNormal(seed=1))(x))
    norm = model.layers[3]
    norm.moving_mean.assign(np.full(8, 2.0))
    return model


def pairs(images=5, ids=6, seed=0):
    """Maps of which each holds some ids of its own; half of the predictions are right."""
    random = np.random.default_rng(seed)
    for _ in range(images):
        truth = random.choice(random.permutation(ids)[:3], (8, 12)).astype(np.uint8)
        wrong = random.choice(random.permutation(ids)[:2], truth.shape)
        yield truth, np.where(random.random(truth.shape) < 0.5, truth, wrong).astype(np.uint8)


def test_images_agree_with_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    sums = Fischer2021Sums(6)
    total = np.zeros(4)
    f1 = []
    jaccard = []
    for truth, guess in pairs():
        sums.update(truth, guess)
        matrix = sk.confusion_matrix(truth.ravel(), guess.ravel())  # of the ids in truth or prediction
        tp = np.diagonal(matrix)
        fp = matrix.sum(axis=0) - tp
        fn = matrix.sum(axis=1) - tp
        total += tp.sum(), fp.sum(), fn.sum(), (matrix.sum() - tp - fp - fn).sum()
        f1.append(sk.f1_score(truth.ravel(), guess.ravel(), average="micro"))
        jaccard.append(sk.jaccard_score(truth.ravel(), guess.ravel(), average="weighted"))
        one = image_scores(truth, guess)
        assert one["classes"] == len(matrix)
        assert (one["f1"], one["jaccard"]) == pytest.approx((f1[-1], jaccard[-1]), rel=1e-12)
    tp, fp, fn, tn = total
    expected = {
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "f1": np.mean(f1),
        "jaccard": np.mean(jaccard),
    }
    result = sums.result()
    assert {name: result[name] for name in SCORE_NAMES} == pytest.approx(expected, rel=1e-12)


def test_one_image_by_hand():
    # ids 0, 1, 4 are present (4 only predicted). TP: 2, 1, 0; rows 3, 1, 0; columns 2, 1, 1; N = 4.
    # TN of each: 4 - 3 = 1, 4 - 1 = 3, 4 - 1 = 3. Weighted Jaccard: 3/4 * 2/3 + 1/4 * 1/1.
    found = image_scores([0, 0, 0, 1], [0, 0, 4, 1])
    expected = {"tp": 3, "tn": 7, "fp": 1, "fn": 1, "classes": 3, "f1": 0.75, "jaccard": 0.75}
    assert found == pytest.approx(expected)


def test_void_pixels_and_ids_that_are_no_class():
    sums = Fischer2021Sums(2)
    sums.update(np.array([[0, 1, 255, 254, 7]]), np.array([[0, 0, 1, 1, 9]]))
    assert sums.out_of_range == 2  # 254 and 7; 9 at such a place is no predicted id either
    assert sums.result()["classes_per_image"] == 2 and sums.result()["sensitivity"] == 0.5
    sums.update(np.array([[255]]), np.array([[0]]))  # an image without a valid pixel is in no mean
    assert sums.images == 2 and sums.result()["f1"] == 0.5
    # Means over images weigh images alike, sums weigh pixels: f1 is (1/2 + 1) / 2, sensitivity (1 + 6) / 8.
    sums.update(np.zeros((2, 3), int), np.zeros((2, 3), int))
    assert (sums.result()["f1"], sums.result()["sensitivity"]) == (0.75, 7 / 8)
    assert all(np.isnan(value) for value in Fischer2021Sums(2).result().values())


def test_standard_scores_have_means_over_images():
    """Each image's macro scores over its own classes; an image without any is in no mean, nor is a 0/0 score."""
    from kseg.evaluation.standard_protocol import score_batches
    from kseg.metrics import confusion_matrix, five_scores

    maps = list(pairs())
    predictions = iter([guess[None] for _, guess in maps] + [np.zeros((1, 8, 12), int)])
    data = [(np.zeros((8, 12, 3), np.uint8), truth) for truth, _ in maps]
    data.append((data[0][0], np.full((8, 12), 255, np.uint8)))
    scores = score_batches(lambda *_: next(predictions), data, "abcdef")
    each = [five_scores(confusion_matrix(*pair, 6)[0], "macro") for pair in maps]
    expected = {name: np.mean([one[name] for one in each]) for name in SCORE_NAMES}
    assert scores.per_image == pytest.approx(expected, rel=1e-12) and scores.images == 6
    assert abs(scores.per_image["jaccard"] - scores.jaccard) > 0.01  # another number than the one matrix gives


def test_scores_are_taken_at_the_networks_size(records):
    from tiny import brightness_model

    model = brightness_model((16, 32, 3), classes=5)  # two outputs more than classes
    model.layers[1].label_set = tiny.LABELS
    found = kseg.evaluate(model, records, protocol="fischer2021", batch_size=2)
    sums = Fischer2021Sums(3)
    source = kseg.data.pipeline.load.open_split(records, "val")
    for image, label in source:
        small = Image.fromarray(image).resize((32, 16), Image.Resampling.BILINEAR)
        guess = np.digitize(np.asarray(small).mean(-1), [90, 160])
        sums.update(nearest_label(label, 16, 32), guess)
    for name, value in sums.result().items():
        assert getattr(found, name) == pytest.approx(value, abs=0.003)  # TensorFlow and Pillow round some pixels apart
    assert (found.height, found.width, found.images, found.expected_images) == (16, 32, 5, 5)
    assert found.out_of_range == 0 and "5/5 images at 32x16" in str(found) and "inference mode" in str(found)
    again = kseg.evaluate(model, list(source), protocol="fischer2021")  # pairs go through Pillow: exactly those
    assert [getattr(again, name) for name in SCORE_NAMES] == [sums.result()[name] for name in SCORE_NAMES]


@pytest.mark.parametrize(("label_resize", "resize"), [("nearest", nearest_label), ("smooth", smooth_label)])
def test_labels_come_to_size_as_in_training(records, label_resize, resize):
    source = kseg.data.pipeline.load.open_split(records, "val")
    batches = [np.asarray(label) for _, label in record_batches(source, 20, 28, 2, label_resize)]
    assert [len(batch) for batch in batches] == [2, 2, 1]  # every image once, in order, none dropped
    expected = [source.label_set.table[resize(source.raw(i)[1], 20, 28)] for i in range(5)]
    assert np.array_equal(np.concatenate(batches), expected)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """Records in Cityscapes' layout, three scenes of random ids 0..33 to score."""
    root = tmp_path_factory.mktemp("cityscapes")
    source = make_cityscapes(root / "source", train=1, val=3, instances=False)
    prepare_dataset("cityscapes", source, root / "records", shards=1, workers=1, progress=False)
    return root / "records"


@pytest.mark.parametrize(
    ("label_set", "outputs", "label_resize"), [("fischer2021_r2unet", 34, "smooth"), ("all_ids", 35, "nearest")]
)
def test_the_authors_two_recipes(cityscapes, label_set, outputs, label_resize):
    """R2U-Net: labels smoothed, then min(id, 20); SegNet-ASPP: ids as they are, nearest. Outputs beyond are ids too."""
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    source = kseg.data.pipeline.load.open_split(cityscapes, "val", label_set)
    image = keras.Input((8, 16, 3))
    x = Preprocess((124, 116, 104), (60, 60, 60), label_set=source.label_set.to_json())(image)
    weights = keras.initializers.RandomNormal(seed=2)
    model = keras.Model(image, keras.layers.Conv2D(outputs, 1, kernel_initializer=weights)(x))
    options = {"protocol": "fischer2021", "label_set": label_set, "label_resize": label_resize}
    found = kseg.evaluate(model, cityscapes, **options)
    counts = np.zeros(4)
    f1 = []
    jaccard = []
    beyond = 0
    for i, (small, _) in enumerate(record_batches(source, 8, 16, 1, label_resize)):
        guess = np.argmax(model(small), axis=-1).ravel()
        raw = source.raw(i)[1]
        smooth = label_resize == "smooth"
        truth = (np.minimum(smooth_label(raw, 8, 16), 20) if smooth else nearest_label(raw, 8, 16)).ravel()
        matrix = sk.confusion_matrix(truth, guess)
        tp = np.trace(matrix)
        errors = matrix.sum() - tp
        counts += tp, errors, matrix.size**0.5 * matrix.sum() - tp - 2 * errors, matrix.size**0.5
        f1.append(sk.f1_score(truth, guess, average="micro"))
        jaccard.append(sk.jaccard_score(truth, guess, average="weighted", zero_division=0))
        beyond += (guess >= source.label_set.num_classes).sum()
    tp, errors, tn, classes = counts
    expected = (
        (tp + tn) / (tp + tn + 2 * errors),
        tp / (tp + errors),
        tn / (tn + errors),
        np.mean(f1),
        np.mean(jaccard),
    )
    assert [getattr(found, name) for name in SCORE_NAMES] == pytest.approx(expected, rel=1e-12)
    assert found.classes_per_image == pytest.approx(classes / 3) and found.out_of_range == 0
    assert beyond > 0 or label_set == "all_ids"


def test_from_the_command_line(cityscapes, tmp_path, capsys):
    image = keras.Input((8, 16, 3))
    model = keras.Model(image, BatchNormalization()(keras.layers.Conv2D(34, 1)(image)))
    model.save(tmp_path / "model.keras")
    flags = (
        f"--model={tmp_path}/model.keras",
        f"--data_dir={cityscapes}",
        "--label_set=all_ids",
        "--protocol=fischer2021",
    )
    evaluate_command.FLAGS(
        ["evaluate.py", *flags, "--train_mode_statistics", "--batch_size=2", "--label_resize=smooth"]
    )
    evaluate_command.run(evaluate_command.FLAGS)
    table = json.loads((tmp_path / "model.keras.val.fischer2021.json").read_text())
    assert (table["images"], table["expected_images"], table["label_resize"]) == (2, 3, "smooth")
    assert table["train_mode_statistics"] is True
    assert "2/3 images at 16x8, protocol fischer2021, training mode, labels smooth" in capsys.readouterr().out


def test_label_resize_is_the_runs_own(tmp_path):
    (tmp_path / FLAGS_FILE).write_text("--label_resize=smooth\n")
    assert stored_label_resize(tmp_path) == stored_label_resize(str(tmp_path)) == "smooth"
    assert stored_label_resize(tmp_path / "best.keras") == stored_label_resize(keras.Sequential()) == "nearest"
    (tmp_path / FLAGS_FILE).write_text("--epochs=1\n")
    assert stored_label_resize(tmp_path) == "nearest"


def test_evaluate_takes_label_resize_of_a_run_folder(records, tmp_path, stateful):
    stateful.save(tmp_path / "best.keras")
    (tmp_path / FLAGS_FILE).write_text("--label_resize=smooth\n--keep=best\n")
    found = kseg.evaluate(tmp_path, records, protocol="fischer2021")
    assert found.label_resize == "smooth" and found.out_of_range > 0  # ids between 2 and 255 are no ids of this dataset
    given = kseg.evaluate(tmp_path, records, protocol="fischer2021", label_resize="nearest")
    assert given.label_resize == "nearest" and given.out_of_range == 0


def test_training_mode_leaves_every_variable_as_it_was(records, stateful):
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in stateful.variables]
    options = {"protocol": "fischer2021", "batch_size": 2, "train_mode_statistics": True}
    found = kseg.evaluate(stateful, records, **options)
    assert any(variable.name == "seed_generator_state" for variable in stateful.variables)
    for variable, value in zip(stateful.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value), variable.path
    assert found == kseg.evaluate(stateful, records, **options)  # dropout is seeded
    assert found.jaccard != kseg.evaluate(stateful, records, protocol="fischer2021").jaccard
    # 5 images in batches of 2: the last one is skipped, and the table says so
    assert (found.images, found.expected_images) == (4, 5)
    assert (
        "4/5 images" in str(found) and "training mode" in str(found) and "incomplete last batch of 1 was" in str(found)
    )


def test_training_mode_takes_the_batchs_statistics_and_drops(stateful):
    """Without dropout the prediction is that of the same network normalised by hand; with it another one each batch."""
    from kseg.evaluation.fischer2021_protocol import training_predictor

    images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    dropout = stateful.layers[4]
    predict = training_predictor(stateful, 2)
    first, second = (predict(images, 16, 32, NAMES) for _ in range(2))
    assert (first != second).any()
    assert np.array_equal(training_predictor(stateful, 2)(images, 16, 32, NAMES), first)
    rate = dropout.rate
    dropout.rate = 0.0
    try:
        features = np.asarray(keras.Model(stateful.input, stateful.layers[2].output)(images), np.float64)
        mean = features.mean(axis=(0, 1, 2))
        variance = features.var(axis=(0, 1, 2))
        kernel, bias = (np.asarray(weight, np.float64) for weight in stateful.layers[5].get_weights())
        logits = (features - mean) / np.sqrt(variance + 1e-5) @ kernel[0, 0] + bias  # gamma 1, beta 0
        got = training_predictor(stateful, 2)(images, 16, 32, NAMES)
    finally:
        dropout.rate = rate
    assert np.mean(got == logits.argmax(-1)) > 0.995  # rounding may decide a tie
    assert np.mean(first == logits.argmax(-1)) < 0.9


def test_scores_file(records, stateful, tmp_path):
    found = kseg.evaluate(stateful, records, protocol="fischer2021")
    found.to_json(tmp_path / "scores.json")
    table = json.loads((tmp_path / "scores.json").read_text())
    assert table["protocol"] == "fischer2021" and table["jaccard"] == found.jaccard and table["images"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_what_cannot_be_scored_is_said(records, stateful, tmp_path):
    from tiny import brightness_model

    source = kseg.data.pipeline.load.open_split(records, "val")
    floats = [(np.zeros((4, 4)), np.zeros((4, 4)))]

    def evaluate(data, model=stateful, protocol="fischer2021", **options):
        return kseg.evaluate(model, data, protocol=protocol, **options)

    for call, message in (
        (lambda: evaluate(records, protocol="standard", label_resize="smooth"), "label_resize needs protocol"),
        (lambda: evaluate(records, protocol="cityscapes", train_mode_statistics=True), "statistics needs protocol"),
        (lambda: evaluate(records, label_resize="cubic"), "one of nearest, smooth"),
        (lambda: evaluate(list(source), label_resize="smooth"), "a record folder"),
        (lambda: evaluate(records, brightness_model()), "takes any"),
        (lambda: evaluate([]), "got 0"),
        (lambda: evaluate(floats), "pairs of uint8"),
        (lambda: evaluate(records, batch_size=6, train_mode_statistics=True), "5 images do not fill one batch of 6"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    free = brightness_model()
    free.layers[1].size = (24, 40)
    assert network_size(free) == (24, 40)


def test_a_layer_that_normalises_over_the_batch_alone_needs_two_images(records):
    image = keras.Input((16, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(image)
    x = keras.layers.Conv2D(3, 1)(image) + BatchNormalization()(keras.layers.Conv2D(3, 1)(pooled))
    model = keras.Model(image, x)
    with pytest.raises(ValueError, match="at least 2 images"):
        kseg.evaluate(model, records, protocol="fischer2021", train_mode_statistics=True)
    found = kseg.evaluate(model, records, protocol="fischer2021", train_mode_statistics=True, batch_size=2)
    assert found.images == 4
