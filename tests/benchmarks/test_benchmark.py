"""benchmarks/: processes, turns, and that the table is the numbers' arithmetic; no timing is asserted."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import kseg
from benchmarks import contestant, report, suites
from benchmarks.suites import Contestant
from kseg.io.errors import InputError

# Notes each process of its own, and each run in it.
FAKE = """
import os
print("noise of a library")
def make(log, **facts):
    def note(text):
        with open(log, "a") as file:
            file.write(text)
    note(" " + facts.pop("name", "") + os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""))
    return (lambda: note(".")), facts
CASES = {"make": make}
def versions():
    return {"Fake": "1"}
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """A contestant without a framework, one that is not installed, and one with a defect; gives the log's path."""
    bodies = {"fake": FAKE, "fake_missing": "import a_framework_that_is_not_there\n", "fake_broken": "1 / 0\n"}
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "log"


def entry(log, who, *, module="fake", **options):
    facts = {name: options.pop(name) for name in ("parameters", "score", "images") if name in options}
    return Contestant("step", who, module, "make", {"log": str(log), "name": who, **facts}, **options)


def test_contestants_take_turns_each_in_a_process_of_its_own(fakes, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # `import kseg` or the user set it here: no contestant's choice
    contestants = [
        entry(fakes, "a", parameters=7, warmups=1, repeats=2),
        entry(fakes, "b", parameters=7, environment={"TF_ENABLE_ONEDNN_OPTS": "1"}, warmups=0),
        entry(fakes, "gone", module="fake_missing"),
    ]
    lines = []
    result = {"rounds": 2, "versions": {}, "missing": {}, "rows": []}
    suites.compare(contestants, result, lines.append)
    assert fakes.read_text() == " a... b1. a... b1."
    assert [(row["who"], row["case"], len(row["seconds"]), row["parameters"]) for row in result["rows"]] == [
        ("a", "step", 2, 7),
        ("b", "step", 2, 7),
    ]
    assert all(row["peak_bytes"] >= row["empty_bytes"] > 1_000_000 for row in result["rows"])
    assert result["versions"] == {"a": {"Fake": "1"}, "b": {"Fake": "1"}}
    assert result["missing"] == {"gone": "a_framework_that_is_not_there is not installed (pip install 'kseg[bench]')"}
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        *("step, round 1/2: a", "step, round 1/2: b", "step, round 2/2: a", "step, round 2/2: b")
    ]


@pytest.mark.parametrize(("fact", "values"), [("parameters", (7, 8)), ("score", (0.5, 0.51))])
def test_contestants_that_do_not_do_the_same_are_not_compared(fact, values):
    turns = {who: [{fact: value}] for who, value in zip("ab", values, strict=True)}
    with pytest.raises(RuntimeError, match=f"step: the contestants must have the same {fact}, but they are {{'a': "):
        suites.check_same("step", turns)
    suites.check_same("step", {"a": turns["a"], "b": turns["a"], "c": [{}]})


def test_an_interpreter_that_is_not_there_and_a_defect_are_said(fakes, tmp_path):
    with pytest.raises(InputError, match=r"Cannot run .*no_python .*Give the path of a Python interpreter"):
        suites.measure(entry(fakes, "a", python=str(tmp_path / "no_python")))
    with pytest.raises(RuntimeError, match="step: a failed.*(?s:.*)ZeroDivisionError"):
        suites.measure(entry(fakes, "a", module="fake_broken"))


def test_time_is_that_of_an_image_where_a_run_has_several(monkeypatch):
    clock = iter((10.0, 22.0))
    monkeypatch.setattr(contestant.time, "perf_counter", lambda: next(clock))
    monkeypatch.setitem(sys.modules, "fake_module", sys.modules[__name__])
    measured = contestant.measure("fake_module", "four", {}, warmups=0, repeats=3)
    assert measured["seconds"] == 1 and measured["images"] == 4  # 12 s of 3 runs of 4 images
    assert measured["versions"] == {"Fake": "1"}


CASES = {"four": lambda: ((lambda: None), {"images": 4})}


def versions():
    """Of this module as a contestant."""
    return {"Fake": "1"}


def test_every_suite_asks_for_cases_that_its_modules_have(tmp_path):
    """Without PyTorch its modules are read as text."""
    choices = suites.Choices(suites.SIZES["tiny"], ("float32", "bfloat16"), "/torch", "/cityscapes", str(tmp_path))
    cases = {suite: make(choices) for suite, make in suites.SUITES.items()}
    for contestants in cases.values():
        for each in contestants:
            source = (suites.ROOT / f"{each.module.replace('.', '/')}.py").read_text()
            assert f"def {each.function}(" in source or f'"{each.function}": ' in source, each
            json.dumps(each.options)
            assert each.python == ("/torch" if "torch" in each.module else "/cityscapes" * ("city" in each.module))
    assert {each.case for each in cases["layers"]} == {"pool_pair", "batch_norm", "aspp"}
    assert [each.who for each in cases["train"]] == 2 * ["kseg", "Keras naive", "PyTorch"]
    models = [each.options["model"] for each in cases["models"]]
    assert set(models) == set(kseg.MODELS) and len(models) == len(set(models)) + 2  # one with three encoders
    assert [each.who for each in cases["memory"]] == ["all maps kept", "remat", "accumulate_steps=4"]
    kernels = [each for each in cases["kernels"] if each.case == "r2unet 2 filters 64x64, training_loop"]
    assert [each.who for each in kernels] == [
        *("oneDNN off, as it comes", "oneDNN off, BFC", "oneDNN on, as it comes", "oneDNN on, BFC", "PyTorch")
    ]
    chosen = [tuple(each.environment.values()) for each in kernels]
    assert chosen == [("0", "false"), ("0", "true"), ("1", "false"), ("1", "true"), ()]
    assert all(os.path.isdir(each.options["records"]) for each in kernels[:4])
    assert len(cases["kernels"]) == 5 * 2 * 3  # of three models a step and an evaluation
    assert [(each.case, each.who) for each in cases["scores"]] == [
        *(("official", "kseg"), ("official", "cityscapesScripts"), ("five", "kseg"), ("five", "torchmetrics"))
    ]
    assert len(list(tmp_path.glob("street_*.png"))) == 3 * 2


def test_rows_and_the_table_are_the_arithmetic():
    """Ours 2, 4 and 6 s; the peer 4, 5 and 20 s."""
    first = [{"seconds": s, "peak_bytes": s * 1e9, "empty_bytes": 5e8, "parameters": 34_530_000} for s in (2, 4, 6)]
    other = [{"seconds": s, "peak_bytes": 0, "empty_bytes": 0, "multiply_adds": 123_400_000_000} for s in (4, 5, 20)]
    rows = [report.row("step", "kseg", first, first), report.row("step", "peer", other, first)]
    assert "ratio" not in rows[0] and rows[0]["peak_bytes"] == 6e9
    assert rows[1]["median"] == 5 and rows[1]["spread"] == [4, 20]
    assert rows[1]["ratio"] == 0.5 and rows[1]["ratio_spread"] == [0.3, 0.8]  # the rounds' own, not 4 / 5
    assert "ratio" not in report.row("step", "peer", other, None)  # the first is not installed
    result = {**report.surroundings(), "suite": "train", "size": "full", "rounds": 3, "load_average_after": 0.5}
    result |= {"versions": {"kseg": {"Keras": "3"}}, "missing": {"x": "not installed"}, "rows": rows}
    result["machine"] |= {"cpu": "A Processor", "onednn_isa": "AVX2"}
    text = report.text(result)
    assert "Machine: A Processor, " in text and ", oneDNN kept to AVX2; load" in text
    assert "\nkseg: Keras 3\nx: not installed\n\n| case | who " in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[-2:]]
    assert cells[0] == ["step", "kseg", "4", "2-6", "", "6.00 GB", "0.50 GB", "34.53 M", ""]
    assert cells[1] == ["step", "peer", "5", "4-20", "0.50 (0.3-0.8)", "", "", "", "123.4 G"]
    result["rows"] = [report.row("step", "peer", other, None)]
    assert "| case | who  | seconds | min-max | multiply-adds of an image |" in report.text(result)


def test_every_measured_process_is_whole_and_says_what_failed():
    from benchmarks.peers import whole_process

    run, _ = whole_process.process(["-c", "raise SystemExit('broken')"])
    with pytest.raises(RuntimeError, match="failed:\nbroken"):
        run()


def _script(*arguments, timeout=300):
    command = [sys.executable, "scripts/benchmark.py", *arguments]
    return subprocess.run(command, cwd=suites.ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def test_script_explains_itself_and_refuses_what_makes_no_sense():
    assert "--torch_python" in _script("--help").stdout
    done = _script()
    assert done.returncode == 2 and "--suite must be given" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("suite", suites.SUITES)
def test_suite_runs_with_what_is_installed(suite, tmp_path):
    done = _script(f"--suite={suite}", "--size=tiny", "--rounds=1", f"--output={tmp_path / 'r.json'}", timeout=1800)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["rows"] and all(line["median"] > 0 for line in result["rows"])
    if suite == "models":
        assert all(line["multiply_adds"] > line["parameters"] > 0 for line in result["rows"])
