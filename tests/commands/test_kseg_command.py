"""The command `kseg`, and the configs that it finds by name."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from kseg.commands import command_line, configs_command, flagfiles, main, train_command
from kseg.io.errors import InputError
from kseg.models import MODELS, options_of
from kseg.settings import COMPUTED, GROUPS, MODEL_FILES, Settings, options_in_source
from kseg.settings import configs as config_files

WITHOUT_SCRIPT = {"configs", "benchmark"}  # scripts/benchmark.py is another: it measures kseg against its peers


def kseg(*arguments, cwd, root):
    """Run the command in a process of its own; gives (exit code, stdout, stderr)."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "kseg", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that is no clone, and in it a package folder whose configs are known."""
    configs = tmp_path / "package" / "kseg" / "configs"
    (configs / "shared").mkdir(parents=True)
    (configs / "studies").mkdir()
    (configs / "a.flags").write_text(
        "# A net.\n# Measured: 3 minutes,\n# mean IoU 0.5.\n--model=unet\n--flagfile=shared/data.flags\n--epochs=2\n"
    )
    (configs / "shared" / "data.flags").write_text("# Of all.\n--dataset=camvid\n--epochs=1\n")
    (configs / "studies" / "s.toml").write_text(
        '# Which?\n# Expected: not yet run.\nname = "s"\n[[data]]\ndataset = "synthetic"\n'
        '[[models]]\nname = "unet"\n[[models]]\nname = "segnet"\n'
    )
    monkeypatch.setattr(config_files, "_PACKAGE", configs.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_script_is_a_command(root):
    scripts = {path.stem.removesuffix("_data") for path in (root / "scripts").glob("*.py")}
    assert main.COMMANDS.keys() == scripts - {"benchmark"} | WITHOUT_SCRIPT


@pytest.mark.parametrize("arguments", [("--help",), ("configs",), ("help", "train")])
def test_output_that_goes_nowhere_ends_without_a_traceback(arguments, root):
    command = [sys.executable, "-m", "kseg", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("error: Cannot write: No space left on device. Make room, and start again.\n")
    assert done.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")


def test_a_working_folder_that_is_gone_is_told(tmp_path, root):
    gone = tmp_path / "gone"
    gone.mkdir()
    program = (
        "import os, sys; sys.argv = ['kseg', 'study', 'streets']; from kseg.commands.main import main; "
        "os.rmdir(os.getcwd()); main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=gone, check=False)
    assert done.returncode == 2
    assert done.stderr == "kseg: error: The working folder no longer exists. Change to another one.\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-m", "kseg", "configs", "--copy=quickstart", "--output=\u00fc.flags"), 0),  # prints the path
        (("scripts/evaluate.py", "--model=\u00fc", "--data_dir=x"), 2),
    ],
)
def test_a_character_that_the_output_cannot_encode_is_escaped(arguments, code, tmp_path, root):
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": "ascii"}
    arguments = [str(root / part) if part.startswith("scripts/") else part for part in arguments]
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    escaped = "\u00fc".encode("ascii", "backslashreplace").decode()
    assert done.returncode == code and escaped in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["1", "7", "wide"])
def test_help_takes_a_terminal_of_any_width(columns, monkeypatch, call_script):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call_script("predict", "--help")
    assert code == 0 and out.startswith("Label photographs and videos") and "--images" in out


@pytest.mark.parametrize("command", main.COMMANDS)
@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_breaks_no_path_of_a_page(command, columns, monkeypatch, call_script):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call_script(command, "--help")
    assert code == 0
    for page in re.findall(r"docs/[^\s)]*", out):
        assert page.rstrip(".,:") in ("docs/",) or page.rstrip(".,:").endswith(".md"), page


@pytest.mark.parametrize("command", main.COMMANDS)
@pytest.mark.parametrize("columns", ["40", "80"])
def test_help_breaks_no_value_and_folds_all_but_the_examples(command, columns, monkeypatch, call_script):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(command_line, "as_typed", str)  # which may lengthen what is folded
    code, out, _ = call_script(command, "--help")
    module = importlib.import_module(f"kseg.commands.{main.COMMANDS[command]}")
    assert code == 0 and ".;" not in out
    for name in module.FLAGS:
        for value in getattr(module.FLAGS[name].parser, "enum_values", None) or []:
            assert re.search(rf"[<| ]{value}[|>]", out), value
    parts = module.__doc__.split("\n\n")
    assert all(example.rstrip() in out for example in parts if example.startswith(" "))
    assert out.split()[: len(module.__doc__.split())] == module.__doc__.split()  # no word is lost or broken
    for line in out.split("\n\nFlags:")[0].split("\n"):
        assert len(line) <= int(columns) or line.startswith(" ") or " " not in line, line


@pytest.mark.parametrize("backend", ["nonsense", "torch"])
def test_a_backend_that_kseg_does_not_take_is_refused(backend, monkeypatch, tmp_path, root):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    size = ("--height=32", "--width=32", "--base_filters=2")
    code, _, err = kseg("benchmark", "--model=unet", *size, cwd=tmp_path, root=root)
    message = f"KERAS_BACKEND must be tensorflow or jax, got {backend!r}. Set one of them, or unset it."
    assert (code, err) == (2, f"kseg benchmark: error: {message}\n")


def test_flags_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "windows.flags"
    file.write_bytes("--model=unet\r\n--epochs=2\r\n".encode("utf-8-sig"))
    assert flagfiles.expand_flagfiles([f"--flagfile={file}"]) == ["--model=unet", "--epochs=2"]


def test_help_lists_the_commands_and_imports_no_framework(root, tmp_path):
    program = (
        "import sys; sys.argv = ['kseg', '--help']\n"
        "from kseg.commands.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, {'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    for name in main.COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.importlib, "import_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["kseg", "train"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 130


def test_a_command_is_the_same_code_as_its_script(root, tmp_path):
    code, out, _ = kseg("train", "--help", cwd=tmp_path, root=root)
    assert code == 0 and out.startswith(train_command.__doc__.split("\n")[0])
    assert "\n    kseg train --flagfile=quickstart\n" in out
    assert kseg("train", "--help=x", cwd=tmp_path, root=root) == (code, out, "")
    code, _, error = kseg("train", "--learning_rat=1", cwd=tmp_path, root=root)
    assert code == 2 and error.startswith("kseg train: error: Unknown command line flag 'learning_rat'")
    (tmp_path / "mine.flags").write_text("--learning_rat=1\n")
    code, _, error = kseg("train", "--flagfile=mine.flags", cwd=tmp_path, root=root)
    assert code == 2 and "flag 'learning_rat'" in error and error.endswith("It stands in a flagfile.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "Commands (kseg COMMAND --help says more):"),
        (["--version"], 0, "kseg 0."),
        (["trian"], 2, "unknown command 'trian'. Did you mean train? Commands: prepare, train"),
        (["--model=unet"], 2, "unknown command '--model=unet'. Commands: prepare, train"),
    ],
)
def test_what_is_no_command(monkeypatch, capsys, arguments, code, text):
    monkeypatch.setattr(sys, "argv", ["kseg", *arguments])
    found = 0
    try:
        main.main()
    except SystemExit as end:
        found = end.code
    captured = capsys.readouterr()
    assert found == code and text in captured.out + captured.err


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_opens_with_three_examples(command):
    help_text = importlib.import_module(f"kseg.commands.{main.COMMANDS[command]}").__doc__
    _, examples, *_ = help_text.split("\n\n")
    assert [line.split()[0] for line in examples.splitlines()] == ["kseg"] * 3
    assert all(line.startswith("    kseg ") for line in examples.splitlines())
    assert f"kseg {command}" in examples


def test_help_has_groups_with_names(call_script):
    code, out, _ = call_script("train", "--help")
    assert code == 0
    headings = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Flags", *GROUPS.values()]
    assert "kseg." not in out.replace("kseg.MODELS", "")
    for name in [*Settings.__dataclass_fields__, "model", "workdir"]:
        assert f"\n  --{name}: " in out or f"\n  --[no]{name}: " in out
    assert all(f"{name}," in out or f"{name}." in out for name in MODEL_FILES)
    assert GROUPS.keys() <= Settings.__dataclass_fields__.keys()


def test_options_are_read_from_the_source_of_each_builder():
    for name in MODELS:
        of_source, of_builder = options_in_source(name), options_of(name)
        assert list(of_source) == list(of_builder) != []
        computed = {option for option, default in of_source.items() if default is COMPUTED}
        assert computed <= {"initializer", "decoder_initializer", "depth"}
        assert all(of_source[option] == of_builder[option] for option in of_builder.keys() - computed)


def test_a_config_is_found_by_name_and_a_file_of_that_path_wins(clone):
    expected = ["--model=unet", "--dataset=camvid", "--epochs=1", "--epochs=2"]
    for name in ("a", "a.flags", "configs/a.flags"):
        assert flagfiles.expand_flagfiles([f"--flagfile={name}"]) == expected
    assert config_files.find_config("s", "studies") == config_files.find_config("studies/s.toml")
    (clone / "a").write_text("--model=mine\n")
    assert flagfiles.expand_flagfiles(["--flagfile=a"]) == ["--model=mine"]
    with pytest.raises(flags.Error, match="Cannot read flagfile b: .*kseg configs"):
        flagfiles.expand_flagfiles(["--flagfile=b"])


def test_configs_are_listed_with_what_they_say_of_themselves(clone):
    found = {name: config_files.read_config(name, path) for name, path in config_files.config_files().items()}
    assert list(found) == ["a", "studies/s"]  # what others share is no config
    assert vars(found["a"]) == {
        "name": "a",
        "model": "unet",
        "dataset": "camvid",
        "measured": "3 minutes, mean IoU 0.5.",
    }
    assert (found["studies/s"].model, found["studies/s"].dataset) == ("unet, segnet", "synthetic streets")


def test_a_copied_config_needs_no_other_file(clone):
    assert configs_command.copy_config("a") == pathlib.Path("a.flags")
    (clone / "package").rename(clone / "gone")
    expected = ["--model=unet", "--dataset=camvid", "--epochs=1", "--epochs=2"]
    assert flagfiles.expand_flagfiles(["--flagfile=a.flags"]) == expected


def test_a_copy_names_the_commands_of_an_installed_kseg_and_itself(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags_file = configs_command.copy_config("segnet_aspp", "mine.flags").read_text(encoding="utf-8")
    assert "\n#   kseg train --flagfile=mine.flags\n" in flags_file
    study = configs_command.copy_config("studies/streets").read_text(encoding="utf-8")
    assert "\n#   kseg study streets.toml\n" in study and "\n#   kseg prepare --dataset=synthetic " in study
    assert "scripts/" not in flags_file + study


def test_copying_replaces_nothing(clone):
    (clone / "a.flags").write_text("mine")
    with pytest.raises(InputError, match="a.flags is there already"):
        configs_command.copy_config("a")
    assert (clone / "a.flags").read_text() == "mine"
    with pytest.raises(InputError, match="no config 'b'. The configs are a, studies/s"):
        configs_command.copy_config("b")
    assert configs_command.copy_config("a", "nofolder/") == pathlib.Path("nofolder/a.flags")
    assert (clone / "nofolder/a.flags").is_file()
    configs_command.copy_config("studies/s", "new/folder/other.toml")
    assert (clone / "new/folder/other.toml").read_text().endswith('name = "segnet"\n')


def test_every_config_says_what_it_is(root):
    for name, path in config_files.config_files().items():
        found = config_files.read_config(name, path)
        assert found.model and found.dataset and found.measured, name


def test_a_reader_that_stops_early_is_no_error(root, tmp_path):
    command = f"{sys.executable} -m kseg configs | head -1"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.startswith("Train one with") and not done.stderr
