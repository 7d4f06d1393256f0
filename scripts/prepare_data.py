"""Turn a dataset into the record folder that training and evaluation read.

    python scripts/prepare_data.py --dataset=cityscapes --source=DIR --output=DIR
    python scripts/prepare_data.py --dataset=camvid|folder --source=DIR --output=DIR
    python scripts/prepare_data.py --dataset=synthetic --output=DIR

cityscapes: DIR holds leftImg8bit/ and gtFine/, or the two zips as downloaded. camvid: train/ and val/, each
with images/ and labels/. folder: the same, and a classes.json (see kseg/data/folder.py). synthetic: streets
that are drawn here. Every frame is checked first; problems are listed together, nothing is written then.
"""

import os

import _flags
from absl import flags

FLAGS = flags.FlagValues()
_DATASETS = ["cityscapes", "camvid", "folder", "synthetic"]
flags.DEFINE_enum("dataset", None, _DATASETS, "What the source is.", flag_values=FLAGS)
flags.DEFINE_string(
    "source",
    "",
    "Folder of the dataset (synthetic: where to draw it, OUTPUT/source if empty).",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", None, "Record folder to write.", flag_values=FLAGS)
flags.DEFINE_integer(
    "store_height",
    None,
    "Store training images at this height in pixels (others stay).",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer("store_width", None, "Width to go with --store_height, in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "image_format",
    None,
    ["png", "jpeg"],
    "Convert images (JPEG decodes faster); else as they come.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("shards", None, "Shards of each split; else one per 128 images.", 1, flag_values=FLAGS)
flags.DEFINE_integer("workers", None, "Processes; else one per core.", 1, flag_values=FLAGS)
flags.DEFINE_integer("train_scenes", 240, "synthetic: training scenes.", 1, flag_values=FLAGS)
flags.DEFINE_integer("val_scenes", 60, "synthetic: validation scenes.", 1, flag_values=FLAGS)
flags.DEFINE_integer("scene_height", 128, "synthetic: height of a scene in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_integer("scene_width", 256, "synthetic: width of a scene in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "synthetic: seed of the scenes.", 0, flag_values=FLAGS)


def main(values):
    _flags.require(values, "dataset", "output")
    if values.dataset != "synthetic":
        _flags.require(values, "source")
    if (values.store_height is None) != (values.store_width is None):
        raise flags.Error("--store_height and --store_width go together; give both or neither.")
    from kseg.data.origins import draw_streets
    from kseg.data.prepare import prepare_dataset

    source, dataset = values.source, values.dataset
    if dataset == "synthetic":
        source, dataset = source or os.path.join(values.output, "source"), "cityscapes"
        draw_streets(
            source,
            train=values.train_scenes,
            val=values.val_scenes,
            height=values.scene_height,
            width=values.scene_width,
            seed=values.seed,
            workers=values.workers,
        )

    manifest = prepare_dataset(
        dataset,
        source,
        values.output,
        store_size=(values.store_height, values.store_width) if values.store_height else None,
        image_format=values.image_format,
        shards=values.shards,
        workers=values.workers,
    )
    counts = ", ".join(f"{len(split)} {name}" for name, split in manifest.splits.items())
    print(f"{values.output}: {manifest.info.name}, {counts}")


if __name__ == "__main__":
    _flags.run(main, FLAGS)
