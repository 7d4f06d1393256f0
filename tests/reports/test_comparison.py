"""kseg.compare: its numbers against kseg.evaluate and naive counts, its files, and what it refuses."""

import json
import re
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import kseg
from kseg.commands import command_line, compare_command
from kseg.data.datasets import cityscapes
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import MARKER, draw_cityscapes
from kseg.metrics.bootstrap import ImageCounts, paired_bootstrap
from kseg.metrics.confusion import confusion_matrix
from kseg.reports.compared_models import short_names
from kseg.reports.evaluation_report import write_report
from kseg.reports.page.output_folder import replaced_folder
from kseg.reports.page.pictures import who_is_right
from kseg.score_table import SCORE_NAMES, SCORES

LABELS = cityscapes.info().label_set()
ROAD = LABELS.classes.index("road")
IMAGES = 5


def linear_model(seed, classes=LABELS.num_classes):
    """Labels a pixel by a random linear function of its colour."""
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(classes, 1)
    model = keras.Model(image, layer(image))
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(size=(1, 1, 3, classes)), random.normal(size=classes) * 100])
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three files, two of which are called best.keras."""
    root = tmp_path_factory.mktemp("models")
    paths = [root / "a" / "best.keras", root / "b" / "best.keras", root / "c.keras"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        linear_model(seed).save(path)
    return paths


def turn_trains_into_buildings(source):
    """Makes train a class that the truth lacks, but that a model may predict."""
    for kind in ("labelIds", "instanceIds"):
        for path in (source / "gtFine").rglob(f"*_gtFine_{kind}.png"):
            with Image.open(path) as picture:
                ids = np.array(picture)
            ids[(ids == 31) | (ids.astype(int) // 1000 == 31)] = 11
            Image.fromarray(ids).save(path)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    draw_cityscapes(root / "source", train=1, val=IMAGES, height=48, width=96, workers=1)
    turn_trains_into_buildings(root / "source")
    (root / "source" / MARKER).unlink()  # as photographs of these cities would be, each a drive
    prepare_dataset("cityscapes", root / "source", root / "records", shards=1, workers=1, progress=False)
    return root / "records"


@pytest.fixture(scope="module")
def found(models, records, tmp_path_factory):
    """(Comparison, its folder) of the three models."""
    folder = tmp_path_factory.mktemp("pages") / "report"
    return kseg.compare(models, records, folder, batch_size=2), folder


@pytest.fixture(scope="module")
def maps(models, records):
    """(image, truth, the three predictions) of every image, by other ways than the comparison's."""
    examples = kseg.data.pipeline.examples.Examples(records, "val")
    loaded = [kseg.load_model(path) for path in models]
    return [(image, truth, [kseg.predict(model, image) for model in loaded]) for image, truth in map(
        examples.__getitem__, range(IMAGES))]  # fmt: skip


def test_scores_and_differences_are_those_of_evaluate_on_the_classes_of_the_truth(found, models, records):
    comparison = found[0]
    table = found[0].table
    assert comparison.names == ("a/best.keras", "b/best.keras", "c.keras")
    scores = [kseg.evaluate(path, records) for path in models]
    for own, other in zip(comparison.scores, scores, strict=True):
        np.testing.assert_array_equal(own.confusion_matrix, other.confusion_matrix)
    rows = {row["key"]: row for row in table["scores"]}
    micro = {f"micro_{name}" for name in ("accuracy", "specificity", "jaccard")}
    assert set(rows) == {*SCORES, *micro}
    there = [
        name for name, pixels in zip(LABELS.classes, scores[0].confusion_matrix.sum(axis=1), strict=True) if pixels
    ]
    assert table["scored_classes"] == there and len(there) < LABELS.num_classes
    for key, row in rows.items():
        name = key.replace("mean_iou", "jaccard")
        if key == "pixel_accuracy" or key in micro:  # a sum over all classes: the same pixels for every model
            expected = [s.micro[key[6:]] if key in micro else s.pixel_accuracy for s in scores]
        elif key == "frequency_weighted_iou":  # a class that the truth lacks has no weight
            expected = [s.frequency_weighted_iou for s in scores]
        elif name in SCORE_NAMES:
            expected = [np.mean([s.per_class[c][name] for c in there]) for s in scores]
        else:
            continue  # a score that is added has a test of its own
        assert row["values"] == pytest.approx(expected, rel=1e-12)
        for value, difference in list(zip(expected, row["differences"], strict=True))[1:]:
            assert difference["difference"] == pytest.approx(value - expected[0])
            for low, high in (difference["by_image"], difference["by_group"]):
                assert low - 1e-12 <= difference["difference"] <= high + 1e-12
    for name, row in zip(LABELS.classes, table["per_class"], strict=True):
        wanted = [s.per_class[name]["jaccard"] if name in there else np.nan for s in scores]
        assert row["values"] == pytest.approx(wanted, nan_ok=True)


def test_objects_are_those_of_the_report(found, models, records, tmp_path):
    """Instances of the records among them: a car is an instance, the road a region."""
    for objects, path in list(zip(found[0].table["objects"], models, strict=True))[:2]:
        np.testing.assert_equal(objects, write_report(path, records, tmp_path).objects.result())
    assert objects["per_class"]["car"]["objects_from"] == "instances"
    assert objects["per_class"]["road"]["objects_from"] == "components"


def test_each_image_has_its_scores_and_its_disagreement(found, maps):
    rows = found[0].table["images"]
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows) and len(rows) == IMAGES
    for row, (_, truth, predictions) in zip(rows, maps, strict=True):
        valid = truth != 255
        assert row["size"] == [96, 48] and row["classes"] == np.unique(truth[valid]).tolist()
        for m, prediction in enumerate(predictions):
            right = (prediction == truth)[valid]
            assert row["pixel_accuracy"][m] == pytest.approx(right.mean(), abs=1e-4)
            both = (truth == ROAD) & (prediction == ROAD)
            either = valid & ((truth == ROAD) | (prediction == ROAD))
            assert row["iou"][m][ROAD] == pytest.approx(both.sum() / either.sum(), abs=1e-4)
            differ = (prediction != predictions[0])[valid].mean()
            assert row["disagreement"][m] == (pytest.approx(differ) if m else None)


def opacities(picture):
    """Of each colour of a palette picture; Pillow gives one index where one alone is clear, else bytes."""
    stored = picture.info.get("transparency", b"")
    alpha = np.full(256, 255)
    if isinstance(stored, int):
        alpha[stored] = 0
    else:
        alpha[: len(stored)] = list(stored)
    return alpha


def test_pictures_hold_the_maps(found, maps):
    folder = found[1]
    photographs = [image for image, _, _ in maps]
    for i, (_, truth, predictions) in enumerate(maps):
        names = [f"truth/{i:05}.png", *(f"model{m}/{i:05}.png" for m in range(3))]
        for name, ids in zip(names, (truth, *predictions), strict=True):
            picture = Image.open(folder / name)
            held = np.asarray(picture)
            colours = np.array(picture.getpalette()).reshape(-1, 3)
            alpha = opacities(picture)
            valid = truth != 255 if name.startswith("truth") else np.ones_like(truth, bool)
            np.testing.assert_array_equal(held[valid], ids[valid])
            np.testing.assert_array_equal(colours[held[valid]], np.array(LABELS.palette)[ids[valid]])
            # Void lets the photograph through.
            assert (alpha[held[valid]] == 255).all() and (alpha[held[~valid]] == 0).all()
        photo = np.asarray(Image.open(folder / f"photos/{i:05}.jpg")).astype(int)
        loss = [np.abs(photo - other).mean() for other in photographs]  # of a JPEG
        assert np.argmin(loss) == i and loss[i] < 12
        marks = np.asarray(Image.open(folder / f"right2/{i:05}.png"))
        np.testing.assert_array_equal(marks, who_is_right(truth, predictions[0], predictions[2], truth != 255))
    kinds = {"photos", "truth", "model0", "model1", "model2", "right1", "right2", "thumbnails"}
    assert {path.name for path in folder.iterdir()} == {
        *kinds,
        "index.html",
        "comparison.json",
        "counts.npz",
        "sha256.txt",
    }
    assert [len(list((folder / kind).iterdir())) for kind in sorted(kinds)] == [IMAGES] * 6 + [3 * IMAGES, IMAGES]


def test_who_is_right():
    truth = np.array([[1, 1, 1, 1, 9]])
    first = np.array([[1, 1, 0, 2, 0]])
    other = np.array([[1, 0, 1, 2, 3]])
    assert who_is_right(truth, first, other, truth != 9).tolist() == [[0, 1, 2, 3, 0]]


def test_comparison_json_and_the_page_hold_the_table(found):
    comparison, folder = found
    numbers = json.loads((folder / "comparison.json").read_text())
    assert numbers["scores"] == comparison.table["scores"]
    absent = LABELS.classes.index("train")
    ious = [(a["iou"][0], b["iou"][0]) for a, b in zip(numbers["images"], comparison.table["images"], strict=True)]
    assert all((a[c] is None) == np.isnan(b[c]) for a, b in ious for c in (ROAD, absent)), "nan must be null"
    assert numbers["bootstrap"]["groups"] == ["eastmoor", "fernfeld"]
    assert [row["group"] for row in numbers["images"]] == 3 * ["eastmoor"] + 2 * ["fernfeld"]
    page = (folder / "index.html").read_text()
    embedded = page.split('id="numbers">')[1].split("</script>")[0]
    assert json.loads(embedded) == numbers
    assert "http:" not in page and "https:" not in page and "{{" not in page


def test_the_summary_says_what_the_interval_means(found):
    text = str(found[0])
    assert text.count("95 % by image") == text.count("95 % by drive") == 2  # two models against the first
    assert "mean IoU (macro Jaccard)" in text and "objects found" in text and "5 images of split val" in text
    assert "Means are over " in text and f" of {LABELS.num_classes} classes (" in text
    assert "No model was trained again" in text
    assert (
        "\nIndependent groups: 2 drives (eastmoor, fernfeld). So few drives tell nothing of others: the interval is of "
        "these 2 drives alone.\n" in text
    )


def test_intervals_are_of_the_groups_asked_for(models, records, tmp_path):
    """By a regular expression that takes the last digit of the sequence: the images' own bootstrap with those names."""
    matrices = []
    examples = kseg.data.pipeline.examples.Examples(records, "val")
    loaded = [kseg.load_model(path) for path in models[:2]]
    for image, truth in map(examples.__getitem__, range(IMAGES)):
        matrices.append([confusion_matrix(truth, kseg.predict(m, image), LABELS.num_classes)[0] for m in loaded])
    counts = ImageCounts()
    for pair in matrices:
        counts.add(pair)
    names = examples.split.names
    pattern = r"_\d{5}(\d)_"
    groups = [re.search(pattern, name)[1] for name in names]
    assert len(set(groups)) == 3  # sequences 0, 1, 2 of eastmoor and 0, 1 of fernfeld
    (expected,) = paired_bootstrap(counts.array(), groups)
    found = kseg.compare(models[:2], records, tmp_path / "page", group_by=pattern)
    row = found.table["scores"][0]["differences"][1]
    assert row["by_group"] == [expected["mean_iou"].low, expected["mean_iou"].high]
    assert row["above"] == expected["mean_iou"].above and row["by_image"] != row["by_group"]
    assert f"Independent groups: 3 (0, 1, 2), by {pattern}, of 2 drives (" in str(found)
    assert "95 % by group" in str(found)
    with pytest.raises(kseg.InputError, match="needs two groups of images or more, but all of split val are of one"):
        kseg.compare(models[:2], records, tmp_path / "other", group_by="(0000)")
    assert not (tmp_path / "other").exists()


def test_names_are_as_short_as_they_can_be(tmp_path):
    def short(*paths):
        return list(short_names([tmp_path / path for path in paths]))

    assert short("runs/a", "runs/b") == ["a", "b"]
    assert short("x/run", "y/run") == ["x/run", "y/run"]
    assert short("runs/a/saved_model", "runs/b") == ["a/saved_model", "b"]
    with pytest.raises(ValueError, match="given twice"):
        short("runs/a", "runs/b", "runs/a")


def test_the_runs_of_a_study_are_called_by_their_model_and_data(tmp_path):
    """A study has OUTPUT/runs/MODEL/DATA/seed-N: neither DATA nor seed-N says which model it is."""
    for model in ("unet", "fpn"):
        run = tmp_path / "study" / "runs" / model / "mydata" / "seed-0"
        run.mkdir(parents=True)
        (run / "flags.txt").touch()

    def short(*paths):
        return list(short_names([tmp_path / path for path in paths]))

    unet, fpn = "study/runs/unet/mydata", "study/runs/fpn/mydata"
    assert short("runs/first", unet) == ["first", "unet/mydata"]
    assert short(unet, fpn) == ["unet/mydata", "fpn/mydata"]
    assert short("runs/first", f"{unet}/seed-0") == ["first", "unet/mydata/seed-0"]
    assert short(f"{unet}/seed-0/best.keras", unet) == ["unet/mydata/seed-0/best.keras", "unet/mydata"]
    assert short("mydata", unet, "study/mydata") == [f"{tmp_path.name}/mydata", "runs/unet/mydata", "study/mydata"]


def test_what_cannot_be_compared_is_refused_and_leaves_nothing(models, records, tmp_path):
    with pytest.raises(ValueError, match="two models or more, got 1"):
        kseg.compare(models[:1], records, tmp_path / "report")
    with pytest.raises(ValueError, match="two models or more, got 0: none"):
        kseg.compare([], records, tmp_path / "report")
    with pytest.raises(ValueError, match="data_dir must be"):
        kseg.compare(models, None, tmp_path / "report")
    other = linear_model(0, classes=4)
    with pytest.raises(ValueError, match=r"but these differ: a has 19 \(unnamed\), b has 4 \(unnamed\)"):
        kseg.compare({"a": models[0], "b": other}, records, tmp_path / "report")
    with pytest.raises(ValueError, match="a: The model has 4 classes"):
        kseg.compare({"a": other, "b": other}, records, tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_page_is_replaced(tmp_path):
    report = tmp_path / "report"
    for content in ("first", "second"):
        with replaced_folder(report) as folder:
            (folder / "thumbnails").mkdir()
            (folder / "thumbnails" / f"0000{len(content)}.1.png").write_text(content)
            (folder / "comparison.json").write_text('{"kseg_version": "1"}')
            (folder / "index.html").write_text(content)
    assert (report / "index.html").read_text() == "second"
    assert [path.name for path in (report / "thumbnails").iterdir()] == ["00006.1.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    with pytest.raises(KeyboardInterrupt), replaced_folder(report) as folder:
        (folder / "index.html").write_text("half")
        raise KeyboardInterrupt
    assert (report / "index.html").read_text() == "second" and len(list(tmp_path.iterdir())) == 1

    (report / "thumbnails" / "my notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds thumbnails/my notes.txt, which kseg did"), replaced_folder(report):
        raise AssertionError("must be refused before anything is done")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"), replaced_folder(tmp_path / "file"):
        raise AssertionError("must be refused before anything is done")
    assert (report / "thumbnails" / "my notes.txt").exists() and len(list(tmp_path.iterdir())) == 2


def test_the_script_takes_models_anywhere_on_the_line(models, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "_show_log", lambda: None)
    line = [str(models[1]), f"--data_dir={records}", str(models[0]), f"--output={tmp_path}/report/"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *line])
    compare_command.main()
    out = capsys.readouterr().out
    assert "difference: a/best.keras minus b/best.keras" in out and f"{tmp_path}/report/index.html" in out
    assert (tmp_path / "report" / "index.html").exists()
