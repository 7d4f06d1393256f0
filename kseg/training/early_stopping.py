"""Which epoch of a run is its best, and when waiting for a better one has been long enough."""

import math

from kseg.runs.checkpoints import TrainState


class Selection:
    """What makes an epoch the best so far; a `TrainState` holds which one that is.

    Args:
        keep: "lowest_loss" goes by the training loss, any other by the validation score `best_by`.
        best_by: name of a validation score. patience: epochs to wait for a better one; 0: without end.
    """

    def __init__(self, keep="best", best_by="mean_iou", patience=0):
        self._keep = keep
        self._sign = -1 if keep == "lowest_loss" else 1
        self._column = "loss" if keep == "lowest_loss" else f"val_{best_by}"
        self._patience = patience

    def offer(self, state, row):
        """Take an epoch's row of the history; return whether it is the best so far. An epoch without a score is not.

        A score that is nan (no valid pixel) is worse than any number, but the first scored epoch always counts as best.
        """
        if self._column not in row:
            return False
        value = self._sign * row[self._column]
        value = -math.inf if math.isnan(value) else value
        if state.best is not None and value <= state.best:
            return False
        state.best = value
        state.best_epoch = row["epoch"]
        return True

    @property
    def column(self):
        """The column of the history that decides."""
        return self._column

    def kept(self, history):
        """Return the row of the history whose weights the run keeps: the best one, or the last with keep "last"."""
        if self._keep == "last":
            return history[-1]
        state = TrainState()
        return [row for row in history if self.offer(state, row)][-1]

    def exhausted(self, state, row):
        """Return whether an epoch that was scored comes `patience` or more epochs after the best one."""
        return bool(self._patience) and self._column in row and row["epoch"] - state.best_epoch >= self._patience
