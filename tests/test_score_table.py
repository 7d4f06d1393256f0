"""A score is one entry: one that a test adds is in every table, file, flag and page."""

import json

import numpy as np
import pytest
import tiny

import kseg
from kseg.metrics import Scores
from kseg.score_table import SCORES, Score
from kseg.settings import Settings


@pytest.fixture
def balanced_accuracy(monkeypatch):
    """Mean sensitivity of the classes of the truth, under a name of its own."""

    def of(counts):
        there = counts.truth > 0
        return np.where(there, counts.hits / np.where(there, counts.truth, 1), 0).sum(axis=-1) / there.sum(axis=-1)

    monkeypatch.setitem(SCORES, "balanced_accuracy", Score("balanced accuracy", of))


def test_an_added_score_is_everywhere(balanced_accuracy, tmp_path):
    records = tiny.write_records(tmp_path / "records")
    settings = {**tiny.SETTINGS, "epochs": 2, "best_by": "balanced_accuracy"}
    kseg.train(tiny.build_tiny, records, tmp_path / "run", **settings)
    head, *rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    history = [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
    best = max(float(row["val_balanced_accuracy"]) for row in history)

    scores = kseg.evaluate(tmp_path / "run", records)
    matrix = scores.confusion_matrix
    assert matrix.sum(axis=1).all()  # every class is in the truth
    expected = np.mean(np.diagonal(matrix) / matrix.sum(axis=1))
    assert best == pytest.approx(expected)  # the kept epoch is the best by it
    assert f"balanced accuracy {expected:.4f}" in str(scores)
    assert scores.values()["balanced_accuracy"] == pytest.approx(expected)
    stored = tmp_path / "run" / "scores.json"
    assert json.loads(stored.read_text())["balanced_accuracy"] == pytest.approx(expected)
    assert str(Scores.from_json(stored)) == str(scores)

    models = {"run": tmp_path / "run", "bright": tiny.brightness_model()}
    found = kseg.compare(models, records, tmp_path / "page")
    (row,) = [row for row in found.table["scores"] if row["key"] == "balanced_accuracy"]
    assert row["title"] == "balanced accuracy" and row["values"] == pytest.approx([expected, 1])
    difference = row["differences"][1]
    assert difference["by_image"][0] <= difference["difference"] <= difference["by_image"][1]
    assert "balanced accuracy" in str(found)
    page = (tmp_path / "page" / "index.html").read_text()
    assert "balanced accuracy" in page


def test_best_by_names_the_scores():
    with pytest.raises(ValueError, match=f"best_by must be one of {', '.join(SCORES)}, got 'loss'"):
        Settings(best_by="loss")
