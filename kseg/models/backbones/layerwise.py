"""A classification network taken over as an encoder: copied layer by layer, dilated where its stride must stop."""

import collections
import re

import keras

from kseg.io.errors import InputError
from kseg.layers.normalization import BatchNormalization
from kseg.models.pretrained.weights import PREFIX

SIZE = 256  # height and width that networks are built at, or thought of at: what a map's stride follows from
STRIDES = (2, 4, 8, 16, 32)
# Layers and operations whose every pixel comes from that pixel alone, or from the image's mean: no dilation changes
# them. By name, for Keras does not export all of them.
POINTWISE = (
    *("Activation", "Add", "BatchNormalization", "Dense", "Dropout", "LayerNormalization", "LayerScale", "Multiply"),
    *("ReLU", "Reshape"),
)
_TRAILING = (keras.layers.BatchNormalization, keras.layers.Activation, keras.layers.ReLU)


def take_over(network, image, x, *, output_stride, initializer, encoder):
    """Copies the layers of a network onto `x`, without their weights, and gives the deepest map of every stride.

    Copies are called PREFIX and the name of their layer; layers that have no name of their own are counted. A batch
    norm has the network's epsilon and this project's momentum. Where a stage would pass `output_stride`, its stride is
    dropped and everything after it is dilated: with the same weights, every second value of the map is that of the
    strided network (Chen et al. 2017, arXiv 1706.05587, section 3.1). For that, squeeze-and-excitation takes its mean
    over the values that the strided network has. A 1x1 convolution that only widens the map for the next stage, or
    for the classifier, belongs to that stage: its input is the deepest map.

    Args: `network`: keras.Model built at SIZE x SIZE, RGB, strided, for images that are even at every stride.
        `image`: the keras.Input of the new model. `x`: what the network takes, (B, H, W, 3), normalised.
        `output_stride`: 8, 16 or 32. `initializer`: of the kernels. `encoder`: for messages.
    Returns: {stride: tensor}, its strides those of 2, 4, 8, 16 and 32 up to `output_stride` that the network has.
    Raises: ValueError for a network with a layer that cannot be dilated.
    """
    walk = _Walk(image, x, output_stride, initializer, encoder)
    keras.models.clone_model(
        network,
        input_tensors=image,
        clone_function=lambda layer: layer,
        call_function=walk.call,
    )
    return walk.maps()


_Step = collections.namedtuple("_Step", ("layer", "inputs", "output", "stride"))


class _Walk:
    """The copy in the making: `call` is called with each layer of the network and the new tensors that it takes."""

    def __init__(self, image, x, output_stride, initializer, encoder):
        self.image = image
        self.x = x
        self.output_stride = output_stride
        self.initializer = initializer
        self.encoder = encoder
        self.counts = collections.Counter()
        self.dilations = {id(x): 1}  # of new tensors: steps between values of the strided network
        self.steps = []

    def call(self, layer, *args, **kwargs):
        """Copy a layer and call it."""
        args, kwargs = keras.tree.map_structure(lambda value: self.x if value is self.image else value, (args, kwargs))
        if not isinstance(layer, keras.Sequential):
            return self._step(layer, args, kwargs)
        for inner in layer.layers:  # flat, so that every layer has a name in the model
            args = (self._step(inner, args, {}),)
        return args[0]

    def maps(self):
        """The deepest map of every stride."""
        producers = {id(step.output): step for step in self.steps}
        deepest = {}
        for step in self.steps:
            if step.stride in STRIDES and not isinstance(step.layer, keras.layers.ZeroPadding2D):
                deepest[step.stride] = step
        maps = {}
        for stride, step in deepest.items():
            last = step
            while isinstance(last.layer, _TRAILING) and id(last.inputs[0]) in producers:
                last = producers[id(last.inputs[0])]
            maps[stride] = step.output
            if _is_widening(last):
                maps[stride] = last.inputs[0]
        return dict(sorted(maps.items()))

    def _step(self, layer, args, kwargs):
        inputs = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, keras.KerasTensor)]
        dilation = max(self.dilations[id(value)] for value in inputs)
        step = _height(layer.input) // _height(layer.output)
        strided = step > 1 and not _is_mean(layer)
        dropped = strided and _stride(layer.output, dilation) > self.output_stride
        if dilation == 1 and not dropped:
            output = self._copy(layer)(*args, **kwargs)
        else:
            output = self._dilated(layer, args, kwargs, dilation)
        if _is_mean(layer) or _height(layer.output) == 1:
            dilation = 1
        elif dropped:
            dilation *= step
        self.dilations[id(output)] = dilation
        self.steps.append(_Step(layer, inputs, output, _stride(layer.output, dilation)))
        return output

    def _name(self, layer):
        """The name of a copy; Keras' own for a layer without a name goes on from one network to the next."""
        own = type(layer).__name__
        own = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", own)
        own = re.sub("([a-z])([A-Z])", r"\1_\2", own).lower()
        if not re.fullmatch(rf"{own}(_\d+)?", layer.name):
            return PREFIX + layer.name
        self.counts[own] += 1
        number = self.counts[own] - 1
        return f"{PREFIX}{own}_{number}" if number else PREFIX + own

    def _copy(self, layer, **changes):
        config = layer.get_config()
        config["name"] = self._name(layer)
        if not isinstance(layer, keras.Layer):
            return type(layer).from_config(config)
        del config["dtype"]  # that of the network, perhaps not of the model
        if "kernel_initializer" in config:
            config["kernel_initializer"] = self.initializer
        if "depthwise_initializer" in config:
            config["depthwise_initializer"] = _of_depthwise(self.initializer)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            config["dtype"] = "float32"  # the mean of many bfloat16 pixels needs it
        if isinstance(layer, keras.layers.BatchNormalization):
            del config["momentum"]
            return BatchNormalization.from_config(config)
        return type(layer).from_config(config | changes)

    def _dilated(self, layer, args, kwargs, dilation):
        """What a layer gives for maps whose every `dilation`-th value is the strided network's."""
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            padding = _pads(layer, dilation)
            rate = tuple(dilation if size > 1 else 1 for size in layer.kernel_size)
            copy = self._copy(layer, strides=(1, 1), dilation_rate=rate, padding="valid")
            x = args[0]
            if any(map(any, padding)):
                x = keras.layers.ZeroPadding2D(padding, name=f"{copy.name}_dilated_pad")(x)
            return copy(x)
        if isinstance(layer, keras.layers.ZeroPadding2D):
            pads = [tuple(pad * dilation for pad in pair) for pair in layer.padding]
            return self._copy(layer, padding=pads)(*args)
        if _is_mean(layer):
            copy = self._copy(layer)
            grid = keras.layers.MaxPooling2D(1, strides=dilation, name=f"{copy.name}_dilated_grid")
            return copy(grid(args[0]))
        if type(layer).__name__ not in POINTWISE:
            raise InputError(
                f"Encoder {self.encoder} cannot be dilated to output stride {self.output_stride}: its layer "
                f"'{layer.name}' ({type(layer).__name__}) has no dilated form. Use output stride 32."
            )
        return self._copy(layer)(*args, **kwargs)


def _height(tensors):
    """The height of a map of the network, 1 of a vector; of several the largest."""
    tensors = keras.tree.flatten(tensors)
    return max(tensor.shape[1] if len(tensor.shape) == 4 else 1 for tensor in tensors)


def _stride(tensors, dilation):
    return SIZE // _height(tensors) // dilation


def _is_widening(step):
    """Whether it is a 1x1 convolution to more channels than it takes."""
    pointwise = type(step.layer) is keras.layers.Conv2D and step.layer.kernel_size == (1, 1)
    return pointwise and step.output.shape[-1] > step.inputs[0].shape[-1]


def _is_mean(layer):
    return isinstance(layer, keras.layers.GlobalAveragePooling2D)


def _pads(layer, dilation):
    """Zeros around a map before a convolution of stride 1 that is to give what the strided one gives, and between.

    The strided one's own padding in front, in steps of `dilation`; behind it what keeps the size.
    """
    pads = []
    for axis in (0, 1):
        size = layer.input.shape[1 + axis]
        count = layer.output.shape[1 + axis]
        stride = layer.strides[axis]
        span = layer.kernel_size[axis] - 1
        front = 0
        if layer.padding == "same":
            front = max((count - 1) * stride + span + 1 - size, 0) // 2
        total = count * stride + span - size
        pads.append((front * dilation, (total - front) * dilation))
    return tuple(pads)


def _of_depthwise(initializer):
    """The initialiser for a depthwise kernel, (height, width, C, 1): a channel has height * width inputs.

    Keras counts C times as many, and these as fan-out.
    """
    initializer = keras.initializers.get(initializer)
    if not isinstance(initializer, keras.initializers.VarianceScaling) or initializer.mode != "fan_in":
        return initializer
    return keras.initializers.VarianceScaling(
        scale=initializer.scale,
        mode="fan_out",
        distribution=initializer.distribution,
    )
