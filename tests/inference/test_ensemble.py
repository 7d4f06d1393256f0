"""Ensembles: the mean of several models' probabilities, and how far the models disagree."""

import json
import math
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from test_looks import photo, small_network, softmax

import kseg
from kseg.inference.ensemble import AveragingModel, disagreement, largest_disagreement
from kseg.inference.looks import Looks
from kseg.layers import Preprocess
from kseg.metrics.calibration import CalibrationCounts

LABELS = {"name": "train_ids", "classes": ["road", "car", "sky"], "palette": [[0, 50, 20], [90, 50, 20], [180, 50, 20]]}


def network(seed, labels=LABELS):
    """`small_network` with weights of its own that carries class names."""
    model = small_network()
    model.get_layer("preprocess").label_set = labels
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def constant(logits):
    """A model that gives these logits everywhere."""
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(len(logits), 1)
    model = keras.Model(image, layer(Preprocess((0, 0, 0), (1, 1, 1))(image)))
    layer.set_weights([np.zeros((1, 1, 3, len(logits))), np.array(logits)])
    return model


def probabilities_of(model, image):
    return softmax(model(image[None].astype("float32")))[0]


@pytest.fixture(scope="module")
def models():
    return [network(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / f"{name}.keras" for name in "abc"]
    for model, path in zip(models, paths, strict=True):
        model.save(path)
    return paths


def as_run(folder, file):
    """A finished run folder that kept a file."""
    folder.mkdir(parents=True)
    (folder / "flags.txt").write_text("--model=unet\n")
    (folder / "scores.json").write_text("{}")
    shutil.copy(file, folder / "best.keras")
    return folder


@pytest.fixture(scope="module")
def study(files, tmp_path_factory):
    """The folders of a study of one contestant with three seeds, of which 10 comes after 9."""
    folder = tmp_path_factory.mktemp("study")
    for file, seed in zip(files, (0, 9, 10), strict=True):
        as_run(folder / "runs" / "unet" / "camvid" / f"seed-{seed}", file)
    return folder


def test_the_mean_is_that_of_numpy_and_disagreement_the_mean_divergence_from_it(models):
    image = photo(32, 48)
    each = np.stack([probabilities_of(model, image) for model in models])
    mean = each.mean(0)
    labels, confidence, found = kseg.predict(models, image, return_confidence=True, return_disagreement=True)
    np.testing.assert_array_equal(labels, mean.argmax(-1))
    np.testing.assert_allclose(confidence, mean.max(-1), atol=1e-5)
    divergence = (each * np.log(each / mean)).sum(-1).mean(0)  # Kullback-Leibler from the mean, mean over models
    np.testing.assert_allclose(found, divergence, atol=1e-5)
    assert found.max() > 0.01 and (labels != kseg.predict(models[0], image)).any()
    alone = kseg.predict(models, image, return_disagreement=True)
    assert len(alone) == 2
    np.testing.assert_array_equal(alone[1], found)
    np.testing.assert_array_equal(kseg.predict(models, image), labels)


def test_models_that_agree_do_not_disagree_even_if_they_are_unsure():
    image = photo(8, 8)
    for logits in ([0, 0, 0], [1, 2, 3], [60, 0, 0]):
        found = kseg.predict([constant(logits), constant(logits)], image, return_disagreement=True)[1]
        np.testing.assert_allclose(found, 0, atol=1e-6)


def test_models_that_are_sure_of_different_classes_disagree_by_the_logarithm_of_their_number():
    image = photo(8, 8)
    sure = [constant(logits) for logits in ([60, 0, 0], [0, 60, 0], [0, 0, 60])]
    # Two: the mean is 1/2 and 1/2, whose entropy is ln 2; that of each is 0.
    np.testing.assert_allclose(kseg.predict(sure[:2], image, return_disagreement=True)[1], math.log(2), rtol=1e-6)
    np.testing.assert_allclose(kseg.predict(sure, image, return_disagreement=True)[1], math.log(3), rtol=1e-6)
    assert largest_disagreement(3, 3) == math.log(3) and largest_disagreement(5, 2) == math.log(2)
    # Of two classes, five models that are 3 to 2: H(2/5, 3/5), which is less than ln 2.
    five = [np.eye(2)[label] for label in (0, 0, 1, 1, 1)]
    assert disagreement(five) == pytest.approx(-0.4 * math.log(0.4) - 0.6 * math.log(0.6))


@pytest.mark.parametrize("looks", [{"flip": True}, {"scales": (1, 0.5)}, {"scales": (0.5,), "flip": True}])
def test_looks_are_of_each_model_and_no_part_of_the_disagreement(models, looks):
    image = photo(32, 48)
    each = [AveragingModel([model], Looks(**looks)).probabilities(image[None], ["it"])[0] for model in models]
    labels, confidence, found = kseg.predict(models, image, return_confidence=True, return_disagreement=True, **looks)
    np.testing.assert_array_equal(labels, np.mean(each, axis=0).argmax(-1))
    np.testing.assert_allclose(confidence, np.mean(each, axis=0).max(-1), atol=1e-6)
    np.testing.assert_allclose(found, disagreement(each), atol=1e-6)
    twice = kseg.predict([models[0], models[0]], image, return_disagreement=True, **looks)
    np.testing.assert_allclose(twice[1], 0, atol=1e-6)


@pytest.mark.parametrize("size", [(97, 131), (200, 63)])
def test_windows_of_an_ensemble_agree_with_the_whole_image(models, size):
    image = photo(*size)
    asked = {"return_confidence": True, "return_disagreement": True}
    for tiled, whole in zip(
        kseg.predict(models, image, tile=64, **asked), kseg.predict(models, image, **asked), strict=True
    ):
        np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_models_that_have_no_mean_are_refused(models, files, tmp_path):
    image = photo(32, 48)
    other = network(4, {**LABELS, "classes": ["road", "bus", "sky"]})
    with pytest.raises(ValueError, match=r"same classes in the same order, but .* \(road, bus, sky\)"):
        kseg.predict([models[0], other], image)
    with pytest.raises(ValueError, match=r"first has 3 .* number 2 has 2 \(0, 1\)"):
        kseg.predict([models[0], constant([0, 0])], image)
    with pytest.raises(ValueError, match="a.keras was given twice"):
        kseg.predict([files[0], files[0]], image)
    with pytest.raises(ValueError, match="needs models, got none"):
        kseg.predict([], image)
    with pytest.raises(ValueError, match="there is one"):
        kseg.predict(models[0], image, return_disagreement=True)
    with pytest.raises(ValueError, match="there is one"):
        kseg.predict([models[0]], image, return_disagreement=True)
    with pytest.raises(ValueError, match="must look once"):
        kseg.predict([AveragingModel([models[0]], Looks(flip=True)), models[1]], image)
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "maps" / "x.png")
    with pytest.raises(ValueError, match="need the probabilities of all classes.*label maps"):
        kseg.predict([models[0], tmp_path / "maps"], image)


def test_the_folder_of_a_studys_seeds_is_their_mean(study, files):
    image = photo(32, 48)
    seeds = study / "runs" / "unet" / "camvid"
    model = kseg.load_model(seeds)
    expected = kseg.predict(files, image, return_confidence=True, return_disagreement=True)
    for found, wanted in zip(
        kseg.predict(model, image, return_confidence=True, return_disagreement=True), expected, strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(kseg.predict(seeds, image, flip=True), kseg.predict(files, image, flip=True))
    # A list may hold an ensemble: all models count alike.
    np.testing.assert_array_equal(
        kseg.predict([seeds / "seed-0", seeds / "seed-9", seeds / "seed-10"], image), expected[0]
    )


def test_folders_that_are_not_of_the_seeds_of_one_contestant(study, files, tmp_path):
    with pytest.raises(ValueError, match=r"holds the seeds of 1 contestant of a study.* such as .*/runs/unet/camvid\."):
        kseg.load_model(study)
    with pytest.raises(ValueError, match="holds the seeds of 1 contestant"):
        kseg.load_model(study / "runs" / "unet")
    shutil.copytree(study, tmp_path / "a[1] {x}*")  # no pattern
    with pytest.raises(ValueError, match=r"a\[1\] {x}\*/runs/unet/camvid\."):
        kseg.load_model(tmp_path / "a[1] {x}*")
    as_run(tmp_path / "seed-1", files[0])
    (as_run(tmp_path / "seed-2", files[1]) / "scores.json").unlink()
    with pytest.raises(ValueError, match="have not finished: seed-2"):
        kseg.load_model(tmp_path)


def test_predict_writes_disagreement_as_a_share_of_the_largest(files, tmp_path, call_script):
    Image.fromarray(photo(32, 48)).save(tmp_path / "x.png")
    names = "labels,confidence,disagreement"
    code, out, error = call_script(
        "predict",
        f"--model={files[0]},{files[1]}",
        f"--images={tmp_path}/x.png",
        f"--output={tmp_path}/out",
        f"--write={names}",
        "--ids=train",
    )
    assert code == 0 and f"{tmp_path}/out/disagreement/x.png" in out, error
    labels, confidence, found = kseg.predict(files[:2], photo(32, 48), return_confidence=True, return_disagreement=True)
    for name, values in (
        ("x", labels),
        ("confidence/x", np.rint(255 * confidence)),
        ("disagreement/x", np.rint(255 * found / math.log(2))),  # two models, three classes
    ):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), values)
    code, _, error = call_script(
        "predict",
        f"--model={files[0]}",
        f"--images={tmp_path}/x.png",
        f"--output={tmp_path}/other",
        "--write=disagreement",
    )
    assert code == 2 and "there is one" in error and not (tmp_path / "other").exists()


def test_a_path_with_a_comma_is_one_model(files, tmp_path, call_script):
    shutil.copy(files[0], tmp_path / "a,b.keras")
    Image.fromarray(photo(32, 48)).save(tmp_path / "x.png")
    paths = [f"--images={tmp_path}/x.png", f"--output={tmp_path}/out", "--ids=train"]
    assert call_script("predict", f"--model={tmp_path}/a,b.keras", *paths)[0] == 0
    found = np.asarray(Image.open(tmp_path / "out" / "x.png"))
    np.testing.assert_array_equal(found, kseg.predict(files[0], photo(32, 48)))
    code, _, error = call_script("predict", f"--model={files[0]},{tmp_path}/missing", *paths)
    assert code == 2 and f"No model at {tmp_path}/missing" in error


def test_evaluate_scores_the_mean_and_its_calibration(records, files, study, tmp_path, call_script):
    paths = [f"--model={files[0]},{files[1]},{files[2]}", f"--data_dir={records}"]
    code, _, error = call_script("evaluate", *paths)
    assert code == 2 and "give --output=FILE.json" in error
    output = tmp_path / "scores.json"
    code, out, error = call_script("evaluate", *paths, f"--output={output}", f"--report_dir={tmp_path}/report")
    assert code == 0 and "expected calibration error" in out, error
    matrix = np.zeros((3, 3), int)
    calibration = CalibrationCounts(3)
    for path in sorted((records.parent / "source" / "val" / "images").iterdir()):
        truth = np.asarray(Image.open(records.parent / "source" / "val" / "labels" / path.name))
        image = np.asarray(Image.open(path))
        labels, confidence = kseg.predict(files, image, return_confidence=True)
        valid = truth < 3
        np.add.at(matrix, (truth[valid], labels[valid]), 1)
        calibration.add(truth, labels, confidence)
    table = json.loads(output.read_text())
    assert np.array(table["confusion_matrix"])[:, :3].tolist() == matrix.tolist()
    found = json.loads((tmp_path / "report" / "calibration.json").read_text())["expected_calibration_error"]
    assert found == pytest.approx(calibration.calibration().expected_error, abs=1e-6)
    seeds = study / "runs" / "unet" / "camvid"
    scores = kseg.evaluate(seeds, records)
    np.testing.assert_array_equal(scores.confusion_matrix[:, :3], matrix)
    code, _, error = call_script("evaluate", *paths, f"--output={files[1]}")
    assert code == 2 and "Inputs must stay" in error


def test_compare_takes_an_ensemble_beside_one_of_its_models(records, files, study, tmp_path):
    seeds = study / "runs" / "unet" / "camvid"
    found = kseg.compare([seeds / "seed-0", seeds], records, tmp_path / "page")
    np.testing.assert_array_equal(found.scores[1].confusion_matrix, kseg.evaluate(files, records).confusion_matrix)
    origins = found.table["models"]
    assert origins[1]["reads"] == "mean of 3 models: Keras, Keras, Keras"
    assert origins[1]["weights_sha256"] != origins[0]["weights_sha256"]
    assert len(origins[1]["weights_sha256"]) == 64
    listed = kseg.compare({"one": files[0], "all": files}, records, tmp_path / "listed")
    np.testing.assert_array_equal(listed.scores[1].confusion_matrix, found.scores[1].confusion_matrix)
    assert listed.table["models"][1]["weights_sha256"] == origins[1]["weights_sha256"]
