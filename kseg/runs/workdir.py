"""The folder of a training run: its settings, history, and how to tell a finished run from a broken one."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import shlex
from typing import Any

import kseg
from kseg.io.errors import InputError
from kseg.io.files import StrPath, clear_unfinished, locked, reading, replacing, write_atomic, write_json
from kseg.runs.architecture import difference
from kseg.settings import OPTION_FLAGS, Settings, current_options, flag_line, read_flag_line, without_effect

FLAGS_FILE = "flags.txt"
ARCHITECTURE_FILE = "model.json"
_CONTENTS = {
    "README.md": "the model card: data, recipe, scores, cost, limits",
    "scores.json": "the five scores, macro, micro and per class",
    "predictions.png": "image | prediction | truth",
    "confusion.png": "confusion matrix, in percent of each true class",
    "saved_model": "the model for use without kseg",
    "best.keras": "the weights of the best epoch, by validation or by the lowest loss",
    "last.keras": "the weights of the last step",
    "history.csv": "loss and scores of each epoch",
    "logs": "the same for TensorBoard",
    "model.json": "the layers of your own model, by which the run knows it again",
}
_COMMENTS = ("records", "backend", "builder")  # what flags.txt holds beside flags, in comments
_NO_SETTINGS = ("model", "data_dir", "model_options", "strategy", *_COMMENTS)
_SHOWN_AS = {"backend": "KERAS_BACKEND", "builder": "a function that builds the model"}  # others: --NAME
_RENAMED_VALUES = {"seed_r2unet": "fischer2021_r2unet"}  # the paper's label set, as runs of earlier days call it
_REMOVED = ("on_conflict", "keep_checkpoints", "log_every_steps")  # earlier flags that say nothing about a run
# They change no result; `kseg.io.runtime.settle_kernels` compares onednn, `check_architecture` what a function builds.
_NOT_COMPARED = ("data_dir", "checkpoint_every_steps", "onednn", "builder", "logger")
# What may change in a run: its length, which may only grow, and which epochs are scored. flags.txt keeps, above
# --epochs, a comment line of what held until which step.
_LENGTH = ("epochs", "train_steps")
_NOTED = (*_LENGTH, "validate_every_epochs")
_UNTIL = re.compile(r"# until step (\d+): (.*)")


def _what_differs(name, stored, wanted):
    """Yield (what people call it, its stored value, the wanted one) of a setting that differs; of options, each one."""
    if name != "model_options":
        yield _SHOWN_AS.get(name, f"--{name}"), stored, wanted
        return
    old, new = json.loads(stored or "{}"), json.loads(wanted or "{}")
    for option in sorted({*old, *new}):
        if old.get(option) != new.get(option):
            shown = f"--{option} (of --model_options)" if option in OPTION_FLAGS else f"--model_options, {option}"
            yield shown, old.get(option), new.get(option)


def _value_text(value):
    return "not set" if value is None else repr(value)


def describe(model, data_dir, model_options, strategy, settings, records, backend=""):
    """Return a run's settings as {flag: text}, None and empty ones left out.

    Args: `records`: the manifest's digest. `backend`: Keras'. The rest as in `kseg.train`.
    """
    builder = None
    if isinstance(model, str):
        model_options = current_options(model, model_options)
    else:
        function = getattr(model, "func", model)  # of a functools.partial
        name = getattr(function, "__qualname__", type(function).__qualname__)
        builder = f"{getattr(function, '__module__', '')}.{name}"
        model = getattr(model, "__name__", type(model).__name__)
    values = {
        "model": model,
        "data_dir": data_dir,
        "model_options": json.dumps(model_options, sort_keys=True),
        "strategy": strategy,
        **dataclasses.asdict(settings),
        "records": records,
        "backend": backend,
        "builder": builder,
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def _current(values):
    """{flag: text} as a run of today would store it: values and options by the names of today."""
    values = {name: _RENAMED_VALUES.get(value, value) for name, value in values.items() if name not in _REMOVED}
    try:
        options = json.loads(values["model_options"])
    except (KeyError, ValueError):
        return values  # damaged: `RunFolder.check` shows what is there
    if not isinstance(options, dict):
        return values
    current = current_options(values.get("model"), options)
    if current == options:
        return values
    return {**values, "model_options": json.dumps(current, sort_keys=True)}


def _comparable(values, name):
    """A flag's value in {flag: text}, or its default (of runs of older kseg); numbers as such: 1 is 1.0."""
    field = Settings.__dataclass_fields__.get(name)
    if field is None:
        return values.get(name, "")
    default = field.default
    if default is None:
        default = ""
    text = values.get(name, str(default))
    with contextlib.suppress(ValueError):
        if field.type.startswith(("int", "float")):
            return float(text)
    return text


def _total_steps(values, images):
    """The optimizer steps of the run of {flag: text} over so many training images."""
    try:
        defaults = {name: Settings.__dataclass_fields__[name].default for name in (*_LENGTH, "batch_size")}
        settings = Settings(**{name: int(values.get(name, default)) for name, default in defaults.items()})
        return settings.total_steps(images)
    except ValueError as error:
        raise InputError(f"{FLAGS_FILE} is damaged ({error}). Use a new workdir.") from error


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of a run under its workdir; `check` and `check_architecture` compare what is wanted with what is there."""

    workdir: pathlib.Path

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.workdir / "checkpoints"

    @property
    def parts(self) -> list[pathlib.Path]:
        """The files and folders of a run, there or not yet."""
        return [self.workdir / name for name in (*_CONTENTS, FLAGS_FILE, "checkpoints")]

    @property
    def finished(self) -> bool:
        """Whether the run was trained, scored and exported to its end (scores.json comes last)."""
        return (self.workdir / "scores.json").exists()

    @property
    def never_saved(self) -> bool:
        """Whether nothing of the training is in the folder: a run that failed before its first checkpoint, or none."""
        names = ("best.keras", "last.keras", "history.csv", "scores.json", "saved_model")
        return not any((self.workdir / name).exists() for name in names) and not any(self.checkpoints.glob("step-*"))

    def _way_out(self, stored):
        """What to do about a run that is another one."""
        if self.kept_model(stored.get("keep", "best")).exists():
            weights = shlex.quote(str(self.workdir))
            return f"Use another --workdir. To start from this run's weights, add --init_from={weights}."
        return "Use another --workdir."

    def alone(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which no other process can train in this folder (`kseg.io.files.locked`)."""
        self.check_is_folder()
        return locked(self.workdir)

    def check_is_folder(self) -> None:
        """Raise InputError if a file stands where the folder is to be, or a folder that holds something else."""
        if not self.workdir.exists():
            return
        if not self.workdir.is_dir():
            raise InputError(f"workdir must be a folder, but {self.workdir} is a file.")
        names = os.listdir(self.workdir)
        if FLAGS_FILE not in names and any(not name.startswith(".") for name in names):
            raise InputError(f"{self.workdir} holds files but no kseg run. Use an empty or new workdir.")

    def stored(self) -> dict[str, str] | None:
        """Return the stored settings as {name: text}, or None for a folder without a run.

        Raises:
            ValueError: the workdir holds files but no kseg run.
        """
        self.check_is_folder()
        path = self.workdir / FLAGS_FILE
        if not path.exists():
            return None
        found = self.stored_or_none()
        if not {"model", "model_options", "strategy"} <= set(found):
            raise InputError(f"{path} is damaged: it does not name the run's model and settings. Use a new workdir.")
        known = {field.name for field in dataclasses.fields(Settings)}.union(_NO_SETTINGS)
        unknown = [f"--{name}" for name in found if name not in known]
        if unknown:
            raise InputError(
                f"{path} names {', '.join(unknown)}, unknown to this kseg: another version wrote the run. "
                "Use a new workdir; this run's weights can be loaded from best.keras or last.keras."
            )
        return found

    def stored_or_none(self) -> dict[str, str] | None:
        """Return what flags.txt holds as {name: text}, or None if there is none; nothing is checked."""
        path = self.workdir / FLAGS_FILE
        if not path.exists():
            return None
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a path may hold other ends of lines
        try:
            kept = ("--", *(f"# {name}=" for name in _COMMENTS))
            pairs = [read_flag_line(line.removeprefix("# ")) for line in lines if line.startswith(kept)]
        except InputError as error:
            raise InputError(f"{path} is damaged. {error}") from error
        return _current(dict(pairs))

    def check(self, wanted, images, silent=False):
        """Compare what is asked for with the run in the folder, if there is one.

        A run that failed before its first checkpoint is none: it begins again, and a printed line says so.

        Args:
            wanted: of `describe`. images: of the training split. silent: print nothing.
        Returns:
            bool: whether this is the stored run with more epochs or steps.
        Raises:
            ValueError: it is another run (lists the differences), or the same with fewer epochs or steps.
        """
        stored = self.stored()
        if stored is None:
            return False
        before, now = (_total_steps(values, images) for values in (stored, wanted))
        free = {*_NOT_COMPARED, *_NOTED, *without_effect(stored)}  # earlier versions took settings without an effect
        if now < before:
            free.difference_update(_LENGTH)
        if "backend" not in stored:  # nor did they store it
            free.add("backend")
        names = sorted((set(stored) | set(wanted)).difference(free))
        different = [name for name in names if _comparable(stored, name) != _comparable(wanted, name)]
        if "backend" in stored and ("builder" in stored) != ("builder" in wanted):
            different.append("builder")  # a model of kseg's, and a function of that name
        if different and self.never_saved:
            if not silent:
                print(f"The run in {self.workdir} made no checkpoint: it begins again, with the settings given now.")
            return False
        if not different:
            if stored.get("builder", wanted.get("builder")) != wanted.get("builder") and not silent:
                print(f"The function of the run was {stored['builder']}, is {wanted['builder']}: its layers count.")
            return now > before
        raise InputError(self._refusal(stored, wanted, different, before, now))

    def _refusal(self, stored, wanted, different, before, now):
        """Return the differences in words and what to do; before, now: steps of the stored run and the wanted one."""
        way_out = self._way_out(stored)
        if different == ["records"]:
            return f"{self.workdir} was trained on different records. {way_out}"
        if different == ["backend"]:
            return (
                f"{self.workdir} was trained with KERAS_BACKEND={stored['backend']}, now it is {wanted['backend']}. "
                "Different backends give different bits, so it would be another run. Set "
                f"KERAS_BACKEND={stored['backend']} to continue. {way_out}"
            )
        rows = [
            f"  {shown}: stored {_value_text(old)}, now {_value_text(new)}"
            for name in different
            for shown, old, new in _what_differs(name, stored.get(name), wanted.get(name))
        ]
        if now < before:
            rows.append(f"A run can be extended but not shortened: it has {before} steps, got {now}.")
        return "\n".join([f"{self.workdir} holds a run with other settings:", *rows, way_out])

    def check_architecture(self, found: Any) -> None:
        """Compare what the user's function has built with the model that the run in the folder started with.

        Args:
            found: of `kseg.runs.architecture.architecture`.
        Raises:
            ValueError: another model, with the first difference; or model.json is damaged.
        """
        path = self.workdir / ARCHITECTURE_FILE
        if self.never_saved or not path.exists():  # an earlier version did not write it
            return
        with reading(path):
            text = path.read_bytes()
        try:
            changed = difference(json.loads(text), found)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}). Use a new workdir.") from error
        if changed:
            raise InputError(
                f"{self.workdir} holds a run of a different model than the function builds now: {changed}. "
                f"{self._way_out(self.stored())}"
            )

    def _past(self, wanted, step):
        """The comment lines for settings that differed from `wanted` up to `step`: (step, flags)."""
        stored = self.stored_or_none()
        if stored is None:
            return []
        text = (self.workdir / FLAGS_FILE).read_text(encoding="utf-8")
        past = [(int(found[1]), found[2]) for found in map(_UNTIL.fullmatch, text.split("\n")) if found]
        changed = [name for name in _NOTED if _comparable(stored, name) != _comparable(wanted, name)]
        before = [f"--{name}={stored[name]}" for name in changed if stored.get(name, "0") != "0"]
        if before:
            past.append((step, " ".join(before)))
        lines = []
        reached = 0
        for until, flags in past:
            until = min(until, step)  # a run may go on from before where it was
            if until > reached:  # else not a step was done like this
                lines.append(f"# until step {until}: {flags}")
            reached = until
        return lines

    def open(self, wanted: dict[str, str], step: int = 0, architecture: Any = None) -> None:
        """Make the folder, clear what a killed run left half-written, and store the settings as a flagfile.

        Args:
            wanted: of `describe`. step: from which the run continues. architecture: of a model of the user's function.
        """
        past = self._past(wanted, step)
        self.workdir.mkdir(parents=True, exist_ok=True)
        clear_unfinished(self.workdir, *(path.name for path in self.parts))
        clear_unfinished(self.checkpoints, "step-*.npz")
        (self.workdir / "scores.json").unlink(missing_ok=True)  # from here on the run is not finished
        again = "kseg train --flagfile=THIS --workdir=NEW repeats this run"
        if "builder" in wanted:
            again = f"{wanted['builder']} builds the model: kseg.train({wanted['model']}, ...) repeats this run"
        header = f"# kseg {kseg.__version__}. {again}."
        lines = [f"# {n}={value}" if n in _COMMENTS else flag_line(n, value) for n, value in wanted.items()]
        place = lines.index(flag_line("epochs", wanted["epochs"]))
        lines = [header, *lines[:place], *past, *lines[place:]]
        write_atomic(str(self.workdir / FLAGS_FILE), ("\n".join(lines) + "\n").encode())
        if architecture is None:
            (self.workdir / ARCHITECTURE_FILE).unlink(missing_ok=True)  # of a run that made no checkpoint
        else:
            write_json(self.workdir / ARCHITECTURE_FILE, architecture)

    def print_contents(self) -> None:
        """Print where everything is."""
        found = {name: what for name, what in _CONTENTS.items() if (self.workdir / name).exists()}
        print(f"In {self.workdir}:")
        for name, what in found.items():
            print(f"  {name:{max(map(len, found))}}  {what}")

    def kept_model(self, keep: str) -> pathlib.Path:
        """Return the path of the weights that the setting `keep` chooses."""
        return self.workdir / {"last": "last.keras"}.get(keep, "best.keras")

    def stored_model(self) -> pathlib.Path:
        """Return the path of the weights that the run's own settings choose."""
        return self.kept_model((self.stored_or_none() or {}).get("keep", "best"))

    def read_history(self) -> list[dict[str, float]]:
        """Return the rows of history.csv, numbers as floats, missing ones left out."""
        with open(self.workdir / "history.csv", newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write history.csv, a row per epoch; columns are the union of the rows' keys."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(str(self.workdir / "history.csv"), text.getvalue().encode())

    def save_model(self, model: Any, name: str) -> pathlib.Path:
        """Save a Keras model under its final name only when it is complete."""
        path = self.workdir / name
        with replacing(path) as temporary:
            model.save(temporary)
        return path


def run_of(path: StrPath) -> RunFolder:
    """Return the run of a model's path: the folder itself, or the one that a file lies in; whether it is one or not."""
    path = pathlib.Path(path)
    return RunFolder(path if path.is_dir() else path.absolute().parent)
