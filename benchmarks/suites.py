"""What is compared: the suites' cases and contestants, which take turns in rounds, each turn a process of its own."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import exported_models, report
from kseg.io.errors import InputError
from kseg.io.runtime import ALLOCATOR, LIMIT, ONEDNN

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = "benchmarks.peers.ours"
NAIVE = "benchmarks.peers.naive"
PYTORCH = "benchmarks.peers.pytorch"
EXPORTS = "benchmarks.peers.exports"
TORCH_INFERENCE = "benchmarks.peers.pytorch_inference"
REPEATS = 10  # of an inference, which takes a fraction of a second

SIZES = {
    "full": {
        "pool_pair": {"shape": (2, 256, 512, 64)},
        "batch_norm": {"shape": (2, 128, 256, 256)},
        "aspp": {"shape": (2, 128, 256, 64), "filters": 256},
        "train_step": {"batch": 2, "height": 128, "width": 256, "num_classes": 19, "base_filters": 64},
        # CamVid's classes; its 360x480 at the next multiple of 32
        "model_step": {"batch": 2, "height": 352, "width": 480, "num_classes": 11},
        "loop_step": {"batch": 4, "height": 256, "width": 256, "num_classes": 19},
        "popular": {"batch": 2, "height": 128, "width": 128, "num_classes": 19},
        # configs/camvid/laptop.flags: its crops, and CamVid's images at the next multiple of 32
        "laptop": {
            "filters": 128,
            "train": {"batch": 4, "height": 320, "width": 416, "num_classes": 11},
            "predict": {"height": 352, "width": 480, "num_classes": 11},
        },
        # half width; the laptop's network as it is
        "infer": {
            "segnet_aspp": {"filters": 32, "height": 256, "width": 512, "num_classes": 19},
            "r2unet": {"filters": 32, "height": 256, "width": 256, "num_classes": 19},
            "segformer": {"filters": 128, "height": 352, "width": 480, "num_classes": 11},
        },
        "base_filters": 64,
        "scenes": {"images": 8, "height": 1024, "width": 2048},
        # What is trained: a narrow network's width and size, and the paper's.
        "kernels": {
            "narrow": {"base_filters": 8, "height": 96, "width": 192},
            "full width": {"base_filters": 64, "height": 128, "width": 256},
        },
    },
    "tiny": {
        "pool_pair": {"shape": (2, 32, 32, 4)},
        "batch_norm": {"shape": (2, 32, 32, 4)},
        "aspp": {"shape": (2, 32, 32, 4), "filters": 8},
        "train_step": {"batch": 2, "height": 32, "width": 64, "num_classes": 3, "base_filters": 4},
        "model_step": {"batch": 2, "height": 32, "width": 64, "num_classes": 3},
        "loop_step": {"batch": 4, "height": 32, "width": 32, "num_classes": 3},
        "popular": {"batch": 2, "height": 32, "width": 32, "num_classes": 3},
        "laptop": {
            "filters": 16,
            "train": {"batch": 2, "height": 64, "width": 64, "num_classes": 3},
            "predict": {"height": 64, "width": 64, "num_classes": 3},
        },
        "infer": {
            "segnet_aspp": {"filters": 4, "height": 32, "width": 64, "num_classes": 3},
            "r2unet": {"filters": 4, "height": 32, "width": 32, "num_classes": 3},
            "segformer": {"filters": 16, "height": 64, "width": 64, "num_classes": 3},
        },
        "base_filters": 4,
        "scenes": {"images": 2, "height": 96, "width": 128},
        "kernels": {"narrow": {"base_filters": 2, "height": 64, "width": 64}},
    },
}


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way to do something: `CASES[function](**options)` of a module of benchmarks/peers.

    Args:
        case: what is done; the contestants of a case take turns, and the first is compared with the others.
        who: name of this way.
        module: dotted name.
        function: key of its `CASES`.
        options: its keyword arguments, as JSON values.
        python: the interpreter that has what the module imports; empty: this one.
        environment: variables beside those that every contestant gets.
        warmups: runs before the clock starts.
        repeats: runs that are timed, for their mean.
    """

    case: str
    who: str
    module: str
    function: str
    options: dict
    python: str = ""
    environment: dict = dataclasses.field(default_factory=dict)
    warmups: int = 2
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the command line says: a dict of SIZES, precisions of the step, interpreters; and a folder for data."""

    sizes: dict
    precisions: tuple
    torch_python: str
    cityscapes_python: str
    folder: str


def _layers(choices):
    return [
        contestant
        for case, repeats in (("pool_pair", 10), ("batch_norm", 10), ("aspp", 2))
        for contestant in _three(case, case, choices.sizes[case], choices, repeats)
    ]


def _train(choices):
    return [
        contestant
        for precision in choices.precisions
        for contestant in _three(
            f"train_step {precision}", "train_step", {"precision": precision, **choices.sizes["train_step"]}, choices, 2
        )
    ]


def _three(case, function, options, choices, repeats):
    return [
        Contestant(case, "kseg", OURS, function, options, repeats=repeats),
        Contestant(case, "Keras naive", NAIVE, function, options, repeats=repeats),
        Contestant(case, "PyTorch", PYTORCH, function, options, python=choices.torch_python, repeats=repeats),
    ]


def _models(choices):
    """A training step (float32, Adam) of every model."""
    from kseg.models import MODELS

    variants = {"deeplabv3": [{"encoder": encoder} for encoder in ("resnet50", "resnet101", "vgg16")]}
    contestants = []
    for name in MODELS:
        for variant in variants.get(name, [{}]):
            options = {"base_filters": choices.sizes["base_filters"], **variant}
            step = {"model": name, "options": options, "precision": "float32", **choices.sizes["model_step"]}
            contestants.append(Contestant(" ".join([name, *variant.values()]), "kseg", OURS, "model_step", step))
    return contestants


def _memory(choices):
    """A step of R2U-Net by the training loop. The first run compiles: it counts, for memory is what this is about."""
    ways = {"all maps kept": {}, "remat": {"remat": True}, "accumulate_steps=4": {"accumulate_steps": 4}}
    network = {"model": "r2unet", "options": {"base_filters": choices.sizes["base_filters"]}}
    network |= choices.sizes["loop_step"]
    return [Contestant("r2unet", who, OURS, "loop_step", network | way, warmups=0) for who, way in ways.items()]


def _compile(choices):
    """The first step of the training loop, which is compiled, and those after it; what each part of kseg's adds."""
    left_out = {"segnet_aspp": ("pooling islands", "Adam's function"), "r2unet": ("Adam's function",)}
    size = choices.sizes["kernels"]["narrow"]
    contestants = []
    for model, parts in left_out.items():
        network = {"model": model, "options": {"base_filters": size["base_filters"]}, "batch": 2, "num_classes": 19}
        network |= {"height": size["height"], "width": size["width"]}
        for step, (warmups, repeats) in {"first step": (0, 1), "later step": (3, 10)}.items():
            for part in ("", *parts):
                contestants.append(
                    Contestant(
                        f"{model}, {step}",
                        f"without {part}" if part else "kseg",
                        OURS,
                        "loop_step",
                        network | {"without": part},
                        environment={ONEDNN: "1", ALLOCATOR: "true"},
                        warmups=warmups,
                        repeats=repeats,
                    )
                )
    return contestants


def _kernels(choices):
    """kseg's training step and evaluation with each choice of kernels and allocator, and PyTorch."""
    contestants = []
    for width, size in choices.sizes["kernels"].items():
        records = _write_records(f"{choices.folder}/{width}", size["height"], size["width"])
        for model in ("segnet_aspp", "r2unet", "unet"):
            title = f"{model} {size['base_filters']} filters {size['height']}x{size['width']}"
            network = {"model": model, "num_classes": 19, **size}
            ours = network | {"records": records}
            for function, theirs in (("training_loop", {"batch": 2}), ("evaluation", {"images": 4})):
                shared = {"batch": 2} if function == "training_loop" else {}
                case = f"{title}, {function}"
                contestants += [
                    Contestant(
                        case,
                        f"oneDNN {kernels}, {allocator}",
                        OURS,
                        function,
                        ours | shared,
                        environment={ONEDNN: onednn, ALLOCATOR: bfc},
                        repeats=3,
                    )
                    for kernels, onednn in (("off", "0"), ("on", "1"))
                    for allocator, bfc in (("as it comes", "false"), ("BFC", "true"))
                ]
                contestants.append(
                    Contestant(
                        case,
                        "PyTorch",
                        PYTORCH,
                        function,
                        network | theirs,
                        python=choices.torch_python,
                        repeats=3,
                    )
                )
    return contestants


def _popular(choices):
    """A training step of R2U-Net: kseg, the popular PyTorch one, and that in PyTorch's fastest layout.

    All three have one norm for all steps of a recurrence, as the popular one has. What kseg trains by default, a norm
    per step, is a case of its own.
    """
    size = choices.sizes["popular"]
    options = {"base_filters": choices.sizes["base_filters"]}
    contestants = []
    cases = {
        "one norm": ("r2unet_fischer2021", {"popular PyTorch": "popular_r2unet"}),
        "a norm per step": ("r2unet", {}),
    }
    for case, (model, others) in cases.items():
        ours = {"model": model, "options": options, **size}
        network = {**options, **size}
        peers = {**others, "PyTorch, channels last": "training_loop"}
        contestants.append(Contestant(case, "kseg", OURS, "loop_step", ours, repeats=2))
        for who, function in peers.items():
            theirs = network
            if function == "training_loop":
                theirs = {"model": model, **network}
            contestants.append(Contestant(case, who, PYTORCH, function, theirs, python=choices.torch_python, repeats=2))
    return contestants


def _laptop(choices):
    """A training step and a prediction of SegFormer's head on EfficientNet-Lite0, of configs/camvid/laptop.flags."""
    size = choices.sizes["laptop"]
    options = {"encoder": "efficientnet_lite0", "decoder_filters": size["filters"]}
    ours = {"model": "segformer", "options": options}
    contestants = []
    for case, mine, theirs, repeats in (
        ("train", "loop_step", "training_loop", 3),
        ("predict", "prediction", "prediction", 10),
    ):
        contestants.append(Contestant(case, "kseg", OURS, mine, {**ours, **size[case]}, repeats=repeats))
        for who, network in {"PyTorch, the same network": "same", "segmentation_models_pytorch": ""}.items():
            contestants.append(
                Contestant(
                    case,
                    who,
                    "benchmarks.peers.pytorch_encoders",
                    theirs,
                    {"network": network or who, "filters": size["filters"], **size[case]},
                    python=choices.torch_python,
                    repeats=repeats,
                )
            )
    return contestants


def _infer(choices):
    """Labels and confidence of one image: what kseg exports, and PyTorch with the same weights."""
    contestants = []
    for model, size in choices.sizes["infer"].items():
        folder = f"{choices.folder}/{model}"
        for kind, file in exported_models.FILES.items():
            options = {"kind": kind, "file": f"{folder}/{file}", "folder": folder}
            contestants.append(
                Contestant(model, exported_models.RUNTIMES[kind], EXPORTS, "label", options, repeats=REPEATS)
            )
        network = {
            "network": model,
            "filters": size["filters"],
            "num_classes": size["num_classes"],
            "folder": folder,
        }
        for who, function, options in (
            ("PyTorch, eager", "label", {}),
            ("PyTorch, compiled", "label", {"compiled": True}),
            ("PyTorch's ONNX export", "onnx", {}),
        ):
            contestants.append(
                Contestant(
                    model, who, TORCH_INFERENCE, function, network | options, choices.torch_python, repeats=REPEATS
                )
            )
    return contestants


def _write_records(folder, height, width):
    """Streets drawn at the network's size: 8 to train on, 4 to evaluate."""
    from kseg.data.records.prepare import prepare_dataset
    from kseg.data.synthetic.dataset import draw_cityscapes

    draw_cityscapes(f"{folder}/drawn", train=8, val=4, height=height, width=width, workers=1)
    prepare_dataset("cityscapes", f"{folder}/drawn", f"{folder}/records", workers=1, progress=False)
    return f"{folder}/records"


def _scores(choices):
    """Scoring predictions of drawn streets: kseg and the packages that others use, the same images for all."""
    write_scenes(choices.folder, **choices.sizes["scenes"])
    official = {"folder": choices.folder}
    five = {"folder": choices.folder, "num_classes": 19}
    ours, cityscapes_scripts, torchmetrics = (
        f"benchmarks.peers.{name}" for name in ("kseg_scores", "cityscapes_scripts", "torchmetrics_scores")
    )
    return [
        Contestant("official", "kseg", ours, "official", official),
        Contestant(
            "official", "cityscapesScripts", cityscapes_scripts, "official", official, choices.cityscapes_python
        ),
        Contestant("five", "kseg", ours, "five", five),
        Contestant("five", "torchmetrics", torchmetrics, "five", five, choices.torch_python),
    ]


def write_scenes(folder, images, height, width):
    """Write PNG files of drawn streets: the truth, its instances, and as a prediction the truth moved by 5 and 7."""
    from kseg.data.datasets import cityscapes
    from kseg.data.synthetic.scene import draw_street
    from kseg.io import images as codec

    table = cityscapes.info().label_set("train_ids").table
    for seed in range(images):
        _, label, instances = draw_street(seed, height, width)
        prediction = np.roll(label, (7, 5), (0, 1))
        stem = f"street_{seed:06}_000019"
        for kind, array in {"pred": prediction, "gtFine_labelIds": label, "gtFine_instanceIds": instances}.items():
            (pathlib.Path(folder) / f"{stem}_{kind}.png").write_bytes(codec.encode(array))
        truth = table[label]
        predicted = table[prediction]
        predicted[predicted == 255] = 0  # a network predicts a class everywhere
        np.save(pathlib.Path(folder) / f"{stem}_five.npy", np.stack([truth, predicted]))


def _startup(choices):
    """Whole processes, from start to exit."""
    commands = {
        ("import", "kseg"): ["-c", "import kseg"],
        ("import", "tensorflow"): ["-c", "import tensorflow"],
        ("scripts/train.py --help", "kseg"): [str(ROOT / "scripts/train.py"), "--help"],
        ("nothing", "python"): ["-c", "pass"],
    }
    module = "benchmarks.peers.whole_process"
    return [
        Contestant(case, who, module, "process", {"arguments": arguments}, warmups=1)
        for (case, who), arguments in commands.items()
    ]


SUITES = {
    "layers": _layers,
    "train": _train,
    "compile": _compile,
    "kernels": _kernels,
    "popular": _popular,
    "laptop": _laptop,
    "infer": _infer,
    "models": _models,
    "memory": _memory,
    "scores": _scores,
    "startup": _startup,
}


def _write_exports(choices):
    """What the contestants of `infer` open."""
    for model, size in choices.sizes["infer"].items():
        sizes = dict(size)
        options = {"base_filters": sizes.pop("filters")}
        if model == "segformer":
            options = {"decoder_filters": options["base_filters"], "encoder": "efficientnet_lite0"}
        exported_models.write(f"{choices.folder}/{model}", model, options, **sizes)


PREPARATIONS = {"infer": _write_exports}  # of suites whose contestants need files that take a while


def run(
    suite,
    *,
    size="full",
    rounds=5,
    precisions=("float32", "bfloat16"),
    torch_python="",
    cityscapes_python="",
    progress=lambda line: None,
):
    """Measure a suite.

    Args:
        suite: a key of SUITES.
        size: a key of SIZES.
        rounds: measured turns of each contestant.
        precisions: of the training step.
        torch_python: the interpreter that has PyTorch and torchmetrics; empty: this one.
        cityscapes_python: the interpreter that has cityscapesScripts; empty: this one.
        progress: called with lines of text.
    Returns:
        dict for JSON: suite, size, rounds, date, machine, versions, missing, load averages, rows.
    Raises:
        InputError: an interpreter that cannot be run.
        RuntimeError: a contestant failed, or those of a case do not do the same.
    """
    result = {"suite": suite, "size": size, "rounds": rounds, **report.surroundings()}
    result |= {"versions": {}, "missing": {}, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        choices = Choices(SIZES[size], precisions, torch_python, cityscapes_python, folder)
        PREPARATIONS.get(suite, lambda choices: None)(choices)
        contestants = SUITES[suite](choices)
        for case in dict.fromkeys(contestant.case for contestant in contestants):
            compare([contestant for contestant in contestants if contestant.case == case], result, progress)
    result["load_average_after"] = report.load_average()
    return result


def compare(contestants, result, progress):
    """Let the contestants of one case take turns, and add a row for each that is installed to a result of `run`."""
    turns = {contestant.who: [] for contestant in contestants}
    for number in range(1, result["rounds"] + 1):
        for contestant in contestants:
            who = contestant.who
            if who not in turns:
                continue
            turn = measure(contestant)
            if "missing" in turn:
                result["missing"][who] = f"{turn['missing']} is not installed (pip install 'kseg[bench]')"
                del turns[who]
                continue
            result["versions"][who] = turn.pop("versions")
            turns[who].append(turn)
            progress(f"{contestant.case}, round {number}/{result['rounds']}: {who} {turn['seconds']:.3g} s")
    check_same(contestants[0].case, turns)
    first = turns.get(contestants[0].who)
    result["rows"] += [report.row(contestants[0].case, who, each, first) for who, each in turns.items()]


def check_same(case, turns):
    """Stop where contestants have networks of other sizes, or do not score alike."""
    for fact, tolerance in (("parameters", 0), ("score", 1e-6)):  # torchmetrics adds in float32
        values = {who: each[0][fact] for who, each in turns.items() if fact in each[0]}
        if values and max(values.values()) - min(values.values()) > tolerance:
            raise RuntimeError(f"{case}: the contestants must have the same {fact}, but they are {values}.")


def environment():
    """Of every process that is measured: TensorFlow as it comes, without its log lines."""
    kept = {name: value for name, value in os.environ.items() if name not in (ALLOCATOR, LIMIT, ONEDNN)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }


def measure(contestant):
    """Measure a contestant once, in a process of its own; returns what benchmarks/contestant.py says."""
    request = {
        "module": contestant.module,
        "case": contestant.function,
        "options": contestant.options,
        "warmups": contestant.warmups,
        "repeats": contestant.repeats,
    }
    python = contestant.python or sys.executable
    try:
        done = subprocess.run(
            [python, "-m", "benchmarks.contestant", json.dumps(request)],
            env={**environment(), **contestant.environment},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise InputError(f"Cannot run {python} ({error.strerror}). Give the path of a Python interpreter.") from error
    if done.returncode:
        message = f"{contestant.case}: {contestant.who} failed (exit {done.returncode}):\n{done.stderr[-2000:]}"
        raise RuntimeError(message)
    return json.loads(done.stdout)
