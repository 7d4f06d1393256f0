"""DeepLabV3's atrous spatial pyramid pooling as one layer: keras-cv's, for where keras-cv is not or cannot run."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kseg")
class SpatialPyramidPooling(keras.layers.Layer):
    """Atrous spatial pyramid pooling (Chen et al. 2017, arXiv 1706.05587, section 3.3).

    The arguments, the arithmetic and the order of the weights are those of `keras_cv.layers.SpatialPyramidPooling`: a
    1x1 convolution, a dilated 3x3 one for each rate and a 1x1 one of the map's mean, each with batch norm (momentum
    .99, epsilon 1e-3) and ReLU; their concatenation goes through a 1x1 convolution with batch norm and ReLU.

    Args: `dilation_rates`: in pixels of the map. `num_channels`: of each branch and of the result.
    Call: (B, H, W, C). Returns: (B, H, W, num_channels).
    """

    def __init__(self, dilation_rates: Sequence[int], num_channels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dilation_rates = list(dilation_rates)
        self.num_channels = num_channels
        self.branches = [self._branch(1), *(self._branch(3, rate) for rate in self.dilation_rates), self._branch(1)]
        self.projection = self._branch(1)

    def _branch(self, size, rate=1):
        """A convolution of some pixels' width, batch norm, ReLU."""
        convolution = keras.layers.Conv2D(
            self.num_channels,
            size,
            padding="same",
            dilation_rate=rate,
            use_bias=False,
        )
        return keras.Sequential([convolution, keras.layers.BatchNormalization(), keras.layers.ReLU()])

    def build(self, input_shape):
        *local, of_mean = self.branches
        for branch in local:
            branch.build((None, None, None, input_shape[-1]))
        of_mean.build((None, 1, 1, input_shape[-1]))
        self.projection.build((None, None, None, len(self.branches) * self.num_channels))

    def call(self, x, training=None):
        *local, of_mean = self.branches
        maps = [branch(x, training=training) for branch in local]
        mean = ops.mean(ops.cast(x, "float32"), axis=(1, 2), keepdims=True)  # of many bfloat16 pixels: needs float32
        mean = of_mean(ops.cast(mean, x.dtype), training=training)
        maps.append(ops.broadcast_to(mean, ops.shape(maps[0])))
        return self.projection(ops.concatenate(maps, axis=-1), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_channels)

    def get_config(self):
        own = {"dilation_rates": self.dilation_rates, "num_channels": self.num_channels}
        return {**super().get_config(), **own}
