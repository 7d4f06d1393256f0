"""A study's folder as it is after training, with counts drawn at random: nothing is trained."""

import numpy as np

import kseg
from kseg.io.files import write_json
from kseg.studies.kept_maps import kept_images, prediction_path, truth_path, write_map
from kseg.studies.run_counts import RunCounts, counts_path, write_counts

CLASSES = ("road", "car", "traffic_sign_with_a_long_name")
PALETTE = np.array([[128, 64, 128], [0, 0, 142], [220, 220, 0]], np.uint8)
IMAGES = 24
GROUPS = 12
SIZE = (20, 30)
NAMES = tuple(f"drive{i % GROUPS:02}_{i:04}" for i in range(IMAGES))


def write_study(
    output, levels, seeds, *, without=(), old=(), data_dir="nowhere", digest="", names=NAMES, left_out=False
):
    """Write a study of models whose IoU is near `levels`.

    Args:
        levels: {model: share of the pixels that is right}. seeds: how many. without: (model, seed) that are not there.
        old: models whose counts lack all that was added later. data_dir, digest: of records. names: of the images.
        left_out: seed i left out drive i, and is scored on its images alone.
    """
    random = np.random.default_rng(0)
    images = len(names)
    truth = random.integers(200, 900, (images, 3))
    truth[names[0][:7] != np.array([name[:7] for name in names]), 2] = 0  # the last class is in one drive alone
    objects = random.integers(0, 3, (images, 3, 4)) * (truth > 0)[:, :, None]
    for number, (model, level) in enumerate(levels.items()):
        for seed in range(seeds):
            if (model, seed) in without:
                continue
            own = np.random.default_rng([number, seed])
            right = own.binomial(truth, np.clip(level + own.normal(0, 0.01), 0, 1))
            found = own.binomial(objects, level)
            row = {"model": model, "data": "drawn", "seed": seed, "split": "val", "manifest_sha256": digest}
            row |= {"parameters": 1000 * 7**number, "multiply_adds": 10**6 * (number + 1), "cpu_seconds": 60.0 + seed}
            row |= {"images_seen": 600 // (number + 1), "peak_memory": 10**9}
            more = {}
            if model not in old:
                swallowed = np.zeros((3, 4), np.int64)
                swallowed[1:, 0] = (objects - found).sum(axis=(0, 2))[1:]
                swallowed[0, 1] = (objects - found).sum(axis=(0, 2))[0]
                epochs = np.arange(1, 4)
                curve = np.stack([200 * epochs / (number + 1), 2 / epochs, [np.nan, np.nan, level / 2]], axis=1)
                more = {
                    "palette": PALETTE,
                    "objects": np.stack([objects, found], axis=1),
                    "swallowed": swallowed,
                    "size_edges": np.array([100, 1000, 10000]),
                    "overlap": np.array(0.5),
                    "curve": curve,
                }
            counts = np.stack([truth, right, right + own.integers(0, 60, right.shape)], axis=1)
            scored = names
            if left_out:
                row["left_out"] = f"drive{seed:02}"
                mine = [name.startswith(row["left_out"]) for name in names]
                scored = tuple(np.array(names)[mine])
                counts = counts[mine]
                more = {**more, "objects": more["objects"][mine]}
            run = RunCounts(counts, scored, CLASSES, "(drive[0-9]+)_.*", row, **more)
            write_counts(counts_path(output, model, "drawn", seed, "val"), run)
        if model not in old and (model, 0) not in without:
            _write_maps(output, model, images)
    models = [{"name": model, "model": "unet"} for model in levels]
    plan = {
        "name": "drawn",
        "output": str(output),
        "models": models,
        "data": [{"name": "drawn", "data_dir": str(data_dir), "splits": ["val"]}],
        "seeds": list(range(seeds)),
        "budget": {"kind": "multiply-adds", "value": 2 * 10**9},
        "group_by": "",
        "paired": True,
        "pilot": "",
        "leave_out": "drive" if left_out else "",
    }
    write_json(output / "study.json", {"kseg_version": kseg.__version__, "plan": plan, "before": []})


def _write_maps(output, model, images):
    for index in kept_images(images):
        truth, prediction = maps_of(model, index)
        write_map(truth_path(output, "drawn", "val", index), truth, PALETTE)
        write_map(prediction_path(output, model, "drawn", 0, "val", index), prediction, PALETTE)


def maps_of(model, index):
    """(truth, prediction) of an image: 3 is void."""
    truth = np.random.default_rng(index).integers(0, 4, SIZE).astype(np.uint8)
    own = np.random.default_rng([index, len(model)])
    return truth, np.where(own.random(SIZE) < 0.7, truth % 3, own.integers(0, 3, SIZE)).astype(np.uint8)
