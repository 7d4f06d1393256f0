"""Label images, write label maps for Cityscapes' test server, or check those before they are sent.

    python scripts/predict.py --model=runs/segnet_aspp --images='photos/*.jpg' --output=labels
    python scripts/predict.py --submission --model=runs/segnet_aspp --source=CITYSCAPES --output=submission
    python scripts/predict.py --submission --check=submission --source=CITYSCAPES

CITYSCAPES holds leftImg8bit/test/ or leftImg8bit_trainvaltest.zip, or is that zip.
"""

import glob
import pathlib

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder, .keras file or SavedModel folder.", flag_values=FLAGS)
flags.DEFINE_multi_string("images", None, "Image file or quoted pattern; may be repeated.", flag_values=FLAGS)
flags.DEFINE_string(
    "output",
    None,
    "Folder for NAME.png (training ids) and color/NAME.png; of --submission, for NAME_labelIds.png.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "submission",
    False,
    "Label the 1525 test images of --source as Cityscapes' server wants it: regular ids, 2048x1024.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "source", None, "Of --submission: where the test images are, a folder or the zip as downloaded.", flag_values=FLAGS
)
flags.DEFINE_string(
    "check",
    None,
    "Of --submission: a folder of label maps or a zip of them to check; writes nothing and needs no model. With "
    "--source by the names of the test images, else by their number in each city.",
    flag_values=FLAGS,
)


def check(args):
    """Say what is wrong with a submission, or that nothing is."""
    if args.model or args.images or args.output:
        raise flags.Error("--check takes no --model, --images or --output: it only looks.")
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
    paths = sorted({path for pattern in args.images for path in glob.glob(pattern)})
    if not paths:
        raise flags.Error(f"No file matches {', '.join(args.images)}.")
    from kseg.inference.predict import predict_files

    for path in predict_files(args.model, paths, pathlib.Path(args.output)):
        print(path)


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
