"""What published rows allow: intervals derived by hand, and rows made from matrices that are known."""

import subprocess
import sys

import numpy as np
import pytest

from kseg import metrics
from kseg.evaluation.audit import BY_CHANCE, EXCLUDED, FITS, MACRO, MICRO, PER_IMAGE, audit, audit_row
from kseg.metrics.fischer2021_scores import Fischer2021Sums, image_scores

R2UNET = (0.9892, 0.8912, 0.9943, 0.8912, 0.8377)
SEGNET_ASPP = (0.9888, 0.8644, 0.9942, 0.8644, 0.8046)


@pytest.mark.parametrize(
    ("row", "accuracy", "specificity", "both"),
    [
        # 1-p in [.10875, .10885]; 1-accuracy in [.01075, .01085]: C from 2 * .10875 / .01085 to 2 * .10885 / .01075;
        # 1-specificity in [.00565, .00575]: C from 1 + .10875 / .00575 to 1 + .10885 / .00565
        (R2UNET, (20.0461, 20.2512), (19.9130, 20.2655), (20.0461, 20.2512)),
        # 1-p in [.13555, .13565]; 1-accuracy in [.01115, .01125]; 1-specificity in [.00575, .00585]
        (SEGNET_ASPP, (24.0978, 24.3318), (24.1709, 24.5913), (24.1709, 24.3318)),
    ],
)
def test_class_counts_of_the_papers_table(row, accuracy, specificity, both):
    found = audit_row(row)
    for interval, expected in (
        (found.from_accuracy, accuracy),
        (found.from_specificity, specificity),
        (found.class_count, both),
    ):
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-4)
    p = row[1]
    assert found.pixel_accuracy.low == pytest.approx(p - 0.00005) and found.fixed_counts == ()
    assert found.micro_jaccard.high < p / (2 - p) + 1e-4 < row[4]  # .8038 and .7612: far below the published ones
    assert found.averages == {MICRO: EXCLUDED, PER_IMAGE: FITS, MACRO: BY_CHANCE}


def test_the_papers_rows_share_no_class_count():
    found = audit([R2UNET, SEGNET_ASPP])
    assert found.shared_class_count is None
    table = {line[:28].strip(): line[28:].split("  ") for line in str(found).splitlines()}
    cells = {title: [cell.strip() for cell in row if cell.strip()] for title, row in table.items()}
    assert cells["class count by both"] == ["20.05 to 20.25", "24.17 to 24.33"]
    assert cells["whole numbers in it"] == ["none", "none"]
    assert cells["micro Jaccard would be"] == ["0.8037 to 0.8038", "0.7611 to 0.7613"]
    assert cells[PER_IMAGE] == ["fits", "fits"] and cells[MICRO] == ["no", "no"]
    assert str(found).endswith("Class count that fits all rows: none.")
    twice = audit([R2UNET, R2UNET])  # what follows from two rows and not from any one
    assert twice.shared_class_count == twice.rows[0].class_count
    assert str(twice).endswith("Class count that fits all rows: 20.05 to 20.25.")


def test_a_micro_row_of_a_known_matrix_gives_its_class_count():
    matrix = np.random.default_rng(0).integers(0, 50, (7, 7)) + 60 * np.eye(7, dtype=int)
    row = [round(value, 4) for value in metrics.five_scores(matrix, "micro").values()]
    found = audit_row(row)
    assert found.fixed_counts == (7,) and found.averages[MICRO] == FITS


def test_a_macro_row_is_told_from_a_micro_one():
    matrix = np.random.default_rng(1).integers(0, 30, (5, 5)) + np.diag([300, 9, 80, 20, 1])
    row = [round(value, 4) for value in metrics.five_scores(matrix, "macro").values()]
    found = audit_row(row)
    assert found.pixel_accuracy is None and found.class_count is None
    assert list(found.averages.values()) == [EXCLUDED, EXCLUDED, FITS]
    impossible = audit_row((0.9, 0.5, 0.9, 0.6, 0.65))  # a mean Jaccard is never above the mean F1
    assert set(impossible.averages.values()) == {EXCLUDED}


def test_a_row_of_the_fischer2021_protocol_gives_the_mean_number_of_ids():
    """Also the bounds of the weighted Jaccard index, p^2 to p, in each image."""
    random = np.random.default_rng(2)
    sums = Fischer2021Sums(9)
    counts = []
    for image in range(12):
        present = random.permutation(9)[: random.integers(2, 9)]
        truth = random.choice(present, (20, 20))
        guess = np.where(random.random(truth.shape) < 0.1 * (image % 8 + 1), random.choice(present, truth.shape), truth)
        scores = image_scores(truth, guess)
        assert scores["f1"] ** 2 <= scores["jaccard"] <= scores["f1"]
        counts.append(len(set(truth.flat) | set(guess.flat)))
        sums.update(truth, guess)
    result = sums.result()
    row = [round(result[name], 4) for name in metrics.SCORE_NAMES]
    found = audit_row(row)
    assert found.class_count.low - 1e-9 <= np.mean(counts) <= found.class_count.high + 1e-9
    assert found.averages[PER_IMAGE] == FITS and np.mean(counts) == result["classes_per_image"]


def test_the_lower_bound_of_the_weighted_jaccard_index_is_reached_and_holds():
    # One class of share p is right everywhere, all other pixels are taken for it: its IoU is p / 1, theirs are 0, and
    # its weight is p.
    pixels = 1000
    right = 700
    truth = np.concatenate([np.zeros(right, int), 1 + np.arange(pixels - right)])
    assert image_scores(truth, np.zeros(pixels, int))["jaccard"] == pytest.approx(0.7**2)
    # p is at least .695, so the index is at least .483
    assert audit_row((0.96, 0.7, 0.98, 0.7, 0.47), digits=2).averages[PER_IMAGE] == EXCLUDED
    assert audit_row((0.96, 0.7, 0.98, 0.7, 0.49), digits=2).averages[PER_IMAGE] == FITS


def test_macro_rows_of_many_matrices_fit():
    """Sparse ones too, in which classes are predicted for nothing or missed whole, and rare ones."""
    random = np.random.default_rng(3)
    for case in range(400):
        classes = int(random.integers(2, 12))
        matrix = random.integers(0, 1000, (classes, classes)) * (random.random((classes, classes)) < random.random())
        matrix = matrix * random.choice([1, 1, 30], (classes, 1)) + np.eye(classes, dtype=int)  # each class is there
        row = [round(value, 4) for value in metrics.five_scores(matrix, "macro").values()]
        assert audit([row]).rows[0].averages["macro"] != "no", (case, row)


@pytest.mark.parametrize(
    "row",
    [
        (0.9, 0.3, 0.95, 0.8, 0.7),  # of each class the Jaccard index is at most the sensitivity
        (0.9, 0.3, 0.95, 0.5, 0.3),  # and F1 at most 2s / (1+s), here .46
        (0.2, 0.9, 0.95, 0.85, 0.75),  # the accuracy is at least sensitivity + specificity - 1
        (0.9, 0.2, 0.5, 0.2, 0.12),  # and at most their sum
    ],
)
def test_rows_that_no_classes_can_have_are_no_macro_average(row):
    found = audit([row])
    assert found.rows[0].averages["macro"] == "no"
    assert str(found).endswith("Row 1: none of these averages gives it, of any confusion matrix.")


def test_perfect_scores_leave_the_class_count_open():
    found = audit_row((1, 1, 1, 1, 1))
    assert found.class_count.high == np.inf and "over" in str(audit([(1, 1, 1, 1, 1)]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([(0.9, 0.8, 0.7)], "five shares of 1"),
        (
            [("98.92", "89.12", "99.43", "89.12", "83.77")],  # as the command reads them
            r"five shares of 1 \(.*\), got 98\.92, 89\.12, 99\.43, 89\.12, 83\.77\. Divide percentages by 100\.$",
        ),
        ([("a",) * 5], "five numbers"),
        ([(0.98921, 0.8912, 0.9943, 0.8912, 0.8377)], "at most 4 decimals"),
        ([(float("nan"),) * 5], "five shares of 1"),
    ],
)
def test_bad_rows_get_one_clear_line(rows, message):
    with pytest.raises(ValueError, match=message) as error:
        audit(rows)
    assert "\n" not in str(error.value)


def test_audit_from_the_command_line_needs_no_framework(root):
    rows = [f"--row={','.join(f'{value:.4f}'[1:] for value in row)}" for row in (R2UNET, SEGNET_ASPP)]
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['evaluate.py', '--audit', *{rows}]\n"
        f"sys.path[:0] = [{str(root)!r}, {str(root / 'scripts')!r}]\n"
        f"runpy.run_path({str(root / 'scripts' / 'evaluate.py')!r}, run_name='__main__')\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{audit([R2UNET, SEGNET_ASPP])}\nset()\n"
    command = [sys.executable, str(root / "scripts" / "evaluate.py"), rows[0]]
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 2 and "--audit and --row" in alone.stderr
