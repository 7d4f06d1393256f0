"""What a run reports: lines on standard output, and numbers and pictures for TensorBoard."""

import os
import pathlib
import socket
import time

from PIL import Image
from tqdm import tqdm

from kseg.io.files import writing
from kseg.io.tfrecord import frame


class EpochClock:
    """Times an epoch from its making: `stop_steps` when the steps are done, `left` when validation is too."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._begin = clock()
        self._trained = None

    def stop_steps(self):
        """The time of the steps ends here."""
        self._trained = self._clock() - self._begin

    def rate(self, images):
        """Return images per second of the steps."""
        return images / max(self._trained, 1e-9)

    def left(self, steps, remaining):
        """Return as text how long `remaining` steps take if they go as this epoch's `steps` and its validation did."""
        return tqdm.format_interval((self._clock() - self._begin) / max(steps, 1) * remaining)


class TensorBoardLog:
    """Event files for TensorBoard, written without TensorFlow, so that every backend has them.

    An event is in the file when the call returns: TensorBoard's own writer holds events back for two minutes, and
    reports a full disk in a thread. A run that starts after `step` hides earlier events of later steps.
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


class RunLog(TensorBoardLog):
    """TensorBoardLog that knows what training and validation report."""

    def training(self, step, logs, learning_rate):
        """Add what the epoch has come to so far (`Trainer.logs`) and the rate of the next step."""
        values = {f"train/{name}": value for name, value in logs.items()}
        self.scalars(step, {**values, "learning_rate": learning_rate})

    def validation(self, step, scores, pictures):
        """Print and add what a validation found.

        Args:
            scores: kseg.metrics.Scores. pictures: paths of PNG files by title.
        Returns:
            dict of `kseg.score_table.SCORES`, their names beginning with "val_".
        """
        found = scores.values()
        self.scalars(step, {f"val/{name}": value for name, value in found.items()})
        for title, path in pictures.items():
            self.picture(step, title, path)
        if scores.out_of_range:
            print(f"WARNING: {scores.out_of_range} pixels have a label that is neither a class nor void.")
        print(f"validation: mean IoU {scores.mean_iou:.4f}, pixel accuracy {scores.pixel_accuracy:.4f}", flush=True)
        return {f"val_{name}": value for name, value in found.items()}

    def pace(self, step, title, images_per_second, memory, left):
        """Print and add how an epoch went.

        Args:
            title: of the line. memory: of `Trainer.peak_memory`: (bytes, of what). left: the run's remaining time as
                text.
        """
        size, kind = memory
        print(f"{title}: {images_per_second:.3g} images/s, {left} left, {kind} {size / 1e9:.2f} GB at most", flush=True)
        self.scalars(step, {"images_per_second": images_per_second, f"{kind} at most (GB)": size / 1e9})
