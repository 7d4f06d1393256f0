"""Compare models: python scripts/compare.py runs/r2unet runs/segnet_aspp --data_dir=data/camvid --output=report/

Each model is a run folder, a .keras file or a SavedModel folder; the first is what the others are compared with.
"""

import _flags
from absl import flags

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Record folder (scripts/prepare_data.py).", flag_values=FLAGS)
flags.DEFINE_string(
    "output",
    None,
    "Folder for index.html, comparison.json and pictures; an earlier page is replaced.",
    flag_values=FLAGS,
)
flags.DEFINE_string("split", "val", "Split of the records to score.", flag_values=FLAGS)
flags.DEFINE_string("label_set", None, "Classes to score; empty: the training classes.", flag_values=FLAGS)
flags.DEFINE_string("label_space", None, "For records without dataset.json: train_ids or label_ids.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 1, "Images of a batch.", lower_bound=1, flag_values=FLAGS)


def main(args, models):
    _flags.require(args, "data_dir", "output")
    if len(models) < 2:
        raise flags.Error(f"Give two models or more before the flags, got {' '.join(models) or 'none'}. See --help.")
    import kseg

    options = {name: args[name].value for name in ("split", "label_set", "label_space", "batch_size")}
    print(kseg.compare(models, args.data_dir, args.output, progress=True, **options))
    print(f"{args.output.rstrip('/')}/index.html  the page; comparison.json beside it has its numbers")


if __name__ == "__main__":
    _flags.run(main, FLAGS, takes_arguments=True)
