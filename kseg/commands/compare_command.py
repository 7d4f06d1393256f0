"""Compare models: python scripts/compare.py runs/r2unet runs/segnet_aspp --data_dir=data/camvid --output=report/

Each model is a run folder, a .keras file or a SavedModel folder; the others are compared with the first.
"""

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "data_dir", None, "Record folder with the images to score (scripts/prepare_data.py writes one).", flag_values=FLAGS
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for index.html, comparison.json and pictures; replaces an earlier page.",
    flag_values=FLAGS,
)
flags.DEFINE_string("split", "val", "Split of the records to score.", flag_values=FLAGS)
flags.DEFINE_string("label_set", None, "Classes to score; empty: the training classes.", flag_values=FLAGS)
flags.DEFINE_string(
    "label_space",
    None,
    "Which ids the labels hold, if the records lack dataset.json: train_ids or label_ids.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "group_by",
    None,
    "Groups of images that intervals draw whole. drive: the drive that the names tell (Cityscapes: the city). "
    "block:25: blocks of 25 consecutive frames of a drive. Anything else: a regular expression, found in the name, "
    "whose first group is the image's group. Empty: drives where the names show several, blocks where they show one.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("batch_size", 1, "Images per batch.", lower_bound=1, flag_values=FLAGS)


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
