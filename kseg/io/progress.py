"""Progress: a bar on a terminal, plain lines anywhere else, with rate and time left."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines where there is no terminal


def progress_bar(description, total, done=0, unit="images", shown=True):
    """Return a context manager that counts up to `total`: `update(n)`, and `set_postfix` for what else to show.

    On a terminal it is tqdm's bar. Where standard error is a file or a pipe, a bar would leave thousands of fragments:
    there it is a `ProgressLines`. With `shown` False it counts in silence.
    """
    if not shown:
        return tqdm(disable=True)
    if sys.stderr.isatty():
        options = {"initial": done, "dynamic_ncols": True, "mininterval": 0.5}
        return tqdm(total=total, desc=description, unit=f" {unit}", **options)
    return ProgressLines(description, total, done, unit)


class ProgressLines:
    """Whole lines on standard error, one in `LINE_SECONDS` at most and a last one: count, rate, time left."""

    def __init__(self, description, total, done=0, unit="images", clock=time.monotonic):
        self.total = total
        self.n = done
        self._description = description
        self._unit = unit
        self._clock = clock
        self._first = done
        self._begin = clock()
        self._postfix = ""
        self._written = self._begin

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        if kind is None and self.n > self._first:
            self._write(f", {tqdm.format_interval(self._clock() - self._begin)} in all")

    def set_postfix(self, values, refresh=True):
        """Take texts or numbers by name for the lines to come; `refresh` is tqdm's."""
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def update(self, n=1):
        """Count n more."""
        self.n += n
        now = self._clock()
        if now - self._written >= LINE_SECONDS:
            self._written = now
            rest = ""
            if self.total:
                seconds = (self.total - self.n) * (now - self._begin) / (self.n - self._first)
                rest = f", {tqdm.format_interval(seconds)} left"
            self._write(rest)

    def _write(self, time_text):
        seconds = self._clock() - self._begin
        text = f"{self._description}: {self.n}"
        if self.total:
            text += f"/{self.total}"
        text += f" {self._unit}"
        if seconds > 0:
            text += f", {(self.n - self._first) / seconds:.3g}/s"
        print(text + time_text + self._postfix, file=sys.stderr, flush=True)
