"""Label images: python scripts/predict.py --model=runs/segnet_aspp --images='photos/*.jpg' --output=labels"""

import glob
import pathlib

import _flags
from absl import flags

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder, .keras file or SavedModel folder.", flag_values=FLAGS)
flags.DEFINE_multi_string("images", None, "Image file or quoted pattern; may be repeated.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for NAME.png (training ids) and NAME_color.png.", flag_values=FLAGS)


def main(args):
    _flags.require(args, "model", "images", "output")
    paths = sorted({path for pattern in args.images for path in glob.glob(pattern)})
    if not paths:
        raise flags.Error(f"No file matches {', '.join(args.images)}.")
    from kseg.prediction import predict_files

    for path in predict_files(args.model, paths, pathlib.Path(args.output)):
        print(path)


if __name__ == "__main__":
    _flags.run(main, FLAGS)
