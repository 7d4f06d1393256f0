"""Which images belong together: drives and blocks by the names, the rule that records keep, what is refused."""

import json

import pytest
import tiny
from scenes import make_cityscapes

from kseg.data.datasets import DATASETS, Dataset
from kseg.data.groups import Groups, groups_of, shown_groups
from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.io.errors import InputError

CAMVID = DATASETS["camvid"].drive


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("cityscapes", {"frankfurt_000000_000294": "frankfurt", "val/bad-honnef_000000_000000": "bad-honnef"}),
        ("camvid", {"0016E5_07959": "0016E5", "Seq05VD_f00210": "Seq05VD", "0001TP_008550": "0001TP"}),
        ("folder", {"seq1/0001": "seq1", "a/b/x": "a/b", "night_f0012": "night", "drive 2_17": "drive 2"}),
        ("folder", {"0001": "unnamed", "0002": "unnamed"}),  # one recording that has no name
    ],
)
def test_the_drive_is_what_the_dataset_says(dataset, names):
    assert groups_of(names, "drive", DATASETS[dataset].drive).of == tuple(names.values())


def test_blocks_are_of_consecutive_frames_of_a_drive_by_their_numbers():
    """7 frames of a, numbered 2 to 14, and 5 of b: blocks of 3 are 3 + 3 + (1 left: less than half) and 3 + 2."""
    names = [f"a_{i}" for i in (10, 12, 14, 2, 4, 6, 8)] + [f"b_{i}" for i in range(5)]  # as text 10 is before 2
    groups = groups_of(names, "block:3", CAMVID)
    assert groups.drives == ("a", "b")
    assert dict(zip(names, groups.of, strict=True)) == {
        **dict.fromkeys(["a_2", "a_4", "a_6"], "a_2 to a_6"),
        **dict.fromkeys(["a_8", "a_10", "a_12", "a_14"], "a_8 to a_14"),
        **dict.fromkeys(["b_0", "b_1", "b_2"], "b_0 to b_2"),
        **dict.fromkeys(["b_3", "b_4"], "b_3 to b_4"),
    }
    assert len(groups_of(names, "block:1", CAMVID).names) == 12 and len(groups_of(names, "block:25", CAMVID).names) == 2


def test_a_regular_expression_groups_by_its_first_group():
    assert groups_of(["a_1_x", "b_2_x", "c_1_y"], r"_(\d)_", "").of == ("1", "2", "1")


@pytest.mark.parametrize(
    ("by", "rule", "message"),
    [
        (r"^a_(\d)", CAMVID, r"must match every name, but does not match 'b_x'"),
        (r"a_(\d)|b", CAMVID, "does not match 'b_x'"),  # it matches without its group
        ("(", CAMVID, r"drive, block:25 or a regular expression, got '\(': "),
        ("drives", CAMVID, "with a group in brackets, got 'drives'"),
        ("block:0", CAMVID, "whole number of frames, at least 1, got 'block:0'"),
        ("block:2.5", CAMVID, "whole number of frames"),
        ("", CAMVID, "must be drive, block:25 or a regular expression, got ''"),
        (7, CAMVID, "got 7"),
        (r"(x*)$", CAMVID, "must find the group in every name, but finds nothing in 'a_1'"),
        ("drive", "", "this one has no rule for that"),
        ("drive", DATASETS["folder"].drive, "group_by drive.* does not match 'b_x'"),
        ("block:2", DATASETS["cityscapes"].drive, "does not match 'a_1'"),
    ],
)
def test_what_cannot_be_grouped_is_refused(by, rule, message):
    with pytest.raises(InputError, match=message):
        groups_of(["a_1", "b_x"], by, rule)


def test_what_the_names_show_and_what_it_means():
    """CamVid's val is one drive of 101 frames: blocks of 25, 25, 25 and 26."""
    val = [f"0016E5_{number:05}" for number in range(7959, 8161, 2)]
    one = shown_groups(val, CAMVID)
    assert one.by == "block:25" and len(one.names) == 4 and one.names[0] == "0016E5_07959 to 0016E5_08007"
    assert one.meaning() == (
        "Independent groups: 4 blocks of 25 consecutive frames, of 1 drive (0016E5). The interval says how much "
        "the difference changes from one part of this drive to another. It says nothing of other drives."
    )
    test = [f"0001TP_{i:06}" for i in range(62)] + [f"Seq05VD_f{i:05}" for i in range(171)]
    two = shown_groups(test, CAMVID)
    assert (two.by, two.names) == ("drive", ("0001TP", "Seq05VD"))
    assert two.meaning() == (
        "Independent groups: 2 drives (0001TP, Seq05VD). So few drives tell nothing of others: the interval is of "
        "these 2 drives alone."
    )
    assert "40 blocks" not in two.meaning() and "these 2 drives alone" in groups_of(test, "block:5", CAMVID).meaning()
    ten = shown_groups([f"{drive}_1" for drive in "abcdefghij"], CAMVID)
    assert ten.meaning() == "Independent groups: 10 drives (a, b, c, d, e and 5 more)."
    few = shown_groups(val[:37], CAMVID)  # 25 and a rest of 12: one block
    assert (few.by, few.of, few.drives) == ("image", tuple(val[:37]), ("0016E5",))
    assert "37 images, each for itself. All are of 1 drive (0016E5), too few for blocks of 25." in few.meaning()
    for names, rule in ((["holiday", "cat"], DATASETS["folder"].drive), (val, "")):
        none = shown_groups(names, rule)
        assert none == Groups("image", tuple(names)) and "The names show no drives" in none.meaning()
    finer = groups_of(test, r"_f?\d*(\d)$", CAMVID)  # more than FEW groups, of the same two drives
    assert len(finer.names) == 10 and "of 2 drives (0001TP, Seq05VD). So few drives" in finer.meaning()
    assert (two.alone, finer.alone) == ("of these 2 drives alone",) * 2
    assert "these 2 groups alone" in groups_of(["x1", "y2"], r"(\d)", "").meaning()


def test_the_records_keep_the_rule_so_that_scoring_needs_no_dataset(tmp_path, monkeypatch):
    source = make_cityscapes(tmp_path / "source")
    prepare_dataset("cityscapes", source, tmp_path / "records", workers=1, progress=False)
    monkeypatch.setitem(DATASETS, "cityscapes", Dataset("none:none", "none"))
    manifest = load_manifest(tmp_path / "records")
    assert shown_groups(manifest.split("val").names, manifest.drive).names == ("lindau", "munster")


def test_records_older_than_the_rule_have_that_of_their_dataset(tmp_path):
    folder = tiny.write_records(tmp_path)
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    assert content.pop("drive") == DATASETS["folder"].drive
    path.write_text(json.dumps(content))
    assert load_manifest(folder).drive == DATASETS["folder"].drive
    for options in ({}, {"dataset": "gone"}, {"dataset": ["folder"]}):
        path.write_text(json.dumps({**content, "options": options}))
        assert load_manifest(folder).drive == ""


@pytest.mark.parametrize("rule", ["(", "no group", 7, None, ["(a)"]])
def test_a_rule_that_is_none_is_refused(tmp_path, rule):
    folder = tiny.write_records(tmp_path)
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "drive": rule}))
    with pytest.raises(InputError, match=r"dataset.json is not usable: drive must be a regular expression"):
        load_manifest(folder)
