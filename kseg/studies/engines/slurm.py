"""The engine of a Slurm cluster: a job array, submitted by submitit.

What is on its way is known to the cluster's queue (`squeue`; `sacct` would need a database that many clusters have
not) and to a file SLURM beside each log, which names the job that owns the run. By that file the next start of a study
whose process died finds its jobs again. A job that is no longer named there is not put back into the queue.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from kseg.io.errors import InputError
from kseg.io.files import write_json
from kseg.studies.engines.job import STOPPED, note, run_on_node

SLURM = "slurm.json"
_POLL_SECONDS = 1
_ASK_SECONDS = 10  # between two questions to the cluster's controller
# Of `squeue`: https://slurm.schedmd.com/squeue.html, "JOB STATE CODES". In any other a job is on its way.
_ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)


class _OnNode:
    """What Slurm runs of a job. It is pickled by submitit; the folder is where the study was started."""

    def __init__(self, job, folder, restarts):
        self._job = job
        self._folder = folder
        self._restarts = restarts
        self._stopped = False

    def __call__(self):
        # Slurm sends SIGTERM to the training too, which saves its step.
        signal.signal(signal.SIGTERM, self._stop)
        code = run_on_node(self._job, self._folder, stopped=lambda: self._stopped)
        if code in STOPPED:
            self._put_back()
        return code

    def _stop(self, number, frame):
        self._stopped = True

    def _put_back(self):
        """Have Slurm start the job again, if it was stopped ahead of its time limit and is still wanted."""
        log = pathlib.Path(self._folder) / self._job.log
        own = _own_id()
        if _owner(log).get("id") != own or (_states() or {}).get(own) != "RUNNING":
            return  # cancelled or preempted: whoever did that knows what comes next
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= self._restarts:
            note(log, f"Stopped ahead of its time limit, for the last time: restarts of slurm is {self._restarts}.")
            return
        note(log, "Stopped ahead of its time limit: back into the queue.")
        subprocess.run(["scontrol", "requeue", own], check=True)
        sys.exit(STOPPED[0])  # without a result: the job has not ended


class _Sent:
    """A job in the cluster's queue, of this start of the study or of an earlier one."""

    def __init__(self, job, ticket):
        self.job = job
        self.id = ticket.job_id
        self.running = False
        self._ticket = ticket
        self._gone = 0

    def code(self, states):
        """Return the exit code of the job, None while it is on its way. states: of `_states`, None: not asked now."""
        with contextlib.suppress(OSError):  # makes NFS look again
            self._ticket.paths.folder.chmod(self._ticket.paths.folder.stat().st_mode)
        if self._ticket.paths.result_pickle.exists():
            problem = self._ticket.exception()
            if problem is None:
                return self._ticket.result()
            note(self.job.log, str(problem))
            return 1
        if states is None:
            return None
        self._gone += 1
        if states.get(self.id, "COMPLETED") not in _ENDED:
            self._gone = 0
        if self._gone < 2:  # its result may be on the way through a network file system
            return None
        state = states.get(self.id, "unknown to squeue")
        note(self.job.log, f"Slurm ended the job {self.id} ({state}); {self._ticket.paths.stderr} may say more.")
        return 1


def run_slurm(
    jobs,
    started,
    *,
    partition="",
    account="",
    minutes=60,
    cpus=1,
    gpus=0,
    memory_gb=0,
    jobs_at_once=0,
    save_seconds=120,
    restarts=100,
    sbatch=None,
):
    """Run jobs as `kseg.studies.engines.ENGINES` says, as an array of a Slurm cluster.

    Jobs that an earlier start of the study has left in the queue are waited for, not sent again.

    Args:
        partition, account: "": the cluster's default. minutes: time limit of a job; ahead of it the run saves, and
            goes on in a new one. cpus, gpus, memory_gb: of each job; 0: none, or the cluster's default.
        jobs_at_once: how many of the array may run together; 0: all.
        save_seconds: how long before its time limit a job gets SIGTERM; Slurm may send it up to 60 seconds earlier.
        restarts: how often a run may start again.
        sbatch: any other options of sbatch, by name.
    """
    submitit = installed_submitit()
    if save_seconds + 60 >= 60 * minutes:
        raise InputError(
            f"save_seconds of slurm must be more than a minute less than its {minutes} minutes, because Slurm may send "
            f"SIGTERM a minute early, got {save_seconds}. Raise minutes."
        )
    parameters = {
        "job_name": "kseg",
        "partition": partition or None,
        "account": account or None,
        "time": minutes,
        "cpus_per_task": cpus,
        "srun_args": [f"--cpus-per-task={cpus}"],  # from 22.05 on srun does not take it from sbatch
        "gpus_per_node": gpus or None,
        "mem": f"{memory_gb}GB" if memory_gb else None,
        "array_parallelism": jobs_at_once or max(1, len(jobs)),
        "additional_parameters": {"signal": f"TERM@{save_seconds}", "requeue": True, **(sbatch or {})},
    }
    states = _states()
    if states is None:
        raise InputError("The cluster's controller does not answer squeue. See what squeue says, and start again.")
    sent = _left_in_queue(jobs, states, submitit)
    known = [one.job for one in sent]
    new = [job for job in jobs if job not in known]
    if new:
        sent += _send(new, parameters, restarts, submitit)
    try:
        yield from _watch(sent, started)
    finally:
        _cancel(sent, save_seconds)


def installed_submitit():
    """Return the package submitit; InputError where it or a command of Slurm is missing."""
    try:
        import submitit
    except ImportError:
        raise InputError("The engine slurm needs submitit: pip install 'kseg[slurm]'.") from None
    lacking = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if lacking:
        raise InputError(
            f"The engine slurm needs Slurm's commands, but there is no {', '.join(lacking)}. Start the study on a "
            "machine from which jobs can be submitted."
        )
    return submitit


def _send(jobs, parameters, restarts, submitit):
    """Submit jobs as one array, and write down which of them owns which run."""
    folder = pathlib.Path(os.path.commonpath([job.log.parent.resolve() for job in jobs])) / "slurm"
    for job in jobs:
        job.log.parent.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**parameters)
    try:
        tickets = executor.submit_array([_OnNode(job, os.getcwd(), restarts) for job in jobs])
    except submitit.core.utils.FailedJobError as error:
        raise InputError(f"sbatch refused the jobs: {str(error).strip()}. Correct engines.slurm.") from error
    for job, ticket in zip(jobs, tickets, strict=True):
        write_json(job.log.parent / SLURM, {"id": ticket.job_id, "folder": str(folder)})
    return [_Sent(job, ticket) for job, ticket in zip(jobs, tickets, strict=True)]


def _left_in_queue(jobs, states, submitit):
    """Return what an earlier start of the study has sent and is still on its way."""
    found = []
    for job in jobs:
        owner = _owner(job.log)
        if states.get(owner.get("id"), "COMPLETED") not in _ENDED:
            found.append(_Sent(job, submitit.SlurmJob(folder=owner["folder"], job_id=owner["id"])))
    return found


def _watch(sent, started):
    """Give what ENGINES says of jobs on their way; those that have ended leave the list."""
    asked = -_ASK_SECONDS
    while sent:
        time.sleep(_POLL_SECONDS)
        states = None
        if time.monotonic() - asked >= _ASK_SECONDS:
            states = _states()
            asked = time.monotonic()
        for one in list(sent):
            code = one.code(states)
            state = (states or {}).get(one.id)
            if not one.running and (state == "RUNNING" or code is not None):
                one.running = True
                started(one.job)
            if code is not None:
                sent.remove(one)
                _disown(one)
                yield one.job, code
            elif one.running and state == "PENDING":
                one.running = False
                yield one.job, None


def _cancel(sent, save_seconds):
    """Take jobs out of the queue; let those that run save their step, for so long at most."""
    for one in sent:
        _disown(one)  # so that none puts itself back
    told = set()
    end = time.monotonic() + save_seconds
    while sent:
        states = _states() or {}
        sent = [one for one in sent if states.get(one.id, "COMPLETED") not in _ENDED]
        late = time.monotonic() > end
        waiting = [one.id for one in sent if late or states[one.id] == "PENDING"]
        running = [one.id for one in sent if states[one.id] == "RUNNING" and one.id not in told]
        if waiting:
            subprocess.run(["scancel", *waiting], check=False)
        if running and not late:
            subprocess.run(["scancel", "--signal=TERM", *running], check=False)
            told.update(running)
        if sent:
            time.sleep(_POLL_SECONDS)


def _disown(one):
    (one.job.log.parent / SLURM).unlink(missing_ok=True)


def _owner(log):
    """Return the id and folder of the job that owns a run, {} if there is none."""
    try:
        found = json.loads((log.parent / SLURM).read_bytes())
        return {"id": found["id"], "folder": found["folder"]}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _own_id():
    """The id of the job that this process is part of."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _states():
    """Return {id: state} of this user's jobs, the ended ones for some minutes; None if the controller is silent."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--me", "--format=%i %T"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    return dict(line.split() for line in asked.stdout.splitlines())
