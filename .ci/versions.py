"""What people install: builds the distributions, checks them, and tries the wheel outside of the clone.

    python .ci/versions.py [FOLDER] [--only=NAME,NAME]

Installs the wheel with the lowest and the newest versions that setup.cfg allows on every Python that is here, and runs
tests/programs/smoke.py there; also what docs/reference/versions.md says for JAX without TensorFlow, and the commands of
the quickstart. FOLDER keeps environments and logs. Needs uv, build and twine; uv's cache makes the second time cheap.
"""

import argparse
import concurrent.futures
import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

CLONE = pathlib.Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Of these wheels alone: the lowest versions are those that a Python can have without a compiler.
COMPILED = ("numpy", "scipy", "h5py", "pillow", "protobuf", "google-crc32c", "tensorflow", "ml-dtypes", "grpcio")
HERE = "{}.{}".format(*sys.version_info)
AT_ONCE = 2  # environments that are made and tried side by side
SMOKE = str(CLONE / "tests" / "programs" / "smoke.py")
# As docs/reference/versions.md has it, which a test holds equal: what an installed kseg needs besides TensorFlow.
REQUIREMENTS = """
from importlib.metadata import requires
for line in requires('kseg'):
    if 'extra' not in line and not line.startswith(('tensorflow', 'keras-cv')):
        print(line)
"""
JAX = "jax>=0.5"
QUICKSTART = (
    ("configs", "--copy=quickstart"),
    ("prepare", "--dataset=synthetic", "--train_scenes=4", "--val_scenes=2", "--output=data/quickstart"),
    ("train", "--flagfile=quickstart", "--epochs=1", "--height=32", "--width=64", "--base_filters=2"),
)


class Failed(Exception):
    """A command ended with another code than 0."""


class UnreachableError(Exception):
    """The packages cannot be had here: no network."""


def run(command, log, folder, **variables):
    """Run a command in a folder, its output at the end of a log; Failed with the log's end if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KERAS_BACKEND")}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "UV_PYTHON_DOWNLOADS": "never", **variables}
    environment["UV_LOCK_TIMEOUT"] = "3600"  # one waits while another downloads TensorFlow
    # As in tests/conftest.py: what runs but a few times is not worth XLA's time.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=file, cwd=folder, env=environment, check=False)
    if done.returncode:
        text = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{text[-4000:]}")


def find_python(version):
    """Return the path of a Python of this version, of pyenv or on PATH; None if there is none."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"), "versions")
    candidates = [str(folder / "bin" / "python") for folder in sorted(pyenv.glob(f"{version}.*"))]
    for candidate in (*candidates, shutil.which(f"python{version}")):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if candidate and subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    return None


def build(folder):
    """Build sdist and wheel of what git knows of, check both, and return the wheel's path."""
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CLONE, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (CLONE / name).is_file():
            shutil.copy(CLONE / name, source / name)
    log = folder / "build.log"
    run([sys.executable, "-m", "build", "--outdir", folder / "dist", source], log, folder)
    made = sorted((folder / "dist").iterdir())
    run([sys.executable, "-m", "twine", "check", "--strict", *made], log, folder)
    (wheel,) = (path for path in made if path.suffix == ".whl")
    return wheel


class Environment:
    """A fresh virtual environment in which the wheel is installed and commands of kseg's run."""

    def __init__(self, folder, name, python):
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.log = folder / f"{name}.log"
        self.bin = self.folder / "venv" / "bin"
        run(["uv", "venv", "--quiet", "--python", python, self.folder / "venv"], self.log, folder)

    def install(self, *arguments):
        """Install with uv."""
        wheels = [word for package in COMPILED for word in ("--only-binary", package)]
        command = ["uv", "pip", "install", "--quiet", *wheels, "--python", self.bin / "python", *arguments]
        try:
            run(command, self.log, self.folder)
        except Failed as error:
            if re.search("Failed to fetch|Request failed|error sending request", str(error)):
                raise UnreachableError from error
            raise

    def run(self, program, *arguments, **variables):
        """Run a program of the environment in its folder, where no kseg lies."""
        run([self.bin / program, *arguments], self.log, self.folder, **variables)

    def smoke(self, **variables):
        """Run the smoke test; returns the line that says with which versions."""
        self.run("python", SMOKE, "smoke", **variables)
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith("smoke test passed"))


def requirements_of(wheel):
    """Return what a wheel requires without any extra: uv takes the lowest versions only of what it is asked for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]


def with_tensorflow(folder, name, python, wheel, resolution):
    """The smoke test with the lowest or the newest versions."""
    environment = Environment(folder, name, python)
    environment.install("--resolution", resolution, wheel, *requirements_of(wheel))
    return environment.smoke()


def with_jax_alone(folder, name, python, wheel, resolution):
    """The smoke test where the package tensorflow is not installed."""
    environment = Environment(folder, name, python)
    environment.install("--no-deps", wheel)
    command = [environment.bin / "python", "-c", REQUIREMENTS]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=environment.folder).stdout
    environment.install("--resolution", resolution, *listed.splitlines(), JAX)
    absent = "import importlib.util; assert importlib.util.find_spec('tensorflow') is None"
    environment.run("python", "-c", absent)
    return environment.smoke(KERAS_BACKEND="jax")


def with_the_command(folder, name, python, wheel, resolution):
    """What the README shows first, at a tiny size, by the command that pip installs."""
    environment = Environment(folder, name, python)
    environment.install("--resolution", resolution, wheel)
    for arguments in QUICKSTART:
        environment.run("kseg", *arguments)
    scores = environment.folder / "runs" / "quickstart" / "scores.json"
    if not scores.exists():
        raise Failed(f"{scores} is missing")
    return "kseg configs, prepare and train --flagfile=quickstart ran"


def planned(only):
    """Return name -> (function, Python's version, resolution) of everything to try."""
    found = {}
    for version in dict.fromkeys((*PYTHONS, HERE)):
        # On its own Python, .ci/run has run all tests with the newest versions: there the commands are tried instead.
        newest = with_the_command if version == HERE else with_tensorflow
        found[f"{version}-newest"] = (newest, version, "highest")
        found[f"{version}-lowest"] = (with_tensorflow, version, "lowest-direct")
    found["jax-without-tensorflow"] = (with_jax_alone, HERE, "highest")
    return {name: row for name, row in found.items() if not only or name in only}


def attempt(folder, name, row, wheel):
    """Try one; returns its line and whether it did not fail. The environment is deleted, its log stays."""
    function, version, resolution = row
    began = time.monotonic()
    python = sys.executable if version == HERE else find_python(version)
    if python is None:
        return f"{name}: NOT RUN, no Python {version} here", True
    try:
        text = function(folder, name, python, wheel, resolution)
    except UnreachableError:
        return f"{name}: NOT RUN, the packages cannot be had here", True
    except Failed as error:
        return f"{name}: FAILED\n{error}", False
    shutil.rmtree(folder / name)
    return f"{name} ({time.monotonic() - began:.0f} s): {text}", True


def main():
    """Print a line for each; the exit code is 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", default="", help="names of what to try, with commas")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or pathlib.Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        wheel = build(folder)
        print(f"{wheel.name}: built, twine finds nothing", flush=True)
        rows = planned(arguments.only.split(",") if arguments.only else [])
        good = []
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(attempt, folder, name, row, wheel) for name, row in rows.items()]
            for job in concurrent.futures.as_completed(jobs):
                text, passed = job.result()
                print(text, flush=True)
                good.append(passed)
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
