"""Blocks that several models share: functions from a Keras tensor to a Keras tensor."""

import functools

import keras

from kseg.io.errors import InputError, check_whole
from kseg.layers.normalization import BatchNormalization

HE_NORMAL = "he_normal"


def conv_bn_relu(
    x,
    filters,
    kernel_size=3,
    *,
    strides=1,
    dilation_rate=1,
    transposed=False,
    norm=None,
    initializer=HE_NORMAL,
    name,
):
    """Same-padded convolution, batch normalisation, ReLU.

    Args: `x`: (B, H, W, C). `filters`: output channels. `transposed`: a transposed convolution.
        `strides`: of the convolution. `norm`: a normalisation layer that several convolutions share, None for one of
        its own.
        `initializer`: a Keras initialiser for the kernel.
        `name`: of the convolution; the other two are `{name}_bn` and `{name}_relu`.
    Returns: (B, H, W, filters), H and W divided by the strides, or multiplied where transposed.
    """
    layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    x = layer(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        dilation_rate=dilation_rate,
        kernel_initializer=initializer,
        name=name,
    )(x)
    x = (norm or BatchNormalization(name=f"{name}_bn"))(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def double_conv(x, filters, *, initializer=HE_NORMAL, name):
    """U-Net's pair of 3x3 convolutions (Ronneberger et al. 2015, arXiv 1505.04597), padded, with batch norm.

    Args: `x`: (B, H, W, C). Returns: (B, H, W, filters).
    """
    for i in (1, 2):
        x = conv_bn_relu(x, filters, initializer=initializer, name=f"{name}_conv{i}")
    return x


def recurrent_conv(x, *, steps=2, recurrence="shared", norm="per_step", initializer=HE_NORMAL, name):
    """A recurrent convolutional layer (Liang and Hu 2015; Alom et al. 2018, arXiv 1802.06955, section III).

    h(0) = f(x), then `steps` times h(t) = f(x + h(t-1)), where f is one 3x3 convolution, batch norm and ReLU. With
    recurrence="separate", as the papers write it, h(t) = ReLU(BN(w_f * x + w_r * h(t-1) + b)) with two kernels.
    Deviation: each step has its own batch norm. The steps differ in their distributions, so one shared set of moving
    statistics fits none of them, and inference then scores like noise. norm="shared" is what most implementations do.

    Args: `x`: (B, H, W, C). `steps`: recurrences after the first application. `recurrence`: "shared" or "separate".
        `norm`: "per_step" or "shared". Returns: (B, H, W, C).
    Raises: ValueError for other options or a negative number of steps.
    """
    steps = check_whole("steps", steps, 0)
    if recurrence not in ("shared", "separate") or norm not in ("per_step", "shared"):
        raise InputError(
            "recurrence must be 'shared' or 'separate' and norm 'per_step' or 'shared', got "
            f"{recurrence!r} and {norm!r}."
        )
    filters = x.shape[-1]
    convolution = functools.partial(keras.layers.Conv2D, filters, 3, padding="same", kernel_initializer=initializer)
    forward = convolution(name=name)
    if recurrence == "separate" and steps:
        backward = convolution(use_bias=False, name=f"{name}_recurrent")
    if norm == "per_step":
        norms = [BatchNormalization(name=f"{name}_bn{t}") for t in range(steps + 1)]
    else:
        norms = [BatchNormalization(name=f"{name}_bn")] * (steps + 1)
    first = forward(x)
    h = keras.layers.ReLU(name=f"{name}_relu0")(norms[0](first))
    for t in range(1, steps + 1):
        if recurrence == "shared":
            z = forward(keras.layers.Add(name=f"{name}_add{t}")([x, h]))
        else:
            z = keras.layers.Add(name=f"{name}_add{t}")([first, backward(h)])
        h = keras.layers.ReLU(name=f"{name}_relu{t}")(norms[t](z))
    return h


def double_recurrent(x, filters, *, steps=2, recurrence="shared", norm="per_step", initializer=HE_NORMAL, name):
    """Two recurrent convolutions one after the other, of a map that has `filters` channels: (B, H, W, filters)."""
    for i in (1, 2):
        x = recurrent_conv(
            x,
            steps=steps,
            recurrence=recurrence,
            norm=norm,
            initializer=initializer,
            name=f"{name}_conv{i}",
        )
    return x


def project(x, filters, *, initializer=HE_NORMAL, name):
    """A 1x1 convolution to `filters` channels, with bias: (B, H, W, C) -> (B, H, W, filters)."""
    return keras.layers.Conv2D(filters, 1, kernel_initializer=initializer, name=f"{name}_projection")(x)


def part_initializer(initializer, channels, total_channels, filters):
    """The initialiser for a 1x1 kernel over `channels` that is one part of a kernel over `total_channels`.

    Variance scaling divides by the kernel's own fans; a part must have the variance of the whole. Other
    initialisers come back unchanged.

    Args: `channels`, `total_channels`: input channels of part and whole. `filters`: output channels.
    Returns: a Keras initialiser.
    """
    initializer = keras.initializers.get(initializer)
    if not isinstance(initializer, keras.initializers.VarianceScaling) or initializer.mode == "fan_out":
        return initializer
    ratio = channels / total_channels
    if initializer.mode == "fan_avg":
        ratio = (channels + filters) / (total_channels + filters)
    return keras.initializers.VarianceScaling(
        scale=initializer.scale * ratio, mode=initializer.mode, distribution=initializer.distribution
    )


def aspp(x, filters=256, rates=(6, 12, 18), *, dropout=0.5, initializer=HE_NORMAL, seed=0, name="aspp"):
    """Atrous spatial pyramid pooling (Chen et al. 2017, arXiv 1706.05587, section 3.3), folded.

    A 1x1 convolution, a dilated 3x3 one for each rate and a 1x1 one of the image's mean, each with batch
    norm and ReLU; a 1x1 projection of them all with batch norm, ReLU and dropout. The projection of the
    concatenation is computed as the sum of one 1x1 convolution per branch: the wide map is never made,
    and the image's part is one vector per image, added by broadcasting. Training needs batches of 2.

    Args: `x`: (B, H, W, C). `filters`: channels of each branch and of the result. `rates`: in pixels.
        `dropout`: rate, 0 for none, drawn from `seed`. `name`: prefix of every layer.
    Returns: (B, H, W, filters). Raises: ValueError without rates.
    """
    if not rates or any(rate < 1 for rate in rates):
        raise InputError(f"rates must be positive dilation rates in pixels, got {tuple(rates)}. Try (6, 12, 18).")
    unit = functools.partial(conv_bn_relu, filters=filters, initializer=initializer)
    # The mean of many bfloat16 pixels needs float32.
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name=f"{name}_mean")(x)
    branches = {"conv": unit(x, kernel_size=1, name=f"{name}_conv")}
    for i, rate in enumerate(rates, 1):
        branches[f"atrous{i}"] = unit(x, dilation_rate=rate, name=f"{name}_atrous{i}")
    branches["image"] = unit(mean, kernel_size=1, name=f"{name}_image")
    parts = [
        keras.layers.Conv2D(
            filters,
            1,
            use_bias=key == "conv",  # one bias for the sum
            kernel_initializer=part_initializer(initializer, filters, filters * len(branches), filters),
            name=f"{name}_projection_{key}",
        )(value)
        for key, value in branches.items()
    ]
    x = keras.layers.Add(name=f"{name}_projection")(parts)
    x = BatchNormalization(name=f"{name}_projection_bn")(x)
    x = keras.layers.ReLU(name=f"{name}_projection_relu")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name=f"{name}_dropout")(x)
    return x
