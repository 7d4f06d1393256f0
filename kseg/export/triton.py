"""config.pbtxt, which tells Triton Inference Server what an ONNX export takes and gives.

Triton reads a model repository: REPOSITORY/NAME/config.pbtxt beside REPOSITORY/NAME/1/model.onnx.
"""

import json

from kseg.io.text import checked_name

CONFIG = "config.pbtxt"
_TEXT = """\
name: {name}
backend: "onnxruntime"
max_batch_size: 0
input [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] }}
]
output [
  {{ name: "labels" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }},
  {{ name: "confidence" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] }}
]
"""
_PARAMETER = "parameters {{ key: {key} value: {{ string_value: {value} }} }}\n"


def triton_config(name, label_set):
    """Return the text of config.pbtxt for an ONNX export of free sizes.

    It lists two outputs. The file has a third one, the probabilities of all classes, many times as large: Triton
    answers with all that are listed where a client does not choose. Batches are part of the shapes (max_batch_size is
    0), so that images of any size come alone or together. Names and colours of the classes are parameters: Triton hands
    them to whoever asks for the model's configuration.

    Args:
        name: of the model, which is its folder's too. label_set: dict of name, classes and palette, as a model carries
            it.
    Raises:
        InputError: a name that is no folder's and no part of an address.
    """
    text = _TEXT.format(name=_quoted(checked_name(name)))
    for key in ("name", "classes", "palette"):
        value = label_set[key] if key == "name" else json.dumps(label_set[key], ensure_ascii=False)
        key = "label_set" if key == "name" else key
        text += _PARAMETER.format(key=_quoted(key), value=_quoted(value))
    return text


def _quoted(text):
    """Return a text as protobuf's text format writes it; other letters than ASCII stay as they are, in UTF-8."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'
