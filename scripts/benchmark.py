"""Measure kseg against its peers: python scripts/benchmark.py --suite=train --check

layers: pooling with indices, batch norm, ASPP. train: a SegNet-ASPP training step. startup: imports and --help.
kernels: step, memory and evaluation of three models, narrow and wide, with oneDNN on and off, with each allocator.
scores: seconds to score a 2048x1024 image, against cityscapesScripts and torchmetrics.
models: what each model of kseg costs (parameters, multiply-adds, memory and time of a training step), without peers.
memory: an R2U-Net training step, plain, with remat and with accumulated steps, without peers.
The peers do the same in Keras without kseg, and in PyTorch (pip install 'kseg[bench]'). Each framework runs in its own
process; they take turns. Run nothing else meanwhile: the load average is printed.
"""

import pathlib
import sys

import _flags
from absl import flags

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "suite",
    None,
    ("layers", "train", "kernels", "models", "memory", "scores", "startup"),
    "What to measure.",
    flag_values=FLAGS,
)
flags.DEFINE_bool("check", False, "Exit with code 1 if a goal is missed.", flag_values=FLAGS)
flags.DEFINE_string("output", "", "JSON file to write the results to; empty: none.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "How often to measure each contestant.", 1, flag_values=FLAGS)
flags.DEFINE_multi_enum(
    "precision",
    ["float32", "bfloat16"],
    ["float32", "bfloat16"],
    "train: precision of the step; repeat the flag to measure both.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "size", "full", ("full", "tiny"), "tiny: only a check that the suite runs; no goals.", flag_values=FLAGS
)
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


def main(args):
    _flags.require(args, "suite")
    if args.check and args.size != "full":
        raise flags.Error("--check needs --size=full: goals are set for that size.")
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from benchmarks import report, suites

    result = suites.run(
        args.suite,
        size=args.size,
        rounds=args.rounds,
        precisions=tuple(args.precision),
        pythons={"torch": args.torch_python or None, "cityscapes": args.cityscapes_python or None},
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(report.text(result))
    if args.output:
        report.write(result, args.output)
    if args.check and report.missed(result):
        sys.exit(1)


if __name__ == "__main__":
    _flags.run(main, FLAGS)
