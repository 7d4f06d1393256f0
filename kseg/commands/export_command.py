"""Write a model for other programs.

kseg export --model=runs/segnet_aspp --output=segnet_aspp_saved_model
kseg export --model=runs/segnet_aspp/last.keras --output=last_saved_model
"""

from absl import flags

from kseg.commands import command_line
from kseg.export import EXPORTERS

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder or .keras file.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder or file to write.", flag_values=FLAGS)
flags.DEFINE_enum(
    "format",
    "savedmodel",
    list(EXPORTERS),
    f"{'; '.join(f'{name}: {exporter.help}' for name, exporter in EXPORTERS.items())}.",
    flag_values=FLAGS,
)


def run(args):
    """Export the model."""
    command_line.require(args, "model", "output")
    print(EXPORTERS[args.format].write(args.model, args.output))


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
