"""Protocol "cityscapes" against the benchmark's own evaluator, which reads predictions from PNG files."""

import json
import math
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tiny
from PIL import Image
from scenes import save

import kseg
from kseg.commands import evaluate_command
from kseg.data.pipeline.examples import Examples
from kseg.data.records.prepare import prepare_dataset
from kseg.evaluation.cityscapes_protocol import evaluate_cityscapes, regular_ids
from kseg.io import images
from kseg.layers import Preprocess
from kseg.metrics.cityscapes_scores import CityscapesCounts

SIZE = (24, 40)
ABSENT = (12, 25, 31)  # wall, rider, train: in no label below
INSTANCES = range(24, 34)


def ids_in_blocks(random, ids):
    """A label map of 4x4 blocks, so that instances have several pixels."""
    return np.kron(random.choice(ids, (6, 10)), np.ones((4, 4))).astype(np.uint8)


def scene(number):
    """(image, labels, instance ids): red is 7 * id + 1 of the label, with another id in three pixels of ten."""
    random = np.random.default_rng(number)
    ids = [i for i in range(34) if i not in ABSENT and (number % 3 != 1 or i not in INSTANCES)]
    label = ids_in_blocks(random, ids)
    instances = label.astype(np.uint16)
    things = np.isin(label, INSTANCES) & (random.random(SIZE) < 0.9)  # the others are a group: the class alone
    instances[things] = label[things] * np.uint16(1000) + ids_in_blocks(random, range(4))[things]
    seen = np.where(random.random(SIZE) < 0.3, random.choice([i for i in range(34) if i != 31], SIZE), label)
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = 7 * seen + 1
    return image, label, instances


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve validation scenes in Cityscapes' layout; every third has no instance."""
    root = tmp_path_factory.mktemp("cityscapes")
    for split, numbers, cities in (("train", [99], ("aachen",)), ("val", range(12), ("munster", "lindau"))):
        for number in numbers:
            city = cities[number % len(cities)]
            stem = f"{city}/{city}_{number:06}_000019"
            image, label, instances = scene(number)
            save(root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", image)
            save(root / "gtFine" / split / f"{stem}_gtFine_labelIds.png", label)
            save(root / "gtFine" / split / f"{stem}_gtFine_instanceIds.png", instances)
    return root


@pytest.fixture(scope="module")
def records(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    prepare_dataset("cityscapes", source, folder, shards=2, workers=1, progress=False)
    return folder


def label_files(source):
    return sorted((source / "gtFine" / "val").glob("*/*_labelIds.png"))


@pytest.fixture
def official(source, tmp_path, monkeypatch):
    """A function: predictions in the order of `label_files` -> the bytes of the file that the evaluator writes."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # its release 2.3.0 calls what NumPy 2.4 took away
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluator

    def evaluate(predictions):
        truths = [str(path) for path in label_files(source)]
        paths = [tmp_path / "png" / pathlib.Path(truth).name for truth in truths]
        for path, prediction in zip(paths, predictions, strict=True):
            save(path, prediction.astype(np.uint8))
        monkeypatch.setattr(evaluator.args, "quiet", True)
        monkeypatch.setattr(evaluator.args, "exportFile", str(tmp_path / "official.json"))
        evaluator.evaluateImgLists([str(path) for path in paths], truths, evaluator.args)
        return (tmp_path / "official.json").read_bytes()

    return evaluate


def nearest_id_model(ids):
    """The class whose id is nearest to red / 7: -(red / 7 - id)^2 without what all classes share is linear in red."""
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(len(ids), 1)
    model = keras.Model(image, layer(Preprocess((0, 0, 0), (1, 1, 1))(image)))
    kernel = np.zeros((1, 1, 3, len(ids)), np.float32)
    ids = np.array(ids, np.float32)
    kernel[0, 0, 0] = 2 * ids / 7
    layer.set_weights([kernel, -(ids**2)])
    return model


def ids_of(label_set):
    if label_set == "all_ids":
        return list(range(34))
    return [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]  # Cityscapes' 19 training classes, in order


def guesses(kind, truths):
    """Predictions: with a share of errors, void ids among them; or all of one class, or of void alone."""
    random = np.random.default_rng(5)
    if kind in ("sky", "void"):
        return [np.full(SIZE, {"sky": 23, "void": 0}[kind]) for _ in truths]
    wrong = [random.random(SIZE) < kind for _ in truths]
    return [np.where(w, random.integers(0, 34, SIZE), t) for w, t in zip(wrong, truths, strict=True)]


@pytest.mark.parametrize("kind", [0, 0.1, 0.4, 0.9, "sky", "void"])
def test_every_number_is_the_official_one(source, official, tmp_path, kind):
    truths = [np.asarray(Image.open(path)) for path in label_files(source)]
    maps = [str(path).replace("labelIds", "instanceIds") for path in label_files(source)]
    counts = CityscapesCounts()
    predictions = guesses(kind, truths)
    for prediction, truth, path in zip(predictions, truths, maps, strict=True):
        counts.add(prediction, truth, np.asarray(Image.open(path)))
    counts.scores().to_json(tmp_path / "scores.json")
    expected = official(predictions)
    assert (tmp_path / "scores.json").read_bytes() == expected  # json writes floats so that they read back exactly
    table = json.loads(expected)
    share = 0 if isinstance(kind, str) else 1 - kind  # of the pixels of instances that are right
    assert math.isnan(table["classScores"]["train"]) == (share in (0, 1))  # neither there nor predicted
    assert table["averageScoreInstClasses"] == pytest.approx(share, abs=0.25)


@pytest.mark.parametrize("label_set", ["train_ids", "all_ids"])
def test_evaluate_gives_the_official_scores(source, records, official, tmp_path, label_set):
    ids = ids_of(label_set)
    model = nearest_id_model(ids)
    names = [str(path).replace("gtFine_labelIds", "leftImg8bit") for path in label_files(source)]
    predictions = kseg.predict(model, [name.replace("gtFine", "leftImg8bit") for name in names])
    scores = kseg.evaluate(model, records, protocol="cityscapes", label_set=label_set, batch_size=5)
    scores.to_json(tmp_path / "scores.json")
    expected = official([np.array(ids)[prediction] for prediction in predictions])
    assert (tmp_path / "scores.json").read_bytes() == expected
    assert 0.4 < scores.mean_iou < 0.9 and 0.4 < scores.mean_iiou < 0.9
    assert scores.class_iou["rider"] == 0  # predicted, never there
    assert math.isnan(scores.class_iou["train"]) == (label_set == "all_ids")  # else what looks like a trailer
    void = scores.confusion_matrix[7:, :7].sum()  # predicted where something scored is
    assert (void > 0) == (label_set == "all_ids")
    if label_set == "train_ids":
        assert kseg.evaluate(model, records).mean_iou == pytest.approx(scores.mean_iou, rel=1e-12)
    assert "12/12 images, protocol cityscapes" in str(scores)


def test_scores_that_are_not_finite_name_the_image(records):
    model = nearest_id_model(ids_of("train_ids"))
    model.layers[-1].set_weights([np.full_like(weight, np.nan) for weight in model.layers[-1].get_weights()])
    with pytest.raises(FloatingPointError, match=r"scores for image \w+_\d{6}_\d{6} are not finite"):
        kseg.evaluate(model, records, protocol="cityscapes")


def test_instances_weigh_by_size_and_caravans_are_vehicles():
    """Truth: 10 road, a car of 4 pixels, 2 void; predicted: 2 of the road and the void as car, 1 of the car as caravan.

    w = 12794.0202738185 / 4. Car: TP 3w, FN w, FP 2 (void truth counts nowhere). Vehicles with instances: TP 4w; in
    the category's IoU a caravan is no scored class, so TP 3, FN 1, FP 2.
    """
    label = np.array([[7] * 10 + [26] * 4 + [0] * 2])
    prediction = np.array([[7] * 8 + [26] * 2 + [26] * 3 + [29] + [26] * 2])
    instances = np.where(label == 26, 26003, label)
    counts = CityscapesCounts()
    counts.add(prediction, label, instances)
    scores = counts.scores()
    w = 12794.0202738185 / 4
    assert scores.class_iou["road"] == 0.8 and scores.class_iou["car"] == scores.category_iou["vehicle"] == 0.5
    assert scores.class_iiou["car"] == pytest.approx(3 * w / (4 * w + 2), rel=1e-15)
    assert scores.category_iiou["vehicle"] == pytest.approx(4 * w / (4 * w + 2), rel=1e-15)
    assert scores.mean_iou == 0.65 and scores.mean_iiou == scores.class_iiou["car"]  # of road and car alone
    assert math.isnan(scores.class_iou["caravan"]) and math.isnan(scores.class_iou["unlabeled"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": np.zeros((4, 5), int)}, r"share one shape \(H, W\), got \(4, 5\), \(4, 4\), \(4, 4\)"),
        (
            {"prediction": np.full((4, 4), 34)},
            "Predictions must be regular ids, integers of 0..33, got int64 of 34",
        ),
        ({"prediction": np.zeros((4, 4))}, "Predictions must be .* got float64"),
        ({"label": np.full((4, 4), 255)}, "Labels must be regular ids, integers of 0..33, got int64 of 255..255"),
        (
            {"instances": np.full((4, 4), 7001)},
            "Only person, rider, car, .* have instances .*, but this map has some of class id 7",
        ),
        ({"instances": np.full((4, 4), 65535)}, "this map has some of class id 65"),
    ],
    ids=["shape", "id", "type", "label", "road", "unknown"],
)
def test_bad_maps_are_refused_and_not_counted(changes, message):
    good = {name: np.zeros((4, 4), int) for name in ("prediction", "label", "instances")}
    counts = CityscapesCounts()
    with pytest.raises(ValueError, match=message):
        counts.add(**(good | changes))
    with pytest.raises(ValueError, match="at least one image to score, got 0"):
        counts.scores()
    counts.add(**good)
    assert counts.matrix.sum() == 16
    with pytest.raises(ValueError, match="expected 2, got 1"):
        counts.scores(expected_images=2)


def test_what_cannot_be_scored_officially_says_why(source, tmp_path):
    model = nearest_id_model(ids_of("train_ids"))
    with pytest.raises(ValueError, match="pairs lack regular ids and instance maps"):
        kseg.evaluate(model, [], protocol="cityscapes")
    shutil.copytree(source, tmp_path / "bare", ignore=shutil.ignore_patterns("*_instanceIds.png"))
    prepare_dataset("cityscapes", tmp_path / "bare", tmp_path / "records", shards=1, workers=1, progress=False)
    with pytest.raises(ValueError, match="Record 0 of shard .*val.* has no instance map. Prepare the records again"):
        kseg.evaluate(model, tmp_path / "records", protocol="cityscapes")
    merged = Examples(tmp_path / "records", "val", label_set="fischer2021_r2unet")
    with pytest.raises(ValueError, match="'the rest' of label set fischer2021_r2unet stands for 14. Only"):
        evaluate_cityscapes(nearest_id_model(range(21)), merged)
    with pytest.raises(ValueError, match="needs records of Cityscapes that hold its regular ids, .* holds source/raw"):
        evaluate_cityscapes(nearest_id_model(range(3)), Examples(tiny.write_records(tmp_path / "folder"), "val"))


def test_outputs_beyond_the_classes_are_unlabeled(records):
    for outputs, size in ((21, 256), (300, 300)):  # a SavedModel does not say how many it has: uint8 ids
        assert regular_ids(Examples(records, "val"), outputs).tolist() == ids_of("train_ids") + [0] * (size - 19)


def test_instance_maps_are_grey_png():
    for dtype, top in ((np.uint8, 255), (np.uint16, 33999)):
        ids = np.array([[0, 1, top]], dtype)
        assert np.array_equal(images.decode_instances(images.encode(ids), "map"), ids)
    for array, form in ((np.zeros((2, 2, 3), np.uint8), "png"), (np.zeros((2, 2), np.uint8), "jpeg")):
        with pytest.raises(ValueError, match="map: instance maps must be 16-bit grey PNG, got"):
            images.decode_instances(images.encode(array, form), "map")


def test_scenes_are_read_as_they_are_needed(records, monkeypatch):
    """However long the split, few scenes are in memory: of twelve at most six are read when the first is given."""
    read = []
    scene_of = Examples.scene
    monkeypatch.setattr(Examples, "scene", lambda self, i: (read.append(i), scene_of(self, i))[1])
    scenes = Examples(records, "val").scenes()
    first = next(scenes)
    assert len(read) <= 6 and [np.shape(part) for part in first] == [(1, *SIZE, 3), (1, *SIZE), (1, *SIZE)]
    assert sum(1 for _ in scenes) == 11 and sorted(read) == list(range(12))


def test_script_writes_the_official_file_beside_the_model(records, tmp_path, capsys):
    model = nearest_id_model(ids_of("train_ids"))
    model.save(tmp_path / "model.keras")
    evaluate_command.FLAGS(
        ["evaluate.py", f"--model={tmp_path}/model.keras", f"--data_dir={records}", "--protocol=cityscapes"]
    )
    evaluate_command.run(evaluate_command.FLAGS)
    written = json.loads((tmp_path / "model.keras.val.cityscapes.json").read_text())
    expected = kseg.evaluate(model, records, protocol="cityscapes")
    assert "model.keras.val.cityscapes.json" in capsys.readouterr().out
    assert written["averageScoreClasses"] == expected.mean_iou
    assert written["averageScoreInstCategories"] == expected.mean_category_iiou
    assert set(evaluate_command.FLAGS["protocol"].parser.enum_values) == set(kseg.evaluation.evaluate.PROTOCOLS)
