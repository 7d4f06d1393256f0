"""The same operations and network in PyTorch: eager, channels last, fused Adam. Imports neither kseg nor Keras."""

import functools
import platform

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import inputs

CONTEXTS = {"float32": False, "bfloat16": True}  # whether torch.autocast is on


def versions():
    """What runs here."""
    return {"Python": platform.python_version(), "PyTorch": torch.__version__}


def as_maps(array):
    """NumPy (B, H, W, C) to a channels-last tensor of shape (B, C, H, W), which is the same memory."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def unit(channels, filters, size, rate=1):
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, filters, size, padding=rate * (size // 2), dilation=rate)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1), nn.ReLU(inplace=True))


def _named(name, unit):
    """What `convolutions` of a network yields for a unit."""
    return name, unit[0], {f"{name}_bn": unit[1]}


class Pyramid(nn.Module):
    """ASPP by concatenation."""

    def __init__(self, channels, filters, dropout):
        super().__init__()
        self.conv = unit(channels, filters, 1)
        self.image = unit(channels, filters, 1)
        self.atrous = nn.ModuleList(unit(channels, filters, 3, rate) for rate in (6, 12, 18))
        self.projection = unit(5 * filters, filters, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        image = self.image(x.mean((2, 3), keepdim=True))
        branches = [self.conv(x), *(branch(x) for branch in self.atrous), image.expand(-1, -1, *x.shape[2:])]
        return self.dropout(self.projection(torch.cat(branches, 1)))


class SegNetASPP(nn.Module):
    """The network of kseg.models.segnet.segnet_aspp."""

    def __init__(self, num_classes, base_filters=64, dropout=0.5):
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1))
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels = 3
        for factors in ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)):
            self.encoder.append(nn.Sequential())
            for factor in factors:
                self.encoder[-1].append(unit(channels, factor * base_filters, 3))
                channels = factor * base_filters
        for factors in ((8, 8, 8), (8, 8, 4), (4, 4, 2), (2, 1), (1,)):
            self.decoder.append(nn.Sequential())
            for factor in factors:
                self.decoder[-1].append(unit(channels, factor * base_filters, 3))
                channels = factor * base_filters
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.aspp = Pyramid(channels, 4 * base_filters, dropout)
        self.tail = unit(4 * base_filters, 4 * base_filters, 3)
        self.logits = nn.Conv2d(4 * base_filters, num_classes, 1)

    def forward(self, images):
        x = ((images - self.mean) / self.scale).contiguous(memory_format=torch.channels_last)
        kept = []
        for block in self.encoder:
            x, indices = self.pool(block(x))
            kept.append(indices)
        for block in self.decoder:
            x = block(self.unpool(x, kept.pop()))
        return self.logits(self.tail(self.aspp(x)))

    def convolutions(self):
        """Yield (name of kseg's convolution, the module, {name: module} of the norms after it)."""
        blocks = {f"block{i}": block for i, block in enumerate(self.encoder, 1)}
        blocks |= {f"decoder{5 - i}": block for i, block in enumerate(self.decoder)}
        units = {f"{name}_conv{i}": unit for name, block in blocks.items() for i, unit in enumerate(block, 1)}
        units |= {f"aspp_{branch}": getattr(self.aspp, branch) for branch in ("conv", "image", "projection")}
        units |= {f"aspp_atrous{i}": unit for i, unit in enumerate(self.aspp.atrous, 1)}
        for name, unit in {**units, "tail": self.tail}.items():
            yield _named(name, unit)
        yield "logits", self.logits, {}


class RecurrentConv(nn.Module):
    """kseg.blocks.recurrent_conv: one kernel over three steps, a batch norm for each or one for all."""

    def __init__(self, filters, steps=2, shared_norm=False):
        super().__init__()
        self.convolution = nn.Conv2d(filters, filters, 3, padding=1)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
        self.steps = steps
        count = 1 if shared_norm else steps + 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1) for _ in range(count))

    def forward(self, x):
        first, *others = self.norms
        others = others or [first] * self.steps
        h = functional.relu(first(self.convolution(x)))
        for norm in others:
            h = functional.relu(norm(self.convolution(x + h)))
        return h


class RecurrentResidual(nn.Module):
    """A level of R2U-Net: a projection, and two recurrent convolutions that are added to it."""

    def __init__(self, channels, filters, shared_norm=False):
        super().__init__()
        self.projection = nn.Conv2d(channels, filters, 1)
        recurrent = functools.partial(RecurrentConv, filters, shared_norm=shared_norm)
        self.block = nn.Sequential(recurrent(), recurrent())

    def forward(self, x):
        x = self.projection(x)
        return x + self.block(x)


def double_conv(channels, filters):
    """A level of U-Net."""
    return nn.Sequential(unit(channels, filters, 3), unit(filters, filters, 3))


class UNet(nn.Module):
    """The skeleton of kseg.models.unet: `block(channels, filters)` makes a level."""

    def __init__(self, block, num_classes, base_filters=64, depth=5):
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1))
        widths = [base_filters * 2**level for level in range(depth)]
        self.encoder = nn.ModuleList(block(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for above, filters in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), unit(above, filters, 3)))
            self.decoder.append(block(2 * filters, filters))
        self.logits = nn.Conv2d(base_filters, num_classes, 1)

    def forward(self, images):
        x = (images - self.mean) / self.scale
        skips = []
        for number, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if number else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], 1))
        return self.logits(x)

    def convolutions(self):
        """As SegNetASPP.convolutions."""
        depth = len(self.encoder)
        blocks = {f"encoder{level}": block for level, block in enumerate(self.encoder, 1)}
        blocks |= {f"decoder{depth - i}": block for i, block in enumerate(self.decoder, 1)}
        for i, up in enumerate(self.up, 1):
            yield _named(f"decoder{depth - i}_up", up[1])
        for name, block in blocks.items():
            if isinstance(block, RecurrentResidual):
                yield f"{name}_projection", block.projection, {}
                for i, recurrent in enumerate(block.block, 1):
                    conv = f"{name}_conv{i}"
                    yield conv, recurrent.convolution, {f"{conv}_bn{t}": norm for t, norm in enumerate(recurrent.norms)}
            else:
                for i, unit in enumerate(block, 1):
                    yield _named(f"{name}_conv{i}", unit)
        yield "logits", self.logits, {}


NETWORKS = {
    "segnet_aspp": SegNetASPP,
    "r2unet": functools.partial(UNet, RecurrentResidual),
    "r2unet_fischer2021": functools.partial(UNet, functools.partial(RecurrentResidual, shared_norm=True)),
    "unet": functools.partial(UNet, double_conv),
}


def gradient_run(module, x):
    """As steps.gradient_run; `run()` gives y and the gradient of x as (B, H, W, C), then those of the weights."""
    x = as_maps(x).requires_grad_()
    weights = list(module.parameters())
    with torch.no_grad():
        shape = module(x).shape
    upstream = as_maps(inputs.maps((shape[0], *shape[2:], shape[1]), seed=1))

    def run():
        y = module(x)
        gradient, *others = torch.autograd.grad(y, [x, *weights], upstream)
        return y.detach().permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), *others

    return run


class PoolPair(nn.Module):
    """2x2 max pooling with positions, then unpooling by them."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x):
        return self.unpool(*self.pool(x))


def pool_pair(shape):
    """As ours.pool_pair."""
    return gradient_run(PoolPair(), inputs.maps(shape)), {}


def batch_norm(shape):
    """As ours.batch_norm."""
    return gradient_run(nn.Sequential(nn.BatchNorm2d(shape[-1]), nn.ReLU(inplace=True)), inputs.maps(shape)), {}


def aspp(shape, filters):
    """As ours.aspp."""
    module = Pyramid(shape[-1], filters, 0.0).to(memory_format=torch.channels_last)
    return gradient_run(module, inputs.maps(shape)), facts(module)


def facts(module):
    """Parameters; the multiply-adds are counted in our network alone."""
    return {"parameters": sum(weight.numel() for weight in module.parameters())}


def train_step(precision, batch, height, width, num_classes, base_filters):
    """As ours.train_step; bfloat16 is torch.autocast."""
    return steps(SegNetASPP(num_classes, base_filters), batch, height, width, num_classes, precision=precision)


def training_loop(model, base_filters, batch, height, width, num_classes):
    """As ours.training_loop, on images that are in memory: no reading, no augmentation, no scores."""
    return steps(NETWORKS[model](num_classes, base_filters), batch, height, width, num_classes)


def popular_r2unet(base_filters, batch, height, width, num_classes):
    """R2U-Net as its most popular PyTorch repository has and trains it.

    One batch norm for all steps of a recurrence, channels first, Adam as it comes. Its loss, which is for two classes,
    is replaced by cross entropy.
    """
    module = NETWORKS["r2unet_fischer2021"](num_classes, base_filters)
    return steps(module, batch, height, width, num_classes, layout=torch.contiguous_format, fused=False)


def steps(module, batch, height, width, num_classes, precision="float32", layout=torch.channels_last, fused=True):
    """Training steps of a module, (B, 3, H, W) -> logits; `run()` gives the loss before the step."""
    module = module.to(memory_format=layout).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=fused)
    images, labels = inputs.scene(batch, height, width, num_classes)
    images, labels = as_maps(images).float().contiguous(memory_format=layout), torch.from_numpy(labels).long()

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=CONTEXTS[precision]):
            logits = module(images)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run, facts(module)


def evaluation(model, base_filters, height, width, num_classes, images):
    """As ours.evaluation, of images that are in memory: the classes and their confusion matrix, one after the other."""
    module = NETWORKS[model](num_classes, base_filters).to(memory_format=torch.channels_last).eval()
    pixels, labels = inputs.scene(images, height, width, num_classes)
    pairs = list(zip(as_maps(pixels).split(1), torch.from_numpy(labels).long(), strict=True))

    def run():
        matrix = torch.zeros(num_classes**2, dtype=torch.int64)
        with torch.inference_mode():
            for image, truth in pairs:
                predicted = module(image).argmax(1)[0]
                matrix += torch.bincount((truth * num_classes + predicted).flatten(), minlength=num_classes**2)
        return matrix

    return run, {"images": images}


CASES = {
    "pool_pair": pool_pair,
    "batch_norm": batch_norm,
    "aspp": aspp,
    "train_step": train_step,
    "training_loop": training_loop,
    "popular_r2unet": popular_r2unet,
    "evaluation": evaluation,
}
