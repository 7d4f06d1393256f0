"""Runs an exported model where nothing of kseg is imported: `python alone.py KIND FILE`, a program of its own.

Arrays come in at stdin, images uint8 (B, H, W, 3), and go out at stdout, in NumPy's format: first one of bytes, JSON
with the runtime's versions, then for each batch labels, confidence, and float64 [seconds, bytes of memory at most].
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # kseg's folder of this file: no module of its is to be found

import json
import os
import platform
import time

import numpy as np


def open_onnx(file):
    """Return a function (images) -> [labels, confidence], and versions."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images):
        return session.run(["labels", "confidence"], {"images": images})

    return run, {"onnxruntime": onnxruntime.__version__}


def open_tflite(file):
    """Do the same for LiteRT."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=os.cpu_count())
    place = interpreter.get_input_details()[0]["index"]
    outputs = {output["dtype"]: output["index"] for output in interpreter.get_output_details()}
    shapes = []

    def run(images):
        if shapes != [images.shape]:
            interpreter.resize_tensor_input(place, images.shape)
            interpreter.allocate_tensors()
            shapes[:] = [images.shape]
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        return [interpreter.get_tensor(outputs[kind]) for kind in (np.uint8, np.float32)]

    return run, {"ai-edge-litert": ai_edge_litert.__version__}


def open_saved_model(file):
    """Do the same for TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(file)

    def run(images):
        found = loaded.signatures["serving_default"](images=tf.constant(images))
        return [found[name].numpy() for name in ("labels", "confidence")]

    return run, {"tensorflow": tf.__version__}


OPENERS = {"ONNX": open_onnx, "TFLite": open_tflite, "SavedModel": open_saved_model}


def main(kind, file):
    """Answer until stdin ends."""
    arrays = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints is no array
    run, versions = OPENERS[kind](file)
    versions |= {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}
    send(arrays, np.frombuffer(json.dumps(versions).encode(), np.uint8))
    while sys.stdin.buffer.peek(1):
        images = receive(sys.stdin.buffer)
        start = time.perf_counter()
        labels, confidence = run(images)
        seconds = time.perf_counter() - start
        send(arrays, labels, confidence, np.array([seconds, peak_memory()]))
    if "kseg" in sys.modules:
        raise SystemExit("kseg was imported")


def peak_memory():
    """Return the most memory that this process had, in bytes; nan where the system does not say."""
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
