"""Memory for time: a training pass that keeps few maps and computes the others a second time for the gradient."""

import math

import keras
import tensorflow as tf
from keras import tree

from kseg.io.errors import InputError
from kseg.training.trainers.keras_internals import every_layer, graph_of, takes_training

_LIMITS = 24  # sizes of a segment that are tried, each 3/4 of the one before


class Rematerialized:
    """Runs a model for training in segments (Chen et al. 2016, arXiv 1604.06174, section 3).

    Only what passes between segments is kept for the backward pass, where each segment is computed again from it. That
    second computation is pure: it repeats the dropout of the first and leaves moving statistics alone. The model is
    not touched, so its files are those of any run. TensorFlow only.

    Args: `model`: a functional or sequential keras.Model of one input. `size`: (height, width) of its images, by which
        segments are weighed.
    Call: images (B, H, W, 3). Returns: what `model(images, training=True)` gives.
    Raises: ValueError for a model that is no graph of layers, or has activity regularizers (of both computations).
    """

    def __init__(self, model, size):
        graph = graph_of(model)
        if graph is None:
            raise InputError(f"remat needs a functional or sequential model, got {type(model).__name__}.")
        if any(getattr(layer, "activity_regularizer", None) for layer in every_layer(model)):
            raise InputError(f"remat cannot take activity regularizers, which {model.name} has.")
        self._input, self._outputs, nodes = graph
        needed = [id(tensor) for tensor in tree.flatten(self._outputs)]
        self._segments = []
        for part in _split(nodes, needed, _bytes(nodes, self._input, size)):
            later = {*needed, *(id(t) for node in nodes[nodes.index(part[-1]) + 1 :] for t in node.input_tensors)}
            self._segments.append(_Segment(part, later))

    def __call__(self, images):
        values = {id(self._input): tf.cast(images, self._input.dtype)}
        for segment in self._segments[:-1]:
            values = segment.recomputed(values)
        values = _run_nodes(self._segments[-1].nodes, values)  # its gradient comes first: kept it costs no more
        return tree.map_structure(lambda tensor: values[id(tensor)], self._outputs)


class _Segment:
    """Layers that run one after the other: what comes in, what goes out, the variables on the way."""

    def __init__(self, nodes, later):
        made = {id(tensor) for node in nodes for tensor in node.outputs}
        self.nodes = nodes
        self._inputs = list({id(t): None for node in nodes for t in node.input_tensors if id(t) not in made})
        self._outputs = [key for key in made if key in later]
        self._later = later
        layers = {id(n.operation): n.operation for n in nodes if isinstance(n.operation, keras.Layer)}.values()
        self._variables = list({id(v): v for layer in layers for v in layer.variables}.values())

    def recomputed(self, values):
        """Values by tensor that later segments need, from the values so far."""
        changed = []  # variables that the segment assigns, known once it has been traced

        @tf.custom_gradient
        def run(*tensors):
            outputs, updates = self._run(tensors)
            changed[:] = [variable for variable, _ in updates]

            def backward(*gradients):
                own = [g for g, output in zip(gradients, outputs, strict=False) if output.dtype.is_floating]
                return self._backward(tensors, own)

            return (*outputs, *(value for _, value in updates)), backward

        values_of_variables = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        results = run(*(values[key] for key in self._inputs), *values_of_variables)
        count = len(self._outputs)
        for variable, value in zip(changed, results[count:], strict=True):
            variable.assign(tf.stop_gradient(value))
        kept = {key: value for key, value in values.items() if key in self._later}
        return kept | dict(zip(self._outputs, results[:count], strict=True))

    def _run(self, tensors):
        """Outputs, and (variable, new value) of those that the segment changes; no variable is read or assigned."""
        values = dict(zip(self._inputs, tensors, strict=False))
        states = list(zip(self._variables, tensors[len(self._inputs) :], strict=True))
        with keras.StatelessScope(state_mapping=states) as scope:
            values = _run_nodes(self.nodes, values)
            news = [(variable, scope.get_current_value(variable)) for variable, _ in states]
        updates = [new for new, (_, old) in zip(news, states, strict=True) if new[1] is not old]
        return [values[key] for key in self._outputs], updates

    def _backward(self, tensors, gradients):
        # Not before the gradient has come, and not one computation with the first: that would keep it all.
        with tf.control_dependencies(gradients):
            tensors = [tf.identity(tensor) for tensor in tensors]
        trained = [v.trainable for v in self._variables]
        wanted = [t.dtype.is_floating for t in tensors[: len(self._inputs)]] + trained
        sources = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = [output for output in self._run(tensors)[0] if output.dtype.is_floating]
        found = iter(tape.gradient(outputs, sources, gradients))
        return [next(found) if want else None for want in wanted]


def _run_nodes(nodes, values, symbolic=False):
    """Apply layers in training mode to values by tensor; returns all values."""
    values = dict(values)
    for node in nodes:
        args, kwargs = node.arguments.fill_in(values)
        if symbolic:
            given = node.operation.compute_output_spec(*args, **kwargs)
        else:
            training = {"training": True} if takes_training(node.operation) else {}
            given = node.operation(*args, **(kwargs | training))
        values |= zip(map(id, node.outputs), tree.flatten(given), strict=True)
    return values


def _bytes(nodes, image, size):
    """Bytes of every map for one image of that size, by tensor."""
    specs = _run_nodes(nodes, {id(image): keras.KerasTensor((1, *size, 3), image.dtype)}, symbolic=True)
    return {key: math.prod(spec.shape) * tf.as_dtype(spec.dtype).size for key, spec in specs.items()}


def _split(nodes, needed, sizes):
    """Cut a list of nodes where the least is kept: all that passes a cut, and the maps of the largest segment."""
    last_use = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.input_tensors}
    last_use |= dict.fromkeys(needed, len(nodes))
    made = [[id(tensor) for tensor in node.outputs] for node in nodes]
    total = sum(sizes.values())
    best = None
    for k in range(_LIMITS):
        kept, cuts = _cheapest_cuts(made, last_use, sizes, total * 0.75**k)
        largest = max(sum(sizes[t] for outputs in made[a:b] for t in outputs) for a, b in cuts)
        if best is None or kept + largest < best[0]:
            best = kept + largest, cuts
    return [nodes[a:b] for a, b in best[1]]


def _cheapest_cuts(made, last_use, sizes, limit):
    """(bytes that pass the cuts, [(start, end), ...]) with at most `limit` bytes in a segment, or one node."""
    costs = [0.0] + [math.inf] * len(made)
    before = [0] * (len(made) + 1)
    for start in range(len(made)):
        inside = 0
        for end in range(start + 1, len(made) + 1):
            inside += sum(sizes[t] for t in made[end - 1])
            if inside > limit and end > start + 1:
                break
            passing = [t for outputs in made[start:end] for t in outputs if last_use.get(t, -1) >= end]
            cost = costs[start] + sum(sizes[t] for t in passing)
            if cost < costs[end]:
                costs[end] = cost
                before[end] = start
    cuts = []
    end = len(made)
    while end:
        cuts.append((before[end], end))
        end = before[end]
    return costs[-1], cuts[::-1]
