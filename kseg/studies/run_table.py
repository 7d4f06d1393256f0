"""How far a study is: a table that is drawn anew on a terminal, plain lines elsewhere."""

import collections
import sys
import time

from tqdm import tqdm

from kseg.io.progress import on_terminal


class RunTable:
    """Counts the runs of a study: done, running, left, and the time left.

    Args:
        runs: (run's name, model's name) of all. done: names of those that are finished. stream, clock: for tests.
    """

    def __init__(self, runs, done, stream=None, clock=time.monotonic):
        self._model_of = dict(runs)
        self._done = set(done)
        self._broken = set()
        self._running = {}
        self._took = []
        self._at_once = 1  # the most that have run together so far
        self._stream = stream or sys.stderr
        self._clock = clock
        self._drawn = 0

    def started(self, name):
        """A run has started."""
        self._running[name] = self._clock()
        self._at_once = max(self._at_once, len(self._running))
        self._say(f"{name} started")

    def waits(self, name):
        """A run that had started waits for a machine again."""
        del self._running[name]
        self._say(f"{name} waits")

    def ended(self, name, good):
        """A run has ended, finished or broken."""
        self._took.append(self._clock() - self._running.pop(name))
        (self._done if good else self._broken).add(name)
        self._say(f"{name} {'done' if good else 'BROKEN'}")

    def state(self):
        """Return how far all is, in words."""
        left = len(self._model_of) - len(self._done) - len(self._broken) - len(self._running)
        text = f"{len(self._done)} of {len(self._model_of)} runs done, {len(self._running)} running, {left} left"
        if self._broken:
            text += f", {len(self._broken)} broken"
        rest = left + len(self._running)
        if self._took and rest:
            now = self._clock()
            mean = sum(self._took) / len(self._took)
            begun = sum(min(now - begin, mean) for begin in self._running.values())
            seconds = (rest * mean - begun) / min(self._at_once, rest)
            text += f", {tqdm.format_interval(seconds)} to go"
        return text

    def _say(self, event):
        if not on_terminal(self._stream):
            print(f"{event}: {self.state()}", file=self._stream, flush=True)
            return
        lines = [*self._rows(), self.state()]
        if self._drawn:
            print(f"\x1b[{self._drawn}A", end="", file=self._stream)
        for line in lines:
            print(f"\x1b[2K{line}", file=self._stream)
        self._stream.flush()
        self._drawn = len(lines)

    def _rows(self):
        width = max(map(len, self._model_of.values()))
        yield f"{'model':{width}}   done  running  broken   left"
        counts = [
            collections.Counter(self._model_of[name] for name in names)
            for names in (self._done, self._running, self._broken)
        ]
        for model, runs in collections.Counter(self._model_of.values()).items():
            done, running, broken = (count[model] for count in counts)
            yield f"{model:{width}} {done:6} {running:8} {broken:7} {runs - done - running - broken:6}"
