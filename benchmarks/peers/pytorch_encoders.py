"""SegFormer's head on EfficientNet-Lite0 in PyTorch, the encoder from timm; and that of segmentation_models_pytorch."""

import itertools
import platform

import timm
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import inputs, pytorch

ENCODER = "tf_efficientnet_lite0"


def versions():
    """What runs here."""
    return {"Python": platform.python_version(), "PyTorch": torch.__version__, "timm": timm.__version__}


class SegFormerHead(nn.Module):
    """The network of kseg.models.segformer with encoder="efficientnet_lite0"."""

    def __init__(self, num_classes, filters, dropout=0.1):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.0))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 128.0))
        self.encoder = timm.create_model(ENCODER, features_only=True, out_indices=(1, 2, 3, 4))  # strides 4 to 32
        self.linear = nn.ModuleList(
            nn.Conv2d(channels, filters, 1) for channels in self.encoder.feature_info.channels()
        )
        self.fuse = pytorch.unit(4 * filters, filters, 1)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(filters, num_classes, 1)

    def forward(self, images):
        maps = [
            linear(x) for linear, x in zip(self.linear, self.encoder((images - self.mean) / self.scale), strict=True)
        ]
        levels = [maps[0], *(_resized(x, maps[0].shape[2:]) for x in maps[1:])]
        return _resized(self.logits(self.dropout(self.fuse(torch.cat(levels[::-1], 1)))), images.shape[2:])

    def convolutions(self):
        """As pytorch.SegNetASPP.convolutions."""
        for stride, linear in zip((4, 8, 16, 32), self.linear, strict=True):
            yield f"linear{stride}", linear, {}
        yield "fuse", self.fuse[0], {"fuse_bn": self.fuse[1]}
        yield "logits", self.logits, {}
        yield "encoder_stem_conv", self.encoder.conv_stem, {"encoder_stem_bn": self.encoder.bn1}
        for number, block in enumerate(itertools.chain.from_iterable(self.encoder.blocks)):
            parts = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
            if not hasattr(block, "conv_pwl"):  # the first block expands nothing
                parts = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
            for part, (convolution, norm) in parts.items():
                name = f"encoder_block{number}_{part}"
                yield name, getattr(block, convolution), {f"{name}_bn": getattr(block, norm)}


def _resized(x, size):
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)


class TheirSegFormerHead(nn.Module):
    """The same encoder under the head of segmentation_models_pytorch."""

    def __init__(self, num_classes, filters):
        super().__init__()
        import segmentation_models_pytorch

        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.0))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 128.0))
        self.network = segmentation_models_pytorch.Segformer(
            f"tu-{ENCODER}",
            encoder_weights=None,
            classes=num_classes,
            decoder_segmentation_channels=filters,
        )

    def forward(self, images):
        return self.network((images - self.mean) / self.scale)


NETWORKS = {"same": SegFormerHead, "segmentation_models_pytorch": TheirSegFormerHead}


def training_loop(network, filters, batch, height, width, num_classes):
    """As ours.loop_step of this network."""
    run, facts = pytorch.steps(NETWORKS[network](num_classes, filters), batch, height, width, num_classes)
    return run, _comparable(network, facts)


def prediction(network, filters, height, width, num_classes):
    """As ours.prediction of this network: the classes of one image in memory."""
    module = NETWORKS[network](num_classes, filters).to(memory_format=torch.channels_last).eval()
    image = pytorch.as_maps(inputs.scene(1, height, width, num_classes)[0])

    def run():
        with torch.inference_mode():
            return module(image.contiguous(memory_format=torch.channels_last)).argmax(1).to(torch.uint8).numpy()

    return run, _comparable(network, pytorch.facts(module))


def _comparable(network, facts):
    """The facts that must be kseg's too: none of another network."""
    return facts if network == "same" else {}


CASES = {"training_loop": training_loop, "prediction": prediction}
