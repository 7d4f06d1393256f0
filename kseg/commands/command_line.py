"""What every command shares: flags, --help, and one clear line for bad input."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import sys
import textwrap
import traceback
import warnings

from absl import flags

from kseg.commands.flagfiles import expand_flagfiles, flag_name
from kseg.commands.main import COMMANDS, WITHOUT_SCRIPT, plain_failures
from kseg.io.errors import DamagedInputError, InputError, speaking_flags
from kseg.io.pages import with_pages
from kseg.io.progress import announce_keras
from kseg.io.tensorflow_log import show_tensorflow_log
from kseg.io.text import listed
from kseg.settings import GROUPS

_FLAGFILE_HELP = """\
--flagfile=FILE reads flags from a file, a line each, or from one of kseg's own configs by its name (`kseg configs`).
Flags on the command line win."""

_NUMBERS = {"invalid literal for int": "whole number", "could not convert string to float": "number"}
_NO_NUMBER = re.compile(rf"^flag --(\w+)=(.*): ({'|'.join(_NUMBERS)})\b.*$", re.DOTALL)
_BROKEN_PATH = re.compile(r" (\(?docs/[\w/-]*-)\n( +)")  # absl folds its text at hyphens too
_BROKEN_VALUES = re.compile(r"^(.*)<([\w|]*\n[\w|\n ]*)>:\s*", re.MULTILINE)  # and a long list of them anywhere
_REPEATED = re.compile(r";(\s+)repeat\s+this\s+option\s+to\s+specify\s+a\s+list\s+of\s+values")
_NO_BOOLEAN = re.compile(r"^flag --(\w+)=.*: \('Non-boolean argument to boolean flag', (.*)\)$", re.DOTALL)


def new_flags(module_name):
    """Return the flags of a command, at first those that every command has, under the heading of its module."""
    flag_values = flags.FlagValues()
    flags.DEFINE_boolean(
        "verbose_tensorflow",
        False,
        "Show what TensorFlow and the libraries below it log, for instance why they find no GPU. "
        "TF_CPP_MIN_LOG_LEVEL, if set, decides instead.",
        flag_values=flag_values,
        module_name=module_name,
    )
    return flag_values


def define_fields(dataclass, flag_values, group=""):
    """Define one flag for each field of a settings dataclass: default, type, help and choices come from it.

    group: their heading in --help, up to the first field that GROUPS names; a module's name: that of its own flags.
    """
    for field in dataclasses.fields(dataclass):
        name = field.name
        group = GROUPS.get(name, group)
        here = {"flag_values": flag_values, "module_name": group}
        default = field.default
        explained = field.metadata["help"]
        choices = field.metadata.get("choices")
        lower = field.metadata.get("lower")
        if choices is not None:
            flags.DEFINE_enum(name, default, choices, explained, **here)
        elif field.type.startswith("bool"):
            flags.DEFINE_boolean(name, default, explained, **here)
        elif field.type.startswith("int"):
            flags.DEFINE_integer(name, default, explained, lower_bound=lower, **here)
        elif field.type.startswith("float"):
            flags.DEFINE_float(name, default, explained, lower_bound=lower, **here)
        else:
            flags.DEFINE_string(name, default, explained, **here)


def define_scored_data(flag_values, module_name):
    """Define the flags that say which images are scored, under the heading of a command's module in --help."""
    here = {"flag_values": flag_values, "module_name": module_name}
    flags.DEFINE_string("data_dir", None, "Record folder with the images to score (kseg prepare writes one).", **here)
    flags.DEFINE_string("split", "val", "Split of the records to score.", **here)
    flags.DEFINE_string("label_set", None, "Classes to score; empty: the training classes.", **here)
    flags.DEFINE_string(
        "label_space",
        None,
        "Which ids the labels hold, if the records lack dataset.json: train_ids or label_ids.",
        **here,
    )
    flags.DEFINE_integer("batch_size", 1, "Images per batch.", lower_bound=1, **here)


def define_looks(flag_values, module_name):
    """Define the flags that say how often, and how, a model looks at an image."""
    here = {"flag_values": flag_values, "module_name": module_name}
    flags.DEFINE_integer(
        "tile",
        None,
        "Side in pixels of square windows that slide over the image by half a side and are blended; empty: the whole "
        "image at once. For images that are too large for the memory, or much larger than those trained on.",
        **here,
    )
    flags.DEFINE_list(
        "scales",
        ["1"],
        "Factors by which the image is resized, such as 0.75,1,1.25: probabilities are averaged.",
        **here,
    )
    flags.DEFINE_boolean("flip", False, "Look at the mirror image too: probabilities are averaged.", **here)


def looks_of(args):
    """Return the Looks that the flags of `define_looks` say."""
    from kseg.inference.looks import Looks

    try:
        scales = [float(scale) for scale in args.scales]
    except ValueError as error:
        raise flags.Error(f"--scales must be numbers such as 0.75,1,1.25, got {','.join(args.scales)}.") from error
    return Looks(args.tile, tuple(scales), args.flip)


def models_of(text):
    """Return the model that --model names, or the list of those of an ensemble, between commas.

    A path with a comma of something that is there is one model.
    """
    if os.path.exists(text) or "," not in text:
        return text
    models = text.split(",")
    if "" in models:
        raise flags.Error(
            f"--model has a comma too many, got {text}. A comma stands between two models of an ensemble."
        )
    return models


def check_models(*models):
    """Return the description of each path of models (or lists of those); refuse those that are not there.

    That is for before anything imports Keras.
    """
    from kseg.inference.model_paths import described_models

    return [described for model in models for described in described_models(model)]


def check_scored(args, *models):
    """As `check_models`; refuse records without the split, the label set or the groups that are asked for, too.

    And models of other classes, and folders of label maps that are not those of the split's images.
    """
    from kseg.data.records_asked import check_asked
    from kseg.inference.model_checks import check_fit

    described = check_models(*models)
    label_space, group_by = (args[name].value if name in args else None for name in ("label_space", "group_by"))
    scored = check_asked(args.data_dir, args.split, args.label_set, label_space, group_by)
    check_fit(described, scored, args.data_dir, args["map"].value if "map" in args else None)


def require(flag_values, *names):
    """Stop with one line if a flag that has no sensible default was not given."""
    missing = [f"--{name}" for name in names if not flag_values[name].value]
    if missing:
        raise flags.Error(f"{listed(missing)} must be given. See --help.")


def check_folder(path, what):
    """Stop with one line unless a folder is there. what: it should be, such as "the output of kseg compare"."""
    if not os.path.isdir(path):
        found = "is a file" if os.path.exists(path) else "does not exist"
        raise flags.Error(f"{path or repr(path)} must be a folder, {what}, but {found}.")


def parse_json(flag_values, name):
    """Return the value of a flag that holds a JSON object."""
    try:
        value = json.loads(flag_values[name].value)
    except json.JSONDecodeError as error:
        raise flags.Error(f"--{name} must be a JSON object, got {flag_values[name].value!r}: {error}.") from error
    if not isinstance(value, dict):
        raise flags.Error(f"--{name} must be a JSON object, got {flag_values[name].value!r}.")
    return value


def start(run, flag_values, takes_arguments=False):
    """Parse the command line into `flag_values` and call `run(flag_values)`.

    Bad input exits with code 2; 1 if some of many inputs were damaged and the rest was done.

    With `takes_arguments`, arguments other than flags may stand anywhere in the command line: `run(flag_values,
    arguments)`. --help prints the docstring of the module of `run` first.
    """
    program = pathlib.Path(sys.argv[0]).name  # of the command kseg: "kseg train"
    flag_values.set_gnu_getopt(takes_arguments)
    with plain_failures(program), speaking_flags(list(flag_values)), _warnings_in_a_line(program):
        _start(run, flag_values, takes_arguments, program)


@contextlib.contextmanager
def _warnings_in_a_line(program):
    """While it lasts, a warning for users is printed as errors are: without a place in the code."""
    python = warnings.formatwarning

    def shown_warning(message, category, *where):
        if category is not UserWarning:
            return python(message, category, *where)
        return f"{program}: warning: {as_typed(shown(message))}\n"

    warnings.formatwarning = shown_warning
    try:
        yield
    finally:
        warnings.formatwarning = python


def _parsed(arguments, flag_values):
    """Return what is left of arguments when flags are read; an unknown flag of a flagfile is said to stand there."""
    try:
        return flag_values(arguments)
    except flags.UnrecognizedFlagError as error:
        typed = set(map(flag_name, sys.argv[1:]))
        if error.flagname in typed:
            raise
        form = ", where a line must be --flag=value" if " " in error.flagname else ""
        raise flags.Error(f"{error}. It stands in a flagfile{form}.") from error


def _start(run, flag_values, takes_arguments, program):
    try:
        arguments = expand_flagfiles(sys.argv[1:])
        if any(argument == "-h" or re.match("--?help(=|$)", argument) for argument in arguments):
            print(_help(flag_values, sys.modules[run.__module__].__doc__, program))
            return
        rest = _parsed([program, *arguments], flag_values)[1:]
        if rest and not takes_arguments:
            raise flags.Error(f"Every argument must be --flag=value, got {rest[0]!r}.")
        _show_log()
        announce_keras()
        if flag_values.verbose_tensorflow:
            show_tensorflow_log()
        if takes_arguments:
            run(flag_values, rest)
        else:
            run(flag_values)
    except (flags.Error, InputError) as error:
        if os.environ.get("KSEG_TRACEBACK"):
            traceback.print_exc()
        print(f"{program}: error: {as_typed(shown(error))}", file=sys.stderr)
        sys.exit(1 if isinstance(error, DamagedInputError) else 2)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted. Run the same command again to continue.", file=sys.stderr)
        sys.exit(130)


def _help(flag_values, text, program):
    """Return what --help prints: a command's docstring, its flags by groups, and --flagfile."""
    groups = {}
    if not _wide_enough(os.environ.get("COLUMNS", "80")):
        del os.environ["COLUMNS"]  # absl fails to fold its text into less
    for module in flag_values.flags_by_module_dict():
        title = "Flags" if module.startswith(("kseg.", "__main__")) else module  # flags of no group of their own
        _, _, flags_text = flag_values.module_help(module).partition(":\n")
        groups.setdefault(title, []).append(_mended(flags_text.strip("\n")))
    lines = [_folded(text.rstrip())]
    for title, parts in groups.items():
        lines += ["", f"{title}:", *parts]
    lines += ["", _folded(_FLAGFILE_HELP)]
    return as_typed("\n".join(lines))


def _mended(text):
    """Return absl's text of flags without breaks in the paths of pages and in words, and in kseg's English."""
    text = _BROKEN_VALUES.sub(_between_values, _BROKEN_PATH.sub(r"\n\2\1", text))
    return _REPEATED.sub(r"\1Repeat the flag to give several.", text)


def _between_values(found):
    """Return the broken list of an enum's values in lines that end after a value."""
    lines = [found[1] + "<"]
    for value in re.findall(r"\w+\|?", re.sub(r"\n +", "", found[2])):
        if len(lines[-1]) + len(value) + len(">:") > flags.get_help_width():
            lines.append("    ")
        lines[-1] += value
    return "\n".join(lines) + ">:\n    "


def _folded(text):
    """Return a docstring with its paragraphs as wide as the terminal; indented examples stay as they are."""
    width = flags.get_help_width()
    parts = text.split("\n\n")
    for place, part in enumerate(parts):
        if not part.startswith(" ") and max(map(len, part.split("\n"))) > width:
            parts[place] = textwrap.fill(part, width, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(parts)


def _wide_enough(columns):
    return columns.isdecimal() and int(columns) >= 40


_SCRIPTS = {"prepare": "prepare_data"}  # a command's script has its name, but for these


def as_typed(text):
    """Return a text for the user of this installation, with the pages of docs/ where they are.

    Where a script was started, not the command kseg, each `kseg COMMAND` is as it is typed there.
    """
    text = with_pages(text)
    if not sys.argv[0].endswith(".py"):
        return text
    commands = "|".join(name for name in COMMANDS if name not in WITHOUT_SCRIPT)
    return re.sub(
        rf"\bkseg ({commands}) ", lambda found: f"python scripts/{_SCRIPTS.get(found[1], found[1])}.py ", text
    )


def _show_log():
    """Print kseg's log messages (which encoder weights were used) to standard output."""
    log = logging.getLogger("kseg")
    log.setLevel(logging.INFO)
    log.addHandler(_Say())


class _Say(logging.Handler):
    """Prints messages above what is being waited for."""

    def emit(self, record):
        from kseg.io.progress import say

        say(record.getMessage())


def shown(error):
    """Return an error's text, in kseg's words where Python's are those of its types, shortened if it is very long."""
    text = _NO_BOOLEAN.sub(r"--\1 must be true or false, got \2.", str(error))
    text = _NO_NUMBER.sub(lambda found: f"--{found[1]} must be a {_NUMBERS[found[3]]}, got {found[2]!r}.", text)
    return text if len(text) <= 2000 else f"{text[:1900]} ..."
