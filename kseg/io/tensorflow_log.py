"""What TensorFlow logs: nothing, unless the user wants to see it.

TF_CPP_MIN_LOG_LEVEL=3 keeps back what it logs once it runs: that there is no GPU, which instructions it was built for.
What its libraries log while they are loaded ("oneDNN custom operations are on") no variable reaches: they write to file
descriptor 2. So that leads to a file while TensorFlow is imported, and what is no line of a log is shown afterwards.
"""

import contextlib
import os
import re
import sys
import warnings

from kseg.io.import_hook import around_import

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_QUIET = "3"
_LOG_LINE = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ \S+:\d+\]|[\d-]{10} [\d:.]+: [IWE] \S+:\d+\]"
    rb"|WARNING: All log messages before absl::InitializeLog|To enable the following instructions: "
)


def quiet_tensorflow():
    """Have TensorFlow log nothing, also while it is imported; TF_CPP_MIN_LOG_LEVEL wins if the user has set it."""
    if os.environ.setdefault(LEVEL, _QUIET) == _QUIET:
        around_import("tensorflow", _log_lines_kept_back)


def show_tensorflow_log():
    """Have TensorFlow log everything, unless the user has set TF_CPP_MIN_LOG_LEVEL to another level than 3."""
    if os.environ.get(LEVEL, _QUIET) == _QUIET:
        os.environ[LEVEL] = "0"


def _dies_at_import():
    """Whether TensorFlow will end the process, with a line of its log: it needs a processor with AVX."""
    import platform

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return platform.machine() == "x86_64" and " avx " not in file.read()
    return False


@contextlib.contextmanager
def _log_lines_kept_back():
    """While it lasts, what is written to file descriptor 2 waits; the lines of a log are dropped from it then."""
    import tempfile  # here, for it takes a while and most refusals need no TensorFlow

    from kseg.io import progress

    if os.environ.get(LEVEL) != _QUIET or _dies_at_import():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            shown = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace"))
            kept = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # a process without standard error, or without a place for files
            yield
            return
        warnings.filterwarnings("ignore", "Protobuf gencode version", UserWarning)
        _flush_stderr()
        os.dup2(kept.fileno(), 2)
        try:
            with progress.shown_on(shown) if _stderr_is_2() else contextlib.nullcontext():
                yield
        finally:
            _flush_stderr()
            os.dup2(shown.fileno(), 2)
            kept.seek(0)
            shown.flush()
            for line in kept:
                if not _LOG_LINE.match(line):
                    os.write(2, line)


def _stderr_is_2():
    try:
        return sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # None, or a notebook's own
        return False


def _flush_stderr():
    with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
        sys.stderr.flush()
