"""Datasets to record folders: check every frame, write shards in several processes, dataset.json last."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re

import tqdm

import kseg
from kseg.data.checks.record_faults import mistaken_void, mostly_void
from kseg.data.datasets import DATASETS
from kseg.data.datasets.listing import Problem, Source, names_without_utf8, one_line_each, same_in_two_splits, stamp
from kseg.data.labels import with_current_names
from kseg.data.records import manifest as records
from kseg.data.records import shards as writer
from kseg.data.synthetic.dataset import MARKER
from kseg.io.errors import InputError, check_whole, is_whole, plain
from kseg.io.files import (
    StrPath,
    checked_path,
    clear_unfinished,
    is_url,
    list_files,
    locked,
    reading,
    write_atomic,
    writing,
)
from kseg.io.outputs import refuse_inputs
from kseg.io.parallel import Workers
from kseg.io.text import count_text, did_you_mean
from kseg.io.tfrecord import SHARD_NAME

FRAMES_PER_SHARD = 128
_UNFINISHED = re.compile(r"(.+)\.tmp-\d+")  # a shard that a killed process was writing


def prepare_dataset(
    dataset: str,
    source: StrPath,
    output: StrPath,
    *,
    store_size: tuple[int, int] | None = None,
    image_format: str | None = None,
    shards: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> records.Manifest:
    """Check a dataset and write it as a record folder; a second call continues where a killed one stopped.

    Args:
        dataset: a name of `kseg.data.datasets.DATASETS` except "synthetic". source: its folder. output: the record
            folder to make.
        store_size: (height, width) in pixels of the training images and labels; None keeps their own.
            Other splits are never resized, so that scores are those of the labels' size.
        image_format: "png" or "jpeg" (quality 95) to convert images; None stores the files' own bytes.
        shards: number of shards of each split, at most one a frame; None is one per 128 frames.
        workers: processes; None is one per core. progress: show bars on stderr, and say which folders were read as
            what, which splits have no labels, that there is no validation split, and where 255 may be meant as a class.

    Returns:
        The manifest of the record folder.

    Raises:
        ValueError: bad options; problems in the source (one line for each cause, nothing written then); an
            output that holds something else or is in use by another process. OSError: a file or folder that cannot be
            read or written.
    """
    store_size, shards, workers = plain((store_size, shards, workers))
    _check_options(dataset, store_size, image_format, shards, workers)
    source = checked_path(source, "source")
    output = checked_path(output, "output")
    check_local(output)
    output = os.path.abspath(output)
    listed = DATASETS[dataset].read(source)
    if progress:
        for note in listed.notes:
            tqdm.tqdm.write(note)
    options = {
        "dataset": dataset,
        "store_size": store_size and list(store_size),
        "image_format": image_format,
    }
    if os.path.exists(os.path.join(source, MARKER)):
        options["drawn"] = True  # streets in Cityscapes' layout, which are not Cityscapes
    options["shards"] = {split: _shard_count(frames, shards) for split, frames in listed.splits.items()}
    digests = {split: _digest([_stamps(item) for item in frames]) for split, frames in listed.splits.items()}
    origin = {"options": options, "classes": listed.info.to_json(), "files": digests}
    if not listed.problems and (finished := _finished(output, origin, progress)):
        return finished
    tasks = _plan(listed, output, options, origin)
    written = [os.path.join(output, name) for name in (records.MANIFEST, records.ORIGIN)]
    refuse_inputs([*written, *(task.path + end for task in tasks for end in ("", writer.STATS))], _inputs(listed))
    check_output(output)
    with locked(pathlib.Path(output)):
        _write(listed, output, options, origin, tasks, workers, progress)
    manifest = records.load_manifest(output)
    if not progress:
        return manifest
    info = manifest.info
    void = [f"{info.id_names[i]} (id {i})" for i in info.void_ids if info.id_names[i] != "void"]
    if void and dataset == "folder":
        tqdm.tqdm.write(f"Void, so neither learnt nor scored: {', '.join(void)}.")
    if "val" not in manifest.splits:
        tqdm.tqdm.write(f"WARNING: {records.NO_VALIDATION}.")
    for name, split in manifest.splits.items():
        warnings = mistaken_void(name, split.pixel_counts, info)
        if name != "test":  # Cityscapes keeps the labels of its test split: the files have void alone
            warnings += mostly_void(name, split.pixel_counts, info)
        for warning in warnings:
            tqdm.tqdm.write(f"WARNING: {warning}")
    return manifest


def _inputs(listed: Source) -> set[str]:
    """Return what a dataset is read from: its folder, images, labels, zips, the list of classes."""
    frames = [frame for frames in listed.splits.values() for frame in frames]
    references = [r for frame in frames for r in (frame.image, frame.label, frame.instance) if r is not None]
    references += [image for images in listed.unlabelled.values() for image in images]
    files = {reference[0] if isinstance(reference, tuple) else reference for reference in references}
    return files | {listed.root, os.path.join(listed.root, "classes.json")}


def _write(listed, output, options, origin, tasks, workers, progress) -> None:
    """Check the frames of the shards that are not there yet, write those shards, and dataset.json last."""
    done = {task.path: stats for task in tasks if (stats := writer.finished_stats(task)) is not None}
    todo = [task for task in tasks if task.path not in done]
    workers = min(workers or os.cpu_count() or 1, max(1, sum(len(t.frames) for t in todo)))
    with Workers(dataclasses.replace(listed, splits={}, problems=(), unlabelled={}), workers, progress) as pool:
        _check(listed, todo, pool)
        _clear(output, origin, keep=done)
        for stats, task in zip(pool.map(writer.write_shard, todo, "write", lambda t: len(t.frames)), todo, strict=True):
            done[task.path] = stats
    _write_manifest(output, listed, options, [(task, done[task.path]) for task in tasks])


def _check_options(dataset, store_size, image_format, count, workers) -> None:
    known = [name for name, entry in DATASETS.items() if entry.download]  # streets are drawn first
    if dataset not in known:
        meant = did_you_mean(str(dataset).lower(), known)
        raise InputError(
            f"kseg.prepare_dataset has no dataset {dataset!r}. Choose one of: {', '.join(known)}.{meant} A "
            "command draws synthetic streets: kseg prepare --dataset=synthetic --output=RECORD_FOLDER"
        )
    pair = isinstance(store_size, (tuple, list)) and len(store_size) == 2
    if store_size is not None and not (pair and all(is_whole(s) and s > 0 for s in store_size)):
        raise InputError(f"The store size must be a height and a width in pixels, got {store_size!r}.")
    if image_format not in (None, "png", "jpeg"):
        raise InputError(f'The image format must be "png" or "jpeg" (or None: as they are), got {image_format!r}.')
    for name, value in (("shards", count), ("workers", workers)):
        if value is not None:
            check_whole(name, value, 1)


def _shard_count(frames, wanted: int | None) -> int:
    return max(1, min(len(frames), wanted or -(-len(frames) // FRAMES_PER_SHARD)))


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _stamps(item) -> list:
    return [item.name, *(r and stamp(r) for r in (item.image, item.label, item.instance))]


def _finished(output: str, origin: dict, progress: bool) -> records.Manifest | None:
    """Return the manifest of a finished folder from the same source, None if there is work to do."""
    files = {}
    if os.path.isdir(output):
        files = list_files(output)
    if records.ORIGIN not in files:
        return None
    before = _origin(output)
    changes = _differences(before, origin)
    if records.MANIFEST not in files:
        return None
    if changes:
        raise InputError(f"{output} is finished, but {'; '.join(changes)}. Choose another folder or delete it.")
    try:
        manifest = records.load_manifest(output)
        manifest.verify()
    except InputError as error:
        tqdm.tqdm.write(f"{error}\nIt is prepared again.")
        return None
    if progress:
        tqdm.tqdm.write(f"{output} is already prepared from the same files with the same options.")
    return manifest


def check_local(output) -> None:
    """Raise InputError for records that are to be written elsewhere than on this machine."""
    if is_url(output):
        raise InputError(f"Records are written into a local folder, got {output}. Copy them there afterwards.")


_ORIGIN_PARTS = ("options", "classes", "files")


def check_output(output: str, drawn: bool = False) -> None:
    """Refuse a folder to write records into that holds other things; folders in it may be the sources.

    Args:
        output: folder, there or not. drawn: whether the records are to be of drawn streets, for which nothing but their
            own source/ may be there.
    Raises:
        InputError: no local folder; files that are not kseg's records; with `drawn`, records of something else.
    """
    check_local(output)
    if os.path.lexists(output) and not os.path.isdir(output):
        what = "a file" if os.path.exists(output) else "a link to nothing"
        raise InputError(f"{output} must be a folder, but is {what}. Choose another folder.")
    files = [file for file in list_files(output) if not file.startswith(".")] if os.path.isdir(output) else []
    if records.ORIGIN in files:
        if drawn and not _origin(output)["options"].get("drawn"):
            raise InputError(f"{output} holds records of something else than streets. Choose another folder.")
        return
    others = files
    if drawn and os.path.isdir(output):
        others = sorted(name for name in os.listdir(output) if not name.startswith(".") and name != "source")
    if others:
        what = "holds"
        if records.MANIFEST in files or any(map(SHARD_NAME.match, files)):
            what = "holds records from another source:"
        raise InputError(f"{output} must be a new or empty folder, but {what} {others[0]}. Choose another folder.")


def _origin(output: str) -> dict:
    """Return what the records in a folder were made from, a dict of _ORIGIN_PARTS; InputError if it is damaged."""
    path = os.path.join(output, records.ORIGIN)
    with reading(path), open(path, "rb") as file:
        content = file.read()
    try:
        found = json.loads(content, object_hook=with_current_names)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, brackets without end
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in _ORIGIN_PARTS):
        raise InputError(f"{path} is damaged, or not from kseg. Choose another folder.")
    return found


def _differences(before: dict, now: dict) -> list[str]:
    old = before["options"]
    new = now["options"]
    changes = [f"{key} was {old.get(key)}, now {new[key]}" for key in new if old.get(key) != new[key]]
    if before["classes"] != now["classes"]:
        changes.append("the classes differ")
    splits = sorted(set(before["files"]) | set(now["files"]))
    changed = [s for s in splits if before["files"].get(s) != now["files"].get(s)]
    return changes + [f"the source files of split {split} differ in name, size or date" for split in changed]


def _plan(listed: Source, output: str, options: dict, origin: dict) -> list[writer.ShardTask]:
    """Cut every split into shards of consecutive frames whose numbers differ by one at most."""
    tasks = []
    for split, frames in listed.splits.items():
        count = options["shards"][split]
        size = None
        if split == "train" and options["store_size"]:
            size = tuple(options["store_size"])
        for i in range(count):
            part = frames[i * len(frames) // count : (i + 1) * len(frames) // count]
            path = os.path.join(output, f"{split}-{i:05}-of-{count:05}.tfrecord")
            fingerprint = _digest([origin["options"], origin["classes"], [_stamps(item) for item in part]])
            tasks.append(writer.ShardTask(path, split, part, fingerprint, size, options["image_format"]))
    return tasks


def _check(listed: Source, todo: list[writer.ShardTask], pool: Workers) -> None:
    """Raise ValueError with the problems of the listing and of the frames to be written, one line for each cause."""
    problems = same_in_two_splits(listed.splits)
    for split, frames in listed.splits.items():
        problems += names_without_utf8(frames)
        if not frames and not listed.problems:
            problems.append(Problem(f"no {split}", f"split {split} has no image with a label"))
    items = [item for task in todo for item in task.frames]
    for found in pool.map(writer.check_frame, items, "check"):
        problems += found
    lines = [*listed.problems, *one_line_each(problems)]
    if lines:
        raise InputError("\n".join([f"{count_text(len(lines), 'problem')} in {listed.root}:", *lines]))


def _clear(output: str, origin: dict, keep: dict) -> None:
    """Mark the folder as ours and remove what a killed run or one of other options left."""
    with writing(output):
        os.makedirs(output, exist_ok=True)
    write_atomic(os.path.join(output, records.ORIGIN), json.dumps(origin).encode())
    clear_unfinished(pathlib.Path(output), records.MANIFEST, records.ORIGIN, f"*{writer.STATS}")
    kept = {os.path.basename(path) for path in keep}
    files = list_files(output)
    if records.MANIFEST in files:  # first: without it nothing here reads as whole
        os.remove(os.path.join(output, records.MANIFEST))
    for file in files:
        unfinished = _UNFINISHED.fullmatch(file)
        base = file.removesuffix(writer.STATS)
        if unfinished:
            base = unfinished[1]
        if SHARD_NAME.match(base) and (unfinished or base not in kept):
            os.remove(os.path.join(output, file))


def _write_manifest(output: str, listed: Source, options: dict, parts: list) -> None:
    """Write dataset.json from the shards' sidecars, then remove those."""
    splits: dict = {split: {"shards": [], "pixel_counts": {}, "records": []} for split in listed.splits}
    for task, stats in parts:
        split = splits[task.split]
        shard = len(split["shards"])
        split["shards"].append(
            {"file": os.path.basename(task.path), "bytes": stats["bytes"], "sha256": stats["sha256"]}
        )
        split["records"] += [[shard, *row] for row in stats["records"]]
        for i, count in stats["pixel_counts"].items():
            split["pixel_counts"][i] = split["pixel_counts"].get(i, 0) + count
    data = {
        "format_version": records.FORMAT_VERSION,
        "kseg_version": kseg.__version__,
        "label_space": f"{listed.info.name}/raw",
        "options": options,
        "dataset": listed.info.to_json(),
        "drive": "" if options.get("drawn") else DATASETS[options["dataset"]].drive,
        "splits": splits,
    }
    write_atomic(os.path.join(output, records.MANIFEST), json.dumps(data).encode())
    for task, _ in parts:
        os.remove(task.path + writer.STATS)
