"""Does a model swallow objects? Objects found by class and size, what swallowed the others, errors near boundaries."""

import numpy as np

from kseg.io.errors import InputError
from kseg.io.files import write_json
from kseg.metrics.boundaries import boundary_pixels, checked_pair
from kseg.score_table import ratio

OUTSIDE = "outside the classes"
SIZE_EDGES = (100, 1000, 10000)  # pixels
DISTANCE_EDGES = (0, 2, 4, 8, 16, 32)  # pixels
FIRST_INSTANCE = 1000  # Cityscapes: instance k of class id is id * 1000 + k; below it a region or a group
_SOURCES = ("components", "instances")


def image_objects(truth, valid, instances=None):
    """Number the objects of an image's truth.

    Args:
        truth: class ids (H, W). valid: bool (H, W), the pixels of a class.
        instances: integers (H, W), Cityscapes' instance ids, or None for the 8-connected regions of a class. An
            instance whose pixels are of two classes is two objects.
    Returns:
        (number, pixels): int64 (H, W), objects counted from 0, and bool (H, W), which pixels lie in one.
    """
    number = np.zeros(truth.shape, np.int64)
    if instances is None:
        from scipy import ndimage  # here: it takes half a second, and a refused command needs none

        count = 0
        boxes = ndimage.find_objects(np.where(valid, truth.astype(np.int32) + 1, 0))
        for class_id, box in enumerate(boxes):
            if box is None:
                continue
            region = (truth[box] == class_id) & valid[box]
            regions, found = ndimage.label(region, np.ones((3, 3)))
            number[box][region] = regions[region] + (count - 1)
            count += found
        return number, valid
    pixels = valid & (instances >= FIRST_INSTANCE)
    keys = instances[pixels].astype(np.int64) * 256 + truth[pixels]
    number[pixels] = np.unique(keys, return_inverse=True)[1]
    return number, pixels


class ObjectScores:
    """Objects found, what swallowed the missed ones, and errors by distance to the nearest boundary, over many images.

    An object is found when at least `overlap` of its pixels are predicted as its class. What swallowed a missed one is
    the most frequent other prediction on its pixels (on a tie, the first class). Objects are Cityscapes' instances (ids
    of 1000 and more) for classes that have any in the images; groups of these classes are left out. For all other
    classes, or without instances, objects are the 8-connected regions of the truth. The distance is Euclidean, from a
    pixel to the nearest one that has a 4-neighbour of another class, in the truth; pixels whose truth is void count
    nowhere and make no boundary. Memory does not grow with the number of images.

    Args:
        classes: C different names. overlap: share of the pixels, above 0 and at most 1.
        size_edges: pixels that divide the objects into bins; one of exactly an edge is in the larger bin.
        distance_edges: pixels that divide the distances; one of exactly an edge is in the nearer bin. None: errors are
            not counted by distance, which takes longer than all else.
    Raises:
        ValueError: names that repeat, an overlap out of range, edges that do not grow.
    """

    def __init__(self, classes, *, overlap=0.5, size_edges=SIZE_EDGES, distance_edges=DISTANCE_EDGES):
        self.classes = tuple(classes)
        self.overlap = overlap
        self.size_edges = tuple(size_edges)
        self.distance_edges = None if distance_edges is None else tuple(distance_edges)
        count = len(self.classes)
        if not count or len(set(self.classes)) < count:
            raise InputError(f"Class names must be different and at least one, got {self.classes}.")
        if not 0 < overlap <= 1:
            raise InputError(f"overlap must be above 0 and at most 1, got {overlap}.")
        for name, edges, least in (
            ("size_edges", self.size_edges, 1),
            ("distance_edges", self.distance_edges or (), 0),
        ):
            if list(edges) != sorted(set(edges)) or (edges and edges[0] < least):
                raise InputError(f"{name} must be rising numbers of at least {least}, got {edges}.")
        self.images = 0
        self._with_instances = None
        sources = len(_SOURCES)
        bins = len(self.size_edges) + 1
        self._objects = np.zeros((2, sources, count, bins), np.int64)  # all of them and those found
        self._swallowed = np.zeros((sources, count, count + 1), np.int64)
        if self.distance_edges is not None:
            self._distance = np.zeros((2, len(self.distance_edges) + 1), np.int64)  # pixels and errors

    def update(self, truth, prediction, instances=None):
        """Add an image: integer class ids (H, W) twice, and its instance ids (H, W) for every image or for none.

        Returns:
            int64 (2, 2, C, bins), all of its objects and those found, regions and instances: for `of_chosen_source`.
        Raises:
            ValueError: other arrays, or an instance map for some of the images only.
        """
        truth, prediction, valid = checked_pair(truth, prediction, len(self.classes))
        if instances is not None:
            instances = np.asarray(instances)
            if instances.shape != truth.shape or instances.dtype.kind not in "iu":
                raise InputError(
                    f"Instance ids must be integers of the truth's shape {truth.shape}, got {instances.dtype} "
                    f"{instances.shape}."
                )
        if self._with_instances not in (None, instances is not None):
            raise InputError("Some images have an instance map and some have none. Give one for all or for none.")
        self._with_instances = instances is not None
        before = self._objects.copy()
        self._count_objects(0, truth, prediction, *image_objects(truth, valid))
        if instances is not None:
            self._count_objects(1, truth, prediction, *image_objects(truth, valid, instances))
        if self.distance_edges is not None:
            self._count_distances(truth, prediction, valid)
        self.images += 1
        return self._objects - before

    def _sources(self):
        """Return for each class the number of what its objects are, an index of _SOURCES."""
        return self._objects[0, 1].any(axis=1).astype(int)

    def of_chosen_source(self, counts):
        """Return (..., 2, C, bins) of `update`'s counts (..., 2, 2, C, bins): instances or regions of a class."""
        return np.stack([counts[..., s, c, :] for c, s in enumerate(self._sources())], axis=-2)

    def swallowed(self):
        """Return int64 (C, C + 1): of each class's missed objects, those that each class (the last: none) swallowed."""
        return np.stack([self._swallowed[s, c] for c, s in enumerate(self._sources())])

    def counts(self):
        """Return {name: int64 array}, all that was counted, for `of_counts`."""
        return {"objects": self._objects, "swallowed": self._swallowed, "distance": self._distance}

    @classmethod
    def of_counts(cls, classes, images, counts):
        """Return the ObjectScores of `images` images that gave these `counts`; ValueError for other arrays."""
        found = cls(classes)
        for name, array in found.counts().items():
            if counts[name].shape != array.shape:
                raise InputError(f"{name} must be counts of shape {array.shape}, got {counts[name].shape}.")
            array += counts[name]
        found.images = images
        return found

    def _count_objects(self, source, truth, prediction, number, pixels):
        number = number[pixels]
        truth = truth[pixels]
        prediction = prediction[pixels]
        if not len(number):
            return
        columns = len(self.classes) + 1
        counts = np.bincount(number * np.int64(columns) + prediction)
        counts = np.pad(counts, (0, -len(counts) % columns)).reshape(-1, columns)  # (objects, C + 1)
        own = np.zeros(len(counts), np.intp)
        own[number] = truth
        order = np.arange(len(counts))
        size = counts.sum(axis=1)
        hits = counts[order, own]
        found = hits / size >= self.overlap
        bins = np.searchsorted(self.size_edges, size, side="right")
        np.add.at(self._objects[:, source], (slice(None), own, bins), np.stack([np.ones_like(found), found]))
        counts[order, own] = -1
        np.add.at(self._swallowed[source], (own[~found], counts[~found].argmax(axis=1)), 1)

    def _count_distances(self, truth, prediction, valid):
        boundary = boundary_pixels(truth, valid)
        distance = np.full(truth.shape, np.inf)
        if boundary.any():
            from scipy import ndimage

            distance = ndimage.distance_transform_edt(~boundary)
        wrong = valid & (truth != prediction)
        for row, pixels in zip(self._distance, (valid, wrong), strict=True):
            bins = np.searchsorted(self.distance_edges, distance[pixels])
            row += np.bincount(bins, minlength=len(row))

    def result(self):
        """Return what was found as a dict (`to_json` writes it); what cannot be scored is nan."""
        source = self._sources().tolist()
        objects = self.of_chosen_source(self._objects)  # (2, C, bins)
        swallowed = self.swallowed().tolist()
        sizes = bin_names(self.size_edges, closed_above=False)
        per_class = {}
        for c, (name, s) in enumerate(zip(self.classes, source, strict=True)):
            swallowers = zip((*self.classes, OUTSIDE), swallowed[c], strict=True)
            per_class[name] = {
                "objects_from": _SOURCES[s],
                **_found(objects[:, c].sum(axis=1)),
                "by_size": {size: _found(objects[:, c, i]) for i, size in enumerate(sizes)},
                "swallowed_by": {into: n for into, n in sorted(swallowers, key=lambda pair: -pair[1]) if n},
            }
        shares = [row["found"] for row in per_class.values() if row["objects"]]
        return {
            "overlap": self.overlap,
            "images": self.images,
            **_found(objects.sum(axis=(1, 2))),
            "mean_found": ratio(sum(shares), len(shares)),
            "by_size": {size: _found(objects[:, :, i].sum(axis=1)) for i, size in enumerate(sizes)},
            "error_by_distance": self._errors(),
            "per_class": per_class,
        }

    def _errors(self):
        if self.distance_edges is None:
            return {}
        names = bin_names(self.distance_edges, closed_above=True)
        return {
            name: {"pixels": pixels, "error_rate": ratio(wrong, pixels)}
            for name, pixels, wrong in zip(names, *self._distance.tolist(), strict=True)
        }

    def __str__(self):
        found = self.result()
        width = max(len(name) for name in (*self.classes, "all classes"))
        heads = ["all", *(f"{size} px" for size in found["by_size"])]
        step = max(14, *map(len, heads)) + 2
        head = "".join(f"{text:>{step}}" for text in heads)
        lines = [f"{'found':<{width}}{head}  {'objects':<10}  most often swallowed by"]
        for name, row in {"all classes": found, **found["per_class"]}.items():
            cells = "".join(f"{_shown(part):>{step}}" for part in (row, *row["by_size"].values()))
            source = ""
            if row["objects"]:
                source = row.get("objects_from", "")
            first = next((f"{into} ({n})" for into, n in row.get("swallowed_by", {}).items()), "")
            lines.append(f"{name:<{width}}{cells}  {source:<10}  {first}".rstrip())
        rule = f"found: at least {100 * self.overlap:g} % of the pixels predicted as the object's class"
        lines.append(f"{self.images} images; {rule}; mean over classes {found['mean_found']:.4f}")
        rates = [f"{k}: {row['error_rate']:.4f}" for k, row in found["error_by_distance"].items() if row["pixels"]]
        if rates:
            lines.append(f"error rate by pixels to the nearest boundary: {', '.join(rates)}")
        return "\n".join(lines)

    def to_json(self, path):
        """Write `result()` to a file, nan as null; completely or not at all."""
        write_json(path, self.result())


def _found(pair):
    objects, found = (int(n) for n in pair)
    return {"objects": objects, "found": ratio(found, objects)}


def _shown(row):
    return f"{row['found']:.3f} of {row['objects']}" if row["objects"] else "-"


def bin_names(edges, closed_above):
    """Names of the bins between edges: "< 100", "100 to < 1000", ">= 1000", or "<= 2", "> 2 to 4", "> 4"."""
    if not edges:
        return ["all"]
    between = zip(edges[:-1], edges[1:], strict=True)
    if closed_above:
        return [f"<= {edges[0]:g}", *(f"> {a:g} to {b:g}" for a, b in between), f"> {edges[-1]:g}"]
    return [f"< {edges[0]:g}", *(f"{a:g} to < {b:g}" for a, b in between), f">= {edges[-1]:g}"]
