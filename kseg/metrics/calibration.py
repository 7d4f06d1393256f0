"""Whether a model is as often right as it is confident: calibration error and reliability diagram, over pixels."""

import dataclasses

import numpy as np

from kseg.io.errors import InputError, check_whole

BINS = 15  # as Guo et al. 2017 have it


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What the bins hold: `edges` (B + 1,), and of each bin's pixels their number, mean confidence and accuracy (B,).

    A bin holds the confidences above its lower edge, up to its upper edge; the first one 0 too. Bins without pixels
    have nan.
    """

    edges: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean over pixels of |accuracy - confidence| of their bin; nan without any."""
        filled = self.pixels > 0
        if not filled.any():
            return float("nan")
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.sum(gaps * self.pixels[filled]) / self.pixels.sum())

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the largest |accuracy - confidence| of a bin that has pixels."""
        gaps = np.abs(self.accuracy - self.confidence)[self.pixels > 0]
        return float(gaps.max()) if gaps.size else float("nan")

    def to_json(self) -> dict:
        """Return the errors and the bins as JSON types; nan is None."""

        def plain(values):
            return [None if np.isnan(value) else float(value) for value in values]

        return {
            "expected_calibration_error": plain([self.expected_error])[0],
            "maximum_calibration_error": plain([self.largest_error])[0],
            "edges": self.edges.tolist(),
            "pixels": self.pixels.tolist(),
            "confidence": plain(self.confidence),
            "accuracy": plain(self.accuracy),
        }


class CalibrationCounts:
    """Counts over any number of images in constant memory: `add` each, then take `calibration`.

    Confidence is the softmax of the predicted class (Guo et al. 2017, arXiv 1706.04599, section 2), each valid pixel
    counts once, bins are equally wide.

    Args:
        classes: how many there are; labels outside 0..classes - 1 (void) are ignored. bins: how many.
    """

    def __init__(self, classes, bins=BINS):
        check_whole("bins", bins, 1)
        self.classes = classes
        self._pixels = np.zeros(bins, np.int64)
        self._right = np.zeros(bins, np.int64)
        self._confidence = np.zeros(bins)

    def add(self, truth, prediction, confidence):
        """Count an image: class ids twice and confidences of 0 to 1, arrays of one shape.

        Raises:
            InputError: shapes that differ; a confidence outside 0..1 or nan.
        """
        truth, prediction, confidence = (np.asarray(values) for values in (truth, prediction, confidence))
        if not truth.shape == prediction.shape == confidence.shape:
            raise InputError(
                f"Truth, prediction and confidence must have one shape, got {truth.shape}, {prediction.shape} and "
                f"{confidence.shape}."
            )
        valid = truth < self.classes
        confidence = confidence[valid].astype(np.float64)
        if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
            raise InputError(f"A confidence must be of 0 to 1, got {confidence.min()} to {confidence.max()}.")
        bins = len(self._pixels)
        index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        right = (prediction == truth)[valid]
        self._pixels += np.bincount(index, minlength=bins)
        self._right += np.bincount(index, weights=right, minlength=bins).astype(np.int64)
        self._confidence += np.bincount(index, weights=confidence, minlength=bins)

    def calibration(self) -> Calibration:
        """Return what was counted."""
        bins = len(self._pixels)
        with np.errstate(invalid="ignore"):
            return Calibration(
                np.linspace(0, 1, bins + 1),
                self._pixels.copy(),
                self._confidence / self._pixels,
                self._right / self._pixels,
            )
