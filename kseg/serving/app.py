"""The Open Inference Protocol, version 2, as an ASGI application."""

import asyncio
import functools
import logging
import threading
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

import kseg
from kseg.serving.limits import ClientGoneError, RequestError
from kseg.serving.model_thread import ModelThread
from kseg.serving.page import PAGE_FILES
from kseg.serving.served_model import VERSION

_LOG = logging.getLogger("kseg.serving")
_JSON_LENGTH = "Inference-Header-Content-Length"
_CHUNK = 2**16
# With these a browser lets the page compute with several threads.
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


def make_app(served, limits, log_requests=False, page=None):
    """Return the application that serves a model.

    No part of a request names a file: a model's name is compared with the one that is served.

    Args:
        served: ServedModel. limits: Limits. log_requests: write a line for each request to the log.
        page: folder of a web export to show at /, None for none.
    """
    thread = ModelThread(limits.queue)
    model = "/v2/models/{name}"

    async def server(request):
        return JSONResponse({"name": "kseg", "version": kseg.__version__, "extensions": ["binary_tensor_data"]})

    async def live(request):
        return Response()

    async def ready(request):
        _check_model(request.path_params, served)
        if thread.busy_for() > limits.timeout:
            return _error(503, f"The model has worked on one request for more than {limits.timeout:g} s.")
        return Response()

    async def metadata(request):
        _check_model(request.path_params, served)
        return JSONResponse(served.metadata)

    infer = _Infer(served, limits, thread)
    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for path in (model, model + "/versions/{version}"):
        routes += [
            Route(path, metadata),
            Route(path + "/ready", ready),
            Route(path + "/infer", infer, methods=["POST"]),
        ]
    if page is not None:
        routes += [Route(address, functools.partial(_file, f"{page}/{name}")) for address, name in PAGE_FILES.items()]
    app = Starlette(
        routes=routes,
        exception_handlers={RequestError: _refused, HTTPException: _no_such_thing, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return _Logged(app) if log_requests else app


# Coroutines, for Starlette runs plain functions in threads.
async def _file(path, request):
    return FileResponse(path, headers=_ISOLATED)


async def _refused(request, error):
    return _error(error.status, error.message)


async def _no_such_thing(request, error):
    return _error(error.status_code, error.detail, error.headers)


async def _failed(request, error):
    return _error(500, "The server failed. Its log says why.")  # uvicorn logs the error


def _error(status, message, headers=None):
    return JSONResponse({"error": message}, status, headers)


def _check_model(given, served):
    """Raise RequestError 404 unless a path's parts name the model that is served, or none."""
    if given.get("name", served.name) != served.name or given.get("version", VERSION) != VERSION:
        raise RequestError(404, f"There is one model, {served.name}, of version {VERSION}.")


class _Infer:
    """POST .../infer: reads a body within the limits, waits for the model, sends the answer."""

    def __init__(self, served, limits, thread):
        self._served = served
        self._limits = limits
        self._thread = thread
        self._held = {}  # request -> how many bytes of its body, or its answer, are in memory

    async def __call__(self, scope, receive, send):
        end = asyncio.get_running_loop().time() + self._limits.timeout
        key = object()
        try:
            await self._answer(key, end, scope, receive, send)
        except ClientGoneError:
            pass
        finally:
            self._held.pop(key, None)

    async def _answer(self, key, end, scope, receive, send):
        _check_model(scope["path_params"], self._served)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        encoding = headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise RequestError(415, "Bodies must be sent as they are, without a Content-Encoding.")
        self._check_size(headers.get("content-length", "0"))
        self._thread.check_room()
        body = await self._read(key, end, receive)
        given_up = threading.Event()
        asked = [body, headers.get(_JSON_LENGTH.lower()), self._limits.max_pixels, given_up.is_set]
        work = functools.partial(self._served.answer, *asked)
        answer, json_length = await self._worked(self._thread.run(work), given_up, end, receive)
        del body, work, asked
        self._held[key] = len(answer)
        await _send(answer, json_length, send)

    def _check_size(self, size):
        if int(size) > self._limits.max_bytes:  # the HTTP parser has seen to it that it is a number
            raise RequestError(413, f"A body may have {self._limits.max_bytes} bytes.")

    async def _read(self, key, end, receive):
        """Return the whole body, or refuse it as soon as it is too long, too slow, or one too many."""
        body = bytearray()
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), _left(end))
            except asyncio.TimeoutError:
                raise RequestError(408, f"The body did not arrive within {self._limits.timeout:g} s.") from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body += message.get("body", b"")
            more = message.get("more_body", False)
            self._check_size(len(body))
            self._held[key] = len(body)
            if sum(self._held.values()) > self._limits.memory:
                raise RequestError(503, "The server holds as many requests as its memory is for. Ask again later.")
        return body

    async def _worked(self, work, given_up, end, receive):
        """Return what the model's thread gives; give up at the end of the time, or when the client is gone.

        given_up: threading.Event that tells the thread so.
        """
        work = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, timeout=_left(end), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise ClientGoneError
            raise RequestError(504, f"The model did not answer within {self._limits.timeout:g} s.")
        finally:
            given_up.set()
            work.cancel()
            gone.cancel()


def _left(end):
    return max(0.0, end - asyncio.get_running_loop().time())


async def _disconnected(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer, json_length, send):
    """Send an answer in pieces: what the client has not taken yet stays here, where it is counted."""
    kind = b"application/json" if json_length is None else b"application/octet-stream"
    headers = [(b"content-type", kind), (b"content-length", str(len(answer)).encode())]
    if json_length is not None:
        headers.append((_JSON_LENGTH.lower().encode(), str(json_length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(answer), _CHUNK):
        piece = answer[start : start + _CHUNK]
        await send({"type": "http.response.body", "body": piece, "more_body": start + _CHUNK < len(answer)})


class _Logged:
    """Writes one line for each request: method, path, status, seconds."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        start = time.monotonic()
        status = "gone"

        async def noted(message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = scope["raw_path"].decode("latin-1")[:200]  # as it came: no line break can be in it
            _LOG.info("%s %s %s %.3f s", scope["method"], path, status, time.monotonic() - start)
