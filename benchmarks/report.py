"""Medians, ratios, and how they are shown."""

import datetime
import os
import pathlib
import platform
import statistics

import kseg

# Of a processor: what decides its speed, and (from the third on) whether TensorFlow takes oneDNN by itself.
FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16")
HEAD = (
    *("case", "who", "seconds", "min-max", "first / this (min-max)", "CPU seconds"),
    *("peak memory", "empty process", "parameters", "multiply-adds of an image"),
)


def load_average():
    """Processes that ran or waited during the last minute, 1 among them our own; None where it is unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def surroundings():
    """Date, machine and version, as JSON values."""
    cpu = platform.processor()
    features = []
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        cpu = fields.get("model name", cpu)
        features = [name for name in FEATURES if name in fields.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"cpu": cpu, "cores": cores, "features": features, "system": platform.platform()}
    machine["onednn_isa"] = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return {
        "kseg": kseg.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "machine": machine,
        "load_average": load_average(),
    }


def row(case, who, turns, first):
    """One line of the table, of a contestant's turns and those of the first of its case (None where it has none).

    The ratio is the median of the rounds' own, whose turns were neighbours in time: a shared machine changes its speed
    from round to round, and medians of each side may come from different ones. Memory is the largest of the turns.
    """
    seconds = [turn["seconds"] for turn in turns]
    line = {
        **turns[0],
        "case": case,
        "who": who,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "spread": [min(seconds), max(seconds)],
        "peak_bytes": max(turn["peak_bytes"] for turn in turns),
    }
    if all("cpu_seconds" in turn for turn in turns):
        line["cpu_median"] = statistics.median(turn["cpu_seconds"] for turn in turns)
    if first is not None and first is not turns:
        ratios = [ours["seconds"] / theirs for ours, theirs in zip(first, seconds, strict=True)]
        line["ratio"] = statistics.median(ratios)
        line["ratio_spread"] = [min(ratios), max(ratios)]
    return line


def _spread(values, digits):
    return "-".join(f"{value:.{digits}g}" for value in values)


def _cells(line):
    return (
        line["case"],
        line["who"],
        f"{line['median']:.3g}",
        _spread(line["spread"], 3),
        f"{line['ratio']:.2f} ({_spread(line['ratio_spread'], 2)})" if "ratio" in line else "",
        f"{line['cpu_median']:.3g}" if "cpu_median" in line else "",
        f"{line['peak_bytes'] / 1e9:.2f} GB" if line["peak_bytes"] else "",
        f"{line['empty_bytes'] / 1e9:.2f} GB" if line["empty_bytes"] else "",
        f"{line['parameters'] / 1e6:.2f} M" if "parameters" in line else "",
        f"{line['multiply_adds'] / 1e9:.4g} G" if "multiply_adds" in line else "",
    )


def text(result):
    """The report as a Markdown table and lines above it; columns with nothing in them are left out."""
    machine = result["machine"]
    limited = ""  # where oneDNN is kept from instructions that the processor has, to be like another one
    if machine["onednn_isa"]:
        limited = f", oneDNN kept to {machine['onednn_isa']}"
    lines = [
        f"Suite {result['suite']} ({result['size']}), {result['rounds']} rounds, "
        f"kseg {result['kseg']}, {result['date']}",
        f"Machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['features'])}){limited}; "
        f"load average {result['load_average']} before, {result['load_average_after']} after",
    ]
    for who, versions in result["versions"].items():
        lines.append(f"{who}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    lines += [f"{who}: {reason}" for who, reason in result["missing"].items()]
    columns = zip(HEAD, *map(_cells, result["rows"]), strict=True)
    columns = [column for column in columns if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    head, *rows = zip(*columns, strict=True)
    table = [head, ["-" * width for width in widths], *rows]
    lines += ["", *("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table)]
    return "\n".join(lines)
