"""The report of one pass over a split, its files, and the confusion matrix as CSV and picture."""

import collections
import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

import kseg
from kseg.commands import evaluate_command
from kseg.data.datasets import cityscapes
from kseg.data.records.manifest import Split
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes
from kseg.evaluation import cityscapes_protocol, standard_protocol
from kseg.inference import predictor as predictors
from kseg.metrics import Scores
from kseg.metrics.fischer2021_scores import Fischer2021Scores
from kseg.reports import comparison, evaluation_report
from kseg.reports.evaluation_report import write_report
from kseg.visualization.confusion_picture import draw_confusion_matrix, write_confusion_csv

LABELS = cityscapes.info().label_set()
ROAD = LABELS.classes.index("road")
CAR = LABELS.classes.index("car")


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """(records, [(truth, instances)] of the two validation streets in file-name order, read from the source)."""
    root = tmp_path_factory.mktemp("streets")
    draw_cityscapes(root / "source", train=1, val=2, height=96, width=192, workers=1)
    prepare_dataset("cityscapes", root / "source", root / "records", shards=1, workers=1, progress=False)
    folder = root / "source" / "gtFine" / "val"
    stems = sorted(folder.rglob("*_labelIds.png"), key=lambda path: path.name)
    pairs = [(path, path.with_name(path.name.replace("labelIds", "instanceIds"))) for path in stems]
    return root / "records", [(LABELS.table[np.asarray(Image.open(a))], np.asarray(Image.open(b))) for a, b in pairs]


def constant_model(answer, classes=LABELS.num_classes):
    """Predicts one class everywhere."""
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(classes, 1)
    model = keras.Model(image, layer(image))
    layer.set_weights([np.zeros((1, 1, 3, classes)), np.eye(classes)[answer]])
    return model


def test_a_report_of_a_model_that_says_car_everywhere(streets, tmp_path):
    records, maps = streets
    report = write_report(constant_model(CAR), records, tmp_path / "new" / "report", batch_size=2)
    assert {p.name for p in (tmp_path / "new" / "report").iterdir()} == {
        *("confusion.csv", "confusion.png", "objects.json", "boundaries.json", "calibration.json", "reliability.png")
    }
    # The same counts as kseg.evaluate's: every valid pixel is in column car.
    np.testing.assert_array_equal(
        report.scores.confusion_matrix, kseg.evaluate(constant_model(CAR), records).confusion_matrix
    )
    pixels = np.sum([np.bincount(truth[truth != 255], minlength=LABELS.num_classes) for truth, _ in maps], axis=0)
    np.testing.assert_array_equal(report.scores.confusion_matrix[:, CAR], pixels)
    assert str(report.scores) == str(kseg.evaluate(constant_model(CAR), records))  # means over images among them

    # Logits are 1 for car and 0 for 18 others: every pixel is e / (e + 18) sure, and right where there is a car.
    sure = np.e / (np.e + 18)
    calibration = json.loads((tmp_path / "new" / "report" / "calibration.json").read_text())
    error = calibration["expected_calibration_error"]
    assert error == pytest.approx(abs(pixels[CAR] / pixels.sum() - sure), abs=1e-6) and error > 0.01
    assert f"{error:.4f}" in str(report)

    objects = json.loads((tmp_path / "new" / "report" / "objects.json").read_text())
    # Cityscapes: instance ids are id * 1000 + k, cars have id 26, people 24. Every car is found, no person is.
    cars, people = (
        sum(len({i for i in np.unique(inst) if i // 1000 == number}) for _, inst in maps) for number in (26, 24)
    )
    assert cars and people
    car, person, road = (objects["per_class"][name] for name in ("car", "person", "road"))
    assert (car["objects"], car["found"], car["swallowed_by"]) == (cars, 1, {})
    assert (person["objects"], person["found"], person["swallowed_by"]) == (people, 0, {"car": people})
    assert (car["objects_from"], road["objects_from"]) == ("instances", "components")
    # Without a boundary in the prediction, every class with one in the truth scores 0.
    boundaries = json.loads((tmp_path / "new" / "report" / "boundaries.json").read_text())
    assert boundaries["boundary_f1"] == 0 and boundaries["boundary_iou"] == 0 and boundaries["images"] == 2
    near = objects["error_by_distance"].values()
    assert sum(row["pixels"] for row in near) == pixels.sum()
    wrong = sum(row["pixels"] * (row["error_rate"] or 0) for row in near)
    assert wrong == pytest.approx(pixels.sum() - pixels[CAR])
    assert "most often swallowed by" in str(report) and "boundary F1" in str(report)


def test_the_instances_belong_to_their_image(streets):
    """A street alone and both together: what one pass gives is the sum of its images'."""
    from kseg.data.pipeline.load import open_split
    from kseg.metrics.objects import ObjectScores

    records, maps = streets
    source = open_split(records, "val")
    scores = ObjectScores(LABELS.classes)
    for index, (truth, instances) in enumerate(maps):
        np.testing.assert_array_equal(source.scene(index)[2], instances)
        scores.update(truth, np.full_like(truth, ROAD), instances)
    found = write_report(constant_model(ROAD), records, records.parent / "road").objects
    assert found.result()["per_class"]["car"] == scores.result()["per_class"]["car"]
    assert found.result()["by_size"].keys() == scores.result()["by_size"].keys()


@pytest.fixture
def counted(monkeypatch):
    """Counts of what a pass does: images predicted by each model, records read."""
    counts = collections.Counter()
    read = Split.read

    def counting(predictor_of):
        def predictor(model):
            inner = predictor_of(model)

            def run(images, height, width, names):
                counts.update([f"{model.name}: {name}" for name in names])
                return inner(images, height, width, names)

            return run

        return predictor

    for module in (evaluation_report, comparison, standard_protocol, cityscapes_protocol):
        monkeypatch.setattr(module, "predictor", counting(predictors.predictor))
    monkeypatch.setattr(evaluation_report, "confident_predictor", counting(predictors.confident_predictor))
    monkeypatch.setattr(Split, "read", lambda self, index: (counts.update([index]), read(self, index))[1])
    return counts


@pytest.mark.parametrize("protocol", ["standard", "cityscapes"])
def test_scores_and_report_read_and_predict_each_image_once(protocol, streets, tmp_path, counted, capsys):
    model = constant_model(CAR)
    model.save(tmp_path / "car.keras")
    flags = (f"--model={tmp_path}/car.keras", f"--data_dir={streets[0]}", f"--report_dir={tmp_path}/report")
    evaluate_command.FLAGS(
        ["evaluate.py", *flags, f"--protocol={protocol}", "--batch_size=2", f"--output={tmp_path}/a.json"]
    )
    evaluate_command.run(evaluate_command.FLAGS)
    assert len(counted) == 4 and set(counted.values()) == {1}, counted  # two records read, two images predicted
    assert len(list((tmp_path / "report").iterdir())) == 6
    out = capsys.readouterr().out
    assert "most often swallowed by" in out and f"{tmp_path}/report" in out
    assert "mean IoU" in out or protocol == "cityscapes"
    kseg.evaluate(model, streets[0], protocol=protocol).to_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_comparison_reads_each_record_once_and_predicts_it_once_a_model(streets, tmp_path, counted):
    models = {"car": constant_model(CAR), "road": constant_model(ROAD)}
    kseg.compare(models, streets[0], tmp_path / "page", batch_size=2)
    assert len(counted) == 2 + 2 * 2 and set(counted.values()) == {1}, counted


@pytest.mark.parametrize("name", ["mine.json", "report/confusion.png", "report/groups.csv", "report/objects.json"])
def test_scores_and_report_replace_only_what_an_evaluation_wrote(name, streets, tmp_path, call_script):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('{"classes": []}')
    constant_model(CAR).save(tmp_path / "car.keras")
    flags = (f"--model={tmp_path}/car.keras", f"--data_dir={streets[0]}", f"--report_dir={tmp_path}/report")
    output = tmp_path / "mine.json"
    code, _, error = call_script("evaluate", *flags, f"--output={output}")
    assert code == 2 and name.rpartition("/")[2] in error and "move that file" in error
    assert [path for path in tmp_path.rglob("*.*") if path.suffix != ".keras"] == [mine]
    assert mine.read_text() == '{"classes": []}'


def test_an_evaluation_replaces_the_one_before_of_any_protocol(streets, tmp_path, call_script):
    constant_model(CAR).save(tmp_path / "car.keras")
    output = tmp_path / "a.json"
    flags = (f"--model={tmp_path}/car.keras", f"--data_dir={streets[0]}", f"--report_dir={tmp_path}", "--batch_size=2")
    Fischer2021Scores(*[0.5] * 6, 2, 2, 0, 96, 192, "nearest", False).to_json(output)
    for protocol in ("cityscapes", "standard"):
        assert call_script("evaluate", *flags, f"--protocol={protocol}", f"--output={output}")[0] == 0
    assert Scores.from_json(output).images == 2


def test_a_model_of_other_classes_writes_nothing(streets, tmp_path):
    with pytest.raises(ValueError, match="model has 3 classes"):
        write_report(constant_model(0, classes=3), streets[0], tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_confusion_csv_reads_back(tmp_path):
    matrix = np.array([[5, 1, 0, 2], [0, 0, 0, 0], [10**10, 0, 7, 0]])
    scores = Scores.from_confusion_matrix(matrix, ("road", 'a "wide", fence', "ciel bleuté"), images=1)
    write_confusion_csv(scores, tmp_path / "confusion.csv")
    with open(tmp_path / "confusion.csv", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [*scores.classes, "outside the classes"] and [row[0] for row in rows] == list(scores.classes)
    np.testing.assert_array_equal([[int(n) for n in row[1:]] for row in rows], matrix)
    assert len(list(tmp_path.iterdir())) == 1


def test_confusion_picture_shows_right_wrong_and_absent(tmp_path):
    def cells(matrix):
        """Which of blue, red, grey cells the picture has, and its width."""
        names = [f"class {i}" for i in range(len(matrix))]
        draw_confusion_matrix(Scores.from_confusion_matrix(np.array(matrix), names, 1), tmp_path / "confusion.png")
        page = np.asarray(Image.open(tmp_path / "confusion.png")).astype(int)
        red, green, blue = np.moveaxis(page, -1, 0)
        grey = (red == 225) & (green == 225) & (blue == 225)
        return (blue > red + 60).sum() > 500, (red > blue + 60).sum() > 500, grey.sum() > 1500, page.shape[1]

    right = [[9, 0], [0, 4]]
    wrong = [[0, 9], [4, 0]]
    assert cells(right)[:3] == (True, False, False)
    assert cells(wrong)[:3] == (False, True, False)
    assert cells([[9, 0], [0, 0]])[:3] == (True, False, True)
    assert cells([[0, 0, 9], [0, 0, 9]])[:3] == (False, True, False)  # all predictions outside the classes
    assert cells(np.eye(34, dtype=int))[3] - cells(np.eye(33, dtype=int))[3] == 34  # a column is 34 pixels
