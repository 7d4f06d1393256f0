"""Progress: a bar on a terminal, plain lines elsewhere; the seconds of a wait in which nothing can be counted."""

import sys
import threading
import time

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines where there is no terminal
TICK_SECONDS = 1  # between two looks at the clock while something is waited for


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


class Waiting:
    """A context that says on standard error what is being waited for, with the seconds as they pass.

    On a terminal the seconds count in place. Elsewhere there is a line at once, one in `LINE_SECONDS`, and a last one.
    """

    def __init__(self, text, clock=time.monotonic):
        self._text = text
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._begin = clock()
        self._written = self._begin
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ticking, daemon=True)

    def __enter__(self):
        self._say(self._text, end="" if self._terminal else "\n")
        self._thread.start()
        return self

    def __exit__(self, kind, *error):
        self._ended.set()
        self._thread.join()
        if kind is None:
            self._say(f"{self._text}, done after {self._seconds()} s")
        elif self._terminal:
            self._say("", end="\n")

    def _ticking(self):
        while not self._ended.wait(TICK_SECONDS):
            self.tick()

    def tick(self):
        """Show how long it has been."""
        now = self._clock()
        if self._terminal:
            self._say(f"{self._text}, {self._seconds()} s", end="")
        elif now - self._written >= LINE_SECONDS:
            self._written = now
            self._say(f"{self._text}, {self._seconds()} s")

    def _seconds(self):
        return int(self._clock() - self._begin)

    def _say(self, text, end="\n"):
        print(f"\r{text}" if self._terminal and text else text, end=end, file=sys.stderr, flush=True)
