"""Progress: a bar on a terminal, plain lines elsewhere; the seconds of a wait in which nothing can be counted."""

import contextlib
import functools
import importlib.util
import os
import sys
import threading
import time

from tqdm import tqdm

from kseg.io.errors import InputError
from kseg.io.import_hook import around_import

LINE_SECONDS = 30  # between two lines where there is no terminal
QUIET_SECONDS = 5  # of silence before a wait is worth a line where there is no terminal
TICK_SECONDS = 1  # between two looks at the clock while something is waited for
_BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}  # those of Keras' that kseg takes
_ERASE = "\r\x1b[K"  # the terminal's line, from its beginning
_streams = []  # the last one stands for standard error
_waits = []  # what is waited for on a terminal, whose line is not finished


def on_terminal(stream):
    """Whether a stream is a terminal that can show a line: those of pseudo-terminals may have no rows."""
    if not stream.isatty():
        return False
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # a stream that only says that it is a terminal
        return True
    return size.lines > 0 and size.columns > 0


def say(text):
    """Print a line to standard output, above what is being waited for."""
    if _waits:
        _waits[-1].erase()
    print(text, flush=True)


@contextlib.contextmanager
def shown_on(stream):
    """While it lasts, what is waited for is said on another stream than standard error."""
    _streams.append(stream)
    try:
        yield
    finally:
        _streams.pop()


def progress_bar(description, total, done=0, unit="images", shown=True, stays=True, warm=False):
    """Return a context manager that counts up to `total`: `update(n)`, and `set_postfix` for what else to show.

    On a terminal it is tqdm's bar. Where standard error is a file or a pipe, a bar would leave thousands of fragments:
    there it is a `ProgressLines`. With `shown` False it counts in silence. One that does not stay is gone when it has
    ended, because what comes next says how it went. With `warm` the first update takes longer than the others, for it
    compiles: rate and time left are judged without it. What stays at the end has the rate and the time of the whole.
    """
    if not shown:
        return tqdm(disable=True)
    if on_terminal(sys.stderr):
        options = {"initial": done, "dynamic_ncols": True, "mininterval": 0.5, "leave": stays}
        kind = _WarmBar if warm else tqdm
        return kind(total=total, desc=description, unit=f" {unit}", **options)
    return ProgressLines(description, total, done, unit, stays=stays, warm=warm)


class _WarmBar(tqdm):
    """A bar whose clock begins when the first update has ended, and that ends with the time of all."""

    def __init__(self, **options):
        super().__init__(smoothing=0, **options)  # the mean rate: an average that forgets would remember the first
        self._cold = True
        self._opened = self.initial, self.start_t

    def update(self, n=1):
        shown = super().update(n)
        if self._cold:
            self._cold = False
            self.initial = self.n
            self.start_t = self._time()
        return shown

    def close(self):
        self.initial, self.start_t = self._opened
        super().close()


class ProgressLines:
    """Whole lines on standard error, one in `LINE_SECONDS` at most and, if it stays, a last one: count, rate, time."""

    def __init__(self, description, total, done=0, unit="images", clock=time.monotonic, stays=True, warm=False):
        self.total = total
        self.n = done
        self._description = description
        self._unit = unit
        self._clock = clock
        self._stays = stays
        self._first = done
        self._begin = clock()
        self._opened = self._first, self._begin
        self._cold = warm
        self._postfix = ""
        self._written = self._begin

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        self._first, self._begin = self._opened
        if kind is None and self.n > self._first and self._stays:
            self._write(f", {tqdm.format_interval(self._clock() - self._begin)} in all")

    def set_postfix(self, values, refresh=True):
        """Take texts or numbers by name for the lines to come; `refresh` is tqdm's."""
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def update(self, n=1):
        """Count n more."""
        self.n += n
        now = self._clock()
        if self._cold:
            self._cold = False
            self._first = self.n
            self._begin = now
        if now - self._written >= LINE_SECONDS:
            self._written = now
            rest = ""
            if self.total and self.n > self._first:
                seconds = (self.total - self.n) * (now - self._begin) / (self.n - self._first)
                rest = f", {tqdm.format_interval(seconds)} left"
            self._write(rest)

    def _write(self, time_text):
        seconds = self._clock() - self._begin
        if self.n == self._first:  # but for the first update, nothing has been timed
            seconds = 0
        text = f"{self._description}: {self.n}"
        if self.total:
            text += f"/{self.total}"
        text += f" {self._unit}"
        if seconds > 0:
            text += f", {(self.n - self._first) / seconds:.3g}/s"
        print(text + time_text + self._postfix, file=sys.stderr, flush=True)


class Waiting:
    """A context that says on standard error what is being waited for, with the seconds as they pass.

    On a terminal the seconds count in place, and the line is gone at the end. Elsewhere there is a line after the
    seconds `after`, one in `LINE_SECONDS`, and a last one if it took so long. With `shown` False it says nothing.
    """

    def __init__(self, text, clock=time.monotonic, shown=True, after=0):
        self._text = text
        self._clock = clock
        self._shown = shown
        self._terminal = on_terminal(sys.stderr)
        self._begin = clock()
        self._written = self._begin
        self._after = after
        self._said = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ticking, daemon=True)

    def __enter__(self):
        if self._shown:
            if self._terminal:
                _waits.append(self)
            if self._terminal or not self._after:
                self._begins()
            self._thread.start()
        return self

    def __exit__(self, kind, *error):
        if not self._shown:
            return
        self._ended.set()
        self._thread.join()
        if self._terminal:
            _waits.remove(self)
            self.erase()
        elif kind is None and self._seconds() >= LINE_SECONDS:
            self._say(f"{self._text}, done after {self._seconds()} s")

    def _ticking(self):
        while not self._ended.wait(TICK_SECONDS):
            self.tick()

    def tick(self):
        """Show how long it has been."""
        now = self._clock()
        if self._terminal:
            self._say(f"{self._text}, {self._seconds()} s")
        elif not self._said:
            if now - self._begin >= self._after:
                self._begins()
        elif now - self._written >= LINE_SECONDS:
            self._written = now
            self._say(f"{self._text}, {self._seconds()} s")

    def _begins(self):
        self._said = True
        self._say(self._text)

    def erase(self):
        """Empty the line, on a terminal."""
        self._print(_ERASE)

    def _seconds(self):
        return int(self._clock() - self._begin)

    def _say(self, text):
        self._print(f"{_ERASE}{text}" if self._terminal else f"{text}\n")

    def _print(self, text):
        print(text, end="", file=_streams[-1] if _streams else sys.stderr, flush=True)


@functools.cache
def announce_keras():
    """From now on the import of Keras and its backend, which takes many seconds, is said, whoever imports it."""
    around_import("keras", _loading)


def _loading():
    """Return what says that a backend is loaded; InputError for one that Keras cannot have here, or kseg does not take.

    Without KERAS_BACKEND Keras takes what its own settings say, which is TensorFlow if nobody changed them.
    """
    asked = os.environ.get("KERAS_BACKEND")
    if asked and asked not in _BACKENDS:
        raise InputError(
            f"KERAS_BACKEND must be {' or '.join(_BACKENDS)}, got {asked!r}. Set one of them, or unset it."
        )
    if asked and importlib.util.find_spec(asked) is None:
        raise InputError(f"KERAS_BACKEND is {asked}, which is not installed. Install it, or unset KERAS_BACKEND.")
    return Waiting(f"loading {_BACKENDS[asked or 'tensorflow']}")
