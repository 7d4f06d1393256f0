"""Compare models on the same images, and write a page that shows where they differ.

    kseg compare runs/r2unet runs/segnet_aspp --data_dir=data/camvid --output=report
    kseg compare runs/r2unet runs/segnet_aspp runs/unet --data_dir=data/camvid --split=test --output=report_test
    kseg compare runs/r2unet saved_models/other --data_dir=data/cityscapes --output=report --group_by=drive

Each model is a run folder, a .keras file or a SavedModel folder. All others are compared with the first.
"""

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
command_line.define_scored_data(FLAGS, __name__)
flags.DEFINE_string(
    "output",
    None,
    "Folder for index.html, comparison.json and pictures; replaces an earlier page.",
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


def run(args, models):
    """Compare the models of the command line."""
    command_line.require(args, "data_dir", "output")
    if len(models) < 2:
        raise flags.Error(f"Give two models or more before the flags, got {' '.join(models) or 'none'}. See --help.")
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
    print(f"{args.output.rstrip('/')}/index.html  the page; comparison.json beside it has its numbers")


def main():
    """Run the command line."""
    command_line.start(run, FLAGS, takes_arguments=True)
