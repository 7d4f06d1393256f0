"""The flags in a command's flagfiles, put before those that were typed."""

import os
import pathlib
import re
import sys

from absl import flags

from kseg.io.errors import InputError
from kseg.settings import read_flag_line
from kseg.settings.configs import find_config

# Flags of earlier versions. A flagfile may still name them; they have no effect.
_REMOVED = ("--on_conflict", "--keep_checkpoints", "--log_every_steps")

_EXCLUDE = ("epochs", "train_steps")  # flags of which a run has one


def expand_flagfiles(arguments):
    """Replace each `--flagfile=PATH` by the flags in it, and put those before all other arguments.

    So flags on the command line always win: --train_steps there also takes the place of a file's --epochs, and the
    other way round. PATH may be the name of one of kseg's own configs. A flagfile may name other flagfiles, at paths
    relative to itself: they are read in place, and the last line wins. A line is a flag, blank, or a comment starting
    with #. A value that contains a line break or " #" is written as JSON after :=, as in --data_dir:="a #1"
    (`settings.flag_line`).

    A value or argument that starts with "~/" is in the home folder: shells leave it as it is after --flag=.

    Args:
        arguments: list of str, the command line without the program's name.
    Returns:
        list of str without any --flagfile.
    Raises:
        flags.Error: a missing file, a file that includes itself, a line that is not a flag, a trailing comment.
    """
    from_files = []
    others = []
    waiting = list(map(_in_home, arguments))
    while waiting:
        argument = waiting.pop(0)
        path = _flagfile_path(argument, waiting)
        if path is None:
            others.append(argument)
        else:
            from_files += _read_flagfile(find_config(path), pathlib.Path("."), ())
    typed = {flag_name(argument): _value(others, place) for place, argument in enumerate(others)}
    for one, other in (_EXCLUDE, _EXCLUDE[::-1]):
        if one in typed and other not in typed and typed[one].strip("0"):
            from_files = [argument for argument in from_files if flag_name(argument) != other]
    return list(map(_in_home, _last_length(from_files))) + others


def _last_length(from_files):
    """Return the flags of files with the last of the lengths that exclude each other."""
    lengths = [flag_name(a) for a in from_files if flag_name(a) in _EXCLUDE and a.partition("=")[2].strip("0")]
    return [a for a in from_files if not lengths or flag_name(a) not in _EXCLUDE or flag_name(a) == lengths[-1]]


def _value(arguments, place):
    """Return the value of a flag among the arguments, which may be the next one."""
    _, equals, value = arguments[place].partition("=")
    return value if equals else "".join(arguments[place + 1 : place + 2])


def flag_name(argument):
    """Return the name of the flag that an argument is."""
    return argument.lstrip("-").partition("=")[0]


def _in_home(argument):
    """Return an argument with the path of the home folder where it, or its value, starts with ~/."""
    name, equals, value = argument.partition("=")
    if argument.startswith("~/"):
        return os.path.expanduser(argument)
    if value.startswith("~/") and re.fullmatch(r"--?\w+", name):
        return f"{name}{equals}{os.path.expanduser(value)}"
    return argument


def _flagfile_path(argument, following):
    """Return the path of a --flagfile argument, which may be the next argument, or None for any other."""
    name, equals, path = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or name != "flagfile":
        return None
    if not path if equals else not following:
        raise flags.Error("--flagfile needs a path.")
    if equals:
        return path
    return following.pop(0)


def _read_flagfile(path, folder, opened):
    try:
        file = folder / path
        file = (file if file.exists() else find_config(str(path))).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise flags.Error(f"Cannot read flagfile {path}: {error}. Give a file.") from error
    if file in opened:
        raise flags.Error(f"Flagfile {path} includes itself.")
    result = []
    for line in _flagfile_lines(file, path):
        nested = _flagfile_path(line, [])
        if nested is None:
            result.append(line)
        else:
            result += _read_flagfile(nested, file.parent, (*opened, file))
    return result


def _flagfile_lines(file, shown):
    if file.exists() and not file.is_file():
        raise flags.Error(f"Cannot read flagfile {shown}: it is no file. Give one.")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
        raise flags.Error(
            f"Cannot read flagfile {shown}: {getattr(error, 'strerror', None) or error}. Give a file, or the name of "
            "one of kseg's own configs, which `kseg configs` lists."
        ) from error
    if file.suffix == ".toml" and "[[models]]" in map(str.strip, lines):
        raise flags.Error(f"{shown} is a study, not a flagfile. Run kseg study {shown}")
    result = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if not line.startswith("--"):
            raise flags.Error(f"{shown}:{number}: a line must be --flag=value or a # comment, got {line!r}.")
        name = line.partition("=")[0]
        if len(name) > 100:
            raise flags.Error(f"{shown}:{number}: no flag has such a long name, got {line[:100]!r}...")
        if name in _REMOVED:
            print(f"{shown}:{number}: {line} has no effect: this flag no longer exists.", file=sys.stderr)
            continue
        if name.endswith(":"):
            try:
                line = "--{}={}".format(*read_flag_line(line))
            except InputError as error:
                raise flags.Error(f"{shown}:{number}: {error}") from error
        elif " #" in line:
            raise flags.Error(f"{shown}:{number}: move the comment to a line of its own, got {line!r}.")
        result.append(line)
    return result
