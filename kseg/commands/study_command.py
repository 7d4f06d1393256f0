"""Train several models with several seeds, and say which is better, or that it was the seed.

    kseg study streets
    kseg study my_study.toml --equivalence=.005
    kseg study --report=runs/study_streets

Trains every model of STUDY.toml with every seed within one budget, and compares them; docs/how-to/studies.md explains
the file. The same command continues a study that was interrupted. Exit code 1: a run is broken.

--report compares what is finished, in seconds, and trains nothing.
"""

import json
import re
import signal
import sys

from absl import flags

from kseg.commands import command_line, flagfiles, train_command
from kseg.io.errors import InputError, MissingFileError
from kseg.io.text import did_you_mean
from kseg.settings.configs import config_files, find_config, with_commands
from kseg.studies.engines import ENGINES

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_enum(
    "engine",
    "local",
    list(ENGINES),
    "Where the runs are computed; the results have the same bits. local: on this machine, one after another, or one "
    "for each GPU. slurm: a job array of a Slurm cluster. ray: tasks of a Ray cluster. Options are in STUDY.toml.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "equivalence",
    0.01,
    "Difference of mean IoU, as a share of 1, that does not matter. Choose it before you look.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "report",
    None,
    "Output folder of a study: compare what is finished there, and train nothing.",
    flag_values=FLAGS,
)


def run(args, files):
    """Run a study, or report on one."""
    if args.report is not None:
        if files:
            raise flags.Error(f"--report takes no STUDY.toml: the folder knows its study. Got {files[0]}.")
        command_line.check_folder(args.report, "the output of kseg study")
        from kseg.studies.study_report import report

        found = report(args.report, equivalence=args.equivalence)
        output = args.report
    else:
        if len(files) != 1:
            raise flags.Error(f"Give one STUDY.toml, got {' '.join(files) or 'none'}. See --help.")
        file = find_config(files[0], "studies")
        if not file.exists():
            ours = [name.removeprefix("studies/") for name in config_files() if name.startswith("studies/")]
            raise flags.Error(f"There is no {files[0]}. Give a STUDY.toml, or a study of kseg's: {', '.join(ours)}.")
        import kseg

        before = signal.signal(signal.SIGTERM, _end)
        try:
            found = kseg.study(file, engine=args.engine, equivalence=args.equivalence)
        except MissingFileError as error:
            if not (how := how_prepared(file)):
                raise
            raise flags.Error(f"{error} {file} says how:\n  {how}") from error
        finally:
            signal.signal(signal.SIGTERM, before)
        output = found.table["plan"]["output"]
    print(f"\n{found}\n")
    folder = output.rstrip("/")
    print(f"{folder}/report.txt  this text; report.json, results.csv and counts/ beside it have the numbers")
    print(f"{folder}/report/index.html  the same with charts and pictures, for a browser")
    if found.broken:
        sys.exit(1)


def how_prepared(file):
    """Return the command that prepares the records of a study, as its first comment gives it; "" if it gives none."""
    said = re.search(r"^#\s+(kseg prepare .+)$", with_commands(file.read_text(encoding="utf-8")), re.MULTILINE)
    return said[1] if said else ""


def _end(number, frame):
    """End in good order: the runs save their step."""
    print("\nkseg study: stopped. Run the same command again to continue.", file=sys.stderr)
    sys.exit(128 + number)


def main():
    """Run the command line."""
    command_line.start(run, FLAGS, takes_arguments=True)


def check():
    """Judge the flags of each model of a study as `kseg train` does before it imports Keras.

    Standard input has the JSON list [[model's name, records' name, whether a run is to begin, flags], ...]; standard
    output gets {model's name: {flag: value}} of --keep and --batch_size. The first fault ends it, on standard error.
    `kseg.study` starts this in a process of its own.
    """
    from kseg.training.arguments import check_model
    from kseg.training.launch import check_run

    found = {}
    for name, data, begins, given in json.load(sys.stdin):
        where = f"model {name} cannot be trained"
        args = command_line.new_flags(__name__)
        train_command.define_run(args)
        try:
            args(["kseg train", *flagfiles.expand_flagfiles(given)])
            settings, options = train_command.checked_settings_and_options(args)
            where += f" on {data}"
            options = check_model(args.model, options)
            check_run(args.model, args.data_dir, options, settings, begins=begins)
        except flags.UnrecognizedFlagError as error:
            typed = any(flag.startswith(f"--{error.flagname}=") for flag in given)
            hint = did_you_mean(error.flagname, args)
            sys.exit(f"{where}: {'flags' if typed else 'its flagfile'} has no {error.flagname!r}.{hint}")
        except (flags.Error, InputError) as error:  # of a file whose keys have no dashes
            sys.exit(str(InputError(f"{where}: {command_line.shown(error)}")))
        found[name] = {"keep": settings.keep, "batch_size": settings.batch_size}
    json.dump(found, sys.stdout)


def measure():
    """Write what a run would cost to a JSON file, for `kseg.study`, which starts this in a process of its own.

    Arguments: the file; what to time ("cpu", "gpu" or ""); flags of kseg train.
    """
    output = sys.argv.pop(1)
    timed = sys.argv.pop(1)
    sys.argv[0] = "kseg train"

    def run_measure(args):
        settings, options = train_command.settings_and_options(args)
        from kseg.data.records.ensure import ensure_records
        from kseg.io.files import write_json
        from kseg.training.launch import choose_for_run

        choose_for_run(args.model, args.workdir, options, settings.onednn)  # before anything imports TensorFlow
        ensure_records(args.dataset, args.data_dir)
        from kseg.training.pilot import facts_of_run

        write_json(output, facts_of_run(args.model, args.data_dir, options, settings, timed))

    command_line.start(run_measure, train_command.FLAGS)
