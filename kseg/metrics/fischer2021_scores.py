"""The scores of "Neural Networks final project 2021" (Fischer, Malhotra), as its authors' code computes them.

They are computed at the network's size, image by image, over the ids in the image's truth or prediction; on request
with the network in training mode, as theirs was. For comparisons use the standard protocol instead.
"""

import dataclasses

import numpy as np

from kseg.data.labels import IGNORE_LABEL
from kseg.io.files import StrPath, write_json
from kseg.score_table import SCORE_NAMES, ratio


@dataclasses.dataclass(frozen=True)
class Fischer2021Scores:
    """What the fischer2021 protocol found; `str()` is the table, `to_json` the file. What cannot be scored is nan.

    accuracy, sensitivity and specificity come from TP, TN, FP, FN summed over classes and images; `f1` and `jaccard`
    are means over images, of micro F1 and of the Jaccard index weighted by frequency. `classes_per_image`: the mean
    number of ids in an image's truth or prediction. `expected_images` is more than `images` where an incomplete last
    batch was skipped. `out_of_range` pixels, with a label neither a class nor ignored, are in no score.
    """

    accuracy: float
    sensitivity: float
    specificity: float
    f1: float
    jaccard: float
    classes_per_image: float
    images: int
    expected_images: int
    out_of_range: int
    height: int
    width: int
    label_resize: str
    train_mode_statistics: bool
    protocol: str = "fischer2021"

    def __str__(self):
        mode = "training mode" if self.train_mode_statistics else "inference mode"
        skipped = self.expected_images - self.images
        lines = [
            "".join(f"{name:>13}" for name in SCORE_NAMES),
            "".join(f"{getattr(self, name):>13.4f}" for name in SCORE_NAMES),
            f"{self.images}/{self.expected_images} images at {self.width}x{self.height}, protocol {self.protocol}, "
            f"{mode}, labels {self.label_resize}, {self.classes_per_image:.2f} classes per image",
        ]
        if skipped:
            lines.append(f"An incomplete last batch of {skipped} was skipped.")
        if self.out_of_range:
            lines.append(f"WARNING: {self.out_of_range} pixels have a label that is neither a class nor void.")
        return "\n".join(lines)

    def to_json(self, path: StrPath) -> None:
        """Writes one object with the attributes' names as keys, nan as null; completely or not at all."""
        write_json(path, dataclasses.asdict(self))


def image_scores(truth, prediction):
    """Score the valid pixels of one image, over the ids that are in its truth or its prediction.

    Args:
        truth, prediction: integers of one shape, not negative.
    Returns:
        dict of the sums over those ids "tp", "tn", "fp", "fn", their number "classes", and the image's micro "f1" and
        frequency-weighted "jaccard", the sum over true classes of (n_c / N) * IoU_c; both nan without a pixel.
    """
    truth = np.ravel(truth).astype(np.int64)
    prediction = np.ravel(prediction).astype(np.int64)
    size = 1 + max(truth.max(initial=0), prediction.max(initial=0))
    pairs = np.bincount(truth * size + prediction, minlength=size * size).reshape(size, size)
    rows = pairs.sum(axis=1)
    columns = pairs.sum(axis=0)
    right = pairs.diagonal()
    present = rows + columns > 0
    rows = rows[present]
    columns = columns[present]
    right = right[present]
    union = rows + columns - right
    tp = right.sum()
    pixels = truth.size
    return {
        "tp": int(tp),
        "tn": int((pixels - union).sum()),
        "fp": int(pixels - tp),
        "fn": int(pixels - tp),
        "classes": int(present.sum()),
        "f1": float(ratio(tp, pixels)),
        "jaccard": float((rows / pixels * right / union).sum()) if pixels else np.nan,
    }


class Fischer2021Sums:
    """Adds up `image_scores`, in memory that does not grow with the images.

    Args:
        num_classes: labels from this number on are not classes: they are counted in `out_of_range` and not scored; 255
            is not scored either. Predictions may be larger: outputs beyond the classes are ids like any other.
    """

    def __init__(self, num_classes):
        self.num_classes = num_classes
        self.images = 0
        self.out_of_range = 0
        self._sums = dict.fromkeys(("tp", "tn", "fp", "fn", "classes", "f1", "jaccard"), 0)
        self._scored = 0

    def update(self, label, prediction):
        """Add an image: label and prediction (H, W), ids."""
        valid = label < self.num_classes
        self.out_of_range += int(np.count_nonzero(~valid & (label != IGNORE_LABEL)))
        self.images += 1
        if not valid.any():
            return  # nothing to score: in no mean
        self._scored += 1
        for name, value in image_scores(label[valid], prediction[valid]).items():
            self._sums[name] += value

    def result(self):
        """Return the five scores and `classes_per_image` by name; 0/0 is nan."""
        s = self._sums
        images = self._scored
        return {
            "accuracy": ratio(s["tp"] + s["tn"], s["tp"] + s["tn"] + s["fp"] + s["fn"]),
            "sensitivity": ratio(s["tp"], s["tp"] + s["fn"]),
            "specificity": ratio(s["tn"], s["tn"] + s["fp"]),
            "f1": ratio(s["f1"], images),
            "jaccard": ratio(s["jaccard"], images),
            "classes_per_image": ratio(s["classes"], images),
        }
