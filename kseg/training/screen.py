"""What a run says on the screen: what it runs on, a line for each epoch, how long there is to go."""

import contextlib
import math
import time

from kseg.io.errors import as_written
from kseg.io.progress import say
from kseg.score_table import SCORES


class EpochClock:
    """Times an epoch from its making: `stop_steps` when the steps are done, `end_seconds` when all is."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._begin = clock()
        self._trained = None
        self._left_out = 0.0

    def seconds(self):
        """Return the seconds so far."""
        return self._clock() - self._begin

    def stop_steps(self):
        """The time of the steps ends here."""
        self._trained = self.seconds()

    def rate(self, images):
        """Return images per second of the steps."""
        return images / max(self._trained, 1e-9)

    @contextlib.contextmanager
    def stopped(self):
        """A context whose time since the steps does not count: it is spent once in a run."""
        begin = self._clock()
        yield
        self._left_out += self._clock() - begin

    def end_seconds(self):
        """Return the seconds since the steps: scoring, drawing, saving."""
        return self.seconds() - self._trained - self._left_out

    def step_seconds(self, steps):
        """Return the seconds of one step."""
        return self._trained / max(steps, 1)


def duration(seconds):
    """Return seconds as a person says them: "9 s", "12 min", "3 h 20 min"."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 10 else f"{hours} h"


def precision_of(settings):
    """Return the name of the number format that a run computes in."""
    return {"none": "float32"}.get(settings.mixed_precision, settings.mixed_precision)


def run_line(name, hardware, settings, steps, epochs, seconds):
    """Return the line about a run that begins.

    Args:
        name: of the model. hardware: of `Trainer.hardware`. settings: Settings. steps, epochs: of the whole run.
            seconds: that the steps left will take, None if that is not known.
    """
    work = f"{_count(steps, 'step')} of {_count(settings.batch_size, 'image')} in {_count(epochs, 'epoch')}"
    time_text = "" if seconds is None else f", about {duration(seconds)} of training left"
    return f"{name} on {hardware}, {precision_of(settings)}: {work}{time_text}"


def _count(number, one):
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def epoch_line(title, row, deciding, best, pace):
    """Return the line about an epoch.

    Args:
        title: "epoch 1/3". row: of the history. deciding: its column that decides which epoch is best. best: whether
            this one is, so far. pace: texts about speed, time and memory.
    """
    shown = {
        "loss": "loss {}",
        "mean_iou": "mean IoU {} training",
        "val_mean_iou": "{} validation",
    }
    if deciding not in shown and deciding in row:
        shown[deciding] = f"validation {SCORES[deciding.removeprefix('val_')].title} {{}}"
    parts = []
    for column, text in shown.items():
        if column in row:
            mark = " (best)" if best and column == deciding else ""
            parts.append(text.format(f"{row[column]:.4f}") + mark)
    return f"{title}: {', '.join([*parts, *pace])}"


def warn_of_warmup(warmup_steps, total_steps):
    """Say that the warm-up takes the whole run, if it does."""
    if warmup_steps >= total_steps and warmup_steps:
        share = math.floor(100 * total_steps / warmup_steps)
        text = (
            f"WARNING: the warm-up takes {warmup_steps} steps and the whole run {total_steps}: the learning rate rises "
            f"to its end, where it is {share}% of --learning_rate. Lower --warmup_steps, or train longer."
        )
        say(as_written(text))
