"""Cityscapes' test server: what is written for it, and what a check of it finds."""

import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from scenes import image, save
from test_cityscapes_scores import ids_of, nearest_id_model

import kseg
from kseg.data.datasets import cityscapes
from kseg.inference import cityscapes_submission as submission
from kseg.inference import cityscapes_submission_check as submission_check
from kseg.inference.cityscapes_submission import write_submission
from kseg.inference.cityscapes_submission_check import check_submission
from kseg.io import files
from kseg.io.errors import InputError

SIZE = (12, 16)
CITIES = {"berlin": 3, "mainz": 2}
NAMES = ["berlin_000000_000019", "berlin_000001_000019", "berlin_000002_000019", "mainz_000000_000093"]
NAMES.append("mainz_000003_043656")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A test set of five images of 16x12 in two cities, one of them numbered."""
    monkeypatch.setattr(cityscapes, "TEST_CITIES", CITIES)
    monkeypatch.setattr(cityscapes, "NUMBERED_TEST_CITIES", ("berlin",))
    for module in (submission, submission_check):
        monkeypatch.setattr(module, "SIZE", SIZE)


@pytest.fixture
def source(tmp_path):
    """The test images, and a training and a blurred image beside them."""
    root = tmp_path / "cityscapes"
    for number, name in enumerate(NAMES):
        save(root / "leftImg8bit" / "test" / name.split("_")[0] / f"{name}_leftImg8bit.png", image(number, SIZE))
    save(root / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png", image(9, SIZE))
    save(root / "leftImg8bit_blurred/test/berlin/berlin_000000_000019_leftImg8bit_blurred.png", image(9, SIZE))
    return root


@pytest.fixture
def maps(tmp_path):
    """A folder of faultless label maps in the cities' folders: road, car and a car's own row."""
    label = np.full(SIZE, 7, np.uint8)
    label[3] = 26
    for name in NAMES:
        save(tmp_path / "maps" / name.split("_")[0] / f"{name}_mine.png", label)
    return tmp_path / "maps"


def zipped(folder, target):
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    return target


def test_the_test_set_has_1525_images(monkeypatch):
    """The cities' counts are those of the listings that others keep of leftImg8bit/test."""
    monkeypatch.undo()
    assert sum(cityscapes.TEST_CITIES.values()) == 1525 and submission_check.SIZE == (1024, 2048)
    assert {city: cityscapes.TEST_CITIES[city] for city in cityscapes.NUMBERED_TEST_CITIES} == {
        **{"berlin": 544, "bonn": 46, "leverkusen": 58, "munich": 398}
    }


def test_scores_that_are_not_finite_name_the_image(source, tmp_path):
    model = nearest_id_model(ids_of("train_ids"))
    model.layers[-1].set_weights([np.full_like(weight, np.nan) for weight in model.layers[-1].get_weights()])
    with pytest.raises(FloatingPointError, match=f"scores for image {NAMES[0]} are not finite"):
        write_submission(model, source, tmp_path / "out")
    assert list(tmp_path.glob("out/*")) == []


def test_label_maps_hold_regular_ids_under_the_servers_names(source, tmp_path):
    """The expectation: training ids of `kseg.predict` at the image's own size, through the official list of ids."""
    model = nearest_id_model(ids_of("train_ids"))
    paths = write_submission(model, source, tmp_path / "out")
    assert [path.name for path in paths] == [f"{name}_labelIds.png" for name in NAMES]
    assert sorted(tmp_path.joinpath("out").iterdir()) == paths
    for path, name in zip(paths, NAMES, strict=True):
        photo = source / "leftImg8bit" / "test" / name.split("_")[0] / f"{name}_leftImg8bit.png"
        with Image.open(path) as written:
            assert (written.mode, written.size) == ("L", SIZE[::-1])
            np.testing.assert_array_equal(
                np.asarray(written), np.array(ids_of("train_ids"))[kseg.predict(model, photo)]
            )
    assert check_submission(tmp_path / "out", source) == (5, [])


@pytest.mark.parametrize("given", ["leftImg8bit", "leftImg8bit/test", "zip", "folder of the zip"])
def test_images_are_found_where_users_have_them(source, tmp_path, given):
    expected = cityscapes.list_test_images(source)
    assert list(expected) == NAMES and all("test" in path for path in expected.values())
    if "zip" not in given:
        assert cityscapes.list_test_images(source / given) == expected
        return
    (tmp_path / "download").mkdir()
    archive = zipped(source, tmp_path / "download" / "leftImg8bit_trainvaltest.zip")
    found = cityscapes.list_test_images(archive if given == "zip" else archive.parent)
    assert list(found) == NAMES
    assert found[NAMES[4]] == (str(archive), f"leftImg8bit/test/mainz/{NAMES[4]}_leftImg8bit.png")


def test_it_goes_on_with_the_same_weights_only(source, tmp_path):
    model = nearest_id_model(ids_of("all_ids"))
    out = tmp_path / "out"
    paths = write_submission(model, source, out)
    before = [path.read_bytes() for path in paths]
    marker = paths[0].stat().st_mtime_ns
    paths[2].unlink()
    (out / ".tmp-77-berlin_000002_000019_labelIds.png").write_bytes(b"half")
    assert write_submission(model, source, out) == paths == sorted(out.iterdir())
    assert [path.read_bytes() for path in paths] == before and paths[0].stat().st_mtime_ns == marker
    paths[2].unlink()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + 1])
    with pytest.raises(ValueError, match="berlin_000000_000019_labelIds.png is of another model"):
        write_submission(model, source, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be new or hold this submission alone, but holds notes.txt"):
        write_submission(model, source, out)
    assert not paths[2].exists() and (out / "notes.txt").exists()


def test_it_writes_onto_nothing_that_it_reads_and_removes_nothing_foreign(source, tmp_path):
    """An image and the model under names of label maps; a temporary file of someone else's; another process."""
    model = tmp_path / "model.keras"
    out = tmp_path / "out"
    nearest_id_model(ids_of("train_ids")).save(model)
    out.mkdir()
    photo = source / "leftImg8bit" / "test" / "mainz" / f"{NAMES[3]}_leftImg8bit.png"
    for victim, other in ((photo, NAMES[0]), (model, NAMES[3])):
        target = out / f"{other}_labelIds.png"
        os.link(victim, target)
        before = victim.read_bytes()
        with pytest.raises(InputError, match=f"the output {target} is the input {victim}"):
            write_submission(model, source, out)
        assert victim.read_bytes() == before and list(out.iterdir()) == [target]
        target.unlink()
    (out / ".tmp-notes").write_text("mine")
    with pytest.raises(InputError, match="but holds .tmp-notes"):
        write_submission(model, source, out)
    assert (out / ".tmp-notes").read_text() == "mine"
    (out / ".tmp-notes").unlink()
    with files.locked(out), pytest.raises(InputError, match="out is in use by process"):
        write_submission(model, source, out)
    assert not list(out.iterdir())


def test_a_test_set_that_is_not_whole_is_an_error(source, tmp_path, call_script):
    (source / "leftImg8bit" / "test" / "mainz" / f"{NAMES[3]}_leftImg8bit.png").unlink()
    model = nearest_id_model(ids_of("train_ids"))
    with pytest.raises(ValueError, match="has 5 images, .* holds 4: mainz 1 of 2"):
        write_submission(model, source, tmp_path / "out")
    with pytest.raises(ValueError, match="The model's classes|The model has 7 classes, but label set train_ids"):
        save(source / "leftImg8bit/test/mainz" / f"{NAMES[3]}_leftImg8bit.png", image(1, SIZE))
        write_submission(nearest_id_model(range(7)), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="holds neither leftImg8bit/test/CITY"):
        cityscapes.list_test_images(tmp_path / "cityscapes" / "leftImg8bit" / "train")
    code, _, error = call_script("predict", "--submission", f"--source={source}", "--model=m", "--images=i")
    assert code == 2 and "--submission takes --source, not --images" in error


def test_damaged_images_are_named_and_the_others_written(source, tmp_path, call_script):
    folder = source / "leftImg8bit" / "test" / "berlin"
    broken = folder / f"{NAMES[1]}_leftImg8bit.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    save(folder / f"{NAMES[2]}_leftImg8bit.png", image(2, (10, 16)))
    model = tmp_path / "model.keras"
    nearest_id_model(ids_of("train_ids")).save(model)
    arguments = ("--submission", f"--model={model}", f"--source={source}", f"--output={tmp_path / 'out'}")
    code, _, error = call_script("predict", *arguments)
    assert code == 1 and "Only 3/5 label maps are in" in error
    assert f"{NAMES[1]}_leftImg8bit.png: truncated" in error
    assert f"{NAMES[2]}_leftImg8bit.png: the test images are 16x12, this one is 16x10" in error
    broken.write_bytes(whole)
    save(folder / f"{NAMES[2]}_leftImg8bit.png", image(2, SIZE))
    code, out, error = call_script("predict", *arguments)
    assert code == 0 and "5/5 label maps" in out, error


FAULTS = {
    "missing": (f"1 test images without a label map: {NAMES[1]}", None),
    "extra": ("2 files that belong to no test image: berlin/berlin_000003_000019.png, notes.txt", None),
    "doubled": (f"1 test images with several label maps: .*{NAMES[0]}_color.png and .*{NAMES[0]}_mine.png", None),
    "size": (r"1 of 5 label maps are not 16x12: .*_mine.png \(16x4\)", lambda label: label[::3]),
    "rgb": (r"are not 8-bit grey, .* \(8-bit RGB\)", lambda label: np.stack([label] * 3, -1)),
    "palette": (r"are not 8-bit grey, .* \(8-bit palette\)", lambda label: Image.fromarray(label).convert("P")),
    "16 bits": (r"are not 8-bit grey, .* \(16-bit grey\)", lambda label: label.astype(np.uint16)),
    "training ids": ("1 of 5 label maps look like training ids", lambda label: (label == 26) * np.uint8(13)),
    "unknown": (r"have ids that do not exist .*_mine.png \(34, 255\)", lambda label: (label == 7) * np.uint8(221) + 34),
    "blank": (r"are blank: .*_mine.png \(all 7\)", lambda label: np.full_like(label, 7)),
    "damaged": (r"are damaged: .*_mine.png \(truncated or damaged", None),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(maps, source, tmp_path, fault, packed):
    message, change = FAULTS[fault]
    victim = maps / "berlin" / f"{NAMES[0]}_mine.png"
    if change:
        changed = change(np.asarray(Image.open(victim)))
        (changed if isinstance(changed, Image.Image) else Image.fromarray(changed)).save(victim)
    elif fault == "missing":
        (maps / "berlin" / f"{NAMES[1]}_mine.png").unlink()
    elif fault == "extra":
        save(maps / "berlin" / "berlin_000003_000019.png", np.eye(8, dtype=np.uint8))
        (maps / "notes.txt").write_text("mine")
    elif fault == "doubled":
        save(maps / "berlin" / f"{NAMES[0]}_color.png", np.asarray(Image.open(victim)))
    else:
        victim.write_bytes(victim.read_bytes()[:60])
    path = zipped(maps, tmp_path / "maps.zip") if packed else maps
    before = {file: file.read_bytes() for file in maps.rglob("*.*")}
    for names in (source, None):  # berlin is numbered: its names are known anyway
        with pytest.raises(ValueError, match="cannot be submitted") as error:
            check_submission(path, names)
        lines = str(error.value).splitlines()
        assert len(lines) == 2, lines  # this fault and no other
        assert re.search(message, lines[1]), lines
    assert {file: file.read_bytes() for file in maps.rglob("*.*")} == before


def test_all_faults_are_listed_together(maps, source, call_script):
    save(maps / "mainz" / f"{NAMES[3]}_mine.png", np.full(SIZE, 7, np.uint8))
    (maps / "mainz" / f"{NAMES[4]}_mine.png").rename(maps / "mainz" / "mainz_000003_000001.png")
    save(maps / "berlin" / f"{NAMES[0]}_mine.png", np.eye(12, 16).astype(np.uint8))
    code, out, error = call_script("predict", "--submission", f"--check={maps}", f"--source={source}")
    assert code == 2 and not out
    for words in (f"without a label map: {NAMES[4]}", "no test image: mainz/mainz_000003", "blank", "training ids"):
        assert words in error
    (maps / "mainz" / "mainz_000003_000001.png").unlink()
    code, _, error = call_script("predict", f"--check={maps}")
    assert code == 2 and "1 images of mainz instead of 2 (--source would tell which)" in error


def test_void_is_legal_but_noted(maps, call_script):
    path = maps / "berlin" / f"{NAMES[0]}_mine.png"
    label = np.asarray(Image.open(path)).copy()
    label[0] = 4
    save(path, label)
    code, out, error = call_script("predict", f"--check={maps}")
    assert code == 0, error
    assert f"ids that are not scored; each such pixel counts as a miss: berlin/{NAMES[0]}_mine.png (static)" in out
    assert "5/5 label maps can be submitted" in out


def test_the_official_evaluator_takes_what_is_written(source, tmp_path, monkeypatch):
    """cityscapesScripts finds each label map by its own pattern, and reads of it what was predicted."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluator

    write_submission(nearest_id_model(ids_of("train_ids")), source, tmp_path / "out")
    monkeypatch.setattr(evaluator.args, "predictionPath", str(tmp_path / "out"))
    monkeypatch.setattr(evaluator.args, "predictionWalk", None)
    for name in NAMES:
        found = evaluator.getPrediction(evaluator.args, f"gtFine/test/x/{name}_gtFine_labelIds.png")
        assert found == str(tmp_path / "out" / f"{name}_labelIds.png")
