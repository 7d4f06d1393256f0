"""List the configs that come with kseg, or copy one to edit it.

    kseg configs
    kseg configs --copy=segnet_aspp
    kseg configs --copy=camvid/laptop --output=mine.flags

`kseg train --flagfile=NAME` takes each by its name.
"""

import os
import pathlib
import shutil
import textwrap

from absl import flags

from kseg.commands import command_line
from kseg.io.errors import InputError
from kseg.io.files import checked_path, write_atomic
from kseg.settings.configs import config_files, config_text, configs_folder, read_config, with_commands

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_string("copy", None, "Name of the config to copy.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "File or FOLDER/ to copy it to; empty: a file of its name here.", flag_values=FLAGS)


def run(args):
    """List the configs, or copy one."""
    if args.copy is None:
        if args.output is not None:
            raise flags.Error("--output goes with --copy.")
        print(command_line.as_typed("\n".join(_lines(config_files()))))
        return
    print(copy_config(args.copy, args.output))


def copy_config(name, output=None):
    """Write a config to a new file, with what it takes from other files in place; returns its path.

    Raises:
        InputError: no config of that name, or something is at the path.
    """
    files = config_files()
    if name not in files:
        raise InputError(f"There is no config {name!r}. The configs are {', '.join(files)}.")
    path = pathlib.Path(checked_path(output, "output") if output else files[name].name)
    if output and output.endswith("/"):
        path /= files[name].name
    if os.path.lexists(path):
        raise InputError(f"{path} is there already. Choose another file with --output.")
    write_atomic(str(path), _of_a_copy(config_text(files[name]), files[name], path).encode())
    return path


def _of_a_copy(text, config, path):
    """Return a config's text whose comments give the commands of an installed kseg, and the copy's own path."""
    return with_commands(text).replace(f"configs/{config.relative_to(configs_folder()).as_posix()}", path.as_posix())


def _lines(files):
    """Give the list as lines as wide as the terminal."""
    width = max(60, shutil.get_terminal_size().columns)
    yield "Train one with kseg train --flagfile=NAME, the studies with kseg study NAME."
    for name, path in files.items():
        found = read_config(name, path)
        yield ""
        yield from textwrap.wrap(f"{name}: {found.model} on {found.dataset}", width, subsequent_indent="  ")
        if found.measured:
            yield from textwrap.wrap(
                found.measured, width, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False
            )


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
