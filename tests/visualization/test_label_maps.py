"""Pictures of label maps: their pixels are checked, not only their size."""

import os

import numpy as np
import pytest
from PIL import Image

from kseg import visualization
from kseg.visualization import label_maps

CLASSES = ["road", "car"]
PALETTE = [(128, 64, 128), (0, 0, 142)]


def test_colorize_paints_classes_ignored_and_unknown_ids():
    picture = visualization.colorize(np.array([[0, 1], [255, 254]], np.uint8), PALETTE)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[128, 64, 128], [0, 0, 142]], [[0, 0, 0], [255, 255, 255]]]
    assert visualization.colorize(np.array([[-1, 2]]), PALETTE).tolist() == [[[255] * 3] * 2]


def test_ignored_pixels_differ_from_a_black_class():
    black, road, grey = (0, 0, 0), (128, 64, 128), (128, 128, 128)
    for palette in ([black, road], [grey, black], [black, road, grey]):
        picture = visualization.colorize(np.array([[0, 1, 255]], np.uint8), palette)
        assert picture[0, :2].tolist() == [list(colour) for colour in palette[:2]]
        assert picture[0, 2].tolist() not in [list(colour) for colour in palette]
        assert picture[0, 2].tolist() == list(label_maps.ignored_colour(palette)) != [255] * 3


def _has(picture, colour):
    return (picture == colour).all(-1).any()


def test_gallery_has_columns_in_order_and_a_legend(tmp_path):
    image = np.full((40, 100, 3), (10, 200, 30), np.uint8)
    prediction = np.zeros((40, 100), np.uint8)
    truth = np.full((40, 100), 255, np.uint8)
    path = visualization.prediction_gallery(
        [(image, prediction, truth)], CLASSES, PALETTE, tmp_path / "p.png", width=100
    )
    picture = np.asarray(Image.open(path))
    # Gaps of 8: columns at 8, 116 and 224, 332 wide; heading 31 high; then the row of 40.
    assert picture.shape[1] == 332
    row = picture[31 + 20]
    assert [row[x].tolist() for x in (58, 166, 274)] == [[10, 200, 30], [128, 64, 128], [0, 0, 0]]
    assert row[112].tolist() == [255, 255, 255]
    heading = picture[:31]
    legend = picture[31 + 40 + 8 :]
    assert all((heading[:, x : x + 100] < 128).any() for x in (8, 116, 224))  # text above each column
    assert all(_has(legend, colour) for colour in [*PALETTE, (0, 0, 0)])
    assert os.listdir(tmp_path) == ["p.png"]


def test_gallery_without_photographs_shrinks_labels_without_new_colours(tmp_path):
    label = np.random.default_rng(0).integers(0, 2, (60, 300)).astype(np.uint8)
    rows = [(None, label, label), (None, label[:, :90], label[:, :90])]
    path = visualization.prediction_gallery(rows, CLASSES, PALETTE, tmp_path / "p.png", width=200)
    picture = np.asarray(Image.open(path))
    assert picture.shape[1] == 2 * 200 + 3 * 8
    # 300x60 shrinks to 200x40, 90x60 doubles to 180x120; by nearest neighbour, so only the two colours.
    for tile in (picture[31:71, 8:208], picture[79:199, 18:198]):
        assert {tuple(pixel) for pixel in tile.reshape(-1, 3).tolist()} == set(PALETTE)


def test_gallery_leaves_a_missing_image_blank(tmp_path):
    image = np.zeros((40, 100, 3), np.uint8)
    label = np.zeros((40, 100), np.uint8)
    rows = [(image, label, label), (None, label, label)]
    path = visualization.prediction_gallery(rows, CLASSES, PALETTE, tmp_path / "p.png", width=100)
    picture = np.asarray(Image.open(path))
    assert (picture[79:119, 8:108] == 255).all() and (picture[31:71, 8:108] == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: visualization.colorize(np.zeros((2, 2, 1), int), PALETTE), r"\(H, W\)"),
        (lambda path: visualization.colorize(np.zeros((2, 2)), PALETTE), "integers"),
        (lambda path: visualization.colorize(np.zeros((2, 2), int), [(0, 0, 300)]), "palette"),
        (lambda path: visualization.prediction_gallery([], CLASSES, PALETTE, path), "0 rows"),
        (
            lambda path: visualization.prediction_gallery([(None, [[0]], [[0]])], ["road"], PALETTE, path),
            "1 names",
        ),
    ],
)
def test_bad_input_gets_one_clear_line_and_writes_nothing(call, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        call(tmp_path / "p.png")
    assert "\n" not in str(error.value) and not os.listdir(tmp_path)
