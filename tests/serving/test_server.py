"""The server, over real connections: the protocol, its limits, and clients that lie, stall or go away."""

import concurrent.futures
import contextlib
import functools
import gzip
import io
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import served
import tiny
from PIL import Image
from served import INFER, ask, image_input, infer, raw, read_to_end, wait_until

from kseg.io.errors import InputError, NotFiniteError
from kseg.layers.preprocessing import preprocess_layer
from kseg.serving import connection as connections
from kseg.serving.limits import Limits
from kseg.serving.page import check_page_classes
from kseg.serving.serve import name_of, serve
from kseg.serving.served_model import ServedModel

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
REDS = (IMAGE[..., 0] % 8).tolist()[0]  # what SlowModel gives
REQUEST = {"inputs": [image_input(IMAGE)]}
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def model():
    return served.SlowModel()


@pytest.fixture(scope="module")
def port(model):
    """Of a server with room for one request beside the one that is worked on."""
    with served.serving(model, queue=1, max_bytes=10_000) as number:
        yield number


@pytest.fixture(scope="module")
def hasty():
    """The port of a server that waits for two seconds, and its model."""
    model = served.SlowModel()
    with served.serving(model, timeout=2.0) as number:
        yield number, model
        model.go.set()


@pytest.fixture(autouse=True)
def free(model):
    yield
    model.go.set()
    model.failure = None


@functools.cache
def watch():
    """Install a hook that sees every file and folder that Python opens; gives the lists to write to.

    An audit hook stays as long as the process.
    """
    lists = []

    def note(event, arguments):
        if event in ("open", "os.listdir", "os.scandir"):
            for opened in lists:
                opened.append(arguments[0])

    sys.addaudithook(note)
    return lists


@contextlib.contextmanager
def opened_files():
    """A block that gives a list of what any thread of the process opens in it."""
    opened = []
    watch().append(opened)
    try:
        yield opened
    finally:
        watch().remove(opened)


def post(text):
    """A whole request, as it goes over the wire."""
    return HEAD + f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text


@contextlib.contextmanager
def sent(port, data):
    """A block in which a connection has sent bytes that the server has seen."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        for _ in range(2):  # what came later over other connections has been answered
            assert ask(port, path="/v2/health/live")[0] == 200
        yield connection


@contextlib.contextmanager
def busy(model, port):
    """A block in which the model works on a request; gives the connection that waits for it."""
    model.go.clear()
    while model.entered.acquire(blocking=False):
        pass
    try:
        with sent(port, post(json.dumps(REQUEST).encode())) as connection:
            assert model.entered.acquire(timeout=60)
            yield connection
    finally:
        model.go.set()


def status_of(connection):
    return int(read_to_end(connection).split()[1])


def works(port):
    """The server answers as ever."""
    status, table, _ = infer(port, REQUEST)
    return status == 200 and np.reshape(table["outputs"][0]["data"], (2, 3)).tolist() == REDS


def test_tritonclient_gets_labels_and_confidence():
    """tiny.brightness_model's classes are the thirds of brightness 0..90..160..255."""
    client = pytest.importorskip("tritonclient.http", reason="needs tritonclient: kseg[test]")
    model = tiny.brightness_model()
    preprocess_layer(model).label_set = tiny.LABELS
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    expected = np.digitize(images.mean(-1), [90, 160])
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "PNG")
    with served.serving(model) as number, client.InferenceServerClient(f"127.0.0.1:{number}") as server:
        assert server.is_server_live() and server.is_server_ready()
        assert server.is_model_ready("m", "1") and not server.is_model_ready("m", "2")
        assert server.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = server.get_model_metadata("m")
        assert [one["name"] for one in metadata["outputs"]] == ["labels", "confidence"]
        assert {key: json.loads(metadata["properties"][key]) for key in ("classes", "palette")} == {
            key: tiny.LABELS[key] for key in ("classes", "palette")
        }
        pixels = client.InferInput("images", images.shape, "UINT8")
        for binary in (True, False):
            pixels.set_data_from_numpy(images, binary_data=binary)
            asked = [
                client.InferRequestedOutput("confidence", binary_data=binary),
                client.InferRequestedOutput("labels", binary_data=not binary),
            ]
            answer = server.infer("m", [pixels], outputs=asked, request_id="7")
            assert answer.get_response()["id"] == "7"
            assert np.array_equal(answer.as_numpy("labels"), expected)
            confidence = answer.as_numpy("confidence")
            assert confidence.dtype == np.float32 and ((confidence > 1 / 3) & (confidence <= 1)).all()
        encoded = client.InferInput("encoded", [1], "BYTES")
        encoded.set_data_from_numpy(np.array([file.getvalue()], object))
        assert np.array_equal(server.infer("m", [encoded], model_version="1").as_numpy("labels"), expected[1:])
        with pytest.raises(Exception, match=r"\[415\]"):
            server.infer("m", [encoded], request_compression_algorithm="gzip")


def test_a_model_without_confidence_gives_labels_alone(port):
    metadata = ask(port, path="/v2/models/m/versions/1")[1]
    assert [one["name"] for one in metadata["outputs"]] == ["labels"]
    assert metadata["properties"]["label_set"] == "reds" and "palette" not in metadata["properties"]
    status, table, _ = infer(port, {**REQUEST, "outputs": [{"name": "confidence"}]})
    assert status == 400 and "outputs may be labels" in table["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/models/x",
        "/v2/models/../m",
        "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v2/models/..%2f..%2fetc%2fpasswd/versions/1",
        "/v2/models/m%00",
        "/v2/models/m/versions/2",
        "/v2/models/m/versions/../../../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_other_paths_are_404_and_reach_no_file(port, path):
    asked = (("GET", path, None), ("POST", path + "/infer", b"{}"))
    for request in asked:  # what the first request imports
        ask(port, *request)
    with opened_files() as opened:
        for request in asked:
            status, table, _ = ask(port, *request)
            assert status == 404 and table["error"]
        assert opened == []
        with open(os.devnull):
            pass
        os.listdir(".")
        assert opened == [os.devnull, "."]  # nothing goes unseen


def test_the_page_of_a_web_export_stands_at_the_address_itself_and_no_other_file_does(model, tmp_path):
    (tmp_path / "page").mkdir()
    for name in ("index.html", "model.js", "runtime.js", "report.json"):
        (tmp_path / "page" / name).write_text(f"this is {name}")
    (tmp_path / "secret").write_text("mine")
    with served.serving(model, page=tmp_path / "page") as number:
        for address, name in (("/", "index.html"), ("/model.js", "model.js"), ("/runtime.js", "runtime.js")):
            with socket.create_connection(("127.0.0.1", number), timeout=60) as connection:
                connection.sendall(f"GET {address} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200") and body == f"this is {name}".encode()
            assert b"cross-origin-opener-policy: same-origin" in head.lower()
        for address in ("/report.json", "/../secret", "/%2e%2e/secret", "/index.html/"):
            assert ask(number, "GET", address)[0] == 404
        assert works(number)
    with pytest.raises(InputError, match="page must be a folder that kseg export --format=web wrote, got "):
        serve("m", page=tmp_path)


def test_a_page_of_other_classes_than_the_models_is_refused(model, tmp_path):
    for name in ("index.html", "model.js", "runtime.js"):
        (tmp_path / name).touch()
    classes = {"kseg_version": "1", "classes": ["road", "sky"]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(InputError, match="of the same classes, but .* has road, sky, and the model red 0, red 1"):
        serve(model, name="m", port=0, page=tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({**classes, "classes": [f"red {i}" for i in range(8)]}))
    check_page_classes(tmp_path, model.label_set)
    check_page_classes(tmp_path, {})


def test_another_method_is_405_in_json(port):
    status, table, headers = ask(port, "GET", INFER)
    assert status == 405 and table["error"] and headers["Allow"] == "POST"


def test_compressed_bodies_are_415(port):
    bomb = gzip.compress(bytes(10**6))
    status, table, _ = ask(port, "POST", INFER, bomb, {"Content-Encoding": "gzip"})
    assert status == 415 and "Content-Encoding" in table["error"]


def test_bodies_that_are_too_long_are_413_also_without_a_length(port):
    assert infer(port, b" " * 10_001)[0] == 413
    status, table, _ = ask(port, "POST", INFER, iter([b"x" * 6000] * 3))  # http.client sends it in chunks
    assert status == 413 and "10000 bytes" in table["error"]
    # The body that is claimed never comes: the claim is enough.
    answer = raw(port, HEAD + b"Content-Length: 99999999999\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert works(port)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET /\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["TLS", "no version", "negative", "digits", "two lengths", "chunk", "transfer", "long head"],
)
def test_what_is_no_http_is_refused_and_closed(port, data):
    answer = raw(port, data)
    assert not answer or answer.split()[1] in (b"400", b"501", b"431")
    assert works(port)


def test_a_head_and_a_body_that_stall_are_cut_off(hasty):
    """The head never ends; the body is shorter than its length says."""
    port, _ = hasty
    assert raw(port, HEAD) == b""
    answer = raw(port, HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 2 s" in answer


def send_until_closed(connection, data):
    """Send bytes now and then until the other side has closed."""
    with pytest.raises(OSError):
        for _ in range(600):
            connection.sendall(data)
            time.sleep(0.1)


def test_a_head_that_comes_a_byte_at_a_time_is_cut_off(hasty):
    with socket.create_connection(("127.0.0.1", hasty[0]), timeout=60) as stalling:
        send_until_closed(stalling, b"G")


def test_an_answer_that_nobody_takes_is_cut_off(model):
    """The answer has a million bytes, sockets hold some thousand, and the client reads nothing."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((1000, 1000, 3), np.uint8)).save(file, "PNG")
    data = post(file.getvalue()).replace(b"Host: x", b"Inference-Header-Content-Length: 0\r\nHost: x", 1)
    with served.serving(model, buffer=4096, timeout=2.0) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(data)
        assert client.recv(12) == b"HTTP/1.1 200"
        send_until_closed(client, b"x")
        assert len(read_to_end(client)) < 500_000


def test_more_connections_than_there_may_be_get_503(port, monkeypatch):
    monkeypatch.setattr(connections, "CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(3)]
        assert raw(port, b"").startswith(b"HTTP/1.1 503 ")
        assert idle[0].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n") is None
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: works(port))


def test_a_full_queue_is_429_and_then_there_is_room_again(model, port):
    request = post(json.dumps(REQUEST).encode())
    with busy(model, port) as first, sent(port, request) as second:
        status, table, _ = infer(port, REQUEST)
        assert status == 429 and "queue is full" in table["error"]
        model.go.set()
        assert status_of(first) == status_of(second) == 200
    assert works(port)


def test_a_model_that_takes_too_long_is_504_and_the_next_ones_wait_for_it(hasty):
    port, model = hasty
    with busy(model, port) as first:
        assert infer(port, REQUEST)[0] == 504  # in the queue
        assert status_of(first) == 504
        wait_until(lambda: ask(port, path="/v2/health/ready")[0] == 503)
        assert ask(port, path="/v2/health/live")[0] == 200
    wait_until(lambda: ask(port, path="/v2/health/ready")[0] == 200)
    wait_until(lambda: works(port))


def test_a_request_of_many_images_is_worked_on_in_fours_and_given_up_when_nobody_waits(hasty):
    port, model = hasty

    def calls():
        return sum(1 for _ in iter(lambda: model.entered.acquire(blocking=False), False))

    calls()  # of the tests before
    images = np.arange(9 * 2 * 3 * 3, dtype=np.uint8).reshape(9, 2, 3, 3)
    many = {"inputs": [image_input(images)]}
    status, table, _ = infer(port, many)
    assert status == 200
    assert np.reshape(table["outputs"][0]["data"], (9, 2, 3)).tolist() == (images[..., 0] % 8).tolist()
    assert calls() == 3  # 4, 4 and 1
    model.go.clear()
    assert infer(port, many)[0] == 504
    model.go.set()
    assert works(port)
    assert calls() == 2  # of the first four, and of what works


def test_a_client_that_goes_away_leaves_the_queue(model, port):
    request = post(json.dumps(REQUEST).encode())
    with busy(model, port) as first:
        with sent(port, request), sent(port, request[:-20]):  # the second one is in the middle of its body
            assert infer(port, REQUEST)[0] == 429
        for _ in range(2):
            ask(port, path="/v2/health/live")  # the server has seen that they are gone
        with sent(port, request) as last:
            model.go.set()
            assert status_of(first) == status_of(last) == 200
    # After the first one the model saw the last, and nothing of those that were gone.
    assert [model.entered.acquire(blocking=False) for _ in range(2)] == [True, False]


def test_a_hundred_clients_at_once_each_get_an_answer(model):
    images = np.random.default_rng(1).integers(0, 256, (100, 1, 4, 5, 3), np.uint8)
    start = threading.Barrier(100)

    def client(number):
        start.wait()
        status, table, _ = infer(port, {"inputs": [image_input(images[number])], "id": str(number)})
        if status == 200:
            assert table["id"] == str(number)
            assert table["outputs"][0]["data"] == (images[number][..., 0] % 8).ravel().tolist()
        return status

    with served.serving(model, queue=9) as port, concurrent.futures.ThreadPoolExecutor(100) as pool:
        model.go.clear()
        asked = [pool.submit(client, number) for number in range(100)]
        # One is worked on and nine wait; the others need no model to be refused.
        wait_until(lambda: sum(one.done() for one in asked) == 90)
        model.go.set()
        assert sorted(one.result() for one in asked) == [200] * 10 + [429] * 90
        assert works(port)


def test_bodies_that_would_fill_the_memory_are_503(model, port):
    """Two bodies of 10,000 bytes may be held, and two clients stop before the last byte of theirs."""
    head = HEAD + b"Content-Length: 10000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as other:
        one.sendall(head + b"x" * 9999)
        other.sendall(head + b"x" * 9999)
        wait_until(lambda: ask(port, "POST", INFER, b"x" * 500)[0] == 503)
    wait_until(lambda: works(port))


def test_a_model_that_fails_is_500_and_says_nothing_of_this_machine(model, port, caplog):
    model.failure = NotFiniteError("The scores of /home/me/model.onnx for image 0 are not finite.")
    status, answer, _ = infer(port, REQUEST)
    assert status == 500 and "/home" not in str(answer) and "log" in answer["error"]
    wait_until(lambda: "not finite" in caplog.text)  # the server's log
    model.failure = None
    assert works(port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_when_what_is_under_way_is_answered(root, number):
    program = (
        "import sys, threading, served\n"
        "from kseg.serving import serve\n"
        "model = served.SlowModel()\n"
        "threading.Thread(target=lambda: sys.stdin.readline() and model.go.set(), daemon=True).start()\n"
        "calls = []\n"
        "predict = model.predict\n"
        "def slow(*args):\n"
        "    if calls:\n"
        "        model.go.clear()\n"
        "        print('at work', flush=True)\n"
        "    calls.append(1)\n"
        "    return predict(*args)\n"
        "model.predict = slow\n"
        "serve.serve(model, name='m', port=0, log_requests=True)\n"
        "print('stopped')\n"
    )
    path = os.pathsep.join([str(root), str(root / "tests" / "support")])
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with process, concurrent.futures.ThreadPoolExecutor() as pool:
        line = process.stdout.readline()
        assert line.startswith("m: http://127.0.0.1:") and line.endswith("/v2/models/m (Ctrl-C stops)\n")
        port = int(line.split(":")[3].partition("/")[0])
        asked = pool.submit(infer, port, REQUEST)
        wait_until(lambda: asked.done() or select.select([process.stdout], [], [], 0)[0])
        assert not asked.done() and process.stdout.readline() == "at work\n"
        process.send_signal(number)
        wait_until(lambda: _refuses(port))
        process.stdin.write("go\n")
        process.stdin.flush()
        assert asked.result()[0] == 200
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 0


def _refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": -1}, "queue must be a whole number of at least 0"),
        ({"timeout": 0}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_pixels": 2**26 + 1}, "max_pixels must be at most"),
        ({"host": "no.such.host.invalid"}, "is no address of this machine"),
        ({"host": "192.0.2.1"}, "Cannot listen at 192.0.2.1, port 8000"),
        ({"port": 0}, "No model at no/such/run"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(options, message):
    with pytest.raises(InputError, match=message):
        serve("no/such/run", **options)


def test_a_port_in_use_and_a_missing_package_are_said(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(InputError, match="already in use"):
            serve("m", port=taken.getsockname()[1])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'kseg\[serve\]'"):
        serve("m")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/unet", "unet"),
        ("runs/unet/best.keras", "best"),
        ("hf://me/streets-v1.2", "streets-v1.2"),
        (pathlib.PurePath("a b.onnx"), "a_b"),
        ("..", "model"),
        ("/", "model"),
    ],
)
def test_a_model_is_called_like_its_file(path, name):
    assert name_of(path) == name


def test_folders_of_label_maps_and_odd_names_are_refused(model, tmp_path):
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "maps" / "a.png")
    with pytest.raises(InputError, match="folder of label maps"):
        ServedModel(tmp_path / "maps", "m")
    with pytest.raises(InputError, match="name must be letters"):
        ServedModel(model, "../m")


def test_the_command_hands_its_flags_on(call_script, monkeypatch, tmp_path):
    model = tmp_path / "m.keras"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("config.json", "{}")
    called = []
    monkeypatch.setattr("kseg.serving.serve.serve", lambda *args, **options: called.append((args, options)))
    assert call_script("serve", f"--model={model}", "--port=0", "--queue=3", "--timeout=1.5")[0] == 0
    defaults = {
        "name": None,
        "host": "127.0.0.1",
        "log_requests": False,
        "page": None,
        "max_bytes": 2**26,
        "max_pixels": 2**24,
    }
    assert called == [((str(model),), {**defaults, "port": 0, "queue": 3, "timeout": 1.5})]
    code, _, error = call_script("serve", f"--model={tmp_path}/none")
    assert code == 2 and "No model at" in error
    code, _, error = call_script("serve")
    assert code == 2 and "--model must be given" in error


def test_beyond_loopback_there_is_a_warning(model, monkeypatch, capsys):
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    serve(model, name="m", host="0.0.0.0", port=0)
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: 0.0.0.0 is not loopback: whoever reaches it can use this model.")
    serve(model, name="m", host="localhost", port=0)
    assert "warning" not in capsys.readouterr().err


def test_the_log_has_one_line_for_each_request(model, caplog):
    limits = Limits()
    app = served.make_server(ServedModel(model, "m"), limits, log_requests=True).config
    with socket.create_server(("127.0.0.1", 0)) as listener, caplog.at_level("INFO", logger="kseg"):
        import uvicorn

        server = uvicorn.Server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        ask(port, path="/v2/models/x%0A%1b[31m")
        infer(port, REQUEST)
        server.should_exit = True
        thread.join(60)
    lines = [record.getMessage().rsplit(" ", 2)[0] for record in caplog.records]
    assert lines == ["GET /v2/models/x%0A%1b[31m 404", "POST /v2/models/m/infer 200"]
