"""compare --verify: a report whose numbers are not those of its counts, or with any bit flipped, is found."""

import hashlib
import json
import shutil
import subprocess
import sys

import fake_study
import numpy as np
import pytest
import tiny
from outside_files import describe, write_onnx
from PIL import Image

import kseg
from kseg.data.pipeline.examples import Examples
from kseg.io.files import sha256_of
from kseg.io.hash_list import HASHES, files_below, hash_faults, write_hashes
from kseg.reports.comparison_counts import COUNTS, read_counts, write_counts
from kseg.studies import study as study_module
from kseg.studies.engines import ENGINES
from kseg.studies.kept_maps import prediction_path, truth_path, write_map
from kseg.studies.run_counts import counts_path
from kseg.studies.run_counts import read_counts as read_run
from kseg.studies.run_counts import write_counts as write_run
from kseg.studies.study_report import REPORT_PARTS, STUDY_PARTS
from kseg.studies.verify import verify


@pytest.fixture(scope="module")
def comparison(records, tmp_path_factory):
    """The page of two small models; no test changes it."""
    folder = tmp_path_factory.mktemp("pages") / "report"
    kseg.compare({"fine": tiny.brightness_model(), "coarse": tiny.brightness_model((8, 8, 3))}, records, folder)
    return folder


@pytest.fixture(scope="module")
def study(records, tmp_path_factory):
    """The folder of a finished study whose trainings only pretend."""
    root = tmp_path_factory.mktemp("study")
    (root / "fake").mkdir()
    plan = {
        "name": "pretended",
        "output": str(root / "study"),
        "models": [{"name": "small"}, {"name": "large"}],
        "data": [{"name": "tiny", "data_dir": str(records)}],
        "seeds": 2,
        "budget": {"kind": "multiply-adds", "value": 25_000},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSEG_FAKE", str(root / "fake"))
        patch.setattr(study_module, "PROGRAMS", fake_study.programs())
        patch.setitem(ENGINES, "local", fake_study.in_process)
        kseg.study(plan)
    return root / "study"


@pytest.fixture(scope="module")
def kept(study, tmp_path_factory):
    """What is committed of a study: its plan, costs, counts, results.csv and maps, with sha256.txt, and no report."""
    folder = tmp_path_factory.mktemp("kept") / "study"
    ignored = shutil.ignore_patterns("report*", "runs", "logs", ".*")
    shutil.copytree(study, folder, ignore=ignored)
    for path in (truth_path(folder, "tiny", "val", 3), prediction_path(folder, "small", "tiny", 0, "val", 3)):
        write_map(path, np.eye(9, dtype="uint8"), ((0, 0, 0), (9, 9, 9)))
    write_hashes(folder, STUDY_PARTS)
    assert {name.partition("/")[0] for name in files_below(folder)} == set(STUDY_PARTS)
    return folder


@pytest.fixture(params=["comparison", "study", "kept"])
def report(request, tmp_path):
    """A copy of a report, and the names that belong to it."""
    shutil.copytree(request.getfixturevalue(request.param), tmp_path / "report")
    return tmp_path / "report"


def of_report(folder):
    return [*files_below(folder, REPORT_PARTS if (folder / "study.json").exists() else None), HASHES]


def test_a_report_fits_as_it_is(report, request):
    found = verify(report)
    assert found.faults == (), str(found)
    note = "There is no report here: only results.csv is compared with the counts."
    assert found.notes == ((note,) if "kept" in request.node.name else ())
    assert found.files == len(of_report(report)) - 1 and found.numbers >= 4 * 6  # runs and what results.csv has of each
    looked = f"{found.files} files, {found.numbers} numbers computed again from the counts"
    last = f"{report} fits: {looked}. Pictures are checked by their sha256 alone."
    assert str(found) == "\n".join([*found.notes, last])


def test_a_flipped_bit_is_found_in_every_file(report):
    """One at a time; the file is named, or sha256.txt where the bit is in that."""
    random = np.random.default_rng(0)
    names = of_report(report)
    assert len(names) > 8
    for name in names:
        path = report / name
        content = path.read_bytes()
        for place in random.integers(0, 8 * len(content), 2).tolist():
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            # The numbers do not depend on pictures, and to compute them again takes long where there is a page.
            paged = any(report.rglob("index.html"))
            faults = hash_faults(report) if paged and name.endswith((".png", ".jpg")) else verify(report).faults
            assert faults, (name, place)
            assert any(fault.startswith(f"{name}: its sha256") for fault in faults) or name == HASHES, (name, faults)
        path.write_bytes(content)
    assert verify(report).faults == ()


def test_every_bit_of_the_list_counts(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("c")
    write_hashes(tmp_path)
    content = (tmp_path / HASHES).read_bytes()
    assert hash_faults(tmp_path) == [] and len(content) == 2 * 64 + 2 * 3 + len("a.txtb/c.txt")
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / HASHES).write_bytes(flipped)
        assert hash_faults(tmp_path), place
    (tmp_path / HASHES).write_bytes(content)
    done = subprocess.run(["sha256sum", "-c", HASHES], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 2


def test_files_that_are_gone_or_new_are_named(report):
    for name in of_report(report)[:-1:7]:
        (report / name).rename(report / "moved")
        assert f"{name}: {HASHES} has a line for it, but there is no such file." in verify(report).faults
        (report / "moved").rename(report / name)
    new = {True: "counts/new.npz", False: "photos/new.jpg"}[(report / "study.json").exists()]
    (report / new).write_bytes(b"x")
    assert f"{new}: there is no line for it in {HASHES}." in verify(report).faults
    (report / HASHES).unlink()
    said = [*verify(report).faults, *verify(report).notes]
    assert any(f"{HASHES} is not there" in line or f"there is no {HASHES}" in line for line in said)


def rewrite(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


def test_a_number_that_was_changed_with_its_hash_is_named(comparison, tmp_path):
    folder = shutil.copytree(comparison, tmp_path / "report")
    table = json.loads((folder / "comparison.json").read_text())
    table["scores"][0]["differences"][1]["by_image"][0] += 0.001
    table["images"][2]["disagreement"][1] = 0.5
    table["objects"][1]["per_class"]["car"]["objects"] += 1
    (folder / "comparison.json").write_text(json.dumps(table, separators=(",", ":")) + "\n")
    write_hashes(folder)
    faults = verify(folder).faults
    wanted = ("scores[0].differences[1].by_image[0]", "images[2].disagreement[1]", "objects[1].per_class.car.objects")
    for place in wanted:
        assert any(fault.startswith(f"comparison.json: {place} is ") for fault in faults), faults
    # The page shows the old numbers.
    assert "index.html: it is not what kseg writes of these numbers." in faults


def test_counts_that_were_changed_with_their_hash_fit_no_number(comparison, tmp_path):
    folder = shutil.copytree(comparison, tmp_path / "report")
    counts = read_counts(folder)
    counts.counts[1, 1] -= 1
    write_counts(folder, counts)
    write_hashes(folder)
    faults = verify(folder).faults
    assert any(fault.startswith("comparison.json: scores[0].values[0] is ") for fault in faults), faults
    (folder / COUNTS).write_bytes((folder / COUNTS).read_bytes()[:-200])
    assert any("counts.npz is damaged" in fault for fault in verify(folder).faults)


def test_a_study_with_changed_numbers_is_named(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    rewrite(folder / "results.csv", ",80,1000", ",80,1001")
    rewrite(folder / "report.txt", "Not settled", "Settled")
    write_hashes(folder, REPORT_PARTS)
    faults = verify(folder).faults
    assert any(f.startswith("results.csv: [1][") and 'is "1001", but the counts give "1000"' in f for f in faults)
    assert "report.txt: it is not what kseg writes of these numbers." in faults and len(faults) == 2

    folder = shutil.copytree(study, tmp_path / "again")
    table = json.loads((folder / "report.json").read_text())
    table["sections"][0]["pairs"][0]["low"] -= 0.01
    table["sections"][0]["scores"][1]["mean_iou"] = None
    (folder / "report.json").write_text(json.dumps(table, indent=1) + "\n")
    write_hashes(folder, REPORT_PARTS)
    faults = verify(folder).faults
    for place in ("sections[0].pairs[0].low", "sections[0].scores[1].mean_iou"):
        assert any(fault.startswith(f"report.json: {place} is ") for fault in faults), faults

    folder = shutil.copytree(study, tmp_path / "page")
    page = folder / "report" / "index.html"
    headline = json.loads((folder / "report.json").read_text())["sections"][0]["headline"]
    rewrite(page, json.dumps(headline)[1:20], "Everything is settled")
    write_hashes(folder, REPORT_PARTS)
    assert verify(folder).faults == ("report/index.html: it is not what kseg writes of these numbers.",)

    folder = shutil.copytree(study, tmp_path / "numbers")
    table = json.loads((folder / "report" / "study.json").read_text())
    table["costs"][0]["images_seen"] += 1
    gallery = table["galleries"][0]
    changed = "open"
    if "images" in gallery:
        changed = "images[0].pixel_accuracy[0]"
        gallery["images"][0]["pixel_accuracy"][0] = 0.5
    else:
        gallery["open"] = "Nothing."
    (folder / "report" / "study.json").write_text(json.dumps(table, separators=(",", ":")) + "\n")
    write_hashes(folder, REPORT_PARTS)
    faults = verify(folder).faults
    for place in ("costs[0].images_seen", f"galleries[0].{changed}"):
        assert any(fault.startswith(f"report/study.json: {place} is ") for fault in faults), faults

    folder = shutil.copytree(study, tmp_path / "damaged")
    counts_path(folder, "small", "tiny", 1, "val").write_bytes(b"x")
    write_hashes(folder, REPORT_PARTS)
    assert any(" is damaged" in fault and "InputError" not in fault for fault in verify(folder).faults)

    folder = shutil.copytree(study, tmp_path / "counts")
    path = counts_path(folder, "small", "tiny", 1, "val")
    run = read_run(path)
    run.counts[:, 1] -= 1
    write_run(path, run)
    write_hashes(folder, REPORT_PARTS)
    assert any("sections[0].scores[1].runs.1 is " in fault for fault in verify(folder).faults)


def test_without_sha256_a_study_has_only_results_compared(kept, tmp_path):
    folder = shutil.copytree(kept, tmp_path / "kept")
    (folder / HASHES).unlink()
    found = verify(folder)
    assert found.faults == () and found.numbers > 0 and "Pictures" not in str(found)
    assert "nobody would notice another bit in study.json, costs.json or maps" in found.notes[0]
    rewrite(folder / "results.csv", ",80,1000", ",80,1001")
    assert [fault.partition(":")[0] for fault in verify(folder).faults] == ["results.csv"]


def test_the_list_of_a_report_does_for_a_copy_without_it(study, tmp_path):
    ignored = shutil.ignore_patterns("report*", "runs", "logs", ".*")
    folder = shutil.copytree(study, tmp_path / "kept", ignore=ignored)
    assert "  report/" in (folder / HASHES).read_text() and verify(folder).faults == ()
    (folder / "costs.json").unlink()
    assert verify(folder).faults == (f"costs.json: {HASHES} has a line for it, but there is no such file.",)


def test_a_study_whose_runs_are_not_finished_fits(study, tmp_path, monkeypatch):
    """The list is there when the first run begins, and has a line for all that is there when a run has ended."""
    plan = {**json.loads((study / "study.json").read_text())["plan"], "output": str(tmp_path / "study"), "pilot": ""}
    given = {key: plan[key] for key in ("name", "output", "data", "seeds", "budget")}
    given["models"] = [{"name": model["name"]} for model in plan["models"]]
    folder = tmp_path / "study"
    seen = []

    class Killed(Exception):
        pass

    def engine(jobs, started):
        """Two of four runs; the third dies when the counts of its split are written."""
        for number, (job, code) in enumerate(fake_study.in_process(jobs, started)):
            seen.append(verify(folder))
            if number == 2:
                raise Killed
            yield job, code

    (tmp_path / "fake").mkdir()
    monkeypatch.setenv("KSEG_FAKE", str(tmp_path / "fake"))
    monkeypatch.setattr(study_module, "PROGRAMS", fake_study.programs())
    monkeypatch.setitem(ENGINES, "local", engine)
    with pytest.raises(Killed):
        kseg.study(given)
    # The counts of the run that has just been scored are not listed yet.
    assert [one.faults for one in seen] == [(), (), ()] and [one.files for one in seen] == [3, 5, 6]
    assert all("Runs are not finished, 1 file not yet in sha256.txt: counts/" in one.notes[0] for one in seen)
    path = counts_path(folder, "small", "tiny", 0, "val")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    name = path.relative_to(folder).as_posix()
    assert f"{name}: its sha256 is not that in {HASHES}." in verify(folder).faults
    path.write_bytes(content)
    monkeypatch.setitem(ENGINES, "local", fake_study.in_process)
    kseg.study(given)
    assert verify(folder).faults == () and verify(folder).notes == ()
    assert (folder / "results.csv").read_bytes() == (study / "results.csv").read_bytes()


def test_a_report_of_another_version_is_compared_by_its_numbers(comparison, tmp_path, monkeypatch):
    folder = shutil.copytree(comparison, tmp_path / "report")
    monkeypatch.setattr("kseg.studies.verify.__version__", "9.9")
    found = verify(folder)
    assert found.faults == () and "this is 9.9: the numbers are compared, the wording" in found.notes[0]


def test_the_script_says_what_fits_and_needs_no_framework(comparison, tmp_path, call_script):
    code, out, _ = call_script("compare", f"--verify={comparison}")
    assert code == 0 and " fits: " in out
    folder = shutil.copytree(comparison, tmp_path / "report")
    (folder / "truth" / "00000.png").write_bytes(b"x")
    code, out, _ = call_script("compare", f"--verify={folder}")
    assert code == 1 and "truth/00000.png: its sha256 is not that in sha256.txt." in out and "does not fit" in out
    code, _, error = call_script("compare", f"--verify={tmp_path}")
    assert code == 2 and "holds no report: neither comparison.json" in error
    code, _, error = call_script("compare", "a", f"--verify={folder}", "--output=b")
    assert code == 2 and "Leave out a, --output." in error
    program = (
        "import sys\nfrom kseg.commands.compare_command import main\nsys.argv[0] = 'compare.py'\nmain()\n"
        "print(sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, f"--verify={comparison}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and " fits: " in done.stdout and done.stdout.endswith("\n[]\n"), done.stderr


def test_hashes_say_what_was_compared(comparison, records):
    """Of the data, and of models without a file."""
    table = json.loads((comparison / "comparison.json").read_text())
    assert table["manifest_sha256"] == sha256_of(str(records / "dataset.json"))
    one, two = (model["weights_sha256"] for model in table["models"])
    assert one == two and len(one) == 64  # the same weights at two sizes
    assert table["kseg_version"] == kseg.__version__ and table["models"][0]["path"] is None


def test_hashes_of_contestants_are_those_of_the_files_that_were_opened(records, tmp_path):
    """A run whose kept weights are last.keras, an ONNX file with a map, a folder of label maps."""
    run = tmp_path / "run"
    run.mkdir()
    tiny.brightness_model().save(run / "last.keras")
    (run / "flags.txt").write_text("--keep=last\n")
    onnx = write_onnx(tmp_path / "x.onnx")
    keys = 'classes = ["a", "b", "c"]\nchannels = "RGB"\nrange = "0..255"\n'
    beside = describe(onnx, f'{keys}map = {{a = "road", b = "car", c = "sky"}}')
    examples = Examples(records, "val")
    maps = tmp_path / "maps"
    maps.mkdir()
    for i, name in enumerate(examples.split.names):
        Image.fromarray(examples.raw(i)[1]).save(maps / f"{name}.png")
    found = kseg.compare([run, onnx, maps], records, tmp_path / "report").table["models"]
    assert [model["reads"].split(",")[0] for model in found] == ["Keras", "ONNX", "label maps"]
    assert [model["weights_sha256"] for model in found[:2]] == [
        sha256_of(str(run / "last.keras")),
        sha256_of(str(onnx)),
    ]
    assert [model["flags_sha256"] for model in found] == [sha256_of(str(run / "flags.txt")), None, None]
    assert [model["description_sha256"] for model in found] == [None, sha256_of(str(beside)), None]
    assert [model["map"] for model in found] == [None, {"a": "road", "b": "car", "c": "sky"}, None]
    lines = [f"{sha256_of(str(path))}  {path.name}\n" for path in sorted(maps.iterdir())]
    assert found[2]["weights_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert verify(tmp_path / "report").faults == ()
