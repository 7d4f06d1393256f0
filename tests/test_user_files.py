"""What belongs to the user stays as it is: inputs, files that kseg did not write, names of every kind."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny
from absl import flags
from PIL import Image
from scenes import make_camvid
from test_prepare import content, prepare

from kseg.commands import flagfiles, train_command
from kseg.data.records import manifest
from kseg.io import files
from kseg.io.errors import InputError
from kseg.io.outputs import refuse_inputs
from kseg.reports.page.output_folder import replaced_folder
from kseg.runs.workdir import FLAGS_FILE, RunFolder, describe
from kseg.settings import flag_line, make_settings, read_flag_line


def snapshot(folder):
    """{path: (kind, bytes or target)} of all that a folder holds, links not followed."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = "link", os.readlink(path)
        elif path.is_dir():
            found[str(path.relative_to(folder))] = "folder", None
        else:
            found[str(path.relative_to(folder))] = "file", path.read_bytes()
    return found


# No output is an input.


def test_an_output_is_refused_where_writing_to_it_would_change_an_input(tmp_path):
    """The expectation: each path is written in place, and whether an input reads otherwise then is seen."""
    outcomes = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        root = tmp_path / str(seed)
        paths = make_tangle(random, root)
        inputs = [path for path in paths[:6] if path.is_file()]
        texts = {path: path.read_text() for path in inputs}
        for output in paths:
            try:
                before = pathlib.Path(os.path.realpath(output)).read_text() if output.is_file() else None
                output.write_text("written")
            except OSError:  # links in a circle
                continue
            changed = any(path.read_text() != text for path, text in texts.items())
            output.write_text(before) if before is not None else pathlib.Path(os.path.realpath(output)).unlink()
            try:
                refuse_inputs([output], inputs)
                refused = False
            except InputError as error:
                refused = True
                assert f"the output {output} is the input " in str(error) and "Choose another output." in str(error)
            assert refused == changed, (output, inputs)
            outcomes.append((refused, output in inputs))
    counts = [outcomes.count(kind) for kind in ((True, True), (True, False), (False, False))]
    assert min(counts) > 20, counts  # refused by the same name, by another one, and taken


def make_tangle(random, root):
    """Twelve paths below a folder: files, symbolic links, hard links and nothing, some through links and ".."."""
    folders = [root / name for name in ("a", "b", "a/c")]
    for folder in folders:
        folder.mkdir(parents=True)
    (root / "to_a").symlink_to(root / "a")
    (root / "b" / "up").symlink_to("..")
    places = [*folders, root / "to_a", root / "b" / "up" / "a", root / "a" / "c" / ".." / ".." / "b"]
    paths = []
    for i in range(12):
        path = places[random.integers(len(places))] / f"{'xyz'[random.integers(3)]}{i % 4}"
        paths.append(path)
        if os.path.lexists(path):
            continue
        kind = random.choice(["file", "link", "hard", "none"])
        other = paths[random.integers(len(paths))]
        if kind == "link" and other is not path:
            path.symlink_to(other.absolute())
        elif kind == "hard" and other.is_file():
            os.link(os.path.realpath(other), path)
        elif kind == "file" or len(paths) == 1:
            path.write_text(f"{i}")
    return paths


def test_folders_that_are_read_are_neither_filled_nor_replaced(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "model")
    model = tmp_path / "model"
    link = tmp_path / "link"
    for output in (model / "new.png", link / "variables" / "x", model / "variables" / ".." / "x"):
        with pytest.raises(InputError, match=f"{output.name} lies in the input {model}"):
            refuse_inputs([output], [model])
    with pytest.raises(InputError, match=f"{tmp_path} holds the input {link}"):
        refuse_inputs([tmp_path], [link])
    (tmp_path / "only_links").mkdir()
    (tmp_path / "only_links" / "m").symlink_to(model)
    with pytest.raises(InputError, match="only_links holds the input"):
        refuse_inputs([tmp_path / "only_links"], [tmp_path / "only_links" / "m"])
    with pytest.raises(InputError, match="Outputs must differ, but the output .*y/../x is also the output .*x. Choose"):
        refuse_inputs([tmp_path / "x", tmp_path / "y" / ".." / "x"], [])
    refuse_inputs([tmp_path / "models", tmp_path / "model2" / "x"], [model, "gs://bucket/model", tmp_path / "no"])


def test_an_output_is_refused_where_its_folder_cannot_be_made(tmp_path):
    refuse_inputs([tmp_path / "new" / "folder" / "x"], [])
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    for name, what in (("file", "a file"), ("gone", "a link to nothing")):
        with pytest.raises(OSError, match=f"{tmp_path}/{name} must be a folder, but is {what}"):
            refuse_inputs([tmp_path / name / "a" / "x"], [])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_an_output_is_refused_where_permissions_stop_it(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(OSError, match="You may not write in .*locked"):
        refuse_inputs([tmp_path / "locked" / "new" / "x"], [])


def test_names_that_differ_in_case_are_one_file_where_the_system_says_so(tmp_path, monkeypatch):
    """A file system that ignores case, as seen through os.stat: both names have the inode of one file."""
    (tmp_path / "x.png").write_text("photo")
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: stat(str(path).replace("X.PNG", "x.png"), **options))
    with pytest.raises(InputError, match="X.PNG is the input"):
        refuse_inputs([tmp_path / "X.PNG"], [tmp_path / "x.png"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A run with real weights, records, and photographs."""
    root = tmp_path_factory.mktemp("stage")
    model = tiny.build_tiny()
    model.get_layer("preprocess").label_set = tiny.LABELS
    (root / "run").mkdir()
    model.save(root / "run" / "best.keras")
    for name in ("flags.txt", "confusion.png", "scores.json"):
        (root / "run" / name).write_text("--keep=best\n")
    tiny.write_records(root)
    return root


COMMANDS = {
    "predict": ("predict", "--model={0}/run", "--images={0}/photos/*.png", "--output={0}/photos"),
    "predict, link": ("predict", "--model={0}/run", "--images={0}/photos/*.png", "--output={0}/link"),
    "predict, colours": ("predict", "--model={0}/run", "--images={0}/photos/*.png", "--output={0}"),
    "predict, run": ("predict", "--model={0}/run", "--images={0}/other/*.png", "--output={0}/run"),
    "evaluate, model": ("evaluate", "--model={0}/run/best.keras", "--data_dir={0}/records", "--output={0}/hard"),
    "evaluate, run": ("evaluate", "--model={0}/run", "--data_dir={0}/records", "--output={0}/run/scores.json"),
    "evaluate, records": ("evaluate", "--model={0}/run", "--data_dir={0}/records", "--output={0}/rec/dataset.json"),
    "evaluate, report": ("evaluate", "--model={0}/run/best.keras", "--data_dir={0}/records", "--report_dir={0}/run"),
    "evaluate, twice": (
        *("evaluate", "--model={0}/run", "--data_dir={0}/records"),
        *("--report_dir={0}/records", "--output={0}/records/objects.json"),
    ),
    "export, model": ("export", "--model={0}/run/best.keras", "--output={0}/hard"),
    "export, run": ("export", "--model={0}/run", "--output={0}/run"),
    "check": ("prepare_data", "--check={0}/records", "--output={0}/rec/train-00000-of-00002.tfrecord"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_writes_onto_what_it_reads(stage, call_script, monkeypatch, tmp_path, case):
    """Refused in one line before a model is loaded; every byte of the stage stays."""
    for name, kind in {"run": shutil.copytree, "records": shutil.copytree}.items():
        kind(stage / name, tmp_path / name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "color").symlink_to("photos")
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "rec").symlink_to("records")
    os.link(tmp_path / "run" / "best.keras", tmp_path / "hard")
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "photos" / "x.png", tmp_path / "other" / "confusion.png"):
        Image.fromarray(np.full((5, 7, 3), 80, np.uint8)).save(path)
    before = snapshot(tmp_path)
    from kseg.inference import loading

    monkeypatch.setattr(loading, "load_model", lambda path: pytest.fail("the model was loaded"))
    script, *arguments = COMMANDS[case]
    code, _, error = call_script(script, *(argument.format(tmp_path) for argument in arguments))
    assert code == 2 and " the output " in error and "Choose another output." in error, error
    assert len(error.strip().splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_compare_and_preparing_refuse_to_write_onto_what_they_read(stage, tmp_path):
    import kseg

    shutil.copytree(stage / "run", tmp_path / "a")
    shutil.copytree(stage / "run", tmp_path / "b")
    before = snapshot(tmp_path)
    for output in (tmp_path / "a", tmp_path, tmp_path / "b" / "checkpoints" / "report"):
        with pytest.raises(InputError, match="but the output .* the input"):
            kseg.compare([tmp_path / "a", tmp_path / "b"], stage / "records", output)
    assert snapshot(tmp_path) == before

    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    prepare("camvid", root, out)
    (out / "dataset.json").unlink()  # as if killed before the end
    (out / "train-00000-of-00001.tfrecord").unlink()
    os.link(next((root / "val" / "images").iterdir()), out / "train-00000-of-00001.tfrecord")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="the output .*train-00000-of-00001.tfrecord is the input .*camvid/val/images"):
        prepare("camvid", root, out)
    assert snapshot(tmp_path) == before


# Outputs never collide, and replace nothing foreign.


def test_outputs_of_one_call_never_collide(tmp_path):
    """Of random names: all outputs differ even where case is ignored, or the call is refused for two such names."""
    from kseg.inference.label_map_files import output_paths

    random = np.random.default_rng(0)
    refused = 0
    parts = ["x", "x", "X", "_color", "color", ".png", ".", "é", "e\u0301", "ß", "SS", " ", "-1", "İ"]
    for _ in range(2000):
        paths = set()
        for _ in range(random.integers(1, 6)):
            stem = "".join(random.choice(parts, random.integers(1, 3)))
            paths.add(pathlib.Path(random.choice(["a", "b", "a/color"])) / f"{stem}{random.choice(['.png', '.jpg'])}")
        paths = sorted(paths)
        try:
            pairs = output_paths([(path, path.stem) for path in paths], pathlib.Path("out"), ("labels", "color"))
        except InputError as error:
            refused += 1
            stems = [path.stem for path in paths if f"{path} would" in str(error) or f"{path} and" in str(error)]
            assert len(stems) >= 2 and len({as_one(stem) for stem in stems}) < len(stems), (paths, str(error))
            continue
        outputs = [as_one(str(path)) for pair in pairs for path in pair.values()]
        assert len(set(outputs)) == len(outputs), paths
        assert not any(a.startswith(f"{b}/") for a, b in itertools.permutations(outputs, 2)), paths
    assert 150 < refused < 1850


def as_one(name):
    """What a file system that ignores case and composition takes for one name."""
    import unicodedata

    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@pytest.mark.parametrize("kind", ["mask", "text", "link", "dangling link", "colours"])
def test_predictions_replace_no_file_that_kseg_did_not_write(stage, tmp_path, kind):
    """Photographs x.jpg beside masks x.png are common: --output of that folder must not lose the masks."""
    from kseg.inference.predict_files import predict_files

    folder = tmp_path / "voc"
    (folder / "color").mkdir(parents=True)
    for name in ("w", "x"):
        Image.fromarray(np.full((8, 8, 3), 80, np.uint8)).save(folder / f"{name}.jpg")
    victim = folder / "color" / "x.png" if kind == "colours" else folder / "x.png"
    if kind in ("mask", "colours"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(victim)
    elif kind == "text":
        victim.write_text("mine")
    else:
        victim.symlink_to(tmp_path / "elsewhere.png")
        if kind == "link":
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "elsewhere.png")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="x.png is not a label map that kseg wrote"):
        predict_files(stage / "run", [folder / "w.jpg", folder / "x.jpg"], folder)
    assert snapshot(tmp_path) == before


# Folders that are filled anew.


def write_page(report, content):
    with replaced_folder(report) as folder:
        (folder / "photos").mkdir()
        (folder / "photos" / "00000.jpg").write_text(content)
        (folder / "comparison.json").write_text('{"kseg_version": "1"}')
        (folder / "index.html").write_text(content)


def plant(report, kind):
    """Put something of the user's into a folder of a page."""
    elsewhere = report.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00007.jpg").write_text("mine")
    if kind == "link to a folder":
        (report / "thumbnails").symlink_to(elsewhere)
    elif kind == "link to a file":
        (report / "photos" / "00007.jpg").symlink_to(elsewhere / "00007.jpg")
    elif kind == "empty folder":
        (report / "notes").mkdir()
    elif kind == "folder in a folder":
        (report / "photos" / "00008.jpg").mkdir()
    elif kind == "foreign page":
        (report / "comparison.json").write_text('{"theirs": 1}')
    else:
        (report / "comparison.json").unlink()


KINDS = ["link to a folder", "link to a file", "empty folder", "folder in a folder", "foreign page", "no numbers"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_not_replaced_where_anything_else_is(tmp_path, kind):
    report = tmp_path / "report"
    write_page(report, "first")
    plant(report, kind)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="Choose another output folder, or empty this one"):
        write_page(report, "second")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link"])
def test_the_users_own_folder_or_link_is_filled_and_stays(tmp_path, kind):
    report = target = tmp_path / "report"
    if kind != "folder":
        target = tmp_path / "elsewhere"
        report.symlink_to("elsewhere")
    if kind != "dangling link":
        target.mkdir(mode=0o750)
        inode = target.stat().st_ino
        mode = target.stat().st_mode
    for text in ("first", "second"):
        write_page(report, text)
        assert (report / "index.html").read_text() == (report / "photos" / "00000.jpg").read_text() == text
        assert sorted(snapshot(target)) == ["comparison.json", "index.html", "photos", "photos/00000.jpg"]
    assert report.is_symlink() == (kind != "folder")
    if kind != "dangling link":
        assert (target.stat().st_ino, target.stat().st_mode) == (inode, mode)
    assert set(os.listdir(tmp_path)) == {"report", target.name}


@pytest.mark.parametrize("failing", range(6))
def test_a_page_is_the_old_or_the_new_one_whatever_fails(tmp_path, monkeypatch, failing):
    """Three moves out and three in: the one that fails undoes those before it."""
    report = tmp_path / "report"
    calls = itertools.count()
    replace = os.replace
    write_page(report, "first")
    before = snapshot(tmp_path)

    def failing_once(source, target):
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing_once)
    with pytest.raises(InputError, match="Cannot write .*report: No space left on device"):
        write_page(report, "second")
    assert next(calls) > failing and snapshot(tmp_path) == before


@pytest.mark.parametrize("killed", range(6))
def test_a_page_whose_writer_was_killed_looks_unfinished_and_is_written_again(tmp_path, killed):
    report = tmp_path / "report"
    calls = itertools.count()
    replace = os.replace
    write_page(report, "first")
    child = os.fork()
    if not child:

        def dying(source, target):
            if next(calls) == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = dying
        try:
            write_page(report, "second")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    # index.html goes first and comes last: only before the first move is there one.
    assert (report / "index.html").exists() == (killed == 0)
    write_page(report, "third")
    assert (report / "index.html").read_text() == "third"
    assert sorted(snapshot(tmp_path)) == [
        *("report", "report/comparison.json", "report/index.html", "report/photos", "report/photos/00000.jpg")
    ]


def test_an_export_replaces_only_what_kseg_exported(tmp_path):
    import kseg

    model = tiny.build_tiny()
    saved = tmp_path / "saved_model"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"a network of someone else's")
    before = snapshot(tmp_path)
    with pytest.raises(
        InputError, match="holds saved_model.pb but no classes.json from kseg, so kseg did not write it"
    ):
        kseg.export_saved_model(model, saved, label_set=tiny.LABELS)
    assert snapshot(tmp_path) == before
    (saved / "saved_model.pb").unlink()
    (tmp_path / "link").symlink_to("saved_model")
    for name in ("first", "second"):
        kseg.export_saved_model(model, tmp_path / "link", label_set={**tiny.LABELS, "name": name})
        assert json.loads((saved / "classes.json").read_text())["name"] == name
    assert (tmp_path / "link").is_symlink() and kseg.load_model(tmp_path / "link").num_classes == 3
    (saved / "variables" / "notes").symlink_to(tmp_path)
    (tmp_path / "full").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="saved_model holds the link variables/notes, which kseg did not write"):
        kseg.export_saved_model(model, saved, label_set=tiny.LABELS)
    with files.locked(tmp_path / "full"), pytest.raises(InputError, match="full is in use by process"):
        kseg.export_saved_model(model, tmp_path / "full", label_set=tiny.LABELS)
    assert snapshot(tmp_path) == before


# Temporary files, links and locks.


def test_a_link_stays_a_link_when_its_file_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old.json").write_text("old")
    for name, target in (("link", "there/old.json"), ("dangling", "there/new.json")):
        (tmp_path / name).symlink_to(target)
        files.write_atomic(tmp_path / name, name.encode())
        assert os.readlink(tmp_path / name) == target and (tmp_path / target).read_text() == name
    assert sorted(os.listdir(tmp_path / "there")) == ["new.json", "old.json"]


def test_starting_a_run_clears_its_own_temporary_files_alone(tmp_path):
    workdir = tmp_path / "run"
    (workdir / "checkpoints").mkdir(parents=True)
    dead = [".tmp-12-best.keras", ".tmp-7-scores.json", "checkpoints/.tmp-12-step-00000004.npz"]
    users = [".tmpl", ".mytmp.txt", ".tmp-12-notes.txt", ".tmp-a-best.keras", "checkpoints/.tmp-12-mine.npz"]
    for name in (*dead, *users):
        (workdir / name).write_text(name)
    (workdir / ".tmp-cache").mkdir()
    (workdir / ".tmp-1-last.keras").symlink_to(tmp_path)
    RunFolder(workdir).open({"epochs": "1"})
    left = [".tmp-1-last.keras", ".tmp-cache", "checkpoints", FLAGS_FILE, *users]
    assert sorted(snapshot(workdir)) == sorted(left)


def test_preparing_leaves_files_alone_that_only_look_like_its_own(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    prepare("camvid", root, out)
    users = ["notes.tmp-1", "letter.tmp-1.txt", "mine.stats.json", ".tmp-3-diary"]
    for name in users:
        (out / name).write_text(name)
    (out / "dataset.json").unlink()
    for name in ("train-00000-of-00001.tfrecord.tmp-77", ".tmp-77-dataset.json", "train-00000-of-00009.tfrecord"):
        (out / name).write_text("left by a process that was killed")
    prepare("camvid", root, out)
    assert {name: (out / name).read_text() for name in users} == {name: name for name in users}
    assert set(os.listdir(out)) == {*users, *content(fresh_of(root, tmp_path))}

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / manifest.ORIGIN).write_text('{"bibliography": []}')
    with pytest.raises(InputError, match="source.json is damaged, or not from kseg"):
        prepare("camvid", root, tmp_path / "mine")
    assert snapshot(tmp_path / "mine") == {manifest.ORIGIN: ("file", b'{"bibliography": []}')}


def fresh_of(root, folder):
    prepare("camvid", root, folder / "fresh")
    return folder / "fresh"


def test_two_preparations_do_not_share_a_folder(tmp_path):
    from kseg.data.synthetic.dataset import draw_cityscapes

    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    with files.locked(out):
        with pytest.raises(InputError, match=r"out is in use by process \d+ on .*use another folder"):
            prepare("camvid", root, out)
        assert os.listdir(out) == [files.LOCK]
        with pytest.raises(InputError, match=r"out is in use by process"):
            draw_cityscapes(out, train=1, val=1, height=48, width=64, workers=1)
    assert not out.exists()

    program = "import sys; from kseg.data.records.prepare import prepare_dataset as p\nif __name__ == '__main__':\n"
    program += "    try: p('camvid', *sys.argv[1:], shards=3, workers=1, progress=False)\n"
    program += "    except ValueError as error: sys.exit(str(error))"
    commands = [[sys.executable, "-c", program, str(root), str(out)]] * 3
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert any(code == 0 for _, code in ends), ends
    assert all(code == 0 or "in use" in text for text, code in ends), ends
    prepare("camvid", root, tmp_path / "alone", shards=3)
    assert content(out) == content(tmp_path / "alone")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_lock_file_of_someone_else_is_left_alone(tmp_path, kind):
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / files.LOCK).symlink_to("../precious") if kind == "link" else (folder / files.LOCK).write_text("4711")
    before = snapshot(tmp_path)
    message = "Cannot write" if kind == "link" else ".lock was not written by kseg"
    with pytest.raises(InputError, match=message), files.locked(folder):
        raise AssertionError("must be refused")
    assert snapshot(tmp_path) == before


# flags.txt.

PIECES = [
    *("a", "Z9", " ", " #", "#", "=", ":", ":=", "--", '"', "'", "\\", "\\n", "{", "}", ",", "%s", "$HOME", "é", "道"),
    *("\n", "\r", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\xa0", "\ufeff", "\udcff", "\x00"),
]


def random_texts(seed, count):
    random = np.random.default_rng(seed)
    return ["", *PIECES, *("".join(random.choice(PIECES, random.integers(1, 7))) for _ in range(count))]


def test_every_text_survives_a_flagfile(tmp_path):
    texts = random_texts(0, 3000)
    for text in texts:
        line = flag_line("data_dir", text)
        assert read_flag_line(line) == ("data_dir", text) and line.splitlines() == [line]
    lines = [f"{flag_line('data_dir', text)}\n" for text in texts]
    (tmp_path / "all.flags").write_text("".join(lines), encoding="utf-8")
    assert flagfiles.expand_flagfiles([f"--flagfile={tmp_path}/all.flags"]) == [f"--data_dir={text}" for text in texts]


def test_every_text_survives_the_settings_of_a_run(tmp_path):
    """flags.txt as training writes it is read back by a resumed run and by --flagfile alike."""
    texts = random_texts(1, 150)
    for i, text in enumerate(texts):
        options = {"encoder": texts[i - 1]}
        settings = make_settings(epochs=3, init_from=texts[i - 2], label_space=texts[i - 3])
        wanted = describe("unet", text, options, "auto", settings, "0123")
        folder = RunFolder(tmp_path / "run")
        folder.open(wanted)
        stored = folder.stored()
        assert stored == wanted and stored.get("data_dir", "") == text
        assert json.loads(stored["model_options"]) == options
        for flag in train_command.FLAGS:
            train_command.FLAGS[flag].unparse()
        train_command.FLAGS(["train.py", *flagfiles.expand_flagfiles([f"--flagfile={folder.workdir / FLAGS_FILE}"])])
        assert make_settings(**{name: train_command.FLAGS[name].value for name in vars(settings)}) == settings
        assert (train_command.FLAGS["data_dir"].value or "") == text


def test_flag_files_of_before_read_as_they_did(tmp_path):
    """They hold every value as it is; one that only looks quoted is no JSON, for := was never written."""
    values = {"model": "unet", "data_dir": 'data "a": b=c', "model_options": '{"depth": 2}', "loss": '"focal"'}
    lines = ["# kseg 0.1.0. scripts/train.py", *(f"--{name}={value}" for name, value in values.items())]
    (tmp_path / FLAGS_FILE).write_text("\r\n".join([*lines, "# records=0123", ""]))
    assert RunFolder(tmp_path).stored_or_none() == {**values, "records": "0123"}
    for name, value in values.items():
        assert flag_line(name, value) == f"--{name}={value}"  # plain values look as they did


@pytest.mark.parametrize("value", ['"a" # trailing', '"a', "a", "[1]", '"a" "b"', "", '"\\x"'])
def test_what_is_quoted_wrongly_is_an_error_of_its_line(tmp_path, value):
    (tmp_path / FLAGS_FILE).write_text(f"--model=unet\n--data_dir:={value}\n")
    with pytest.raises(flags.Error, match="flags.txt:2: After := the value must be JSON text in double quotes"):
        flagfiles.expand_flagfiles([f"--flagfile={tmp_path / FLAGS_FILE}"])
    with pytest.raises(InputError, match="flags.txt is damaged. After := the value"):
        RunFolder(tmp_path).stored_or_none()
