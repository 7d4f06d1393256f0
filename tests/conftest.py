"""What every test shares. The environment is set before TensorFlow is imported."""

import importlib
import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # two lines of noise per process, and results that differ
# XLA compiles for every test anew what runs but a few times.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job: tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def forgotten_flags():
    """The flags of a command are one object for all tests of a process: none may leave values behind."""
    yield
    for name, module in list(sys.modules.items()):
        if name.startswith("kseg.commands.") and hasattr(module, "FLAGS"):
            for flag in module.FLAGS:
                module.FLAGS[flag].unparse()


@pytest.fixture
def call_script(monkeypatch, capsys):
    """A function: name of a script and its arguments -> (exit code, stdout, stderr); it runs in this process."""
    from kseg.commands import command_line

    monkeypatch.setattr(command_line, "_show_log", lambda: None)

    def call(name, *arguments):
        command = importlib.import_module(f"kseg.commands.{name.removesuffix('_data')}_command")
        code = 0
        for flag in command.FLAGS:
            command.FLAGS[flag].unparse()
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            command.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def root():
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """Records of `tiny.write_folder`, which is the folder source beside them; no test writes there."""
    import tiny

    return tiny.write_records(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def camvid():
    """The folder of the real CamVid scenes, or a skip that says where they were looked for."""
    folder = pathlib.Path(os.environ.get("KSEG_CAMVID", ROOT.parent / "shared" / "data" / "camvid"))
    if not (folder / "train" / "images").is_dir():
        pytest.skip(f"CamVid is not at {folder}; set KSEG_CAMVID to its folder")
    return folder


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium through its own driver, or a skip that says what to install."""
    from browsing import start_browser

    with start_browser("--disable-gpu") as browser:
        yield browser
