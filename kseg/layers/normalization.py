"""Batch norm by TensorFlow's fused kernel where it trains, and ParseNet's L2 normalisation with a learned scale."""

from typing import Any

import keras
from keras import ops

from kseg.io.errors import InputError


@keras.saving.register_keras_serializable("kseg")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation on TensorFlow's fused kernel (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Arguments, weights and saved names of `keras.layers.BatchNormalization`, but momentum .9 and
    epsilon 1e-5. Fused on TensorFlow when training, rank 4, channels last, not synchronized and without
    a mask; else as in Keras. The moving variance is of the biased kind, as in Keras.

    Call: (B, H, W, C), any float dtype. Returns: the same shape in the compute dtype.
    Raises: ValueError if training would normalise over one value per channel, which gives zeros.
    """

    def __init__(self, axis: int = -1, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable) or self.synchronized or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        if all(inputs.shape[axis] == 1 for axis in self._reduction_axes):
            raise InputError(
                f"Layer '{self.name}' would normalise over one value per channel, got a batch of shape "
                f"{tuple(inputs.shape)}. Train with a batch of at least 2 images per device."
            )
        if self._can_fuse(inputs):
            return self._fused(inputs)
        return super().call(inputs, training=training)

    def _can_fuse(self, inputs):
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not getattr(self, "renorm", False)  # Keras before 3.14 has none
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
            and self.variable_dtype == "float32"
        )

    def _fused(self, inputs):
        import tensorflow as tf

        shape = ops.shape(inputs)
        count = ops.cast(shape[0] * shape[1] * shape[2], "float32")
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma) if self.scale else tf.ones(shape[3]),
            offset=ops.convert_to_tensor(self.beta) if self.center else tf.zeros(shape[3]),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            data_format="NHWC",
            is_training=True,
        )
        # The kernel returns the variance over n - 1, Keras keeps that over n; with n = 1 it is 0.
        variance = tf.where(count > 1, variance * ((count - 1) / count), tf.zeros_like(variance))
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable("kseg")
class ScaledL2Normalization(keras.layers.Layer):
    """Gives every pixel's vector the length 1, then a learned scale per channel (arXiv 1506.04579, section 3.3).

    Computed in float32: y = scale * x / sqrt(sum over channels of x^2 + epsilon). Deviation: the epsilon, under which a
    vector of zeros, as ReLU makes them, gives zeros and a gradient of scale / sqrt(epsilon) and no nan.

    Args: `scale`: initial value for every channel. `epsilon`: positive, in the units of x squared.
    Call: (..., C), any float dtype. Returns: the same shape in the layer's compute dtype.
    Raises: ValueError if epsilon is not positive.
    """

    def __init__(self, scale: float = 10.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if epsilon <= 0:
            raise InputError(f"epsilon must be positive, got {epsilon}. Try 1e-6.")
        self.scale = float(scale)
        self.epsilon = float(epsilon)

    def build(self, input_shape):
        initial = keras.initializers.Constant(self.scale)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initial)

    def call(self, x):
        x = ops.cast(x, "float32")
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        y = x * ops.rsqrt(squares + self.epsilon) * ops.cast(self.gamma, "float32")
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "epsilon": self.epsilon}
