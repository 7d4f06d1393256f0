"""U-Net on EfficientNet-Lite0 in PyTorch, the encoder from timm; and that of segmentation_models_pytorch."""

import platform

import timm
import torch
from torch import nn

from benchmarks.peers import inputs, pytorch

ENCODER = "tf_efficientnet_lite0"


def versions():
    """What runs here."""
    return {"Python": platform.python_version(), "PyTorch": torch.__version__, "timm": timm.__version__}


class UNet(nn.Module):
    """The network of kseg.models.unet with encoder="efficientnet_lite0"."""

    def __init__(self, num_classes, decoder_filters):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.0))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 128.0))
        self.encoder = timm.create_model(ENCODER, features_only=True)
        skips = [*self.encoder.feature_info.channels()[-2::-1], 0]  # strides 16, 8, 4, 2; none at 1
        channels = self.encoder.feature_info.channels()[-1]
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level, skip in enumerate(skips):
            filters = decoder_filters // 2**level
            self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), pytorch.unit(channels, filters, 3)))
            self.decoder.append(pytorch.double_conv(filters + skip, filters))
            channels = filters
        self.logits = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images):
        *skips, x = self.encoder((images - self.mean) / self.scale)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = up(x)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
            x = block(x)
        return self.logits(x)


class TheirUNet(nn.Module):
    """The same encoder under the U-Net decoder of segmentation_models_pytorch, which has a convolution less a level."""

    def __init__(self, num_classes, decoder_filters):
        super().__init__()
        import segmentation_models_pytorch

        self.register_buffer("mean", torch.full((1, 3, 1, 1), 127.0))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 128.0))
        self.network = segmentation_models_pytorch.Unet(
            f"tu-{ENCODER}",
            encoder_weights=None,
            classes=num_classes,
            decoder_channels=[decoder_filters // 2**level for level in range(5)],
        )

    def forward(self, images):
        return self.network((images - self.mean) / self.scale)


NETWORKS = {"same": UNet, "segmentation_models_pytorch": TheirUNet}


def training_loop(network, decoder_filters, batch, height, width, num_classes):
    """As ours.loop_step of this U-Net."""
    run, facts = pytorch.steps(NETWORKS[network](num_classes, decoder_filters), batch, height, width, num_classes)
    return run, _comparable(network, facts)


def prediction(network, decoder_filters, height, width, num_classes):
    """As ours.prediction of this U-Net: the classes of one image in memory."""
    module = NETWORKS[network](num_classes, decoder_filters).to(memory_format=torch.channels_last).eval()
    image = pytorch.as_maps(inputs.scene(1, height, width, num_classes)[0])

    def run():
        with torch.inference_mode():
            return module(image.contiguous(memory_format=torch.channels_last)).argmax(1).to(torch.uint8).numpy()

    return run, _comparable(network, pytorch.facts(module))


def _comparable(network, facts):
    """The facts that must be kseg's too: none of another network."""
    return facts if network == "same" else {}


CASES = {"training_loop": training_loop, "prediction": prediction}
