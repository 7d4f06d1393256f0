"""The folder of a training run: its settings, history, and what tells a finished run from a broken one."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re

import kseg
from kseg.io.errors import InputError
from kseg.io.files import clear_unfinished, locked, replacing, write_atomic
from kseg.settings import Settings, current_options, flag_line, read_flag_line

FLAGS_FILE = "flags.txt"
_CONTENTS = {
    "scores.json": "the five scores, macro, micro and per class",
    "predictions.png": "image | prediction | truth",
    "confusion.png": "what is taken for what",
    "saved_model": "the model for use without kseg",
    "best.keras": "the weights of the best epoch, by validation --best_by or --keep=lowest_loss",
    "last.keras": "the weights of the last step",
    "history.csv": "loss and scores of each epoch",
    "logs": "the same for TensorBoard",
}
_NO_SETTINGS = ("model", "data_dir", "model_options", "strategy", "records")  # what else flags.txt holds
_RENAMED_VALUES = {"seed_r2unet": "fischer2021_r2unet"}  # the paper's label set, as runs of earlier days call it
_REMOVED = ("on_conflict", "keep_checkpoints", "log_every_steps")  # earlier flags that say nothing about a run
# They change no result; `kseg.io.runtime.settle_kernels` compares onednn.
_NOT_COMPARED = ("data_dir", "checkpoint_every_steps", "onednn")
# What a run may be told anew: how long it is, which may only grow, and which epochs are scored. flags.txt keeps, above
# --epochs, a comment line of what held until which step.
_LENGTH = ("epochs", "train_steps")
_NOTED = (*_LENGTH, "validate_every_epochs")
_UNTIL = re.compile(r"# until step (\d+): (.*)")


def describe(model, data_dir, model_options, strategy, settings, records):
    """Return a run's settings as {flag: text}, None and empty ones left out; `records` is the manifest's digest."""
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    model_options = current_options(name, model_options)
    values = {
        "model": name,
        "data_dir": data_dir,
        "model_options": json.dumps(model_options, sort_keys=True),
        "strategy": strategy,
        **dataclasses.asdict(settings),
        "records": records,
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
    text = values.get(name, "" if field is None or field.default is None else str(field.default))
    try:
        return float(text) if field is not None and field.type.startswith(("int", "float")) else text
    except ValueError:
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
    """Paths of a run under its workdir; `check` compares what is asked for with what is stored there."""

    workdir: pathlib.Path

    @property
    def checkpoints(self):
        return self.workdir / "checkpoints"

    @property
    def parts(self):
        """The files and folders of a run, there or not yet."""
        return [self.workdir / name for name in (*_CONTENTS, FLAGS_FILE, "checkpoints")]

    @property
    def finished(self):
        """Whether the run was trained, scored and exported to its end (scores.json comes last)."""
        return (self.workdir / "scores.json").exists()

    def alone(self):
        """A context in which no other process can train in this folder (`kseg.io.files.locked`)."""
        if self.workdir.exists() and not self.workdir.is_dir():
            raise InputError(f"workdir must be a folder, but {self.workdir} is a file.")
        return locked(self.workdir)

    def stored(self):
        """Return the stored settings as {name: text}, or None for a folder without a run.

        Raises:
            ValueError: the workdir holds files but no run of kseg's.
        """
        path = self.workdir / FLAGS_FILE
        if not path.exists():
            if self.workdir.exists() and any(not name.startswith(".") for name in os.listdir(self.workdir)):
                raise InputError(f"{self.workdir} holds files but no run of kseg's. Use an empty or new workdir.")
            return None
        found = self.stored_or_none()
        if not {"model", "model_options", "strategy"} <= set(found):
            raise InputError(f"{path} is damaged: it does not name the run's model and settings. Use a new workdir.")
        known = {field.name for field in dataclasses.fields(Settings)}.union(_NO_SETTINGS)
        unknown = [f"--{name}" for name in found if name not in known]
        if unknown:
            raise InputError(
                f"{path} names {', '.join(unknown)}, which this kseg has not: another version wrote the run. "
                "Use a new workdir; its weights can be loaded as best.keras or last.keras."
            )
        return found

    def stored_or_none(self):
        """Return what flags.txt holds as {name: text}, or None where there is none; nothing is checked."""
        path = self.workdir / FLAGS_FILE
        if not path.exists():
            return None
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a path may hold other ends of lines
        try:
            pairs = [read_flag_line(line.removeprefix("# ")) for line in lines if line.startswith(("--", "# records="))]
        except InputError as error:
            raise InputError(f"{path} is damaged. {error}") from error
        return _current(dict(pairs))

    def check(self, wanted, images):
        """Compare what is asked for with the run in the folder, if there is one.

        Args:
            wanted: of `describe`. images: of the training split.
        Returns:
            bool: whether it is the stored run with more epochs or steps.
        Raises:
            ValueError: another run, with the differences; or the same with fewer epochs or steps.
        """
        stored = self.stored()
        if stored is None:
            return False
        before, now = (_total_steps(values, images) for values in (stored, wanted))
        free = _NOT_COMPARED + (_NOTED if now >= before else _NOTED[len(_LENGTH) :])
        names = sorted((set(stored) | set(wanted)).difference(free))
        different = [name for name in names if _comparable(stored, name) != _comparable(wanted, name)]
        if not different:
            return now > before
        way_out = f"Use another --workdir, or --init_from={self.workdir} there, which begins with this run's weights."
        if different == ["records"]:
            raise InputError(f"{self.workdir} was trained on other records than these. {way_out}")
        rows = [f"  --{name}: stored {stored.get(name)!r}, now {wanted.get(name)!r}" for name in different]
        if now < before:
            rows.append(f"A run can be made longer, never shorter: it is set to {before} steps, now {now}.")
        raise InputError("\n".join([f"{self.workdir} holds a run of other settings:", *rows, way_out]))

    def _past(self, wanted, step):
        """The comment lines of what held up to `step` where it was something else than `wanted`: (step, flags)."""
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

    def open(self, wanted, step=0):
        """Make the folder, clear what a killed run left half-written, and store the settings as a flagfile.

        Args:
            wanted: of `describe`. step: from which the run goes on.
        """
        past = self._past(wanted, step)
        self.workdir.mkdir(parents=True, exist_ok=True)
        clear_unfinished(self.workdir, *(path.name for path in self.parts))
        clear_unfinished(self.checkpoints, "step-*.npz")
        (self.workdir / "scores.json").unlink(missing_ok=True)  # from here on the run is not finished
        header = f"# kseg {kseg.__version__}. scripts/train.py --flagfile=THIS --workdir=NEW repeats this run."
        # The digest of the records is no flag, so it stands in a comment.
        lines = [f"# {n}={value}" if n == "records" else flag_line(n, value) for n, value in wanted.items()]
        place = lines.index(flag_line("epochs", wanted["epochs"]))
        lines = [header, *lines[:place], *past, *lines[place:]]
        write_atomic(str(self.workdir / FLAGS_FILE), ("\n".join(lines) + "\n").encode())

    def print_contents(self):
        """Say where everything is."""
        for name, what in _CONTENTS.items():
            if (self.workdir / name).exists():
                print(f"{self.workdir / name}  {what}")

    def kept_model(self, keep):
        """Return the path of the weights that the setting `keep` chooses."""
        return self.workdir / ("last.keras" if keep == "last" else "best.keras")

    def read_history(self):
        """Return the rows of history.csv, numbers as floats, missing ones left out."""
        with open(self.workdir / "history.csv", newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    def write_history(self, rows):
        """Write history.csv, a row per epoch; columns are the union of the rows' keys."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(str(self.workdir / "history.csv"), text.getvalue().encode())

    def save_model(self, model, name):
        """Save a Keras model under its final name only when it is whole."""
        path = self.workdir / name
        with replacing(path) as temporary:
            model.save(temporary)
        return path
