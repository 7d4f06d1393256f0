"""ONNX: one file for ONNX Runtime and others, images of any size and number."""

import logging
import os
import tempfile

import numpy as np

from kseg.export.converters import converter_of, converting
from kseg.export.serving import INPUT, Serving

OPSET = 17  # understood by every ONNX Runtime since 1.12


def write(model, path, quantize=None, calibration=None):
    """Write a model as an ONNX file.

    Args:
        model: keras.Model that gives logits. path: of the file. quantize: None, "float16" or "int8".
        calibration: for int8, what gives images uint8 (1, H, W, 3).
    """
    tf2onnx = converter_of("tf2onnx", "onnx")
    onnx = converter_of("onnx", "onnx")
    serving = Serving(model)
    function = serving.function()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function.get_concrete_function()  # what fails here is not the converter
    with converting("ONNX"):
        made, _ = tf2onnx.convert.from_function(
            function, function.input_signature, opset=OPSET, custom_op_handlers={"Erfc": (_one_minus_erf, [])}
        )
    _renew_resizes(made)
    del made.metadata_props[:]
    made.producer_name = "kseg"
    for tensor in (*made.graph.input, *made.graph.output):
        for axis, name in zip(range(3), ("batch", "height", "width"), strict=True):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    if quantize == "float16":
        _halve_weights(made, onnx)
    if quantize == "int8":
        made = _quantized(made, onnx, calibration)
    onnx.save(made, str(path))


def _one_minus_erf(graph, node, name, _):
    """Erfc, by which TensorFlow computes GELU: ONNX has Erf alone."""
    like = {"dtypes": [graph.get_dtype(node.output[0])], "shapes": [graph.get_shape(node.output[0])]}
    erf = graph.make_node("Erf", list(node.input), **like)
    one = graph.make_const(f"{name}_one", np.ones((), np.float32))
    outputs = list(node.output)
    graph.remove_node(node.name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=outputs, **like)


def embed(path, texts):
    """Put text files inside, {name: text}: the metadata of the file."""
    onnx = converter_of("onnx", "onnx")
    made = onnx.load(str(path))
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, texts)
    onnx.save(made, str(path))


def _renew_resizes(made):
    """Name the places of nearest neighbours by today's words.

    tf2onnx writes `tf_half_pixel_for_nn`, floor((x + .5) * s). Opset 13 deprecated it, and ONNX Runtime warns of each.
    It is the same as (x + .5) * s - .5, half a pixel off, to the nearest and up at .5.
    """
    for node in made.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        place = attributes.get("coordinate_transformation_mode")
        if node.op_type == "Resize" and place is not None and place.s == b"tf_half_pixel_for_nn":
            place.s = b"half_pixel"
            attributes["nearest_mode"].s = b"round_prefer_ceil"


def _halve_weights(made, onnx):
    """Store the weights as float16; a Cast gives them back, which ONNX Runtime does once, when it opens the file."""
    casts = []
    for tensor in made.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < 9:
            continue
        name = tensor.name
        half = np.clip(value, *(np.finfo(np.float16).min, np.finfo(np.float16).max)).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_float16"))
        cast = onnx.helper.make_node(
            "Cast", [f"{name}_float16"], [name], to=onnx.TensorProto.FLOAT, name=f"{name}_cast"
        )
        casts.append(cast)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(casts + nodes)


def _quantized(made, onnx, calibration):
    """Store and compute convolutions in 8 bits; the rest, such as resizing and the softmax, stays float32."""
    runtime = converter_of("onnxruntime.quantization", "onnx")
    preparation = converter_of("onnxruntime.quantization.shape_inference", "onnx")

    class Reader(runtime.CalibrationDataReader):
        """Gives the images as ONNX Runtime asks for them."""

        def __init__(self):
            self.images = iter(calibration())

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    with tempfile.TemporaryDirectory(prefix="kseg-export-") as folder, converting("ONNX in int8"):
        plain, prepared, smaller = (os.path.join(folder, f"{name}.onnx") for name in ("plain", "prepared", "smaller"))
        onnx.save(made, plain)
        preparation.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        runtime.quantize_static(
            prepared,
            smaller,
            Reader(),
            quant_format=runtime.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            activation_type=runtime.QuantType.QUInt8,
            weight_type=runtime.QuantType.QInt8,
            # 7 bits: x86 without VNNI adds two products of 8 bits each in 16 bits, which overflow.
            reduce_range=True,
        )
        return onnx.load(smaller)
