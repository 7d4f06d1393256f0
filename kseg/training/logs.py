"""Where the numbers and pictures of a run go, beside the screen: LOGGERS, which the setting logger names.

A logger's class is made with (workdir, step that the run begins after) and has `settings`, `scalars`, `picture`,
`table` and `close`, as TensorBoardLog says. A run that goes on, goes on in the same record.
"""

import importlib.util
import os
import pathlib
import re
import socket
import time
from typing import NamedTuple

from PIL import Image

from kseg.io.errors import InputError
from kseg.io.files import write_atomic, writing
from kseg.io.progress import say
from kseg.io.tfrecord import frame
from kseg.score_table import SCORE_NAMES


class TensorBoardLog:
    """Event files for TensorBoard, written without TensorFlow, so that every backend has them.

    An event is in the file when the call returns: TensorBoard's own writer holds events back for two minutes, and
    reports a full disk in a thread. A run that starts after `step` hides earlier events of later steps.
    """

    def __init__(self, workdir, step=0):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # In the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = pathlib.Path(workdir) / "logs" / name
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def settings(self, values):
        """Add a run's settings, texts by name."""
        self._text(0, "settings", ("setting", "value"), values.items())

    def table(self, step, title, head, rows):
        """Add a table: the names of its columns, and rows of texts and numbers."""
        self._text(step, title, head, rows)

    def close(self, failed=False):
        """End the record."""
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

    def _text(self, step, tag, head, rows):
        lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
        markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        tensor = {"dtype": "DT_STRING", "string_val": [markdown.encode()], "tensor_shape": {"dim": [{"size": 1}]}}
        self._add(step, [{"tag": tag, "tensor": tensor, "metadata": {"plugin_data": {"plugin_name": "text"}}}])

    def _add(self, step, values):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event):
        with writing(self.path):
            self._file.write(frame(event.SerializeToString()))


class WandbLog:
    """A run of Weights & Biases, by the variables of its own: WANDB_MODE=offline, WANDB_PROJECT (kseg), WANDB_ENTITY.

    Offline, a run that goes on leaves a second folder with the same id, and `wandb sync` joins them.
    """

    def __init__(self, workdir, step=0):
        import wandb

        record = _Record(workdir, "wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kseg"),
            name=pathlib.Path(workdir).absolute().name,
            id=record.name,
            resume="allow",
            dir=str(record.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        record.store(self._run.id)
        self._run.define_metric("*", step_metric="step")  # a step that is done again is one more point, not an error

    def settings(self, values):
        self._run.config.update(values, allow_val_change=True)

    def scalars(self, step, values):
        self._run.log({"step": step, **values})

    def picture(self, step, tag, path):
        import wandb

        self._run.log({"step": step, tag: wandb.Image(str(path))})

    def table(self, step, title, head, rows):
        import wandb

        rows = [list(row) for row in rows]
        self._run.log({"step": step, title: wandb.Table(columns=list(head), data=rows)})

    def close(self, failed=False):
        self._run.finish(exit_code=int(failed))


class MlflowLog:
    """A run of MLflow, by the variables of its own: MLFLOW_TRACKING_URI (else the folder mlruns) and the experiment's.

    That is MLFLOW_EXPERIMENT_NAME (else kseg).
    """

    def __init__(self, workdir, step=0):
        # mlflow-skinny has no database, and MLflow refuses its folders unless this is set.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        place = None if mlflow.is_tracking_uri_set() else pathlib.Path("mlruns").absolute().as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=place)
        record = _Record(workdir, "mlflow")
        if record.name is None:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kseg")
            found = self._client.get_experiment_by_name(title)
            number = found.experiment_id if found else self._client.create_experiment(title)
            run = self._client.create_run(number, run_name=pathlib.Path(workdir).absolute().name)
            record.store(run.info.run_id)
        else:
            self._client.update_run(record.name, status="RUNNING")
        self._id = record.name

    def settings(self, values):
        from mlflow.entities import Param

        known = self._client.get_run(self._id).data.params  # MLflow lets none change; the file has what holds now
        new = [Param(name, value) for name, value in values.items() if name not in known]
        self._client.log_batch(self._id, params=new)
        self._client.log_dict(self._id, values, "settings.json")

    def scalars(self, step, values):
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_of_mlflow(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, step, tag, path):
        self._client.log_artifact(self._id, str(path), f"pictures/step-{step:08}")

    def table(self, step, title, head, rows):
        lines = [head, *([_cell(cell) for cell in row] for row in rows)]
        self._client.log_text(self._id, "".join("\t".join(line) + "\n" for line in lines), f"{_of_mlflow(title)}.tsv")

    def close(self, failed=False):
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


class _Record:
    """What a service calls the record of a run, kept in the run's folder: a run that goes on finds it there."""

    def __init__(self, workdir, service):
        self.folder = pathlib.Path(workdir) / "logs"
        self._path = self.folder / f"{service}.txt"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = self._path.read_text(encoding="utf-8").strip() if self._path.exists() else None

    def store(self, name):
        self.name = name
        write_atomic(str(self._path), f"{name}\n".encode())


def _of_mlflow(name):
    """Return a name without what MLflow takes in none."""
    return re.sub(r"[^\w./ -]", "", name)


def _cell(value):
    return value if isinstance(value, str) else f"{value:.4f}"


class Logger(NamedTuple):
    """A place for what a run reports. log: its class. package: what must be installed; the extra has its name too."""

    log: type
    package: str | None = None


LOGGERS = {
    "tensorboard": Logger(TensorBoardLog),
    "wandb": Logger(WandbLog, "wandb"),
    "mlflow": Logger(MlflowLog, "mlflow"),
}


def chosen_loggers(names):
    """Return the names in the setting logger; InputError for an unknown one or one whose package is not installed."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in LOGGERS or chosen.count(name) > 1:
            raise InputError(f"logger must be some of {', '.join(LOGGERS)}, each once, got {names!r}.")
        package = LOGGERS[name].package
        found = package is None or importlib.util.find_spec(package)
        if not found or (package and found.origin is None):  # a folder of that name, such as wandb's own ./wandb
            raise InputError(
                f"--logger={name} needs the package {package}, which is not installed. Run\n"
                f"pip install 'kseg[{package}]'\nor leave {name} out."
            )
    return chosen


class RunLog:
    """Tells every logger of a run what training and validation report.

    Args:
        workdir: the run's folder. loggers: names in LOGGERS. step: that the run begins after. settings: texts by name.
    """

    def __init__(self, workdir, loggers, step, settings):
        self._logs = {}
        for name in loggers:
            try:
                self._logs[name] = LOGGERS[name].log(workdir, step)
            except Exception as error:  # of any kind, as the services raise them
                if LOGGERS[name].package is None:
                    raise
                raise InputError(f"The logger {name} cannot begin: {error}") from error
        self._each("settings", settings)

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        self._each("close", kind is not None)

    def _each(self, what, *values):
        for name, log in list(self._logs.items()):
            try:
                getattr(log, what)(*values)
            except Exception as error:  # a service that is gone must not end a run of hours
                if LOGGERS[name].package is None:
                    raise
                del self._logs[name]
                say(f"WARNING: the logger {name} failed and takes no more of this run: {error}")

    def training(self, step, logs, learning_rate):
        """Add what the epoch has come to so far (`Trainer.logs`) and the rate of the next step."""
        values = {f"train/{name}": value for name, value in logs.items()}
        self._each("scalars", step, {**values, "learning_rate": learning_rate})

    def validation(self, step, values, pictures):
        """Add what a validation found: scores by name, paths of PNG files by title."""
        self._each("scalars", step, {f"val/{name}": value for name, value in values.items()})
        for title, path in pictures.items():
            self._each("picture", step, title, path)

    def pace(self, step, images_per_second, memory):
        """Add how an epoch went; memory: of `Trainer.peak_memory`."""
        size, kind = memory
        self._each("scalars", step, {"images_per_second": images_per_second, f"{kind} at most (GB)": size / 1e9})

    def final(self, step, scores):
        """Add the `kseg.metrics.Scores` of the weights that the run kept, `step` being theirs."""
        self._each("scalars", step, {f"final/{name}": value for name, value in scores.values().items()})
        head = ("class", *SCORE_NAMES)
        rows = [("mean", *(getattr(scores, name) for name in SCORE_NAMES))]
        rows += [(name, *(row[score] for score in SCORE_NAMES)) for name, row in scores.per_class.items()]
        self._each("table", step, "final scores", head, rows)
