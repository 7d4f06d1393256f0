"""A section of a study's report: one data set's split, its scores, pairs, classes, groups and objects."""

import dataclasses

import numpy as np

from kseg.data.groups import groups_of, shown_groups
from kseg.io.errors import InputError
from kseg.io.text import count_text, first_names
from kseg.studies.report_details import Scored, class_rows, curves, group_rows, objects_table, within_shares
from kseg.studies.report_text import fixed_note, headline, seed_test_note
from kseg.studies.run_counts import FIXED, run_part
from kseg.studies.statistics.intervals import Groups as DrawnGroups
from kseg.studies.statistics.intervals import check_models, mean_iou, resampled_scores, score_interval
from kseg.studies.statistics.left_out import compare_left_out, estimate
from kseg.studies.statistics.significance import holm
from kseg.studies.statistics.verdict import compare


def fixed_models(plan):
    """Return the names of the models that are not trained."""
    return [model["name"] for model in plan["models"] if model.get("file")]


def planned_seeds(plan, model):
    """Return the seeds of a model's runs."""
    return [FIXED] if model in fixed_models(plan) else plan["seeds"]


def usable_seeds(plan, runs):
    """Return {model: seeds} to compare: models without a run are left out, and if paired, seeds that one lacks."""
    seeds = {model: [seed for seed in planned_seeds(plan, model) if seed in of] for model, of in runs.items() if of}
    trained = [set(of) for model, of in seeds.items() if model not in fixed_models(plan)]
    if not plan["paired"] or not trained:
        return seeds
    common = set.intersection(*trained) | {FIXED}
    return {model: [seed for seed in of if seed in common] for model, of in seeds.items()}


def section_of(plan, data, split, runs, equivalence):
    """Return the JSON of one data set's split, and its Comparisons."""
    seeds = usable_seeds(plan, runs)
    missing = [
        f"{model}/{data}/{run_part(seed)}"
        for model in runs
        for seed in planned_seeds(plan, model)
        if seed not in runs[model]
    ]
    unpaired = [
        f"{model}/{data}/{run_part(seed)}" for model in seeds for seed in runs[model] if seed not in seeds[model]
    ]
    section = {
        "data": data,
        "split": split,
        "headline": "",
        "open": "",
        "seeds": seeds,
        "fixed": [model for model in fixed_models(plan) if model in seeds],
        "planned": sum(len(planned_seeds(plan, model)) for model in runs),
        "missing": missing,
        "unpaired": unpaired,
        "scores": [],
        "pairs": [],
        "curves": curves(runs),
    }
    found = []
    if not all(seeds.values()) or not seeds:
        section["open"] = "No verdict: no seed is finished for every model."
    elif plan.get("leave_out"):
        found = _left_out(plan, runs, section, equivalence)
    else:
        found = _compared(plan, runs, seeds, section, equivalence)
    section["headline"] = headline(section)
    section["fixed_note"] = fixed_note(section)
    section["seed_test_note"] = seed_test_note(section)
    return section, found


def _compared(plan, runs, seeds, section, equivalence):
    """Fill a section with what the runs of `seeds` say, and return its Comparisons."""
    counts = {model: np.stack([runs[model][seed].counts for seed in of]) for model, of in seeds.items()}
    one = next(found for of in runs.values() for found in of.values())
    groups = groups_of_plan(plan, one)
    section["images"] = len(one.names)
    section["groups"] = {
        "by": groups.by,
        "unit": groups.unit,
        "count": len(groups.names),
        "meaning": groups.meaning(),
    }
    section["classes"] = list(one.classes)
    section["palette"] = None if one.palette is None else one.palette.tolist()
    names, member = np.unique(groups.of, return_inverse=True)
    scored = Scored(
        runs={model: [runs[model][seed] for seed in of] for model, of in seeds.items()},
        member=member,
        groups=tuple(names.tolist()),
        paired=plan["paired"],
        fixed=tuple(section["fixed"]),
    )
    section["per_class"] = class_rows(scored)
    section["per_group"] = group_rows(scored)
    section["objects"] = objects_table(scored)
    try:
        section["scores"] = _scores(counts, seeds, groups)
        if len(counts) == 1:
            return []
        found = _comparisons(plan, counts, groups, equivalence)
    except InputError as error:  # such as a single group: what else was found still is
        section["open"] = f"No verdict: {error}"
        return []
    tests = iter(holm([pair.seed_test.p for pair in found if pair.seed_test is not None]).tolist())
    section["pairs"] = [_pair(pair, next(tests) if pair.seed_test else None) for pair in found]
    return found


def _left_out(plan, runs, section, equivalence):
    """Fill a section with what runs say that each left out a group of train; return its Comparisons."""
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
                    **within_shares(interval.low, interval.high),
                    "runs": dict(zip(groups, values.tolist(), strict=True)),
                }
            )
        section["scores"].sort(key=lambda row: -row["mean_iou"])
        found = compare_left_out(scores, equivalence=equivalence, unit=f"{unit}s")
    except InputError as error:
        section["open"] = f"No verdict: {error}"
        return []
    tests = holm([pair.seed_test.p for pair in found])
    section["pairs"] = [_pair(pair, p) for pair, p in zip(found, tests.tolist(), strict=True)]
    return found


def groups_of_plan(plan, one):
    """Return the Groups of a run's images, as the plan says or the names show. one: RunCounts."""
    if plan["group_by"]:
        return groups_of(one.names, plan["group_by"], one.drive)
    return shown_groups(one.names, one.drive)


def _comparisons(plan, counts, groups, equivalence):
    of = None if groups.by == "image" else groups.of
    fixed = [model for model in fixed_models(plan) if model in counts]
    unit = f"{groups.unit}s"
    return compare(counts, of, paired=plan["paired"], equivalence=equivalence, unit=unit, fixed=fixed)


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
                **within_shares(interval.low, interval.high),
                "runs": {str(seed): score for seed, score in zip(seeds[name], runs, strict=True)},
            }
        )
    return sorted(rows, key=lambda row: -row["mean_iou"])


def _pair(pair, seed_p):
    """Return a Comparison in JSON types. seed_p: of its seed test, after Holm's correction; None where it has none."""
    needs = pair.budget
    if needs is not None:
        needs = {**dataclasses.asdict(needs), "sentence": str(needs)}
    chance = test = None
    if pair.seed_test is not None:
        chance = {**dataclasses.asdict(pair.superiority), "meaningful": pair.superiority.meaningful}
        test = {"p": pair.seed_test.p, "p_holm": seed_p, "smallest_p": pair.seed_test.smallest_p}
    return {
        "first": pair.first,
        "second": pair.second,
        "fixed": list(pair.fixed),
        "verdict": pair.verdict,
        "result": pair.result,
        "lacks": pair.lacks,
        "digits": pair.digits,
        "first_score": pair.first_score.value,
        "second_score": pair.second_score.value,
        "difference": pair.difference.value,
        "low": pair.difference.low,
        "high": pair.difference.high,
        "level": pair.difference.level,
        "p": pair.p,
        "p_equivalent": pair.p_equivalent,
        "superiority": chance,
        "seed_test": test,
        "shares": pair.shares,
        "budget": needs,
    }
