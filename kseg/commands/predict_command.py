"""Predict label maps, write a submission for Cityscapes' test server, or check a submission before you send it.

    python scripts/predict.py --model=runs/segnet_aspp --images=photos --output=labels
    python scripts/predict.py --submission --model=runs/segnet_aspp --source=CITYSCAPES --output=submission
    python scripts/predict.py --check=submission --source=CITYSCAPES

CITYSCAPES is a folder that holds leftImg8bit/test/ or leftImg8bit_trainvaltest.zip, or it is that zip.
"""

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder, .keras file or SavedModel folder.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "images",
    None,
    "Image file, quoted pattern (** for folders of any depth) or folder.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for NAME.png (training ids) and color/NAME.png, in sub-folders like those of a folder in --images; with "
    "--submission, for NAME_labelIds.png.",
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


def check(args):
    """Say what is wrong with a submission, or that nothing is."""
    if args.model or args.images or args.output:
        raise flags.Error("--check takes no --model, --images or --output: it writes nothing.")
    from kseg.inference.cityscapes_submission_check import check_submission

    count, notes = check_submission(args.check, args.source, progress=True)
    print("\n".join([*notes, f"{args.check}: {count}/{count} label maps can be submitted."]))


def submit(args):
    """Write a submission and say what is left to do."""
    if args.images:
        raise flags.Error("--submission takes --source, not --images.")
    command_line.require(args, "model", "source", "output")
    from kseg.inference.cityscapes_submission import write_submission

    count = len(write_submission(args.model, args.source, args.output, progress=True))
    print(f"{args.output}: {count}/{count} label maps. Zip them (no folder is needed) and send the zip.")


def run(args):
    """Label images, or write or check a submission."""
    if args.check is not None:
        check(args)
        return
    if args.submission:
        submit(args)
        return
    if args.source:
        raise flags.Error("--source goes with --submission; give other images as --images.")
    command_line.require(args, "model", "images", "output")
    from kseg.inference.label_map_files import list_images

    images, folders = list_images(args.images)
    from kseg.inference.predict import write_label_maps

    write_label_maps(args.model, images, args.output, folders=folders, progress=True)


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
