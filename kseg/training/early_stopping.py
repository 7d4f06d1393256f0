"""Which epoch of a run is its best, and when waiting for a better one has been long enough."""

import math


class Selection:
    """The best epoch so far, by the validation score `best_by`, or by the training loss under keep=lowest_loss.

    Args:
        settings: `kseg.settings.Settings`. best, epoch: as they were, where a run goes on. The wait for a better epoch
            counts from `epoch`: the best one's, or the one at which a run that had waited long enough was made longer.
    """

    def __init__(self, settings, best=None, epoch=0):
        self.by_loss, self._patience = settings.keep == "lowest_loss", settings.patience
        self._column = "loss" if self.by_loss else f"val_{settings.best_by}"
        self.best, self.epoch = best, epoch

    def offer(self, row):
        """Take an epoch's row of the history; return whether it is the best so far. One that was not scored is not.

        A score that is nan (no valid pixel) is worse than any number, but the first epoch scored is always kept.
        """
        if self._column not in row:
            return False
        value = -row["loss"] if self.by_loss else row[self._column]
        value = -math.inf if math.isnan(value) else value
        if self.best is not None and value <= self.best:
            return False
        self.best, self.epoch = value, row["epoch"]
        return True

    def exhausted(self, row):
        """Return whether an epoch that was scored is `patience` or more epochs after `epoch`; never at patience 0."""
        return bool(self._patience) and self._column in row and row["epoch"] - self.epoch >= self._patience
