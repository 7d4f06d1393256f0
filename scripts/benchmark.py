"""Measure kseg against its peers: python scripts/benchmark.py --suite=train

layers: pooling with positions, batch norm, ASPP. train: a SegNet-ASPP training step. startup: imports and --help.
kernels: step, memory and evaluation of three models, narrow and wide, with oneDNN on and off and either allocator.
scores: seconds an image of 2048x1024, against cityscapesScripts and torchmetrics.
models: what each model of kseg costs (parameters, multiply-adds, memory and time of a training step), no peers.
memory: an R2U-Net step of the training loop, plain, with remat and with accumulated steps, no peers.
Peers: the same written in Keras without kseg, and PyTorch (pip install 'kseg[bench]'). Each turn of a contestant is a
process of its own; they take turns. Nothing else should run meanwhile: the load average is printed.
"""

import json
import pathlib
import sys

from absl import flags

from kseg.commands import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "suite",
    None,
    ("layers", "train", "kernels", "models", "memory", "scores", "startup"),
    "What is measured.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", "", "JSON file of the results; empty: none.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "Measured turns of each contestant.", 1, flag_values=FLAGS)
flags.DEFINE_multi_enum(
    "precision",
    ["float32", "bfloat16"],
    ["float32", "bfloat16"],
    "train: arithmetic of the step; repeat the flag for both.",
    flag_values=FLAGS,
)
flags.DEFINE_enum("size", "full", ("full", "tiny"), "tiny: only to see that it runs.", flag_values=FLAGS)
flags.DEFINE_string(
    "torch_python",
    "",
    "Python interpreter that has PyTorch (scores: and torchmetrics); empty: this one.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "cityscapes_python",
    "",
    "scores: Python interpreter that has cityscapesScripts; with its compiled extension only if built from its "
    "repository with CYTHONIZE_EVAL=1; empty: this one.",
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
