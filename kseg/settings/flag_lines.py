"""How flags.txt writes a setting, and what options of models were called before."""

import json

from kseg.io.errors import InputError

# Options of builders by (model, name of earlier days): flag files, runs and calls of those days go on.
_RENAMED_OPTIONS = {("deeplabv3", "backbone"): "encoder"}


def current_options(model, options):
    """Return a builder's options by the names of today; one that is given by both names keeps both.

    Args: `model`: a name of `kseg.MODELS`. `options`: dict.
    """
    current = {}
    for name, value in options.items():
        new = _RENAMED_OPTIONS.get((model, name), name)
        if new in options:
            new = name
        current[new] = value
    return current


def flag_line(name, value):
    """Return a flagfile's line for a flag: `--name=value`, or `--name:="value"` (JSON) if need be.

    Args:
        name: of the flag. value: any str.
    Returns:
        str, one line that `read_flag_line` reads back.
    """
    line = f"--{name}={value}"
    plain = line.isprintable() and line == line.strip() and " #" not in line
    return line if plain else f"--{name}:={json.dumps(value)}"


def read_flag_line(line):
    """Return (name, value) of a line that `flag_line` or a person wrote; ValueError if a quoted value is not JSON."""
    name, _, value = line.removeprefix("--").partition("=")
    if not name.endswith(":"):
        return name, value
    try:
        value = json.loads(value) if value.startswith('"') else None
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise InputError(f'After := the value must be JSON text in double quotes, as in --{name}="a #1", got {line!r}.')
    return name.removesuffix(":"), value
