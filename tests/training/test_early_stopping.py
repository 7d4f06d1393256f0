"""Which epoch is the best, and when to stop waiting for a better one."""

import pytest

from kseg.runs.checkpoints import TrainState
from kseg.training.early_stopping import Selection

NAN = float("nan")


def _follow(selection, rows, state=None):
    """The epochs that were the best when they came, and the one after which the run would stop."""
    state = state or TrainState()
    best = []
    for row in rows:
        if selection.offer(state, row):
            best.append(row["epoch"])
        if selection.exhausted(state, row):
            return best, row["epoch"]
    return best, None


def _rows(**columns):
    """A row per epoch; None where a column was not scored."""
    count = len(next(iter(columns.values())))
    return [
        {"epoch": i + 1} | {name: values[i] for name, values in columns.items() if values[i] is not None}
        for i in range(count)
    ]


# Two scores that disagree about the best epoch, and a loss that disagrees with both.
ROWS = _rows(
    loss=[0.9, 0.5, 0.7, 0.4, 0.6],
    val_mean_iou=[0.1, 0.3, 0.3, 0.2, 0.4],
    val_sensitivity=[0.5, 0.4, 0.6, 0.6, 0.1],
)


@pytest.mark.parametrize(
    ("values", "best", "stop"),
    [
        ({}, [1, 2, 5], None),
        ({"best_by": "sensitivity"}, [1, 3], None),
        ({"best_by": "sensitivity", "keep": "lowest_loss"}, [1, 2, 4], None),
        ({"patience": 2}, [1, 2], 4),  # an equal score is no better one
        ({"patience": 3}, [1, 2, 5], None),
        ({"patience": 1, "best_by": "sensitivity"}, [1], 2),
        ({"patience": 1, "keep": "lowest_loss"}, [1, 2], 3),
    ],
)
def test_best_epochs_and_the_end(values, best, stop):
    assert _follow(Selection(**values), ROWS) == (best, stop)


def test_epochs_without_a_score_count_but_do_not_end_the_run():
    rows = _rows(loss=[1.0] * 6, val_mean_iou=[0.5, None, None, 0.4, None, 0.3])
    assert _follow(Selection(patience=2), rows) == ([1], 4)
    assert _follow(Selection(patience=4), rows) == ([1], 6)


def test_nan_is_worse_than_any_score_but_an_epoch_is_kept():
    rows = _rows(loss=[1.0] * 4, val_mean_iou=[NAN, 0.2, NAN, 0.3])
    assert _follow(Selection(), rows) == ([1, 2, 4], None)


@pytest.mark.parametrize("cut", range(1, 4))
def test_a_run_that_goes_on_decides_as_one_that_was_not_stopped(cut):
    selection = Selection(patience=2)
    state = TrainState()
    before, _ = _follow(selection, ROWS[:cut], state)
    after, stop = _follow(selection, ROWS[cut:], TrainState(best=state.best, best_epoch=state.best_epoch))
    assert (before + after, stop) == _follow(selection, ROWS)


@pytest.mark.parametrize(
    ("keep", "best_by", "epoch"),
    [("best", "mean_iou", 5), ("best", "sensitivity", 3), ("lowest_loss", "mean_iou", 4), ("last", "sensitivity", 5)],
)
def test_the_epoch_whose_weights_are_kept(keep, best_by, epoch):
    assert Selection(keep, best_by).kept(ROWS)["epoch"] == epoch
