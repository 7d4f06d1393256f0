"""Make a model's confidences honest: fit a temperature on a split.

    kseg calibrate --model=runs/segnet_aspp --data_dir=data/cityscapes --output=segnet_aspp_calibrated.keras
    kseg evaluate --model=segnet_aspp_calibrated.keras --data_dir=data/cityscapes --report_dir=report
    kseg export --model=segnet_aspp_calibrated.keras --output=segnet_aspp_saved_model

Labels and scores stay as they are. The new model carries the temperature, and the card of its run, into every export.
"""

import os

from absl import flags

from kseg.commands import command_line

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_string("model", None, "Run folder or .keras file.", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "Record folder.", flag_values=FLAGS)
flags.DEFINE_string("split", "val", "Split to fit the temperature on.", flag_values=FLAGS)
flags.DEFINE_string("label_set", None, "Label set of the records, as in evaluate.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "The .keras file to write, a new one.", flag_values=FLAGS)


def run(args):
    """Fit, write, print."""
    command_line.require(args, "model", "data_dir", "output")
    if not args.output.endswith(".keras"):
        raise flags.Error(f"--output must be a .keras file, got {args.output}.")
    if os.path.lexists(args.output):
        raise flags.Error(f"--output={args.output} is there already. Choose a new file.")
    command_line.check_scored(args, args.model)
    from kseg.data.records.manifest import load_manifest, record_files
    from kseg.inference.model_paths import model_files
    from kseg.io.files import replacing
    from kseg.io.outputs import refuse_inputs

    refuse_inputs([args.output], [*model_files(args.model), *record_files(args.data_dir)])
    from kseg.evaluation.temperature import calibrate
    from kseg.export.export_card import card_of_run
    from kseg.runs.model_card import calibrated_card, put_in

    model, found = calibrate(
        args.model,
        args.data_dir,
        split=args.split,
        label_set=args.label_set,
        progress=True,
    )
    with replacing(args.output) as temporary:
        model.save(temporary)
        if card := card_of_run(args.model):
            records = load_manifest(args.data_dir).digest
            put_in(temporary, calibrated_card(card, found.value, args.split, records))
    print(found)
    print(f"{args.output}  the model with this temperature")


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
