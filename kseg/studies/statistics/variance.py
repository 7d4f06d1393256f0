"""How much of the uncertainty comes from seeds, groups and images? The analysis of variance of a study."""

import dataclasses

import numpy as np

from kseg.io.errors import InputError
from kseg.studies.statistics.intervals import layout_variance


def linearised(counts):
    """Return a value for each run and image whose mean over the images is the run's mean IoU.

    Taylor's linearisation of a ratio of sums (Cochran 1977, Sampling Techniques, 6.6): an image's value says how much
    the mean IoU would change with more such images. The classes are those of the whole truth.

    Args:
        counts: integers (S, n, 3, C).
    Returns:
        float64 (S, n).
    """
    counts = np.asarray(counts)
    present = counts[0, :, 0].any(axis=0)
    counts = counts[..., present].astype(float)
    hits = counts[:, :, 1]
    union = counts[:, :, 0] + counts[:, :, 2] - hits  # (S, n, C)
    whole = union.sum(axis=1, keepdims=True)
    iou = hits.sum(axis=1, keepdims=True) / whole
    influence = union.shape[1] * (hits - iou * union) / whole
    return (iou + influence).mean(axis=2)


@dataclasses.dataclass(frozen=True)
class Components:
    """Variances of single draws: one run, one group, one image of a group, one run on a group, one run on an image.

    seeds, groups, images: how many were seen. imbalance: G times the sum of squared shares of images, 1 where all
    groups have equally many. Without groups of several images, group is an image with its group.
    """

    seed: float
    group: float
    image: float
    seed_group: float
    seed_image: float
    seeds: int
    groups: int
    images: int
    imbalance: float

    def parts(self, seeds: int | None = None, groups: float | None = None) -> dict[str, float]:
        """Return what each adds to the variance of a score, in a study of so many seeds and such groups.

        Args:
            seeds, groups: how many; None: as seen. New groups are like those seen, in number of images too.
        Returns:
            dict of the five variances by name; their sum is the variance of the score.
        """
        seeds = seeds or self.seeds
        groups = groups or self.groups
        images = groups * self.images / self.groups
        return {
            "seed": self.seed / seeds,
            "group": self.group * self.imbalance / groups,
            "image": self.image / images,
            "seed x group": self.seed_group * self.imbalance / (seeds * groups),
            "seed x image": self.seed_image / (seeds * images),
        }

    def shares(self) -> dict[str, float]:
        """Return the shares of 1 of `parts`; all 0 where nothing varies."""
        parts = self.parts()
        total = sum(parts.values())
        return {name: part / total if total > 0 else 0.0 for name, part in parts.items()}

    def variance(
        self, seeds: int | None = None, groups: float | None = None, paired: bool = True
    ) -> tuple[float, float]:
        """Return the variance of a score in such a study, and the degrees of freedom its estimate will have.

        paired: as in `intervals.difference_interval`. Unpaired runs of two models have the same variance by then and
        twice the degrees of freedom: both models' runs tell of it.
        """
        parts = self.parts(seeds, groups)
        seeds = seeds or self.seeds
        groups = groups or self.groups
        both = parts["seed x group"] + parts["seed x image"]
        by_group = parts["group"] + parts["image"] + both
        by_seed = parts["seed"] + both
        sets = 1 if paired else 2
        return layout_variance(by_group, [by_seed / sets] * sets, [both / sets] * sets, groups, [seeds] * sets)


def components(values, groups):
    """Split the variance of values into Components.

    Mean squares of runs crossed with images nested in groups, set equal to their expectations (Searle, Casella,
    McCulloch 1992, Variance Components, 4.3 and 5.3: the ANOVA method; unbalanced groups by its coefficients).
    Equal to statsmodels' mean squares where groups are equally large. A negative estimate becomes 0, so small
    components are overestimated on average. With five seeds a component is easily wrong by a factor of two.

    Args:
        values: (S, n), `linearised` scores of one model, or their difference between two models run by run. Unpaired
            runs may be paired in any order: it costs degrees of freedom only.
        groups: (n,), the name or number of each image's group.
    Raises:
        InputError: fewer than two seeds or groups, another number of groups' names than of images.
    """
    seeds, images = values.shape
    if len(groups) != images:
        raise InputError(f"Each image needs its group, got {images} images and {len(groups)} groups' names.")
    member = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(member)
    groups = len(sizes)
    if seeds < 2 or groups < 2:
        raise InputError(f"Variances need two seeds and two groups or more, got {seeds} and {groups}.")
    grand = values.mean()
    by_seed = values.mean(axis=1)
    by_image = values.mean(axis=0)
    cells = np.stack([np.bincount(member, run) / sizes for run in values])  # (S, G)
    by_group = cells.mean(axis=0)
    seed = images * np.sum((by_seed - grand) ** 2) / (seeds - 1)
    group = seeds * np.sum(sizes * (by_group - grand) ** 2) / (groups - 1)
    both = np.sum(sizes * (cells - by_seed[:, None] - by_group + grand) ** 2) / ((seeds - 1) * (groups - 1))
    image = 0.0
    rest = 0.0
    if images > groups:
        image = seeds * np.sum((by_image - by_group[member]) ** 2) / (images - groups)
        residual = values - cells[:, member] - by_image + by_group[member]
        rest = np.sum(residual**2) / ((seeds - 1) * (images - groups))
    weighted = np.sum(sizes**2) / images
    size = (images - weighted) / (groups - 1)  # what a group counts in the mean squares; m where all have m images
    of_both = max((both - rest) / size, 0.0)
    of_image = max((image - rest) / seeds, 0.0)
    of_group = (group - rest - seeds * of_image - size * of_both) / (seeds * size)
    return Components(
        seed=float(max((seed - rest - weighted * of_both) / images, 0.0)),
        group=float(max(of_group, 0.0)),
        image=float(of_image),
        seed_group=float(of_both),
        seed_image=float(rest),
        seeds=seeds,
        groups=groups,
        images=images,
        imbalance=float(groups * np.sum((sizes / images) ** 2)),
    )
