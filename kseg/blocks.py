"""Blocks that several models share: functions from a Keras tensor to a Keras tensor."""

import keras

from kseg.layers import BatchNormalization

HE_NORMAL = "he_normal"


def conv_bn_relu(
    x,
    filters,
    kernel_size=3,
    *,
    dilation_rate=1,
    transposed=False,
    use_bias=True,
    initializer=HE_NORMAL,
    name,
):
    """Same-padded convolution, batch normalisation, ReLU.

    Args: `x`: (B, H, W, C). `filters`: output channels. `transposed`: a transposed convolution of stride 1.
        `initializer`: a Keras initialiser for the kernel.
        `name`: of the convolution; the other two are `{name}_bn` and `{name}_relu`.
    Returns: (B, H, W, filters).
    """
    layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    x = layer(
        filters,
        kernel_size,
        padding="same",
        dilation_rate=dilation_rate,
        use_bias=use_bias,
        kernel_initializer=initializer,
        name=name,
    )(x)
    x = BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


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
        raise ValueError(f"rates must be positive dilation rates in pixels, got {tuple(rates)}. Try (6, 12, 18).")
    branch = {"filters": filters, "initializer": initializer}
    # The mean of many bfloat16 pixels needs float32.
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name=f"{name}_mean")(x)
    branches = {"conv": conv_bn_relu(x, kernel_size=1, name=f"{name}_conv", **branch)}
    for i, rate in enumerate(rates, 1):
        branches[f"atrous{i}"] = conv_bn_relu(x, dilation_rate=rate, name=f"{name}_atrous{i}", **branch)
    branches["image"] = conv_bn_relu(mean, kernel_size=1, name=f"{name}_image", **branch)
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
    return keras.layers.Dropout(dropout, seed=seed, name=f"{name}_dropout")(x) if dropout else x
