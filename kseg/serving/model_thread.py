"""One thread for the model: requests wait their turn in a queue of limited length."""

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time

from kseg.serving.limits import RequestError


class ModelThread:
    """Runs one function after the other in a thread of its own.

    A daemon: a model that never returns does not keep the process from ending.

    Args:
        waiting: how many may wait for their turn.
    """

    def __init__(self, waiting):
        self._most = waiting
        self._waiting = 0
        self._free = asyncio.Lock()
        self._since = None
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def check_room(self):
        """Raise RequestError 429 if the queue is full."""
        if self._free.locked() and self._waiting >= self._most:
            raise RequestError(429, "The model is busy and the queue is full. Ask again later.")

    def busy_for(self):
        """Return for how many seconds the present function has run; 0 where none does."""
        since = self._since
        return time.monotonic() - since if since is not None else 0.0

    async def run(self, function):
        """Return what a function returns in the thread; RequestError 429 if the queue is full.

        Cancelled while it waits, it leaves the queue. Cancelled later, the function still runs to its end, and the next
        one waits for that.
        """
        self.check_room()
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        job = concurrent.futures.Future()
        job.add_done_callback(lambda _: self._release(loop))
        self._jobs.put((function, job))
        return await asyncio.wrap_future(job)

    def _release(self, loop):
        with contextlib.suppress(RuntimeError):  # the server has stopped and its loop is closed
            loop.call_soon_threadsafe(self._free.release)

    def _work(self):
        while True:
            function, job = self._jobs.get()
            if not job.set_running_or_notify_cancel():
                continue
            self._since = time.monotonic()
            try:
                result = function()
            except BaseException as error:
                self._since = None
                job.set_exception(error)
            else:
                self._since = None
                job.set_result(result)
            del function, job  # the request's bytes, until the next one comes
