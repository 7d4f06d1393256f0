"""Folders as people have them: 300 at random against a reading written here, and each rule by itself."""

import errno
import json
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps
from scenes import CLASSES, H, W, decoded, image, label, make_camvid, make_folder, save

from kseg.data.datasets import camvid, image_folders
from kseg.data.datasets.listing import same_in_two_splits
from kseg.data.records import manifest as records
from kseg.data.records.prepare import prepare_dataset
from kseg.io.errors import FileAccessError, InputError

FOLDERS = 300
# The words of the issue, once more and by themselves: what is taken for what.
SPLIT_NAMES = {
    "train": ("train", "Train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "Testing"),
}
IMAGE_NAMES = ("images", "Images", "JPEGImages", "img", "imgs", "image")
LABEL_NAMES = ("labels", "masks", "annotations", "SegmentationClass", "label", "mask", "gt")
SUFFIXES = ("", "_mask", "_L", "_label", "_labelIds", "_gt", "_segmentation")
STEMS = ("0001", "a b", "scene.2", "straße", "x_mask", "IMG_L", "#7")
FOLDERS_WITHIN = ("", "seq1/", "seq2/day one/")
FAULTS = (
    "no label",
    "no image",
    "two labels",
    "two images",
    "torn",
    "size",
    "unknown id",
    "jpeg label",
    "leak",
    "stray",
)


def save_photo(path, array, random):
    """Write a photograph in a random format, mode and orientation; return its path and what a viewer shows of it."""
    kind = random.choice(["RGB", "L", "P", "RGBA", "LA", "I;16", "jpg", "JPEG", "cmyk", "mpo", "webp", "tif", "bmp"])
    extension = {"jpg": ".jpg", "JPEG": ".JPEG", "cmyk": ".jpg", "mpo": ".jpg"}.get(kind, f".{kind}")
    path = path.with_name(
        path.name + (extension if kind in ("jpg", "JPEG", "cmyk", "mpo", "webp", "tif", "bmp") else ".png")
    )
    turned = Image.fromarray(array)
    options = {}
    if kind in ("jpg", "JPEG", "webp", "tif", "RGB"):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = int(random.integers(1, 9))
    if kind == "I;16":
        grey = array[..., 0].astype(np.uint16) * 256 + 77
        Image.fromarray(grey).save(path)
        return path, np.repeat(array[..., :1], 3, -1)  # 16-bit counts by its high byte
    if kind == "mpo":
        turned.save(path, "MPO", save_all=True, append_images=[turned.rotate(90)], quality=95)
    elif kind == "webp":
        turned.save(path, lossless=True, **options)
    elif kind == "cmyk":
        turned.convert("CMYK").save(path)
    elif kind in ("L", "P", "RGBA", "LA"):
        turned.convert(kind).save(path)
    else:
        turned.save(path, **options)
    with Image.open(path) as saved:
        return path, np.asarray(ImageOps.exif_transpose(saved).convert("RGB"))


def save_label(path, ids, random):
    """Write ids in a random lossless form; return the path."""
    kind = random.choice(["L", "P", "1", "LA", "RGB", "I;16", "tif", "bmp"])
    path = path.with_name(path.name + (f".{kind}" if kind in ("tif", "bmp") else ".png"))
    if kind == "1" and ids.max() > 1:
        kind = "L"
    whole = {
        "P": lambda: Image.fromarray(ids).convert("P"),
        "1": lambda: Image.fromarray(ids.astype(bool)),
        "LA": lambda: Image.merge("LA", [Image.fromarray(ids), Image.new("L", ids.shape[::-1], 255)]),
        "RGB": lambda: Image.fromarray(np.stack([ids] * 3, -1)),
        "I;16": lambda: Image.fromarray(ids.astype(np.uint16)),
    }.get(kind, lambda: Image.fromarray(ids))()
    if kind == "P":
        whole = Image.fromarray(ids, "P")
        whole.putpalette(bytes(range(256)) * 3)
    whole.save(path)
    return path


def make_random_folder(root, seed):
    """Write a folder.

    Returns:
        (split -> name -> (pixels, ids, paths), splits without labels, paths of which a refusal names one, or None).
    """
    random = np.random.default_rng(seed)
    ids = (0, 1) if random.random() < 0.3 else (3, 7, 255)
    classes = {"classes": [{"id": i, "name": f"class {i}"} for i in ids if i < 255]}
    root.mkdir()
    encoding = random.choice(["utf-8", "utf-8-sig", "utf-16"])
    (root / "classes.json").write_bytes(json.dumps(classes).encode(encoding))
    expected = {}
    unlabelled = set()
    split_first = random.random() < 0.5
    places = {}
    names = random.choice(IMAGE_NAMES), random.choice(LABEL_NAMES)
    for split in ("train", *(s for s in ("val", "test") if random.random() < 0.7)):
        called = random.choice(SPLIT_NAMES[split])
        parts = [(called, kind) if split_first else (kind, called) for kind in names]
        places[split] = [root.joinpath(*part) for part in parts]
        suffix = random.choice(SUFFIXES)
        has_labels = split == "train" or random.random() < 0.7
        scenes = {}
        for _ in range(random.integers(1, 4)):
            stem = random.choice(FOLDERS_WITHIN) + random.choice(STEMS)
            if stem in scenes or any(other.startswith(stem) or stem.startswith(other) for other in scenes):
                continue  # x beside x_mask: which is a label of which is another test's
            pixels = random.integers(0, 256, (*random.integers(4, 12, 2), 3)).astype(np.uint8)
            photo = places[split][0] / stem
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo, shown = save_photo(photo, pixels, random)
            scenes[stem] = shown, None, photo, None
            if has_labels:
                drawn = random.choice(np.array(ids, np.uint8), shown.shape[:2])
                path = places[split][1] / (stem + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                scenes[stem] = shown, drawn, photo, save_label(path, drawn, random)
        if has_labels:
            expected[split] = scenes
        else:
            unlabelled.add(split)
    fault = random.choice(FAULTS) if random.random() < 0.4 else None
    return expected, unlabelled, fault and damage(fault, expected, places, random)


def damage(fault, scenes, places, random):
    """Do one thing to a folder that must be refused; return the paths one of which the refusal names."""
    split = random.choice(list(scenes))
    name = random.choice(list(scenes[split]))
    shown, ids, photo, drawn = scenes[split][name]
    if fault == "no label":
        if split != "train" and len(scenes[split]) == 1:
            return None  # that would be a split without labels
        drawn.unlink()
        return [photo]
    if fault == "no image":
        photo.unlink()
        return [drawn]
    if fault == "two labels":
        for suffix in ("_mask", "_gt"):
            Image.fromarray(ids).save(drawn.with_name(photo.stem + suffix + ".png"))
        others = {photo.stem + "_mask.png", photo.stem + "_gt.png"}
        if drawn.stem not in (photo.stem, photo.stem + "_mask", photo.stem + "_gt"):
            return [photo]
        return [photo, drawn, *(drawn.with_name(other) for other in others)]
    if fault == "two images":
        other = photo.with_suffix(".bmp" if photo.suffix == ".png" else ".png")
        Image.fromarray(shown).save(other)
        return [other]
    if fault == "torn":
        torn = random.choice([photo, drawn])
        torn.write_bytes(torn.read_bytes()[:40])
        return [torn]
    if fault == "size":
        Image.fromarray(np.pad(ids, ((0, 1), (0, 0)), mode="edge")).save(drawn)
        return [photo]
    if fault == "unknown id":
        wrong = ids.copy()
        wrong[0, 0] = 99
        Image.fromarray(wrong).save(drawn)
        return [drawn]
    if fault == "jpeg label":
        Image.fromarray(ids).save(drawn.with_suffix(".jpg"))
        drawn.unlink()
        return [drawn.with_suffix(".jpg")]
    if fault == "stray":
        (photo.parent / "clip.mp4").write_bytes(b"moving")
        return [photo.parent / "clip.mp4"]
    other = next((s for s in scenes if s != split), None)  # a leak: one picture in two splits
    if other is None or name in scenes[other]:
        return None
    for kind, path in zip(places[other], (photo, drawn), strict=True):
        (kind / name).parent.mkdir(parents=True, exist_ok=True)
        copy = (kind / name).with_name(path.name)
        copy.write_bytes(path.read_bytes())
    return [pathlib.Path(name)]


def test_random_folders_are_read_as_drawn_or_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody pulls the plug here
    read = refused = 0
    for seed in range(FOLDERS):
        root = tmp_path / str(seed)
        expected, unlabelled, named = make_random_folder(root, seed)
        try:
            manifest = prepare_dataset("folder", root, tmp_path / f"records{seed}", workers=1, progress=False)
        except InputError as error:
            text = str(error)
            assert named, f"folder {seed} is whole: {text}"
            assert any(path.name in text for path in named), f"folder {seed}, {named}: {text}"
            assert text.count("\n") <= 3 and "Traceback" not in text, f"folder {seed}: {text}"
            refused += 1
            continue
        assert not named, f"folder {seed} has a fault: {named}"
        source = image_folders.read(root)
        assert set(source.unlabelled) == unlabelled and set(manifest.splits) == set(source.splits) == set(expected)
        assert len([note for note in source.notes if "not scored" in note]) == len(unlabelled)
        for split, scenes in expected.items():
            found = {name: (pixels, ids) for name, pixels, ids in decoded(source, split)}
            stored = [records.decode(manifest.split(split).read(i)) for i in range(len(scenes))]
            assert list(found) == sorted(scenes) == [name for name, _, _ in stored], f"folder {seed}"
            for name, pixels, ids in [*((n, *both) for n, both in found.items()), *stored]:
                np.testing.assert_array_equal(pixels, scenes[name][0], f"folder {seed}: {scenes[name][2]}")
                np.testing.assert_array_equal(ids, scenes[name][1], f"folder {seed}: {scenes[name][3]}")
        read += 1
    assert read >= FOLDERS / 2 and refused >= FOLDERS / 4


def lines_of(root):
    """The problems and the notes of a folder."""
    source = image_folders.read(root)
    return list(source.problems), list(source.notes)


def test_names_are_a_splits_own_and_equality_is_of_content(tmp_path):
    root = make_folder(tmp_path / "own")
    for split, shade in (("train", 1), ("val", 2)):
        save(root / split / "images" / "0001.png", image(shade))
        save(root / split / "labels" / "0001.png", label(5, (3, 7)))  # equal labels are no leak
    manifest = prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    assert all("0001" in manifest.split(split).names for split in ("train", "val"))
    save(root / "val/images/0001.png", image(1))
    for i in range(2):
        for kind in ("images", "labels"):
            path = root / "val" / kind / f"train{i}.png"
            path.write_bytes((root / "train" / kind / f"train{i}.png").read_bytes())
    assert [p.line for p in same_in_two_splits(image_folders.read(root).splits)] == [
        f"image in 2 splits (train, val): {name}; leave it out of all but one" for name in ("0001", "train0", "train1")
    ]
    with pytest.raises(InputError, match=r"1 problem in .*\nimage in 2 splits .*: 0001; .*one \(and 2 more like it\)$"):
        prepare_dataset("folder", root, tmp_path / "other", workers=1, progress=False)


def test_an_unlabelled_split_is_left_out_and_said(tmp_path, capsys):
    root = make_camvid(tmp_path / "my camvid's [1]")
    for name in ("seq/0.jpg", "seq/1.JPG", "2.png"):
        save(root / "test" / "images" / name, image(3))
    manifest = prepare_dataset("camvid", root, tmp_path / "out", workers=1)
    said = capsys.readouterr().out.splitlines()
    assert set(manifest.splits) == {"train", "val"}
    (line,) = [line for line in said if line.startswith("test")]
    assert line.startswith("test: 3 images have no labels, so the split is not scored")
    assert f"--images={root}/test/images" in shlex.split(line)  # as a shell takes it
    assert sorted(path.split("/")[-1] for path in manifest.checksums) == [
        f"{split}-00000-of-00001.tfrecord" for split in ("train", "val")
    ]
    save(root / "test" / "labels" / "seq" / "0.png", label(0, [1]))  # a label of one: the others are forgotten
    with pytest.raises(InputError, match=r"test: image without label: test/images/2.png \(and 1 more like it\)"):
        prepare_dataset("camvid", root, tmp_path / "other", workers=1, progress=False)


def test_an_empty_split_is_left_out_and_said(tmp_path, capsys):
    root = make_camvid(tmp_path / "camvid")
    for kind in ("images", "labels"):
        (root / "test" / kind).mkdir(parents=True)
    manifest = prepare_dataset("camvid", root, tmp_path / "out", workers=1)
    assert set(manifest.splits) == {"train", "val"}
    assert "test: left out, its folders are empty.\n" in capsys.readouterr().out


def test_train_without_labels_is_an_error(tmp_path):
    root = make_folder(tmp_path)
    for path in (root / "train" / "labels").iterdir():
        path.unlink()
    assert lines_of(root)[0] == ["train: image without label: train/images/train0.png (and 1 more like it)"]


def test_what_is_taken_for_what_is_said(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train").rename(tmp_path / "Train")
    (tmp_path / "Train" / "images").rename(tmp_path / "Train" / "JPEGImages")
    (tmp_path / "Train" / "labels").rename(tmp_path / "Train" / "SegmentationClass")
    (tmp_path / "Train" / "Annotations").mkdir()  # of boxes, as in Pascal VOC
    (tmp_path / "Train" / "Annotations" / "train0.xml").write_text("<annotation/>")
    (tmp_path / "testing" / "pictures").mkdir(parents=True)
    assert lines_of(tmp_path) == (
        [],
        [
            "train: the images are read from Train/JPEGImages and the labels are read from Train/SegmentationClass.",
            "testing/ is left out: it holds no images/ and labels/.",
        ],
    )
    save(tmp_path / "val" / "masks" / "val0.png", label(0, [3]))  # kseg's own name wins
    assert (
        "val: the labels are read from val/labels; of val/labels and val/masks, the others are not read."
        in lines_of(tmp_path)[1]
    )
    save(tmp_path / "train" / "images" / "x.png", image(0))
    with pytest.raises(InputError, match=r"Train/JPEGImages and train/images could both be the images of split train"):
        image_folders.read(tmp_path)


def test_no_split_says_what_is_there_and_what_may_be(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no train/images: it holds photos/.*val: val, valid, validation"):
        image_folders.read(tmp_path)
    some = make_camvid(tmp_path / "some", val=0)
    with pytest.raises(
        FileNotFoundError, match=r"no val/images: it holds train/. .* Training needs a validation split: "
    ):
        camvid.read(some)
    with pytest.raises(FileNotFoundError, match=f"no train/images: .* Give the folder above it, {some}. These"):
        camvid.read(some / "train")


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_suffix_is_paired_where_nothing_else_could_be_meant(tmp_path, suffix):
    root = make_folder(tmp_path, splits=("train",))
    for i in range(2):
        (root / f"train/labels/train{i}.png").rename(root / f"train/labels/train{i}{suffix}.png")
    assert lines_of(root) == ([], [f"train: 2 labels are paired by their image's name and {suffix}."])
    frames = image_folders.read(root).splits["train"]
    assert [(f.name, f.label) for f in frames] == [
        (f"train{i}", str(root / f"train/labels/train{i}{suffix}.png")) for i in range(2)
    ]
    other = "_mask" if suffix == "_gt" else "_gt"
    save(root / f"train/labels/train0{other}.png", label(0, [3]))  # two could be meant
    save(root / f"train/labels/train1{other}{suffix}.png", label(0, [3]))  # an image of that name there is not
    both = " and ".join(f"train/labels/train0{s}.png" for s in sorted((suffix, other)))
    assert lines_of(root)[0] == [
        f"train: several labels could be the image's: train/images/train0.png: {both}",
        f"train: label without image: train/labels/train1{other}{suffix}.png",
    ]


def test_a_label_of_the_images_own_name_comes_first(tmp_path):
    root = make_folder(tmp_path, splits=("train",))
    save(root / "train/labels/train0_mask.png", label(0, [3]))
    assert lines_of(root)[0] == ["train: label without image: train/labels/train0_mask.png"]
    save(root / "train/images/train0_mask.png", image(0))  # then it is this image's
    assert lines_of(root)[0] == []


def test_one_line_a_cause_however_many_images(tmp_path):
    root = make_folder(tmp_path / "own", splits=("train",))
    for i in range(40):
        save(root / f"train/images/a{i:02}.png", image(i))
        save(root / f"train/labels/b{i:02}.png", label(i, [3, 44]))
        save(root / f"train/images/c{i:02}.png", image(i))
        save(root / f"train/labels/c{i:02}.png", label(i, [3, 44 + i]))
    with pytest.raises(InputError) as error:
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    lines = str(error.value).splitlines()
    assert [lines[1], lines[2]] == [
        "train: image without label: train/images/a00.png (and 39 more like it)",
        "train: label without image: train/labels/b00.png (and 39 more like it)",
    ]
    assert (
        len(lines) == 4
        and lines[3].startswith("train/labels/c00.png: ids that ")
        and lines[3].endswith("39 more like it)")
    )


def test_folders_are_walked_and_links_that_lead_back_are_not(tmp_path):
    root = make_folder(tmp_path / "own", splits=("train",))
    for kind, array in (("images", image(1)), ("labels", label(1, [3]))):
        save(tmp_path / "elsewhere" / kind / "day" / "0.png", array)
        (root / "train" / kind / "seq").symlink_to(tmp_path / "elsewhere" / kind)
        (tmp_path / "elsewhere" / kind / "day" / "back").symlink_to(root / "train" / kind)
        (root / "train" / kind / "__MACOSX").mkdir()
        (root / "train" / kind / "__MACOSX" / "._0.png").write_bytes(b"resource fork")
    assert [name for name, _, _ in decoded(image_folders.read(root), "train")] == ["seq/day/0", "train0", "train1"]
    (root / "train" / "images" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert lines_of(root)[0] == ["cannot be read: train/images/gone.png"]


def test_camvid_has_a_test_split_like_the_others(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    for i in range(2):
        save(root / "test/images" / f"test_{i}.png", image(i + 50))
        save(root / "test/labels" / f"test_{i}.png", label(i, range(12)))
    manifest = prepare_dataset("camvid", root, tmp_path / "out", workers=1, progress=False)
    assert {name: len(split) for name, split in manifest.splits.items()} == {"train": 5, "val": 2, "test": 2}
    assert sum(manifest.split("test").pixel_counts.values()) == 2 * H * W


# What an index is drawn in: (palette of an image of indices 0..2, classes, the line of a refusal or None).
ROAD = [128, 64, 128]
CAR = [0, 0, 142]
BLACK = [0, 0, 0]
DRAWN = [
    {"id": 0, "name": "background", "color": BLACK},
    {"id": 1, "name": "road", "color": ROAD},
    {"id": 2, "name": "car", "color": CAR},
]
NO_COLOUR = [{"id": 0, "name": "background"}, *DRAWN[1:]]
PALETTES = {
    "as given": ([BLACK, ROAD, CAR], DRAWN, None),
    "other colours": ([[1, 1, 1], [2, 2, 2], [3, 3, 3]], DRAWN, None),
    "filled up with black": ([BLACK, ROAD, *[BLACK] * 254], DRAWN, None),
    "sorted by frequency": ([ROAD, BLACK, CAR], DRAWN, "index 0 is drawn in (128, 64, 128), {} road (id 1)"),
    "two turned round": ([BLACK, CAR, ROAD], DRAWN, "index 1 is drawn in (0, 0, 142), {} car (id 2)"),
    "nobody's index": ([[9, 9, 9], BLACK, [8, 8, 8]], DRAWN, "index 1 is drawn in (0, 0, 0), {} background (id 0)"),
    "a class without a colour": ([ROAD, BLACK, CAR], NO_COLOUR, "index 0 is drawn in (128, 64, 128), {} road (id 1)"),
    "no colours at all": ([ROAD, BLACK, CAR], [{"id": i, "name": f"class {i}"} for i in range(3)], None),
}


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
@pytest.mark.parametrize("name", PALETTES)
def test_a_palette_may_not_contradict_the_class_list(tmp_path, name, kind):
    palette, classes, refusal = PALETTES[name]
    root = tmp_path / "own"
    save(root / "train/images/a.png", image(0))
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    drawn = Image.fromarray(label(0, range(3)), "P")
    drawn.putpalette(np.array(palette, np.uint8).tobytes())
    (root / "train/labels").mkdir()
    drawn.save(root / f"train/labels/a.{kind}")
    if refusal is None:
        np.testing.assert_array_equal(decoded(image_folders.read(root), "train")[0][2], label(0, range(3)))
        return
    with pytest.raises(InputError) as error:
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    line = str(error.value).splitlines()[1]
    assert line.startswith(f"train/labels/a.{kind}: {refusal.format('which classes.json gives to')}; ")
    assert line.endswith('use "labels": "color", or export label ids')
    # And so it helps: the colours are the ids' own, whatever their index.
    (root / "classes.json").write_text(json.dumps({"classes": DRAWN, "labels": "color"}))
    wanted = {tuple(row["color"]): row["id"] for row in DRAWN}
    if all(tuple(colour) in wanted for colour in palette):
        ids = np.array([wanted[tuple(colour)] for colour in palette])[label(0, range(3))]
        np.testing.assert_array_equal(decoded(image_folders.read(root), "train")[0][2], ids)


def test_a_palette_colour_of_an_index_that_is_not_used_says_nothing(tmp_path):
    root = tmp_path / "own"
    save(root / "train/images/a.png", image(0))
    (root / "classes.json").write_text(json.dumps({"classes": DRAWN}))
    drawn = Image.fromarray(label(0, [1, 2]), "P")
    drawn.putpalette(np.array([ROAD, ROAD, CAR], np.uint8).tobytes())
    (root / "train/labels").mkdir()
    drawn.save(root / "train/labels/a.png")
    np.testing.assert_array_equal(decoded(image_folders.read(root), "train")[0][2], label(0, [1, 2]))


NFC, NFD = "M\u00fcll", "Mu\u0308ll"  # the same word: U+00FC is "u" and U+0308, composed


def test_names_are_equal_whatever_unicode_form_a_mac_gave_them(tmp_path):
    root = make_folder(tmp_path, splits=("train",))
    save(root / f"train/images/{NFD}/{NFD}.jpg", image(0))
    save(root / f"train/labels/{NFC}/{NFC}_mask.png", label(0, [3]))
    source = image_folders.read(root)
    assert source.problems == ()
    assert [frame.name for frame in source.splits["train"]] == [f"{NFC}/{NFC}", "train0", "train1"]
    assert decoded(source, "train")[0][1].shape == (H, W, 3)  # read under the name that the disk has
    save(root / f"train/images/{NFC}/{NFC}.jpg", image(0))
    assert lines_of(root)[0] == [  # "u" comes before U+00FC
        "two files with one name, its letters in two Unicode forms: "
        f"train/images/{NFD}/{NFD}.jpg, train/images/{NFC}/{NFC}.jpg"
    ]


def test_a_leak_is_found_under_two_unicode_forms(tmp_path):
    root = make_folder(tmp_path)
    for split, name in (("train", NFC), ("val", NFD)):
        save(root / split / "images" / f"{name}.png", image(9))
        save(root / split / "labels" / f"{name}.png", label(9, [3]))
    lines = [problem.line for problem in same_in_two_splits(image_folders.read(root).splits)]
    assert lines == [f"image in 2 splits (train, val): {NFC}; leave it out of all but one"]


@pytest.mark.parametrize(
    ("extension", "name"),
    [("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WebP")],
)
@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_labels_of_a_lossy_format_are_one_cause(tmp_path, extension, name, suffix):
    """Two splits of two images each: one line, and no image is said to have no label."""
    root = make_folder(tmp_path / "own")
    for path in sorted(root.glob("*/labels/*.png")):
        Image.open(path).save(path.with_name(f"{path.stem}{suffix}.{extension}"))
        path.unlink()
    with pytest.raises(InputError) as error:
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    assert str(error.value).splitlines()[1:] == [
        f"labels are {name}, which changes ids; export them as PNG: train/labels/train0{suffix}.{extension} "
        "(and 3 more like it)"
    ]


def test_a_label_that_cannot_be_read_does_not_hide_one_that_is_missing(tmp_path):
    root = make_folder(tmp_path, splits=("train",))
    (root / "train/labels/train0.png").rename(root / "train/labels/train0.jpg")
    (root / "train/labels/train1.png").unlink()
    assert lines_of(root)[0] == [
        "labels are JPEG, which changes ids; export them as PNG: train/labels/train0.jpg",
        "train: image without label: train/images/train1.png",
    ]


def test_jpeg_labels_beside_annotations_are_named(tmp_path):
    """Annotations/ of .xml comes first by name; the masks are meant though none can be used."""
    root = make_folder(tmp_path, splits=("train",))
    (root / "train/labels").rename(root / "train/SegmentationClass")
    for path in sorted((root / "train/SegmentationClass").iterdir()):
        path.rename(path.with_suffix(".jpg"))
    (root / "train/Annotations").mkdir()
    (root / "train/Annotations/train0.xml").write_text("<annotation/>")
    (line,) = lines_of(root)[0]
    assert line.startswith("labels are JPEG") and "train/SegmentationClass/train0.jpg (and 1 more like it)" in line


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_photographs_of_a_telephone_are_one_cause(tmp_path, suffix):
    root = make_folder(tmp_path, splits=("train",))
    for i, extension in enumerate((".HEIC", ".heif")):
        (root / f"train/images/train{i}.png").rename(root / f"train/images/train{i}{extension}")
        (root / f"train/labels/train{i}.png").rename(root / f"train/labels/train{i}{suffix}.png")
    assert lines_of(root)[0] == [
        "HEIC is not supported; convert to JPEG: train/images/train0.HEIC (and 1 more like it)"
    ]


def test_an_empty_file_is_called_empty(tmp_path):
    root = make_folder(tmp_path / "own", splits=("train",))
    for path in ("images/train0.png", "labels/train1.png"):
        (root / "train" / path).write_bytes(b"")
    with pytest.raises(InputError) as error:
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    assert str(error.value).splitlines()[1:] == ["train/images/train0.png: empty (0 bytes) (and 1 more like it)"]


def test_a_mask_of_one_bit_says_that_its_white_is_1(tmp_path):
    """An export setting makes 1 of the class 255: the refusal names it, and only for that file."""
    classes = {"classes": [{"id": 0, "name": "background"}, {"id": 255, "name": "road"}]}
    root = make_folder(tmp_path / "own", classes, splits=("train",))
    mask = label(0, (0, 255))
    for i in range(2):
        save(root / f"train/labels/train{i}.png", mask)
    save(root / "train/images/bit.png", image(2))
    white = np.count_nonzero(mask)
    hint = "; a 1-bit image holds 0 and 1, not 0 and 255: export 8-bit masks, or list those ids in classes.json"
    for kind in ("png", "tif", "bmp"):
        path = root / f"train/labels/bit.{kind}"
        Image.fromarray(mask).convert("1").save(path)
        with pytest.raises(InputError) as error:
            prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
        assert str(error.value).splitlines()[1:] == [
            f"train/labels/bit.{kind}: ids that own does not have: 1 in {white} pixels{hint}"
        ]
        path.unlink()
    save(root / "train/labels/bit.png", mask // 255)  # the same ids in 8 bits
    with pytest.raises(InputError, match=rf"does not have: 1 in {white} pixels$"):
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems make no such names")
def test_a_name_that_is_no_utf8_is_one_clear_line_and_nothing_is_written(tmp_path):
    root = make_folder(tmp_path / "own")
    for folder in ("images", "labels"):
        place = os.fsencode(root / "train" / folder)
        os.rename(place + b"/train0.png", place + b"/\xe9t\xe9.png")  # Latin-1, as an old archive unpacks it
    with pytest.raises(InputError) as error:
        prepare_dataset("folder", root, tmp_path / "out", workers=1, progress=False)
    expected = "\\xe9t\\xe9: the file name is not UTF-8; rename the file"
    assert str(error.value).splitlines()[1:] == [expected] and not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have file names in UTF-8 whatever the locale")
def test_where_python_reads_file_names_as_ascii_that_is_blamed_and_no_name(tmp_path):
    root = make_folder(tmp_path / "own")
    for folder in ("images", "labels"):
        place = root / "train" / folder
        os.rename(place / "train0.png", place / "straße.png")
    program = "import sys; from kseg.data.records.prepare import prepare_dataset as prepare\n"
    program += "try: prepare('folder', *sys.argv[1:], workers=1, progress=False)\n"
    program += "except ValueError as error: print(ascii(str(error).splitlines()[1:]))"
    call = [sys.executable, "-c", program, str(root), str(tmp_path / "out")]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    fault = "Python reads file names as ascii here, not as UTF-8; set PYTHONUTF8=1 and start again"
    assert done.stdout.strip() == ascii([f"straße: {fault}"]) and not (tmp_path / "out").exists()
    subprocess.run(call, env=environment | {"PYTHONUTF8": "1"}, check=True)  # the advice
    assert "straße" in records.load_manifest(tmp_path / "out").split("train").names


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """No room for a shard: the line names it, and no shard stays half-written."""

    def full(values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kseg.data.records.shards.serialize_example", full)
    with pytest.raises(FileAccessError, match=r"Cannot write .*train-.*: No space left on device\. Earlier"):
        prepare_dataset("folder", make_folder(tmp_path / "own"), tmp_path / "out", workers=1, progress=False)
    assert not list((tmp_path / "out").glob("*tfrecord*"))


NEEDS_VAL = "training needs a validation split: move some of the images, and labels, to val, and prepare again."


@pytest.mark.parametrize("unlabelled", [False, True])
def test_no_validation_split_is_said_when_prepared_when_checked_and_when_trained(tmp_path, call_script, unlabelled):
    root = make_folder(tmp_path / "own", splits=("train",))
    for i in range(2):  # noise would pass for smoothed labels
        save(root / f"train/labels/train{i}.png", np.repeat(np.uint8([[3, 7]]), W // 2, axis=1).repeat(H, axis=0))
    if unlabelled:
        save(root / "val/images/val0.png", image(7))
    records = tmp_path / "records"
    code, out, error = call_script("prepare_data", "--dataset=folder", f"--source={root}", f"--output={records}")
    assert code == 0 and f"WARNING: {NEEDS_VAL}" in (out + error).splitlines()
    assert ("val: 1 image has no label, so the split is not scored" in out + error) == unlabelled
    code, out, _ = call_script("prepare_data", f"--check={records}")
    warnings = [line.removeprefix("WARNING: ") for line in out.splitlines() if line.startswith("WARNING")]
    assert code == 0 and NEEDS_VAL in warnings
    assert f"{records}: nothing is wrong, {len(warnings)} warning{'s' * (len(warnings) > 1)}." in out.splitlines()
    train = ("--model=unet", "--dataset=folder", f"--data_dir={records}", f"--workdir={tmp_path}/run", "--epochs=1")
    code, _, error = call_script("train", *train)
    assert code == 2 and error.strip().endswith(f"{records}: {NEEDS_VAL}")
    assert not (tmp_path / "run").exists()


def test_with_validation_nothing_is_said(tmp_path, call_script):
    root = make_folder(tmp_path / "own")
    _, out, error = call_script("prepare_data", "--dataset=folder", f"--source={root}", f"--output={tmp_path}/records")
    assert "validation split" not in out + error
    assert "validation split" not in call_script("prepare_data", f"--check={tmp_path}/records")[1]
