"""Which class counts and averages could have given a published row of scores: arithmetic, no model.

Over one set of C classes and N pixels, each with one true and one predicted class, an error is one FN and one FP. With
p the share of pixels that are right, the sums over the classes are TP = pN, FN = FP = (1-p)N and all four CN. Hence the
micro averages: sensitivity = F1 = p, Jaccard = p / (2-p), accuracy = 1 - 2 (1-p) / C, specificity = 1 - (1-p) / (C-1).
Where the classes are those present in each image (in truth or prediction) and the sums run over the images too, the
same holds with C the mean number of classes per image, for images of equal size.
"""

import dataclasses
import math

from kseg.io.errors import InputError

NAMES = ("accuracy", "sensitivity", "specificity", "f1", "jaccard")
FITS, EXCLUDED, BY_CHANCE = "fits", "excluded", "only by chance"
_LARGEST = 255  # a label map of 8 bits holds no more classes
_SLACK = 1e-12  # of binary fractions: the end of an interval belongs to it


@dataclasses.dataclass(frozen=True)
class Interval:
    """Closed interval of numbers; `high` may be infinite."""

    low: float
    high: float

    def meet(self, other):
        """Return the common part with another interval (which may be None), or None where there is none."""
        low, high = (max(self.low, other.low), min(self.high, other.high)) if other else (1, 0)
        return Interval(low, high) if low <= high + _SLACK else None

    def whole_numbers(self):
        """Return the whole numbers from 2 to 255 that lie in it."""
        low = max(math.ceil(self.low - _SLACK), 2)
        return tuple(range(low, math.floor(min(self.high, _LARGEST) + _SLACK) + 1))

    def __str__(self):
        digits = 4 if self.high <= 1 else 2
        return f"{self.low:.{digits}f} to {self.high:.{digits}f}" if self.high < math.inf else f"over {self.low:.2f}"


@dataclasses.dataclass(frozen=True)
class RowAudit:
    """What one published row allows.

    published: the five by name. pixel_accuracy: what sensitivity and F1 can both be, or None where they differ.
    from_accuracy, from_specificity: class counts that each gives under a micro average; class_count: both together;
    fixed_counts: the whole numbers in it. micro_jaccard: p / (2-p). readings: name -> (verdict, reason), a verdict
    being FITS, EXCLUDED or BY_CHANCE.
    """

    published: dict
    pixel_accuracy: Interval | None
    from_accuracy: Interval | None
    from_specificity: Interval | None
    class_count: Interval | None
    fixed_counts: tuple
    micro_jaccard: Interval | None
    readings: dict

    def __str__(self):
        lines = ["  ".join(f"{name} {value:g}" for name, value in self.published.items())]
        if self.pixel_accuracy:
            lines.append(
                f"  class count of a micro average: {self.from_accuracy} by accuracy, {self.from_specificity} by "
                f"specificity, {self.class_count or 'none'} by both"
            )
        lines += [f"  {verdict}: {name}. {reason}." for name, (verdict, reason) in self.readings.items()]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Audit:
    """The rows' audits, the class count that all of them could share (None: there is none), and a short verdict."""

    rows: tuple
    shared_class_count: Interval | None
    verdict: str

    def __str__(self):
        rows = [f"Row {i}: {row}" for i, row in enumerate(self.rows, 1)]
        return "\n\n".join([*rows, f"Verdict: {self.verdict}"])


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
    return Audit(audits, shared, _verdict(audits, shared))


def audit_row(row, digits=4):
    """Return the RowAudit of one row; arguments and errors as in `audit`."""
    published = _checked(row, digits)
    half = 0.5 * 10.0**-digits
    given = {name: Interval(max(value - half, 0.0), min(value + half, 1.0)) for name, value in published.items()}
    p = given["sensitivity"].meet(given["f1"])
    if p is None:
        return RowAudit(published, None, None, None, None, (), None, _readings(given, None, None, None))
    # accuracy = 1 - 2 (1-p) / C and specificity = 1 - (1-p) / (C-1), solved for C
    from_accuracy = _quotient(p, given["accuracy"], 2.0, 0.0)
    from_specificity = _quotient(p, given["specificity"], 1.0, 1.0)
    count = from_accuracy.meet(from_specificity)
    micro_jaccard = Interval(p.low / (2 - p.low), p.high / (2 - p.high))
    return RowAudit(
        published,
        p,
        from_accuracy,
        from_specificity,
        count,
        count.whole_numbers() if count else (),
        micro_jaccard,
        _readings(given, p, count, micro_jaccard),
    )


def _checked(row, digits):
    try:
        values = [float(value) for value in row]
    except (TypeError, ValueError) as error:
        raise InputError(f"A row is five numbers, got {row!r}.") from error
    if len(values) != len(NAMES) or not all(0 <= value <= 1 for value in values):
        raise InputError(f"A row is five shares of 1 ({', '.join(NAMES)}), got {row!r}.")
    if any(abs(round(value, digits) - value) > 1e-9 for value in values):
        raise InputError(f"The numbers of a row have at most {digits} decimals, got {row!r}. Say how many they have.")
    return dict(zip(NAMES, values, strict=True))


def _quotient(p, score, factor, shift):
    """shift + factor (1-p) / (1-score) over two intervals."""
    low = shift + factor * (1 - p.high) / (1 - score.low) if score.low < 1 else math.inf
    high = shift + factor * (1 - p.low) / (1 - score.high) if score.high < 1 else math.inf
    return Interval(low, high)


def _readings(given, p, count, micro_jaccard):
    """What each way of averaging says of a row: name -> (verdict, reason)."""
    f1, jaccard = given["f1"], given["jaccard"]
    macro_jaccard = Interval(f1.low / (2 - f1.low), f1.high)  # mean of f / (2-f), convex in f, and at most f
    if p is None:
        reason = "Sensitivity and F1 differ; as micro averages both are the pixel accuracy"
        readings = dict.fromkeys(
            ("micro over a fixed set of classes", "classes present in each image"), (EXCLUDED, reason)
        )
    else:
        readings = {
            "micro over a fixed set of classes": _fixed(count, jaccard, micro_jaccard),
            "classes present in each image": _present(p, count, jaccard, micro_jaccard),
        }
    if not jaccard.meet(macro_jaccard):
        readings["macro"] = (EXCLUDED, f"With this F1 the mean Jaccard index lies in {macro_jaccard}")
    elif p is None:
        readings["macro"] = (FITS, "Any class count; macro averages do not tell it")
    else:
        reason = "Mean sensitivity and mean F1 agree to the last digit only by accident"
        same = "; so do the class counts by accuracy and by specificity" if count else ""
        readings["macro"] = (BY_CHANCE, reason + same)
    return readings


def _fixed(count, jaccard, micro_jaccard):
    if count is None:
        return EXCLUDED, "Accuracy and specificity imply different class counts"
    against = []
    if not count.whole_numbers():
        against.append(f"The class count would be {count}, where no whole number lies")
    if not jaccard.meet(micro_jaccard):
        against.append(f"The Jaccard index would be {micro_jaccard}")
    return (EXCLUDED, ". ".join(against)) if against else (FITS, f"{_several(count.whole_numbers())} classes")


def _present(p, count, jaccard, micro_jaccard):
    """An image's Jaccard index weighted by frequency lies between p^2 and p.

    With w_c, t_c, f_c the shares of a class' pixels, of its right ones and of its FP: the index is the sum of
    t_c w_c / (w_c + f_c), at most p, and by Cauchy and Schwarz at least p^2 / (p + sum of f_c t_c / w_c), at least p^2.
    The mean over images, for squares are convex, keeps both bounds.
    """
    if count is None:
        return EXCLUDED, "Accuracy and specificity imply different mean class counts"
    weighted = Interval(p.low**2, p.high)
    if not jaccard.meet(weighted):
        return EXCLUDED, f"A Jaccard index weighted by frequency or averaged over images would lie in {weighted}"
    if jaccard.meet(micro_jaccard):
        return FITS, f"{count} of them in the mean; the Jaccard index may be micro too"
    return FITS, (
        f"{count} of them in the mean. The Jaccard index is not micro ({micro_jaccard}); weighted by frequency in each "
        f"image it lies in {weighted}, as here"
    )


def _verdict(audits, shared):
    parts = []
    for i, row in enumerate(audits, 1):
        fitting = [name for name, (verdict, _) in row.readings.items() if verdict == FITS]
        count = f", count {row.class_count}" if row.class_count else ""
        parts.append(f"Row {i}: {' or '.join(fitting)}{count}." if fitting else f"Row {i}: no reading fits.")
    text = " ".join(parts)
    if len(audits) == 1 or any(row.class_count is None for row in audits):
        return text
    if shared is None:
        return (
            f"{text} No class count fits all rows: the label sets differ, or a model predicts more classes per image "
            "that are not there. Accuracy and specificity do not compare; the other scores only on one label set."
        )
    whole = shared.whole_numbers()
    fixed = f"as a fixed count {_several(whole)}" if whole else "no whole number, so only as a mean over images"
    return f"{text} All rows can share a class count of {shared} ({fixed})."


def _several(numbers):
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
