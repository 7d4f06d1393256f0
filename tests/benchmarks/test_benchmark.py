"""benchmarks/: processes, turns, and that results are judged as the numbers say; no timing is asserted."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import kseg
from benchmarks import kernels, processes, report, suites, worker

FAKE = """
def make(**options):
    return (lambda: None), {"parameters": PARAMETERS, "multiply_adds": 10, "flop": 10}
NAMES = ("pool_pair", "batch_norm", "aspp", "train_step", "conv_rate", "model_step", "loop_step")
CASES = {name: make for name in NAMES}
CASES["models"] = lambda: (None, {"models": [("small", {}), ("large", {"backbone": "deep"})]})
def versions():
    return {"Fake": "1"}
"""


def test_worker_answers_and_says_what_failed():
    replies = []
    requests = [
        {"do": "prepare", "key": "a", "case": "copy", "options": {"megabytes": 1}},
        {"do": "run", "key": "a", "repeats": 2},
        {"do": "peak"},
        {"do": "drop", "key": "a"},
        {"do": "run", "key": "a", "repeats": 1},
        {"do": "peak"},
    ]
    worker.serve("benchmarks.peers.machine", map(json.dumps, requests), replies.append)
    assert replies[0] == {"versions": {"NumPy": np.__version__}}
    assert replies[1]["facts"] == {"bytes": 2_000_000}
    assert replies[2]["seconds"] > 0 and replies[3]["bytes"] > 10_000_000 and replies[4] == {}
    assert "KeyError: 'a'" in replies[5]["error"] and len(replies) == 6  # a failure ends it


def test_runs_take_turns_after_the_warm_up():
    calls = []
    runs = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    seconds = processes.alternate(runs, rounds=2, warmups=1)
    assert "".join(calls) == "ab" + "abab"
    assert seconds == {"a": [3, 5], "b": [4, 6]}


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Contestants without a framework: ours, one of as many parameters, one that is not installed."""
    for name, body in {
        "fake_ours": FAKE.replace("PARAMETERS", "7"),
        "fake_other": FAKE.replace("PARAMETERS", "8"),
        "fake_missing": "import a_framework_that_is_not_there\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peers = {"kseg": "fake_ours", "Keras naive": "fake_ours", "PyTorch": "fake_missing"}
    monkeypatch.setattr(suites, "PEERS", peers)
    return peers


def test_suite_reports_each_contestant_and_names_what_is_missing(fakes, tmp_path):
    result = suites.run("train", size="tiny", rounds=3, precisions=("bfloat16",))
    assert [(line["case"], line["who"]) for line in result["rows"]] == [
        ("train_step bfloat16", "kseg"),
        ("train_step bfloat16", "Keras naive"),
    ]
    assert result["missing"] == {
        "PyTorch": "a_framework_that_is_not_there is not installed (pip install 'kseg[bench]')"
    }
    for line in result["rows"]:
        assert len(line["seconds"]) == 3 and line["peak_bytes"] >= line["empty_bytes"] > 0
        assert line["work"] == 2 * 3 * 2 * 10  # operations, three passes, two images, ten multiply-adds
    assert set(result["ceilings"]) == {"copy", "convolution float32", "convolution bfloat16"}
    assert result["goals"] == []  # none are set for the tiny size
    text = report.text(result)
    assert "a_framework_that_is_not_there is not installed" in text and "train_step bfloat16" in text
    report.write(result, tmp_path / "out" / "result.json")
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["result.json"]


def test_layers_suite_has_its_three_cases(fakes):
    result = suites.run("layers", size="tiny", rounds=1)
    cases = [line["case"] for line in result["rows"] if line["who"] == "kseg"]
    assert cases == ["pool_pair", "batch_norm", "aspp"]
    assert [line["limit"] for line in result["rows"][::2]] == ["copy", "copy", "convolution float32"]


def test_memory_suite_has_a_process_for_each_way_and_a_goal(fakes):
    result = suites.run("memory", size="tiny", rounds=1)
    assert [(line["case"], line["who"]) for line in result["rows"]] == [
        ("r2unet step, remat", "all maps kept"),
        ("r2unet step, remat", "kseg"),
        ("r2unet step, accumulate_steps=4", "kseg"),
    ]
    for line, peak in zip(result["rows"], (10e9, 5e9, 4e9), strict=True):
        line["peak_bytes"] = peak
    (verdict,) = report.judge(suites.GOALS["memory"], result)
    assert verdict["met"] and verdict["value"] == 0.5
    assert "| 5.00 GB" in report.text(result)


KERNELS_FAKE = """
import os
OURS = [(onednn, bfc) for onednn in ("0", "1") for bfc in ("false", "true")]
def make(**options):
    chosen = os.environ.get("TF_ENABLE_ONEDNN_OPTS"), os.environ.get("TF_CPU_ALLOCATOR_USE_BFC")
    assert ("records" in options) == (chosen in OURS) and options["model"] in ("segnet_aspp", "r2unet", "unet")
    return (lambda: None), {"parameters": 7}
CASES = {"training_loop": make, "evaluation": make}
def versions():
    return {"Fake": "1"}
"""


def test_kernels_suite_has_each_choice_in_a_process_of_its_own_and_one_peer(tmp_path, monkeypatch):
    (tmp_path / "fake_kernels.py").write_text(KERNELS_FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(kernels, "OURS", "fake_kernels")
    monkeypatch.setattr(kernels, "PYTORCH", "fake_kernels")
    result = suites.run("kernels", size="tiny", rounds=2)
    contestants = [
        "kseg, oneDNN off, as it comes",
        "kseg, oneDNN off, BFC",
        "kseg, oneDNN on, as it comes",
        "kseg, oneDNN on, BFC",
        "PyTorch",
    ]
    cases = [f"{model}, narrow: 2 filters, 64x64" for model in ("segnet_aspp", "r2unet", "unet")]
    assert [(line["case"], line["who"]) for line in result["rows"]] == [(c, who) for c in cases for who in contestants]
    for line in result["rows"]:
        assert len(line["seconds"]) == len(line["evaluation"]) == 2 and line["peak_bytes"] > 0
        assert ("to_pytorch" in line) == (line["who"] != "PyTorch")
    ours = result["rows"][0]
    ours |= {"median": 3.0, "spread": [2.0, 4.0], "peak_bytes": 3e9, "evaluation": [0.5, 0.7, 0.6]}
    ours |= {"to_pytorch": report.ratio([2.0, 4.0], [4.0, 5.0])}  # the rounds' own: 0.5 and 0.8
    ours |= {"evaluation_to_pytorch": (0.25, [0.2, 0.3])}
    text = report.text(result)
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {cases[0]}") and contestants[0] in line]
    assert [cell.strip() for cell in row.split("|")[3:-1]] == [
        *("3 s (2-4)", "0.65 (0.5-0.8)", "3.00 GB"),
        *("0.6 s (0.5-0.7)", "0.25 (0.2-0.3)"),
    ]
    result["machine"] |= {"cpu": "A Processor", "onednn_isa": "AVX2"}
    assert "Machine: A Processor, " in report.text(result) and ", oneDNN kept to AVX2; load" in report.text(result)


def test_workers_take_tensorflow_as_it_comes(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "true")  # `import kseg` set it here: no contestant's choice
    assert not {"TF_ENABLE_ONEDNN_OPTS", "TF_CPU_ALLOCATOR_USE_BFC"} & set(processes.environment())


def test_models_suite_asks_each_model_in_a_process_of_its_own(fakes, monkeypatch):
    processes_made, told = [], []

    class Counted(processes.Worker):
        def __init__(self, module):
            super().__init__(module)
            processes_made.append(module)

    monkeypatch.setattr(suites, "Worker", Counted)
    result = suites.run("models", size="tiny", rounds=2, progress=told.append)
    assert processes_made == ["fake_ours"] * 3  # for the names, and one each
    small, large = result["rows"]
    assert (small["case"], small["options"]) == ("small", {"base_filters": 4})
    assert (large["case"], large["options"]) == ("large deep", {"base_filters": 4, "backbone": "deep"})
    for line in result["rows"]:
        assert (line["parameters"], line["multiply_adds"], len(line["seconds"])) == (7, 10, 2)
        assert line["peak_bytes"] >= line["empty_bytes"] > 0 and line["height"] == 32
    small |= {"parameters": 34_530_000, "multiply_adds": 123_400_000_000, "peak_bytes": 5.25e9, "median": 12.34}
    text = report.text(result)
    assert "Training step: float32, batch 2, 32x64, 3 classes, 4 base filters, Adam" in text
    cells = [cell.strip() for line in text.splitlines() if line.startswith("| small") for cell in line.split("|")]
    assert cells[1:-1] == ["small", "34.53 M", "123.4 G", "5.25 GB", "12.3 s"]
    assert told[-1].startswith("large deep | ")  # each as it comes, for the suite takes long


def test_startup_times_whole_processes_and_says_what_failed(monkeypatch):
    commands = {("import", "kseg"): ("-c", "pass"), ("nothing", "python"): ("-c", "pass")}
    monkeypatch.setattr(suites, "_COMMANDS", commands)
    result = suites.run("startup", rounds=2)
    assert [(line["case"], line["who"], len(line["seconds"])) for line in result["rows"]] == [
        ("import", "kseg", 2),
        ("nothing", "python", 2),
    ]
    assert [verdict["value"] is None for verdict in result["goals"]] == [False, True]
    report.text(result)
    commands["import", "kseg"] = ("-c", "raise SystemExit('broken')")
    with pytest.raises(RuntimeError, match="failed:\nbroken"):
        suites.run("startup", rounds=1)


def test_networks_that_differ_are_not_compared(fakes):
    fakes["Keras naive"] = "fake_other"
    with pytest.raises(RuntimeError, match=r"must be one network.*'kseg': 7, 'Keras naive': 8"):
        suites.run("train", size="tiny", rounds=1, precisions=("float32",))


def test_worker_without_interpreter_or_with_a_defect_says_so(fakes, tmp_path):
    with pytest.raises(FileNotFoundError, match="no_python"):
        processes.Worker("fake_ours", python=str(tmp_path / "no_python"))
    (tmp_path / "fake_broken.py").write_text("1 / 0\n")
    with pytest.raises(RuntimeError, match="fake_broken failed.*(?s:.*)ZeroDivisionError"):
        processes.Worker("fake_broken")
    with processes.Worker("fake_ours") as child, pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        child.run("nothing")


def _result():
    """Ours 2 and 4 s, peer 4 and 5 s: ratios 0.5 and 0.8."""
    rows = [report.row("step", "kseg", [2.0, 4.0], [2.0, 4.0]), report.row("step", "peer", [4.0, 5.0], [2.0, 4.0])]
    rows[0] |= {"work": 6e9, "limit": "convolution", "peak_bytes": 3e9}
    rows[1] |= {"work": 6e9, "limit": "convolution", "peak_bytes": 2e9}
    return {**report.surroundings(), "suite": "train", "size": "full", "rounds": 2, "load_average_after": 0.5} | {
        "versions": {},
        "missing": {},
        "ceilings": {"convolution": 4e9},
        "rows": rows,
    }


def test_rows_ratios_and_shares_are_the_arithmetic():
    result = _result()
    report.add_shares(result)
    ours_row, peer = result["rows"]
    assert ours_row["ours_to_this"] == 1 and ours_row["share"] == 0.5  # 6e9 / 3 s of 4e9
    assert peer["median"] == 4.5 and peer["spread"] == [4, 5]
    assert peer["ours_to_this"] == 0.65 and peer["ours_to_this_spread"] == [0.5, 0.8]  # the rounds' own, not 3 / 4.5
    assert "ours_to_this" not in report.row("nothing", "python", [1.0], None)  # nothing of ours to compare


def test_goals_are_met_missed_or_not_measured():
    result = _result()
    goals = [
        report.Goal("step", "time", "peer", 0.65),  # exactly at the limit holds
        report.Goal("step", "time", "peer", 0.59),
        report.Goal("step", "memory", "peer", 1.4),  # 1.5
        report.Goal("step", "time", None, 3.0),
        report.Goal("step", "time", "absent", 1.0),
        report.Goal("other", "time", None, 1.0),
    ]
    report.add_shares(result)
    result["goals"] = report.judge(goals, result)
    assert [verdict["met"] for verdict in result["goals"]] == [True, False, False, True, None, None]
    assert [verdict["value"] for verdict in report.missed(result)] == [0.65, 1.5]
    text = report.text(result)
    assert text.count("MISSED") == 2 and text.count("not measured") == 2
    assert "MISSED: step: memory of kseg / peer at most 1.4 (measured 1.5)" in text


def _script(*arguments, timeout=300):
    command = [sys.executable, "scripts/benchmark.py", *arguments]
    return subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=timeout)


def test_script_explains_itself_and_refuses_what_makes_no_sense():
    assert "--torch_python" in _script("--help").stdout
    done = _script("--suite=train", "--check", "--size=tiny")
    assert done.returncode == 2 and "--check needs --size=full" in done.stderr
    assert _script().returncode == 2


@pytest.mark.slow
def test_models_suite_measures_every_model(tmp_path):
    done = _script("--suite=models", "--size=tiny", "--rounds=1", f"--output={tmp_path / 'r.json'}", timeout=1200)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    cases = {line["case"].partition(" ")[0] for line in rows}
    assert cases == set(kseg.MODELS) and len(rows) == len(cases) + 2  # one of them with three backbones
    assert all(line["multiply_adds"] > line["parameters"] > 0 for line in rows)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["layers", "train"])
def test_suite_runs_with_what_is_installed(suite, tmp_path):
    done = _script(f"--suite={suite}", "--size=tiny", "--rounds=1", f"--output={tmp_path / 'r.json'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert {line["who"] for line in result["rows"]} | set(result["missing"]) == set(suites.PEERS)
    assert all(0 < line["share"] for line in result["rows"])
