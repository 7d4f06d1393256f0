"""A model as the protocol shows it: a name, inputs, outputs, and requests to answers."""

import json

import numpy as np

from kseg.inference.compatibility import check_outputs, noise
from kseg.inference.finite import image_names
from kseg.inference.label_model import label_set_of
from kseg.inference.loading import as_model
from kseg.inference.predictor import confident_predictor, gives_confidence, predictor
from kseg.io.text import checked_name
from kseg.serving.limits import RequestError
from kseg.serving.tensors import INPUTS, OUTPUTS, read_request, write_answer

VERSION = "1"
_AT_ONCE = 4  # images of a request
_SIZE = (64, 64)  # of the image that compiles a model before the first request


class ServedModel:
    """A model that has labelled one image, under a name.

    Args:
        model: what `kseg.load_model` takes or gives. name: in addresses.
    Raises:
        InputError: no model, or one that cannot label images; a name that is none.
    """

    def __init__(self, model, name):
        self.name = checked_name(name)
        model = as_model(model)
        check_outputs(model)
        self._predict = _predictor_of(model)
        self.outputs = tuple(OUTPUTS)[: len(self._predict(noise(_SIZE), *_SIZE, ["a first image"]))]
        self.label_set = label_set_of(model) or {}

    @property
    def metadata(self):
        """What GET /v2/models/NAME answers. Properties are texts, as in the protocol's gRPC form."""
        known = self.label_set
        properties = {"label_set": str(known["name"])} if "name" in known else {}
        for key in ("classes", "palette"):
            if known.get(key):
                properties[key] = json.dumps([list(one) if key == "palette" else one for one in known[key]])
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "kseg",
            "inputs": [
                {"name": name, "datatype": datatype, "shape": list(shape)} for name, (datatype, shape) in INPUTS.items()
            ],
            "outputs": [{"name": name, "datatype": OUTPUTS[name][0], "shape": [-1, -1, -1]} for name in self.outputs],
            "properties": properties,
        }

    def answer(self, body, json_length, max_pixels, given_up=lambda: False):
        """Return (body, JSON's length or None) of the answer to a request's body.

        The model works on a few images at a time: a model of one size may see them larger than they are.

        Args:
            given_up: whether nobody waits for the answer any more, asked before each few.
        Raises:
            RequestError: the request is wrong, or asks for too much; nobody waits.
        """
        request = read_request(body, json_length, self.outputs, max_pixels)
        images = request.images
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            if given_up():
                raise RequestError(504, "Nobody waits for this answer.")
            some = images[start : start + _AT_ONCE]
            parts.append(self._predict(some, *some.shape[1:3], image_names(None, start, len(some))))
        results = dict(zip(self.outputs, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        return write_answer(request, results, self.name)


def _predictor_of(model):
    """Return a function as `predictor` gives, of (labels, confidence), or (labels,) where there is no confidence."""
    if gives_confidence(model):
        return confident_predictor(model)
    predict_labels = predictor(model)
    return lambda *args: (predict_labels(*args),)
