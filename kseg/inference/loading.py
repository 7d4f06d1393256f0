"""What a user calls a model to a model: a run, a .keras file, a SavedModel, a contestant from outside."""

import json
import logging
import os
import pathlib
import re
import struct
import traceback
import zipfile
import zlib

import keras
import numpy as np
from keras import ops

from kseg.inference.ensemble import AveragingModel
from kseg.inference.finite import all_finite, check_logits
from kseg.inference.label_model import LabelModel, label_set_of
from kseg.inference.looks import ONE_LOOK
from kseg.inference.model_paths import check_differ, described_model, no_model, unfinished_run, weights_file
from kseg.inference.outside import alone
from kseg.inference.outside.carried_files import carried_table
from kseg.inference.outside.file_kinds import KSEG, LABEL_MAPS, ONNX, SAVED_MODEL, SEEDS, TFLITE, WEB, seed_runs
from kseg.inference.outside.outside_model import OutsideModel
from kseg.inference.outside.predicted_maps import PredictedMaps
from kseg.inference.outside.runtimes import open_file, runtime_errors
from kseg.inference.resizing import at_label_size
from kseg.io.errors import InputError, warn_user
from kseg.io.hash_list import sha256_of_content
from kseg.io.zips import check_unpacked

_LOG = logging.getLogger("kseg")
_PACKAGE = pathlib.Path(__file__).parents[1]
# What Keras may raise about a file of arbitrary bytes, or a user's own layers.
DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, AttributeError, ImportError)
DAMAGED += (ArithmeticError, zipfile.BadZipFile, zlib.error, struct.error)
_UNREGISTERED = re.compile(r"Could not locate (class|function) '([^']+)'")
REGISTER = "the decorator @keras.saving.register_keras_serializable()"


def load_model(path):
    """`kseg.load_model`, which says what the argument is, where Keras may be imported."""
    described = described_model(path)
    if described.kind == KSEG:
        model = _load_own(described.file)
    elif described.kind == SEEDS:
        model = AveragingModel([_load_own(run) for run in seed_runs(described.file)])
    elif described.kind == LABEL_MAPS:
        model = PredictedMaps(described)
    elif _is_export(described):
        if described.names or described.keys:
            raise InputError(f"{described.file} is kseg's and describes itself: {described.path} may hold a map alone.")
        if described.kind == SAVED_MODEL:
            model = _load_own(described.file)
        elif described.kind == WEB:
            model = WebPage(described.file)
        else:
            model = ExportedFile(described.file, described.kind)
    else:
        model = OutsideModel(described)
    if described.class_map is not None:
        model.kseg_class_map = described.class_map
    return model


def _is_export(described):
    """Whether a described file is one that kseg exported: it carries its classes."""
    if described.kind in (SAVED_MODEL, WEB):
        return (described.file / "classes.json").exists()
    return described.kind in (ONNX, TFLITE) and carried_table(described.file, described.kind) is not None


def _load_own(path):
    """Load what kseg wrote: a run folder, a .keras file, a SavedModel folder with its classes."""
    if (path / "saved_model.pb").exists():
        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"{path} is a SavedModel, which needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}. Give "
                "the run folder or the .keras file that it was exported from."
            )
        return SavedModel(path)
    path = weights_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            if damaged := archive.testzip():  # Keras reads on where a checksum fails
                raise InputError(f"the checksum of {damaged} differs")
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except DAMAGED as error:
        if _failed_in_kseg(error):
            raise
        if unregistered := _UNREGISTERED.search(str(error)):
            raise InputError(
                f"{path} needs the {unregistered[1]} {unregistered[2]}. Import the module that defines it first; it "
                f"needs {REGISTER}."
            ) from error
        raise InputError(f"{path} is damaged or not a .keras file: {why_not_loaded(error)}") from error


def why_not_loaded(error):
    """Return in a line what Keras says about a model that it cannot save or load."""
    if unregistered := _UNREGISTERED.search(str(error)):
        kind, name = unregistered.groups()
        return f"the {kind} {name} is not registered. Write {REGISTER} on the line above it."
    # Of the error of a layer in a model the last part, and of that the first paragraph.
    text = str(error).split("Exception encountered: ")[-1].strip().split("\n\n")[0]
    return " ".join(text.split())[:400] or type(error).__name__


def _failed_in_kseg(error):
    """Whether kseg's own code failed beneath `load_model`, other than by refusing its input."""
    while error is not None:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours = [code for code in codes if pathlib.Path(code.co_filename).is_relative_to(_PACKAGE)]
        if set(ours) - {load_model.__code__, _load_own.__code__} and not isinstance(error, InputError):
            return True
        error = error.__cause__ or error.__context__
    return False


def as_model(model, looks=ONE_LOOK):
    """Return a model that looks at images so: one that is given, that `load_model` gives for a path, or a list's mean.

    Args:
        model: keras.Model, LabelModel, path, or a list of those. looks: Looks.
    Raises:
        ValueError: anything else; a list of models that have no mean (`ensemble.AveragingModel`).
    """
    if isinstance(model, (list, tuple)):
        check_differ(model)
        return AveragingModel([as_model(one) for one in model], looks)
    if isinstance(model, (str, os.PathLike)):
        if unfinished := unfinished_run(model):
            warn_user(f"The run {unfinished} has not finished: its model is as training left it.")
        model = load_model(model)
    if not isinstance(model, LabelModel):
        if not isinstance(model, keras.Model):
            raise no_model(model)
        check_shapes(model)
    return model if looks.single else AveragingModel([model], looks)


def check_shapes(model):
    """Raise InputError unless a keras.Model takes RGB images and gives a score of each class at each pixel."""
    shapes = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    if not all(isinstance(shape, tuple) and len(shape) == 4 for shape in shapes) or shapes[0][3] != 3:
        raise InputError(
            f"{model.name} must take images (B, H, W, 3) and give logits (B, H, W, C), but takes {shapes[0]} and gives "
            f"{shapes[1]}."
        )


_WITHOUT_PROBABILITIES = (
    "An ensemble, tile, scales and flip need the probabilities of all classes, which this export of an earlier kseg "
    "does not give. Export the run again, or give the run."
)


class SavedModel(LabelModel):
    """A model exported by `export_saved_model`, read back. TensorFlow only."""

    reads = "SavedModel"

    def __init__(self, path):
        import tensorflow as tf

        path = pathlib.Path(path)
        try:  # nothing of kseg's own runs here
            self._loaded = tf.saved_model.load(str(path))
            self._serve = self._loaded.signatures["serving_default"]
            self.label_set = json.loads((path / "classes.json").read_bytes())
        except (OSError, ValueError, KeyError, TypeError, RecursionError, tf.errors.OpError) as error:
            raise InputError(f"{path} is not a SavedModel from kseg: {error}") from error
        known = self.label_set
        if not isinstance(known, dict):
            known = {}
        if not isinstance(known.get("classes"), list) or not isinstance(known.get("palette"), list):
            raise InputError(f"{path} is not a SavedModel from kseg: its classes.json has no classes and palette.")
        self.num_classes = len(known["classes"])
        self.gives_probabilities = "probabilities" in self._loaded.signatures

    @property
    def weights(self):
        """The variables, in the signature's order."""
        return self._serve.variables

    def predict(self, images, height, width, names):
        return self.predict_with_confidence(images, height, width, names)[0]

    def predict_with_confidence(self, images, height, width, names):
        given = self._serve(images=ops.convert_to_tensor(images, dtype="uint8"))
        ids, confidence = (at_label_size(given[name], height, width) for name in ("labels", "confidence"))
        check_logits(all_finite(given["confidence"]), names, self)  # nan where a logit is nan or inf
        return ids, confidence

    def probabilities(self, images, names):
        if not self.gives_probabilities:
            raise InputError(_WITHOUT_PROBABILITIES)
        given = ops.convert_to_tensor(images, dtype="uint8")
        found = self._loaded.signatures["probabilities"](images=given)["probabilities"]
        check_logits(all_finite(found), names, self)
        return np.asarray(found)


class ExportedFile(LabelModel):
    """An ONNX or TFLite file that `kseg.export_model` wrote, in its own runtime."""

    def __init__(self, path, kind):
        self.label_set = carried_table(path, kind)
        self.num_classes = len(self.label_set["classes"])
        self.reads = f"{kind} from kseg"
        self.sha256 = sha256_of_content(path)
        self._path = path
        self._opened = open_file(path, kind)
        self._outputs = {_output_of(tensor): tensor.name for tensor in self._opened.outputs}
        self.gives_probabilities = "probabilities" in self._outputs

    def predict(self, images, height, width, names):
        return self.predict_with_confidence(images, height, width, names)[0]

    def predict_with_confidence(self, images, height, width, names):
        labels, confidence = self._run(images, names, "labels", "confidence")
        check_logits(all_finite(confidence), names, self)
        return at_label_size(labels, height, width), at_label_size(confidence, height, width)

    def probabilities(self, images, names):
        if not self.gives_probabilities:
            raise InputError(_WITHOUT_PROBABILITIES)
        (found,) = self._run(images, names, "probabilities")
        check_logits(all_finite(found), names, self)
        return found

    def _run(self, images, names, *outputs):
        wanted = [self._outputs[output] for output in outputs]
        with runtime_errors(f"{self._path} cannot label {names[0]}"):
            found = self._opened.run(np.ascontiguousarray(images), wanted)
        return [found[name] for name in wanted]


def _output_of(tensor):
    """Return which output of an export a `runtimes.Tensor` is: TFLite does not keep their names."""
    if tensor.dtype.kind == "u":
        return "labels"
    return "probabilities" if len(tensor.shape) == 4 else "confidence"


class WebPage(LabelModel):
    """A web export in Chromium without a window, its own runtime. The browser ends with the model.

    It labels one image after the other, as the page does for a visitor without WebGPU.
    """

    def __init__(self, path):
        self.label_set = carried_table(path, WEB)
        if self.label_set is None:
            raise InputError(f"{path} is no web export of kseg: its classes.json is not kseg's.")
        self.num_classes = len(self.label_set["classes"])
        self._path = path
        with runtime_errors(
            f"{path} is a web page, which needs Chromium or Chrome with its driver, and selenium (pip install "
            "'kseg[web]')"
        ):
            self._run, versions = alone.open_web(str(path))
        if "fault" in versions:
            raise InputError(f"{path} does not open by itself. The page says: {versions['fault']}")
        self.reads = f"web page from kseg, in browser {versions['browser']}, {versions['device']}"
        self.sha256 = sha256_of_content(path)
        _LOG.info("%s: %s", path, self.reads)

    def predict(self, images, height, width, names):
        return self.predict_with_confidence(images, height, width, names)[0]

    def predict_with_confidence(self, images, height, width, names):
        with runtime_errors(f"{self._path} cannot label {names[0]}"):
            labels, confidence = self._run(images)
        check_logits(all_finite(confidence), names, self)
        return at_label_size(labels, height, width), at_label_size(confidence, height, width)


def with_label_set(model, label_set):
    """Return a model that carries a label set, also one without a Preprocess layer, which no file can tell it."""
    if label_set_of(model) is None and not isinstance(model, LabelModel):
        model.kseg_label_set = json.dumps(label_set)  # as text, so that Keras does not track it
    return model
