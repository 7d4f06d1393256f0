"""A functional model as the graph that a reader wants to see: units and the edges between them."""

import collections
import dataclasses

import keras

from kseg.io.errors import InputError

KINDS = {
    "InputLayer": "image",
    "Conv2D": "conv",
    "Conv2DTranspose": "transposed",
    "MaxPooling2D": "pool",
    "MaxPooling2DWithArgmax": "pool",
    "MaxUnpooling2D": "unpool",
    "UpSampling2D": "up",
    "GlobalAveragePooling2D": "mean",
    "SpatialPyramidPooling": "pyramid",
    "Add": "add",
    "Concatenate": "concat",
}
CONVOLUTIONS = ("conv", "transposed")
JOINS = ("add", "concat")
_PADDINGS = ("ZeroPadding2D", "Cropping2D")


@dataclasses.dataclass(eq=False)
class Unit:
    """One thing to draw: a convolution with the normalisation and activation after it, a pooling, a join, ...

    Args: `name`, `config`: of its layer. `kind`: a value of KINDS, or "other". `shape`: (H, W, C) that it hands on.
        `followers`: classes of the layers merged into it. `applications`: how often its kernel is applied.
        `reduction`: image height / its own. `is_output`: whether the model returns it.
    """

    name: str
    kind: str
    shape: tuple
    config: dict
    followers: set = dataclasses.field(default_factory=set)
    applications: int = 1
    reduction: int = 1
    is_output: bool = False


@dataclasses.dataclass(eq=False)
class Edge:
    """What `target` takes from `source`; `kind`: flow, skip (past a lower resolution), residual or indices."""

    source: Unit
    target: Unit
    tensor: int
    kind: str = "flow"


@dataclasses.dataclass(eq=False)
class _Application:
    """One call of a layer: `inputs` are (application, which of its outputs)."""

    name: str
    layer_class: str
    config: dict
    inputs: list
    shape: tuple = None


def read_graph(model):
    """The units of a functional model in topological order, and its edges.

    Args: `model`: a functional keras.Model with one image input of fixed height and width.
    Returns: ([Unit, ...], [Edge, ...]).
    Raises: ValueError where the model is not functional, or its size is free.
    """
    applications = _applications(model)
    owners = _recurrent_units(applications)
    units = []
    for application in applications:
        if application not in owners:
            pointwise = _is_pointwise(application)
            owners[application] = owners[application.inputs[0][0]] if pointwise else _unit(application)
        if application.layer_class not in KINDS:
            owners[application].followers.add(application.layer_class)
        if owners[application] not in units:
            units.append(owners[application])
    edges = {}
    for application in applications:
        target = owners[application]
        for source, tensor in application.inputs:
            if owners[source] is not target:
                edges.setdefault((owners[source], target, tensor), Edge(owners[source], target, tensor))
    edges = list(edges.values())
    units = _sorted(units, {unit: [edge.source for edge in edges if edge.target is unit] for unit in units})
    _measure(units, edges)
    _classify(units, edges)
    for unit in set(units) - {edge.source for edge in edges}:
        unit.is_output = True
    return units, edges


def _applications(model):
    """Every call of every layer, in topological order, from what `get_config` says of a functional model."""
    config = model.get_config()
    if "input_layers" not in config:
        raise InputError(f"Only a functional model can be drawn, got {type(model).__name__} {model.name!r}.")
    found, shapes = {}, {}
    for layer in config["layers"]:
        for node, arguments in enumerate(layer["inbound_nodes"] or [{}]):
            tensors = list(_tensors(arguments))
            shapes |= {tuple(tensor["keras_history"]): tensor["shape"] for tensor in tensors}
            inputs = [tuple(tensor["keras_history"]) for tensor in tensors]
            found[layer["name"], node] = _Application(layer["name"], layer["class_name"], layer["config"], inputs)
    outputs = config["output_layers"]
    for history, tensor in zip([outputs] if isinstance(outputs[0], str) else outputs, model.outputs, strict=True):
        shapes[tuple(history)] = tensor.shape
    for (name, node), application in found.items():
        application.inputs = [(found[key[:2]], key[2]) for key in application.inputs]
        application.shape = _three(shapes[name, node, 0])
        if None in application.shape:
            raise InputError(
                f"The drawing needs a fixed size, but {name!r} gives {application.shape}. "
                "Build the model with input_shape=(height, width, 3)."
            )
    order = list(found.values())
    return _sorted(order, {a: [source for source, _ in a.inputs] for a in order})


def _tensors(arguments):
    """The configurations of all Keras tensors in the nested arguments of a call."""
    if isinstance(arguments, dict):
        if arguments.get("class_name") == "__keras_tensor__":
            yield arguments["config"]
        else:
            for value in arguments.values():
                yield from _tensors(value)
    elif isinstance(arguments, list | tuple):
        for value in arguments:
            yield from _tensors(value)


def _three(shape):
    """(H, W, C) of a map, (1, 1, C) of a vector."""
    return tuple(shape[1:]) if len(shape) == 4 else (1, 1, shape[-1])


def _sorted(items, sources):
    """Sources first; else in the order given."""
    done, result = set(), []

    def visit(item):
        stack = [item]
        while stack:
            waiting = [source for source in sources[stack[-1]] if source not in done]
            if waiting:
                stack.extend(reversed(waiting))
            else:
                top = stack.pop()
                if top not in done:
                    done.add(top)
                    result.append(top)

    for item in items:
        visit(item)
    return result


def _unit(application, applications=1):
    kind = KINDS.get(application.layer_class, "other")
    return Unit(application.name, kind, application.shape, application.config, applications=applications)


def _is_pointwise(application):
    """Whether it belongs to the unit before it: one input, the same shape, no convolution; or padding."""
    sources = {source for source, _ in application.inputs}
    if len(sources) != 1 or application.layer_class in KINDS:
        return False
    return application.shape == sources.pop().shape or application.layer_class in _PADDINGS


def _recurrent_units(applications):
    """{application: unit} of convolutions whose own output comes back to them: all between the first and last call."""
    _, after = _reach(applications, [(source, a) for a in applications for source, _ in a.inputs])
    calls = collections.defaultdict(list)
    for application in applications:
        if KINDS.get(application.layer_class) in CONVOLUTIONS:
            calls[application.name].append(application)
    owners = {}
    for name, same in calls.items():
        first, last = same[0], same[-1]
        if last not in after[first]:
            continue
        inside = [a for a in applications if a in same or (a in after[first] and last in after[a])]
        if all(a.name == name or KINDS.get(a.layer_class) not in CONVOLUTIONS for a in inside):
            unit = _unit(last, len(same))
            owners |= dict.fromkeys(inside, unit)
    return owners


def _reach(items, pairs):
    """({item: all before it}, {item: all after it}) of topologically sorted items and (source, target) pairs."""
    before, after = ({item: set() for item in items} for _ in range(2))
    sources, targets = collections.defaultdict(list), collections.defaultdict(list)
    for source, target in pairs:
        sources[target].append(source)
        targets[source].append(target)
    for item in items:
        before[item].update(sources[item], *(before[source] for source in sources[item]))
    for item in reversed(items):
        after[item].update(targets[item], *(after[target] for target in targets[item]))
    return before, after


def _measure(units, edges):
    """The reduction of each unit; a vector (a mean over the image) counts as the map that it was made of."""
    vectors = set()
    for unit in units:
        sources = [edge.source for edge in edges if edge.target is unit]
        if unit.kind == "mean" or (sources and unit.shape[:2] == (1, 1) and vectors.issuperset(sources)):
            vectors.add(unit)
            unit.reduction = sources[0].reduction
        else:
            unit.reduction = max(round(units[0].shape[0] / unit.shape[0]), 1)


def _classify(units, edges):
    before, after = _reach(units, [(edge.source, edge.target) for edge in edges])
    targets = collections.defaultdict(set)
    for edge in edges:
        targets[edge.source].add(edge.target)
    for edge in edges:
        if edge.tensor:
            edge.kind = "indices"
            continue
        join, chain = edge.target, {edge.target}  # follow it to where it meets the other path
        while join.kind not in JOINS and len(targets[join]) == 1:
            (join,) = targets[join]
            chain.add(join)
        others = (after[edge.source] & before[join]) - chain if join.kind in JOINS else set()
        if any(unit.reduction > join.reduction for unit in others):
            edge.kind = "skip"
        elif others and edge.target is join:
            edge.kind = "residual"


def parameters(model):
    """Number of trainable parameters."""
    return sum(int(keras.ops.size(weight)) for weight in model.trainable_variables)
