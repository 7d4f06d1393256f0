"""Engines: where the runs of a study are computed. An engine only starts commands; it knows nothing of training."""

import inspect

from kseg.io.errors import InputError, check_whole
from kseg.studies.engines.local import run_local
from kseg.studies.engines.ray import installed_ray, run_ray
from kseg.studies.engines.slurm import installed_submitit, run_slurm

# Each takes (jobs, started) and gives (job, exit code) as jobs end, in any order. started(job) is called as one starts;
# (job, None) says that one waits for a machine again. A job ends at its first command that fails. When the generator is
# closed, it ends what it has started (SIGTERM). Keyword arguments are its table in STUDY.toml, [engines.NAME].
ENGINES = {
    "local": run_local,  # one after another, some at once, or one for each GPU
    "slurm": run_slurm,  # a job array
    "ray": run_ray,  # tasks of Ray Core
}
_NEEDS = {"slurm": installed_submitit, "ray": installed_ray}


def check_installed(engine):
    """Raise InputError where what an engine needs is not installed."""
    if engine in _NEEDS:
        _NEEDS[engine]()


def check_engines(tables):
    """Return {engine: its options}, checked; InputError for an engine, an option or a value that cannot be.

    The default of an option shows its type: text; a whole number of at least 1, or of at least 0 where 0 is the
    default; a table of text and numbers for None.
    """
    if not isinstance(tables, dict):
        raise InputError(f"engines must be tables [engines.NAME], got {tables!r}.")
    for engine, options in tables.items():
        if engine not in tuple(ENGINES):
            raise InputError(f"engines must be one of {', '.join(ENGINES)}, got {engine!r}.")
        if not isinstance(options, dict):
            raise InputError(f"engines.{engine} must be a table, got {options!r}.")
        known = options_of(engine)
        for name, value in options.items():
            if name not in known:
                raise InputError(f"Unknown key {name!r} of engines.{engine}. Known are {', '.join(known)}.")
            _check_option(f"{name} of engines.{engine}", value, known[name])
    return tables


def options_of(engine):
    """Return {option: default} of an engine."""
    parameters = inspect.signature(ENGINES[engine]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def _check_option(what, value, default):
    if isinstance(default, int):
        check_whole(what, value, min(default, 1))
    elif default is None:
        if not isinstance(value, dict) or not all(isinstance(one, (str, int, float)) for one in value.values()):
            raise InputError(f"{what} must be a table of text and numbers, got {value!r}.")
    elif not isinstance(value, str):
        raise InputError(f"{what} must be text, got {value!r}.")
