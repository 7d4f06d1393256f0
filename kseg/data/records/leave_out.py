"""Record folders that each leave out one drive of a split: it is trained without that drive, and scored on it."""

import json
import os
import pathlib

import numpy as np

from kseg.data.groups import groups_of
from kseg.data.records.manifest import MANIFEST, encoded, load_manifest
from kseg.io.errors import InputError
from kseg.io.files import join, open_binary, reading, replacing, sha256_of, write_json
from kseg.io.images import decode_label
from kseg.io.progress import Waiting
from kseg.io.tfrecord import FOOTER_BYTES, HEADER_BYTES

_SHARDS = "shards"


def leave_one_out(data_dir, output, by):
    """Write a record folder for each group of `train`, whose `val` is that group and whose `train` is all others.

    The records are copied once, a shard for each group; the folders have links to the shards. What is there already is
    kept, so the same call again costs little.

    Args:
        data_dir: records with a dataset.json. output: the folder of the folders. by: as in
            `kseg.data.groups.groups_of`.
    Returns:
        dict of group's name -> path of the folder without it, in the order of the names.
    Raises:
        InputError: fewer than two groups, or records without a dataset.json.
    """
    manifest = load_manifest(data_dir)
    groups = groups_to_leave_out(manifest, by)
    path = join(data_dir, MANIFEST)
    with reading(path), open_binary(path) as file:
        table = json.load(file)
    split = manifest.split("train")
    names = sorted(groups.names)
    output = pathlib.Path(output)
    (output / _SHARDS).mkdir(parents=True, exist_ok=True)
    parts = []
    for i, name in enumerate(names):
        members = [index for index, other in enumerate(groups.of) if other == name]
        parts.append(_part(split, table["splits"]["train"], members, output / _SHARDS / f"{i:05}"))
    folders = {}
    for i, name in enumerate(names):
        folders[name] = output / f"without-{i:05}"
        _write_folder(folders[name], table, name, {"train": parts[:i] + parts[i + 1 :], "val": [parts[i]]})
    return folders


def groups_to_leave_out(manifest, by):
    """Return the groups of a manifest's `train` (`kseg.data.groups.groups_of`); InputError as in `leave_one_out`."""
    where = manifest.data_dir
    if not manifest.checksums:
        raise InputError(f"leave_out needs records with a {MANIFEST}, which {where} has not. Prepare the data anew.")
    groups = groups_of(manifest.split("train").names, by, manifest.drive, "leave_out")
    if len(groups.names) < 2:
        raise InputError(f"leave_out needs two groups of train or more, but {by} gives {len(groups.names)} in {where}.")
    return groups


def _part(split, rows, members, stem):
    """Copy the records of a group into a shard of its own; return what a manifest says of it, and the shard's path."""
    shard = stem.with_suffix(".tfrecord")
    facts = stem.with_suffix(".json")
    if not facts.exists():
        records = []
        counts = np.zeros(256, np.int64)
        end = 0
        with Waiting(f"copy {shard}"), replacing(shard) as temporary, open(temporary, "wb") as file:
            for index in members:
                _, offset, length, name, height, width = rows["records"][index]
                size = HEADER_BYTES + length + FOOTER_BYTES
                counts += _label_counts(split.read(index), name)  # checks the record, too
                with open_binary(split.shards[split.shard[index]]) as source:
                    source.seek(offset)
                    file.write(source.read(size))
                records.append([0, end, length, name, height, width])
                end += size
        found = {"bytes": end, "sha256": sha256_of(str(shard)), "records": records}
        write_json(facts, {**found, "pixel_counts": {str(i): int(counts[i]) for i in np.flatnonzero(counts)}})
    with reading(facts):
        return {**json.loads(facts.read_bytes()), "path": shard}


def _label_counts(payload, name):
    """Return int64 (256,), the pixels of each raw id in a record's label."""
    label = decode_label(encoded(payload)[2], f"label of record {name}", upright=False)[0]
    return np.bincount(label.ravel(), minlength=256)


def _write_folder(folder, table, left_out, splits):
    """Write one record folder: links to the shards, and dataset.json last."""
    if (folder / MANIFEST).exists():
        return
    folder.mkdir(exist_ok=True)
    described = {}
    for name, parts in splits.items():
        counts = {}
        files = [f"{name}-{i:05}-of-{len(parts):05}.tfrecord" for i in range(len(parts))]
        for file, part in zip(files, parts, strict=True):
            link = folder / file
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(part["path"], folder))
            for raw_id, pixels in part["pixel_counts"].items():
                counts[raw_id] = counts.get(raw_id, 0) + pixels
        described[name] = {
            "shards": [
                {"file": file, "bytes": part["bytes"], "sha256": part["sha256"]}
                for file, part in zip(files, parts, strict=True)
            ],
            "records": [[i, *record[1:]] for i, part in enumerate(parts) for record in part["records"]],
            "pixel_counts": counts,
        }
    options = {**table["options"], "left_out": left_out}
    write_json(folder / MANIFEST, {**table, "options": options, "splits": described}, indent=None)
