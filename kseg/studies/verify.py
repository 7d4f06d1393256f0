"""Does a report still say what its counts give? In seconds, without TensorFlow, models or data."""

import csv
import dataclasses
import io
import json
import math
import pathlib
import tempfile

from kseg import __version__
from kseg.io.errors import InputError
from kseg.io.files import checked_path, json_text, reading
from kseg.io.hash_list import HASHES, files_below, hash_faults, unlisted
from kseg.io.text import count_text, first_names
from kseg.reports.comparison_counts import read_counts, recomputed
from kseg.reports.page.output_folder import INDEX, numbers_file
from kseg.reports.page.write_page import write_page
from kseg.studies.run_counts import FOLDER as STUDY_COUNTS
from kseg.studies.run_counts import RESULTS, results_text, run_part
from kseg.studies.study_page import FOLDER as STUDY_PAGE
from kseg.studies.study_page import KIND as STUDY_KIND
from kseg.studies.study_page import page_table
from kseg.studies.study_report import (
    COSTS,
    PLAN,
    REPORT_PARTS,
    STUDY_PARTS,
    compared,
    finished_rows,
    is_finished,
    stored_study,
)

_NUMBERS = "comparison.json"
_STUDY_NUMBERS = "report.json"
_STUDY_TEXT = "report.txt"
_SAME = 1e-9  # relative: another processor adds up in another order
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Verified:
    """What was looked at, and what does not fit; `str()` is a line for each.

    folder: of the report. files: how many. numbers: how many values were computed again. faults, notes: lines. hashed:
    whether there were sha256 to compare.
    """

    folder: str
    files: int
    numbers: int
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    hashed: bool = True

    def __str__(self):
        lines = [*self.faults, *self.notes]
        looked = (
            f"{count_text(self.files, 'file')}, {count_text(self.numbers, 'number')} computed again from the counts"
        )
        if self.faults:
            lines.append(f"{self.folder} does not fit: {count_text(len(self.faults), 'fault')} ({looked}).")
        else:
            pictures = " Pictures are checked by their sha256 alone." if self.hashed else ""
            lines.append(f"{self.folder} fits: {looked}.{pictures}")
        return "\n".join(lines)


def verify(folder):
    """Check the report of `kseg.compare` or `kseg.study`: the sha256 of every file, and every number by its counts.

    The numbers are computed from the counts by the functions that wrote them, and texts and pages are made again. What
    counts do not give (pictures, which runs broke, what a pilot said) is covered by its sha256 alone.

    Args:
        folder: with comparison.json, or the output folder of a study.
    Returns:
        Verified
    Raises:
        InputError: no report there.
    """
    folder = pathlib.Path(checked_path(folder, "report"))
    if (folder / PLAN).exists() or (folder / STUDY_COUNTS).is_dir():
        parts, check = REPORT_PARTS, _check_study
    elif (folder / _NUMBERS).exists() or (folder / HASHES).exists():
        parts, check = None, _check_comparison
    else:
        raise InputError(
            f"{folder} holds no report: neither {_NUMBERS} of kseg compare nor {PLAN} of a study. Give the folder that "
            "was its output."
        )
    notes = []
    numbers = 0
    hashed = True
    if check is _check_study and not any((folder / part).exists() for part in REPORT_PARTS if part not in STUDY_PARTS):
        parts, check = STUDY_PARTS, _check_counts
        hashed = (folder / HASHES).exists()
        faults = _study_faults(folder, notes) if hashed else []
    else:
        faults = hash_faults(folder, parts)
    try:
        numbers, found = check(folder, notes)
        faults += found
    except InputError as error:
        faults.append(f"The numbers cannot be computed again: {error}")
    return Verified(str(folder), len(files_below(folder, parts)), numbers, tuple(faults), tuple(notes), hashed)


def _check_comparison(folder, notes):
    """Return how many numbers were computed again, and what does not fit."""
    table = _read_json(folder / _NUMBERS)
    try:
        expected = {**table, **_plain(recomputed(read_counts(folder), [model["name"] for model in table["models"]]))}
    except InputError:
        raise
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"The counts cannot be those of a comparison: {str(error).rstrip('.')}.") from error
    faults = _differences(expected, table, _NUMBERS)
    if _same_version(table, notes):
        with tempfile.TemporaryDirectory() as place:
            write_page(place, "comparison", table)
            for name in (_NUMBERS, INDEX):
                faults += _other_bytes(folder, name, pathlib.Path(place, name).read_bytes(), faults)
    return _count(expected), faults


def _check_study(folder, notes):
    stored = stored_study(folder)
    table = _read_json(folder / _STUDY_NUMBERS)
    try:
        found = compared(folder, equivalence=table["equivalence"], broken=table["broken"])
    except InputError:
        raise
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"{_STUDY_NUMBERS}, {PLAN} or counts cannot be those of a study: {error!r}.") from error
    version = {"kseg_version": table.get("kseg_version")}
    expected = {**_plain(found.table), **version}
    faults = _differences(expected, table, _STUDY_NUMBERS)
    same_version = _same_version(table, notes)
    if same_version:
        faults += _other_bytes(folder, _STUDY_NUMBERS, f"{json_text(table, 1)}\n".encode(), faults)
        faults += _other_bytes(folder, _STUDY_TEXT, f"{found}\n".encode(), faults)
    numbers, others = _check_page(folder, found, version, same_version)
    results = finished_rows(folder, stored["plan"])
    return _count(expected) + numbers + _count(results), [*faults, *others, *_check_results(folder, results)]


def _study_faults(folder, notes):
    """Return what `hash_faults` says of a study without a report, whose runs may not be finished."""
    new = _of_unfinished_runs(folder)
    if new:
        files = f"{count_text(len(new), 'file')} not yet in {HASHES}: {first_names(new, _SHOWN)}"
        notes.append(f"Runs are not finished, {files}.")
    return hash_faults(folder, STUDY_PARTS, growing=bool(new))


def _of_unfinished_runs(folder):
    """Return the files without a line in sha256.txt, of a study whose runs are not finished; of another none."""
    try:
        if is_finished(folder, stored_study(folder)["plan"]):
            return []
    except (InputError, LookupError, TypeError):
        return []
    return unlisted(folder, STUDY_PARTS)


def _check_counts(folder, notes):
    """Do what `_check_study` does where a study has no report: results.csv alone."""
    note = f"There is no report here: only {RESULTS} is compared with the counts"
    hashed = (folder / HASHES).exists()
    if not hashed:
        note += (
            f", and there is no {HASHES}: nobody would notice another bit in {PLAN}, {COSTS} or maps, nor every one in "
            "the counts. `kseg study --report` writes it"
        )
    notes.append(f"{note}.")
    rows = finished_rows(folder, stored_study(folder)["plan"])
    if hashed:
        # A run's row is written, and then the list, when all of its counts are there.
        new = tuple(_of_unfinished_runs(folder))
        rows = [row for row in rows if not any(name.startswith(_counts_of(row)) for name in new)]
    return _count(rows), _check_results(folder, rows)


def _counts_of(row):
    """Return how the names of a run's counts begin, of every split."""
    return f"{STUDY_COUNTS}/{row['model']}/{row['data']}/{run_part(row['seed'])}."


def _check_page(folder, found, version, same_version):
    """Return how many numbers of a study's page were computed again, and what does not fit."""
    name = f"{STUDY_PAGE}/{numbers_file(STUDY_KIND)}"
    page = _read_json(folder / name)
    try:
        photographs = [(one.get("photos", False), one.get("why_no_photos", "")) for one in page["galleries"]]
        expected = {**_plain(page_table(folder, found.table, found.runs, photographs)), **version}
    except InputError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{name} or maps cannot be those of a study: {error!r}.") from error
    faults = _differences(expected, page, name)
    if same_version:
        with tempfile.TemporaryDirectory() as place:
            write_page(place, STUDY_KIND, page)
            for part in (numbers_file(STUDY_KIND), INDEX):
                wanted = pathlib.Path(place, part).read_bytes()
                faults += _other_bytes(folder, f"{STUDY_PAGE}/{part}", wanted, faults)
    return _count(expected["galleries"]), faults


def _check_results(folder, rows):
    """Return what does not fit in results.csv, by row and column; rows: of the counts."""
    path = folder / RESULTS
    if not rows or not path.exists():
        return [f"{RESULTS}: it must have {count_text(len(rows), 'row')}."] if bool(rows) != path.exists() else []
    with reading(path):
        content = path.read_bytes()
    wanted = results_text(rows)
    if content == wanted:
        return []
    tables = [list(csv.reader(io.StringIO(text.decode(errors="replace"), newline=""))) for text in (wanted, content)]
    faults = _differences(*tables, RESULTS)
    return faults or [f"{RESULTS} is not as kseg writes it."]


def _read_json(path):
    with reading(path):
        content = path.read_bytes()
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is damaged: {str(error).rstrip('.')}.") from error
    if not isinstance(table, dict):
        raise InputError(f"{path.name} is damaged: it is no table.")
    return table


def _plain(table):
    """Return JSON types as they are after writing and reading: nan is None, keys are text."""
    return json.loads(json_text(table))


def _same_version(table, notes):
    """Whether this kseg wrote a report; a note says what another one cannot check."""
    if table.get("kseg_version") == __version__:
        return True
    notes.append(
        f"kseg {table.get('kseg_version')} wrote this report, this is {__version__}: the numbers are compared, the "
        "wording of text and page is not."
    )
    return False


def _other_bytes(folder, name, wanted, faults):
    """Return the fault of a file that is not what its numbers give; none where a number in it was named already."""
    path = folder / name
    if not path.exists():
        return [f"{name} is not there."]
    with reading(path):
        same = path.read_bytes() == wanted
    if same or any(fault.startswith(f"{name}:") for fault in faults):
        return []
    return [f"{name}: it is not what kseg writes of these numbers."]


def _differences(expected, found, where):
    """Return a line for each value that differs from what the counts give."""
    lines = list(_each_difference(expected, found, ""))
    shown = [f"{where}:{line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"{where}: {len(lines) - _SHOWN} more values differ.")
    return shown


def _each_difference(expected, found, path):
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in found or key not in expected:
                yield f" {path}.{key} {'is missing' if key not in found else 'is too much'}.".replace(" .", " ", 1)
            else:
                yield from _each_difference(expected[key], found[key], f"{path}.{key}" if path else str(key))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, pair in enumerate(zip(expected, found, strict=True)):
            yield from _each_difference(*pair, f"{path}[{number}]")
    elif not _same(expected, found):
        yield f" {path} is {_short(found)}, but the counts give {_short(expected)}."


def _same(expected, found):
    if isinstance(expected, float) and isinstance(found, (int, float)) and not isinstance(found, bool):
        return math.isclose(expected, found, rel_tol=_SAME, abs_tol=_SAME * _SAME)
    return type(expected) is type(found) and expected == found


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _count(table):
    """Return how many numbers JSON types hold."""
    if isinstance(table, dict):
        return sum(map(_count, table.values()))
    if isinstance(table, list):
        return sum(map(_count, table))
    return int(isinstance(table, (int, float)) and not isinstance(table, bool))
