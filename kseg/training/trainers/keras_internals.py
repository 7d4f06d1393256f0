"""Every private name of Keras that training needs, and why: nothing public of Keras 3 gives the same.

tests/training/test_keras_internals.py says which of them a new Keras has changed. `kseg.inference.compatibility` and
`kseg.export.serving`, which may not import from here, ask for `_flatten_layers` too.
"""

import keras


def every_layer(model):
    """The layers of a model and those inside of them: `model.layers` has no batch norm of ASPP, which is one layer."""
    return list(model._flatten_layers())


def seed_generators(layer):
    """The seed generators that a layer owns itself, so that replicas can draw apart. They are no sublayers."""
    return layer._seed_generators


def graph_of(model):
    """Return (input tensor, structure of the output tensors, nodes in the order of computation), or None.

    For `remat`, which runs a model in parts. A node has `operation`, `arguments` (`fill_in` puts values by id of the
    symbolic tensors into the call's), `input_tensors`, `outputs`. None for a model that is no graph of layers.
    """
    graph = getattr(model, "_functional", model)  # that of a Sequential
    if not hasattr(graph, "_nodes_by_depth"):
        return None
    depths = sorted(graph._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in graph._nodes_by_depth[depth] if not node.is_input]
    return graph.inputs[0], graph._outputs_struct, nodes


def takes_training(operation):
    """Whether a layer's call takes `training`; other operations take no such argument."""
    return "training" in getattr(operation, "_call_context_args", ())


class OwnRates:
    """For a class of optimizer that treats variables by kinds and clips what all replicas give together.

    Keras' TensorFlow optimizers clip each replica's part of the gradient before they are added up, so that another
    number of replicas is another training.
    """

    def index_of(self, variable):
        """The place of a variable among those that the optimizer was built for."""
        return self._get_variable_index(variable)

    def finish_updates(self):
        """Make what updates `update_step` has left, once for a step; here none."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self.finish_updates()

    def moments_of(self, variable):
        """Adam's two moments of a variable."""
        index = self.index_of(variable)
        return self._momentums[index], self._velocities[index]

    def _clip_gradients(self, grads):
        return grads if keras.backend.backend() == "tensorflow" else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):  # TensorFlow's, of all replicas
        summed = super()._all_reduce_sum_gradients(grads_and_vars)
        clipped = super()._clip_gradients([gradient for gradient, _ in summed])
        return [(gradient, variable) for gradient, (_, variable) in zip(clipped, summed, strict=True)]
