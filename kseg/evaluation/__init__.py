"""A model and data in, scores out. A protocol is one entry of PROTOCOLS, from which --protocol and its help follow."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How scores are taken.

    function: f(model, data, *, batch_size, progress, ...) -> scores; data is a split of
    `kseg.data.pipeline.load.open_split`, or pairs (image, label) where `takes_pairs`. help: for --protocol.
    options: the keywords that it alone takes.
    """

    function: Callable
    help: str
    takes_pairs: bool = True
    options: tuple = ()


# Imported when they are called: they need Keras, while --help does not.
def _standard(model, data, **options):
    from kseg.evaluation.standard_protocol import evaluate_standard

    return evaluate_standard(model, data, **options)


def _cityscapes(model, data, **options):
    from kseg.evaluation.cityscapes_protocol import evaluate_cityscapes

    return evaluate_cityscapes(model, data, **options)


def _fischer2021(model, data, **options):
    from kseg.evaluation.fischer2021_protocol import evaluate_fischer2021

    return evaluate_fischer2021(model, data, **options)


PROTOCOLS = {
    "standard": Protocol(_standard, "the classes' mean scores", options=("group_by",)),
    "cityscapes": Protocol(_cityscapes, "the benchmark's own, equal to cityscapesScripts'", takes_pairs=False),
    "fischer2021": Protocol(
        _fischer2021,
        "as the code of the paper's authors, at network size and per image",
        options=("label_resize", "train_mode_statistics"),
    ),
}
