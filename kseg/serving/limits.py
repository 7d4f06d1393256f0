"""What a request may take, and how one that takes more, or is wrong, is answered. Imports no framework."""

from __future__ import annotations  # field types are read as text

import dataclasses

from kseg.io.errors import InputError, check_whole

JSON_BYTES = 2**24  # a text of 16 MB becomes up to half a gigabyte of Python's objects
JSON_NUMBERS = 2**21  # of an answer; more take seconds to write as text
CONNECTIONS = 512  # half of what a process may usually open


class RequestError(Exception):
    """A request that gets no tensors.

    Args:
        status: HTTP's. message: for whoever sent the request: it names nothing of this machine.
    """

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


class ClientGoneError(Exception):
    """Whoever asked has closed the connection: nobody is left to answer."""


def _limit(default, lower, help):
    return dataclasses.field(default=default, metadata={"help": help, "lower": lower})


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may take, and how many may wait. The help texts say what each field is.

    Raises:
        InputError: another value.
    """

    max_bytes: int = _limit(2**26, 1, "Bytes that the body of a request may have.")
    max_pixels: int = _limit(
        2**24,
        1,
        "Pixels that the images of a request may have together. The model works on four images at a time.",
    )
    timeout: float = _limit(
        60.0,
        0.001,
        "Seconds from the head of a request to its answer, waiting included. A head may take as long, and so may the "
        "client to take its answer.",
    )
    queue: int = _limit(
        16, 0, "Requests that may wait while the model works on another; more are refused with status 429."
    )

    def __post_init__(self):
        from kseg.io.images import MAX_PIXELS  # brings NumPy, which --help does without

        for field in dataclasses.fields(self):
            if field.type == "int":
                check_whole(field.name, getattr(self, field.name), field.metadata["lower"])
        if self.max_pixels > MAX_PIXELS:
            raise InputError(f"max_pixels must be at most {MAX_PIXELS}, got {self.max_pixels}: kseg reads no more.")
        timeout = self.timeout
        if not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise InputError(f"timeout must be seconds, more than 0, got {timeout!r}.")

    @property
    def memory(self):
        """Bytes of bodies and answers that may be held at once; above that no more of a body is read."""
        return self.max_bytes * (self.queue + 1)
