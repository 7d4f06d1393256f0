"""Write a SavedModel: python scripts/export.py --model=runs/segnet_aspp/best.keras --output=segnet_aspp_saved_model"""

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder or .keras file.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder of the SavedModel.", flag_values=FLAGS)


def run(args):
    """Export the model."""
    command_line.require(args, "model", "output")
    import kseg

    print(kseg.export_saved_model(args.model, args.output))


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
