"""Models that were each trained without one group of images, and scored on it: one group after another.

Run i of every model leaves out the same group, so a run's score is of its own images. There is nothing to resample: the
groups are the draws, and what is compared is the difference on each. Training sets of two groups share all other
groups, so the differences are not quite independent; no unbiased estimate of their variance exists (Bengio and
Grandvalet 2004, JMLR 5, 1089). What follows takes them as independent. It speaks of other drives to be scored, with
models trained on nearly these drives; it does not know how the difference would change with other training drives.
"""

import itertools

import numpy as np

from kseg.io.errors import InputError
from kseg.studies.statistics.intervals import LEVEL, Estimate
from kseg.studies.statistics.significance import holm, seed_test, superiority
from kseg.studies.statistics.verdict import EQUIVALENCE, Comparison


def estimate(values, level=LEVEL):
    """Return the Estimate of a mean over groups: Student's t, each group being a draw."""
    values = np.asarray(values, float)
    if len(values) < 2:
        raise InputError(f"An interval needs two groups or more that were left out, got {len(values)}.")
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1.0, level)


def compare_left_out(scores, *, equivalence=EQUIVALENCE, level=LEVEL, unit="groups"):
    """Compare all models by their scores on the groups that were left out.

    Args:
        scores: by model, (G,): mean IoU on each of G groups of a run trained without it (the mean over its seeds, if
            several leave out the same). The same groups for all models.
        equivalence, level, unit: as in `kseg.studies.statistics.compare`.
    Returns:
        list of Comparison, one for each pair. Its seed_test flips the signs of the differences on the groups, its
        superiority is how often the first model wins on a group; shares and budget are None.
    Raises:
        InputError: fewer than two models or groups.
    """
    if len(scores) < 2:
        raise InputError(f"A comparison needs two models or more, got {len(scores)}.")
    scores = {name: np.asarray(values, float) for name, values in scores.items()}
    means = {name: values.mean() for name, values in scores.items()}
    pairs = [sorted(pair, key=means.get, reverse=True) for pair in itertools.combinations(scores, 2)]
    differences = [estimate(scores[first] - scores[second], level) for first, second in pairs]
    adjusted = holm([difference.p for difference in differences])
    equal = holm([difference.p_equivalent(equivalence) for difference in differences])
    return [
        Comparison(
            first=first,
            second=second,
            first_score=estimate(scores[first], level),
            second_score=estimate(scores[second], level),
            difference=difference,
            p=float(p),
            p_equivalent=float(p_equivalent),
            equivalence=equivalence,
            seed_test=seed_test(scores[first], scores[second], paired=True),
            superiority=superiority(scores[first], scores[second], paired=True, level=level),
            shares=None,
            budget=None,
            groups=len(scores[first]),
            unit=unit,
            tested="groups",
        )
        for (first, second), difference, p, p_equivalent in zip(pairs, differences, adjusted, equal, strict=True)
    ]
