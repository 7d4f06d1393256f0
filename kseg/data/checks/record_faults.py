"""What is wrong with a record folder: every record read once, or, before training, what the manifest shows."""

import collections
import functools
import itertools
import os
from typing import NamedTuple

import numpy as np

from kseg.data.checks.label_faults import is_smoothed, looks_like_label_ids, looks_like_training_ids
from kseg.data.checks.near_duplicates import near_duplicates, thumbnail
from kseg.data.labels import IGNORE_LABEL, INVALID_LABEL
from kseg.data.records.manifest import NO_VALIDATION, decode
from kseg.data.sampling import evenly_spread
from kseg.io.errors import InputError
from kseg.io.files import sha256_of
from kseg.io.images import decode_label, orientation
from kseg.io.parallel import Workers
from kseg.io.text import count_text, first_names
from kseg.io.tfrecord import parse_example

_listed = functools.partial(first_names, most=6)  # of one kind of finding
_LOOKS = 4  # labels of a split that the quick check reads
_TRAINING_IDS = (
    "hold training ids, not the dataset's own ids: prepare them again from labels with its own ids (Cityscapes: "
    "*_labelIds.png, where road is 7); for records without dataset.json, set label_space to train_ids"
)
_LABEL_IDS = (
    "hold Cityscapes' regular ids (0..33), not training ids: list those ids in classes.json; for records without "
    "dataset.json, set label_space to label_ids"
)
_SMOOTHED = "resize labels by nearest neighbour, from the originals, and prepare them again"
_KINDS = {
    "broken": "cannot be read as stated: copy or prepare them again",
    "training_ids": _TRAINING_IDS,
    "label_ids": _LABEL_IDS,
    "smoothed": f"have labels blended by a smoothing filter, which makes false ids: {_SMOOTHED}",
}
_BLANK = "have a blank label, one id everywhere"


_WARNED = {  # kinds of fault that may be as intended
    "turned": "hold a photograph whose EXIF orientation was not applied; its pixels are used as stored. If the labels "
    "are drawn on the rotated photograph, prepare them again",
}


class _Record(NamedTuple):
    """What one record shows, as it travels from a worker: counts int64 (256,), thumbnail, kind of fault -> detail."""

    counts: np.ndarray
    thumbnail: np.ndarray | None
    faults: dict[str, str]


class SplitFindings:
    """What the records of one split show, added one by one.

    pixels: int64 (256,) by raw id. images: int64 (256,) by training id, in how many labels it occurs. faults: kind (a
    key of `_KINDS` or `_WARNED`) -> names of the records that have it. names, thumbnails: of the images that decode.
    """

    def __init__(self, table):
        self._table = table
        (self.pixels, self.images) = np.zeros((2, 256), np.int64)
        self.faults = collections.defaultdict(list)
        self.names = []
        self.thumbnails = []

    def add(self, name, record):
        """Add what `_examine_record` gave for the record of that name."""
        self.pixels += record.counts
        self.images[np.unique(self._table[np.flatnonzero(record.counts)])] += 1
        if record.thumbnail is not None:
            self.names.append(name)
            self.thumbnails.append(record.thumbnail)
        for kind, detail in record.faults.items():
            self.faults[kind].append(name + detail)


def check_records(manifest, workers=None, progress=False):
    """Read every record and shard of a folder once, in several processes; memory holds a thumbnail of each image.

    Args:
        manifest: of `records.load_manifest`. workers: processes, None is one per core. progress: show bars.
    Returns:
        (findings, problems, warnings): split -> SplitFindings; what makes the records wrong, and what may surprise, a
        line each.
    """
    items = [(split, index) for split, records in manifest.splits.items() for index in range(len(records))]
    workers = min(workers or os.cpu_count() or 1, max(1, len(items) // 16))  # a process costs a second to start
    findings = {split: SplitFindings(manifest.info.label_set().table) for split in manifest.splits}
    with Workers(manifest, workers, progress) as pool:
        for (split, index), record in zip(items, pool.map(_examine_record, items, "check"), strict=True):
            findings[split].add(manifest.splits[split].names[index], record)
        shards = list(manifest.checksums)
        held = collections.Counter()
        for records in manifest.splits.values():
            held.update(records.shards[i] for i in records.shard)
        whole = list(pool.map(_is_whole, shards, "checksums", held.__getitem__))
    problems = [
        f"Shard {shard} is corrupt (its sha256 differs from the manifest): copy it again or prepare the records again."
        for shard, is_whole in zip(shards, whole, strict=True)
        if not is_whole
    ]
    warnings = []
    if not shards:
        warnings.append("Without dataset.json there are no checksums and pixel counts to compare with.")
    if "train" in findings and "val" not in findings:
        warnings.append(f"{NO_VALIDATION}.")
    for split, found in findings.items():
        problems += _judge_split(manifest, split, found)
        warnings += _fault_lines(split, found, len(manifest.splits[split]), _WARNED)
        warnings += _blank_warnings(manifest, split, found)
        warnings += mistaken_void(split, dict(enumerate(found.pixels.tolist())), manifest.info)
        warnings += _void_warnings(split, found.pixels, manifest.info.label_set())
    warnings += _class_warnings({split: f.pixels for split, f in findings.items()}, manifest.info.label_set())
    for first, second in itertools.combinations(findings, 2):
        warnings += _judge_pair(first, findings[first], second, findings[second])
    return findings, problems, warnings


def _is_whole(manifest, shard):
    return sha256_of(shard) == manifest.checksums[shard]


def _examine_record(manifest, item):
    split = manifest.splits[item[0]]
    index = item[1]
    try:
        serialized = split.read(index)
    except (InputError, OSError) as error:  # it names the shard and the record
        return _Record(np.zeros(256, np.int64), None, {"broken": f" ({error})"})
    try:
        _, image, label = decode(serialized)
        turned = orientation(parse_example(serialized)["image/encoded"], "image") != 1
        sizes = {image.shape[:2], label.shape, (int(split.heights[index]), int(split.widths[index]))}
        if len(sizes) > 1:
            raise InputError("image, label and manifest have different sizes")
    except (InputError, OSError) as error:
        return _Record(np.zeros(256, np.int64), None, {"broken": f" ({split.place(index)}: {error})"})
    counts = np.bincount(label.ravel(), minlength=256)
    faults = {}
    if np.count_nonzero(counts) == 1:
        faults["blank"] = f" (id {counts.argmax()})"
    elif looks_like_training_ids(counts, manifest.info):
        faults["training_ids"] = ""
    elif looks_like_label_ids(counts, manifest.info):
        faults["label_ids"] = ""
    elif is_smoothed(label):
        faults["smoothed"] = ""
    if turned:
        faults["turned"] = ""
    return _Record(counts, thumbnail(image), faults)


def _judge_split(manifest, split, found):
    records = manifest.splits[split]
    problems = _fault_lines(split, found, len(records), _KINDS)
    if len(found.faults.get("blank", ())) == len(records):
        problems.append(
            f"{split}: all {len(records)} records {_BLANK}: draw them, or prepare the records from the right files."
        )
    counted = records.pixel_counts and "broken" not in found.faults
    if counted and (found.pixels != _counted(records)).any():
        problems.append(f"{split}: the labels' pixels are not those that dataset.json counted: prepare them again.")
    if "label_ids" not in found.faults:
        problems += _illegal_ids(split, found.pixels, manifest.info, "smoothed" in found.faults)
    return problems


def _fault_lines(split, found, count, kinds):
    there = ((found.faults[kind], what) for kind, what in kinds.items() if kind in found.faults)
    return [f"{split}: {len(names)} of {count} records {what}: {_listed(names)}." for names, what in there]


def _blank_warnings(manifest, split, found):
    """Return a line, or none, about single blank labels: images without any object may be wanted."""
    names = found.faults.get("blank", ())
    count = len(manifest.splits[split])
    if not names or len(names) == count:
        return []
    return [
        f"{split}: {len(names)} of {count} records {_BLANK}: {_listed(names)}. That is fine for images without objects."
    ]


def mistaken_void(split, pixels, info):
    """Return a line, or none, where 255 seems to stand for a class.

    A mask of 0 and 255, as drawing programs save it, whose class list has the ids 0 and 1: 255 is void, and the objects
    would be ignored.

    Args:
        split: its name. pixels: raw id -> pixels in the split's labels. info: DatasetInfo.
    """
    table = info.label_set().table
    classes = np.flatnonzero(table < INVALID_LABEL).tolist()
    present = {i for i, n in pixels.items() if n}
    absent = [i for i in classes if i not in present]
    if len(classes) != 2 or len(absent) != 1 or table[IGNORE_LABEL] != IGNORE_LABEL or IGNORE_LABEL not in present:
        return []
    return [
        f"{split}: 255 is void here; did you mean class {absent[0]} ({info.id_names[absent[0]]}), which no pixel has? "
        "Then give that class id 255 in classes.json and prepare the records again."
    ]


def mostly_void(split, pixels, info):
    """Return a line, or none, where most pixels of a split are of no class; pixels: raw id -> how many of it."""
    counts = np.zeros(256, np.int64)
    counts[list(pixels)] = list(pixels.values())
    return _void_warnings(split, counts, info.label_set())


def _illegal_ids(split, pixels, info, smoothed=False):
    """Return a line, or none, about ids that the dataset does not have; pixels: (256,) by raw id."""
    wrong = [int(i) for i in np.flatnonzero(pixels) if i not in info.known_ids]
    if not wrong:
        return []
    shown = _listed([f"{i} in {count_text(pixels[i], 'pixel')}" for i in wrong])
    mark = "the labels were smoothed"
    if not smoothed:
        mark = f"if few pixels along edges have them, {mark}"
    return [
        f"{split}: ids that {info.name} does not have: {shown}; {mark}: {_SMOOTHED}. Otherwise correct the labels, or "
        "name the ids in the class list."
    ]


def _class_warnings(pixels, label_set):
    """Return lines about classes without a pixel; pixels: split -> (256,) by raw id, "train" among them or not."""
    present = {split: set(label_set.table[np.flatnonzero(counts)].tolist()) for split, counts in pixels.items()}
    everywhere = set().union(*present.values())
    train = present.pop("train", None)
    lines = []
    names = list(enumerate(label_set.classes))
    if nowhere := [name for i, name in names if i not in everywhere]:
        of = count_text(len(nowhere), "class", "classes")
        they = "It gets" if len(nowhere) == 1 else "They get"
        lines.append(f"No split has a pixel of {of}: {_listed(nowhere)}. {they} no score.")
    if train is None:
        return lines
    for split, there in present.items():
        if unlearnt := [name for i, name in names if i in there - train]:
            lines.append(f"{split} has classes that train lacks, so they cannot be learnt: {_listed(unlearnt)}.")
        if unscored := [name for i, name in names if i in train - there]:
            lines.append(f"{split} lacks classes that train has, so they get no score: {_listed(unscored)}.")
    return lines


def _void_warnings(split, pixels, label_set):
    void = pixels[label_set.table >= INVALID_LABEL].sum() / max(1, pixels.sum())
    if void <= 0.5:
        return []
    question = "do the labels hold the ids that the class list names?"
    return [f"{void:.0%} of the pixels of {split} belong to no class: {question}"]


def _judge_pair(split, found, second_split, found_there):
    """Return a warning, or none, about images that two splits share: images learnt by heart score well."""
    if not (found.names and found_there.names):
        return []
    pairs = near_duplicates(np.stack(found.thumbnails), np.stack(found_there.thumbnails))
    shown = _listed([f"{found.names[i]} and {found_there.names[j]}" for i, j, _ in pairs])
    advice = "leave them out of one split, or a model trained on one scores too well on the other"
    if not pairs:
        return []
    count = count_text(len(pairs), "pair")
    return [f"{count} of nearly equal images in {split} and {second_split}: {shown}; {advice}."]


def quick_check(train, val):
    """Check two splits before training, by the manifest and a few labels of each: well under a second.

    Args:
        train, val: kseg.data.pipeline.examples.Examples in the label set that is to be learnt.
    Returns:
        list of str, warnings: classes without pixels, ids that do not exist, mostly void, 255 where a class is meant.
    Raises:
        ValueError: training would be meaningless: labels in other ids than stated, no pixel of any class, a record
            that does not read.
    """
    warnings = []
    pixels = {}
    for examples in (train, val):
        split = examples.split
        info = examples.manifest.info
        label_set = examples.label_set
        labels = [np.bincount(label.ravel(), minlength=256) for label in _look(examples)]
        counts = sum(labels)
        if split.pixel_counts:
            counts = _counted(split)
        for suspect, what in ((looks_like_training_ids, _TRAINING_IDS), (looks_like_label_ids, _LABEL_IDS)):
            if suspect(counts, info) or sum(suspect(label, info) for label in labels) > len(labels) / 2:
                raise InputError(f"The labels of split {split.name} {what}.")
        warnings += _illegal_ids(split.name, counts, info) + _void_warnings(split.name, counts, label_set)
        if split.pixel_counts:
            if not counts[label_set.table < INVALID_LABEL].any():
                raise InputError(f"No pixel of split {split.name} belongs to a class of label set {label_set.name}.")
            pixels[split.name] = counts
            warnings += mistaken_void(split.name, dict(enumerate(counts.tolist())), info)
    if len(pixels) == 2:
        warnings += _class_warnings(pixels, train.label_set)
    return warnings


def _look(examples):
    """Give a few labels of a split, evenly spread, the first and the last record among them."""
    split = examples.split
    for index in evenly_spread(len(split), _LOOKS):
        encoded = parse_example(split.read(index)).get("image/segmentation/class/encoded", b"")
        try:
            yield decode_label(encoded, f"label of record {split.names[index]}")[0]
        except InputError as error:
            raise InputError(f"{split.place(index)} does not decode: {error}") from error


def _counted(split):
    counts = np.zeros(256, np.int64)
    counts[list(split.pixel_counts)] = list(split.pixel_counts.values())
    return counts
