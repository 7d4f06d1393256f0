"""A model and data in, scores out. A protocol is one entry of PROTOCOLS, from which --protocol and its help follow."""

import pkgutil
from typing import Any, NamedTuple


class Protocol(NamedTuple):
    """How scores are taken.

    function: "module:function", imported when it is called: it needs Keras, while --help does not. help: for
    --protocol. takes_pairs: whether data may be pairs (image, label), not only a split. options: the keywords that it
    alone takes.
    """

    function: str
    help: str
    takes_pairs: bool = True
    options: tuple[str, ...] = ()

    def score(self, model: Any, data: Any, **options: Any) -> Any:
        """Return the scores; data: a split of `kseg.data.pipeline.load.open_split`, or pairs (image, label)."""
        return pkgutil.resolve_name(self.function)(model, data, **options)


PROTOCOLS = {
    "standard": Protocol(
        "kseg.evaluation.standard_protocol:evaluate_standard",
        "one confusion matrix over all images, at the labels' size",
        options=("group_by",),
    ),
    "cityscapes": Protocol(
        "kseg.evaluation.cityscapes_protocol:evaluate_cityscapes",
        "the benchmark's own, equal to cityscapesScripts'",
        takes_pairs=False,
    ),
    "fischer2021": Protocol(
        "kseg.evaluation.fischer2021_protocol:evaluate_fischer2021",
        "as in the code of the paper's authors, at network size and per image",
        options=("label_resize", "train_mode_statistics"),
    ),
}
