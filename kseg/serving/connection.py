"""uvicorn's HTTP connection with the limits that it lacks: how many there are, and how long each step may take."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kseg.serving.limits import CONNECTIONS

_TEXT = json.dumps({"error": "The server has too many connections. Ask again later."})
_FULL = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(_TEXT)}\r\n"
    f"Connection: close\r\n\r\n{_TEXT}"
).encode()
_IDLE = "idle"
_AT_WORK = "at work"
_ELSE = "a head or the rest of a body to come, an answer to be taken"


class LimitedConnection(H11Protocol):
    """A connection that is closed where the other side does not go on.

    uvicorn itself waits for ever for a head that does not end, and for an answer to be taken.

    Args:
        timeout: seconds for a head to arrive, and for an answer to be taken; the request between them has twice as
            many, for the application answers it within `timeout` and then sends the answer.
    """

    def __init__(self, *args, timeout, **options):
        super().__init__(*args, **options)
        self._timeout = timeout
        self._watched = None
        self._deadline = None

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.write(_FULL)
            transport.close()
        self._watch()

    def data_received(self, data):
        super().data_received(data)
        self._watch()

    def on_response_complete(self):
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._forget()

    def send_400_response(self, msg):
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer is on its way already
            self.transport.close()

    def _state(self):
        if self.cycle is not None and not self.cycle.response_complete:
            return _AT_WORK
        if self.timeout_keep_alive_task is not None and not self.transport.get_write_buffer_size():
            return _IDLE  # uvicorn closes it in its time
        return _ELSE

    def _watch(self):
        """Start the clock anew where the connection has come to another state, or to another request."""
        now = self._state(), self.cycle
        if now == self._watched:
            return
        self._forget()
        self._watched = now
        if now[0] != _IDLE:
            seconds = 2 * self._timeout if now[0] == _AT_WORK else self._timeout
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _forget(self):
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._watched = None

    def _expire(self):
        self._forget()
        if self._state() != _IDLE:
            self.transport.abort()
