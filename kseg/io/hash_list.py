"""The sha256 of what a folder holds: of a report in a file beside it, that `sha256sum -c` reads too."""

import hashlib
import os
import pathlib
import re

from kseg.io.files import LOCK, reading, sha256_of, write_atomic

HASHES = "sha256.txt"


def _text(folder, names):
    return "".join(f"{sha256_of(str(folder / name))}  {name}\n" for name in names)


def sha256_of_content(path) -> str:
    """Return the sha256 of a local file; of a folder, that of the names and sha256 of all files below it."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return sha256_of(str(path))
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(_text(path, files).encode()).hexdigest()


def files_below(folder, parts=None):
    """Return the files of a report, paths relative to its folder, without the list itself, locks and unfinished ones.

    Args:
        folder: of the report. parts: names of files and folders in it that are the report's; None: all.
    """
    folder = pathlib.Path(folder)
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        own = parts is None or name.parts[0] in parts
        left_out = name.parts[-1] in (HASHES, LOCK) or any(part.startswith(".tmp-") for part in name.parts)
        if own and not left_out and path.is_file():
            found.append(name.as_posix())
    return found


def write_hashes(folder, parts=None):
    """Write sha256.txt: a line for each file of a report (`files_below`)."""
    folder = pathlib.Path(folder)
    write_atomic(os.fspath(folder / HASHES), _text(folder, files_below(folder, parts)).encode())


def unlisted(folder, parts=None):
    """Return the files of a report that have no line in sha256.txt."""
    listed = _names_and_hashes(_own_text(pathlib.Path(folder), parts))
    return [name for name in files_below(folder, parts) if name not in listed]


def hash_faults(folder, parts=None, *, growing=False):
    """Return a line for each file of a report that is not as sha256.txt says, and for what is wrong with that list.

    Lines for what is none of the parts do not count.

    Args:
        growing: files without a line are no fault: the runs that write them are not finished.
    """
    folder = pathlib.Path(folder)
    if not (folder / HASHES).is_file():
        return [f"{HASHES} is not there: it has the sha256 of every file of the report."]
    text = _own_text(folder, parts)
    names = files_below(folder, parts)
    known = _names_and_hashes(text)
    if growing:
        names = [name for name in names if name in known]
    expected = _text(folder, names)
    if text == expected:
        return []
    if not known:
        return [f"{HASHES} is empty or damaged: it has no line with the sha256 of a file."]
    of = _names_and_hashes(expected)
    faults = [f"{name}: there is no line for it in {HASHES}." for name in of if name not in known]
    faults += [f"{name}: {HASHES} has a line for it, but there is no such file." for name in known if name not in of]
    faults += [
        f"{name}: its sha256 is not that in {HASHES}." for name, sha in of.items() if known.get(name, sha) != sha
    ]
    return faults or [f"{HASHES} is not as kseg writes it: other line ends, another order, or more than its lines."]


def _own_text(folder, parts):
    """Return sha256.txt without the lines for what is none of the parts."""
    path = folder / HASHES
    with reading(path):
        text = path.read_bytes().decode(errors="replace")
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return "".join(line for line in lines if parts is None or "  " not in line or _first_part(line) in parts)


def _first_part(line):
    return line.split("  ", 1)[1].rstrip("\n").split("/")[0]


def _names_and_hashes(text):
    """Return {name: sha256} of the lines of a list."""
    return dict(line.split("  ", 1)[::-1] for line in text.split("\n") if "  " in line)
