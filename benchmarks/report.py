"""Medians, ratios, goals, and how they are shown."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics

import kseg

# Of a processor: what decides its speed, and (from the third on) whether TensorFlow takes oneDNN by itself.
FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclasses.dataclass(frozen=True)
class Goal:
    """What must hold of a case: our median time in seconds, or the ratio of ours to a peer's, is at most `limit`.

    Args: `case`: title of rows. `measure`: "time" or "memory" (peak resident). `peer`: None for absolute seconds.
    """

    case: str
    measure: str
    peer: str | None
    limit: float

    def __str__(self):
        if self.peer is None:
            return f"{self.case}: kseg at most {self.limit:.3g} s"
        return f"{self.case}: {self.measure} of kseg / {self.peer} at most {self.limit:.3g}"


def load_average():
    """Processes that ran or waited during the last minute, 1 among them our own; None where it is unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def surroundings():
    """Date, machine and version, as JSON values."""
    cpu, features = platform.processor(), []
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        cpu = fields.get("model name", cpu)
        flags = fields.get("flags", "").split()
        features = [name for name in FEATURES if name in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "kseg": kseg.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "machine": {
            "cpu": cpu,
            "cores": cores,
            "features": features,
            "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
            "system": platform.platform(),
        },
        "load_average": load_average(),
    }


def row(case, who, seconds, ours):
    """One line of the table: median and spread of `seconds`, and the ratio of our times to them.

    The ratio is the median of the rounds' own, whose runs were neighbours in time: a shared machine changes its speed
    from round to round, and medians of each side may come from different ones. Without `ours` (None) there is none.
    """
    line = {
        "case": case,
        "who": who,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "spread": [min(seconds), max(seconds)],
    }
    if ours:
        line["ours_to_this"], line["ours_to_this_spread"] = ratio(ours, seconds)
    return line


def ratio(times, others):
    """(median, [least, most]) of the rounds' own ratios of two contestants' seconds."""
    ratios = [a / b for a, b in zip(times, others, strict=True)]
    return statistics.median(ratios), [min(ratios), max(ratios)]


def add_shares(result):
    """Give every row the share of the machine's limit that its median reaches."""
    for line in result["rows"]:
        if "work" in line:
            line["share"] = line["work"] / line["median"] / result["ceilings"][line["limit"]]


def judge(goals, result):
    """Each goal with what was measured; `met` is None where the peer is missing or the case was not run."""
    lines = {(line["case"], line["who"]): line for line in result["rows"]}
    verdicts = []
    for goal in goals:
        ours, peer = lines.get((goal.case, "kseg")), lines.get((goal.case, goal.peer))
        value = None
        if goal.peer is None and ours:
            value = ours["median"]
        elif ours and peer:
            memory = goal.measure == "memory"
            value = ours["peak_bytes"] / peer["peak_bytes"] if memory else peer["ours_to_this"]
        met = None if value is None else value <= goal.limit
        verdicts.append({"goal": str(goal), "limit": goal.limit, "value": value, "met": met})
    return verdicts


def missed(result):
    """The goals that were measured and do not hold."""
    return [verdict for verdict in result["goals"] if verdict["met"] is False]


def _spread(values, digits=3):
    return "-".join(f"{value:.{digits}g}" for value in values)


def _cells(line):
    work = "share" in line
    per_second = line["work"] / line["median"] / 1e9 if work else None
    compared = line["who"] != "kseg" and "ours_to_this" in line
    unit = "GB/s" if line.get("limit") == "copy" else "GFLOP/s"
    return (
        line["case"],
        line["who"],
        f"{line['median']:.3g} s",
        _spread(line["spread"]),
        f"{line['ours_to_this']:.2f} ({_spread(line['ours_to_this_spread'], 2)})" if compared else "",
        f"{per_second:.3g} {unit}, {line['share']:.0%}" if work else "",
        f"{line['peak_bytes'] / 1e9:.2f} GB" if line.get("peak_bytes") else "",
    )


def model_cells(line):
    """Of the table of models: name, parameters, multiply-adds of an image, memory and time of a training step."""
    return (
        line["case"],
        f"{line['parameters'] / 1e6:.2f} M",
        f"{line['multiply_adds'] / 1e9:.4g} G",
        f"{line['peak_bytes'] / 1e9:.2f} GB",
        f"{line['median']:.3g} s",
    )


def kernel_cells(line):
    """Of the table of kernels: network, contestant, a step with its ratio to PyTorch's, memory, evaluation likewise."""

    def compared(name):
        if name not in line:
            return ""
        median, spread = line[name]
        return f"{median:.2f} ({_spread(spread, 2)})"

    evaluation = line["evaluation"]
    return (
        line["case"],
        line["who"],
        f"{line['median']:.3g} s ({_spread(line['spread'])})",
        compared("to_pytorch"),
        f"{line['peak_bytes'] / 1e9:.2f} GB",
        f"{statistics.median(evaluation):.3g} s ({_spread([min(evaluation), max(evaluation)])})",
        compared("evaluation_to_pytorch"),
    )


_KERNEL_HEAD = (
    *("network", "who", "a training step (min-max)", "/ PyTorch", "peak memory"),
    *("evaluating an image (min-max)", "/ PyTorch"),
)
_MODEL_HEAD = ("model", "parameters", "multiply-adds of an image", "peak memory of a step", "seconds per step")


def _heading(line):
    return (
        f"Training step: {line['precision']}, batch {line['batch']}, {line['height']}x{line['width']}, "
        f"{line['num_classes']} classes, {line['options']['base_filters']} base filters, Adam"
    )


def _limited(machine):
    """Where oneDNN is kept from instructions that the processor has, to be like another one."""
    return f", oneDNN kept to {machine['onednn_isa']}" if machine["onednn_isa"] else ""


def text(result):
    """The report as a Markdown table and lines around it."""
    machine = result["machine"]
    lines = [
        f"Suite {result['suite']} ({result['size']}), {result['rounds']} rounds, "
        f"kseg {result['kseg']}, {result['date']}",
        f"Machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['features'])}){_limited(machine)}; "
        f"load average {result['load_average']} before, {result['load_average_after']} after",
    ]
    for who, versions in result["versions"].items():
        lines.append(f"{who}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    lines += [f"{who}: {reason}" for who, reason in result["missing"].items()]
    if result["ceilings"]:
        rates = [
            f"{limit} {rate / 1e9:.3g} {'GB/s' if limit == 'copy' else 'GFLOP/s'}"
            for limit, rate in result["ceilings"].items()
        ]
        lines.append("Ceilings, best of the run: " + ", ".join(rates))
    head, cells = ("case", "who", "median", "min-max", "kseg / this", "rate, share of ceiling", "peak memory"), _cells
    if result["suite"] == "models":
        head, cells = _MODEL_HEAD, model_cells
        lines.append(_heading(result["rows"][0]))
    elif result["suite"] == "kernels":
        head, cells = _KERNEL_HEAD, kernel_cells
    table = [head, *map(cells, result["rows"])]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    table.insert(1, tuple("-" * width for width in widths))
    lines += ["", *("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table), ""]
    for verdict in result["goals"]:
        word = {True: "met", False: "MISSED", None: "not measured"}[verdict["met"]]
        value = "" if verdict["value"] is None else f" (measured {verdict['value']:.3g})"
        lines.append(f"{word}: {verdict['goal']}{value}")
    return "\n".join(lines)


def write(result, path):
    """Write the report as JSON; whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
