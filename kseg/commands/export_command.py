"""Write a model for other programs, and prove that it does there what it does here.

    kseg export --model=runs/segnet_aspp --output=segnet_aspp_saved_model
    kseg export --model=runs/segnet_aspp --format=onnx --output=segnet_aspp.onnx
    kseg export --model=runs/unet --format=litert --quantize=int8 --calibration_data=data/camvid --output=unet.tflite

--layout=server writes a folder that TensorFlow Serving or Triton takes as it is.
docs/how-to/export.md says what each format can, what is proved, and how to use the files where no kseg is installed.
"""

from absl import flags

from kseg.commands import command_line
from kseg.export import EXPORTERS, LAYOUTS

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_string("model", None, "Run folder or .keras file.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder or file to write.", flag_values=FLAGS)
flags.DEFINE_enum(
    "format",
    "savedmodel",
    list(EXPORTERS),
    f"{'; '.join(f'{name}: {exporter.help}' for name, exporter in EXPORTERS.items())}.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quantize",
    None,
    sorted({quantize for exporter in EXPORTERS.values() for quantize in exporter.quantize}),
    "Smaller numbers. float16: half the bytes. int8: a quarter, and faster where the processor has instructions for "
    "it; needs --calibration_data. Empty: float32.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "layout",
    "plain",
    list(LAYOUTS),
    "server: a folder that a server takes as it is. Of savedmodel it is TensorFlow Serving's (FOLDER/1/), of onnx a "
    "model repository of Triton's (FOLDER/NAME/config.pbtxt, FOLDER/NAME/1/model.onnx; NAME is the folder's own).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibration_data",
    None,
    "For --quantize=int8: record folder, whose training split is used, or folder of photographs.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Record folder or folder of photographs to prove the export on; empty: the records that the run was trained on, "
    "and if they are gone, streets that kseg draws.",
    flag_values=FLAGS,
)


def run(args):
    """Export the model."""
    command_line.require(args, "model", "output")
    if isinstance(command_line.models_of(args.model), list):
        raise flags.Error(
            f"--model must be one model, got {args.model!r}. Export the models of an ensemble one by one."
        )
    command_line.check_models(args.model)
    from kseg.export.export_model import export_model, summary

    path = export_model(
        args.model,
        args.output,
        format=args.format,
        quantize=args.quantize,
        layout=args.layout,
        calibration_data=args.calibration_data,
        data_dir=args.data_dir,
        progress=True,
    )
    print(summary(path, args.format))
    print(path)


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
