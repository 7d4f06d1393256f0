"""The folder of a training run: its settings, history, and what tells a finished run from a broken one."""

import ast
import csv
import dataclasses
import io
import json
import os
import pathlib
import shutil
import socket
import time

from PIL import Image

import kseg
from kseg.data.files import locked, replacing, write_atomic, writing
from kseg.data.tfrecord import frame
from kseg.errors import InputError
from kseg.settings import Settings

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
_RENAMED = {"select": "keep"}  # in runs of kseg 0.1.0's first days, as the next
_RENAMED_VALUES = {"sqrt_median_frequency": "inverse_sqrt_frequency"}
# They change no result; `kseg.runtime.settle_kernels` compares onednn.
_NOT_COMPARED = ("data_dir", "keep_checkpoints", "log_every_steps", "onednn")


def describe(model, data_dir, model_options, strategy, settings, records):
    """Return a run's settings as {flag: text}, None and empty ones left out; `records` is the manifest's digest."""
    values = {
        "model": model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__),
        "data_dir": data_dir,
        "model_options": json.dumps(model_options, sort_keys=True),
        "strategy": strategy,
        **dataclasses.asdict(settings),
        "records": records,
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "") and name != "on_conflict"}


def parse_settings(stored):
    """Return keyword arguments of Settings from what `RunFolder.stored` read."""
    kinds = {field.name: field.type for field in dataclasses.fields(Settings)}
    values = {}
    for name, text in stored.items():
        if name in kinds:
            try:
                values[name] = text if kinds[name] == "str" else ast.literal_eval(text)
            except (ValueError, SyntaxError) as error:
                raise InputError(f"{FLAGS_FILE} is damaged: --{name}={text}. Use a new workdir.") from error
    return values


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of a run under its workdir; `check` compares what is asked for with what is stored there."""

    workdir: pathlib.Path

    @property
    def checkpoints(self):
        return self.workdir / "checkpoints"

    @property
    def finished(self):
        """Whether the run was trained, scored and exported to its end (scores.json comes last)."""
        return (self.workdir / "scores.json").exists()

    def alone(self):
        """A context in which no other process can train in this folder (`kseg.data.files.locked`)."""
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
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [line[2:].partition("=") for line in lines if line.startswith(("--", "# records="))]
        return {_RENAMED.get(name, name): _RENAMED_VALUES.get(value, value) for name, _, value in pairs}

    def check(self, wanted):
        """Raise ValueError with the differences if the folder holds a run of other settings than `wanted`."""
        stored = self.stored()
        if stored is None:
            return
        names = sorted((set(stored) | set(wanted)).difference(_NOT_COMPARED))
        defaults = {field.name: str(field.default) for field in dataclasses.fields(Settings)}  # for runs of older kseg
        different = [n for n in names if stored.get(n, defaults.get(n, "")) != wanted.get(n, defaults.get(n, ""))]
        if different:
            if different == ["records"]:
                raise InputError(f"{self.workdir} was trained on other records than these. Use another workdir.")
            rows = [f"  --{n}: stored {stored.get(n)!r}, now {wanted.get(n)!r}" for n in different]
            raise InputError(
                f"{self.workdir} holds a run of other settings:\n" + "\n".join(rows) + "\nUse another workdir, or say "
                "--on_conflict=stored (go on with the stored settings) or --on_conflict=new (with these)."
            )

    def check_keep(self, keep, best_by):
        """Raise ValueError if the run has kept its best epoch by another criterion than is asked for."""
        stored = self.stored() or {"keep": keep, "best_by": best_by}
        wanted = {"keep": keep, "best_by": best_by}
        before = {name: stored.get(name, Settings.__dataclass_fields__[name].default) for name in wanted}
        by_loss = [values["keep"] == "lowest_loss" for values in (before, wanted)]
        name = "keep" if by_loss[0] != by_loss[1] else "best_by"
        if by_loss[0] != by_loss[1] or (not by_loss[0] and before[name] != wanted[name]):
            raise InputError(
                f"{self.workdir} has kept epochs by --{name}={before[name]}, which cannot become "
                f"--{name}={wanted[name]}: the weights of earlier epochs are gone. Use another workdir."
            )

    def open(self, wanted):
        """Make the folder, clear what a killed run left half-written, and store the settings as a flagfile."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        for path in (*self.workdir.glob(".*tmp*"), *self.checkpoints.glob(".tmp-*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.workdir / "scores.json").unlink(missing_ok=True)  # from here on the run is not finished
        header = f"# kseg {kseg.__version__}. scripts/train.py --flagfile=THIS --workdir=NEW repeats this run."
        # The digest of the records is no flag, so it stands in a comment.
        lines = [f"{'# ' if name == 'records' else '--'}{name}={value}" for name, value in wanted.items()]
        lines.insert(0, header)
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


class TensorBoardLog:
    """Event files for TensorBoard, written without TensorFlow, so that every backend has them.

    An event is in the file when the call returns: TensorBoard's own writer keeps events for two minutes, and tells of
    a full disk in a thread. A run that begins after `step` hides what was written of later steps before.
    """

    def __init__(self, folder, step=0):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        name = (
            f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"  # in the order of their names
        )
        self.path = pathlib.Path(folder) / name
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def scalars(self, step, values):
        """Add numbers by tag."""
        self._add(step, [{"tag": tag, "simple_value": float(value)} for tag, value in values.items()])

    def picture(self, step, tag, path):
        """Add a PNG file as it is."""
        width, height = Image.open(path).size
        encoded = pathlib.Path(path).read_bytes()
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": encoded}
        self._add(step, [{"tag": tag, "image": image}])

    def _add(self, step, values):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event):
        with writing(self.path):
            self._file.write(frame(event.SerializeToString()))
