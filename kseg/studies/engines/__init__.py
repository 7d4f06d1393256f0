"""Engines: where the runs of a study are computed. An engine only starts commands; it knows nothing of training."""

from kseg.studies.engines.local import run_local

# Each takes (jobs, started) and gives (job, exit code) as jobs end, in any order. started(job) is called as one starts.
# A job ends at its first command that fails. When the generator is closed, it ends what it has started (SIGTERM).
ENGINES = {
    "local": run_local,  # one after another, or one for each GPU
}
