"""`kseg.study` with trainings that only pretend: what is run, repeated, refused, reported."""

import csv
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import fake_study
import numpy as np
import pytest

import kseg
from kseg.commands import study_command
from kseg.io.errors import InputError
from kseg.io.files import locked
from kseg.studies import study as study_module
from kseg.studies.engines import ENGINES
from kseg.studies.engines.local import run_local
from kseg.studies.run_lock import busy
from kseg.studies.statistics import compare
from kseg.studies.study_plan import read_plan, train_flags
from kseg.studies.study_report import report


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs are computed in this process, by an engine like any other; `processes` undoes that."""
    monkeypatch.setitem(ENGINES, "local", fake_study.in_process)


@pytest.fixture
def processes(monkeypatch):
    """Every command is a process, as it is for users."""
    monkeypatch.setitem(ENGINES, "local", run_local)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A function that gives the calls of the pretended commands since it was last asked."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("KSEG_FAKE", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(study_module, "PROGRAMS", fake_study.programs())

    def take():
        path = folder / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    take.folder = folder
    return take


@pytest.fixture
def plan(tmp_path, records):
    """The keys of a study of two models and two seeds."""
    return {
        "name": "pretended",
        "output": str(tmp_path / "study"),
        "models": [{"name": "small"}, {"name": "large"}],
        "data": [{"name": "tiny", "data_dir": str(records)}],
        "seeds": 2,
        "budget": {"kind": "multiply-adds", "value": 25_000},
    }


def rows(output):
    with open(pathlib.Path(output) / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def toml(plan, path):
    """Write a plan as STUDY.toml."""
    lines = [f"{key} = {json.dumps(plan[key])}" for key in ("name", "output", "seeds")]
    for key in ("models", "data"):
        for table in plan[key]:
            lines += [f"[[{key}]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    lines += ["[budget]", *(f"{name} = {json.dumps(value)}" for name, value in plan["budget"].items())]
    path.write_text("\n".join(lines))
    return path


def test_equal_multiply_adds_are_other_steps_and_finished_runs_are_not_repeated(calls, plan, capsys, processes):
    found = kseg.study(plan)
    # A step of 4 images is 3 * 100 * 4 = 1,200 multiply-adds: 25,000 // 1,200 = 20 steps, 1,000 left.
    # Of large it is 3 * 250 * 4 = 3,000: 8 steps, 1,000 left.
    assert calls() == [
        "measure small",
        "measure large",
        *("train small-0 20", "score small-0", "train large-0 8", "score large-0"),
        *("train small-1 20", "score small-1", "train large-1 8", "score large-1"),
    ]
    printed = capsys.readouterr()
    assert "small on tiny: 20 steps, 80 images: 24000 of 25000 multiply-adds, 1e+03 left by rounding (4.00%)" in (
        printed.out
    )
    assert "large on tiny: 8 steps, 32 images: 24000 of 25000 multiply-adds, 1e+03 left by rounding (4.00%)" in (
        printed.out
    )
    assert "small/tiny/seed-0 started: 0 of 4 runs done, 1 running, 3 left" in printed.err
    assert "large/tiny/seed-1 done: 4 of 4 runs done, 0 running, 0 left" in printed.err
    assert found.broken == ()
    assert [(row["model"], row["seed"], row["images_seen"]) for row in rows(plan["output"])] == [
        ("small", "0", "80"),
        ("large", "0", "32"),
        ("small", "1", "80"),
        ("large", "1", "32"),
    ]
    text = str(found)
    kseg.study(plan)
    assert calls() == []
    assert str(report(plan["output"])) == text
    assert (pathlib.Path(plan["output"]) / "report.txt").read_text() == f"{text}\n"


def test_the_report_says_what_the_statistics_say_of_the_counts(calls, plan):
    plan["seeds"] = 6
    found = kseg.study(plan)
    counts = {
        model: np.stack([fake_study.fake_counts(model, seed) for seed in range(6)]) for model in ("small", "large")
    }
    drives = [f"drive{i % 12}" for i in range(24)]
    (expected,) = compare(counts, drives, unit="drives")
    (pair,) = found.comparisons["tiny", "val"]
    assert pair == expected
    # Ten more of 100 pixels in each class, in every run and image: settled by six seeds and twelve drives.
    assert pair.verdict.startswith("large is better than small: mean IoU ")
    lines = str(found).splitlines()
    assert lines[2:4] == ["tiny, split val, 24 images:", pair.verdict]
    (section,) = found.table["sections"]
    assert section["groups"]["by"] == "drive" and section["groups"]["count"] == 12
    # One pair: Holm changes nothing. All six signs agree: 2 / 2^6.
    assert section["pairs"][0]["seed_test"] == {"p": 2 / 64, "p_holm": 2 / 64, "smallest_p": 2 / 64}
    assert f"large and small: {expected.budget}" in lines
    assert json.loads((pathlib.Path(plan["output"]) / "report.json").read_text()) == json.loads(json.dumps(found.table))


def test_seconds_become_steps_by_a_pilot(calls, plan, capsys):
    plan["budget"] = {"kind": "seconds", "value": 3.2}
    text = str(kseg.study(plan))
    # The pretended pilot takes 0.3 seconds a step: ten steps are 3 of 3.2 seconds, 0.2 left.
    assert {call for call in calls() if call.startswith("train")} == {
        *("train small-0 10", "train small-1 10", "train large-0 10", "train large-1 10"),
    }
    assert "small on tiny: 10 steps, 40 images: 3 of 3.2 seconds, 0.2 left by rounding (6.25%)" in (
        capsys.readouterr().out
    )
    # What the process took is beside, by its account: 2.5 CPU seconds. Nothing is called left or overspent.
    (row,) = [line.split() for line in text.splitlines() if line.startswith("small  tiny")]
    assert row[5:] == ["2", "0.00", "GB"] and "left" not in text.rpartition("Budget of each run")[2]


def test_equivalence_and_groups_are_those_asked_for(calls, plan):
    plan["seeds"] = 6
    plan["group_by"] = "(.+)"
    kseg.study(plan)
    found = report(plan["output"], equivalence=0.5)
    (pair,) = found.comparisons["tiny", "val"]
    assert pair.groups == 24 and pair.equivalence == 0.5
    assert "are practically equal" in pair.verdict


def test_a_broken_run_is_reported_and_tried_again(calls, plan):
    (calls.folder / "break-small-0").touch()
    found = kseg.study(plan)
    (broken,) = found.broken
    assert broken["run"] == "small/tiny/seed-0" and broken["code"] == 3
    assert broken["end"] == ["step 7", "The loss is nan."]
    assert pathlib.Path(broken["log"]).is_file()
    assert f"BROKEN small/tiny/seed-0 (exit code 3), {broken['log']}:" in str(found)
    assert "1 run not there: small/tiny/seed-0." in str(found)
    # Paired: of large, seed 0 has no partner.
    assert found.table["sections"][0]["seeds"] == {"small": [1], "large": [1]}
    assert len(rows(plan["output"])) == 3
    calls()
    (calls.folder / "break-small-0").unlink()
    assert kseg.study(plan).broken == ()
    assert calls() == ["train small-0 20", "score small-0"]


def test_a_trained_run_whose_counts_are_gone_is_scored_only(calls, plan):
    kseg.study(plan)
    calls()
    shutil.rmtree(pathlib.Path(plan["output"]) / "counts" / "large")
    kseg.study(plan)
    assert calls() == ["score large-0", "score large-1"]


def test_more_seeds_and_models_may_be_added_and_nothing_else_changed(calls, plan):
    plan["models"] = [{"name": "small"}]
    kseg.study(plan)
    calls()
    plan["seeds"] = 3
    plan["models"] = [{"name": "small"}, {"name": "large"}]
    kseg.study(plan)
    assert calls() == [
        "measure large",
        *("train large-0 8", "score large-0", "train large-1 8", "score large-1"),
        *("train small-2 20", "score small-2", "train large-2 8", "score large-2"),
    ]
    plan["budget"] = {"kind": "images", "value": 100}
    plan["seeds"] = [1, 2]
    plan["models"] = [{"name": "small", "options": {"depth": 3}}]
    with pytest.raises(InputError) as error:
        kseg.study(plan)
    assert str(error.value).splitlines() == [
        f"{plan['output']} was started from another study:",
        '  models, small, options: stored {}, now {"depth": 3}',
        "  models: large missing now",
        "  seeds: 0 missing now",
        '  budget: stored {"kind": "multiply-adds", "value": 25000}, now {"kind": "images", "value": 100}',
        "More seeds or models may be added. For anything else use another output folder.",
    ]
    assert calls() == []


def test_all_runs_compute_with_the_threads_of_the_first_start(calls, plan, monkeypatch):
    def threads():
        found = pathlib.Path(plan["output"]).glob("runs/*/tiny/*/threads.txt")
        return [path.read_text() for path in sorted(found)]

    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    kseg.study(plan)
    assert threads() == ["3"] * 4
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    plan["seeds"] = 3
    kseg.study(plan)
    assert threads() == ["3"] * 6 and os.environ["TF_NUM_INTRAOP_THREADS"] == "5"
    with pytest.raises(InputError, match="threads: stored 3, now 4"):
        kseg.study({**plan, "threads": 4})
    # A study of a kseg that stored none goes on as it was.
    path = pathlib.Path(plan["output"]) / "study.json"
    stored = json.loads(path.read_text())
    del stored["plan"]["threads"]
    path.write_text(json.dumps(stored))
    plan["seeds"] = 4
    kseg.study(plan)
    assert threads() == ["3", "3", "3", "5"] * 2


def test_a_run_has_as_many_threads_as_cores(plan, monkeypatch):
    monkeypatch.setitem(ENGINES, "local", run_local)
    monkeypatch.setattr(study_module, "cores", lambda: [0, 1, 2, 3, 4, 5, 6])
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    plan["engines"] = {"slurm": {"cpus": 4}}
    assert [study_module._threads(read_plan(plan), engine) for engine in ("local", "slurm", "ray")] == [7, 4, 1]
    plan["engines"] = {"local": {"jobs_at_once": 3}}
    assert study_module._threads(read_plan(plan), "local") == 2


def test_options_of_engines_may_change_while_a_study_goes_on(calls, plan):
    kseg.study({**plan, "engines": {"slurm": {"minutes": 5}}})
    calls()
    kseg.study({**plan, "engines": {"ray": {"cpus": 2}}})
    assert calls() == []


def test_a_flagfile_that_has_changed_is_noticed_also_where_another_names_it(calls, plan, tmp_path):
    (tmp_path / "shared.flags").write_text("--learning_rate=.1\n")
    (tmp_path / "small.flags").write_text("--flagfile=shared.flags\n")
    plan["models"][0]["flagfile"] = str(tmp_path / "small.flags")
    kseg.study(plan)
    (tmp_path / "shared.flags").write_text("# a comment is no flag\n\n  --learning_rate=.1\n")
    kseg.study(plan)
    (tmp_path / "shared.flags").write_text("--learning_rate=.2\n")
    with pytest.raises(InputError, match="models, small, flagfile_sha256: stored "):
        kseg.study(plan)


def test_records_that_have_changed_are_refused(calls, plan, records, tmp_path):
    shutil.copytree(records, tmp_path / "records")
    plan["data"][0]["data_dir"] = str(tmp_path / "records")
    kseg.study(plan)
    costs = pathlib.Path(plan["output"]) / "costs.json"
    known = {"small/tiny": json.loads(costs.read_bytes())["small/tiny"]}
    costs.write_text(json.dumps(known))  # the other model is still to be measured
    manifest = tmp_path / "records" / "dataset.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(InputError, match="have changed since"):
        kseg.study(plan)
    assert json.loads(costs.read_bytes()) == known  # not of these records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_by": "(["}, "group_by must be drive, block:25 or a regular expression"),
        ({"group_by": "(v)al"}, "but (v)al gives one of tiny, split val"),
        ({"splits": ["night"]}, "has no split 'night'. Choose one of: train, val."),
    ],
)
def test_what_would_fail_after_all_training_is_refused_before(calls, plan, change, message):
    if "splits" in change:
        plan["data"][0] |= change
    else:
        plan |= change
    with pytest.raises(InputError) as error:
        kseg.study(plan)
    assert message in str(error.value)
    assert calls() == []  # not even measured


@pytest.mark.parametrize("name", ["study.json", "costs.json"])
def test_a_damaged_file_of_the_study_is_named(calls, plan, name):
    kseg.study(plan)
    path = pathlib.Path(plan["output"]) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{name} is damaged"):
        kseg.study(plan)


def test_a_model_that_cannot_be_built_stops_the_study_before_any_training(calls, plan):
    plan["models"].append({"name": "other"})
    with pytest.raises(InputError, match="Model other cannot be trained on tiny:\nno model other\n"):
        kseg.study(plan)
    assert calls() == ["measure small", "measure large", "measure other"]
    with pytest.raises(InputError, match="no model other"):
        kseg.study(plan)
    assert calls() == ["measure other"]  # what was measured is known
    plan["models"][2] = {"name": "third", "model": "large"}  # nothing is trained, so the mistake can be mended
    plan["budget"]["value"] *= 2
    kseg.study(plan)
    assert calls()[:4] == ["measure small", "measure large", "measure large", "train small-0 41"]
    with pytest.raises(InputError, match="was started from another study"):
        kseg.study({**plan, "budget": {"kind": "images", "value": 8}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"flags": {"learnin_rate": 0.1}},
            "model small cannot be trained: flags has no 'learnin_rate'. Did you mean learning_rate?",
        ),
        ({"flags": {"qqqq": 1}}, "model small cannot be trained: flags has no 'qqqq'."),
        ({"flags": {"height": "high"}}, "height must be a whole number, got 'high'"),
        ({"flags": {"learning_rate": "high"}}, "learning_rate must be a number, got 'high'"),
        (
            {"models": [{"name": "unet"}, {"name": "segnett"}]},
            "model segnett cannot be trained: Unknown model 'segnett'. Choose one of",
        ),
        ({"models": [{"name": "unet", "options": {"base_filter": 4}}]}, "has no option base_filter"),
        ({"leave_out": "drive", "flags": {"keep": "best"}, "models": [{"name": "unet"}]}, "leave_out needs two groups"),
        (
            {"budget": {"kind": "images", "value": 3}, "flags": {"batch_size": 4}},
            "The budget of 3 images must pay for one step at least, but a step of small takes 4.",
        ),
        (
            {"flags": {"height": 65, "width": 96}},  # U-Net halves four times
            f"model small cannot be trained on tiny: Height and width must be multiples of {2**4}, got 65x96.",
        ),
        (
            {"flags": {"crop_height": 32, "crop_width": 40}},
            f"on tiny: Height and width must be multiples of {2**4}, got 32x40",
        ),
        ({"models": [{"name": "unet", "options": {"encoder": "vgg"}}]}, "model unet cannot be trained on tiny: "),
        ({"flags": {"init_from": "no/run"}}, "model small cannot be trained on tiny: No model at no/run"),
        ({"flags": {"batch_size": 4000}}, "A batch of 4000 needs at least as many training images, got "),
    ],
)
def test_a_mistake_in_the_plan_leaves_no_file(plan, tmp_path, change, message):
    """As `kseg train` would refuse it, but of all models at once, and before anything is measured or written."""
    plan = {**plan, "models": [{"name": "small", "model": "unet"}], **change}
    with pytest.raises(InputError) as error:
        kseg.study(plan)
    assert str(error.value).startswith("The study: ") and message in str(error.value)
    assert "kseg train" not in str(error.value) and "--" not in str(error.value)
    source = tmp_path / "study.toml"
    toml({**plan, "models": [{"name": "unet"}], "data": [{"name": "tiny", "data_dir": "nowhere"}]}, source)
    with pytest.raises(InputError, match="nowhere") as error:
        kseg.study(source)
    assert str(error.value).startswith(f"{source}: ")
    assert not pathlib.Path(plan["output"]).exists()


def test_runs_that_all_have_a_checkpoint_need_not_what_they_started_from(plan, capsys, monkeypatch):
    plan = read_plan({**plan, "models": [{"name": "unet"}], "flags": {"init_from": "no/run", "batch_size": 2}})
    (model,), (data,) = plan.models, plan.data
    output = pathlib.Path(plan.output)
    given = [*train_flags(plan, model, data), "--train_steps=1"]
    for seed in plan.seeds:
        assert study_module._begins(plan, model, data)
        (output / "runs" / "unet" / "tiny" / f"seed-{seed}" / "checkpoints" / "step-1").mkdir(parents=True)
    assert not study_module._begins(plan, model, data)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([["unet", "tiny", False, given]])))
    study_command.check()
    assert json.loads(capsys.readouterr().out) == {"unet": {"keep": "best", "batch_size": 2}}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([["unet", "tiny", True, given]])))
    with pytest.raises(SystemExit, match="model unet cannot be trained on tiny: No model at no/run"):
        study_command.check()


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_leaves_no_file(calls, plan, monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"The engine {engine} needs .*pip install 'kseg\[{engine}\]'"):
        kseg.study(plan, engine=engine)
    assert calls() == [] and not pathlib.Path(plan["output"]).exists()


def test_a_folder_in_use_or_of_other_things_is_refused(calls, plan, tmp_path):
    output = pathlib.Path(plan["output"])
    (output / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="holds files but no study"):
        kseg.study(plan)
    assert os.listdir(output) == ["mine"]
    shutil.rmtree(output)
    output.write_text("mine")
    with pytest.raises(InputError, match=f"output must be a folder, but {output} is a file"):
        kseg.study(plan)
    assert output.read_text() == "mine"
    output.unlink()
    program = (
        "import pathlib, sys, time\nfrom kseg.io.files import locked\n"
        f"with locked(pathlib.Path({str(output)!r})):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is in use by process"):
            kseg.study(plan)
        holder.stdin.close()
    assert calls() == []


def wait_for(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_a_study_that_was_killed_waits_for_the_run_it_left_and_goes_on(calls, plan, tmp_path, root):
    (calls.folder / "slow").touch()
    path = toml(plan, tmp_path / "STUDY.toml")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, fake_study.__file__, "study", str(path)]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lock = pathlib.Path(plan["output"]) / "runs" / "small" / "tiny" / "seed-0" / ".lock"
    wait_for(lambda: lock.exists() and lock.read_text().startswith("process "))
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(120, second.kill)  # if it never says that it waits: a failure, not a test without end
    guard.start()
    for line in second.stderr:
        if "which an earlier start of this study still trains" in line:
            break
    guard.cancel()
    (calls.folder / "slow").unlink()
    text, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    # The run that was left behind ended by itself; it was scored and nothing was trained twice.
    assert sorted(calls()) == sorted(
        [
            *("measure small", "measure large"),
            *("train small-0 20", "train small-1 20", "train large-0 8", "train large-1 8"),
            *("score small-0", "score small-1", "score large-0", "score large-1"),
        ]
    )
    assert len(rows(plan["output"])) == 4
    assert "tiny, split val, 24 images:" in text


def test_the_busy_run_of_a_killed_study_is_waited_for(calls, plan, tmp_path):
    folder = tmp_path / "run"
    assert busy(folder) == ""
    with locked(folder):
        assert f"{folder} is in use by process {os.getpid()}" in busy(folder)
    assert busy(folder) == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_study_that_is_told_to_stop_stops_its_run(calls, plan, tmp_path, root, number, code):
    (calls.folder / "slow").touch()
    path = toml(plan, tmp_path / "STUDY.toml")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, fake_study.__file__, "study", str(path)]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lock = pathlib.Path(plan["output"]) / "runs" / "small" / "tiny" / "seed-0" / ".lock"
    wait_for(lambda: lock.exists() and lock.read_text().startswith("process "))
    trainer = int(lock.read_text().split()[1])
    running.send_signal(number)
    assert running.wait(timeout=60) == code
    with pytest.raises(ProcessLookupError):
        os.kill(trainer, 0)


def test_power_is_told_before_from_a_pilot(calls, plan, tmp_path, capsys):
    plan["seeds"] = 3
    kseg.study(plan)
    pilot = plan["output"]
    plan |= {"output": str(tmp_path / "main"), "pilot": pilot, "seeds": 8}
    capsys.readouterr()
    found = kseg.study(plan)
    (line,) = found.table["before"]
    assert line.startswith("Pilot on tiny, split val, small and large: To see a difference of 0.01 ")
    assert "you have 8 and 12" in line  # seeds of the plan, drives of the pilot
    assert capsys.readouterr().out.splitlines()[0] == line
    assert report(plan["output"]).table["before"] == [line]
    plan |= {"output": str(tmp_path / "third"), "models": [{"name": "large"}]}
    with pytest.raises(InputError, match="A pilot must have two finished seeds of two models"):
        kseg.study(plan)


def test_the_script_exits_with_1_for_a_broken_run_and_reports_without_training(calls, plan, tmp_path, call_script):
    (calls.folder / "break-small-0").touch()
    path = toml(plan, tmp_path / "STUDY.toml")
    code, out, _ = call_script("study", path)
    assert code == 1 and "BROKEN small/tiny/seed-0" in out
    calls()
    code, out, _ = call_script("study", "--report", plan["output"], "--equivalence=.02")
    assert code == 0 and calls() == []
    assert "1 run not there: small/tiny/seed-0." in out and "difference of 0.02" not in out  # one seed has no budget
    assert json.loads((pathlib.Path(plan["output"]) / "report.json").read_text())["equivalence"] == 0.02
    code, _, err = call_script("study", path, "--report", plan["output"])
    assert code == 2 and "--report takes no STUDY.toml" in err
    code, _, err = call_script("study", "--report", tmp_path / "nowhere")
    assert code == 2 and "nowhere must be a folder, the output of kseg study, but does not exist" in err
    (tmp_path / "nowhere").mkdir()
    code, _, err = call_script("study", "--report", tmp_path / "nowhere")
    assert code == 2 and "holds no study" in err


def test_a_report_needs_no_framework(calls, plan, root):
    kseg.study(plan)
    program = (
        "import sys\nfrom kseg.studies.study_report import report\n"
        f"print(report({plan['output']!r}))\nprint({{'tensorflow', 'keras'}} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
