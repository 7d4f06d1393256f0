"""The same operations and network as one writes them in Keras without kseg."""

import keras
import tensorflow as tf

from benchmarks.peers import inputs, steps

versions = steps.versions


class ArgmaxPooling(keras.layers.Layer):
    """2x2 max pooling by TensorFlow's own operation: maxima and flat positions (int64)."""

    def call(self, x):
        return tf.nn.max_pool_with_argmax(x, 2, 2, "SAME", include_batch_in_index=True)


class ScatterUnpooling(keras.layers.Layer):
    """Maxima scattered to their flat positions."""

    def call(self, inputs):
        pooled, indices = inputs
        batch, height, width, channels = tf.unstack(tf.shape(pooled))
        size = tf.stack([batch, 2 * height, 2 * width, channels])
        places = tf.reshape(indices, (-1, 1))
        flat = tf.scatter_nd(places, tf.reshape(pooled, (-1,)), tf.cast([tf.reduce_prod(size)], indices.dtype))
        return tf.ensure_shape(tf.reshape(flat, size), self.compute_output_shape([pooled.shape, None]))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape[0]
        return (batch, 2 * height, 2 * width, channels)


def normalization(name=None):
    """Keras' batch normalisation with the momentum and epsilon of the others."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def unit(x, filters, size, name, rate=1):
    """Convolution, batch norm, ReLU."""
    convolution = keras.layers.Conv2D(
        filters, size, padding="same", dilation_rate=rate, kernel_initializer="he_normal", name=name
    )
    return keras.layers.ReLU()(normalization(f"{name}_bn")(convolution(x)))


def pyramid(x, filters, dropout):
    """ASPP by concatenation, the pooled branch resized to the map."""
    height, width = x.shape[1:3]
    branches = [unit(x, filters, 1, "aspp_conv")]
    branches += [unit(x, filters, 3, f"aspp_atrous{i}", rate) for i, rate in enumerate((6, 12, 18), 1)]
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    image = unit(mean, filters, 1, "aspp_image")
    branches.append(keras.layers.UpSampling2D((height, width))(image))
    x = unit(keras.layers.Concatenate()(branches), filters, 1, "aspp_projection")
    return keras.layers.Dropout(dropout, seed=0)(x)


def segnet_aspp(height, width, num_classes, base_filters=64, dropout=0.5):
    """The network of kseg.models.segnet.segnet_aspp; convolutions and norms have the same names, but ASPP's last."""
    image = keras.Input((height, width, 3))
    mean, scale = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    offset = [-m / s for m, s in zip(mean, scale, strict=True)]
    x = keras.layers.Rescaling([1 / s for s in scale], offset)(image)
    kept = []
    for block, (width_factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        for i in range(1, count + 1):
            x = unit(x, width_factor * base_filters, 3, f"block{block}_conv{i}")
        x, indices = ArgmaxPooling()(x)
        kept.append(indices)
    for block, factors in ((5, (8, 8, 8)), (4, (8, 8, 4)), (3, (4, 4, 2)), (2, (2, 1)), (1, (1,))):
        x = ScatterUnpooling()([x, kept.pop()])
        for i, factor in enumerate(factors, 1):
            x = unit(x, factor * base_filters, 3, f"decoder{block}_conv{i}")
    x = unit(pyramid(x, 4 * base_filters, dropout), 4 * base_filters, 3, "tail")
    logits = keras.layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="logits")
    return keras.Model(image, logits(x))


def pool_pair(shape):
    """As ours.pool_pair."""
    pool = ArgmaxPooling()
    unpool = ScatterUnpooling()
    return steps.gradient_run(lambda x: unpool(pool(x)), inputs.maps(shape)), {}


def batch_norm(shape):
    """As ours.batch_norm."""
    norm = normalization()
    relu = keras.layers.ReLU()
    return steps.gradient_run(lambda x: relu(norm(x, training=True)), inputs.maps(shape), norm), {}


def aspp(shape, filters):
    """As ours.aspp."""
    x = keras.Input(shape[1:])
    model = keras.Model(x, pyramid(x, filters, dropout=0.0))
    return steps.gradient_run(lambda x: model(x, training=True), inputs.maps(shape), model), _facts(model)


def train_step(precision, batch, height, width, num_classes, base_filters):
    """As ours.train_step."""
    steps.set_precision(precision)
    model = segnet_aspp(height, width, num_classes, base_filters)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    run = steps.train_run(model, loss, *inputs.scene(batch, height, width, num_classes))
    return run, _facts(model)


CASES = {"pool_pair": pool_pair, "batch_norm": batch_norm, "aspp": aspp, "train_step": train_step}


def _facts(model):
    """What a model costs; kseg only counts, and comes in when TensorFlow has run: it would choose the allocator."""
    from kseg.models import costs

    return costs.facts(model)
