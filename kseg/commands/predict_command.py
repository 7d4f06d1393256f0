"""Label photographs and videos, write a submission for Cityscapes' test server, or check one before you send it.

    kseg predict --model=runs/segnet_aspp --images=photos --output=labels
    kseg predict --model=runs/segnet_aspp --images=drive.mp4 --output=labels --write=overlay
    kseg predict --model=runs/segnet_aspp --data_dir=data/camvid --split=test --output=labels

--model=runs/a,runs/b is an ensemble; --write=labels,disagreement shows where its models disagree.
--submission --source=CITYSCAPES writes a submission; --check=SUBMISSION --source=CITYSCAPES checks one. CITYSCAPES is a
folder that holds leftImg8bit/test/ or leftImg8bit_trainvaltest.zip, or it is that zip.
Damaged images and videos are named, the others labelled; the exit code is 1 then. docs/how-to/label-photographs.md has
more.
"""

import sys

from absl import flags

from kseg.commands import command_line

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_string(
    "model",
    None,
    "Run folder, .keras file, folder of a study's seeds (STUDY/runs/MODEL/DATA), SavedModel folder, ONNX or TFLite "
    "file. Several, between commas, are an ensemble: the mean of their probabilities.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "images",
    None,
    "Image or video file, quoted pattern (** for folders of any depth) or folder.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Instead of --images: record folder whose --split to predict (kseg prepare writes one).",
    flag_values=FLAGS,
)
flags.DEFINE_string("split", None, "For --data_dir: train, val or test.", flag_values=FLAGS)
flags.DEFINE_string(
    "label_space",
    None,
    "For --data_dir: which ids the labels hold, if the records lack dataset.json: train_ids or label_ids.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for classes.json, NAME.png and color/NAME.png, in sub-folders like those of a folder in --images; with "
    "--data_dir, for SPLIT/NAME.png and color/SPLIT/NAME.png; with --submission, for NAME_labelIds.png.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "write",
    ["labels", "color"],
    "What to write: labels (ids), color, overlay (the image under the colours, with a legend), confidence (255 times "
    "the probability of each pixel's class), disagreement (of an ensemble: 255 times the share of the largest mutual "
    "information of label and model). Of videos, color and overlay are .mp4, the others lossless .mkv.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "ids",
    "dataset",
    ["dataset", "train"],
    "Which ids the labels hold: those of the dataset's own label files, or training ids 0, 1, 2, ...",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "batch_size",
    1,
    "Images labelled at once, where following ones have one size; frames of a video. More is faster on a GPU.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "submission",
    False,
    "Predict the 1525 test images in --source as Cityscapes' test server takes them: regular ids, 2048x1024.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "source",
    None,
    "For --submission or --check: where the test images are, a folder or the zip as downloaded.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "check",
    None,
    "Check a submission, a folder or zip of label maps; needs no model and writes nothing. Files are compared with the "
    "test images' names if --source is given, else with their number in each city.",
    flag_values=FLAGS,
)


command_line.define_looks(FLAGS, __name__)


def check(args):
    """Say what is wrong with a submission, or that nothing is."""
    if args.model or args.images or args.data_dir or args.output or not command_line.looks_of(args).single:
        raise flags.Error(
            "--check takes no --model, --images, --data_dir, --output, --tile, --scales or --flip: it writes nothing."
        )
    from kseg.inference.cityscapes_submission_check import check_submission

    count, notes = check_submission(args.check, args.source, progress=True)
    print("\n".join([*notes, f"{args.check}: {count}/{count} label maps can be submitted."]))


def submit(args):
    """Write a submission and say what is left to do."""
    if args.images or args.data_dir:
        raise flags.Error("--submission takes --source, not --images or --data_dir.")
    command_line.require(args, "model", "source", "output")
    model = command_line.models_of(args.model)
    command_line.check_models(model)
    from kseg.data.datasets.cityscapes import list_test_images

    list_test_images(args.source)
    from kseg.inference.cityscapes_submission import write_submission

    count = len(write_submission(model, args.source, args.output, progress=True, looks=command_line.looks_of(args)))
    print(f"{args.output}: {count}/{count} label maps. Zip them (no folder is needed) and send the zip.")


def predict_split(args):
    """Label a split of a record folder."""
    if args.images:
        given = next(name for name in ("data_dir", "split", "label_space") if args[name].value)
        raise flags.Error(f"--images are labelled without --{given}, which is for records. Give one of the two.")
    command_line.require(args, "model", "data_dir", "split", "output")
    model = command_line.models_of(args.model)
    command_line.check_models(model)
    from kseg.inference.predict_files import write_split_label_maps

    write_split_label_maps(
        model,
        args.data_dir,
        args.split,
        args.output,
        label_space=args.label_space or None,
        wanted=wanted_of(args),
        looks=command_line.looks_of(args),
        batch_size=args.batch_size,
        progress=True,
    )


def wanted_of(args):
    """Return what is to be written."""
    from kseg.inference.label_map_files import Wanted

    return Wanted(tuple(args.write), args.ids)


def run(args):
    """Label images and videos, or write or check a submission."""
    if args.check is not None:
        check(args)
        return
    if args.submission:
        submit(args)
        return
    if args.source:
        raise flags.Error("--source goes with --submission; give other images as --images.")
    if args.data_dir or args.split or args.label_space:
        predict_split(args)
        return
    command_line.require(args, "model", "images", "output")
    wanted, looks = wanted_of(args), command_line.looks_of(args)  # before anything imports Keras
    from kseg.inference.input_files import list_images

    inputs = list_images(args.images)
    for note in inputs.notes:
        print(note, file=sys.stderr)
    model = command_line.models_of(args.model)
    from kseg.inference.model_paths import check_labels_images

    check_labels_images(model)
    from kseg.inference.predict_files import write_label_maps

    write_label_maps(
        model,
        inputs.images,
        args.output,
        folders=inputs.folders,
        left_out=inputs.left_out,
        wanted=wanted,
        looks=looks,
        batch_size=args.batch_size,
        progress=True,
    )


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
