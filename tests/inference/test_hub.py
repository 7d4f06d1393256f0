"""hf://USER/NAME, against a Hub that the test serves on this machine."""

import hashlib
import http.server
import json
import pathlib
import threading
from typing import ClassVar

import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg.inference.hub import local_path
from kseg.layers.preprocessing import preprocess_layer

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What a download needs of the Hub's interface: the list of files, in its old and new form, and a file."""

    files: ClassVar = {}
    asked: ClassVar = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/api/models/me/streets/revision/"):
            names = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            self.answer(json.dumps({"id": "me/streets", "sha": COMMIT, "siblings": names}).encode())
        elif self.path.startswith(f"/api/models/me/streets/tree/{COMMIT}"):
            names = [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in self.files.items()]
            self.answer(json.dumps(names).encode())
        elif (name := self.path.removeprefix(f"/me/streets/resolve/{COMMIT}/")) in self.files:
            self.answer(self.files[name])
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)  # what HF_ENDPOINT sets at import
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model = tiny.brightness_model()
    model.save(tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    Hub.files = {
        "flags.txt": b"--model=brightness\n--keep=last\n",
        "last.keras": content,
        "checkpoints/step-1.npz": b"large and of no use",
        "README.md": b"# card\n",
    }
    Hub.asked = []
    yield model
    server.shutdown()
    server.server_close()


def test_a_run_on_the_hub_predicts_as_at_home(hub):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = kseg.predict(hub, image)
    np.testing.assert_array_equal(kseg.predict("hf://me/streets", image), expected)
    assert isinstance(kseg.load_model("hf://me/streets@main"), keras.Model)
    assert not any("checkpoints" in path for path in Hub.asked)  # downloaded only what a model needs
    assert (
        sum(path.endswith("last.keras") for path in Hub.asked) <= 2
    )  # asked for and fetched once, though loaded twice


@pytest.mark.parametrize(("name", "format"), [("streets", "savedmodel"), ("streets.onnx", "onnx")])
def test_an_export_on_the_hub_predicts_as_at_home(name, format, hub, tmp_path):
    """A folder that has folders, and a file beside a card."""
    preprocess_layer(hub).label_set = tiny.LABELS
    path = kseg.export_model(hub, tmp_path / "export" / name, format=format, quick=True)
    folder = path if path.is_dir() else path.parent
    files = [file for file in folder.rglob("*") if file.is_file()]
    Hub.files = {"README.md": b"# card\n"} | {str(file.relative_to(folder)): file.read_bytes() for file in files}
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(kseg.predict("hf://me/streets", image), kseg.predict(hub, image))
    model = kseg.load_model("hf://me/streets")
    assert model.reads == kseg.load_model(path).reads and model.label_set["classes"] == tiny.LABELS["classes"]


def test_what_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(kseg.InputError, match="The Hub does not give hf://me/other: .* Check the name"):
        kseg.load_model("hf://me/other")


@pytest.mark.parametrize("path", ["hf://", "hf://me", "hf://me/a/b", "hf://me/../x/y", "hf://me/a@", "hf://me/a b"])
def test_another_form_is_refused_before_anything_is_asked(hub, path):
    with pytest.raises(kseg.InputError, match="must be hf://USER/NAME"):
        local_path(path)
    assert not Hub.asked


def test_a_path_of_this_machine_stays_what_it_is():
    assert local_path("runs/mine") == pathlib.Path("runs/mine")


def test_a_folder_without_a_name_is_called_by_its_own(tmp_path, monkeypatch):
    (tmp_path / "run" / "inner").mkdir(parents=True)
    for there, path in ((tmp_path / "run", "."), (tmp_path / "run", "./"), (tmp_path / "run" / "inner", "..")):
        monkeypatch.chdir(there)
        assert local_path(path) == tmp_path / "run"
        with pytest.raises(kseg.InputError, match="it is no model"):
            kseg.load_model(path)
    with pytest.raises(kseg.InputError, match="it is no model|holds"):
        kseg.load_model("/")
