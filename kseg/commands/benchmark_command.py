"""Measure how fast a model trains and predicts on this machine, without any data.

    kseg benchmark --flagfile=segnet_aspp
    kseg benchmark --model=deeplabv3plus --encoder=mobilenet_v2 --height=512 --width=1024 --batch_size=4
    kseg benchmark --flagfile=quickstart --mixed_precision=bfloat16

It takes the flags of `kseg train`, and so every config; those of data, length and scores have no effect. Run nothing
else meanwhile. Reading and augmenting images is not measured: training says its own images per second.
"""

from absl import flags

from kseg.commands import command_line, train_command
from kseg.io.errors import check_divides
from kseg.settings import (
    MODEL_FILES,
    check_model_name,
    check_model_options,
    current_options,
    options_in_source,
    size_multiple,
)

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_integer("num_classes", 19, "Classes of the model.", 2, 254, flag_values=FLAGS)
flags.DEFINE_integer("steps", 20, "Training steps, and images to predict, that are timed.", 1, flag_values=FLAGS)
train_command.define_run(FLAGS)


def run(args):
    """Measure what the flags say."""
    command_line.require(args, "model")
    if not (args.epochs or args.train_steps):
        args.train_steps = 1
    settings, options = train_command.settings_and_options(args)
    check_model_name(args.model, MODEL_FILES)
    known = current_options(args.model, options)
    check_model_options(args.model, known, options_in_source(args.model))
    if size := settings.crop or settings.size:
        check_divides(*size, size_multiple(args.model, known))
    from kseg.training.launch import choose_kernels_for

    choose_kernels_for(args.model, options, settings.onednn)  # before anything imports TensorFlow
    from kseg.training.speed import measure_speed

    print(
        measure_speed(
            args.model,
            settings,
            model_options=options,
            strategy=args.strategy,
            num_classes=args.num_classes,
            steps=args.steps,
        )
    )


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
