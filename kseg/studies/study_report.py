"""What a study found, as text and JSON, from its counts alone: seconds, without TensorFlow."""

import dataclasses
import itertools
import json
import math
import numbers
import pathlib
from typing import Any

import numpy as np

from kseg import __version__
from kseg.io.errors import InputError, MissingFileError, error_in
from kseg.io.files import checked_path, reading, write_atomic, write_json
from kseg.io.hash_list import write_hashes
from kseg.io.text import count_text, first_names
from kseg.studies.budgets import TRAINING, seconds_note
from kseg.studies.report_sections import groups_of_plan, planned_seeds, section_of, usable_seeds
from kseg.studies.report_text import text_of
from kseg.studies.run_counts import FIXED, FOLDER, RESULTS, RunCounts, counts_path, read_counts, write_results
from kseg.studies.statistics.power import budget
from kseg.studies.statistics.variance import components, linearised
from kseg.studies.statistics.verdict import EQUIVALENCE, Comparison
from kseg.studies.study_page import write_study_page
from kseg.studies.study_plan import PLAN

_SOURCE = ("model", "data", "seed", "manifest_sha256", "weights_sha256", "flags_sha256", "kseg_version")
COSTS = "costs.json"
# What the statistics need of a study's folder, and what the report adds; their sha256 in sha256.txt.
STUDY_PARTS = (PLAN, COSTS, RESULTS, FOLDER, "maps")
REPORT_PARTS = (*STUDY_PARTS, "report.json", "report.txt", "report")


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """What a study found; `str()` is report.txt.

    comparisons: {(data, split): list of `kseg.studies.statistics.Comparison`}. table: what report.json holds. runs:
    those that are finished, {(data, split): {model: {seed: RunCounts}}}. broken: the runs that failed, dicts of run,
    code, log (path) and end (its last lines).
    """

    comparisons: dict[tuple[str, str], list[Comparison]]
    table: dict[str, Any]
    runs: dict[tuple[str, str], dict[str, dict[int, RunCounts]]] = dataclasses.field(repr=False)
    broken: tuple[str, ...] = ()

    def __str__(self):
        return text_of(self.table)


def report(output, *, equivalence=EQUIVALENCE, broken=()):
    """Compare the models of a study by the runs that are finished.

    Writes OUTPUT/report.txt, report.json, results.csv and report/, and last sha256.txt, by which `kseg.studies.verify`
    checks them.

    Args:
        output: a study's folder. equivalence: the difference of mean IoU that does not matter. broken: runs that
            failed just now.
    Returns:
        StudyReport
    Raises:
        InputError: no study there, counts or maps that are damaged or of other images, a folder OUTPUT/report that
            kseg did not write.
    """
    found = compared(output, equivalence=equivalence, broken=broken)
    output = pathlib.Path(output)
    rows = finished_rows(output, found.table["plan"])
    if rows:
        write_results(output, rows)
    write_json(output / "report.json", found.table)
    write_atomic(str(output / "report.txt"), f"{found}\n".encode())
    write_study_page(output, found.table, found.runs)
    write_hashes(output, REPORT_PARTS)
    return found


def compared(output, *, equivalence=EQUIVALENCE, broken=()):
    """Do what `report` does, and write nothing."""
    output = pathlib.Path(checked_path(output, "output"))
    check_equivalence(equivalence)
    stored = stored_study(output)
    plan = stored["plan"]
    comparisons = {}
    found_runs = {}
    sections = []
    costs = []
    for data in plan["data"]:
        for split in data["splits"]:
            runs = _runs(output, plan, data["name"], split)
            section, found = section_of(plan, data["name"], split, runs, equivalence)
            sections.append(section)
            comparisons[data["name"], split] = found
            found_runs[data["name"], split] = runs
        costs += _costs(plan, data["name"], runs)
    table = {
        "format": "kseg study report 1",
        "kseg_version": __version__,
        "name": plan["name"],
        "plan": plan,
        "equivalence": equivalence,
        "sections": sections,
        "costs": costs,
        "seconds_note": seconds_note(plan["budget"], costs),
        "sources": [_source(row) for row in finished_rows(output, plan) if row["split"] == _first_split(plan, row)],
        "before": stored["before"],
        "broken": list(broken),
    }
    return StudyReport(comparisons, table, found_runs, tuple(broken))


def finished_rows(output, plan):
    """Return the rows of results.csv, in the order of the plan: of each run that is scored on every split."""
    rows = []
    for paths in _planned_counts(output, plan):
        if all(path.exists() for path in paths):
            rows += [read_counts(path).row for path in paths]
    return rows


def is_finished(output, plan):
    """Whether every run of a study is scored on every split."""
    return all(path.exists() for paths in _planned_counts(output, plan) for path in paths)


def _planned_counts(output, plan):
    """Yield the paths of each run's counts, in the order of the plan."""
    fixed = [model for model in plan["models"] if model.get("file")]
    trained = [model for model in plan["models"] if not model.get("file")]
    runs = [*itertools.product([FIXED], plan["data"], fixed), *itertools.product(plan["seeds"], plan["data"], trained)]
    for seed, data, model in runs:
        yield [counts_path(output, model["name"], data["name"], seed, split) for split in data["splits"]]


def _first_split(plan, row):
    return next(data["splits"][0] for data in plan["data"] if data["name"] == row["data"])


def _source(row):
    """Return what a run's numbers come from: the sha256 of its records, weights and flags, and the version of kseg."""
    return {key: row.get(key) for key in _SOURCE}


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
    planned = [(model, seed) for model in runs for seed in planned_seeds(plan, model)]
    for model, seed in planned:
        path = counts_path(output, model, data, seed, split)
        if path.exists():
            found = read_counts(path)
            first = firsts.setdefault(found.row.get("left_out"), found)
            if (found.names, found.classes) != (first.names, first.classes):
                raise InputError(f"{path} counts other images or classes than the other runs of {data}, split {split}.")
            runs[model][seed] = found
    return runs


def _costs(plan, data, runs):
    """Return what the runs of each model cost, and how much of the budget that is."""
    kind, value = plan["budget"]["kind"], plan["budget"]["value"]
    rows = []
    for model, of in runs.items():
        if not of or FIXED in of:
            continue
        found = [one.row for one in of.values()]
        one = found[0]
        cpu_seconds = float(np.mean([row["cpu_seconds"] for row in found]))
        spent = {
            "multiply-adds": TRAINING * one["multiply_adds"] * one["images_seen"],
            "images": one["images_seen"],
            "seconds": cpu_seconds,
            "gpu-seconds": None,  # nobody measures them
        }
        memory = [row["peak_memory"] for row in found if row["peak_memory"] is not None]
        rows.append(
            {
                "model": model,
                "data": data,
                "parameters": one["parameters"],
                "multiply_adds": one["multiply_adds"],
                "images_seen": one["images_seen"],
                "cpu_seconds": cpu_seconds,
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
    try:
        pilot = stored_study(folder)["plan"]
    except InputError as error:
        raise error_in("pilot", error) from error
    lines = []
    for data in plan["data"]:
        for split in data["splits"]:
            runs = _runs(folder, pilot, data["name"], split)
            seeds = usable_seeds(pilot, runs)
            wanted = [model["name"] for model in plan["models"] if len(seeds.get(model["name"], ())) > 1]
            pairs = math.comb(len(plan["models"]), 2)
            for first, second in itertools.combinations(wanted, 2):
                line = _power_line(plan, pilot, runs, seeds, (first, second), pairs, equivalence)
                lines.append(f"Pilot on {data['name']}, split {split}, {first} and {second}: {line}")
    if not lines:
        raise InputError(
            f"A pilot must have two finished seeds of two models of the study, on records and a split of the same "
            f"name, but {folder} has {count_text(len(pilot['models']), 'model')} "
            f"({first_names([model['name'] for model in pilot['models']], 5)})."
        )
    return lines


def _power_line(plan, pilot, runs, seeds, pair, pairs, equivalence):
    """Return `power.budget` of a pair among `pairs`, from the pilot's counts, for the plan's seeds."""
    fewest = min(len(seeds[model]) for model in pair)
    counts = [np.stack([runs[model][seed].counts for seed in seeds[model][:fewest]]) for model in pair]
    one = runs[pair[0]][seeds[pair[0]][0]]
    groups = groups_of_plan(pilot if not plan["group_by"] else plan, one)
    values = [linearised(of) for of in counts]
    found = components(values[0] - values[1], groups.of)
    needs = budget(
        found,
        seeds=len(plan["seeds"]),
        paired=plan["paired"],
        difference=equivalence,
        unit=f"{groups.unit}s",
        pairs=pairs,
    )
    return str(needs)
