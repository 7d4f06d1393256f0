"""What a study's report says beyond mean IoU: each class, each group, objects by size, learning curves."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from kseg.io.text import agreeing_digits
from kseg.metrics.objects import OUTSIDE, bin_names
from kseg.studies.run_counts import CURVE, RunCounts
from kseg.studies.statistics import intervals
from kseg.studies.statistics.intervals import LEVEL, Groups, mean_iou

SIZES = ("tiny", "small", "medium", "large")
_DIGITS = 3  # of a share of objects
_MOST_POINTS = 200  # of a learning curve
_ROUNDING = 1e-9  # an error below is that of sums in float64: nothing varies


@dataclasses.dataclass(frozen=True)
class Scored:
    """The runs of a study that are compared on one split.

    runs: {model: [RunCounts]}, all of the same images. member: (n,), the number of each image's group. groups: their
    names. paired: run i of all models has the same seed. fixed: the models that were not trained, of one run each.
    """

    runs: dict[str, list[RunCounts]]
    member: np.ndarray
    groups: tuple[str, ...]
    paired: bool
    fixed: tuple[str, ...] = ()

    def stacked(self, pick: Callable[[RunCounts], np.ndarray]) -> dict[str, np.ndarray]:
        """Return {model: array (S, ...)} of what `pick` takes from each run."""
        return {model: np.stack([pick(run) for run in runs]) for model, runs in self.runs.items()}


def _rows(scored, counts, score=mean_iou):
    """Return ({model: {model, value, low, high}}, the resampled scores, Groups) of counts (S, n, 2 or 3, K) by model.

    The interval is None where fewer than two groups have anything to score, for nothing is known of other groups then,
    and where nothing varies: 0 of 90 objects in every run is no proof that no run finds any.
    """
    first = next(iter(counts.values()))
    scores = intervals.resampled_scores(counts, scored.member, score=score)
    there = _groups_with(first[0, :, 0], scored.member)
    drawn = None
    if there > 1:
        drawn = Groups.of(first, scored.member)
    rows = {}
    for model, found in scores.items():
        row = {"model": model, "value": _known(found[0].mean()), "low": None, "high": None}
        if drawn is not None:
            estimate = intervals.score_interval(found, drawn)
            if estimate.error > _ROUNDING:
                row |= within_shares(estimate.low, estimate.high)
        rows[model] = row
    return rows, scores, drawn


def _groups_with(truth, member):
    """Return how many groups have any of a truth (n, K)."""
    return len(np.unique(member[truth.any(axis=1)]))


def within_shares(low, high):
    """Return the ends of an interval of a share, which lies within 0..1 whatever Student's t says."""
    return {"low": max(float(low), 0.0), "high": min(float(high), 1.0)}


def _known(value):
    """Return a number, or None for nan."""
    return None if np.isnan(value) else float(value)


def class_rows(scored):
    """Return a row for each class of the truth: its pixels, groups that have it, and each model's IoU with interval."""
    counts = scored.stacked(lambda run: run.counts)
    truth = next(iter(counts.values()))[0, :, 0]
    classes = next(iter(scored.runs.values()))[0].classes
    rows = []
    for c, name in enumerate(classes):
        if not truth[:, c].any():
            continue
        found, _, _ = _rows(scored, {model: of[..., c : c + 1] for model, of in counts.items()})
        row = {
            "class": name,
            "id": c,
            "pixels": int(truth[:, c].sum()),
            "groups": _groups_with(truth[:, c : c + 1], scored.member),
            "models": list(found.values()),
        }
        rows.append(row)
    return rows


def group_rows(scored):
    """Return a row for each group of images that has any truth: its images, and each model's mean IoU in it.

    The interval is Student's t over the seeds, for this group alone; None with one seed.
    """
    counts = scored.stacked(lambda run: run.counts)
    sums = {model: intervals.group_sums(of, scored.member) for model, of in counts.items()}  # (G, S, 3, C)
    sizes = np.bincount(scored.member)
    rows = []
    for g, name in enumerate(scored.groups):
        models = []
        for model, of in sums.items():
            scores = mean_iou(of[g])
            models.append({"model": model, "value": _known(scores.mean()), **_over_seeds(scores)})
        if models[0]["value"] is not None:
            rows.append({"group": name, "images": int(sizes[g]), "models": models})
    return rows


def _over_seeds(scores):
    if len(scores) < 2 or np.ptp(scores) == 0:
        return {"low": None, "high": None}
    half = intervals.student().ppf((1 + LEVEL) / 2, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores))
    return within_shares(scores.mean() - half, scores.mean() + half)


def found_share(counts):
    """Return the share of objects found, (...), from counts (..., 2, K) of all and found; nan where there are none."""
    objects, found = np.moveaxis(counts.sum(axis=-1), -1, 0)
    with np.errstate(invalid="ignore"):
        return found / objects


def objects_table(scored):
    """Return what each model finds of the objects: by size, by class, and what swallowed the others.

    Returns:
        dict in JSON types: overlap, sizes (rows of all objects and of each size, with the models' shares found, and for
        each pair of models the difference), classes (rows with shares, and the share of the missed objects that each
        class swallowed, over all seeds). None where a run was scored before objects were counted.
    """
    all_runs = list(itertools.chain(*scored.runs.values()))
    if any(run.objects is None for run in all_runs):
        return None
    one = all_runs[0]
    counts = scored.stacked(lambda run: run.objects)  # (S, n, 2, C, bins)
    bins = bin_names(tuple(one.size_edges.tolist()), closed_above=False)
    names = SIZES if len(bins) == len(SIZES) else bins
    all_sizes = {model: of.sum(axis=3) for model, of in counts.items()}
    sizes = [{"size": "all", "pixels": "", **_found_row(scored, all_sizes)}]
    for b, (name, pixels) in enumerate(zip(names, bins, strict=True)):
        row = _found_row(scored, {model: of[..., b : b + 1] for model, of in all_sizes.items()})
        if row["objects"]:
            sizes.append({"size": name, "pixels": pixels, **row})
    return {
        "overlap": float(one.overlap),
        "sizes": [row for row in sizes if row["objects"]],
        "classes": _class_objects(scored, counts, one.classes),
    }


def _found_row(scored, counts):
    """Return the objects of counts (S, n, 2, K) by model, each model's share found, and each pair's difference."""
    first = next(iter(counts.values()))
    row = {"objects": int(first[0, :, 0].sum()), "models": [], "pairs": []}
    if not row["objects"]:
        return row
    found, scores, drawn = _rows(scored, counts, found_share)
    row["models"] = list(found.values())
    for pair in itertools.combinations(found, 2):
        a, b = sorted(pair, key=lambda model: -found[model]["value"])
        difference = {"first": a, "second": b, "first_value": found[a]["value"], "second_value": found[b]["value"]}
        difference |= {
            "difference": found[a]["value"] - found[b]["value"],
            "low": None,
            "high": None,
            "digits": _DIGITS,
        }
        if drawn is not None:
            estimate = _difference(scored, scores, (a, b), drawn)
            if estimate.error > _ROUNDING:
                difference |= _interval_of(difference, estimate)
        row["pairs"].append(difference)
    return row


def _difference(scored, scores, pair, drawn):
    """Return the Estimate of a pair's difference."""
    partners, paired = intervals.partners(scores, pair, scored.fixed, scored.paired)
    return intervals.difference_interval(*partners, drawn, paired=paired)


def _interval_of(difference, estimate):
    """Return the ends of a difference's interval, and how many decimals show all of it without contradiction."""
    values = (difference["second_value"], difference["first_value"])
    digits = agreeing_digits(*values, estimate.low, estimate.high, _DIGITS)
    return {"low": estimate.low, "high": estimate.high, "digits": digits}


def _class_objects(scored, counts, classes):
    rows = []
    swallowed = {model: sum(run.swallowed for run in runs) for model, runs in scored.runs.items()}
    for c, name in enumerate(classes):
        row = _found_row(scored, {model: of[:, :, :, c] for model, of in counts.items()})
        if not row["objects"]:
            continue
        for model in row["models"]:
            model["swallowed_by"] = _shares(swallowed[model["model"]][c], (*classes, OUTSIDE))
        rows.append({"class": name, "id": c, "objects": row["objects"], "models": row["models"]})
    return rows


def _shares(counts, names):
    """Return the names of counts that are not 0 and their shares of the sum, largest first."""
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], i))
    return [{"into": names[i], "share": float(counts[i] / counts.sum())} for i in order]


def curves(runs):
    """Return a learning curve for each run of {model: {seed: RunCounts}} that has one, in JSON types.

    Returns:
        list of dicts: model, seed, and the columns of CURVE as lists, None where an epoch has no number. Of long curves
        evenly spread epochs are taken, the last among them.
    """
    rows = []
    for model, of in runs.items():
        for seed, run in of.items():
            if run.curve is None or not len(run.curve):
                continue
            chosen = np.unique(np.linspace(0, len(run.curve) - 1, _MOST_POINTS).round().astype(int))
            columns = run.curve[chosen].T.tolist()
            values = {name: [_known(value) for value in column] for name, column in zip(CURVE, columns, strict=True)}
            rows.append({"model": model, "seed": seed, **values})
    return rows
