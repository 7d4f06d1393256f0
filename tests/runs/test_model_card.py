"""The model card: what it says is what the run's files say, and a README.md of the user's stays."""

import html
import re

import numpy as np
import pytest
import tiny
import yaml
from markdown_it import MarkdownIt

from kseg.data.groups import shown_groups
from kseg.data.pipeline.examples import Examples
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes
from kseg.metrics import Scores
from kseg.runs.model_card import MARK, dataset_name, run_card, write_card

STORED = {
    "model": "unet",
    "model_options": '{"base_filters": 8, "encoder_weights": "/home/me/secret/weights.h5"}',
    "init_from": "/home/me/secret/run",
    "data_dir": "/home/me/secret/records",
    "epochs": "7",
    "keep": "best",
    "best_by": "f1",
}
COSTS = {"parameters": 1234567, "multiply_adds": 7654321, "height": 32, "width": 64}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    records = str(tiny.write_records(tmp_path_factory.mktemp("card")))
    return Examples(records, "train"), Examples(records, "val")


def card(splits, **changes):
    matrix = np.array([[90, 10, 0, 0], [4, 1, 5, 0], [0, 0, 0, 0]])
    scores = Scores.from_confusion_matrix(matrix, ("road", "car", "sky"), 5)
    scores = Scores(**{**vars(scores), "split": "val"})
    return run_card(STORED | changes, *splits, scores, COSTS), scores


def test_the_metadata_is_yaml_with_the_scores_and_the_data(splits):
    text, _ = card(splits)
    data = yaml.safe_load(text.split("---\n")[1])
    result = data["model-index"][0]["results"][0]
    metrics = {row["type"]: row["value"] for row in result["metrics"]}
    # IoU: road 90/104, car 1/20, sky 0/5 (predicted and never there).
    assert metrics["mean_iou"] == pytest.approx((90 / 104 + 1 / 20 + 0) / 3, abs=5e-5)
    assert metrics["pixel_accuracy"] == pytest.approx(91 / 110, abs=5e-5)
    assert result["dataset"]["split"] == "val"
    assert result["dataset"]["revision"] == splits[0].manifest.digest
    assert data["library_name"] == "keras" and data["pipeline_tag"] == "image-segmentation"


def test_the_text_says_what_was_done_and_what_it_is_not_good_for(splits):
    text, scores = card(splits)
    assert f"**{scores.mean_iou:.4f}**" in text and "5 of 5 images of the split `val`" in text
    assert "7 train, 5 val images" in text and "1,234,567 parameters" in text and "image of 64x32" in text
    assert "--epochs=7" in text and "--keep" not in text and "learning_rate" not in text  # its default
    assert "the epoch with the best f1 on `val`" in text and "a little too good" in text
    assert "IoU below 0.2: car, sky" in text
    last, _ = card(splits, keep="last")
    assert "the last step" in last and "too good" not in last


def test_the_scores_of_groups_have_a_table_of_their_own(splits):
    _, scores = card(splits)
    assert "By drive" not in card(splits)[0]
    groups = {
        "a_b": {"images": 3, "mean_iou": 0.25, "pixel_accuracy": 0.5, "sensitivity": 0.75, "specificity": 1, "f1": 0.4},
        "c": {"images": 2, "mean_iou": np.nan, "pixel_accuracy": 0, "sensitivity": 0, "specificity": 0, "f1": 0},
    }
    scores = Scores(**{**vars(scores), "group_by": "drive", "groups": groups})
    text = run_card(STORED, *splits, scores, COSTS)
    shown = MarkdownIt("commonmark").enable("table").render(text.split("By drive, ")[1].split("## Data")[0])
    cells = re.findall("<td>(.*)</td>", shown)
    assert cells == ["a_b", "3", *["0.2500", "0.5000", "0.7500", "1.0000", "0.4000"], "c", "2", "-", *["0.0000"] * 4]


def test_names_are_shown_as_they_are(splits):
    """Neither HTML, nor links, nor more columns of the table."""
    names = ("<img src=x>", "a|b", "[sky](x) *_y_* traffic_light")
    scores = Scores.from_confusion_matrix(np.eye(3, 4, dtype=int), names, 5)
    scores = Scores(**{**vars(scores), "split": "val"})
    shown = MarkdownIt("commonmark").enable("table").render(run_card(STORED, *splits, scores, COSTS).split(MARK)[1])
    for name in names:
        assert f"<td>{html.escape(name, quote=False)}</td>" in shown
    assert "<img" not in shown and "<a " not in shown


def test_no_folder_of_the_users_is_told(splits):
    text, _ = card(splits)
    assert "secret" not in text and "weights.h5" in text and "--init_from=run" in text


def test_a_card_is_replaced_and_a_file_of_the_users_stays(tmp_path, splits):
    path = tmp_path / "README.md"
    assert write_card(path, card(splits)[0]) and MARK in path.read_text()
    assert write_card(path, f"{MARK}\nnew\n") and path.read_text() == f"{MARK}\nnew\n"
    path.write_text("my notes\n")
    assert not write_card(path, card(splits)[0])
    assert path.read_text() == "my notes\n"


def test_drawn_streets_are_not_called_cityscapes(tmp_path):
    draw_cityscapes(tmp_path / "source", train=2, val=1, height=48, width=64, workers=1)
    manifest = prepare_dataset("cityscapes", tmp_path / "source", tmp_path / "records", workers=1, progress=False)
    assert dataset_name(manifest) == "synthetic streets"
    assert shown_groups(manifest.splits["train"].names, manifest.drive).by == "image"  # their cities mean nothing
    records = str(tmp_path / "records")
    drawn = Examples(records, "train"), Examples(records, "val")
    scores = Scores.from_confusion_matrix(np.eye(19, dtype=int), drawn[0].label_set.classes, 1)
    text = run_card(STORED, *drawn, scores, COSTS)
    assert "drawn by a program" in text and "# unet on synthetic streets" in text
