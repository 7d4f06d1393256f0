"""Datasets to record folders: check every frame, write shards in several processes, dataset.json last."""

import dataclasses
import glob
import hashlib
import json
import os

import tqdm

import kseg
from kseg.data import camvid, cityscapes, folder, records, writer
from kseg.data.files import checked_path, list_files, reading, write_atomic, writing
from kseg.data.source import Source, stamp
from kseg.data.tfrecord import SHARD_NAME
from kseg.data.workers import Workers
from kseg.errors import InputError, check_whole

READERS = {"cityscapes": cityscapes.read, "camvid": camvid.read, "folder": folder.read}
FRAMES_PER_SHARD = 128
_SOURCE = "source.json"  # what the records were made from: marks a folder as ours before dataset.json is there


def prepare_dataset(
    dataset: str,
    source,
    output,
    *,
    store_size: tuple[int, int] | None = None,
    image_format: str | None = None,
    shards: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> records.Manifest:
    """Check a dataset and write it as a record folder; a second call goes on where a killed one stopped.

    Args:
        dataset: "cityscapes", "camvid" or "folder". source: its folder. output: the record folder to make.
        store_size: (height, width) in pixels of the training images and labels; None keeps their own.
            Other splits are never resized, so that scores are those of the labels' size.
        image_format: "png" or "jpeg" (quality 95) to convert images; None stores the files' own bytes.
        shards: number of shards of each split, at most one a frame; None is one per 128 frames.
        workers: processes; None is one per core. progress: show bars on stderr.

    Returns:
        The manifest of the record folder.

    Raises:
        ValueError: bad options; problems in the source (all of them, one a line, nothing written then); an
            output that holds something else. OSError: a file or folder that cannot be read or written.
    """
    _check_options(dataset, store_size, image_format, shards, workers)
    source, output = checked_path(source, "source"), os.path.abspath(checked_path(output, "output"))
    listed = READERS[dataset](source)
    options = {
        "dataset": dataset,
        "store_size": store_size and list(store_size),
        "image_format": image_format,
    }
    options["shards"] = {split: _shard_count(frames, shards) for split, frames in listed.splits.items()}
    origin = {"options": options, "classes": listed.info.to_json(), "files": _file_digests(listed)}
    finished = None if listed.problems else _finished(output, origin, progress)
    if finished is not None:
        return finished
    tasks = _plan(listed, output, options, origin)
    done = {task.path: stats for task in tasks if (stats := writer.finished_stats(task)) is not None}
    todo = [task for task in tasks if task.path not in done]
    workers = min(workers or os.cpu_count() or 1, max(1, sum(len(t.frames) for t in todo)))
    with Workers(dataclasses.replace(listed, splits={}, problems=()), workers, progress) as pool:
        _check(listed, todo, pool)
        _clear(output, origin, keep=done)
        for stats, task in zip(pool.map(writer.write_shard, todo, "write", lambda t: len(t.frames)), todo, strict=True):
            done[task.path] = stats
    _write_manifest(output, listed, options, [(task, done[task.path]) for task in tasks])
    return records.load_manifest(output)


def _check_options(dataset, store_size, image_format, count, workers) -> None:
    if dataset not in tuple(READERS):
        raise InputError(f"There is no dataset {dataset!r}. Choose one of: {', '.join(READERS)}.")
    pair = isinstance(store_size, (tuple, list)) and len(store_size) == 2
    if store_size is not None and not (pair and all(type(s) is int and s > 0 for s in store_size)):
        raise InputError(f"The store size must be a height and a width in pixels, got {store_size!r}.")
    if image_format not in (None, "png", "jpeg"):
        raise InputError(f'The image format must be "png" or "jpeg" (or none: as they came), got {image_format!r}.')
    for name, value in (("shards", count), ("workers", workers)):
        if value is not None:
            check_whole(name, value, 1)


def _shard_count(frames, wanted: int | None) -> int:
    return max(1, min(len(frames), wanted or -(-len(frames) // FRAMES_PER_SHARD)))


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _stamps(item) -> list:
    return [item.name, *(r and stamp(r) for r in (item.image, item.label, item.instance))]


def _file_digests(listed: Source) -> dict[str, str]:
    return {split: _digest([_stamps(item) for item in frames]) for split, frames in listed.splits.items()}


def _finished(output: str, origin: dict, progress: bool) -> records.Manifest | None:
    """Return the manifest of a finished folder of the same origin, None if there is work to do."""
    files = list_files(output) if os.path.isdir(output) else {}
    if _SOURCE not in files:
        foreign = [f for f in files if f == records.MANIFEST or SHARD_NAME.match(f)]
        if foreign:
            raise InputError(f"{output} holds records of another origin ({foreign[0]}). Choose an empty folder.")
        return None
    if records.MANIFEST not in files:
        return None
    path = os.path.join(output, _SOURCE)
    with reading(path), open(path, "rb") as file:
        content = file.read()
    try:
        before = json.loads(content)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, brackets without end
        before = None
    if not isinstance(before, dict) or not all(isinstance(before.get(part), dict) for part in origin):
        raise InputError(f"{path} is damaged. Choose another folder or delete this one.")
    changes = _differences(before, origin)
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


def _differences(before: dict, now: dict) -> list[str]:
    old, new = before["options"], now["options"]
    changes = [f"{key} was {old.get(key)}, now {new[key]}" for key in new if old.get(key) != new[key]]
    if before["classes"] != now["classes"]:
        changes.append("the classes differ")
    splits = sorted(set(before["files"]) | set(now["files"]))
    changed = [s for s in splits if before["files"].get(s) != now["files"].get(s)]
    return changes + [f"the source files of split {split} differ" for split in changed]


def _plan(listed: Source, output: str, options: dict, origin: dict) -> list[writer.ShardTask]:
    """Cut every split into shards of consecutive frames whose numbers differ by one at most."""
    tasks = []
    for split, frames in listed.splits.items():
        count = options["shards"][split]
        for i in range(count):
            part = frames[i * len(frames) // count : (i + 1) * len(frames) // count]
            path = os.path.join(output, f"{split}-{i:05}-of-{count:05}.tfrecord")
            fingerprint = _digest([origin["options"], origin["classes"], [_stamps(item) for item in part]])
            size = tuple(options["store_size"]) if split == "train" and options["store_size"] else None
            tasks.append(writer.ShardTask(path, split, part, fingerprint, size, options["image_format"]))
    return tasks


def _check(listed: Source, todo: list[writer.ShardTask], pool: Workers) -> None:
    """Raise ValueError with every problem of the listing and of the frames that are to be written."""
    problems = list(listed.problems)
    problems += [f"split {split} has no image with a label" for split, f in listed.splits.items() if not f]
    items = [item for task in todo for item in task.frames]
    for found in pool.map(writer.check_frame, items, "check"):
        problems += found
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError("\n".join([f"{count} in {listed.root}:", *problems]))


def _clear(output: str, origin: dict, keep: dict) -> None:
    """Mark the folder as ours and remove what a killed run or one of other options left."""
    with writing(output):
        os.makedirs(output, exist_ok=True)
    write_atomic(os.path.join(output, _SOURCE), json.dumps(origin).encode())
    kept = {os.path.basename(path) for path in keep}
    files = list_files(output)
    if records.MANIFEST in files:  # first: without it nothing here reads as whole
        os.remove(os.path.join(output, records.MANIFEST))
    for file in files:
        base = file.removesuffix(writer.STATS)
        if ".tmp-" in file or (SHARD_NAME.match(base) and base not in kept):
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
        "splits": splits,
    }
    write_atomic(os.path.join(output, records.MANIFEST), json.dumps(data).encode())
    for path in glob.glob(os.path.join(glob.escape(output), f"*{writer.STATS}")):
        os.remove(path)
