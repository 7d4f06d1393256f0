"""The scripts as a user meets them: help, bad input, flagfiles; `import kseg`."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import pytest
import tiny
from absl import flags

from kseg.commands import command_line, compare_command, evaluate_command, train_command
from kseg.commands.flagfiles import expand_flagfiles

SCRIPTS = (
    "prepare_data.py",
    "train.py",
    "evaluate.py",
    "predict.py",
    "calibrate.py",
    "export.py",
    "compare.py",
    "study.py",
    "serve.py",
)


def run(root, script, *arguments):
    """Run a script in a process of its own; gives (exit code, stdout, stderr)."""
    command = [sys.executable, str(root / "scripts" / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for name in ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):  # as users run it
        environment.pop(name, None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_tells_the_flags_and_loads_no_framework(root, script):
    program = (
        "import sys, runpy, kseg; kseg.__version__\n"
        f"sys.argv = [{script!r}, '--help']\n"
        f"runpy.run_path({str(root / 'scripts' / script)!r}, run_name='__main__')\n"
        "print({'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    # A flag of its own and the docstring of the command, which shows how to call it.
    assert f"python scripts/{script} " in done.stdout and "\n  --" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_every_script_is_the_command_of_its_name(root):
    assert {path.name for path in (root / "scripts").glob("*.py")} == {*SCRIPTS, "benchmark.py"}
    for script in SCRIPTS:
        _, imported, *start = (root / "scripts" / script).read_text().split("\n\n")
        module = script.removesuffix(".py").removesuffix("_data")
        assert imported == f"from kseg.commands.{module}_command import main"
        assert start == ['if __name__ == "__main__":\n    main()\n']  # guarded: prepare_data.py spawns processes


@pytest.mark.parametrize("command", [compare_command, evaluate_command])
def test_flags_that_commands_share_are_under_the_heading_of_each(command):
    shared = {"data_dir", "split", "label_set", "label_space", "batch_size"}
    headings = command.FLAGS.flags_by_module_dict()
    assert list(headings) == [command.__name__]
    assert shared <= {flag.name for flag in headings[command.__name__]}


def test_the_command_line_wins_in_any_order(tmp_path):
    (tmp_path / "nested").mkdir()
    (tmp_path / "a.flags").write_text("# a comment\n\n--rate=1\n--flagfile=nested/b.flags\n")
    (tmp_path / "nested" / "b.flags").write_text("--rate=2\n--flagfile=../c.flags\n")
    (tmp_path / "c.flags").write_text("--size=3\n")
    assert expand_flagfiles(["--rate=9", f"--flagfile={tmp_path}/a.flags"]) == [
        "--rate=1",
        "--rate=2",
        "--size=3",
        "--rate=9",
    ]


def test_a_path_in_the_home_folder_is_found_after_an_equals_sign(tmp_path, monkeypatch):
    """No shell expands the ~ of --workdir=~/runs: the folder would be called "~"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.flags").write_text("--data_dir=~/data\n")
    given = ["--flagfile=~/a.flags", "--workdir=~/runs/a=b", "--images", "~/p/*.jpg", "--row=~1", "a=~/b", "--x=a~/b"]
    assert expand_flagfiles(given) == [
        f"--data_dir={tmp_path}/data",
        f"--workdir={tmp_path}/runs/a=b",
        "--images",
        f"{tmp_path}/p/*.jpg",
        "--row=~1",
        "a=~/b",
        "--x=a~/b",
    ]


def test_a_flag_that_is_gone_still_reads_from_an_old_flagfile(tmp_path, capsys):
    (tmp_path / "flags.txt").write_text("--epochs=3\n--on_conflict=new\n# until step 9: --epochs=2\n--seed=1\n")
    assert expand_flagfiles([f"--flagfile={tmp_path}/flags.txt"]) == ["--epochs=3", "--seed=1"]
    assert "flags.txt:2: --on_conflict=new has no effect: this flag no longer exists.\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("--train_steps=3", ["--seed=1", "--train_steps=3"]),
        ("--epochs=2", ["--epochs=3", "--seed=1", "--epochs=2"]),
        ("--train_steps=0", ["--epochs=3", "--seed=1", "--train_steps=0"]),  # says nothing of the length
    ],
)
def test_a_length_that_is_typed_takes_the_place_of_the_files(tmp_path, typed, left):
    (tmp_path / "a.flags").write_text("--epochs=3\n--seed=1\n")
    assert expand_flagfiles([f"--flagfile={tmp_path}/a.flags", typed]) == left
    (tmp_path / "b.flags").write_text(f"--flagfile={tmp_path}/a.flags\n--train_steps=7\n--epochs=0\n")
    assert expand_flagfiles([f"--flagfile={tmp_path}/b.flags"]) == ["--seed=1", "--train_steps=7"]
    assert expand_flagfiles([f"--flagfile={tmp_path}/a.flags", "--train_steps", "0"])[0] == "--epochs=3"
    assert expand_flagfiles([typed, "--epochs=5", f"--flagfile={tmp_path}/a.flags"])[:2] == ["--epochs=3", "--seed=1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rate=0.7", "2: a line must be --flag=value"),
        ("--rate=0.7 # fast", "2: move the comment"),
        ("--flagfile=a.flags", "includes itself"),
        ("--flagfile=missing.flags", "Cannot read flagfile missing.flags"),
    ],
)
def test_bad_flagfile_lines(tmp_path, line, message):
    (tmp_path / "a.flags").write_text(f"--size=3\n{line}\n")
    with pytest.raises(flags.Error, match=message):
        expand_flagfiles([f"--flagfile={tmp_path}/a.flags"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "--model=segnet"], "--data_dir and --workdir must be given"),
        (["train.py", "--learning_rat=1"], "Unknown command line flag 'learning_rat'"),
        (["train.py", "learning_rate=1"], "Every argument must be --flag=value, got 'learning_rate=1'"),
        (["train.py", "--optimizer=lion"], "optimizer"),
        (["train.py", "--flagfile=nothing.flags"], "Cannot read flagfile"),
        (["train.py", "--model=segnet", "--data_dir=d", "--workdir=w"], "either --epochs or --train_steps"),
        (["train.py", "--model=m", "--data_dir=a", "--workdir=b/../a"], "different folders, got b/../a for both"),
        (
            ["train.py", "--model_options=[1]", "--model=fpn", "--data_dir=d", "--workdir=w", "--epochs=1"],
            "JSON object",
        ),
        (["prepare_data.py", "--dataset=kitti", "--output=o"], "dataset"),
        (["evaluate.py", "--model=no/such/run", "--data_dir=d"], "No model at no/such/run"),
        (["compare.py", "run_a", "--data_dir=d", "--output=o"], "Give two models or more before the flags, got run_a"),
        (["compare.py", "no/a", "--data_dir=d", "no/b", "--output=o"], "No model at no/a: give a run folder"),
        (["predict.py", "--model=m", "--images=none*.png", "--output=o"], "No file matches none*.png"),
        (["export.py", "--model=a,b", "--output=o"], "--model must be one model, got 'a,b'. Export the models of an"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0] + value[-1],
)
def test_bad_input_is_one_line_and_exit_code_2(call_script, arguments, message):
    script, *options = arguments
    code, _, error = call_script(script.removesuffix(".py"), *options)
    assert code == 2
    (line,) = [line for line in error.splitlines() if "error:" in line]
    assert message in line and "Traceback" not in error


def test_missing_records_say_what_to_download_in_three_lines(root):
    code, _, error = run(root, "train.py", "--flagfile=configs/segnet_aspp.flags", "--data_dir=no/records")
    lines = error.strip().splitlines()
    assert code == 2 and len(lines) == 3
    assert "leftImg8bit_trainvaltest.zip" in lines[0] and "cityscapes-dataset.com" in lines[0]
    assert lines[2] == "python scripts/prepare_data.py --dataset=cityscapes --source=THAT_FOLDER --output=no/records"


def test_train_evaluate_predict_export_from_the_command_line(root, tmp_path, call_script):
    """One narrow U-Net for one step, through every script; what follows the training runs in this process."""
    source = tiny.write_folder(tmp_path / "source", train=4, val=2, size=(32, 32))
    code, out, error = run(
        root, "prepare_data.py", "--dataset=folder", f"--source={source}", f"--output={tmp_path}/data"
    )
    assert code == 0 and "4 train, 2 val" in out, error
    workdir = tmp_path / "run"
    common = (f"--data_dir={tmp_path}/data", f"--workdir={workdir}", "--batch_size=2", "--train_steps=1")
    small = ("--model=unet", "--base_filters=2", '--model_options={"depth": 2}')
    code, out, error = run(root, "train.py", *small, *common)
    assert code == 0, error[-3000:]
    assert "best.keras of epoch 1 of 1 (step 1) on the validation split:" in out and "2/2 images" in out
    assert f"\nIn {workdir}:\n" in out and "\n  saved_model " in out
    # What is worth typing next, as this user types it.
    *_, look, compare, export = out.splitlines()
    assert look.split()[:4] == ["look", "python", "scripts/predict.py", f"--model={workdir}"]
    assert compare.split()[:4] == ["compare", "python", "scripts/compare.py", str(workdir)]
    assert export.split()[:4] == ["export", "python", "scripts/export.py", f"--model={workdir}"]
    assert "oneDNN custom" not in error and "cuInit" not in error and "absl" not in error
    code, out, error = call_script("train", f"--flagfile={workdir}/flags.txt", f"--workdir={workdir}")
    assert code == 0 and "is finished" in out, error  # the stored flags are those of the run
    tables = []
    for model in (workdir, workdir / "best.keras", workdir / "saved_model"):
        output = tmp_path / f"{model.name}.json"
        code, _, error = call_script(
            "evaluate", f"--model={model}", f"--data_dir={tmp_path}/data", f"--output={output}"
        )
        assert code == 0, error
        tables.append(json.loads(output.read_text()))
    assert [table.pop("reads") for table in tables] == ["Keras", "Keras", "SavedModel"]
    assert tables[0] == tables[1] == tables[2]
    of_run = json.loads((workdir / "scores.json").read_text())
    assert (of_run.pop("epoch"), of_run.pop("step")) == (1, 1) and of_run == tables[0]
    image = source / "val" / "images" / "val_0.png"
    code, _, error = call_script("predict", f"--model={workdir}", f"--images={image}", f"--output={tmp_path}/labels")
    labels = tmp_path / "labels"
    assert code == 0, error
    assert sorted(labels.glob("**/*.png")) == [labels / "color" / "val_0.png", labels / "val_0.png"]
    (workdir / "best.keras").write_bytes((workdir / "best.keras").read_bytes()[:1000])
    code, _, error = call_script("export", f"--model={workdir}/best.keras", f"--output={tmp_path}/export")
    assert code == 2 and "best.keras is damaged" in error and not (tmp_path / "export").exists()


def test_a_warning_is_a_line_without_a_place_in_the_code():
    with command_line._warnings_in_a_line("kseg export"):
        told = warnings.formatwarning(UserWarning("Set epochs=3."), UserWarning, "kseg/a.py", 7)
        other = warnings.formatwarning(RuntimeWarning("overflow"), RuntimeWarning, "kseg/a.py", 7, "x = y")
    assert told == "kseg export: warning: Set epochs=3.\n"
    assert "a.py:7: RuntimeWarning: overflow" in other


def test_what_kseg_reports_is_printed(monkeypatch, capsys):
    """Which encoder weights were used is a line of the log; a script prints it."""
    log = logging.getLogger("kseg")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", logging.NOTSET)
    command_line._show_log()
    log.info("26 of 26 encoder arrays")
    assert capsys.readouterr().out == "26 of 26 encoder arrays\n"


def test_a_bad_crop_shows_before_streets_are_drawn(tmp_path):
    """The crop is what must divide by 32, not the size that the whole image is brought to."""
    paths = (f"--data_dir={tmp_path}/data", f"--workdir={tmp_path}/run")
    common = ("--model=segnet", "--base_filters=2", "--dataset=synthetic", "--epochs=1", "--height=40", "--width=64")
    train_command.FLAGS(["train.py", *paths, *common, "--crop_height=16", "--crop_width=32"])
    with pytest.raises(ValueError, match="multiples of 32, got 16x32"):
        train_command.run(train_command.FLAGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("converter", "backend", "export"),
    [
        (object(), "tensorflow", "kseg export --model='runs/a b' --format=onnx --output='runs/a b.onnx'"),
        (None, "tensorflow", "kseg export --model='runs/a b' --format=savedmodel --output='runs/a b-saved_model'"),
        (None, "jax", "KERAS_BACKEND=tensorflow kseg export --model='runs/a b' --format=savedmodel"),
    ],
)
def test_the_export_that_a_run_proposes_is_one_that_can_be_done_here(converter, backend, export, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kseg train"])
    monkeypatch.setattr(train_command.importlib.util, "find_spec", lambda package: converter)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("runs/a b").mkdir(parents=True)
    lines = train_command.next_commands("runs/a b/", "data").splitlines()
    assert lines[-1].startswith(f"  export   {export}")
    assert lines[-2] == "  compare  kseg compare 'runs/a b' ANOTHER_RUN --data_dir=data --output=report"


def test_the_comparison_that_a_run_proposes_is_with_the_latest_run_on_its_records(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kseg train"])
    monkeypatch.chdir(tmp_path)
    for name, data, finished in (("a", "data", 1), ("b", "data", 2), ("c", "other", 3), ("d", "data", None)):
        folder = pathlib.Path("runs", name)
        folder.mkdir(parents=True)
        (folder / "flags.txt").write_text(f"--model=unet\n--data_dir={data}\n")
        if finished:
            (folder / "scores.json").touch()
            os.utime(folder / "scores.json", (finished, finished))
    said = train_command.next_commands("runs/d", "data")
    assert "  compare  kseg compare runs/d runs/b --data_dir=data" in said
