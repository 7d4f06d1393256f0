"""Write a SavedModel: python scripts/export.py --model=runs/segnet_aspp/best.keras --output=segnet_aspp_saved_model"""

import _flags
from absl import flags

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder or .keras file.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder of the SavedModel.", flag_values=FLAGS)


def main(args):
    _flags.require(args, "model", "output")
    import kseg

    print(kseg.export_saved_model(args.model, args.output))


if __name__ == "__main__":
    _flags.run(main, FLAGS)
