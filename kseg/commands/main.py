"""The command `kseg`: kseg COMMAND [--flag=value ...], the same code as scripts/COMMAND.py."""

import ast
import contextlib
import errno
import importlib
import importlib.util
import os
import sys

import kseg
from kseg.io.text import did_you_mean

COMMANDS = {
    "prepare": "prepare_command",
    "train": "train_command",
    "evaluate": "evaluate_command",
    "predict": "predict_command",
    "compare": "compare_command",
    "study": "study_command",
    "calibrate": "calibrate_command",
    "export": "export_command",
    "serve": "serve_command",
    "configs": "configs_command",
    "benchmark": "benchmark_command",
}
WITHOUT_SCRIPT = ("configs", "benchmark")  # scripts/benchmark.py is another: it measures kseg against its peers
_EXAMPLES = """\
    kseg train --flagfile=quickstart
    kseg predict --model=runs/quickstart --images=photos --output=labels
    kseg compare runs/r2unet runs/segnet_aspp --data_dir=data/camvid --output=report"""
_SIGPIPE = 13
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@contextlib.contextmanager
def plain_failures(program):
    """While it lasts, what no command can help ends the program without a traceback.

    That is a reader of its output that wants no more, such as head, a full disk, a working folder that is gone, and a
    character that its output's encoding lacks, which is printed escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where something else takes what is printed
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            os.getcwd()
        except FileNotFoundError:
            print(f"{program}: error: The working folder no longer exists. Change to another one.", file=sys.stderr)
            sys.exit(2)
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(128 + _SIGPIPE)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        _drop_output()
        where = f" {error.filename}" if error.filename else ""
        print(f"{program}: error: Cannot write{where}: {error.strerror}. Make room, and start again.", file=sys.stderr)
        sys.exit(2)


def _drop_output():
    """Send what is still to be printed nowhere: Python would complain when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main():
    """Run the command that the first argument names."""
    with plain_failures("kseg"):
        _main(sys.argv[1:])


def _main(arguments):
    if arguments[:1] == ["help"] and arguments[1:2] and arguments[1] in COMMANDS:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("--help", "-h", "-help", "help"):
        print(_help())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(f"kseg {kseg.__version__}")
        return
    name = arguments[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, [*COMMANDS, "--help", "--version"])
        print(f"kseg: error: unknown command {name!r}.{hint} Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"kseg {name}", *arguments[1:]]
    try:
        command = importlib.import_module(f"kseg.commands.{COMMANDS[name]}")
    except KeyboardInterrupt:
        sys.exit(130)
    command.main()


def _help():
    """Return what `kseg --help` prints: a line for each command, from its docstring, without importing it."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_first_sentence(module)}" for name, module in COMMANDS.items()]
    return "\n".join(
        [
            "kseg: train, compare and ship segmentation models of road scenes.",
            "",
            _EXAMPLES,
            "",
            "Commands (kseg COMMAND --help says more):",
            *lines,
        ]
    )


def _first_sentence(module):
    with open(importlib.util.find_spec(f"kseg.commands.{module}").origin, encoding="utf-8") as file:
        text = ast.get_docstring(ast.parse(file.read()))
    return text.split("\n")[0].split(":")[0].removesuffix(".") + "."
