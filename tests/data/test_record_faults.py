"""A record folder checked: each fault put into drawn streets is found, said once, and nothing else is said."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scenes import make_camvid, save

import kseg
from kseg.data.augmentation.apply_numpy import nearest_label, smooth_label
from kseg.data.checks.label_faults import is_smoothed, looks_like_training_ids
from kseg.data.checks.near_duplicates import near_duplicates, thumbnail
from kseg.data.checks.record_faults import _class_warnings, check_records, quick_check
from kseg.data.datasets import cityscapes
from kseg.data.labels import label_set_of
from kseg.data.pipeline.examples import Examples
from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes
from kseg.io import images as codec
from kseg.io.tfrecord import frame, serialize_example

TRAIN = 6
VAL = 3
INFO = cityscapes.info()


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    # of this seed all classes are in train, and in val without its second record
    draw_cityscapes(root, train=TRAIN, val=VAL, height=64, width=128, seed=3, workers=1)
    return root


@pytest.fixture
def source(streets, tmp_path):
    return shutil.copytree(streets, tmp_path / "source")


@pytest.fixture
def checked(source, tmp_path):
    """A function: the problems and warnings of the records made from the source as it is now."""

    def check():
        prepare_dataset("cityscapes", source, tmp_path / "records", shards=1, workers=1, progress=False)
        return check_records(load_manifest(tmp_path / "records"))[1:]

    return check


def labels_of(source, split):
    return sorted((source / "gtFine" / split).glob("*/*_labelIds.png"))


def change(path, function):
    save(path, function(np.asarray(Image.open(path))).astype(np.uint8))


def quick(folder, label_space=None):
    return quick_check(*(Examples(folder, split, label_space=label_space) for split in ("train", "val")))


def to_training_ids(label):
    return INFO.label_set().table[label]


def foreign(folder, source, recode=lambda label: label):
    """Records without dataset.json, as DeepLab's converter leaves them."""
    folder.mkdir()
    for split in ("train", "val"):
        with open(folder / f"{split}-00000-of-00001.tfrecord", "wb") as file:
            for path in labels_of(source, split):
                image = str(path).replace("gtFine_labelIds", "leftImg8bit").replace("gtFine", "leftImg8bit")
                label = recode(np.asarray(Image.open(path)))
                values = {
                    "image/encoded": open(image, "rb").read(),
                    "image/filename": path.name,
                    "image/height": label.shape[0],
                    "image/width": label.shape[1],
                    "image/segmentation/class/encoded": codec.encode(label),
                }
                file.write(frame(serialize_example(values)))
    return folder


def without(source, *ids):
    """Takes classes out of all labels: their pixels become road."""
    for split in ("train", "val"):
        for path in labels_of(source, split):
            change(path, lambda label: np.where(np.isin(label, ids), 7, label))


def test_drawn_streets_are_right_and_have_every_class(checked, tmp_path):
    assert checked() == ([], [])
    assert quick(tmp_path / "records") == []


def test_classes_that_no_street_has_are_named(source, checked, tmp_path):
    without(source, 12, 13, 22, 25, 27, 28, 33)
    problems, (warning,) = checked()
    assert problems == []
    first = "wall, fence, terrain, rider, truck, bus"  # six names, the seventh is only counted
    assert warning.startswith(f"No split has a pixel of 7 classes: {first} and")
    assert quick(tmp_path / "records") == [warning]


def test_the_histogram_counts_every_pixel_and_image(source, checked, tmp_path):
    change(labels_of(source, "train")[0], lambda label: np.where(label == 26, 11, label))  # a street without cars
    checked()
    findings = check_records(load_manifest(tmp_path / "records"))[0]
    labels = np.stack([np.asarray(Image.open(path)) for path in labels_of(source, "train")])
    np.testing.assert_array_equal(findings["train"].pixels, np.bincount(labels.ravel(), minlength=256))
    cars = INFO.label_set().table[26]
    assert findings["train"].images[cars] == sum(26 in label for label in labels) <= TRAIN - 1
    assert findings["train"].images[255] == TRAIN


def test_training_ids_in_place_of_label_ids(source, checked, tmp_path):
    """The commonest mistake: labelTrainIds under the names of labelIds; every id exists, nothing fails to read."""
    for path in labels_of(source, "train")[:2]:
        change(path, to_training_ids)
    problems, _ = checked()
    (line,) = problems
    names = [path.name.removesuffix("_gtFine_labelIds.png") for path in labels_of(source, "train")[:2]]
    assert line.startswith("train: 2 of 6 records hold training ids") and "road is 7" in line
    assert all(name in line for name in names)
    quick(tmp_path / "records")  # a minority: the whole check is for that
    for path in labels_of(source, "train")[2:]:
        change(path, to_training_ids)
    shutil.rmtree(tmp_path / "records")
    problems, _ = checked()
    assert len(problems) == 1 and "train: 6 of 6 records hold training ids" in problems[0]
    with pytest.raises(ValueError, match="The labels of split train hold training ids"):
        kseg.train("unet", tmp_path / "records", tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_few_classes_in_label_ids_are_no_training_ids():
    """Someone's own street of road, sidewalk, building and pole, the rest unlabeled: all ids lie below 19."""
    counts = np.zeros(256, int)
    counts[[0, 7, 8, 11, 17]] = [900, 50, 20, 20, 10]
    assert not looks_like_training_ids(counts, INFO)
    counts[[1, 2, 5, 10, 13, 255]] = 500  # sidewalk, building, pole, sky and car as training ids
    assert looks_like_training_ids(counts, INFO)
    counts[26] = 1  # no training id
    assert not looks_like_training_ids(counts, INFO)


@pytest.mark.parametrize("space", ["train_ids", "label_ids"])
def test_foreign_records_in_the_other_ids(source, tmp_path, space):
    """What they hold and what the user says they hold: both right, then each wrong."""
    holds_training_ids = space == "train_ids"
    folder = foreign(tmp_path / "foreign", source, to_training_ids if holds_training_ids else lambda label: label)
    _, problems, warnings = check_records(load_manifest(folder, label_space=space))
    assert problems == [] and warnings[0].startswith("Without dataset.json there are no checksums")
    assert quick(folder, space) == []
    other = "label_ids" if holds_training_ids else "train_ids"
    _, problems, _ = check_records(load_manifest(folder, label_space=other))
    what = "hold training ids" if holds_training_ids else "hold Cityscapes' regular ids"
    assert [line.partition(",")[0] for line in problems] == [
        f"train: 6 of 6 records {what}" + ("" if holds_training_ids else " (0..33)"),
        f"val: 3 of 3 records {what}" + ("" if holds_training_ids else " (0..33)"),
    ]
    assert all(f"set label_space to {space}" in line for line in problems)
    with pytest.raises(ValueError, match=f"The labels of split train {what}"):
        quick(folder, other)


def test_smoothed_labels_by_their_edges(source, checked):
    """Of raw ids: every id that smoothing makes between 7 and 26 exists, so only the edges tell."""
    for path in labels_of(source, "val"):
        change(path, lambda label: nearest_label(nearest_label(label, 48, 96), *label.shape))
    path = labels_of(source, "train")[3]
    change(path, lambda label: smooth_label(nearest_label(label, 48, 96), *label.shape))
    problems, _ = checked()
    assert [line.partition(" by a")[0] for line in problems] == ["train: 1 of 6 records have labels blended"]
    assert path.name.removesuffix("_gtFine_labelIds.png") in problems[0]


def test_a_real_strip_of_one_pixel_is_not_smoothed():
    """A road (7), a pole (100) before a car (33) that shows one column of itself; boxes give changes along columns."""
    label = np.full((128, 96), 7, np.uint8)
    label[100:, ::8] = 0
    label[10:120, 40:45] = 100
    label[10:120, 45] = 33
    assert not is_smoothed(label)
    blurred = np.asarray(Image.fromarray(label).resize((192, 256), Image.Resampling.BILINEAR))
    assert is_smoothed(blurred)


def test_smoothed_labels_by_illegal_ids(source, tmp_path):
    """Of training ids and 255: between a class and void lie ids that no list has."""
    folder = foreign(tmp_path / "f", source, lambda label: smooth_label(to_training_ids(label), *label.shape))
    assert check_records(load_manifest(folder, label_space="train_ids"))[1] == []  # of its own size: unchanged
    shutil.rmtree(folder)

    def shrunk(label):
        return smooth_label(to_training_ids(nearest_label(label, 96, 192)), *label.shape)

    foreign(folder, source, shrunk)
    _, problems, _ = check_records(load_manifest(folder, label_space="train_ids"))
    assert len(problems) == 4 and "train: 6 of 6 records have labels blended" in problems[0]
    assert "train: ids that cityscapes does not have: " in problems[1] and "; the labels were smoothed" in problems[1]


@pytest.mark.parametrize("size", [(64, 128), (96, 192), (48, 96), (200, 300)])
def test_nearest_resizing_is_no_smoothing(streets, size):
    labels = [np.asarray(Image.open(path)) for path in labels_of(streets, "train")]
    assert not any(is_smoothed(nearest_label(label, *size)) for label in labels)
    assert size == (64, 128) or all(is_smoothed(smooth_label(label, *size)) for label in labels)


def test_illegal_ids_by_their_number(source, tmp_path):
    def some(label):
        label = to_training_ids(label).copy()
        label[5, 10:13] = 77
        return label

    folder = foreign(tmp_path / "f", source, some)
    _, problems, _ = check_records(load_manifest(folder, label_space="train_ids"))
    assert [line.partition(";")[0] for line in problems] == [
        "train: ids that cityscapes does not have: 77 in 18 pixels",
        "val: ids that cityscapes does not have: 77 in 9 pixels",
    ]
    assert [line.partition(";")[0] for line in quick(folder, "train_ids")] == [
        "train: ids that cityscapes does not have: 77 in 12 pixels",  # in the four labels that it reads
        "val: ids that cityscapes does not have: 77 in 9 pixels",
    ]


def test_blank_labels_and_missing_classes(source, checked, tmp_path):
    change(labels_of(source, "val")[1], np.zeros_like)
    for path in labels_of(source, "train"):
        change(path, lambda label: np.where(label == 26, 11, label))  # cars in val only
    for path in labels_of(source, "val"):
        change(path, lambda label: np.where(label == 31, 11, label))  # trains in train only
    change(labels_of(source, "train")[2], lambda label: np.where(np.indices(label.shape)[1] < 9, 31, label))
    problems, warnings = checked()
    (line,) = (line for line in warnings if "blank" in line)
    name = labels_of(source, "val")[1].name.removesuffix("_gtFine_labelIds.png")
    assert problems == [] and line.startswith("val: 1 of 3 records have a blank label") and f"{name} (id 0)" in line
    for expected in (
        "val has classes that train lacks, so they cannot be learnt: car.",
        "val lacks classes that train has, so they get no score: train.",
    ):
        assert expected in warnings and expected in quick(tmp_path / "records")


def test_nothing_to_learn_is_an_error(source, checked, tmp_path):
    for path in labels_of(source, "train"):
        change(path, lambda label: np.where(label > 3, 4, 3))
    problems, warnings = checked()
    assert problems == [] and "100% of the pixels of train belong to no class" in " ".join(warnings)
    with pytest.raises(ValueError, match="No pixel of split train belongs to a class of label set train_ids"):
        quick(tmp_path / "records")


def test_near_duplicates_across_splits(source, checked):
    """A validation image that is a training image, smaller once, brighter and as JPEG: found; others are not."""
    images = sorted((source / "leftImg8bit" / "train").glob("*/*.png"))
    copy = images[4]
    target = sorted((source / "leftImg8bit" / "val").glob("*/*.png"))[2]
    with Image.open(copy) as image:
        image.resize((64, 32)).resize(image.size).point(lambda grey: min(255, grey * 1.15)).save(
            target.with_suffix(".jpg"), quality=60
        )
        Image.open(target.with_suffix(".jpg")).save(target)
        target.with_suffix(".jpg").unlink()
    problems, warnings = checked()
    names = [path.name.removesuffix("_leftImg8bit.png") for path in (copy, target)]
    (warning,) = [line for line in warnings if "nearly equal" in line]
    assert problems == [] and warning.startswith(
        f"1 pair of nearly equal images in train and val: {' and '.join(names)};"
    )


def test_near_duplicates_by_definition():
    """Of 600 unrelated images three are in another stack, two under noise; rows are compared in blocks of 512."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (600, 6, 8, 3), np.uint8)
    images = [np.asarray(Image.fromarray(c).resize((96, 54), Image.Resampling.BICUBIC)) for c in coarse]
    noisy = [np.clip(images[i] + random.normal(0, 10, (54, 96, 3)), 0, 255).astype(np.uint8) for i in (3, 517)]
    first, second = (
        np.stack([thumbnail(image) for image in stack]) for stack in (images, [*images[590:0:-590], *noisy])
    )
    found = near_duplicates(first, second)
    assert [(i, j) for i, j, _ in found] == [(3, 1), (517, 2), (590, 0)]
    assert found[2][2] == 0 < found[0][2] < 10


def test_damage_is_named_by_shard_and_record(source, checked, tmp_path):
    checked()
    shard = next((tmp_path / "records").glob("train-*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    _, problems, _ = check_records(load_manifest(tmp_path / "records"))
    assert len(problems) == 2 and problems[0].startswith(f"Shard {shard} is corrupt")
    assert re.match(rf"train: 1 of 6 records cannot be read .*Record \d of shard {re.escape(str(shard))}", problems[1])


def test_a_manifest_that_counts_otherwise(checked, tmp_path):
    checked()
    path = tmp_path / "records" / "dataset.json"
    data = json.loads(path.read_text())
    data["splits"]["val"]["pixel_counts"]["7"] += 1
    data["splits"]["train"]["records"][2][4] += 1  # a width
    path.write_text(json.dumps(data))
    _, problems, _ = check_records(load_manifest(tmp_path / "records"))
    assert len(problems) == 2 and "image, label and manifest have different sizes" in problems[0]
    assert problems[1] == "val: the labels' pixels are not those that dataset.json counted: prepare them again."
    for key, count in (("300", 1), ("7", -1), ("7", "9")):
        path.write_text(json.dumps(data).replace('"7": ', f'"{key}": {json.dumps(count)}, "8": 0, "9": ', 1))
        with pytest.raises(ValueError, match="pixel counts of split 'train' must be whole numbers|7 must be int"):
            load_manifest(tmp_path / "records")


def test_any_number_of_processes_finds_the_same(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=30, val=4)  # noise: every training image i is validation image i
    prepare_dataset("camvid", root, tmp_path / "records", workers=1, progress=False)
    manifest = load_manifest(tmp_path / "records")
    one, two = (check_records(manifest, workers=workers) for workers in (1, 2))
    assert one[1:] == two[1:] and "4 pairs of nearly equal images in train and val: train_0 and val_0" in " ".join(
        one[2]
    )
    np.testing.assert_array_equal(one[0]["train"].pixels, two[0]["train"].pixels)


def test_the_script_draws_a_sheet_and_exits_by_what_it_finds(source, checked, tmp_path, call_script):
    run = functools.partial(call_script, "prepare_data")
    without(source, 31)
    checked()
    mine = tmp_path / "records.check.png"
    Image.new("L", (4, 4)).save(mine)
    before = mine.read_bytes()
    code, _, error = run(f"--check={tmp_path}/records/")
    assert code == 2 and f"{mine} is no picture that this kseg drew" in error and mine.read_bytes() == before
    mine.unlink()
    code, out, error = run(f"--check={tmp_path}/records/")
    assert code == 0 and f"{tmp_path}/records: nothing is wrong, 1 warning." in out, error
    assert re.search(r"^road +\d+\.\d{3}% +6 +\d+\.\d{3}% +3 +\d\.\d{3} +\d\.\d{3}$", out, re.MULTILINE), out
    assert "WARNING: No split has a pixel of" in out and "--class_weights=median_frequency or --class_weights=" in out
    with Image.open(tmp_path / "records.check.png") as sheet:  # four columns of 3 x 128 pixels, six rows of 3 x 64
        assert sheet.width == 4 * (384 + 8) + 8 and sheet.height > 6 * 192
    mine.unlink()
    with pytest.MonkeyPatch.context() as patch:  # as for a user whom permissions stop
        patch.setattr("kseg.commands.prepare_command.os.access", lambda path, mode: False)
        code, out, error = run(f"--check={tmp_path}/records")
    assert code == 0 and "nothing is wrong" in out and not mine.exists(), error
    assert f"No picture: you may not write in {tmp_path}. --output=PNG draws it elsewhere." in error
    change(labels_of(source, "val")[1], np.zeros_like)
    shutil.rmtree(tmp_path / "records")
    checked()
    code, out, error = run(f"--check={tmp_path}/records", f"--output={tmp_path}/sheet.png")
    assert code == 0 and "WARNING: val: 1 of 3 records have a blank label" in out and (tmp_path / "sheet.png").exists()
    for path in labels_of(source, "val"):
        change(path, np.zeros_like)
    shutil.rmtree(tmp_path / "records")
    checked()
    code, out, error = run(f"--check={tmp_path}/records", f"--output={tmp_path}/sheet.png")
    assert code == 2 and "1 problem in" in error and "val: all 3 records have a blank label" in error
    assert "1 of 3 records" not in out + error
    code, _, error = run(f"--check={tmp_path}/records", "--dataset=camvid")
    assert code == 2 and "--check takes no --dataset" in error
    code, _, error = run("--dataset=camvid", "--source=s", "--output=o", "--label_space=train_ids")
    assert code == 2 and "--label_space goes with --check" in error


def test_training_says_the_warnings_first(source, checked, tmp_path, capsys):
    without(source, 31)
    checked()

    def build():
        raise RuntimeError("built")

    with pytest.raises(RuntimeError, match="built"):
        kseg.train(build, tmp_path / "records", tmp_path / "run", epochs=1, batch_size=2)
    assert "WARNING: No split has a pixel of" in capsys.readouterr().out


def test_one_class_is_no_classes():
    """Class 1 of three has no pixel, then 1 and 2: the sentence is of one, then of two."""
    label_set = label_set_of("train_ids", range(3), ["road", "car", "sky"], [(i, 0, 0) for i in range(3)])
    one, two = np.zeros((2, 256), int)
    one[[0, 2]] = two[0] = 5
    assert _class_warnings({"train": one}, label_set) == ["No split has a pixel of 1 class: car. It gets no score."]
    assert _class_warnings({"train": two}, label_set) == [
        "No split has a pixel of 2 classes: car, sky. They get no score."
    ]
