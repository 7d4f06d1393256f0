"""Which class counts and averages could have given a published row of scores: arithmetic, no model.

Over one set of C classes and N pixels, each with one true and one predicted class, an error is one FN and one FP. With
p the share of pixels that are right, the sums over the classes are TP = pN, FN = FP = (1-p)N and all four CN. Hence the
micro averages: sensitivity = F1 = p, Jaccard = p / (2-p), accuracy = 1 - 2 (1-p) / C, specificity = 1 - (1-p) / (C-1).
Where the classes are those present in each image (in truth or prediction) and the sums run over the images too, the
same holds with C the mean number of classes per image, for images of equal size.

Macro averages are means over the classes of what holds for each one: Jaccard = F1 / (2-F1), convex in F1; Jaccard is at
most the sensitivity s, and F1 at most 2s / (1+s), concave in s (both without a FP); the accuracy lies between
sensitivity and specificity, whose sum minus 1 is at most the smaller one, and whose sum is at least the larger one.
"""

from __future__ import annotations

import dataclasses
import math

from kseg.io.errors import InputError
from kseg.score_table import SCORE_NAMES

MICRO = "micro, fixed classes"
PER_IMAGE = "micro, classes of each image"
MACRO = "macro"
FITS = "fits"
EXCLUDED = "no"
BY_CHANCE = "only by chance"
_LARGEST = 255  # a label map of 8 bits holds no more classes
_SLACK = 1e-12  # of binary fractions: the end of an interval belongs to it


@dataclasses.dataclass(frozen=True)
class Interval:
    """Closed interval of numbers; `high` may be infinite."""

    low: float
    high: float

    def meet(self, interval: Interval | None) -> Interval | None:
        """Return the common part with another interval (which may be None), or None if there is none."""
        if interval is None:
            return None
        low = max(self.low, interval.low)
        high = min(self.high, interval.high)
        return Interval(low, high) if low <= high + _SLACK else None

    def whole_numbers(self) -> tuple[int, ...]:
        """Return the whole numbers from 2 to 255 that lie in it."""
        low = max(math.ceil(self.low - _SLACK), 2)
        return tuple(range(low, math.floor(min(self.high, _LARGEST) + _SLACK) + 1))

    def __str__(self):
        if self.high == math.inf:
            return f"over {self.low:.2f}"
        if self.high > 1:
            return f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.low:.4f} to {self.high:.4f}"


@dataclasses.dataclass(frozen=True)
class RowAudit:
    """What one published row allows.

    published: the five by name. pixel_accuracy: what sensitivity and F1 can both be, or None if they differ; then
    the next four are None too. from_accuracy, from_specificity: class counts that each gives under a micro average;
    class_count: both together. micro_jaccard: p / (2-p). averages: MICRO, PER_IMAGE, MACRO -> FITS, EXCLUDED or
    BY_CHANCE.
    """

    published: dict[str, float]
    pixel_accuracy: Interval | None
    from_accuracy: Interval | None
    from_specificity: Interval | None
    class_count: Interval | None
    micro_jaccard: Interval | None
    averages: dict[str, str]

    @property
    def fixed_counts(self) -> tuple[int, ...]:
        """The whole numbers in `class_count`."""
        return self.class_count.whole_numbers() if self.class_count else ()

    def cells(self) -> dict[str, str]:
        """Return the row's column of the table: text by title."""
        whole = self.fixed_counts
        return {
            **{name: f"{value:g}" for name, value in self.published.items()},
            "class count by accuracy": str(self.from_accuracy or "-"),
            "class count by specificity": str(self.from_specificity or "-"),
            "class count by both": str(self.class_count or "none"),
            "whole numbers in it": f"{whole[0]} to {whole[-1]}" if len(whole) > 1 else str(*whole) or "none",
            "micro Jaccard would be": str(self.micro_jaccard or "-"),
            **self.averages,
        }


@dataclasses.dataclass(frozen=True)
class Audit:
    """The rows' audits, and the class count that all of them could share (None: there is none); `str()` is a table."""

    rows: tuple[RowAudit, ...]
    shared_class_count: Interval | None

    def __str__(self):
        columns = [row.cells() for row in self.rows]
        heads = {"": [f"row {i}" for i, _ in enumerate(self.rows, 1)]}
        table = heads | {title: [cells[title] for cells in columns] for title in columns[0]}
        width = max(map(len, table))
        lines = [f"{title:<{width}}{''.join(f'{cell:>18}' for cell in cells)}" for title, cells in table.items()]
        for i, row in enumerate(self.rows, 1):
            if set(row.averages.values()) == {EXCLUDED}:
                lines.append(f"Row {i}: none of these averages gives it, of any confusion matrix.")
        if len(self.rows) > 1:
            lines.append(f"Class count that fits all rows: {self.shared_class_count or 'none'}.")
        return "\n".join(lines)


def audit(rows, digits=4):
    """Say what could have given published rows of scores, and whether they can share one class count.

    The closed forms are at the top of this module; a published number stands for all that round to it.

    Args:
        rows: sequences of (accuracy, sensitivity, specificity, F1, Jaccard), shares of 1.
        digits: decimals that the numbers were rounded to.
    Returns:
        Audit; `str()` of it is the report.
    Raises:
        ValueError: no row, a row of other than five numbers, a number outside 0..1 or of more decimals.
    """
    audits = tuple(audit_row(row, digits) for row in rows)
    if not audits:
        raise InputError("An audit needs at least one row of accuracy, sensitivity, specificity, F1, Jaccard.")
    shared = audits[0].class_count
    for row in audits[1:]:
        shared = shared and shared.meet(row.class_count)
    return Audit(audits, shared)


def audit_row(row, digits=4):
    """Return the RowAudit of one row; arguments and errors as in `audit`."""
    published = _checked(row, digits)
    half = 0.5 * 10.0**-digits
    given = {name: Interval(max(value - half, 0.0), min(value + half, 1.0)) for name, value in published.items()}
    jaccard = given["jaccard"]
    p = given["sensitivity"].meet(given["f1"])
    macro = _can_be_macro(given)
    averages = {MICRO: EXCLUDED, PER_IMAGE: EXCLUDED, MACRO: EXCLUDED}
    if p is None:  # as micro averages sensitivity and F1 are equal
        if macro:
            averages[MACRO] = FITS
        return RowAudit(published, None, None, None, None, None, averages)
    # accuracy = 1 - 2 (1-p) / C and specificity = 1 - (1-p) / (C-1), solved for C
    from_accuracy = _quotient(p, given["accuracy"], 2.0, 0.0)
    from_specificity = _quotient(p, given["specificity"], 1.0, 1.0)
    count = from_accuracy.meet(from_specificity)
    micro_jaccard = Interval(p.low / (2 - p.low), p.high / (2 - p.high))
    if count and count.whole_numbers() and jaccard.meet(micro_jaccard):
        averages[MICRO] = FITS
    if count and jaccard.meet(_weighted_jaccard(p)):
        averages[PER_IMAGE] = FITS
    if macro:  # mean sensitivity and mean F1 agree to the last digit, which those of a perfect model must
        averages[MACRO] = FITS if p.high == 1 else BY_CHANCE
    return RowAudit(published, p, from_accuracy, from_specificity, count, micro_jaccard, averages)


def _can_be_macro(given):
    """Whether five intervals by name can be means over the classes of one matrix: the top of the module says why."""
    sensitivity, f1 = given["sensitivity"], given["f1"]
    both = Interval(sensitivity.low + given["specificity"].low, sensitivity.high + given["specificity"].high)
    bounds = {
        "f1": Interval(0.0, 2 * sensitivity.high / (1 + sensitivity.high)),
        "jaccard": Interval(f1.low / (2 - f1.low), min(f1.high, sensitivity.high)),
        "accuracy": Interval(both.low - 1, both.high),
    }
    return all(given[name].meet(bound) for name, bound in bounds.items())


def _weighted_jaccard(p):
    """An image's Jaccard index weighted by frequency lies between p^2 and p.

    With w_c, t_c, f_c the shares of a class' pixels, of its right ones and of its FP: the index is the sum of
    t_c w_c / (w_c + f_c), at most p, and by Cauchy and Schwarz at least p^2 / (p + sum of f_c t_c / w_c), at least p^2.
    The mean over images keeps both bounds, because squares are convex. The micro average p / (2-p) lies between them.
    """
    return Interval(p.low**2, p.high)


def _checked(row, digits):
    shown = ", ".join(map(str, row)) if isinstance(row, (list, tuple)) else repr(row)
    try:
        values = [float(value) for value in row]
    except (TypeError, ValueError) as error:
        raise InputError(f"A row must be five numbers, got {shown}.") from error
    if len(values) != len(SCORE_NAMES) or not all(0 <= value <= 1 for value in values):
        hint = " Divide percentages by 100." if any(1 < value <= 100 for value in values) else ""
        raise InputError(f"A row must be five shares of 1 ({', '.join(SCORE_NAMES)}), got {shown}.{hint}")
    if any(abs(round(value, digits) - value) > 1e-9 for value in values):
        raise InputError(f"The numbers of a row must have at most {digits} decimals, got {shown}. Raise digits.")
    return dict(zip(SCORE_NAMES, values, strict=True))


def _quotient(p, score, factor, shift):
    """shift + factor (1-p) / (1-score) over two intervals."""
    low = math.inf
    high = math.inf
    if score.low < 1:
        low = shift + factor * (1 - p.high) / (1 - score.low)
    if score.high < 1:
        high = shift + factor * (1 - p.low) / (1 - score.high)
    return Interval(low, high)
