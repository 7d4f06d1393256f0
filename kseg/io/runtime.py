"""How TensorFlow runs on a CPU: which kernels and which memory allocator. Both are chosen before it starts.

The allocator. As soon as a tf.data iterator exists, TensorFlow by default returns the buffers of a step to the system
and fetches them again: 150,000 page faults per step of the quickstart, half of its time. With
TF_CPU_ALLOCATOR_USE_BFC=true it keeps them. `import kseg` sets that, unless the variable is set; TensorFlow reads it
when it runs the first operation of a process.

The kernels. TensorFlow's own rule uses oneDNN's if the processor has instructions for neural networks (AVX512_VNNI,
AVX_VNNI, AMX ...) and Eigen's elsewhere, for example on an AMD EPYC without AVX-512. There oneDNN makes a narrow
network faster and a wide one slower (benchmarks/RESULTS.md). TF_ENABLE_ONEDNN_OPTS decides when TensorFlow is imported,
for the whole process.
"""

import os
import sys

from kseg.io.errors import InputError

ALLOCATOR = "TF_CPU_ALLOCATOR_USE_BFC"
LIMIT = "TF_CPU_BFC_MEM_LIMIT_IN_MB"
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# Networks of so many base filters or fewer gain from oneDNN where TensorFlow leaves it off: on an AMD EPYC without
# AVX-512 it takes 0.75 of the time at 8 and 1.48 at 64, which makes 1 near 19 (benchmarks/RESULTS.md).
NARROW = 16
_FLAG = {"on": "1", "off": "0"}  # what ONEDNN holds
_OWN_LIMIT = 1 << 16  # MB that TensorFlow's allocator hands out at most, where nothing is said


def keep_buffers():
    """Have TensorFlow keep the buffers it frees, up to the machine's memory, unless the user chose an allocator."""
    if ALLOCATOR in os.environ:
        return
    os.environ[ALLOCATOR] = "true"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, and not every system knows these names
        return
    if memory > _OWN_LIMIT:
        os.environ.setdefault(LIMIT, str(memory))


def choose_kernels(setting, stored, base_filters):
    """Set TF_ENABLE_ONEDNN_OPTS for the run that is about to start, if TensorFlow is not imported yet.

    The setting decides, then the stored run. If neither does, a variable that the user has set stays; otherwise a
    narrow network uses oneDNN and a wide one TensorFlow's own rule.

    Args:
        setting: "auto", "on" or "off". stored: None if the workdir holds no run, else the run's "on" or "off", or ""
            for a run of an older kseg, which continues with TensorFlow's rule.
        base_filters: width of the network, None if it is unknown.
    """
    if "tensorflow" in sys.modules:
        return
    decided = setting
    if setting == "auto":
        decided = stored or "auto"
    narrow = base_filters is not None and base_filters <= NARROW
    if decided == "auto" and stored is None and narrow and ONEDNN not in os.environ:
        decided = "on"
    if decided != "auto":
        os.environ[ONEDNN] = _FLAG[decided]


def check_kernels(setting, stored):
    """Raise InputError if the setting onednn differs from the run in the workdir ("" or None: not stored)."""
    if stored and setting not in ("auto", stored):
        raise InputError(
            f"The workdir holds a run with onednn={stored}, got {setting}, which computes other bits. Leave "
            "onednn out, or use another workdir (init_from starts it from this run's weights)."
        )


def settle_kernels(setting, stored):
    """Return what this process runs, if the setting and the stored run agree with it.

    Args: `setting`, `stored`: as in `choose_kernels`.
    Returns: "on" or "off"; the setting itself under a backend that has no oneDNN.
    Raises: ValueError: setting and run differ, or this process can no longer do what they say.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        if setting != "auto":
            raise InputError(f"onednn needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}. Leave it out.")
        return setting
    check_kernels(setting, stored)
    wanted = stored or setting
    running = _running()
    if wanted not in ("auto", running):
        whose = "onednn asks for a run"
        if stored:
            whose = "the run in the workdir was trained"
        raise InputError(
            f"This process runs TensorFlow with oneDNN {running}, but {whose} with oneDNN {wanted}. That is decided "
            f"when TensorFlow is imported. Start a new process that calls kseg.train first, or that has "
            f"{ONEDNN}={_FLAG[wanted]}."
        )
    return running


def peak_memory():
    """Return the most memory that this process has had so far, in bytes; ImportError on Windows, which cannot say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            # Linux hands ru_maxrss on from parent to child; this one starts with the process.
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except FileNotFoundError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)


def runs_onednn():
    """Return whether the TensorFlow of this process uses oneDNN's kernels."""
    from tensorflow.python.util import _pywrap_util_port  # nothing public says it

    return _pywrap_util_port.IsMklEnabled()


def _running():
    return "on" if runs_onednn() else "off"


def allocator():
    """Return which allocator TensorFlow uses in this process: "BFC", "oneDNN" or "system".

    oneDNN brings its own, which keeps large buffers too; the system's keeps no account of them.
    """
    import tensorflow as tf

    try:
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    except ValueError:
        return "system"
    with tf.device("CPU:0"):
        small = tf.random.uniform((3,))
    after = tf.config.experimental.get_memory_info("CPU:0")["current"]
    del small
    return "BFC" if after - before == 256 else "oneDNN"  # BFC's unit; oneDNN's counts large buffers alone


def describe_kernels():
    """Return (kernels and allocator of this process in words, a warning or None).

    The warning says that TensorFlow ran before kseg could set the allocator, and what that costs.
    """
    kind = allocator()
    words = f"oneDNN {_running()}, {kind} allocator"
    if kind != "system" or os.environ.get(ALLOCATOR, "").lower() not in ("1", "true"):
        return words, None
    return words, (
        "TensorFlow ran before kseg was imported, so it returns the buffers of each step to the system: steps of a "
        f"narrow network take up to twice as long. Import kseg first, or start Python with {ALLOCATOR}=true."
    )
