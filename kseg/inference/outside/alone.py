"""Runs an exported model where nothing of kseg is imported: `python alone.py KIND FILE`, a program of its own.

Arrays come in at stdin and go out at stdout, in NumPy's format. First goes one of bytes, JSON with the runtime's
versions. Then comes for each batch one of bytes, the name of an output, and the images, uint8 (B, H, W, 3). The answer
is what `OUTPUTS` says of that output, and float64 [seconds, bytes of memory at most].
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # kseg's folder of this file: no module of its is to be found

import base64
import json
import os
import pathlib
import platform
import shutil
import time
import weakref

import numpy as np

# What each kind of file can be asked for. labels: they and confidence, of pixels; encoded: the same, of PNG files;
# probabilities: those of all classes.
OUTPUTS = {
    "ONNX": ("labels", "probabilities"),
    "TFLite": ("labels", "probabilities"),
    "SavedModel": ("labels", "encoded", "probabilities"),
    "web page": ("labels",),
}
_NAMES = {"labels": ["labels", "confidence"], "probabilities": ["probabilities"]}


def open_onnx(file):
    """Return a function (images, output) -> list of arrays, and versions."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images, output="labels"):
        return session.run(_NAMES[output], {"images": images})

    return run, {"onnxruntime": onnxruntime.__version__}


def open_tflite(file):
    """Do the same for LiteRT."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=os.cpu_count())
    place = interpreter.get_input_details()[0]["index"]
    # By axes and type; what they are called the converter has not kept.
    found = {(len(one["shape"]), one["dtype"]): one["index"] for one in interpreter.get_output_details()}
    outputs = {"labels": [(3, np.uint8), (3, np.float32)], "probabilities": [(4, np.float32)]}
    shapes = []

    def run(images, output="labels"):
        if shapes != [images.shape]:
            interpreter.resize_tensor_input(place, images.shape)
            interpreter.allocate_tensors()
            shapes[:] = [images.shape]
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        return [interpreter.get_tensor(found[one]) for one in outputs[output]]

    return run, {"ai-edge-litert": ai_edge_litert.__version__}


def open_saved_model(file):
    """Do the same for TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(file)

    def run(images, output="labels"):
        if output == "encoded":
            files = tf.stack([tf.io.encode_png(image) for image in images])
            found = loaded.signatures["encoded"](encoded=files)
            return [found[name].numpy() for name in _NAMES["labels"]]
        signature = "serving_default" if output == "labels" else output
        found = loaded.signatures[signature](images=tf.constant(images))
        return [found[name].numpy() for name in _NAMES[output]]

    return run, {"tensorflow": tf.__version__}


_LABEL = """
    const [text, width, height, done] = arguments;
    const coded = (array) => {
        const bytes = new Uint8Array(array.buffer);
        let out = "";
        for (let i = 0; i < bytes.length; i += 32768) out += String.fromCharCode(...bytes.subarray(i, i + 32768));
        return btoa(out);
    };
    const pixels = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    (ksegPage.models[0] ?? ksegPage.refused).label(pixels, width, height).then(
        ({ labels, confidence, seconds }) => done([coded(labels), coded(confidence), seconds]),
        (error) => done(String(error)),
    );"""


def open_web(folder):
    """Do the same for a web page, in Chromium or Chrome without a window; images of a batch one after another.

    A page that finds itself that its labels of the picture inside are others than kseg's says so to people and stops;
    here it still labels, and the versions have its words as "fault".
    """
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    names = ("chromium", "chromium-browser", "google-chrome")
    options.binary_location = next(filter(None, map(shutil.which, names)), "")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))

    def run(images, output="labels"):
        found = []
        for image in images:
            height, width = image.shape[:2]
            text = base64.b64encode(image.tobytes()).decode()
            answer = browser.execute_async_script(_LABEL, text, width, height)
            if isinstance(answer, str):
                raise RuntimeError(answer)
            parts = zip(answer[:2], (np.uint8, np.float32), strict=True)
            found.append([np.frombuffer(base64.b64decode(part), kind).reshape(height, width) for part, kind in parts])
        return [np.stack(part) for part in zip(*found, strict=True)]

    weakref.finalize(run, browser.quit)  # whoever has no more use of the function, or ends, ends the browser
    browser.set_script_timeout(600)
    browser.get(pathlib.Path(folder, "index.html").absolute().as_uri())
    device = "return (ksegPage.models[0] ?? ksegPage.refused)?.device"
    ready = "return ksegPage.models.length || document.getElementById('error').textContent"
    answer = WebDriverWait(browser, 300, poll_frequency=0.1).until(lambda b: b.execute_script(ready))
    versions = {"browser": browser.capabilities["browserVersion"], "device": browser.execute_script(device)}
    if answer != 1:
        if versions["device"] is None:
            raise RuntimeError(str(answer))
        versions["fault"] = str(answer)
    return run, versions


OPENERS = {"ONNX": open_onnx, "TFLite": open_tflite, "SavedModel": open_saved_model, "web page": open_web}


def main(kind, file):
    """Answer until stdin ends."""
    arrays = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints is no array
    run, versions = OPENERS[kind](file)
    versions |= {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}
    send(arrays, np.frombuffer(json.dumps(versions).encode(), np.uint8))
    while sys.stdin.buffer.peek(1):
        output, images = receive(sys.stdin.buffer).tobytes().decode(), receive(sys.stdin.buffer)
        start = time.perf_counter()
        found = run(images, output)
        seconds = time.perf_counter() - start
        send(arrays, *found, np.array([seconds, peak_memory()]))
    if "kseg" in sys.modules:
        raise SystemExit("kseg was imported")


def peak_memory():
    """Return the most memory that this process and those that it started had, in bytes; nan where nobody says."""
    found = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text(errors="replace").splitlines())
            found[int(fields["Pid"])] = int(fields["PPid"]), int(fields.get("VmHWM", "0 kB").split()[0]) * 1024
        except (OSError, ValueError, KeyError):  # it has ended
            continue
    # Linux hands ru_maxrss on from parent to child; VmHWM starts with the process.
    own = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in own} - own:
        own |= more
    if os.getpid() in found:
        return sum(found[pid][1] for pid in own)
    try:
        import resource
    except ImportError:  # Windows
        return np.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Pipe:
    """A pipe as NumPy's format takes it: it asks real files for their position, which pipes have not."""

    def __init__(self, file):
        self.read = getattr(file, "read", None)
        self.write = getattr(file, "write", None)


def send(file, *arrays):
    """Write arrays to a pipe."""
    for array in arrays:
        np.lib.format.write_array(Pipe(file), np.ascontiguousarray(array), allow_pickle=False)
    file.flush()


def receive(file):
    """Read an array from a pipe; ValueError where it has ended."""
    return np.lib.format.read_array(Pipe(file), allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
