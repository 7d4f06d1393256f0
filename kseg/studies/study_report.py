"""What a study found, as text and JSON, from its counts alone: seconds, without TensorFlow."""

import dataclasses
import itertools
import json
import numbers
import pathlib

import numpy as np

from kseg import __version__
from kseg.data.groups import groups_of, shown_groups
from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import checked_path, reading, write_atomic, write_json
from kseg.io.text import count_text, first_names
from kseg.studies.budgets import TRAINING
from kseg.studies.report_text import text_of
from kseg.studies.run_counts import counts_path, read_counts
from kseg.studies.statistics.intervals import Groups as DrawnGroups
from kseg.studies.statistics.intervals import check_models, mean_iou, resampled_scores, score_interval
from kseg.studies.statistics.left_out import compare_left_out, estimate
from kseg.studies.statistics.power import budget
from kseg.studies.statistics.significance import holm
from kseg.studies.statistics.variance import components, linearised
from kseg.studies.statistics.verdict import EQUIVALENCE, compare

PLAN = "study.json"


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """What a study found; `str()` is report.txt.

    comparisons: {(data, split): list of `kseg.studies.statistics.Comparison`}. table: what report.json holds. broken:
    the runs that failed, dicts of run, code, log (path) and end (its last lines).
    """

    comparisons: dict
    table: dict
    broken: tuple = ()

    def __str__(self):
        return text_of(self.table)


def report(output, *, equivalence=EQUIVALENCE, broken=()):
    """Compare the models of a study by the runs that are finished, and write OUTPUT/report.txt and report.json.

    Args:
        output: a study's folder. equivalence: the difference of mean IoU that does not matter. broken: runs that
            failed just now.
    Returns:
        StudyReport
    Raises:
        InputError: no study there, or counts that are damaged or of other images.
    """
    output = pathlib.Path(checked_path(output, "output"))
    check_equivalence(equivalence)
    stored = stored_study(output)
    plan = stored["plan"]
    comparisons = {}
    sections = []
    costs = []
    for data in plan["data"]:
        for split in data["splits"]:
            runs = _runs(output, plan, data["name"], split)
            section, found = _section(plan, data["name"], split, runs, equivalence)
            sections.append(section)
            comparisons[data["name"], split] = found
        costs += _costs(plan, data["name"], runs)
    table = {
        "format": "kseg study report 1",
        "kseg_version": __version__,
        "name": plan["name"],
        "plan": plan,
        "equivalence": equivalence,
        "sections": sections,
        "costs": costs,
        "before": stored["before"],
        "broken": list(broken),
    }
    found = StudyReport(comparisons, table, tuple(broken))
    write_json(output / "report.json", table)
    write_atomic(str(output / "report.txt"), f"{found}\n".encode())
    return found


def check_equivalence(equivalence):
    """Raise InputError unless a difference that does not matter is a share of 1."""
    if not isinstance(equivalence, numbers.Real) or not 0 < equivalence < 1:
        raise InputError(f"equivalence must lie in 0..1, got {equivalence!r}.")


def stored_study(output):
    """Return {plan, before} of a study's folder: the plan in JSON types, the lines of `power_before`."""
    path = output / PLAN
    if not path.exists():
        raise MissingFileError(f"{output} holds no study: there is no {PLAN}. Give the output folder of one.")
    with reading(path):
        try:
            table = json.loads(path.read_bytes())
            return {"plan": table["plan"], "before": table["before"]}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}). Start the study again in another folder.") from error


def _runs(output, plan, data, split):
    """Return {model: {seed: RunCounts}} of what is finished, every model in it; InputError for other images."""
    runs = {model["name"]: {} for model in plan["models"]}
    firsts = {}
    for model, seed in itertools.product(runs, plan["seeds"]):
        path = counts_path(output, model, data, seed, split)
        if path.exists():
            found = read_counts(path)
            first = firsts.setdefault(found.row.get("left_out"), found)
            if (found.names, found.classes) != (first.names, first.classes):
                raise InputError(f"{path} counts other images or classes than the other runs of {data}, split {split}.")
            runs[model][seed] = found
    return runs


def _usable(plan, runs):
    """Return {model: seeds} to compare: models without a run are left out, and if paired, seeds that one lacks."""
    seeds = {model: [seed for seed in plan["seeds"] if seed in of] for model, of in runs.items() if of}
    if not plan["paired"] or not seeds:
        return seeds
    common = set.intersection(*map(set, seeds.values()))
    return {model: [seed for seed in of if seed in common] for model, of in seeds.items()}


def _section(plan, data, split, runs, equivalence):
    """Return the JSON of one data set's split, and its Comparisons."""
    seeds = _usable(plan, runs)
    missing = [f"{model}/{data}/seed-{seed}" for model in runs for seed in plan["seeds"] if seed not in runs[model]]
    section = {"data": data, "split": split, "seeds": seeds, "missing": missing, "scores": [], "pairs": [], "open": ""}
    if not any(seeds.values()):
        section["open"] = "No verdict: no seed is finished for every model."
        return section, []
    if plan.get("leave_out"):
        return _left_out_section(section, plan, runs, equivalence)
    counts = {model: np.stack([runs[model][seed].counts for seed in of]) for model, of in seeds.items()}
    one = next(found for of in runs.values() for found in of.values())
    groups = _groups(plan, one)
    section["images"] = len(one.names)
    section["groups"] = {
        "by": groups.by,
        "unit": groups.unit,
        "count": len(groups.names),
        "meaning": groups.meaning(),
    }
    try:
        section["scores"] = _scores(counts, seeds, groups)
        found = _comparisons(plan, counts, groups, equivalence)
    except InputError as error:  # such as a single group: what else was found still is
        section["open"] = f"No verdict: {error}"
        return section, []
    tests = holm([pair.seed_test.p for pair in found])
    section["pairs"] = [_pair(pair, p) for pair, p in zip(found, tests, strict=True)]
    return section, found


def _left_out_section(section, plan, runs, equivalence):
    """Return the JSON and Comparisons of runs that each left out a group of train, and were scored on it."""
    by_group = {model: {} for model in section["seeds"]}
    for model, seeds in section["seeds"].items():
        for seed in seeds:
            one = runs[model][seed]
            by_group[model].setdefault(one.row["left_out"], []).append(float(mean_iou(one.counts.sum(axis=0))))
    groups = sorted(set.intersection(*map(set, by_group.values())))
    unit = "drive" if plan["leave_out"] == "drive" else "group"
    section["left_out"] = groups
    section["groups"] = {
        "by": plan["leave_out"],
        "unit": unit,
        "count": len(groups),
        "meaning": (
            f"Each run was trained without one {unit} and scored on it: {count_text(len(groups), unit)} "
            f"({first_names(groups, 5)}). Differences are between runs that left out the same. The interval tells of "
            f"other {unit}s that are scored, not of other {unit}s to train on."
        ),
    }
    scores = {model: np.array([np.mean(of[group]) for group in groups]) for model, of in by_group.items()}
    try:
        for model, values in scores.items():
            interval = estimate(values)
            section["scores"].append(
                {
                    "model": model,
                    "mean_iou": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "runs": dict(zip(groups, values.tolist(), strict=True)),
                }
            )
        section["scores"].sort(key=lambda row: -row["mean_iou"])
        found = compare_left_out(scores, equivalence=equivalence, unit=f"{unit}s")
    except InputError as error:
        section["open"] = f"No verdict: {error}"
        return section, []
    tests = holm([pair.seed_test.p for pair in found])
    section["pairs"] = [_pair(pair, p) for pair, p in zip(found, tests, strict=True)]
    return section, found


def _groups(plan, one):
    if plan["group_by"]:
        return groups_of(one.names, plan["group_by"], one.drive)
    return shown_groups(one.names, one.drive)


def _comparisons(plan, counts, groups, equivalence):
    of = None if groups.by == "image" else groups.of
    return compare(counts, of, paired=plan["paired"], equivalence=equivalence, unit=f"{groups.unit}s")


def _scores(counts, seeds, groups):
    """Return each model's mean score with its interval, and the scores of its runs, best first."""
    arrays, member = check_models(counts, None if groups.by == "image" else groups.of)
    drawn = DrawnGroups.of(next(iter(arrays.values())), member)
    rows = []
    for name, scores in resampled_scores(arrays, member).items():
        interval = score_interval(scores, drawn)
        runs = mean_iou(arrays[name].sum(axis=1)).tolist()
        rows.append(
            {
                "model": name,
                "mean_iou": interval.value,
                "low": interval.low,
                "high": interval.high,
                "runs": {str(seed): score for seed, score in zip(seeds[name], runs, strict=True)},
            }
        )
    return sorted(rows, key=lambda row: -row["mean_iou"])


def _pair(pair, seed_p):
    """Return a Comparison in JSON types. seed_p: of its seed test, after Holm's correction."""
    needs = pair.budget
    if needs is not None:
        needs = {**dataclasses.asdict(needs), "sentence": str(needs)}
    return {
        "first": pair.first,
        "second": pair.second,
        "verdict": pair.verdict,
        "result": pair.result,
        "difference": pair.difference.value,
        "low": pair.difference.low,
        "high": pair.difference.high,
        "level": pair.difference.level,
        "p": pair.p,
        "p_equivalent": pair.p_equivalent,
        "superiority": dataclasses.asdict(pair.superiority),
        "seed_test": {"p": pair.seed_test.p, "p_holm": float(seed_p), "smallest_p": pair.seed_test.smallest_p},
        "shares": pair.shares,
        "budget": needs,
    }


def _costs(plan, data, runs):
    """Return what the runs of each model cost, and how much of the budget that is."""
    kind, value = plan["budget"]["kind"], plan["budget"]["value"]
    rows = []
    for model, of in runs.items():
        if not of:
            continue
        found = [one.row for one in of.values()]
        one = found[0]
        spent = {
            "multiply-adds": TRAINING * one["multiply_adds"] * one["images_seen"],
            "images": one["images_seen"],
            "seconds": float(np.mean([row["cpu_seconds"] for row in found])),
        }
        memory = [row["peak_memory"] for row in found if row["peak_memory"] is not None]
        rows.append(
            {
                "model": model,
                "data": data,
                "parameters": one["parameters"],
                "multiply_adds": one["multiply_adds"],
                "images_seen": one["images_seen"],
                "cpu_seconds": spent["seconds"],
                "peak_memory": max(memory, default=None),
                "spent": spent[kind],
                "budget": value,
            }
        )
    return rows


def power_before(plan, equivalence=EQUIVALENCE):
    """Return what the pilot of a plan says of its power, a sentence for each pair; none without a pilot.

    A study of as many groups as the pilot scored, and of the plan's seeds, is asked about.

    Args:
        plan: of `Plan.as_json`.
    Raises:
        InputError: the pilot lacks two seeds of each of two models of the plan, on data of the same name.
    """
    if not plan["pilot"]:
        return []
    folder = pathlib.Path(checked_path(plan["pilot"], "pilot"))
    pilot = stored_study(folder)["plan"]
    lines = []
    for data in plan["data"]:
        for split in data["splits"]:
            runs = _runs(folder, pilot, data["name"], split)
            seeds = _usable(pilot, runs)
            wanted = [model["name"] for model in plan["models"] if len(seeds.get(model["name"], ())) > 1]
            for first, second in itertools.combinations(wanted, 2):
                line = _power_line(plan, pilot, runs, seeds, (first, second), equivalence)
                lines.append(f"Pilot on {data['name']}, split {split}, {first} and {second}: {line}")
    if not lines:
        raise InputError(
            f"A pilot must have two finished seeds of two models of the study, on records and a split of the same "
            f"name, but {folder} has {count_text(len(pilot['models']), 'model')} "
            f"({first_names([model['name'] for model in pilot['models']], 5)})."
        )
    return lines


def _power_line(plan, pilot, runs, seeds, pair, equivalence):
    """Return `power.budget` of a pair, from the pilot's counts, for the plan's seeds."""
    fewest = min(len(seeds[model]) for model in pair)
    counts = [np.stack([runs[model][seed].counts for seed in seeds[model][:fewest]]) for model in pair]
    one = runs[pair[0]][seeds[pair[0]][0]]
    groups = _groups(pilot if not plan["group_by"] else plan, one)
    values = [linearised(of) for of in counts]
    found = components(values[0] - values[1], groups.of)
    needs = budget(
        found,
        seeds=len(plan["seeds"]),
        paired=plan["paired"],
        difference=equivalence,
        unit=f"{groups.unit}s",
    )
    return str(needs)
