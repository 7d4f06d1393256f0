"""Measure kseg against its peers: python scripts/benchmark.py --suite=train

layers: pooling with indices, batch norm, ASPP. train: a SegNet-ASPP training step. startup: imports and --help.
compile: the first training step, which is compiled, and later ones, with and without parts of kseg, without peers.
kernels: step, memory and evaluation of three models, narrow and wide, with oneDNN on and off, with each allocator.
popular: an R2U-Net training step, against the popular PyTorch R2U-Net.
laptop: step and prediction of the network of configs/camvid/laptop.flags, against PyTorch (with timm) and
segmentation_models_pytorch. infer: labels of an image by what kseg exports and by PyTorch with the same weights.
scores: seconds to score a 2048x1024 image, against cityscapesScripts and torchmetrics.
models: what each model of kseg costs (parameters, multiply-adds, memory and time of a training step), without peers.
memory: an R2U-Net training step, plain, with remat and with accumulated steps, without peers.
The peers do the same in Keras without kseg, and in PyTorch (pip install 'kseg[bench]'). Contestants take turns, each
turn in its own process. Run nothing else meanwhile: the load average is printed.
"""

import json
import pathlib
import sys

from absl import flags

from kseg.commands import command_line

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_enum(
    "suite",
    None,
    ("layers", "train", "compile", "kernels", "popular", "laptop", "infer", "models", "memory", "scores", "startup"),
    "What to measure.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", "", "JSON file to write the results to; empty: none.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "How many turns of each contestant to measure.", 1, flag_values=FLAGS)
flags.DEFINE_multi_enum(
    "precision",
    ["float32", "bfloat16"],
    ["float32", "bfloat16"],
    "train: precision of the step.",
    flag_values=FLAGS,
)
flags.DEFINE_enum("size", "full", ("full", "tiny"), "tiny: only a check that the suite runs.", flag_values=FLAGS)
flags.DEFINE_string(
    "torch_python",
    "",
    "Python interpreter that has PyTorch (for scores also torchmetrics); empty: this one.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "cityscapes_python",
    "",
    "scores: Python interpreter that has cityscapesScripts; empty: this one. The package has its compiled extension "
    "only if it was built from its repository with CYTHONIZE_EVAL=1.",
    flag_values=FLAGS,
)


def run(args):
    """Measure and print a suite."""
    command_line.require(args, "suite")
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from benchmarks import report, suites

    result = suites.run(
        args.suite,
        size=args.size,
        rounds=args.rounds,
        precisions=tuple(args.precision),
        torch_python=args.torch_python,
        cityscapes_python=args.cityscapes_python,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(report.text(result))
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command_line.start(run, FLAGS)
