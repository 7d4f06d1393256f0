"""`kseg.study`: train every model with every seed on every data set, within one budget, and compare them."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import kseg
from kseg.data.groups import groups_of
from kseg.data.records.manifest import load_manifest, record_files
from kseg.io.errors import InputError
from kseg.io.files import LOCK, locked, reading, refuse_inputs, write_json
from kseg.io.progress import Waiting
from kseg.studies.budgets import share_of
from kseg.studies.engines import ENGINES
from kseg.studies.engines.local import Job, gpus
from kseg.studies.run_counts import FIXED, counts_path, read_counts, run_part, write_results
from kseg.studies.run_table import RunTable
from kseg.studies.statistics.verdict import EQUIVALENCE
from kseg.studies.study_plan import check_same, read_plan, run_names, train_flags
from kseg.studies.study_report import PLAN, check_equivalence, power_before, report, stored_study

COSTS = "costs.json"
PILOT_STEPS = 10
LAST_LINES = 8
_TRAIN = (
    "import sys; from kseg.studies import usage; usage.record(sys.argv.pop(1)); sys.argv[0] = 'train.py'; "
    "from kseg.commands.train_command import main; main()"
)
# The commands of a run, each with its arguments behind it. They need no folder scripts/, which a wheel has not.
PROGRAMS = {
    "measure": [sys.executable, "-c", "from kseg.commands.study_command import measure; measure()"],
    "train": [sys.executable, "-c", _TRAIN],
    "score": [sys.executable, "-c", "from kseg.studies.scoring import main; main()"],
}


def study(source, *, engine="local", equivalence=EQUIVALENCE):
    """Train several models with several seeds each, within one budget, and say which is better. docs/studies.md.

    Every run is an ordinary run folder OUTPUT/runs/MODEL/DATA/seed-N, made by `scripts/train.py` in a process of its
    own. The same call continues a study that was interrupted; finished runs are not repeated. A run that fails is
    reported, the others go on, and the next call tries it again.

    Args:
        source: path of a STUDY.toml, or a dict of its keys.
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
    check_equivalence(equivalence)
    output = pathlib.Path(plan.output)
    refuse_inputs([output], [path for data in plan.data for path in record_files(data.data_dir)])
    with locked(output), _same_kseg():
        before = power_before(plan.as_json(), equivalence)
        _claim(output, plan, before)
        for line in before:
            print(line, flush=True)
        facts = _facts(output, plan)
        _check_records(output, plan, facts)
        for (model, data), known in facts.items():
            share = share_of(plan.budget, known, model)
            known["steps"] = share.steps
            print(f"{model} on {data}: {share.text(plan.budget)}", flush=True)
        _wait_for_earlier(output, plan)
        broken = _run_all(output, plan, facts, ENGINES[engine])
        return report(output, equivalence=equivalence, broken=broken)


def _claim(output, plan, before):
    """Make the folder this study's, or check that it is. before: of `power_before`."""
    path = output / PLAN
    wanted = plan.as_json()
    if path.exists():
        check_same(stored_study(output)["plan"], wanted, output)
    elif any(not name.startswith(".") for name in os.listdir(output)):
        raise InputError(f"{output} holds files but no study. Choose an empty or new folder.")
    write_json(path, {"format": "kseg study 1", "kseg_version": kseg.__version__, "plan": wanted, "before": before})


def _facts(output, plan):
    """Return {(model, data): facts}, measured where costs.json does not know them yet."""
    path = output / COSTS
    known = {}
    if path.exists():
        try:
            known = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}). Delete it: the models are measured again.") from error
    found = {}
    for data in plan.data:
        for model in [model for model in plan.models if not model.file]:
            name = f"{model.name}/{data.name}"
            if name not in known:
                known[name] = _measure(output, plan, model, data)
                write_json(path, known)
            found[model.name, data.name] = dict(known[name])
    return found


def _measure(output, plan, model, data):
    folder = output / "logs" / model.name / data.name
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "facts.json"
    log = folder / "measure.txt"
    pilot_steps = PILOT_STEPS if plan.budget.kind == "seconds" else 0
    flags = [*train_flags(plan, model, data), f"--workdir={folder}", "--epochs=0", "--train_steps=1"]
    command = [*PROGRAMS["measure"], str(result), str(pilot_steps), *flags]
    with Waiting(f"measure {model.name} on {data.name}"), open(log, "wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = "\n".join(last_lines(log))
        raise InputError(f"Model {model.name} cannot be trained on {data.name}:\n{lines}\n{log} has all of it.")
    with reading(result):
        return json.loads(result.read_bytes())


def _check_records(output, plan, facts):
    """Raise InputError for records that are others than when the study began, or have no such splits or groups."""
    for data in plan.data:
        manifest = load_manifest(data.data_dir)
        for split in data.splits:
            names = manifest.split(split).names
            if plan.group_by and len(groups_of(names, plan.group_by, manifest.drive).names) < 2:
                raise InputError(
                    f"group_by must give two groups of images or more, but {plan.group_by} gives one of {data.name}, "
                    f"split {split}. Take smaller groups, or leave group_by out."
                )
        if any(known["manifest"] != manifest.digest for (_, name), known in facts.items() if name == data.name):
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
        busy = _busy(folder)
        if busy:
            with Waiting(f"{busy} An earlier start of this study left it; waiting"):
                while _busy(folder):
                    time.sleep(0.2)


def _busy(folder):
    """Return why a run's folder cannot be used now, "" if it can."""
    if not (folder / LOCK).exists():
        return ""
    try:
        with locked(folder):
            return ""
    except InputError as error:
        return str(error)


def _run_all(output, plan, facts, engine):
    """Compute the runs that are not finished; return the broken ones."""
    paths = {
        _name(*run): [counts_path(output, run[0].name, run[1].name, run[2], split) for split in run[1].splits]
        for run in run_names(plan)
    }
    rows = {}
    for name, files in paths.items():
        if all(path.exists() for path in files):
            rows[name] = [read_counts(path).row for path in files]
    jobs = [_job(output, plan, run, facts) for run in run_names(plan) if _name(*run) not in rows]
    table = RunTable(
        [(_name(*run), run[0].name) for run in run_names(plan)],
        rows,
        at_once=max(1, len(gpus())),
    )
    broken = []
    with contextlib.closing(engine(jobs, lambda job: table.started(job.name))) as ending:
        for job, code in ending:
            good = code == 0 and all(path.exists() for path in paths[job.name])
            if good:
                rows[job.name] = [read_counts(path).row for path in paths[job.name]]
                _write_rows(output, paths, rows)
            else:
                broken.append({"run": job.name, "code": code, "log": str(job.log), "end": last_lines(job.log)})
            table.ended(job.name, good)
    if rows:
        _write_rows(output, paths, rows)
    return broken


def _write_rows(output, paths, rows):
    """Write results.csv in the order of the plan, however the runs ended."""
    write_results(output, [row for name in paths for row in rows.get(name, ())])


def _name(model, data, seed):
    return f"{model.name}/{data.name}/{run_part(seed)}"


@contextlib.contextmanager
def _same_kseg():
    """A block whose child processes find this kseg."""
    before = os.environ.get("PYTHONPATH")
    root = str(pathlib.Path(kseg.__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [before])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _job(output, plan, run, facts):
    """Return the Job of a run: train it, unless it is trained or fixed, and score it."""
    model, data, seed = run
    workdir = _workdir(output, *run)
    folder = output / "logs" / model.name / data.name / run_part(seed)
    request = {
        "output": str(output),
        "model": model.name,
        "data": data.name,
        "seed": seed,
        "data_dir": data.data_dir,
        "splits": list(data.splits),
        "maps": seed in (plan.seeds[0], FIXED),
    }
    if model.file:
        request["file"] = model.file
        request["settings"] = {name: plan.flags.get(name) for name in ("label_set", "label_space")}
        return Job(_name(*run), ([*PROGRAMS["score"], json.dumps(request)],), folder / "log.txt")
    known = facts[model.name, data.name]
    request |= {"workdir": str(workdir), "usage": str(folder), "facts": known}
    flags = train_flags(plan, model, data)
    flags += [f"--workdir={workdir}", f"--seed={seed}", "--epochs=0", f"--train_steps={known['steps']}"]
    commands = [[*PROGRAMS["train"], str(folder), *flags], [*PROGRAMS["score"], json.dumps(request)]]
    if (workdir / "scores.json").exists():
        del commands[0]
    return Job(_name(*run), tuple(commands), folder / "log.txt")


def last_lines(log):
    """Return the last lines of a log file that are not empty."""
    text = pathlib.Path(log).read_bytes()[-20_000:].decode(errors="replace").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()][-LAST_LINES:]
