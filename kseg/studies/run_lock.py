"""Whether another process trains in a run's folder, on this machine or on another that shares the folder.

An engine may start a run while an earlier start of it still goes on: the study was killed, or a cluster has lost sight
of a machine. Two trainings in one folder must never be, and a run that failed because of that would be a pity, so the
second waits. On one machine, and where the shared file system locks across machines, the lock says it. Where it does
not, a lock file that another machine has left says nothing: that machine may have lost its power. But a training
writes its account every few seconds (`kseg.studies.usage`), so one that is alive is seen.
"""

import pathlib
import socket
import time

from kseg.io.errors import InputError
from kseg.io.files import LOCK, locked
from kseg.studies.usage import SECONDS

_SILENT_SECONDS = 4 * SECONDS  # after so long without an account a training on another machine is gone


def busy(workdir):
    """Return why a run's folder is in use, "" if it is not, as far as locks tell."""
    if not (workdir / LOCK).exists():
        return ""
    try:
        with locked(workdir):
            return ""
    except InputError as error:
        return str(error)


def wait_until_free(workdir, accounts, silent=_SILENT_SECONDS):
    """Return when no other training is in a run's folder; say so in a line if that takes time.

    Args:
        workdir: the run's folder. accounts: the folder of the run's accounts (`kseg.studies.usage`).
        silent: seconds without an account after which a training on another machine is gone.
    """
    workdir = pathlib.Path(workdir)
    holder = _elsewhere(workdir)
    if holder:
        print(f"{workdir} was in use by {holder}. Waiting until it writes nothing any more.", flush=True)
        alive = True
        while alive:
            before = _newest(accounts)
            time.sleep(silent)
            alive = _newest(accounts) != before
    said = ""
    while why := busy(workdir):
        if not said:
            said = why
            print(f"{why} Waiting until it ends.", flush=True)
        time.sleep(0.2)


def _elsewhere(workdir):
    """Return who holds or held the lock, if that is a process of another machine, else ""."""
    try:
        text = (workdir / LOCK).read_text(errors="replace")
    except OSError:
        return ""
    if not text.startswith("process ") or text.endswith(f" on {socket.gethostname()}"):
        return ""
    return text


def _newest(accounts):
    """Return what changes when a training writes an account; by the file server's clock alone."""
    return sorted((path.name, path.stat().st_mtime_ns) for path in pathlib.Path(accounts).glob("usage-*.json"))
