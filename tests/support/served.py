"""A server in a thread of the test's process, and plain ways to talk to it."""

import contextlib
import http.client
import json
import socket
import threading
import time

import numpy as np

from kseg.inference.label_model import LabelModel
from kseg.serving.limits import Limits
from kseg.serving.serve import make_server
from kseg.serving.served_model import ServedModel

INFER = "/v2/models/m/infer"


class SlowModel(LabelModel):
    """Gives the red channel as labels of 8 ids, when `go` is set."""

    num_classes = 8

    def __init__(self):
        self.label_set = {"name": "reds", "classes": [f"red {i}" for i in range(8)], "palette": None}
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)  # counts images that it was asked to label
        self.failure = None

    def predict(self, images, height, width, names):
        self.entered.release()
        assert self.go.wait(60)
        if self.failure:
            raise self.failure
        return images[..., 0].astype(np.int64) % 8


@contextlib.contextmanager
def serving(model, buffer=None, page=None, **limits):
    """Serve a model as `m`; gives the port. The thread ends with the block.

    buffer: bytes that a socket of the server holds for the client. page: of `serve`. limits: of `Limits`.
    """
    served = ServedModel(model, "m")
    while getattr(model, "entered", None) and model.entered.acquire(blocking=False):
        pass  # the image that ServedModel labels first
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)  # connections inherit it
        server = make_server(served, Limits(**limits), page=page)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def ask(port, method="GET", path="/v2", body=None, headers=(), timeout=60):
    """Send a request and return (status, body, headers); JSON is parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.headers.get("Content-Type") == "application/json":
        data = json.loads(data)
    return answer.status, data, answer.headers


def infer(port, table, tail=b"", **options):
    """POST a request: its JSON as a table, followed by bytes where there are any."""
    text = json.dumps(table).encode() if isinstance(table, dict) else table
    headers = {"Inference-Header-Content-Length": str(len(text))} if tail else {}
    return ask(port, "POST", INFER, text + tail, headers, **options)


def image_input(image, **changes):
    """Return the input `images` of a request for uint8 (B, H, W, 3), as JSON."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(image.shape), "data": image.ravel().tolist()}
    return {**tensor, **changes}


def raw(port, data, seconds=60):
    """Send bytes as they are and return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        return read_to_end(connection)


def read_to_end(connection):
    """Return everything that the other side sends until it closes, also by a reset."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**16):
            parts.append(part)
    return b"".join(parts)


def wait_until(holds, seconds=60):
    """Wait until a function gives something true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
