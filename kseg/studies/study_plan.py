"""STUDY.toml: what a study trains, on what, with which budget; and whether a folder was started from the same."""

import collections.abc
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import sys
from typing import Any

from kseg.data.datasets import DATASETS
from kseg.inference.outside.description import describe_file
from kseg.io.errors import InputError, check_whole, error_in, plain
from kseg.io.files import checked_path, reading
from kseg.io.hash_list import sha256_of_content
from kseg.settings import read_flag_line
from kseg.settings.configs import find_config
from kseg.studies.engines import check_engines
from kseg.studies.run_counts import FIXED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECONDS = ("seconds", "gpu-seconds")  # of the CPU, of a GPU
BUDGETS = ("multiply-adds", "images", *SECONDS)
PLAN = "study.json"  # in a study's folder
_WHAT = "A study is a TOML file: docs/how-to/studies.md."
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")  # of a folder
# What the study itself sets, and what would make a run shorter than its budget.
_TAKEN = ("model", "model_options", "flagfile", "data_dir", "dataset", "workdir", "seed", "epochs", "train_steps")
_TAKEN += ("patience",)
# What changes no run: the report alone, or where the runs are computed.
_FREE = ("name", "output", "group_by", "paired", "pilot", "engines")


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model of a study: a builder of `kseg.MODELS`, its options, and flags of kseg train; or a fixed model.

    flagfile_sha256: of the flags in the flagfile and those that it names, "" where there is none. file: of a model
    that is not trained here, what `kseg.load_model` takes ("" for all others), and file_sha256: of all that is
    read for it.
    """

    name: str
    model: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    flagfile: str = ""
    flags: dict[str, Any] = dataclasses.field(default_factory=dict)
    flagfile_sha256: str = ""
    file: str = ""
    file_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Records:
    """A record folder of a study, the splits that are scored, and `--dataset` of kseg train."""

    name: str
    data_dir: str
    splits: tuple[str, ...] = ("val",)
    dataset: str = "cityscapes"


@dataclasses.dataclass(frozen=True)
class Limit:
    """What every run of a study may spend: so many multiply-adds, images or seconds of training."""

    kind: str
    value: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study as STUDY.toml says it; docs/how-to/studies.md explains each key."""

    name: str
    output: str
    models: tuple[Contestant, ...]
    data: tuple[Records, ...]
    seeds: tuple[int, ...]
    budget: Limit
    flags: dict[str, Any] = dataclasses.field(default_factory=dict)
    group_by: str = ""
    paired: bool = True
    pilot: str = ""
    leave_out: str = ""
    threads: int = 0
    engines: dict[str, Any] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the plan in JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_plan(source):
    """Read a study's plan.

    Args:
        source: path of a STUDY.toml, or a dict of the same keys.
    Returns:
        Plan
    Raises:
        InputError: not TOML, a key that is unknown, missing or of another type, two models or records of one name.
    """
    where = "The study"
    table = source
    if not isinstance(source, collections.abc.Mapping):
        if not isinstance(source, (str, os.PathLike)):
            raise InputError(f"A study must be the path of a TOML file, or a dict of its keys, got {source!r}.")
        where = checked_path(source, "study")
        table = _table(where)
    try:
        return _plan(plain(dict(table)))
    except InputError as error:
        raise error_in(where, error) from error


def _table(where):
    """Return what a study's file holds; InputError, with what such a file is, for anything else."""
    path = find_config(where, "studies")
    if path.is_dir():
        hint = f" To report on the study in this folder: kseg study --report={where}" if (path / PLAN).exists() else ""
        raise InputError(f"{where} is a folder. {_WHAT}{hint}")
    if path.suffix == ".flags":
        raise InputError(f"{where} is a flagfile, for kseg train --flagfile={where}\n{_WHAT}")
    with reading(where), open(path, "rb") as file:
        try:
            return tomllib.loads(file.read().decode("utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{where} is not TOML: {error}. {_WHAT}") from error


def _plan(table):
    _check_keys(Plan, table, "a study", ("name", "output", "models", "data", "seeds", "budget"))
    _check_name(table["name"], "name")
    checked_path(table["output"], "output")
    _check_flags(table.get("flags", {}), "flags")
    for key, what in (("group_by", "text"), ("leave_out", "text"), ("pilot", "the path of a study's folder")):
        if not isinstance(table.get(key, ""), str):
            raise InputError(f"{key} must be {what}, got {table[key]!r}.")
    if not isinstance(table.get("paired", True), bool):
        raise InputError(f"paired must be true or false, got {table['paired']!r}.")
    _check_leave_out(table)
    values = {
        "models": _each(table["models"], "models", _contestant),
        "data": _each(table["data"], "data", _records),
        "seeds": _seeds(table["seeds"]),
        "budget": _limit(table["budget"]),
        "threads": check_whole("threads", table.get("threads", 0), 0),
        "engines": check_engines(table.get("engines", {})),
    }
    if all(model.file for model in values["models"]):
        raise InputError("A study trains one model at least. Compare fixed models alone with kseg compare.")
    return Plan(**{**table, **values})


def _check_leave_out(table):
    if not table.get("leave_out"):
        return
    for key in ("group_by", "pilot"):
        if table.get(key):
            raise InputError(f"{key} has no use with leave_out, whose groups are those left out. Leave {key} out.")
    if table.get("paired") is False:
        raise InputError("With leave_out, runs that left out the same group are pairs: leave paired out.")
    if any("file" in row for row in table["models"] if isinstance(row, dict)):
        raise InputError("With leave_out every model is trained: leave out those that are a file.")
    if any("splits" in row for row in table["data"] if isinstance(row, dict)):
        raise InputError("With leave_out each run is scored on the group that it left out: leave splits out of data.")


def _each(rows, key, read):
    """Return the tuple of what a list of tables says; InputError unless their names differ."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{key} must be one table [[{key}]] or more, got {rows!r}.")
    found = tuple(map(read, rows))
    folded = [one.name.casefold() for one in found]  # names of folders
    twice = next((one.name for one in found if folded.count(one.name.casefold()) > 1), None)
    if twice is not None:
        raise InputError(f"Names in {key} must differ, also in more than case, but {twice} is there twice.")
    return found


def _contestant(table):
    _check_keys(Contestant, table, "a model", ("name",), never=("flagfile_sha256", "file_sha256"))
    _check_name(table["name"], "The name of a model")
    if "file" in table:
        return _fixed(table)
    what = f"of model {table['name']}"
    model = table.get("model", table["name"])
    options = table.get("options", {})
    flagfile = table.get("flagfile", "")
    if not isinstance(model, str) or not isinstance(options, dict) or not isinstance(flagfile, str):
        raise InputError(f"model and flagfile {what} must be text and options a table, got {table!r}.")
    _check_flags(table.get("flags", {}), f"flags {what}")
    digest = ""
    if flagfile:
        path = find_config(flagfile)  # as kseg train finds it, which a study starts
        if not path.is_file():
            raise InputError(
                f"The flagfile {what} must be a file or the name of one of kseg's configs (kseg configs lists them), "
                f"got {flagfile}."
            )
        digest = _flagfile_digest(path, ())
    return Contestant(**{**table, "model": model, "flagfile_sha256": digest})


def _fixed(table):
    others = [key for key in table if key not in ("name", "file")]
    if others:
        raise InputError(
            f"Model {table['name']} has a file, so it is not trained: {others[0]} has no effect. Leave out one of them."
        )
    file = pathlib.Path(checked_path(table["file"], f"file of model {table['name']}"))
    if not file.exists():
        raise InputError(f"file of model {table['name']} is not there: {file}.")
    digest = hashlib.sha256()
    for path in describe_file(file).files:
        digest.update(sha256_of_content(path).encode())
    return Contestant(name=table["name"], model="", file=os.fspath(file), file_sha256=digest.hexdigest())


def _flagfile_digest(path, opened):
    """Return the sha256 of the flags in a flagfile and in those that it names, without comments and blank lines."""
    if path.resolve() in opened:
        raise InputError(f"Flagfile {path} includes itself.")
    with reading(path):
        content = path.read_bytes()
    lines = [line.strip() for line in content.decode(errors="replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    digest = hashlib.sha256("\n".join(lines).encode())
    for line in lines:
        if line.startswith("--flagfile"):
            nested = path.resolve().parent / read_flag_line(line)[1]
            digest.update(_flagfile_digest(nested, (*opened, path.resolve())).encode())
    return digest.hexdigest()


def _records(table):
    _check_keys(Records, table, "records", ("name", "data_dir"))
    _check_name(table["name"], "The name of records")
    checked_path(table["data_dir"], "data_dir")
    splits = table.get("splits", ["val"])
    if not isinstance(splits, list) or not splits or len(set(map(str, splits))) < len(splits):
        raise InputError(f"splits of {table['name']} must be a list of different splits, got {splits!r}.")
    for split in splits:
        _check_name(split, f"A split of {table['name']}")
    dataset = table.get("dataset", "cityscapes")
    if dataset not in tuple(DATASETS):
        raise InputError(f"dataset of {table['name']} must be one of {', '.join(DATASETS)}, got {dataset!r}.")
    return Records(**{**table, "splits": tuple(splits)})


def _seeds(value):
    seeds = value
    if not isinstance(value, list):
        seeds = range(check_whole("The number of seeds", value, 1))
    seeds = tuple(check_whole("A seed", seed, 0) for seed in seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must be a number, or a list of different seeds, got {value!r}.")
    return seeds


def _limit(table):
    if not isinstance(table, dict):
        raise InputError(f"budget must be a table [budget], got {table!r}.")
    _check_keys(Limit, table, "a budget", ("kind", "value"))
    kind, value = table["kind"], table["value"]
    if kind not in BUDGETS:
        raise InputError(f"kind of the budget must be one of {', '.join(BUDGETS)}, got {kind!r}.")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise InputError(f"value of the budget must be a number above 0, got {value!r}.")
    if kind not in SECONDS:
        if value != int(value):
            raise InputError(f"value of a budget of {kind} must be a whole number, got {value!r}.")
        value = int(value)
    return Limit(kind, value)


def _check_keys(kind, table, what, needed, never=()):
    known = [field.name for field in dataclasses.fields(kind) if field.name not in never]
    unknown = [key for key in table if key not in known]
    missing = [key for key in needed if key not in table]
    if unknown:
        raise InputError(f"Unknown key {unknown[0]!r} of {what}. Known are {', '.join(known)}.")
    if missing:
        raise InputError(f"The key {missing[0]!r} of {what} is missing.")


def _check_name(value, what):
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(
            f"{what} names a folder: at most 80 of A to Z, a to z, 0 to 9, '_', '-' and '.', the first of them no '-' "
            f"or '.'; got {value!r}."
        )


def _check_flags(flags, what):
    if not isinstance(flags, dict) or not all(isinstance(value, (str, int, float)) for value in flags.values()):
        raise InputError(f"{what} must be a table of text, numbers, true and false, got {flags!r}.")
    taken = [name for name in flags if name in _TAKEN]
    if taken:
        raise InputError(
            f"{what} must not set {taken[0]}, which the study itself sets, as it does {', '.join(_TAKEN)}."
        )


def train_flags(plan, contestant, records):
    """Return the flags of kseg train that all runs of a model on records share, without seed, steps and workdir.

    The model's flags win over the shared ones, both over the flagfile.
    """
    lines = []
    if contestant.flagfile:
        lines.append(f"--flagfile={contestant.flagfile}")
    for name, value in {**plan.flags, **contestant.flags}.items():
        text = str(value)
        if isinstance(value, bool):
            text = text.lower()
        lines.append(f"--{name}={text}")
    if contestant.options:
        lines.append(f"--model_options={json.dumps(contestant.options)}")
    lines.append(f"--model={contestant.model}")
    lines.append(f"--data_dir={records.data_dir}")
    lines.append(f"--dataset={records.dataset}")
    return lines


def check_same(stored, wanted, folder):
    """Raise InputError unless a plan is the one that a folder was started from, perhaps with more seeds or models.

    Args:
        stored, wanted: of `Plan.as_json`. folder: for the message.
    """
    lines = []
    for key, value in wanted.items():
        before = stored.get(key)
        if key in _FREE or value == before:
            continue
        if key == "seeds":
            gone = [seed for seed in before if seed not in value]
            if gone:
                lines.append(f"  seeds: {', '.join(map(str, gone))} missing now")
        elif key in ("models", "data"):
            lines += _named_differences(key, before, value)
        else:
            lines.append(f"  {key}: stored {json.dumps(before)}, now {json.dumps(value)}")
    if lines:
        raise InputError(
            "\n".join(
                [
                    f"{os.fspath(folder)} was started from another study:",
                    *lines,
                    "More seeds or models may be added. For anything else use another output folder.",
                ]
            )
        )


def _named_differences(key, before, now):
    found = {row["name"]: row for row in now}
    for row in before:
        other = found.get(row["name"])
        if other is None:
            yield f"  {key}: {row['name']} missing now"
            continue
        for name in sorted(set(row) | set(other)):
            if (row.get(name) or None) != (other.get(name) or None):  # older studies lack keys that are empty here
                shown = f"stored {json.dumps(row.get(name))}, now {json.dumps(other.get(name))}"
                yield f"  {key}, {row['name']}, {name}: {shown}"
    if key == "data":
        known = {row["name"] for row in before}
        yield from (f"  {key}: {name} is new" for name in found if name not in known)


def run_names(plan):
    """Return (contestant, records, seed) of every run, seed by seed: what is done early can be compared early.

    Fixed models come first, each with one run whose seed is FIXED: what is wrong with them shows before any training.
    """
    trained = [model for model in plan.models if not model.file]
    fixed = [model for model in plan.models if model.file]
    runs = [(model, data, FIXED) for data, model in itertools.product(plan.data, fixed)]
    return runs + [(model, data, seed) for seed, data, model in itertools.product(plan.seeds, plan.data, trained)]
