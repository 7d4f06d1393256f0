"""Small models in other formats, as other tools write them, all of one rule: the classes of a pixel's darkness.

A 1x1 convolution with the weights of `tiny.brightness_model`: class 0 below a weighted mean of 90, 1 below 160, else 2.
"""

import numpy as np

KERNEL = np.array([[0.0], [1.0], [2.0]])  # of the weighted mean, a row a class
BIAS = np.array([0.0, -89.9, -249.8])
GREY = (1 / 3, 1 / 3, 1 / 3)


def rule(image, colours=GREY):
    """The ids (H, W) that every model here gives for an image uint8 (H, W, 3)."""
    mean = image.astype(np.float64) @ np.array(colours)
    return (mean[..., None] * KERNEL[:, 0] + BIAS).argmax(-1)


def weights(colours, factor, shift):
    """Kernel (classes, 3) and bias (classes,) of an input that is a pixel * factor + shift, (3,) each."""
    kernel = KERNEL * np.array(colours) / factor
    return kernel.astype(np.float32), (BIAS - (kernel * shift).sum(1)).astype(np.float32)


def write_onnx(
    path, *, colours=GREY, factor=1.0, shift=0.0, layout="NCHW", size=(None, None), dtype="float32", ids=False
):
    """An ONNX file; size: fixed (height, width), or free; ids: it gives them, not scores."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    types = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16}
    kernel, bias = weights(colours, factor, shift)
    sides = [side or name for side, name in zip(size, ("height", "width"), strict=True)]
    shape = [1, *sides, 3] if layout == "NHWC" else [1, 3, *sides]
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)]
    last = "floats"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
        last = "planes"
    nodes.append(helper.make_node("Conv", [last, "kernel", "bias"], ["scores"]))
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, *sides])
    if ids:
        nodes.append(helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0))
        out = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, *sides])
    graph = helper.make_graph(
        nodes,
        "rule",
        [helper.make_tensor_value_info("images", types[dtype], shape)],
        [out],
        [numpy_helper.from_array(kernel[..., None, None], "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _tensorflow(colours, factor, shift, size, ids):
    import tensorflow as tf

    kernel, bias = weights(colours, factor, shift)

    class Rule(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, *size, 3), tf.float32)])
        def __call__(self, images):
            scores = tf.nn.conv2d(images, kernel.T[None, None], 1, "SAME") + bias
            return {"out": tf.argmax(scores, -1) if ids else scores}

    return Rule()


def write_saved_model(path, *, colours=GREY, factor=1.0, shift=0.0, size=(None, None), ids=False):
    """A SavedModel folder of plain TensorFlow, NHWC."""
    import tensorflow as tf

    module = _tensorflow(colours, factor, shift, size, ids)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__})
    return path


def write_tflite(path, *, colours=GREY, factor=1.0, shift=0.0, size=(24, 32), ids=False):
    """A TFLite file, NHWC."""
    import tensorflow as tf

    module = _tensorflow(colours, factor, shift, size, ids)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    path.write_bytes(converter.convert())
    return path


def describe(file, text, name=None):
    """Write the description beside a file."""
    path = file.with_name(name or f"{file.name}.toml")
    path.write_text(text)
    return path
