"""What TensorFlow logs is kept back, and nothing else. A package of its name stands for it, which imports fast."""

import os
import subprocess
import sys

import pytest

PACKAGE = """
import os, sys
import tensorflow.core  # a package within it, as the real one has
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795933953.324385    5642 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"2026-11-29 06:32:33.1: W tensorflow/core/platform/cpu_feature_guard.cc:210] This binary\\n")
print("I am no log", file=sys.stderr)
os.write(2, b"E0000 00:00:1795933964.535116    5642 cuda_platform.cc:52] failed call to cuInit\\n")
"""
PROGRAM = """
import os, sys
{first}
import kseg
import tensorflow, tensorflow.core
print(tensorflow.__name__, os.environ["TF_CPP_MIN_LOG_LEVEL"])
print("after", file=sys.stderr)
"""


@pytest.fixture
def stand_in(tmp_path):
    (tmp_path / "tensorflow" / "core").mkdir(parents=True)
    (tmp_path / "tensorflow" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "tensorflow" / "core" / "__init__.py").touch()
    return tmp_path


def run(folder, root, program, **variables):
    """Run a program in a process that finds `folder` first; gives stdout and the lines of stderr."""
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(folder), str(root)]), **variables}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("first", "variables", "level", "lines"),
    [
        ("", {}, "3", 2),  # what is no log, and what comes afterwards
        ("", {"TF_CPP_MIN_LOG_LEVEL": "1"}, "1", 6),  # the user's word
        # --verbose_tensorflow, and from Python
        ("from kseg.io.tensorflow_log import show_tensorflow_log as show; show()", {}, "0", 6),
        ("os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0'", {}, "0", 6),
    ],
)
def test_the_log_of_an_import_is_kept_back_unless_asked_for(stand_in, root, first, variables, level, lines):
    out, err = run(stand_in, root, PROGRAM.format(first=first), **variables)
    assert out == f"tensorflow {level}\n"
    assert len(err) == lines and err[-1] == "after" and "I am no log" in err


def test_an_import_that_fails_shows_its_error(stand_in, root):
    (stand_in / "tensorflow" / "__init__.py").write_text(f"{PACKAGE}\nraise ImportError('no such library')")
    program = "import kseg\ntry:\n    import tensorflow\nexcept ImportError as error:\n    print(error)"
    assert run(stand_in, root, program) == ("no such library\n", ["I am no log"])


def test_the_flag_asks_for_the_log(call_script, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    code, _, _ = call_script("evaluate", "--audit", "--row=.9,.9,.9,.9,.9")
    assert code == 0 and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    code, _, _ = call_script("evaluate", "--audit", "--row=.9,.9,.9,.9,.9", "--verbose_tensorflow")
    assert code == 0 and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
