"""Convert a dataset into the record folder that training and evaluation read.

    kseg prepare --dataset=cityscapes --source=DIR --output=DIR
    kseg prepare --dataset=folder --source=DIR --output=DIR
    kseg prepare --dataset=synthetic --output=DIR

cityscapes: DIR holds leftImg8bit/ and gtFine/, or the two zips as downloaded.
camvid: DIR holds train/, val/ and perhaps test/, each with images/ and labels/, or with trainannot/, ... beside them.
folder: like camvid, with a classes.json (docs/reference/image-folders.md).
synthetic: streets with all 19 classes of Cityscapes, which this command draws.
Other common names of folders and labels work too, and a split without labels is left out; a printed line says so.
Every frame is checked first. If there are problems, they are listed, one line for each cause, and nothing is written.

`kseg prepare --check=DIR` reads a whole record folder. It counts the pixels of each class and suggests class weights.
It looks for damaged records, labels whose ids are not the stated ones, smoothed or blank labels, objects drawn with
255 though 255 is void, and images that two splits share. It draws augmented samples. The exit code is 2 if anything is
wrong, 0 if there are at most warnings.
"""

import os
import sys

from absl import flags

from kseg.commands import command_line
from kseg.data.datasets import DATASETS
from kseg.io.text import count_text

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_enum("dataset", None, list(DATASETS), "Which dataset to prepare.", flag_values=FLAGS)
flags.DEFINE_string(
    "source",
    "",
    "Folder of the dataset (synthetic: folder to draw the streets in; empty: OUTPUT/source).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "Record folder to write. With --check: PNG of augmented samples to write; empty: DIR.check.png.",
    flag_values=FLAGS,
)
flags.DEFINE_string("check", None, "Record folder to check instead of writing one.", flag_values=FLAGS)
flags.DEFINE_enum(
    "label_space",
    None,
    ["train_ids", "label_ids"],
    "For --check: which ids the labels hold, if the records lack dataset.json.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "store_height",
    None,
    "Store training images at this height in pixels; other splits keep their size.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer("store_width", None, "Width to go with --store_height, in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "image_format",
    None,
    ["png", "jpeg"],
    "Convert images to this format (JPEG decodes faster); empty: keep their own.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("shards", None, "Number of shards per split; empty: one per 128 images.", 1, flag_values=FLAGS)
flags.DEFINE_integer("workers", None, "Number of processes; empty: one per core.", 1, flag_values=FLAGS)
flags.DEFINE_integer("train_scenes", 480, "synthetic: number of training scenes.", 1, flag_values=FLAGS)
flags.DEFINE_integer("val_scenes", 60, "synthetic: number of validation scenes.", 1, flag_values=FLAGS)
flags.DEFINE_integer("scene_height", 128, "synthetic: height of a scene in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_integer("scene_width", 256, "synthetic: width of a scene in pixels.", 1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "synthetic: random seed of the scenes.", 0, flag_values=FLAGS)

STREETS = ("train_scenes", "val_scenes", "scene_height", "scene_width", "seed")  # flags that synthetic alone takes


def check(values):
    """Print what a record folder holds and warnings; problems end the script with code 2."""
    if values.dataset or values.source:
        raise flags.Error("--check takes no --dataset or --source: it reads the records only.")
    from kseg.reports.dataset_report import check_dataset

    folder = values.check.rstrip("/")
    place = folder
    if "://" in folder:
        place = os.path.basename(folder)
    sheet = values.output or f"{place}.check.png"
    beside = os.path.dirname(os.path.abspath(sheet))
    if values.output is None and os.path.isdir(beside) and not os.access(beside, os.W_OK):
        print(f"No picture: you may not write in {beside}. --output=PNG draws it elsewhere.", file=sys.stderr)
        sheet = None
    report = check_dataset(folder, sheet, label_space=values.label_space, workers=values.workers, progress=True)
    print(report)
    if report.sheet:
        print(f"{report.sheet}  samples of the training split, as they are and augmented")
    if report.problems:
        raise flags.Error("\n".join([f"{count_text(len(report.problems), 'problem')} in {folder}:", *report.problems]))
    warnings = ""
    if report.warnings:
        warnings = f", {count_text(len(report.warnings), 'warning')}"
    print(f"{folder}: nothing is wrong{warnings}.")


def run(values):
    """Write a record folder, or check one."""
    if values.check is not None:
        check(values)
        return
    if values.label_space:
        raise flags.Error("--label_space goes with --check: prepared records say themselves which ids they hold.")
    command_line.require(values, "dataset", "output")
    if values.dataset != "synthetic":
        command_line.require(values, "source")
        given = [f"--{name}" for name in STREETS if values[name].present]
        if given:
            have = "has" if len(given) == 1 else "have"
            raise flags.Error(f"{', '.join(given)} {have} no effect: --dataset={values.dataset} draws nothing.")
    if (values.store_height is None) != (values.store_width is None):
        raise flags.Error("--store_height and --store_width go together; give both or neither.")
    from kseg.data.records.ensure import draw_streets
    from kseg.data.records.manifest import MANIFEST
    from kseg.data.records.prepare import check_output, prepare_dataset
    from kseg.io.outputs import refuse_inputs

    source = values.source
    dataset = values.dataset
    if dataset == "synthetic":
        source = source or os.path.join(values.output, "source")
        dataset = "cityscapes"
        check_output(values.output, drawn=True)
        refuse_inputs([os.path.join(values.output, MANIFEST)], [source])
        draw_streets(
            source,
            train=values.train_scenes,
            val=values.val_scenes,
            height=values.scene_height,
            width=values.scene_width,
            seed=values.seed,
            workers=values.workers,
        )

    store_size = None
    if values.store_height:
        store_size = (values.store_height, values.store_width)
    manifest = prepare_dataset(
        dataset,
        source,
        values.output,
        store_size=store_size,
        image_format=values.image_format,
        shards=values.shards,
        workers=values.workers,
    )
    counts = ", ".join(f"{len(split)} {name}" for name, split in manifest.splits.items())
    print(f"{values.output}: {manifest.info.name}, {counts}")


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
