"""Which of many images stand for all."""

import numpy as np


def evenly_spread(length, count):
    """Return up to `count` different whole numbers from 0 to length - 1, evenly spread.

    Args: `length`: at least 1. `count`: at least 1. Returns: int (n,), rising.
    """
    return np.unique(np.linspace(0, length - 1, count).astype(int))
