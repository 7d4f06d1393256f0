"""`kseg.study`: train every model with every seed on every data set, within one budget, and compare them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import kseg
from kseg.data.groups import groups_of
from kseg.data.records.leave_out import groups_to_leave_out, leave_one_out
from kseg.data.records.manifest import load_manifest, record_files
from kseg.io.errors import InputError, error_in
from kseg.io.files import StrPath, locked, reading, write_json
from kseg.io.hash_list import write_hashes
from kseg.io.outputs import refuse_inputs
from kseg.io.progress import Waiting
from kseg.runs.workdir import RunFolder
from kseg.studies.budgets import share_of
from kseg.studies.engines import ENGINES, check_installed, options_of
from kseg.studies.engines.job import Job
from kseg.studies.engines.local import cores
from kseg.studies.run_counts import FIXED, counts_path, read_counts, run_part, write_results
from kseg.studies.run_lock import busy
from kseg.studies.run_table import RunTable
from kseg.studies.statistics.verdict import EQUIVALENCE
from kseg.studies.study_plan import check_same, read_plan, run_names, train_flags
from kseg.studies.study_report import (
    COSTS,
    PLAN,
    REPORT_PARTS,
    StudyReport,
    check_equivalence,
    power_before,
    report,
    stored_study,
)

_TIMED = {"seconds": "cpu", "gpu-seconds": "gpu"}  # by a pilot, for the budgets that need it
LAST_LINES = 8
_TRAIN = (
    "import sys; from kseg.studies import run_lock, usage; accounts, workdir = sys.argv[1:3]; del sys.argv[1:3]; "
    "run_lock.wait_until_free(workdir, accounts); usage.record(accounts); sys.argv[0] = 'kseg train'; "
    "from kseg.commands.train_command import main; main()"
)
# Of TensorFlow and of NumPy's libraries. How many threads share a sum decides its last bits.
_THREADS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
# The commands of a run, each with its arguments behind it. They need no folder scripts/, which a wheel has not.
PROGRAMS = {
    "check": [sys.executable, "-c", "from kseg.commands.study_command import check; check()"],
    "measure": [sys.executable, "-c", "from kseg.commands.study_command import measure; measure()"],
    "train": [sys.executable, "-c", _TRAIN],
    "score": [sys.executable, "-c", "from kseg.studies.scoring import main; main()"],
}


def study(source: StrPath | dict[str, Any], *, engine: str = "local", equivalence: float = EQUIVALENCE) -> StudyReport:
    """Train several models with several seeds each, within one budget, and say which is better. docs/how-to/studies.md.

    Every run is an ordinary run folder OUTPUT/runs/MODEL/DATA/seed-N, made by `kseg train` in a process of its
    own. The same call continues a study that was interrupted; finished runs are not repeated. A run that fails is
    reported, the others go on, and the next call tries it again.

    Args:
        source: path of a STUDY.toml, the name of one of kseg's (`kseg configs`), or a dict of its keys.
        engine: a name of `kseg.studies.engines.ENGINES`.
        equivalence: the difference of mean IoU that does not matter, as a share of 1.
    Returns:
        kseg.studies.study_report.StudyReport; OUTPUT has its report.txt and report.json, counts/ and results.csv.
    Raises:
        InputError: a plan or a contestant that cannot be, another study's folder, one that is in use, records that
            have changed since the study began.
    """
    plan = read_plan(source)
    if engine not in tuple(ENGINES):
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}.")
    check_installed(engine)
    check_equivalence(equivalence)
    output = pathlib.Path(plan.output)
    if os.path.lexists(output) and not output.is_dir():
        raise InputError(f"output must be a folder, but {output} is a file. Choose another in the study's file.")
    refuse_inputs([output], [path for data in plan.data for path in record_files(data.data_dir)])
    try:
        _check(plan)
    except InputError as error:
        raise error_in("The study" if isinstance(source, Mapping) else source, error) from error
    with locked(output):
        before = power_before(plan.as_json(), equivalence)
        threads = _claim(output, plan, engine, before)
        return _compute(plan, engine, threads, before, equivalence)


def _compute(plan, engine, threads, before, equivalence):
    """Run what is not finished of a study whose folder is claimed, and report."""
    output = pathlib.Path(plan.output)
    with _environment(threads):
        for line in before:
            print(line, flush=True)
        facts = _facts(output, plan)
        left_out = _left_out(output, plan)
        for (model, data), known in facts.items():
            share = share_of(plan.budget, known, model)
            known["steps"] = share.steps
            print(f"{model} on {data}: {share.text(plan.budget)}", flush=True)
        if engine == "local":  # on a cluster the runs themselves wait, and Slurm's jobs are found again
            _wait_for_earlier(output, plan)
        broken = _run_all(output, plan, facts, left_out, engine)
        return report(output, equivalence=equivalence, broken=broken)


def _claim(output, plan, engine, before):
    """Make the folder this study's, or check that it is. before: of `power_before`.

    The plan of a folder in which no run has begun may still change: a mistake in it stopped the study. So may a model
    that is not trained here until it has been scored.

    Returns:
        the threads of each run: as the plan or the first start says; 0: those of a study of an older kseg are not set.
    """
    path = output / PLAN
    wanted = plan.as_json()
    if path.exists():
        stored = {"threads": 0, **stored_study(output)["plan"]}
        stored["models"] = [model for model in stored["models"] if not _may_change(output, stored, model)]
        wanted["threads"] = plan.threads or stored["threads"]
        try:
            check_same(stored, wanted, output)
        except InputError:
            if _has_begun(output, stored):
                raise
            (output / COSTS).unlink(missing_ok=True)
    else:
        if any(not name.startswith(".") for name in os.listdir(output)):
            raise InputError(f"{output} holds files but no study. Choose an empty or new folder.")
        wanted["threads"] = plan.threads or _threads(plan, engine)
    write_json(path, {"format": "kseg study 1", "kseg_version": kseg.__version__, "plan": wanted, "before": before})
    write_hashes(output, REPORT_PARTS)
    return wanted["threads"]


def _has_begun(output, stored):
    """Whether a run of a study may have begun: a folder shows it, or all models are measured, as they are before.

    stored: its plan, of JSON types.
    """
    if any((output / folder).exists() for folder in ("runs", "counts")):
        return True
    trained = [model["name"] for model in stored["models"] if not model.get("file")]
    pairs = {f"{model}/{data['name']}" for model in trained for data in stored["data"]}
    return pairs <= _known_costs(output).keys()


def _may_change(output, stored, model):
    """Whether nothing was computed of a model yet, and nothing of it is trained here."""
    if not model.get("file"):
        return False
    splits = [(data["name"], split) for data in stored["data"] for split in data["splits"]]
    return not any(counts_path(output, model["name"], data, FIXED, split).exists() for data, split in splits)


def _threads(plan, engine):
    """Return how many threads a run has cores for, where an engine starts it as the plan says."""
    options = {**options_of(engine), **plan.engines.get(engine, {})}
    if "cpus" in options:
        return options["cpus"]
    given = os.environ.get(_THREADS[0], "")
    if given.isdigit() and int(given):
        return int(given)
    return max(1, len(cores()) // max(1, options.get("jobs_at_once", 0)))


def _facts(output, plan):
    """Return {(model, data): facts}, measured where costs.json does not know them yet."""
    path = output / COSTS
    known = _known_costs(output)
    _check_unchanged(output, plan, known)  # before anything of other records is measured and written down as known
    found = {}
    for data in plan.data:
        for model in [model for model in plan.models if not model.file]:
            name = f"{model.name}/{data.name}"
            if name not in known:
                known[name] = _measure(output, plan, model, data)
                write_json(path, known)
                write_hashes(output, REPORT_PARTS)
            found[model.name, data.name] = dict(known[name])
    return found


def _measure(output, plan, model, data):
    folder = output / "logs" / model.name / data.name
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "facts.json"
    log = folder / "measure.txt"
    flags = [*train_flags(plan, model, data), f"--workdir={folder}", "--epochs=0", "--train_steps=1"]
    command = [*PROGRAMS["measure"], str(result), _TIMED.get(plan.budget.kind, ""), *flags]
    with Waiting(f"measure {model.name} on {data.name}"), open(log, "wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = "\n".join(last_lines(log))
        raise InputError(f"Model {model.name} cannot be trained on {data.name}:\n{lines}\n{log} has all of it.")
    with reading(result):
        return json.loads(result.read_bytes())


def _known_costs(output):
    """Return {"MODEL/DATA": facts}, what costs.json holds."""
    path = output / COSTS
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it: the models are measured again.") from error


def _check(plan):
    """Raise InputError for what a plan wants and cannot be, before anything is written: in seconds, and without Keras.

    Records without the splits or groups; all that `kseg.training.launch.check_run` refuses.
    """
    for data in plan.data:
        manifest = load_manifest(data.data_dir)
        for split in data.splits:
            names = manifest.split(split).names
            if plan.group_by and len(groups_of(names, plan.group_by, manifest.drive).names) < 2:
                raise InputError(
                    f"group_by must give two groups of images or more, but {plan.group_by} gives one of {data.name}, "
                    f"split {split}. Take smaller groups, or leave group_by out."
                )
        if plan.leave_out:
            groups_to_leave_out(manifest, plan.leave_out)
    with _environment(0):
        _check_models(plan)


def _check_models(plan):
    steps = ("--epochs=0", "--train_steps=1")  # their number is known when the models are measured
    pairs = [(model, data) for model in plan.models if not model.file for data in plan.data]
    given = [
        [model.name, data.name, _begins(plan, model, data), [*train_flags(plan, model, data), *steps]]
        for model, data in pairs
    ]
    done = subprocess.run(PROGRAMS["check"], input=json.dumps(given).encode(), capture_output=True, check=False)
    if done.returncode:
        raise InputError(done.stderr.decode(errors="replace").strip())
    for name, flags in json.loads(done.stdout).items():
        if plan.budget.kind == "images":
            share_of(plan.budget, flags, name)
        if plan.leave_out and flags["keep"] == "best":
            raise InputError(
                f"With leave_out the weights must not be chosen by the images that are scored, but model {name} has "
                'keep=best. Give flags = {keep = "last"}.'
            )


def _begins(plan, model, data):
    """Whether a run of a model on records is to begin: it needs the files that its weights begin with."""
    output = pathlib.Path(plan.output)
    return any(
        RunFolder(_workdir(output, model, data, seed)).never_saved
        and not all(counts_path(output, model.name, data.name, seed, split).exists() for split in data.splits)
        for seed in plan.seeds
    )


def _check_unchanged(output, plan, known):
    """Raise InputError for records that are others than when the study began; known: of `_known_costs`."""
    for data in plan.data:
        manifest = load_manifest(data.data_dir)
        measured = [facts for name, facts in known.items() if name.endswith(f"/{data.name}")]
        if any(facts["manifest"] != manifest.digest for facts in measured):
            raise InputError(
                f"The records {data.data_dir} have changed since {output} was started: its runs could not be compared. "
                "Use another output folder."
            )


def _workdir(output, model, data, seed):
    return output / "runs" / model.name / data.name / run_part(seed)


def _wait_for_earlier(output, plan):
    """Wait for trainings that an earlier start of this study, which was killed, has left behind."""
    for model, data, seed in run_names(plan):
        folder = _workdir(output, model, data, seed)
        if busy(folder):
            with Waiting(f"wait for {folder}, which an earlier start of this study still trains"):
                while busy(folder):
                    time.sleep(0.2)


def _left_out(output, plan):
    """Return {(data, seed): (group that a run leaves out, its record folder)}, made if it is not there."""
    found = {}
    if not plan.leave_out:
        return found
    for data in plan.data:
        folders = list(leave_one_out(data.data_dir, output / "records" / data.name, plan.leave_out).items())
        for seed in plan.seeds:
            found[data.name, seed] = folders[seed % len(folders)]
    return found


def _run_all(output, plan, facts, left_out, engine):
    """Compute the runs that are not finished; return the broken ones."""
    paths = {
        _name(*run): [counts_path(output, run[0].name, run[1].name, run[2], split) for split in run[1].splits]
        for run in run_names(plan)
    }
    rows = {}
    for name, files in paths.items():
        if all(path.exists() for path in files):
            rows[name] = [read_counts(path).row for path in files]
    jobs = [_job(output, plan, run, facts, left_out) for run in run_names(plan) if _name(*run) not in rows]
    table = RunTable([(_name(*run), run[0].name) for run in run_names(plan)], rows)
    broken = []
    running = ENGINES[engine](jobs, lambda job: table.started(job.name), **plan.engines.get(engine, {}))
    with contextlib.closing(running) as ending:
        for job, code in ending:
            if code is None:
                table.waits(job.name)
                continue
            good = code == 0 and all(path.exists() for path in paths[job.name])
            if good:
                rows[job.name] = [read_counts(path).row for path in paths[job.name]]
                _write_rows(output, paths, rows)
            else:
                broken.append({"run": job.name, "code": code, "log": str(job.log), "end": last_lines(job.log)})
            table.ended(job.name, good)
    return broken


def _write_rows(output, paths, rows):
    """Write results.csv in the order of the plan, however the runs ended, and sha256.txt."""
    write_results(output, [row for name in paths for row in rows.get(name, ())])
    write_hashes(output, REPORT_PARTS)


def _name(model, data, seed):
    return f"{model.name}/{data.name}/{run_part(seed)}"


@contextlib.contextmanager
def _environment(threads):
    """A block whose child processes find this kseg, and compute with so many threads, whatever their machine has."""
    root = str(pathlib.Path(kseg.__file__).resolve().parents[1])
    values = {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    if threads:
        values |= dict.fromkeys(_THREADS, str(threads))
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _job(output, plan, run, facts, left_out):
    """Return the Job of a run: train it, unless it is trained or fixed, and score it."""
    model, data, seed = run
    group = ""
    if left_out:
        group, data_dir = left_out[data.name, seed]
        data = dataclasses.replace(data, data_dir=str(data_dir))
    workdir = _workdir(output, *run)
    folder = output / "logs" / model.name / data.name / run_part(seed)
    request = {
        "output": str(output),
        "model": model.name,
        "data": data.name,
        "seed": seed,
        "data_dir": data.data_dir,
        "splits": list(data.splits),
        "left_out": group,
        "maps": not group and seed in (plan.seeds[0], FIXED),
    }
    if model.file:
        request["file"] = model.file
        request["settings"] = {name: plan.flags.get(name) for name in ("label_set", "label_space")}
        return Job(_name(*run), ([*PROGRAMS["score"], json.dumps(request)],), folder / "log.txt")
    known = facts[model.name, data.name]
    request |= {"workdir": str(workdir), "usage": str(folder), "facts": known}
    flags = train_flags(plan, model, data)
    flags += [f"--workdir={workdir}", f"--seed={seed}", "--epochs=0", f"--train_steps={known['steps']}"]
    commands = [[*PROGRAMS["train"], str(folder), str(workdir), *flags], [*PROGRAMS["score"], json.dumps(request)]]
    if (workdir / "scores.json").exists():
        del commands[0]
    return Job(_name(*run), tuple(commands), folder / "log.txt")


def last_lines(log):
    """Return the last lines of a log file that are not empty."""
    text = pathlib.Path(log).read_bytes()[-20_000:].decode(errors="replace").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()][-LAST_LINES:]
