"""What `predict` reads, where it writes, what it replaces, and what it says of files that are no images."""

import io
import json
import os
import pathlib
import sys

import numpy as np
import pytest
import tiny
from PIL import Image, PngImagePlugin

import kseg
from kseg.data.datasets import cityscapes
from kseg.inference import input_files
from kseg.inference.input_files import check_kinds, list_images
from kseg.inference.label_ids import label_ids
from kseg.inference.label_map_files import KINDS, output_paths
from kseg.inference.predict_files import predict_files
from kseg.io.errors import InputError, MissingFileError

PALETTE = [[90, 50, 20], [10, 200, 30], [0, 0, 250]]
IDS = [7, 26, 23]  # the dataset's own
LABELS = {
    "name": "train_ids",
    "classes": ["road", "car", "sky"],
    "palette": PALETTE,
    "ids": [[7], [26, 30], [23]],
    "dataset": "x",
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    model = tiny.build_tiny()
    model.get_layer("preprocess").label_set = LABELS
    model.save(root / "best.keras")
    return root / "best.keras"


@pytest.fixture(scope="module")
def model(run_folder):
    return kseg.load_model(run_folder)


def photograph(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    return path


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_again(path, change=None, mode=None, size=None):
    """What an editor does that keeps a PNG's texts: open, change, save."""
    image = Image.open(path)
    text = PngImagePlugin.PngInfo()
    for key, value in image.text.items():
        text.add_text(key, value)
    if change is not None:
        pixels = np.array(image)
        pixels[change] = (pixels[change] + 1) % 3
        image = Image.fromarray(pixels)
    if mode:
        image = image.convert(mode)
    if size:
        image = Image.fromarray(np.asarray(image).reshape(size))
    image.save(path, pnginfo=text)


# What is replaced.


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("x.png", {"change": (3, 4)}),  # one pixel
        ("color/x.png", {"change": (3, 4, 1)}),
        ("x.png", {"mode": "RGB"}),
        ("x.png", {"size": (30, 20)}),  # the same bytes in another shape
    ],
)
def test_a_label_map_that_was_corrected_is_kept(model, tmp_path, name, how):
    images = [photograph(tmp_path / "p" / "a.png"), photograph(tmp_path / "p" / "x.png", 1)]
    predict_files(model, images, tmp_path / "out")
    write_again(tmp_path / "out" / name, **how)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=f"out/{name} was changed since kseg wrote it"):
        predict_files(model, images, tmp_path / "out")
    assert files_of(tmp_path) == before


def test_a_label_map_that_is_saved_again_unchanged_is_still_ksegs(model, tmp_path):
    image = photograph(tmp_path / "x.png")
    (path,) = predict_files(model, [image], tmp_path / "out")
    write_again(path)
    before = np.asarray(Image.open(path))
    assert predict_files(model, [image], tmp_path / "out") == [path]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), before)


def test_a_file_in_place_of_a_folder_is_refused_before_anything_is_written(run_folder, tmp_path, call_script):
    for name in ("a.png", "seq/b.png"):
        photograph(tmp_path / "p" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seq").write_text("mine")
    code, _, error = call_script(
        "predict", f"--model={run_folder}", f"--images={tmp_path}/p", f"--output={tmp_path}/out"
    )
    assert code == 2 and "out/seq must be a folder, but is a file" in error
    assert files_of(tmp_path / "out") == {"seq": b"mine"}


# What --images takes.


def stems(*patterns):
    """{path: name} that --images gives here."""
    return {str(path): name for path, name in list_images(patterns).images}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a.jpg", "a[1].jpg", "seq1/0.jpg", "seq2/0.PNG", "seq2/deep/1.tif")
    skipped = ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.jpg", "notes.txt", "__MACOSX/a.jpg", ".git/a.jpg")
    for name in (*names, *skipped):
        pathlib.Path("p", name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path("p", name).write_bytes(b"x")
    return names


def test_a_file_whose_name_is_a_pattern_is_that_file(tree):
    assert stems("p/a[1].jpg") == {"p/a[1].jpg": "a[1]"}
    pathlib.Path("p/a1.jpg").touch()  # what the pattern would match
    assert stems("p/a[1].jpg") == {"p/a[1].jpg": "a[1]"}
    assert stems("p/[a]1.jpg") == {"p/a1.jpg": "a1"}


def test_two_stars_go_into_folders_of_any_depth(tree):
    assert stems("p/**/*.jpg") == {"p/a.jpg": "a", "p/a[1].jpg": "a[1]", "p/seq1/0.jpg": "0"}
    assert set(stems("p/**")) == set(stems("p/**/*")) == {f"p/{name}" for name in tree}


def test_a_wildcard_leaves_out_what_lies_beside_images(tree):
    assert set(stems("p/*")) == {"p/a.jpg", "p/a[1].jpg"}
    assert set(stems("p/*/*")) == {"p/seq1/0.jpg", "p/seq2/0.PNG"}
    assert set(stems(os.path.abspath("p/*"))) == {os.path.abspath("p/a.jpg"), os.path.abspath("p/a[1].jpg")}
    assert set(stems("./p//*")) == {"./p/a.jpg", "./p/a[1].jpg"}
    assert stems("p/.git/*") == {"p/.git/a.jpg": "a"}  # a folder that is named counts


def test_a_folder_keeps_its_sub_folders(tree):
    expected = {f"p/{name}": name.rpartition(".")[0] for name in tree}
    assert stems("p") == stems("p", "p/a.jpg", "./p/*") == expected  # each file once
    assert list_images(["p"]).folders == ["p"]


@pytest.mark.parametrize("pattern", ["p/seq1", "p/seq1/*"])
def test_a_video_among_others_is_left_out_where_pyav_is_missing(pattern, tree, monkeypatch):
    pathlib.Path("p/seq1/clip.mp4").touch()
    images = list_images(["p/seq1"]).images
    monkeypatch.setitem(sys.modules, "av", None)
    inputs = list_images([pattern])
    assert {path for path, _ in inputs.images} == {path for path, _ in images} - {"p/seq1/clip.mp4"} != set()
    assert inputs.left_out == ["p/seq1/clip.mp4: videos need PyAV: pip install 'kseg[video]'"]
    for alone in ("p/seq1/clip.mp4", "p/seq1/*.mp4"):  # a video that was asked for is refused by name, later
        inputs = list_images([alone])
        assert ([path for path, _ in inputs.images], inputs.left_out) == (["p/seq1/clip.mp4"], [])


def test_nothing_is_written_where_nothing_can_be_labelled(run_folder, tmp_path, call_script):
    (tmp_path / "a.png").write_bytes(damaged_png())
    arguments = (f"--model={run_folder}", f"--images={tmp_path}/a.png", f"--output={tmp_path}/out")
    code, out, error = call_script("predict", *arguments)
    assert code == 1 and "nothing could be labelled" in error and out == "" and not (tmp_path / "out").exists()


def test_an_image_is_known_by_its_first_bytes_too(tmp_path):
    photograph(tmp_path / "a.png").rename(tmp_path / "camera.dat")
    (tmp_path / "notes.txt").write_text("no image")
    check_kinds([tmp_path / "camera.dat"])
    check_kinds([tmp_path / "notes.txt", tmp_path / "camera.dat"])  # the rest is labelled
    check_kinds([tmp_path / "notes.txt", tmp_path / "a.mp4"])
    with pytest.raises(InputError, match="Neither an image nor a video: .*notes.txt. Images are PNG, "):
        check_kinds([tmp_path / "notes.txt"])


def test_files_of_a_folder_that_are_no_images_are_named_and_the_others_taken(tree, monkeypatch):
    monkeypatch.setattr(input_files, "is_installed", lambda: True)  # PyAV, which no file is opened with here
    pathlib.Path("p/seq1/clip.mp4").touch()  # a video is welcome
    for name in ("clip.gif", "IMG_1.HEIC", "plain"):
        pathlib.Path("p/seq1", name).touch()
    pathlib.Path("p/seq1/gone.png").symlink_to("nowhere.png")
    inputs = list_images(["p"])
    assert {path for path, _ in inputs.images} == {f"p/{name}" for name in (*tree, "seq1/clip.mp4")}
    assert inputs.left_out == [
        "p/seq1/IMG_1.HEIC: HEIC is not supported; convert to JPEG",
        "p/seq1/clip.gif: neither an image nor a video by its name",
        "p/seq1/gone.png: cannot be opened (a link to nothing?)",
        "p/seq1/plain: neither an image nor a video by its name",
    ]
    assert list_images(["p", "./p", "p/seq1"]).left_out == inputs.left_out  # each file once


def test_a_png_whose_header_is_damaged_is_an_input_and_no_picture_of_ksegs(tmp_path, monkeypatch):
    """It is told as damaged when it is read; looking for kseg's mark in it fails in no way of Pillow's."""
    monkeypatch.chdir(tmp_path)
    photograph(pathlib.Path("p/a.png"))
    data = pathlib.Path("p/a.png").read_bytes()
    for number, (at, length) in enumerate(((12, 400), (8, 4), (16, 13), (len(data) // 2, 1), (33, 60), (0, 40))):
        pathlib.Path(f"p/b{number}.png").write_bytes(data[:at] + bytes(length) + data[at + length :])
        pathlib.Path(f"p/c{number}.png").write_bytes(data[:at])
    assert len(list_images(["p"]).images) == 13 and list_images(["p"]).notes == []


def test_a_folder_of_other_files_alone_is_refused_and_says_why(tmp_path):
    (tmp_path / "IMG_1.HEIC").touch()
    with pytest.raises(
        InputError, match=r"No image or video is in \S+ \(\S+IMG_1.HEIC: HEIC is not .* to JPEG\)\. Give"
    ):
        list_images([str(tmp_path)])


def test_the_rest_of_a_folder_is_labelled(run_folder, tmp_path, call_script):
    photograph(tmp_path / "p" / "IMG_1.png")
    (tmp_path / "p" / "IMG_1.gif").write_bytes(b"GIF89a")
    arguments = (f"--model={run_folder}", f"--images={tmp_path}/p", f"--output={tmp_path}/out")
    code, _, error = call_script("predict", *arguments)
    assert code == 1 and "1 of 2 inputs cannot be read" in error and "IMG_1.gif: neither" in error
    assert (tmp_path / "out" / "IMG_1.png").exists()


def test_a_photograph_and_a_video_may_share_a_name(tree):
    pathlib.Path("p/seq1/0.MOV").touch()  # a Live Photo
    images = [(path, name) for path, name in list_images(["p"]).images if "seq1" in path]
    assert images == [("p/seq1/0.MOV", "seq1/0"), ("p/seq1/0.jpg", "seq1/0")]
    assert len(output_paths(images, pathlib.Path("out"), KINDS)) == 2
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would both be written to out/a\.png"):
        output_paths([("a.jpg", "a"), ("a.png", "a")], pathlib.Path("out"), ("labels",))


def test_pictures_that_kseg_wrote_are_no_inputs_unless_they_are_named(run_folder, tmp_path, monkeypatch, call_script):
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "p" / "a.png")
    arguments = (f"--model={run_folder}", "--write=labels,color,overlay")
    assert call_script("predict", *arguments, "--images=p/a.png", "--output=p/labels")[0] == 0
    for pattern in ("p", "p/**"):
        inputs = list_images([pattern])
        assert [path for path, _ in inputs.images] == ["p/a.png"]
        assert inputs.notes[0].startswith("Left out: 3 files that kseg wrote (p/labels/")
    assert [path for path, _ in list_images(["p/labels/a.png"]).images] == ["p/labels/a.png"]
    with pytest.raises(InputError, match=r"No image or video is in p/labels\. Left out: 3 files that kseg wrote"):
        list_images(["p/labels"])
    code, _, error = call_script("predict", *arguments, "--images=p", "--output=out")
    assert code == 0 and "Left out: 3 files" in error
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png"]


def test_every_pattern_that_matches_nothing_is_named(tree):
    pathlib.Path("empty").mkdir()
    with pytest.raises(InputError, match=r"No file matches p/\*\.gif, p/\*\.txt\. No image or video is in empty\. "):
        list_images(["p/*.jpg", "p/*.gif", "empty", "p/*.txt"])


def test_folders_of_equal_names_do_not_collide(run_folder, model, tmp_path, call_script):
    for seed, name in enumerate(("seq1/0000", "seq2/0000")):
        photograph(tmp_path / "p" / f"{name}.png", seed)
    arguments = (f"--model={run_folder}", f"--images={tmp_path}/p", f"--output={tmp_path}/out")
    for _ in range(2):  # what kseg wrote is replaced
        code, out, error = call_script("predict", *arguments)
        assert code == 0, error
    names = ("seq1/0000.png", "seq2/0000.png")
    files = [f"{folder}{name}" for name in names for folder in ("", "color/")]
    assert out.splitlines() == [f"{tmp_path}/out/{name}" for name in files]  # a line for each
    assert set(files_of(tmp_path / "out")) == {"classes.json", *files}
    for name in names:
        expected = kseg.predict(model, tmp_path / "p" / name)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), np.array(IDS)[expected])
        colours = np.asarray(Image.open(tmp_path / "out" / "color" / name))
        np.testing.assert_array_equal(colours, np.array(PALETTE, np.uint8)[expected])
    code, _, error = call_script("predict", *arguments[:2], f"--output={tmp_path}/p/labels")
    assert code == 2 and "lies in the input" in error  # the next walk would take label maps for photographs


@pytest.mark.parametrize(
    ("names", "picture"),
    [
        (("x.png", "color/X.png"), "color/X.png"),  # the colours of one, the label map of the other
        (("A/x.png", "a/x.png"), "a/x.png"),
        (("x.jpg", "x.png/y.png"), "x.png"),  # a file and a folder
        (("x.jpg", "color/x.png/y.png"), "color/x.png"),
    ],
)
def test_outputs_of_sub_folders_that_collide_are_refused(tmp_path, names, picture):
    from kseg.inference.label_map_files import output_paths

    images = [(name, name.rpartition(".")[0]) for name in names]
    with pytest.raises(InputError, match=f"{names[0]} and {names[1]} would both be written to out/{picture}, "):
        output_paths(images, pathlib.Path("out"), ("labels", "color"))


# The split of a record folder.


def test_the_images_of_a_split_are_labelled(run_folder, model, tmp_path, call_script):
    """Two splits with files of equal names: neither takes the other's place."""
    source = tmp_path / "source"
    for i, split in enumerate(("train", "test")):
        for k, name in enumerate(("seq/0000", "0001")):
            photograph(source / split / "images" / f"{name}.png", 2 * i + k)
            label = source / split / "labels" / f"{name}.png"
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((20, 30), np.uint8)).save(label)
    (source / "classes.json").write_text(json.dumps({"classes": tiny.CLASSES}))
    records = tmp_path / "records"
    kseg.prepare_dataset("folder", source, records, workers=1, progress=False)
    before = files_of(records)
    arguments = (f"--model={run_folder}", f"--data_dir={records}", f"--output={tmp_path}/out")
    for split in ("train", "test", "test"):  # what kseg wrote is replaced
        code, out, error = call_script("predict", *arguments, f"--split={split}")
        assert code == 0, error
        files = [
            f"{tmp_path}/out/{folder}{split}/{name}.png" for name in ("0001", "seq/0000") for folder in ("", "color/")
        ]
        assert [line for line in out.splitlines() if not line.endswith("out/classes.json")] == files
    names = [f"{split}/{name}" for split in ("train", "test") for name in ("seq/0000", "0001")]
    written = {f"{name}.png" for name in names} | {f"color/{name}.png" for name in names}
    assert set(files_of(tmp_path / "out")) == written | {"classes.json"}
    for name in names:
        split, _, rest = name.partition("/")
        expected = kseg.predict(model, source / split / "images" / f"{rest}.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), np.array(IDS)[expected])
    for flags, message in (
        (("--split=val",), "has no split 'val'. Choose one of: train, test"),
        ((), "--split must be given"),
        (("--split=test", f"--images={source}"), "--images are labelled without --data_dir, which is for records"),
        (("--split=test", f"--output={records}/labels"), "lies in the input"),
    ):
        code, _, error = call_script("predict", *arguments, *flags)
        assert code == 2 and message in error
    assert files_of(records) == before


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_a_record_whose_name_leads_out_of_the_output_is_refused(name, tmp_path):
    from kseg.inference.label_map_files import check_inside

    with pytest.raises(InputError, match="outside of the output"):
        check_inside(name, "image 7")
    check_inside("seq1/..x/0001", "image 7")


# Files that are no images.


def damaged_png():
    """A PNG whose header is whole and whose pixels are cut off."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()[:900]


def test_a_missing_file_is_named_before_the_model_is_loaded(tmp_path):
    photograph(tmp_path / "a.png")
    with pytest.raises(MissingFileError, match="There is no .*none.png"):
        predict_files("no/model", [tmp_path / "a.png", tmp_path / "none.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_does_not_stop_the_others(run_folder, model, tmp_path, call_script):
    paths = [photograph(tmp_path / "p" / f"{name}.png", seed) for seed, name in enumerate("abcd")]
    paths[1].write_bytes(damaged_png())
    paths[3].write_text("no image")
    code, out, error = call_script(
        "predict", f"--model={run_folder}", f"--images={tmp_path}/p/*.png", f"--output={tmp_path}/out"
    )
    assert code == 1
    names = ("classes.json", "a.png", "color/a.png", "c.png", "color/c.png")
    assert out.splitlines() == [f"{tmp_path}/out/{name}" for name in names]
    assert error.startswith(f"left out: {paths[1]}: truncated or damaged")
    first, *bad = error[error.index("predict.py: error: ") :].splitlines()
    assert first == f"predict.py: error: 2 of 4 inputs cannot be read; what could be labelled is in {tmp_path}/out:"
    assert [line.partition(": ")[0] for line in bad] == [str(paths[1]), str(paths[3])]
    assert set(files_of(tmp_path / "out")) == set(names)
    expected = kseg.predict(model, paths[2])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "c.png")), np.array(IDS)[expected])


# Which ids, and which files.


def test_label_maps_say_which_ids_they_hold(run_folder, model, tmp_path, call_script):
    path = photograph(tmp_path / "a.png")
    arguments = (f"--model={run_folder}", f"--images={path}")
    ids = {}
    for kind in ("dataset", "train"):
        folder = tmp_path / kind
        code, out, error = call_script("predict", *arguments, f"--output={folder}", f"--ids={kind}", "--write=labels")
        assert code == 0 and out.splitlines() == [f"{folder}/classes.json", f"{folder}/a.png"], error
        ids[kind] = np.asarray(Image.open(folder / "a.png"))
        facts = json.loads((folder / "classes.json").read_text())
        assert (facts["ids"], facts["dataset"]) == (kind, "x")
        written = {"dataset": IDS, "train": [0, 1, 2]}[kind]
        assert facts["classes"] == [
            {"id": number, "name": name, "color": colour}
            for number, name, colour in zip(written, ("road", "car", "sky"), PALETTE, strict=True)
        ]
    expected = kseg.predict(model, path)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(ids["train"], expected)
    np.testing.assert_array_equal(ids["dataset"], np.array(IDS)[expected])
    np.testing.assert_array_equal(kseg.predict(model, path, ids="dataset"), ids["dataset"])
    for kind in ids:  # as truth: every pixel is right
        assert kseg.evaluate(model, [(path, tmp_path / kind / "a.png")]).pixel_accuracy == 1
    code, _, error = call_script("predict", *arguments, f"--output={tmp_path}/dataset", "--ids=train")
    assert code == 2 and "classes.json is there already and says something else" in error  # two kinds in one folder
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "dataset" / "a.png")), ids["dataset"])


@pytest.mark.parametrize(
    ("label_set", "number", "said"),
    [
        (
            {"name": "train_ids", "classes": cityscapes.info().label_set().classes},
            26,
            "its classes are those of cityscapes",
        ),
        ({"name": "train_ids", "classes": [f"c{i}" for i in range(19)]}, 13, "training ids, 0, 1, 2, ..., are written"),
        (None, 13, "training ids, 0, 1, 2, ..., are written"),
    ],
)
def test_ids_of_models_that_do_not_say_them(label_set, number, said):
    """Class 13 of Cityscapes' 19 is the car, whose regular id is 26 (cityscapesScripts, labels.py)."""
    model = tiny.brightness_model(classes=19)
    if label_set:
        label_set = {**label_set, "classes": list(label_set["classes"])}
    model.layers[1].label_set = label_set
    found = label_ids(model, "dataset")
    assert found.table[13] == number == found.facts["classes"][13]["id"] and said in found.note
    assert label_ids(model, "train").table[13] == 13 and not label_ids(model, "train").note


def test_a_model_of_more_outputs_than_classes_writes_an_id_of_no_class():
    model = tiny.brightness_model(classes=5)
    model.layers[1].label_set = LABELS | {"ids": [[0], [255], [3]]}
    assert label_ids(model, "dataset").table[:5].tolist() == [0, 255, 3, 254, 254]


def test_every_kind_of_file(run_folder, model, tmp_path, call_script):
    path = photograph(tmp_path / "a.png")
    kinds = ("labels", "color", "overlay", "confidence")
    arguments = (f"--model={run_folder}", f"--images={path}", f"--output={tmp_path}/out")
    code, out, error = call_script("predict", *arguments, f"--write={','.join(kinds)}", "--batch_size=2")
    assert code == 0, error
    names = ("classes.json", "a.png", "color/a.png", "overlay/a.png", "confidence/a.png")
    assert out.splitlines() == [f"{tmp_path}/out/{name}" for name in names]
    read = {name: np.asarray(Image.open(tmp_path / "out" / name)) for name in names[1:]}
    ids, confidence = kseg.predict(model, path, return_confidence=True)
    np.testing.assert_array_equal(read["confidence/a.png"], np.rint(255 * confidence))
    mixed = (np.asarray(Image.open(path)) + np.array(PALETTE)[ids] + 1) // 2
    assert read["overlay/a.png"].shape[0] > 20 and read["overlay/a.png"].shape[2] == 3
    np.testing.assert_array_equal(read["overlay/a.png"][:20, :30], mixed)
    legend = {tuple(colour) for colour in read["overlay/a.png"][20:].reshape(-1, 3).tolist()}
    for k, colour in enumerate(PALETTE):  # the classes in the picture, and no other
        assert (tuple(colour) in legend) == (k in ids)
    for flag, message in (("--write=labels,text", "must be some of labels, color"), ("--write=", "must be some of")):
        code, _, error = call_script("predict", *arguments, flag)
        assert code == 2 and message in error


def test_batches_of_equal_sizes_change_nothing(model, tmp_path):
    for i, size in enumerate([(20, 30), (20, 30), (20, 30), (24, 30), (20, 30)]):
        random = np.random.default_rng(i)
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))
    alone = predict_files(model, paths, tmp_path / "alone")
    batched = predict_files(model, paths, tmp_path / "batched", batch_size=2)
    assert files_of(tmp_path / "alone") == files_of(tmp_path / "batched") and len(alone) == len(batched) == 5
