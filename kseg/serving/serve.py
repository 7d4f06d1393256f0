"""`kseg serve`: listens, loads the model, answers until it is told to stop."""

import contextlib
import functools
import importlib.util
import ipaddress
import pathlib
import re
import signal
import socket
import sys
import threading

from kseg.io.errors import InputError
from kseg.serving.limits import Limits
from kseg.serving.page import check_page, check_page_classes

_EXPOSED = (
    "warning: {} is not loopback: whoever reaches it can use this model. There is no authentication and no encryption: "
    "put a proxy before it (docs/how-to/serve.md)."
)
_KEEP_ALIVE = 60  # seconds that a connection may lie idle between two requests


def serve(model, *, name=None, host="127.0.0.1", port=8000, log_requests=False, page=None, **limits):
    """Serve a model by the Open Inference Protocol, version 2, over HTTP until SIGTERM or Ctrl-C.

    Requests under way are then answered first; a second Ctrl-C does not wait for them. Whoever reaches the address can
    use the model: there is no authentication and no encryption.

    Args:
        model: what `kseg.load_model` takes. name: of the model in addresses; None: that of its folder or file.
        host, port: where to listen; port 0 takes a free one. log_requests: write a line for each request to the log.
        page: folder of `kseg export --format=web`, shown at the address itself; it labels in the visitor's browser.
        limits: fields of `kseg.serving.limits.Limits`.
    Raises:
        InputError: no model, no such page, an address that cannot be listened at, a limit out of its range, starlette
            and uvicorn not installed.
    """
    limits = Limits(**limits)
    if not all(importlib.util.find_spec(package) for package in ("starlette", "uvicorn")):
        raise InputError("Serving needs starlette and uvicorn: pip install 'kseg[serve]'.")
    name = name_of(model) if name is None else name
    check_page(page)
    with _listening(host, port) as listener:
        from kseg.serving.served_model import ServedModel  # here, for it takes seconds to import Keras

        served = ServedModel(model, name)
        check_page_classes(page, served.label_set)
        address, port = listener.getsockname()[:2]
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            print(_EXPOSED.format(address), file=sys.stderr, flush=True)
        server = make_server(served, limits, log_requests, page)
        listener.listen()  # whoever reads the next line can connect
        shown = f"[{address}]" if ":" in address else address
        with _stopped_by_signals(server):
            print(f"{served.name}: http://{shown}:{port}/v2/models/{served.name} (Ctrl-C stops)", flush=True)
            if page is not None:
                print(f"page: http://{shown}:{port}/", flush=True)
            server.run(sockets=[listener])


def make_server(served, limits, log_requests=False, page=None):
    """Return uvicorn's server of a ServedModel; `run(sockets=[...])` runs it."""
    import uvicorn

    from kseg.serving.app import make_app
    from kseg.serving.connection import LimitedConnection

    config = uvicorn.Config(
        make_app(served, limits, log_requests, page),
        http=functools.partial(LimitedConnection, timeout=limits.timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=3 * limits.timeout,  # longer than any request can take
    )
    return uvicorn.Server(config)


def name_of(model):
    """Return what a model is called in addresses: its folder's or file's name, without what no address holds."""
    stem = pathlib.PurePath(str(model)).name
    for suffix in (".keras", ".onnx", ".tflite", ".toml"):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).lstrip(".-") or "model"


@contextlib.contextmanager
def _listening(host, port):
    """Give a socket that is bound, so that an address in use shows before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"{host} is no address of this machine: {error}. Give another host.") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise InputError(
                f"Cannot listen at {host}, port {port}: {error.strerror}. Give another host or port."
            ) from error
        yield listener


@contextlib.contextmanager
def _stopped_by_signals(server):
    """A block in which SIGTERM and Ctrl-C stop a server and mean no more than that.

    uvicorn takes them itself while it runs, but sends itself those that came when it has stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
