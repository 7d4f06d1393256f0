"""How each class of element looks, and what the legend calls it."""

from docs.diagram import graph

# What an element of each class looks like; a legend entry for each that occurs.
FILLS = {
    "image": ("#64748b", "image"),
    "conv": ("#2f6db5", "convolution"),
    "pointwise": ("#a8cbee", "1×1 convolution"),
    "atrous": ("#c26a1b", "atrous convolution"),
    "recurrent": ("#6d4fa8", "recurrent convolution, one kernel ×n"),
    "transposed": ("#0f8b8d", "transposed convolution"),
    "pyramid": ("#c26a1b", "atrous spatial pyramid pooling"),
    "scores": ("#1f2937", "scores of the classes"),
    "mean": ("#94a3b8", "mean over the image"),
    "other": ("#94a3b8", "other layer"),
    "pool": ("#d1495b", "max pooling"),
    "up": ("#2a9d5c", "upsampling"),
    "unpool": ("#2a9d5c", "unpooling"),
}
JOINS = {"add": ("+", "sum"), "concat": ("c", "concatenation")}
STROKES = {
    "skip": ("#b7791f", "", "skip across resolutions"),
    "residual": ("#6b7280", "", "residual"),
    "indices": ("#c0264b", "5 3", "positions of the pooling maxima"),
}
FOLLOWERS = {"BatchNormalization": "batch norm", "ReLU": "ReLU"}  # named in the legend
DARK = "#0f172a"
TEXTS = {"pointwise": DARK}  # on its fill; else white
FLOW = "#475569"


def class_of(unit):
    """Class of a unit, a key of FILLS or JOINS."""
    if unit.kind not in graph.CONVOLUTIONS:
        return unit.kind
    if unit.applications > 1:
        return "recurrent"
    if unit.is_output:
        return "scores"
    if max(unit.config["dilation_rate"]) > 1:
        return "atrous"
    return unit.kind if unit.kind == "transposed" or max(unit.config["kernel_size"]) > 1 else "pointwise"


def label_of(style, label, units):
    """For the legend: with what follows every convolution of this style."""
    followers = [unit.followers for unit in units if class_of(unit) == style and unit.kind in graph.CONVOLUTIONS]
    common = set.intersection(*followers) if followers else set()
    return ", ".join([label, *(name for key, name in FOLLOWERS.items() if key in common)])
