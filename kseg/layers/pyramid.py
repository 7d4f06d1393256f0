"""A network with a pyramid of maps, such as a backbone of KerasHub, as one layer of a model."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("kseg")
class Pyramid(keras.layers.Layer):
    """Runs a network of its own and gives several of its maps.

    The layer is saved with the network's own config: backbones of KerasHub have layers that cannot be saved one by one.

    Args: `network`: keras.Model of one input; what it gives are its `pyramid_outputs` ({name: tensor}), or its outputs
        where it has none. Its weights are shared with whoever else has the network.
    Call: (B, H, W, 3). Returns: a list of maps, in the order of the network's.
    """

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        outputs = getattr(network, "pyramid_outputs", network.output)
        self.features = keras.Model(network.input, keras.tree.flatten(outputs))

    def build(self, input_shape):
        pass  # the network is built

    def call(self, x, training=None):
        return keras.tree.flatten(self.features(x, training=training))

    def compute_output_shape(self, input_shape):
        return [tuple(shape) for shape in self.features.compute_output_shape(input_shape)]

    def get_config(self):
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})
