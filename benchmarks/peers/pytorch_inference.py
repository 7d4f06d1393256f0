"""kseg's models and weights in PyTorch: labels and confidence of an image, eager, compiled, and by its ONNX export."""

import io
import itertools

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


def _segnet_aspp(network):
    """Yield (name of kseg's convolution, the module, names and modules of the norms after it)."""
    halves = {
        "block": zip(range(1, 6), network.encoder, strict=True),
        "decoder": zip(range(5, 0, -1), network.decoder, strict=True),
    }
    for half, blocks in halves.items():
        for number, block in blocks:
            for i, unit in enumerate(block, 1):
                yield _unit(f"{half}{number}_conv{i}", unit)
    aspp = network.aspp
    yield _unit("aspp_conv", aspp.conv)
    yield _unit("aspp_image", aspp.image)
    yield _unit("aspp_projection", aspp.projection)
    for i, unit in enumerate(aspp.atrous, 1):
        yield _unit(f"aspp_atrous{i}", unit)
    yield _unit("tail", network.tail)
    yield "logits", network.logits, {}


def _r2unet(network):
    halves = {
        "encoder": zip(range(1, 6), network.encoder, strict=True),
        "decoder": zip(range(4, 0, -1), network.decoder, strict=True),
    }
    for half, blocks in halves.items():
        for number, block in blocks:
            yield f"{half}{number}_projection", block.projection, {}
            for i, recurrent in enumerate(block.block, 1):
                name = f"{half}{number}_conv{i}"
                yield name, recurrent.convolution, {f"{name}_bn{t}": norm for t, norm in enumerate(recurrent.norms)}
    for number, up in zip(range(4, 0, -1), network.up, strict=True):
        yield _unit(f"decoder{number}_up", up[1])
    yield "logits", network.logits, {}


def _segformer(network):
    for stride, linear in zip((4, 8, 16, 32), network.linear, strict=True):
        yield f"linear{stride}", linear, {}
    yield _unit("fuse", network.fuse)
    yield "logits", network.logits, {}
    encoder = network.encoder
    yield "encoder_stem_conv", encoder.conv_stem, {"encoder_stem_bn": encoder.bn1}
    for number, block in enumerate(itertools.chain.from_iterable(encoder.blocks)):
        parts = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
        if not hasattr(block, "conv_pwl"):  # the first block expands nothing
            parts = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
        for part, (convolution, norm) in parts.items():
            name = f"encoder_block{number}_{part}"
            yield name, getattr(block, convolution), {f"{name}_bn": getattr(block, norm)}


def _unit(name, unit):
    return name, unit[0], {f"{name}_bn": unit[1]}


def _segformer_head(num_classes, filters):
    from benchmarks.peers.pytorch_encoders import SegFormerHead

    return SegFormerHead(num_classes, filters)


NETWORKS = {
    "segnet_aspp": (pytorch.NETWORKS["segnet_aspp"], _segnet_aspp),
    "r2unet": (pytorch.NETWORKS["r2unet"], _r2unet),
    "segformer": (_segformer_head, _segformer),
}


def load(network, named, arrays):
    """Give a module the weights of kseg's model, all of them and to all that it has; ValueError otherwise.

    named: what yields its convolutions and norms. arrays: {"layer/weight": NumPy array}.
    """
    left = dict(arrays)
    given = set()
    for name, convolution, norms in named(network):
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
    build, named = NETWORKS[network]
    module = build(num_classes, filters)
    with np.load(f"{folder}/weights.npz") as arrays:
        load(module, named, arrays)
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
