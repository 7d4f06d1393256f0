"""A web page that runs the model in the browser: a folder that needs no server and no network."""

import base64
import gzip
import html
import importlib.resources
import json
import pathlib
import tempfile

import numpy as np

from kseg.data.synthetic.scene import draw_street
from kseg.export import onnx_file
from kseg.inference.outside.carried_files import CLASSES, REPORT
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError

MODEL = "model.js"
_FILES = "kseg.export.web_page"
_RUNTIME = "onnxruntime_web/ort.webgpu.bundle.min.mjs"
_MACHINE_CODE = "onnxruntime_web/ort-wasm-simd-threaded.asyncify.wasm.gz"
_CHECK_SIZE = (96, 192)  # of the picture by which the page checks itself


def write(model, path, quantize=None, calibration=None):
    """Write a folder with index.html, runtime.js (ONNX Runtime for browsers) and model.js.

    The page opens from the file system: browsers read no other files beside it, so the model and the runtime are
    texts in scripts. model.js also holds a drawn street and the labels that Keras gives it, by which the page checks
    each browser.

    Args:
        model: keras.Model that gives logits. path: of the folder. quantize, calibration: of `onnx_file.write`.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kseg-export-") as folder:
        file = pathlib.Path(folder, "model.onnx")
        onnx_file.write(model, file, quantize, calibration)
        content = file.read_bytes()
    height, width = _CHECK_SIZE
    image = draw_street(0, height, width)[0]
    labels = predictor(model)(image[np.newaxis], height, width, ["the picture of the check"])[0]
    check = {
        "width": width,
        "height": height,
        "pixels": _packed(image),
        "labels": _packed(labels.astype(np.uint8)),
    }
    names = [str(i) for i in range(model.output_shape[-1])]  # until `embed` knows better
    plain = {"classes": names, "palette": [[128, 128, 128]] * len(names)}
    _write_model(path, {"name": model.name, **plain, "model": _packed(content), "check": check})
    machine_code = base64.b64encode(_asset(_MACHINE_CODE)).decode()
    (path / "runtime.js").write_text(f'window.ksegRuntime = "{machine_code}";\n', encoding="utf-8")
    page = _asset("page.html").decode().replace("NAME", html.escape(model.name))
    parts = {"STYLE": "page.css", "RUNTIME": _RUNTIME, "WORKER": "worker.js", "PROGRAM": "page.js"}
    for mark, name in parts.items():
        page = page.replace(f"\n{mark}\n", f"\n{_asset(name).decode()}\n", 1)
    (path / "index.html").write_text(page, encoding="utf-8")


def embed(path, texts):
    """Put text files inside, {name: text}: files of the folder, and what the page shows of them in model.js."""
    path = pathlib.Path(path)
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")
    classes = json.loads(texts[CLASSES])
    facts = read_model(path)
    facts |= {"classes": classes["classes"], "palette": classes["palette"], "facts": _shown(json.loads(texts[REPORT]))}
    _write_model(path, facts)


def read_model(path):
    """Return what model.js of a web export holds."""
    text = pathlib.Path(path, MODEL).read_text(encoding="utf-8")
    try:
        return json.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError as error:
        raise InputError(f"{path} is no web export of kseg: its {MODEL} is damaged ({error}).") from error


def _shown(report):
    """Return what the page says about its model, {name: text}."""
    shown = {"checked on": report["images"], "labels as in Keras": f"{report['agreement']['pixels']:.2%} of the pixels"}
    if report.get("scores"):
        scores = report["scores"]
        shown["mean IoU"] = f"{scores['mean_iou']:.4f} on {scores['images']} images of split {scores['split']}"
    shown["made by"] = f"kseg {report['kseg_version']}"
    return shown


def _write_model(path, facts):
    (path / MODEL).write_text(f"window.ksegModel = {json.dumps(facts)};\n", encoding="utf-8")


def _packed(content):
    return base64.b64encode(gzip.compress(bytes(content), mtime=0)).decode()


def _asset(name):
    return importlib.resources.files(_FILES).joinpath(name).read_bytes()
