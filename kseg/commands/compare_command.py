"""Compare models on the same images, and write a page that shows where they differ.

    kseg compare runs/r2unet runs/segnet_aspp --data_dir=data/camvid --output=report
    kseg compare runs/r2unet runs/segnet_aspp runs/unet --data_dir=data/camvid --split=test --output=report_test
    kseg compare runs/r2unet saved_models/other --data_dir=data/cityscapes --output=report --group_by=drive

Each model is a run folder, a .keras file, the folder of a study's seeds (their ensemble), an export of any format, an
ONNX or TFLite file, a folder of predicted label maps, or the description of one of them (docs/how-to/contestants.md).
All others are compared with the first.

Check a report, in seconds: kseg compare --verify=report/    Exit code 1: something does not fit.
"""

import sys

from absl import flags

from kseg.commands import command_line

FLAGS = command_line.new_flags(__name__)
command_line.define_scored_data(FLAGS, __name__)
flags.DEFINE_string(
    "output",
    None,
    "Folder for index.html, comparison.json, their counts and pictures; replaces an earlier page.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "group_by",
    None,
    "Groups of images that are resampled as a whole. drive: the drive in the name (Cityscapes: the city). block:25: "
    "blocks of 25 consecutive frames of a drive. Anything else: a regular expression, searched in the name; its first "
    "group is the image's group. Empty: drives if the names show several, blocks if they show one.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "verify",
    None,
    "Folder of a comparison or study: compute every number and interval again from its counts, check the sha256 of "
    "every file, name what does not fit, and do nothing else. It needs neither models nor data.",
    flag_values=FLAGS,
)


def run(args, models):
    """Compare the models of the command line, or check a report."""
    if args.verify is not None:
        unused = [f"--{name}" for name in ("data_dir", "output", "group_by", "label_set") if args[name].value]
        if models or unused:
            raise flags.Error(f"--verify checks a report and nothing else. Leave out {', '.join([*models, *unused])}.")
        command_line.check_folder(args.verify, "the output of kseg compare or kseg study")
        from kseg.studies.verify import verify

        found = verify(args.verify)
        print(found)
        if found.faults:
            sys.exit(1)
        return
    command_line.require(args, "data_dir", "output")
    if len(models) < 2:
        raise flags.Error(f"Give two models or more before the flags, got {' '.join(models) or 'none'}. See --help.")
    command_line.check_scored(args, *models)
    from kseg.reports.compared_models import checked_models

    checked_models(models, args.data_dir, args.output)
    import kseg

    comparison = kseg.compare(
        models,
        args.data_dir,
        args.output,
        split=args.split,
        label_set=args.label_set,
        label_space=args.label_space,
        batch_size=args.batch_size,
        group_by=args.group_by or None,
        progress=True,
    )
    print(comparison)
    folder = args.output.rstrip("/")
    print(f"{folder}/index.html  the page; comparison.json beside it has its numbers, counts.npz their counts")


def main():
    """Run the command line."""
    command_line.start(run, FLAGS, takes_arguments=True)
