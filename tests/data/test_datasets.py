"""The readers: what they list, how they pair, what they decode, which problems they see."""

import dataclasses
import json
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scenes import (
    CLASSES,
    H,
    W,
    decoded,
    image,
    label,
    make_camvid,
    make_cityscapes,
    make_folder,
    save,
    zip_cityscapes,
)

from kseg.data.datasets import DATASETS, camvid, cityscapes
from kseg.data.datasets import image_folders as folder
from kseg.data.datasets.listing import read_bytes
from kseg.data.groups import groups_of
from kseg.io.images import IMAGE_EXTENSIONS


def test_camvid_lists_in_file_name_order_and_decodes(tmp_path):
    source = camvid.read(make_camvid(tmp_path))
    split = decoded(source, "train")
    assert [name for name, _, _ in split] == [f"train_{i}" for i in range(5)] and len(split) == 5
    name, rgb, ids = split[3]
    assert name == "train_3" and rgb.shape == (H, W, 3) and rgb.dtype == ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, label(3, range(12)))  # labels are lossless
    assert source.problems == ()


def test_cityscapes_zips_read_as_the_folders_do(tmp_path):
    unpacked = make_cityscapes(tmp_path / "unpacked")
    from_folder = cityscapes.read(unpacked)
    from_zip = cityscapes.read(zip_cityscapes(unpacked, tmp_path / "zips"))
    for split in ("train", "val"):
        pairs = zip(decoded(from_folder, split), decoded(from_zip, split), strict=True)
        for (name, rgb, ids), (zip_name, zip_rgb, zip_ids) in pairs:
            assert name == zip_name
            np.testing.assert_array_equal(rgb, zip_rgb)
            np.testing.assert_array_equal(ids, zip_ids)
    frame = pickle.loads(pickle.dumps(from_zip)).splits["train"][0]  # as it travels to a worker
    assert frame.name == "aachen_000001_000019"  # cities in order, not scenes as made
    assert read_bytes(frame.instance) == read_bytes(from_folder.splits["train"][0].instance)


def test_cityscapes_without_instances_and_with_a_test_split(tmp_path):
    root = make_cityscapes(tmp_path, instances=False)
    save(root / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png", image(0))
    source = cityscapes.read(root)
    assert sorted(source.splits) == ["train", "val"] and source.problems == ()
    assert all(frame.instance is None for frame in source.splits["train"])


def test_unpaired_and_stray_files_are_problems(tmp_path):
    root = make_cityscapes(tmp_path)
    (root / "gtFine/train/zurich/zurich_000000_000019_gtFine_labelIds.png").unlink()
    (root / "leftImg8bit/val/lindau/lindau_000001_000019_leftImg8bit.png").unlink()
    save(root / "leftImg8bit/train/zurich/holiday.png", image(0))
    assert cityscapes.read(root).problems == (
        "not a Cityscapes name (CITY_SEQUENCE_FRAME_leftImg8bit.png): leftImg8bit/train/zurich/holiday.png",
        "train: image without label: leftImg8bit/train/zurich/zurich_000000_000019_leftImg8bit.png",
        "val: label without image: gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png",
    )


def test_camvid_problems(tmp_path):
    root = make_camvid(tmp_path)
    (root / "train/images/alone.gif").write_bytes(b"GIF89a")
    (root / "train/images/other.gif").write_bytes(b"GIF89a")
    save(root / "train/images/train_1.png", image(1))
    (root / "train/images/.hidden").write_text("")
    (root / "train/images/notes.txt").write_text("")
    assert camvid.read(root).problems == (
        f"not {' or '.join(IMAGE_EXTENSIONS)}: train/images/alone.gif (and 1 more like it)",
        "two files with one name: train/images/train_1.jpg, train/images/train_1.png",
    )


def make_tutorial(root, splits=("train", "val", "test")):
    """The SegNet tutorial's own layout: PNG images in SPLIT/, ids 0..11 in SPLITannot/, and its lists of files."""
    for split in splits:
        for i in range(3):
            save(root / split / f"0016E5_{i:05}.png", image(i))
            save(root / f"{split}annot" / f"0016E5_{i:05}.png", label(i, range(12)))
        (root / f"{split}.txt").write_text("/SegNet/CamVid/train/0016E5_00000.png /SegNet/...\n")
    return root


def test_a_folder_whose_classes_are_others_is_not_camvid(tmp_path):
    root = make_camvid(tmp_path)
    names = [camvid.info().id_names[i] for i in range(11)]
    for classes in (names, ["lane", *names[1:]]):
        rows = [{"id": i, "name": name} for i, name in enumerate(classes)]
        (root / "classes.json").write_text(json.dumps({"classes": rows}))
        if classes == names:
            assert len(camvid.read(root).splits["train"]) > 0
        else:
            with pytest.raises(ValueError, match=r"other classes than CamVid's \(lane, .*dataset=folder"):
                camvid.read(root)


def test_camvid_as_the_tutorial_has_it(tmp_path):
    source = camvid.read(make_tutorial(tmp_path))
    assert {name: len(frames) for name, frames in source.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert source.problems == () and source.notes == tuple(
        f"{split}: the images are read from {split} and the labels are read from {split}annot."
        for split in ("train", "val", "test")
    )
    for i, (name, rgb, ids) in enumerate(decoded(source, "test")):
        assert name == f"0016E5_{i:05}"
        np.testing.assert_array_equal(rgb, image(i))
        np.testing.assert_array_equal(ids, label(i, range(12)))


def test_what_is_wrong_in_the_tutorials_layout_is_said_as_in_others(tmp_path):
    root = make_tutorial(tmp_path)
    (root / "valannot" / "0016E5_00001.png").unlink()
    save(root / "trainannot" / "0016E5_00001.jpg", label(1, range(12)))
    (root / "trainannot" / "0016E5_00001.png").unlink()
    shutil.rmtree(root / "testannot")
    source = camvid.read(root)
    assert source.problems == (
        "labels are JPEG, which changes ids; export them as PNG: trainannot/0016E5_00001.jpg",
        "val: image without label: val/0016E5_00001.png",
    )
    assert len(source.unlabelled["test"]) == 3 and "test: 3 images have no labels" in source.notes[-1]
    save(root / "train" / "images" / "a.png", image(0))
    with pytest.raises(ValueError, match="train/images and train could both be the images of split train"):
        camvid.read(root)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "trainannot")
    with pytest.raises(FileNotFoundError, match="no train/images: .*their labels in trainannot"):
        camvid.read(root)


@pytest.mark.parametrize("split_first", [True, False])
def test_folder_in_both_layouts(tmp_path, split_first):
    source = folder.read(make_folder(tmp_path, split_first=split_first))
    label_set = source.info.label_set()
    assert label_set.classes == ("road", "car") and label_set.palette == ((10, 20, 30), (200, 0, 0))
    # ids 3 and 7 are training ids 0 and 1; 9 is listed as void, 255 is void by default, 4 is not there
    assert label_set.table[[3, 7, 9, 255, 4]].tolist() == [0, 1, 255, 255, 254]
    assert [name for name, _, _ in decoded(source, "val")] == ["val0", "val1"]


def test_folder_with_colours_gives_ids(tmp_path):
    root = make_folder(tmp_path, classes={**CLASSES, "labels": "color"}, splits=("train",))
    ids = label(1, (3, 7, 9))
    colours = np.zeros((256, 3), np.uint8)
    for row in CLASSES["classes"]:
        colours[row["id"]] = row["color"]
    save(root / "train/labels/train0.png", colours[ids])
    palette = Image.fromarray(ids, "P")
    palette.putpalette(colours.tobytes())
    palette.save(root / "train/labels/train1.png")
    for _, _, found in decoded(folder.read(root), "train"):
        np.testing.assert_array_equal(found, ids)


def test_unknown_colours_are_named_and_counted(tmp_path):
    root = make_folder(tmp_path, classes={**CLASSES, "labels": "color"}, splits=("train",))
    rgb = np.full((H, W, 3), (10, 20, 30), np.uint8)
    rgb[0, :5] = (1, 2, 3)
    save(root / "train/labels/train0.png", rgb)
    message = r"train/labels/train0.png: colours that classes.json does not have: \(1, 2, 3\) in 5 pixels"
    with pytest.raises(ValueError, match=message):
        decoded(folder.read(root), "train")[0]


@pytest.mark.parametrize(("grey", "advised"), [(0, True), (1, True), (2, False), (255, False)])
def test_grey_ids_where_colours_should_be_are_told(grey, advised, tmp_path):
    classes = [{"name": "sky", "color": [10, 20, 30]}, {"name": "road", "color": [40, 50, 60]}]  # ids 0 and 1
    root = make_folder(tmp_path, classes={"classes": classes, "labels": "color"}, splits=("train",))
    save(root / "train/labels/train0.png", np.full((H, W), grey, np.uint8))
    with pytest.raises(ValueError, match=rf"does not have: \({grey}, {grey}, {grey}\) in {H * W} pixels") as error:
        decoded(folder.read(root), "train")
    assert ('; these look like ids, which "labels": "ids" in classes.json reads' in str(error.value)) == advised


def test_palette_and_low_bit_labels_give_the_stored_numbers(tmp_path):
    classes = {"classes": [{"id": i, "name": f"c{i}"} for i in range(4)]}
    root = make_folder(tmp_path, classes=classes, splits=("train",))
    ids = label(5, range(4))
    palette = Image.fromarray(ids, "P")
    palette.putpalette(bytes(range(100, 112)))
    palette.save(root / "train/labels/train0.png", bits=2)
    np.testing.assert_array_equal(decoded(folder.read(root), "train")[0][2], ids)
    colours = folder.read(root).info.label_set().palette
    assert len(set(colours)) == 4 and (0, 0, 0) not in colours  # classes without a colour get one each


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "classes.json: "),
        ("[]", r"a JSON object, got \[\]\."),
        ("", r"classes.json is empty\. Write {\"classes\": "),
        ('{"classes": []}', r'"classes" must be a list of .*, got \[\]\.'),
        ('{"classes": [{"name": "a"}]}', 'every class needs an "id"'),
        ('{"classes": [{"id": 256, "name": "a"}]}', "whole numbers of 0..255"),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "different"),
        ('{"classes": [{"id": 1, "name": "a", "color": [1, 2]}]}', "three whole numbers"),
        ('{"classes": [{"id": 1, "name": "a"}], "labels": "color"}', 'needs a "color"'),
        ('{"classes": [{"id": 1, "name": "a"}], "labels": "rgb"}', '"ids" or "color"'),
        ('{"classes": [{"id": 1, "name": "a"}], "ignore": [3]}', "unknown keys ignore"),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "void": [1, 2]}', "at least 2 classes"),
        ('{"classes": [{"id": 1, "name": "\\u00fc"}, {"id": 2, "name": "u\\u0308"}]}', "is there 2 times"),
        ('{"classes": [{"id": 1, "name": "a"}]}', 'got 1. .*List the background as a class: {"id": 0, "name": "back'),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "needs its own name, 'a' is there 2 times"),
        ('{"classes": {"id": 1, "name": "a"}}', '"classes" must be a list of .*, got {"id": 1, "name": "a"}'),
        ('{"classes": ["road"]}', r'class 0 of the list \(counted from 0\): it must be {"id": 0, .*}, got "road"'),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": 2}]}', r'class 1 .*: "name" must be .*"name": 2}\.'),
        ('{"classes": [{"id": 1}]}', '"name" must be a line of text'),
        ('{"classes": [{"id": 1, "name": ""}]}', '"name" must be a line of text'),
        (r'{"classes": [{"id": 1, "name": "a\nb"}]}', '"name" must be a line of text'),
        ('{"classes": [{"id": 1, "name": "a "}]}', "neither begins nor ends with a space"),
        (
            '{"classes": [{"id": 1, "name": "a", "colour": [1, 2, 3]}]}',
            "unknown keys colour; known: id, name, color, void",
        ),
        ('{"classes": [{"id": 1, "name": "a", "void": 1}]}', '"void" must be true or false'),
        ('{"classes": [{"id": true, "name": "a"}]}', "whole numbers of 0..255"),
        ('{"classes": [{"id": [1], "name": "a"}]}', "whole numbers of 0..255"),
        ('{"classes": [{"id": 1, "name": "a", "color": 5}]}', "three whole numbers"),
        ('{"classes": [{"id": 1, "name": "a", "color": [1, 2, 256]}]}', "three whole numbers"),
        ('{"classes": [{"id": 1, "name": "a"}], "void": 1}', r'"void" must be a list .* such as \[255\], got 1'),
        ('{"classes": [{"id": 1, "name": "a"}], "void": ["255"]}', r"\"void\" must be a list .*, got \['255'\]"),
        ('{"classes": [{"id": 1, "name": "a"}], "labels": ["ids"]}', '"ids" or "color"'),
        ('{"classes": [{"id": 1, "name": "a"}], "name": 3}', '"name" must be text'),
        ("[" * 100_000, "cannot be read as JSON: its brackets are nested too deeply"),
        ('{"classes": [{"id": 1, "name": "a", "id": 2}]}', 'the key "id" is there twice in one object'),
        (
            '{"classes": [{"id": 1, "name": "a", "color": [9, 9, 9]}, {"id": 2, "name": "b", "color": [9, 9, 9]}]}',
            r"'a' and 'b' have the same colour \[9, 9, 9\]",
        ),
        (
            '{"classes": [{"id": 1, "name": "Road"}, {"id": 2, "name": "road"}]}',
            "'Road' and 'road' differ in upper and lower case alone",
        ),
    ],
)
def test_bad_classes_file(tmp_path, content, message):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        folder.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_classes_file_with_other_capitals_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.json").rename(tmp_path / "Classes.JSON")
    if (tmp_path / "classes.json").exists():
        pytest.skip("this file system ignores case")
    with pytest.raises(FileNotFoundError, match=r"no .*classes.json. Classes.JSON is there: rename it to classes.json"):
        folder.read(tmp_path)


def test_a_split_given_as_the_dataset_is_told_where_the_classes_are(tmp_path):
    one, below = tmp_path / "one", tmp_path / "two" / "mydata"
    make_folder(one)
    make_folder(below)
    for given, meant in ((one / "train", one), (below.parent, below)):
        with pytest.raises(
            FileNotFoundError, match=f"{given}/classes.json. {re.escape(str(meant))} has one: give that"
        ):
            folder.read(given)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read(tmp_path, encoding):
    """Notepad writes UTF-8 with a mark, PowerShell's > UTF-16 with one."""
    make_folder(tmp_path)
    text = json.dumps(CLASSES).replace("road", "stra\u00dfe")
    (tmp_path / "classes.json").write_bytes(text.encode(encoding))
    assert folder.read(tmp_path).info.label_set().classes == ("stra\u00dfe", "car")


def test_a_defect_in_the_parser_keeps_its_type(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.setattr(folder, "_make_info", lambda *rows: None + 1)
    with pytest.raises(TypeError):
        folder.read(tmp_path)


def test_missing_sources(tmp_path):
    for read in (camvid.read, cityscapes.read, folder.read):
        with pytest.raises(FileNotFoundError, match="There is no source folder"):
            read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no train/images"):
        camvid.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="gtFine_trainvaltest.zip"):
        cityscapes.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="classes.json"):
        folder.read(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    with pytest.raises(FileNotFoundError, match="no train/images"):
        folder.read(tmp_path)
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(FileNotFoundError, match="gtFine/ is missing"):
        cityscapes.read(tmp_path)


def test_a_torn_zip_is_one_clear_error(tmp_path):
    zips = zip_cityscapes(make_cityscapes(tmp_path / "unpacked"), tmp_path / "zips")
    path = zips / "gtFine_trainvaltest.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="gtFine_trainvaltest.zip is not a usable zip file"):
        cityscapes.read(zips)


def test_real_camvid(camvid):
    from kseg.data.datasets import camvid as reader

    source = reader.read(camvid)
    drives = {name: groups_of([f.name for f in frames], "drive", DATASETS["camvid"].drive).names
              for name, frames in source.splits.items()}  # fmt: skip
    assert drives == {
        "train": ("0001TP", "0006R0", "0016E5"),
        "val": ("0016E5",),
        "test": ("0001TP", "Seq05VD"),
    }
    # the tutorial's splits; its images are 480x360
    assert {name: len(frames) for name, frames in source.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert source.problems == source.notes == () and source.unlabelled == {}
    frame = source.splits["val"][50]
    _, rgb, ids = decoded(dataclasses.replace(source, splits={"val": [frame]}), "val")[0]
    assert rgb.shape == (360, 480, 3) and set(np.unique(source.info.label_set().table[ids])) <= {
        *range(11),
        255,
    }


def test_a_class_without_a_colour_gets_one_that_no_other_class_has(tmp_path):
    """The colours that the first three get where nothing else has them are those of the other rows here."""
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [{"id": i, "name": f"c{i}"} for i in range(3)]}))
    usual = folder.read_classes(str(tmp_path / "classes.json"))[0].label_set().palette
    rows = [{"id": i, "name": f"c{i}"} for i in range(3)]
    rows += [{"id": 3 + i, "name": f"d{i}", "color": list(usual[2 - i])} for i in range(3)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": rows}))
    palette = folder.read_classes(str(tmp_path / "classes.json"))[0].label_set().palette
    assert len(set(palette)) == 6 and list(palette[3:]) == [usual[2], usual[1], usual[0]]
    rows = [{"id": i, "name": f"c{i}"} for i in range(254)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": rows}))
    assert len(set(folder.read_classes(str(tmp_path / "classes.json"))[0].label_set().palette)) == 254
