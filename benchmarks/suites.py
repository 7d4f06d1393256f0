"""What is compared: cases, sizes, goals; kseg and its peers take turns in one run."""

import contextlib
import functools
import math
import subprocess
import sys
import time

from benchmarks import kernels, report, scores
from benchmarks.processes import ROOT, Worker, alternate, environment

OURS = "kseg"
PEERS = {
    OURS: "benchmarks.peers.ours",
    "Keras naive": "benchmarks.peers.naive",
    "PyTorch": "benchmarks.peers.pytorch",
}
MACHINE = "benchmarks.peers.machine"
EXTRA = "pip install 'kseg[bench]'"

SIZES = {
    "full": {
        "pool_pair": {"shape": (2, 256, 512, 64)},
        "batch_norm": {"shape": (2, 128, 256, 256)},
        "aspp": {"shape": (2, 128, 256, 64), "filters": 256},
        "train_step": {"batch": 2, "height": 128, "width": 256, "num_classes": 19, "base_filters": 64},
        "conv_rate": {"batch": 1, "height": 128, "width": 256, "channels": 256},
        "copy": {"megabytes": 256},
        # CamVid's classes; its 360x480 at the next multiple of 32
        "model_step": {"batch": 2, "height": 352, "width": 480, "num_classes": 11, "base_filters": 64},
        "loop_step": {"batch": 4, "height": 256, "width": 256, "num_classes": 19, "options": {"base_filters": 64}},
    },
    "tiny": {
        "pool_pair": {"shape": (2, 32, 32, 4)},
        "batch_norm": {"shape": (2, 32, 32, 4)},
        "aspp": {"shape": (2, 32, 32, 4), "filters": 8},
        "train_step": {"batch": 2, "height": 32, "width": 64, "num_classes": 3, "base_filters": 4},
        "conv_rate": {"batch": 1, "height": 32, "width": 32, "channels": 16},
        "copy": {"megabytes": 4},
        "model_step": {"batch": 2, "height": 32, "width": 64, "num_classes": 3, "base_filters": 4},
        "loop_step": {"batch": 4, "height": 32, "width": 32, "num_classes": 3, "options": {"base_filters": 4}},
    },
}

# Bytes that must move for each element of x, float32 maps and one-byte positions, a quarter as many:
# pool 4 -> 1 + 1/4, unpool 1 + 1/4 -> 4, and the same two backwards.
_POOL_PAIR_BYTES = 21
# Forward: twice in (moments, then values), once out; backward: maps and gradients twice in, once out.
_BATCH_NORM_BYTES = 8 * 4

GOALS = {
    "layers": [report.Goal("pool_pair", "time", "Keras naive", 0.25)],
    "train": [
        report.Goal("train_step float32", "time", "Keras naive", 0.85),
        report.Goal("train_step float32", "time", "PyTorch", 0.6),
        report.Goal("train_step bfloat16", "time", "PyTorch", 0.75),
        report.Goal("train_step float32", "memory", "PyTorch", 1.2),
        report.Goal("train_step bfloat16", "memory", "PyTorch", 1.2),
    ],
    "models": [],
    "memory": [report.Goal("r2unet step, remat", "memory", "all maps kept", 0.6)],
    "kernels": [],
    "scores": scores.GOALS,
    "startup": [
        report.Goal("import", "time", None, 0.1),
        report.Goal("scripts/train.py --help", "time", None, 0.6),
    ],
}

_COMMANDS = {
    ("import", OURS): ("-c", "import kseg"),
    ("import", "tensorflow"): ("-c", "import tensorflow"),
    ("scripts/train.py --help", OURS): ("scripts/train.py", "--help"),
    ("nothing", "python"): ("-c", "pass"),
}


def run(suite, *, size="full", rounds=5, precisions=("float32", "bfloat16"), pythons=None, progress=None):
    """Measure a suite.

    Args: `suite`: one of the flag's. `size`: a key of SIZES; goals hold for "full" alone.
        `rounds`: measured turns of each contestant. `precisions`: of the training step.
        `pythons`: {"torch": ..., "cityscapes": ...}, the interpreters that have PyTorch and torchmetrics, and
        cityscapesScripts; this one for those left out. `progress`: called with lines of text.
    Returns: a dict for JSON: suite, size, rounds, date, machine, versions, missing, ceilings, rows, goals.
    """
    progress, pythons = progress or (lambda line: None), pythons or {}
    torch_python = pythons.get("torch")
    result = {"suite": suite, "size": size, "rounds": rounds, **report.surroundings()}
    result |= {"versions": {}, "missing": {}, "ceilings": {}, "rows": []}
    if suite == "startup":
        result["rows"] = _startup(rounds, progress)
    elif suite == "models":
        _models(result, progress)
    elif suite == "memory":
        _memory(result, progress)
    elif suite == "kernels":
        kernels.measure(result, torch_python, progress)
    elif suite == "scores":
        scores.measure(result, torch_python, pythons.get("cityscapes"), progress)
    elif suite == "layers":
        elements = {name: math.prod(SIZES[size][name]["shape"]) for name in ("pool_pair", "batch_norm")}
        with Contest(result, torch_python, progress) as contest:
            contest.compare("pool_pair", moved=_POOL_PAIR_BYTES * elements["pool_pair"])
            contest.compare("batch_norm", moved=_BATCH_NORM_BYTES * elements["batch_norm"])
            contest.compare("aspp")
    else:
        for precision in precisions:
            with Contest(result, torch_python, progress) as contest:
                contest.compare("train_step", precision=precision)
    result["load_average_after"] = report.load_average()
    report.add_shares(result)
    result["goals"] = report.judge(GOALS[suite], result) if size == "full" else []
    return result


class Contest:
    """Fresh workers that take turns; what they do is added to `result`. A context manager.

    A contestant that is not installed is noted in result["missing"] and left out. The machine's limits are measured
    in the same rounds, in processes of their own, so that a contestant's peak memory is that of its case.
    Args: as those of `run`, and `result`, the dict that it returns.
    """

    def __init__(self, result, torch_python, progress):
        self._result, self._progress = result, progress
        self._sizes = SIZES[result["size"]]
        self._pythons = {who: sys.executable for who in PEERS} | ({"PyTorch": torch_python} if torch_python else {})

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._workers = {}
            for who, module in PEERS.items():
                try:
                    worker = stack.enter_context(Worker(module, self._pythons[who]))
                except ModuleNotFoundError as error:
                    if who == OURS:
                        raise
                    self._result["missing"][who] = f"{error.name} is not installed ({EXTRA})"
                    continue
                self._workers[who] = worker
                self._result["versions"][who] = worker.versions
            self._ceilings = self._prepare_ceilings(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _prepare_ceilings(self, stack):
        """{(limit, by whom): (run, amount of work)}; the best of them counts."""
        machine = stack.enter_context(Worker(MACHINE))
        amount = machine.prepare("copy", "copy", **self._sizes["copy"])["bytes"]
        runs = {("copy", "NumPy"): (functools.partial(machine.run, "copy"), amount)}
        for who in (OURS, "PyTorch"):
            if who not in self._workers:
                continue
            worker = stack.enter_context(Worker(PEERS[who], self._pythons[who]))
            for precision in ("float32", "bfloat16"):
                facts = worker.prepare(precision, "conv_rate", precision=precision, **self._sizes["conv_rate"])
                run = functools.partial(worker.run, precision)
                runs[f"convolution {precision}", who] = run, facts["flop"]
        return runs

    def compare(self, case, *, moved=None, precision=None):
        """Let all take turns on a case; its limit is the copy rate if bytes `moved` are given, else convolution."""
        options = self._sizes[case] | ({"precision": precision} if precision else {})
        title = f"{case} {precision}" if precision else case
        empty = {who: worker.peak() for who, worker in self._workers.items()}
        facts = {}
        for who, worker in self._workers.items():
            self._progress(f"{title}: {who}")
            facts[who] = worker.prepare(case, case, **options)
        _check_parameters(title, facts)
        runs = {who: functools.partial(worker.run, case) for who, worker in self._workers.items()}
        runs |= {key: run for key, (run, _) in self._ceilings.items()}
        seconds = alternate(runs, self._result["rounds"], warmups=2, progress=self._progress)
        self._note_ceilings(seconds)
        # An operation is a multiplication or an addition; the backward pass does each convolution twice more.
        batch = options.get("batch") or options["shape"][0]
        work = moved or 2 * 3 * batch * facts[OURS]["multiply_adds"]
        for who, worker in self._workers.items():
            row = report.row(title, who, seconds[who], seconds[OURS])
            row |= {"limit": "copy" if moved else f"convolution {precision or 'float32'}", "work": work, **facts[who]}
            if precision:  # the process did nothing else
                row |= {"peak_bytes": worker.peak(), "empty_bytes": empty[who]}
            self._result["rows"].append(row)
            worker.drop(case)

    def _note_ceilings(self, seconds):
        best = self._result["ceilings"]
        for key, (_, amount) in self._ceilings.items():
            best[key[0]] = max(amount / min(seconds[key]), best.get(key[0], 0.0))


def _check_parameters(title, facts):
    counts = {who: fact["parameters"] for who, fact in facts.items() if "parameters" in fact}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"{title} must be one network, but the parameters are {counts}.")


def _models(result, progress):
    """A training step (float32, Adam) of every model, each in a process of its own."""
    sizes = SIZES[result["size"]]["model_step"]
    common = {key: value for key, value in sizes.items() if key != "base_filters"} | {"precision": "float32"}
    with Worker(PEERS[OURS]) as worker:
        result["versions"][OURS] = worker.versions
        names = worker.prepare("models", "models")["models"]
    for name, options in names:
        title = " ".join([name, *options.values()])
        with Worker(PEERS[OURS]) as worker:
            empty = worker.peak()
            options = {"base_filters": sizes["base_filters"], **options}
            facts = worker.prepare(name, "model_step", model=name, options=options, **common)
            run = functools.partial(worker.run, name)
            seconds = alternate({title: run}, result["rounds"], warmups=1)[title]
            row = report.row(title, OURS, seconds, None)
            row |= {"options": options, **facts, **common, "peak_bytes": worker.peak(), "empty_bytes": empty}
        result["rows"].append(row)
        progress(" | ".join(report.model_cells(row)))


def _memory(result, progress):
    """Steps of R2U-Net by the training loop, plain and with what saves memory, each in a process of its own."""
    plain = "all maps kept"
    contestants = {
        ("r2unet step, remat", plain): {},
        ("r2unet step, remat", OURS): {"remat": True},
        ("r2unet step, accumulate_steps=4", OURS): {"accumulate_steps": 4},
    }
    for (case, who), settings in contestants.items():
        with Worker(PEERS[OURS]) as worker:
            result["versions"][OURS], empty = worker.versions, worker.peak()
            worker.prepare(case, "loop_step", model="r2unet", **SIZES[result["size"]]["loop_step"], **settings)
            run = functools.partial(worker.run, case)
            # The first run compiles: it counts, for memory is what this is about.
            row = report.row(case, who, alternate({case: run}, result["rounds"], warmups=0)[case], None)
            result["rows"].append(row | {"peak_bytes": worker.peak(), "empty_bytes": empty})
        progress(f"{case}, {who}: {row['median']:.3g} s, {result['rows'][-1]['peak_bytes'] / 1e9:.2f} GB")


def _startup(rounds, progress):
    """Whole processes, from start to exit."""

    def measure(arguments):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return seconds

    runs = {key: functools.partial(measure, arguments) for key, arguments in _COMMANDS.items()}
    seconds = alternate(runs, rounds, 1, progress)
    return [report.row(case, who, values, seconds.get((case, OURS))) for (case, who), values in seconds.items()]
