"""The parent's side: one process per framework, and runs that take turns."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from kseg.io.runtime import ALLOCATOR, LIMIT, ONEDNN

ROOT = pathlib.Path(__file__).resolve().parents[1]


def environment():
    """Of every process that is measured: TensorFlow as it comes, without its log lines."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    chosen = {name: value for name, value in os.environ.items() if name not in (ALLOCATOR, LIMIT, ONEDNN)}
    return {
        **chosen,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }


class Worker:
    """A process of its own that runs the cases of one module of benchmarks/peers; a context manager.

    Args: `module`: its dotted name. `python`: the interpreter that has what it imports.
        `variables`: environment variables beside those of `environment`.
    Raises: ModuleNotFoundError where its framework is not installed; FileNotFoundError without interpreter;
        RuntimeError with the child's last lines where it fails.
    """

    def __init__(self, module, python=sys.executable, **variables):
        self._module = module
        self._errors = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**environment(), **variables},
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise FileNotFoundError(
                f"Cannot run {python} ({error.strerror}). Give the path of a Python interpreter."
            ) from error
        try:
            self.versions = self._receive()["versions"]
        except BaseException:
            self.close()
            raise

    def _receive(self):
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {}
        if "missing" in reply:
            raise ModuleNotFoundError(f"No module named {reply['missing']!r}", name=reply["missing"])
        if not line or "error" in reply:
            self._process.wait(10)
            self._errors.seek(0)
            told = reply.get("error") or self._errors.read()[-2000:]
            raise RuntimeError(f"The worker of {self._module} failed (exit {self._process.returncode}):\n{told}")
        return reply

    def _ask(self, **request):
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it is dead: what is received says why
        return self._receive()

    def prepare(self, key, case, **options):
        """Build a case there, to be run by `key`; returns its facts."""
        return self._ask(do="prepare", key=key, case=case, options=options)["facts"]

    def run(self, key, repeats=1):
        """Run it; returns the mean seconds of one."""
        return self._ask(do="run", key=key, repeats=repeats)["seconds"]

    def drop(self, key):
        """Let go of what `prepare` built."""
        self._ask(do="drop", key=key)

    def peak(self):
        """Peak resident memory of the process in bytes."""
        return self._ask(do="peak")["bytes"]

    def close(self):
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def alternate(runs, rounds, warmups, progress=None):
    """Warm each up, then let them take turns: a b c, a b c, ...

    Args: `runs`: dict from a name to a function without arguments that returns seconds.
        `progress`: called with a line of text per round.
    Returns: dict from name to the list of `rounds` measured seconds.
    """
    for run in runs.values():
        for _ in range(warmups):
            run()
    seconds = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            seconds[name].append(run())
        if progress:
            last = (f"{_shown(name)} {values[-1]:.3g} s" for name, values in seconds.items())
            progress(f"round {number}/{rounds}: {', '.join(last)}")
    return seconds


def _shown(name):
    return name if isinstance(name, str) else " ".join(name)
