"""The numbers of a comparison: as JSON types and as text."""

import dataclasses
import math
from typing import Any

from kseg.io.files import StrPath, write_json
from kseg.io.text import agreeing_digits, decimals, shown_gap, signed
from kseg.metrics.objects import ObjectScores
from kseg.metrics.scores import Scores, count_of_classes
from kseg.score_table import MICRO_SCORES, SCORES

_DIGITS = 4


def difference_rows(whole, by_image, by_group, pixels):
    """Return {"scores": rows, "per_class": rows}: each model's value and its difference from the first with intervals.

    "digits" of a difference: how many decimals show it on the page without contradiction (`io.text.agreeing_digits`).

    Args:
        whole: `scores_of_counts` of all images. by_image, by_group: of `paired_bootstrap`; by_group is None where each
            image is for itself.
        pixels: of the truth, by class.
    """

    def differences(pick, values):
        rows = [None]
        for k, one in enumerate(by_image):
            image = pick(one)
            row = {"difference": image.difference, "by_image": [image.low, image.high]}
            group = pick(by_group[k]) if by_group else None
            drawn = group or image
            digits = agreeing_digits(values[0], values[k + 1], drawn.low, drawn.high, _DIGITS)
            row |= {"by_group": group and [group.low, group.high], "above": drawn.above, "digits": digits}
            rows.append(row)
        return rows

    scores = [
        {"key": key, "title": score.title, "values": whole[key].tolist(),
         "differences": differences(lambda one, key=key: one[key], whole[key])}
        for key, score in (SCORES | MICRO_SCORES).items()
    ]  # fmt: skip
    classes = [
        {"pixels": count, "values": whole["per_class"][:, c].tolist(),
         "differences": differences(lambda one, c=c: one["per_class"][c], whole["per_class"][:, c])}
        for c, count in enumerate(pixels.tolist())
    ]  # fmt: skip
    return {"scores": scores, "per_class": classes}


def verdict(names, values, interval, above, unit, alone=""):
    """Say which of two models has the higher mean IoU, and whether that is more than chance.

    Args:
        names, values: of the first model and the other. interval: of other minus first. above: share of the resamples
            in which the other is above the first. unit: what was resampled. alone: `Groups.alone`, where they are few.
    Returns:
        dict: text, a sentence, whose difference is that of the scores in it and positive; winner, 0 or 1, None where
        the interval holds 0 or nothing can be scored.
    """
    low, high = interval
    if math.isnan(low):
        return {"winner": None, "text": "There is no mean IoU to compare: no pixel of the truth is of a class."}
    ahead, behind = 0, 1
    if values[1] > values[0]:
        ahead, behind = 1, 0
    else:
        low, high, above = -high, -low, 1 - above
    if low == high == 0:
        return {"winner": None, "text": f"{names[0]} and {names[1]} have the same mean IoU, also in each resample."}
    digits = agreeing_digits(values[behind], values[ahead], low, high)
    best, other = (f"{values[model]:.{digits}f}" for model in (ahead, behind))
    gap = signed(shown_gap(values[behind], values[ahead], digits), digits)
    ends = f"{alone and f', {alone}:'} {signed(low, digits)} to {signed(high, digits)}"
    numbers = f"a difference of {gap} (95 % interval by {unit}{ends}"
    if low > 0:
        text = f"{names[ahead]} has the higher mean IoU: {best} against {other}, {numbers})."
        return {"winner": ahead, "text": text}
    chance = f"{names[ahead]} is ahead in {_percent(above)} of the resamples"
    text = f"No clear winner by mean IoU: {names[ahead]} {best}, {names[behind]} {other}, {numbers}; {chance})."
    return {"winner": None, "text": text}


def _percent(share):
    """Return a share of 1 in per cent; only all is 100 and only none is 0."""
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found; `str()` is its summary, `table` what comparison.json holds.

    names: of the models, the first is the one that the others are compared with. scores: kseg.metrics.Scores of each.
    objects: metrics.objects.ObjectScores of each. table: JSON types, nan where nothing can be scored: "scored_classes"
    are those of the truth, which all means in it are over (those of `scores` also take what a model alone predicts);
    "verdicts" has a sentence for each model but the first (`verdict`); "scores" and "per_class" have rows with the
    models' values and differences ("by_image", "by_group": intervals, the latter None where each image is for itself;
    "above": share of the resamples, of groups where there are any, in which the model is above the first), "images" a
    row for each image. "bootstrap" says what the groups are.
    """

    names: tuple[str, ...]
    scores: tuple[Scores, ...]
    objects: tuple[ObjectScores, ...]
    table: dict[str, Any]

    def to_json(self, path: StrPath) -> None:
        """Write `table` to a file, nan as null; completely or not at all."""
        write_json(path, self.table, indent=None)

    def __str__(self):
        blocks = [
            f"{self.table['verdicts'][second]['text']}\n\n{self._difference(second)}"
            for second in range(1, len(self.names))
        ]
        return "\n\n".join([*blocks, self._found(), self._note()])

    def _difference(self, model):
        first = self.names[0]
        second = self.names[model]
        width = max(len(row["title"]) for row in self.table["scores"])
        step = max(10, *(len(name) + 2 for name in self.names))
        drawn = self.table["bootstrap"]
        intervals = {"by_image": "95 % by image"}
        if drawn["groups"]:
            intervals = {"by_group": f"95 % by {drawn['unit']}", **intervals}
        titles = "".join(f"  {title:<18}" for title in intervals.values())
        lines = [f"{'':<{width}}{first:>{step}}{second:>{step}}  difference{titles}".rstrip()]
        for row in self.table["scores"]:
            found = row["differences"][model]
            first_value, value = row["values"][0], row["values"][model]
            drawn_ends = found[next(iter(intervals))]
            digits = agreeing_digits(first_value, value, *drawn_ends, _DIGITS)
            values = "".join(f"{_number(one, digits):>{step}}" for one in (first_value, value))
            gap = _number(shown_gap(first_value, value, digits), digits, "+")
            shown = "".join(f"  {_interval(found[key], digits):<18}" for key in intervals)
            line = f"{row['title']:<{width}}{values}  {gap:>10}{shown}"
            lines.append(line.rstrip())
        lines.append(f"difference: {second} minus {first}")
        return "\n".join(lines)

    def _found(self):
        results = self.table["objects"]
        rows = {"all classes": results, **{c: [r["per_class"][c] for r in results] for c in self.scores[0].classes}}
        rows |= {f"{size} pixels": [r["by_size"][size] for r in results] for size in results[0]["by_size"]}
        width = max(map(len, (*rows, "objects found")))
        step = max(10, *(len(name) + 2 for name in self.names))
        names = "".join(f"{name:>{step}}" for name in self.names)
        lines = [f"{'objects found':<{width}}{'objects':>9}{names}  most often swallowed by"]
        for title, row in rows.items():
            if not row[0]["objects"]:
                continue
            shares = "".join(f"{_number(one['found'], _DIGITS):>{step}}" for one in row)
            swallowers = [next(iter(one.get("swallowed_by", ())), "-") for one in row]
            swallowed = " / ".join(swallowers) if "swallowed_by" in row[0] else ""
            lines.append(f"{title:<{width}}{row[0]['objects']:>9}{shares}  {swallowed}".rstrip())
        return "\n".join(lines)

    def _note(self):
        count = len(self.table["images"])
        drawn = self.table["bootstrap"]
        what = "the images were"
        if drawn["groups"]:
            what = f"whole {drawn['unit']}s were (by image: single images)"
        lines = [
            f"Means are over {count_of_classes(self.table['scored_classes'], self.scores[0].classes)}: those of the "
            "truth, the same for all models.",
            f"{count} images of split {self.table['split']}, protocol {self.table['protocol']}. Intervals: {what} "
            f"resampled {drawn['resamples']} times with replacement, and all models scored on the same samples.",
            drawn["meaning"],
            "No model was trained again, so intervals say nothing about other seeds.",
        ]
        if self.table["out_of_range"]:
            lines.append(f"WARNING: {self.table['out_of_range']} pixels have a label that is neither a class nor void.")
        return "\n".join(lines)


def _number(value, digits, sign=""):
    return "-" if math.isnan(value) else decimals(value, digits, sign)


def _interval(pair, digits):
    return "-" if math.isnan(pair[0]) else f"{signed(pair[0], digits)} to {signed(pair[1], digits)}"
