"""A model as the protocol shows it: a name, inputs, outputs, and requests to answers."""

import json

from kseg.inference.compatibility import check_outputs, noise
from kseg.inference.finite import image_names
from kseg.inference.label_model import label_set_of
from kseg.inference.loading import as_model
from kseg.inference.predictor import confident_predictor, gives_confidence, predictor
from kseg.io.text import checked_name
from kseg.serving.tensors import INPUTS, OUTPUTS, read_request, write_answer

VERSION = "1"
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
        self._label_set = label_set_of(model) or {}

    @property
    def metadata(self):
        """What GET /v2/models/NAME answers. Properties are texts, as in the protocol's gRPC form."""
        known = self._label_set
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

    def answer(self, body, json_length, max_pixels):
        """Return (body, JSON's length or None) of the answer to a request's body.

        Raises:
            RequestError: the request is wrong, or asks for too much.
        """
        request = read_request(body, json_length, self.outputs, max_pixels)
        images = request.images
        names = image_names(None, 0, len(images))
        results = dict(zip(self.outputs, self._predict(images, *images.shape[1:3], names), strict=True))
        return write_answer(request, results, self.name)


def _predictor_of(model):
    """Return a function as `predictor` gives, of (labels, confidence), or (labels,) where there is no confidence."""
    if gives_confidence(model):
        return confident_predictor(model)
    predict_labels = predictor(model)
    return lambda *args: (predict_labels(*args),)
