"""Simulated studies whose truth is known: how often intervals hold it, and how often a difference is called.

    python tests/programs/study_coverage.py [STUDIES]

It prints the tables of docs/explanation/statistics.md: with 2,000 studies it takes 40 minutes. The last one has the
percentile and BCa intervals of resamples that kseg does not draw: crossed seeds and groups, and seeds, groups and their
images.
"""

import dataclasses
import functools
import pathlib
import sys

import numpy as np
from scipy import stats

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from kseg.studies.statistics.intervals import (
    Groups,
    difference_interval,
    group_sums,
    mean_iou,
    resampled_scores,
    score_interval,
)
from kseg.studies.statistics.power import budget, power
from kseg.studies.statistics.variance import components, linearised

RATE = 0.2  # false positives for each pixel of the truth, on average
RESAMPLES = 400


@dataclasses.dataclass(frozen=True)
class Population:
    """Standard deviations of the share of a class' pixels that is right, for each class on its own.

    of_*: of model against model, where both share the images. The IoU of a class is (right) / (truth + false
    positives); all effects add up and are independent of the pixel counts, so the true IoU of a class is its base over
    1 + RATE.
    """

    seed: float = 0.015
    group: float = 0.04
    image: float = 0.06
    of_group: float = 0.02
    of_image: float = 0.02
    seed_group: float = 0.01
    seed_image: float = 0.03
    images: int = 4  # of a group
    uneven: bool = False  # 1 to 40 images in a group, 5 on average
    rare: bool = False  # two of the four classes occur in few groups

    base = np.array([0.66, 0.58, 0.52, 0.45])

    def true_score(self, change=0.0):
        return float(self.base.mean() / (1 + RATE)) + change


PLAIN = Population()
UNEVEN = dataclasses.replace(PLAIN, uneven=True, rare=True)


def same_model(population):
    """The population of A/A studies: a model differs from itself on a group or image by its seeds alone."""
    return dataclasses.replace(population, of_group=0.0, of_image=0.0)


def draw(random, population, seeds, groups, change=0.0, paired=True):
    """Two models' counts (S, n, 3, C), A better by `change`, and the group of each image.

    Runs of paired seeds share half of the variance of their seed's effect.
    """
    if population.uneven:
        sizes = np.clip(np.round(random.lognormal(np.log(population.images), 0.8, groups)), 1, 40).astype(int)
    else:
        sizes = np.full(groups, population.images)
    member = np.repeat(np.arange(groups), sizes)
    images = len(member)
    classes = len(population.base)

    def effect(deviation, *shape):
        return deviation * random.standard_normal((*shape, classes))

    truth = 10_000 * random.lognormal(0, 0.5, (images, classes)) * random.lognormal(0, 0.3, (groups, classes))[member]
    if population.rare:
        present = random.random((groups, 2)) < (0.5, 0.3)
        truth[:, 2:] *= present[member] & (random.random((images, 2)) < 0.5)
    common = effect(population.group, groups)[member] + effect(population.image, images)
    shared_seed = effect(population.seed / np.sqrt(2), seeds)
    models = []
    for sign in (1, -1):
        own_seed = effect(population.seed / np.sqrt(2), seeds)
        run = own_seed + (shared_seed if paired else effect(population.seed / np.sqrt(2), seeds))
        model = effect(population.of_group, groups)[member] + effect(population.of_image, images)
        both = effect(population.seed_group, seeds, groups)[:, member] + effect(population.seed_image, seeds, images)
        share = population.base + sign * change * (1 + RATE) / 2 + common + model + run[:, None] + both
        hits = np.round(truth * np.clip(share, 0, 1))
        wrong = np.round(truth * RATE * random.uniform(0.5, 1.5, hits.shape))
        models.append(np.stack([np.broadcast_to(np.round(truth), hits.shape), hits, hits + wrong], axis=2).astype(int))
    return models, member


def estimates(models, member, paired, seed):
    """The shipped intervals: of A, of A minus B."""
    scores = resampled_scores(dict(enumerate(models)), member, RESAMPLES, seed)
    groups = Groups.of(models[0], member)
    return score_interval(scores[0], groups), difference_interval(scores[0], scores[1], groups, paired=paired)


def simulate(population, seeds, groups, change=0.0, *, paired=True, studies=2000, alternatives=False, seed=0):
    """Shares of studies whose intervals hold the truth, which call a difference, and which find A better."""
    random = np.random.default_rng(seed)
    count = dict.fromkeys(("score", "difference", "called", "found"), 0.0)
    truth = population.true_score(change / 2)
    for study in range(studies):
        models, member = draw(random, population, seeds, groups, change, paired)
        score, difference = estimates(models, member, paired, study)
        count["score"] += score.low <= truth <= score.high
        count["difference"] += difference.low <= change <= difference.high
        count["called"] += not difference.low <= 0 <= difference.high
        count["found"] += difference.low > 0
        if alternatives:
            for name, (low, high) in other_intervals(models, member, paired, random).items():
                count[name] = count.get(name, 0) + (low <= change <= high)
    return {name: float(value) / studies for name, value in count.items()}


@functools.cache
def large_pilot(population, paired):
    """Components of the difference from many seeds on few groups and few seeds on many groups."""
    random = np.random.default_rng(1)
    found = []
    for seeds, groups in ((6000, 10), (20, 2000)):
        models, member = draw(random, population, seeds, groups, paired=paired)
        found.append(components(linearised(models[0]) - linearised(models[1]), member))
    return dataclasses.replace(found[1], seed=found[0].seed)


def predicted_power(population, seeds, groups, change, *, paired=True):
    """The power that a large pilot's components say."""
    return power(large_pilot(population, paired), seeds, groups, paired=paired, difference=change)


def asked_seeds(population, seeds, groups, pilots):
    """How many seeds each of so many pilots of paired seeds asks for to see 0.01, and how many a large one does."""
    random = np.random.default_rng(4)
    asked = []
    for _ in range(pilots):
        models, member = draw(random, population, seeds, groups)
        asked.append(_seeds_of(components(linearised(models[0]) - linearised(models[1]), member), groups))
    return np.array(asked), _seeds_of(large_pilot(population, True), groups)


def _seeds_of(found, groups):
    return budget(found, seeds=6, groups=groups).needed_seeds


def image_weights(random, member, resamples, images):
    """Draw groups, and in each drawn group its images, if `images`: float (R, n)."""
    groups = member.max() + 1
    drawn = random.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    if not images:
        return drawn[:, member].astype(float)
    weights = np.zeros((resamples, len(member)))
    for group in range(groups):
        inside = np.flatnonzero(member == group)
        even = np.full(len(inside), 1 / len(inside))
        weights[:, inside] = random.multinomial(drawn[:, group] * len(inside), even)
    return weights


def other_intervals(models, member, paired, random, resamples=RESAMPLES):
    """Percentile and BCa (Efron 1987) intervals of the difference, with and without the images of a group."""
    runs = [len(model) for model in models]
    groups = member.max() + 1
    whole = [mean_iou(model.sum(axis=1)) for model in models]
    value = whole[0].mean() - whole[1].mean()
    left_out = _without_each(models, member, groups, paired, runs, whole, value)
    result = {}
    for name, images in (("crossed", False), ("three levels", True)):
        weights = image_weights(random, member, resamples, images)
        of_seeds = [random.multinomial(count, np.full(count, 1 / count), size=resamples) / count for count in runs]
        if paired:
            of_seeds[1] = of_seeds[0]
        drawn = 0
        for sign, model, seeds in zip((1, -1), models, of_seeds, strict=True):
            sums = weights @ model.swapaxes(0, 1).reshape(len(member), -1)
            drawn = drawn + sign * (seeds * mean_iou(sums.reshape(resamples, *model[:, 0].shape))).sum(axis=1)
        result[f"{name}, percentile"] = np.quantile(drawn, (0.025, 0.975))
        skew = np.sum(left_out**3) / (6 * np.sum(left_out**2) ** 1.5)
        shift = stats.norm.ppf(np.clip(np.mean(drawn < value), 0.5 / resamples, 1 - 0.5 / resamples))
        ends = shift + stats.norm.ppf((0.025, 0.975))
        result[f"{name}, BCa"] = np.quantile(drawn, stats.norm.cdf(shift + ends / (1 - skew * ends)))
    return result


def _without_each(models, member, groups, paired, runs, whole, value):
    """The jackknife's influence of each group and each seed on the difference."""
    sums = []
    for model in models:
        by_group = group_sums(model, member)
        sums.append(mean_iou(by_group.sum(axis=0) - by_group).mean(axis=1))
    of_groups = (groups - 1) / groups * (value - (sums[0] - sums[1]))
    if paired:
        gaps = whole[0] - whole[1]
        return np.concatenate([of_groups, (gaps - value) / runs[0]])
    return np.concatenate([of_groups, *[s * (w - w.mean()) / len(w) for s, w in zip((1, -1), whole, strict=True)]])


SIZES = ((3, 20), (6, 2), (6, 3), (6, 4), (6, 5), (6, 10), (6, 20), (6, 60), (12, 20))
POPULATIONS = {"plain": PLAIN, "uneven": UNEVEN}
OTHER_POPULATIONS = {
    **POPULATIONS,
    "seeds differ most": dataclasses.replace(PLAIN, seed=0.05, of_group=0.005),
    "images differ most": dataclasses.replace(PLAIN, seed=0.003, of_group=0.003, seed_group=0.001, of_image=0.06),
}
OTHER = [(name, *size) for name in POPULATIONS for size in ((3, 20), (6, 10), (6, 20))]
OTHER += [("seeds differ most", 3, 20), ("seeds differ most", 6, 20), ("images differ most", 6, 20)]


def print_row(*cells):
    texts = [f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print(f"| {' | '.join(texts)} |", flush=True)


def main(studies=2000):
    """Print the tables, shares in per cent."""
    print_row("population", "seeds", "runs", "groups", "score", "difference", "A/A called", ".01 found", "power said")
    print("|" + " --- |" * 9)
    for name, population in POPULATIONS.items():
        for paired in (True, False):
            for seeds, groups in SIZES:
                found = simulate(population, seeds, groups, 0.01, paired=paired, studies=studies, seed=1)
                null = simulate(same_model(population), seeds, groups, paired=paired, studies=studies, seed=2)
                said = predicted_power(population, seeds, groups, 0.01, paired=paired)
                kind = "paired" if paired else "unpaired"
                shares = (found["score"], found["difference"], null["called"], found["found"], said)
                print_row(name, kind, seeds, groups, *shares)
    print()
    for index, (name, seeds, groups) in enumerate(OTHER):
        found = simulate(OTHER_POPULATIONS[name], seeds, groups, 0.01, studies=studies, alternatives=True, seed=3)
        others = {title: share for title, share in found.items() if "percentile" in title or "BCa" in title}
        if index == 0:
            print_row("population", "runs", "groups", "t", *others)
            print("|" + " --- |" * (4 + len(others)))
        print_row(name, seeds, groups, found["difference"], *others.values())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
