"""SIGTERM and Ctrl-C during a run: noted at once, obeyed as soon as a checkpoint can be written."""

import contextlib
import os
import signal
import sys
import threading
import traceback

from kseg.io.errors import InputError


class Stopped(BaseException):
    """Leaves the run at a place where its state is consistent; `leave` turns it into what the signal means."""


class Interruption:
    """While it lasts, the first SIGTERM or Ctrl-C is noted for `check`; a second does what it always does.

    One that no `check` has seen (during an export, say) does what it means when the block ends. So does one beside an
    error, which is shown first: whoever catches errors and goes on to the next run must not lose a Ctrl-C.
    A process that ignores a signal (nohup) goes on ignoring it. Only the main thread can take signals: in any other
    nothing changes, nor where `noted` is off. The handlers that were there come back at the end.
    """

    def __init__(self, noted=True):
        self._noted = noted

    def __enter__(self):
        self.requested = None
        self._before = {}
        if self._noted and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind, error, trace):
        self._give_back()
        if self.requested and (error is None or isinstance(error, Exception)):
            if error is not None:
                text = str(error) if isinstance(error, InputError) else "".join(traceback.format_exception(error))
                print(text, file=sys.stderr, flush=True)
            self.leave()

    def _give_back(self):
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number, frame):
        self.requested = signal.Signals(number)
        self._give_back()
        text = f"\n{self.requested.name}: the run stops when its files are safe. A second signal stops it at once.\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())  # print may not be entered twice

    def check(self):
        """Raise Stopped if there was a signal."""
        if self.requested:
            raise Stopped

    def watch(self, batches):
        """Give the batches, with a `check` before each."""
        for batch in batches:
            self.check()
            yield batch

    def leave(self):
        """Raise what the signal means: SystemExit with code 143 for SIGTERM, KeyboardInterrupt for Ctrl-C."""
        interrupted = self.requested is signal.SIGINT
        raise (KeyboardInterrupt if interrupted else SystemExit(128 + self.requested)) from None
