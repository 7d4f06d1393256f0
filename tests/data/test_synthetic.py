"""Procedural streets: Cityscapes' layout and ids, one drawing whatever the workers, not coded by colour."""

import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from kseg.data.synthetic import dataset
from kseg.data.synthetic.scene import draw_street

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
DRAWN = (7, 8, 11, 17, 20, 21, 23, 24, 26)
VOID = (0, 1, 3)
SMALL = {"train": 5, "val": 3, "height": 48, "width": 96, "seed": 3}


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    assert dataset.draw_cityscapes(root, **SMALL, workers=1) == 8
    return root


def test_layout_is_cityscapes(drawing):
    # 5 train frames over 4 cities, 3 val frames over 2 others; three files a frame and the marker
    train = ("alderburg", "brookhaven", "cedarstadt", "dunmere")
    val = ("eastmoor", "fernfeld")
    stems = [("train", train[i % 4], i // 4) for i in range(5)] + [("val", val[i % 2], i // 2) for i in range(3)]
    expected = {"synthetic.json"}
    for split, city, sequence in stems:
        stem = f"{split}/{city}/{city}_{sequence:06d}_000019"
        expected.add(f"leftImg8bit/{stem}_leftImg8bit.png")
        expected |= {f"gtFine/{stem}_gtFine_{kind}.png" for kind in ("labelIds", "instanceIds")}
    assert set(files(drawing)) == expected
    assert json.loads((drawing / "synthetic.json").read_text())["seed"] == 3


def test_ids_and_instances(drawing):
    for split, index in (("train", 0), ("train", 4), ("val", 2)):
        image, labels, instances = (Image.open(path) for path in dataset.frame_paths(drawing, split, index))
        assert image.mode == "RGB" and labels.mode == "L" and instances.mode.startswith("I")
        image, labels, instances = (np.asarray(picture) for picture in (image, labels, instances))
        assert image.shape == (48, 96, 3) and labels.shape == instances.shape == (48, 96)
        assert set(np.unique(labels)) <= {*DRAWN, *VOID}
        things = np.isin(labels, (24, 26))  # person and car: id * 1000 + k; everything else: the id itself
        assert things.any()
        np.testing.assert_array_equal(np.where(things, instances // 1000, instances), labels)
        for label in (24, 26):
            found = np.unique(instances[labels == label]) - label * 1000
            np.testing.assert_array_equal(found, np.arange(len(found)))  # numbered from 0, none invisible


def test_same_bytes_whatever_the_workers(drawing, tmp_path):
    seen = []
    dataset.draw_cityscapes(tmp_path, **SMALL, workers=2, progress=lambda *step: seen.append(step))
    assert files(tmp_path) == files(drawing)
    assert seen == [(i, 8) for i in range(1, 9)]


def test_a_second_call_draws_only_what_is_missing(drawing, tmp_path):
    whole = files(drawing)
    for name, content in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert dataset.draw_cityscapes(tmp_path, **SMALL, workers=1) == 0
    image, *_ = dataset.frame_paths(tmp_path, "train", 2)
    image.unlink()
    dataset.frame_paths(tmp_path, "val", 0)[2].unlink()
    before = os.stat(dataset.frame_paths(tmp_path, "train", 1)[0]).st_mtime_ns
    assert dataset.draw_cityscapes(tmp_path, **SMALL, workers=1) == 2
    assert files(tmp_path) == whole
    assert os.stat(dataset.frame_paths(tmp_path, "train", 1)[0]).st_mtime_ns == before


def test_marker_comes_last_and_an_interrupted_drawing_goes_on(drawing, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        dataset.draw_cityscapes(tmp_path, **SMALL, workers=1, progress=stop)
    assert not (tmp_path / "synthetic.json").exists()
    with pytest.raises(ValueError, match="seed=3.*Remove it"):
        dataset.draw_cityscapes(tmp_path, **SMALL | {"seed": 4}, workers=1)
    assert dataset.draw_cityscapes(tmp_path, **SMALL, workers=1) == 5
    assert files(tmp_path) == files(drawing)


@pytest.mark.parametrize("change", [{"seed": 4}, {"train": 6}, {"val": 1}, {"height": 64}, {"width": 128}])
def test_another_drawing_is_refused(drawing, change):
    before = files(drawing)
    with pytest.raises(ValueError, match="but holds") as error:
        dataset.draw_cityscapes(drawing, **SMALL | change, workers=1)
    assert "\n" not in str(error.value)
    assert files(drawing) == before


def test_foreign_data_is_refused(tmp_path):
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(ValueError, match="not drawn by kseg"):
        dataset.draw_cityscapes(tmp_path, **SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["gtFine"]


@pytest.mark.parametrize("bad", [{"train": 0}, {"seed": -1}, {"height": 40}, {"width": 60.5}, {"workers": 0}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be a whole number"):
        dataset.draw_cityscapes(tmp_path / "new", **SMALL | {"workers": 1} | bad)
    assert not (tmp_path / "new").exists()


def test_too_small_a_street():
    with pytest.raises(ValueError, match="at least 48 high"):
        draw_street(0, 32, 64)


def scenes(split, count):
    drawn = [draw_street((0, split, i), 128, 256)[:2] for i in range(count)]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


def pixels(images, labels, rng, count):
    """Features (count, 5) R, G, B, row, column and the labels of random pixels that are not void."""
    at = np.flatnonzero(np.isin(labels, TRAIN_IDS))
    at = rng.choice(at, min(count, at.size), replace=False)
    _, row, column = np.unravel_index(at, labels.shape)
    return np.column_stack([images.reshape(-1, 3)[at], row, column]).astype(float), labels.ravel()[at]


def test_classes_are_there_but_not_by_colour_and_place():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the test extra brings scikit-learn")
    (train_images, train_labels) = scenes(0, 48)
    (val_images, val_labels) = scenes(1, 24)
    # each class in nearly every scene, and not only as a few pixels
    for label in DRAWN:
        present = (val_labels == label).sum((1, 2)) >= 40
        assert present.mean() >= 0.9, label
        assert (val_labels == label).mean() > 0.015, label
    for label in VOID:
        assert (val_labels == label).any(), label
    rng = np.random.default_rng(0)
    features, truth = pixels(train_images, train_labels, rng, 40_000)
    mean = features.mean(0)
    deviation = features.std(0)
    model = linear_model.LogisticRegression(max_iter=200).fit((features - mean) / deviation, truth)
    features, truth = pixels(val_images, val_labels, rng, 100_000)
    guess = model.predict((features - mean) / deviation)
    confusion = np.zeros((34, 34), int)
    np.add.at(confusion, (truth, guess), 1)
    hit = np.diag(confusion)
    row = confusion.sum(1)
    column = confusion.sum(0)
    in_truth = row > 0
    iou = hit[in_truth] / (row + column - hit)[in_truth]
    assert in_truth.sum() == len(DRAWN)
    # one guess for every pixel would reach a class's share / 9 < .04: more than .15 shows that the fit works
    assert 0.15 < iou.mean() < 0.33


def test_neighbouring_frames_differ():
    images = [draw_street((0, 0, i), 64, 128)[0].astype(float) for i in range(4)]
    for first, second in itertools.combinations(images, 2):
        assert np.abs(first - second).mean() > 15
