"""Processes that share the work on a dataset's files, with a progress bar; they end with their parent."""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

import tqdm

from kseg.io.errors import InputError, LostProcessError
from kseg.io.progress import progress_bar


def map_ahead(function, arguments, ahead=32):
    """Map in threads, in order, at most `ahead` results before they are asked for."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting = collections.deque()
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_state = {}  # of a worker process: the source, sent once instead of with every item


class Workers:
    """Run `function(source, item)` over items in spawned processes, or in this one.

    Spawned, not forked: the parent may have threads (TensorFlow's). The calling script is not run again in them, so it
    needs no `if __name__ == "__main__":` and may be a notebook.

    Args:
        source: what every call gets; sent to each process once. count: number of processes; 1 is this one. If no
            process may be started (a system without semaphores, a worker of another pool), this process does the work,
            and a line says so.
        progress: show bars on stderr.
    """

    def __init__(self, source, count: int, progress: bool):
        self._source = source
        self._progress = progress
        self._pool = None
        if count > 1:
            self._pool = _start_pool(source, count)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable, items: Sequence, what: str, weight: Callable | None = None) -> Iterator:
        """Yield function(source, item) in the items' order; the bar counts weight(item), 1 by default.

        Raises:
            ChildProcessError: a worker was killed, most often for lack of memory.
        """
        weigh = weight or (lambda item: 1)
        if self._pool is None:
            results = map(functools.partial(function, self._source), items)
        else:
            chunk = max(1, min(8, len(items) // 32))
            with _without_main():
                results = self._pool.map(functools.partial(_call, function), items, chunksize=chunk)
        total = sum(map(weigh, items))
        try:
            with progress_bar(what, total, shown=self._progress and total) as bar:
                for item, result in zip(items, results, strict=True):
                    bar.update(weigh(item))
                    yield result
        except InputError as error:  # raised in another process: say it here, where its reader looks
            raise type(error)(*error.args) from error
        except BrokenProcessPool:
            raise LostProcessError(
                "A worker process was killed, perhaps for lack of memory. Run it again with fewer workers."
            ) from None


def _start_pool(source, count: int):
    """Return a pool whose processes start with its first work, or None if this system allows none."""
    why = "this process is a worker of another pool"
    if not multiprocessing.current_process().daemon:
        try:
            context = multiprocessing.get_context("spawn")
            return concurrent.futures.ProcessPoolExecutor(count, context, _start_worker, (source,))
        except (OSError, ImportError, NotImplementedError) as error:  # what CPython raises without semaphores
            why = str(error)
    tqdm.tqdm.write(f"No other process can be started ({why}), so this one does all the work.", file=sys.stderr)
    return None


@contextlib.contextmanager
def _without_main():
    """A block in which processes start without running the calling script, which would prepare its data again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _call(function: Callable, item):
    return function(_state["source"], item)


def _start_worker(source) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _state["source"] = source
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # returns when the parent is gone, even killed
    os._exit(1)
