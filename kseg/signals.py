"""SIGTERM and Ctrl-C during a run: noted at once, obeyed where a checkpoint can be written."""

import contextlib
import os
import signal
import threading


class Stopped(BaseException):
    """Leaves the run at a place where its state is whole; `leave` turns it into what the signal means."""


class Interruption:
    """While it lasts, the first SIGTERM or Ctrl-C is noted for `check`; a second does what it always does.

    A process that ignores a signal (nohup) goes on ignoring it. Only the main thread can take signals: in any other
    nothing changes, nor where `noted` is off. The handlers that were there come back at the end.
    """

    def __init__(self, noted=True):
        self._noted = noted

    def __enter__(self):
        self.requested, self._before = None, {}
        if self._noted and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number, frame):
        self.requested = signal.Signals(number)
        self.__exit__()
        text = f"\n{self.requested.name}: the run stops after this step; the signal again stops it at once.\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())  # print may not be entered twice

    def check(self):
        """Raise Stopped if a signal came."""
        if self.requested:
            raise Stopped

    def watch(self, batches):
        """Give the batches, with a `check` before each."""
        for batch in batches:
            self.check()
            yield batch

    def leave(self):
        """Raise what the signal means: SystemExit with code 143 for SIGTERM, KeyboardInterrupt for Ctrl-C."""
        raise KeyboardInterrupt if self.requested is signal.SIGINT else SystemExit(128 + self.requested)
