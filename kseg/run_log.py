"""What a run shows of itself: lines on standard output, and numbers and pictures for TensorBoard."""

from kseg.metrics import SCORE_NAMES
from kseg.runs import TensorBoardLog

VALIDATION_SCORES = ("mean_iou", "pixel_accuracy", *SCORE_NAMES, "frequency_weighted_iou")  # macro means


class RunLog(TensorBoardLog):
    """TensorBoardLog that knows what training and validation have to tell."""

    def training(self, step, logs, learning_rate):
        """Add what the epoch has come to so far (`Loop.logs`) and the rate of the next step."""
        values = {f"train/{name}": value for name, value in logs.items()}
        self.scalars(step, {**values, "learning_rate": learning_rate})

    def validation(self, step, scores, pictures):
        """Print and add what a validation found.

        Args:
            scores: kseg.metrics.Scores. pictures: paths of PNG files by title.
        Returns:
            dict of `VALIDATION_SCORES`, their names beginning with "val_".
        """
        found = {name: getattr(scores, name) for name in VALIDATION_SCORES}
        self.scalars(step, {f"val/{name}": value for name, value in found.items()})
        for title, path in pictures.items():
            self.picture(step, title, path)
        if scores.out_of_range:
            print(f"WARNING: {scores.out_of_range} pixels have a label that is neither a class nor ignored.")
        print(f"validation: mean IoU {scores.mean_iou:.4f}, pixel accuracy {scores.pixel_accuracy:.4f}", flush=True)
        return {f"val_{name}": value for name, value in found.items()}

    def pace(self, step, title, images_per_second, memory, left):
        """Print and add how an epoch went.

        Args:
            title: of the line. memory: of `Loop.peak_memory`: (bytes, of what). left: the run's remaining time as text.
        """
        size, kind = memory
        print(f"{title}: {images_per_second:.3g} images/s, {left} left, {kind} {size / 1e9:.2f} GB at most", flush=True)
        self.scalars(step, {"images_per_second": images_per_second, f"{kind} at most (GB)": size / 1e9})


class NoLog:
    """What a worker has that writes no log: the same calls, to no effect."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def training(self, step, logs, learning_rate):
        """Nothing."""

    def pace(self, step, title, images_per_second, memory, left):
        """Nothing."""
