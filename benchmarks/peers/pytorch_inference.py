"""kseg's models and weights in PyTorch: labels and confidence of an image, eager, compiled, and by its ONNX export."""

import io

import numpy as np
import torch

from benchmarks.peers import inputs, pytorch

versions_found = {}


def versions():
    """What runs here."""
    return {**pytorch.versions(), **versions_found}


class Labelled(torch.nn.Module):
    """uint8 images (B, 3, H, W) -> labels uint8 (B, H, W) and the labels' probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        confidence, labels = self.network(images.float()).softmax(1).max(1)
        return labels.to(torch.uint8), confidence


def _segformer_head(num_classes, filters):
    from benchmarks.peers.pytorch_encoders import SegFormerHead

    return SegFormerHead(num_classes, filters)


NETWORKS = {**pytorch.NETWORKS, "segformer": _segformer_head}


def load(network, arrays):
    """Give a network the weights of kseg's model, all of them and to all that it has; ValueError otherwise.

    arrays: {"layer/weight": NumPy array}, as `exported_models.arrays` gives them.
    """
    left = dict(arrays)
    given = set()
    for name, convolution, norms in network.convolutions():
        kernel = left.pop(f"{name}/kernel")
        depthwise = convolution.groups > 1
        _give(convolution.weight, kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)), given)
        if convolution.bias is not None:
            _give(convolution.bias, left.pop(f"{name}/bias"), given)
        for norm_name, norm in norms.items():
            for theirs, ours in (
                *((norm.weight, "gamma"), (norm.bias, "beta")),
                *((norm.running_mean, "moving_mean"), (norm.running_var, "moving_variance")),
            ):
                _give(theirs, left.pop(f"{norm_name}/{ours}"), given)
    missing = [name for name, value in network.named_parameters() if id(value) not in given]
    if left or missing:
        raise ValueError(f"Weights of kseg's that PyTorch does not have: {[*left]}; the other way round: {missing}.")


def _give(tensor, array, given):
    if tensor.shape != array.shape:
        raise ValueError(f"A weight of kseg's has shape {array.shape}, PyTorch's {tuple(tensor.shape)}.")
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    given.add(id(tensor))


def _opened(network, filters, num_classes, folder):
    """Return the module with the weights of a folder of `benchmarks.exported_models`, and the image (1, 3, H, W)."""
    module = NETWORKS[network](num_classes, filters)
    with np.load(f"{folder}/weights.npz") as arrays:
        load(module, arrays)
    module = Labelled(module).to(memory_format=torch.channels_last).eval()
    return module, pytorch.as_maps(np.load(f"{folder}/image.npy"))


def label(network, filters, num_classes, folder, compiled=False):
    """As exports.label. filters: of kseg's model. compiled: by torch.compile, weights as constants."""
    module, image = _opened(network, filters, num_classes, folder)
    if compiled:
        from torch._inductor import config

        config.freezing = True
        module = torch.compile(module)

    def run():
        with torch.no_grad():
            return [array.numpy() for array in module(image)]

    inputs.check_labels(folder, run()[0])
    return run, {}


def onnx(network, filters, num_classes, folder):
    """The same by PyTorch's own ONNX export and ONNX Runtime."""
    import onnxruntime

    module, image = _opened(network, filters, num_classes, folder)
    versions_found["onnxruntime"] = onnxruntime.__version__
    file = io.BytesIO()
    torch.onnx.export(module, (image,), file, input_names=["images"])
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    pixels = image.contiguous().numpy()

    def run():
        return session.run(None, {"images": pixels})

    inputs.check_labels(folder, run()[0])
    return run, {}


CASES = {"label": label, "onnx": onnx}
