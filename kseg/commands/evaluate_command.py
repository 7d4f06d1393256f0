"""Score a model, or judge published scores.

    kseg evaluate --model=runs/segnet_aspp --data_dir=data/cityscapes
    kseg evaluate --model=runs/a,runs/b --data_dir=data/cityscapes --output=ensemble.json
    kseg evaluate --audit --row=.9892,.8912,.9943,.8912,.8377

The second scores an ensemble. The third asks whether five published scores can be of one confusion matrix.
--audit --mean=.7532,.0041,5 --mean=.7480,.0052,5 asks whether the order of two published means may be chance (mean,
standard deviation, number of seeds). No --audit needs a model.
"""

import pathlib

from absl import flags

from kseg.commands import command_line
from kseg.evaluation import PROTOCOLS

FLAGS = command_line.new_flags(__name__)
command_line.define_scored_data(FLAGS, __name__)
flags.DEFINE_string(
    "model",
    None,
    "Run folder, .keras file, folder of a study's seeds (STUDY/runs/MODEL/DATA), SavedModel folder, ONNX or TFLite "
    "file, folder of predicted label maps, or the description of one of them (docs/how-to/contestants.md). Several, "
    "between commas, are an ensemble: the mean of their probabilities is scored.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "map",
    None,
    "For a model of other classes: .toml or .json file, a table from the model's classes to the data's "
    '(wall = "Building"). A class that is not in it counts as wrong wherever it is predicted.',
    flag_values=FLAGS,
)
command_line.define_looks(FLAGS, __name__)
flags.DEFINE_enum(
    "protocol",
    "standard",
    list(PROTOCOLS),
    f"How to score. {'; '.join(f'{name}: {protocol.help}' for name, protocol in PROTOCOLS.items())}.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "group_by",
    None,
    "For --protocol=standard: score each group of images too. drive: the drive that the names tell (Cityscapes: the "
    "city). block:25: blocks of 25 consecutive frames of a drive. Anything else: a regular expression, found in the "
    "name, whose first group is the image's group. Empty: no groups.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "label_resize",
    None,
    ["nearest", "smooth"],
    "For --protocol=fischer2021: how to resize labels; empty: as the run was trained, else nearest.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "train_mode_statistics",
    False,
    "For --protocol=fischer2021: score with batch statistics and active dropout, as the authors did (--batch_size=1 "
    "for R2U-Net, 2 for SegNet-ASPP). This does not change the model.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "audit",
    False,
    "Say how the scores in --row could have been computed, or whether the order of two --mean may be chance, and do "
    "nothing else.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "row",
    [],
    "For --audit: published accuracy,sensitivity,specificity,F1,Jaccard as shares of 1.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "mean",
    [],
    "For --audit: a published mean over seeds, its standard deviation (not the standard error) and the number of "
    "seeds, such as .7532,.0041,5; give the flag twice.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", None, "JSON file to write the scores to; empty: beside the model.", flag_values=FLAGS)
flags.DEFINE_string(
    "report_dir",
    None,
    "Folder for confusion.csv, confusion.png, objects.json, boundaries.json, calibration.json, reliability.png and, "
    "with --group_by, groups.csv; empty: no report. With --protocol=fischer2021, which scores at another size, it "
    "takes a second pass over the images.",
    flag_values=FLAGS,
)


def print_audit(rows):
    """Print the audit of rows given as text, rounded to as many decimals as the longest number shows."""
    from kseg.evaluation.audit import audit

    numbers = [row.replace(" ", "").split(",") for row in rows]
    digits = max((len(number.partition(".")[2]) for row in numbers for number in row), default=4)
    print(audit(numbers, digits))


def print_ranking(means):
    """Print whether the order of two published means, given as text, may be chance."""
    from kseg.studies.statistics.published import PublishedMean, judge

    print(judge(*[PublishedMean.of_text(text) for text in means]))


def run_audit(args):
    """Judge the published numbers that the flags give."""
    if not (args.audit and (args.row or args.mean)):
        raise flags.Error(
            "--audit and --row=ACCURACY,SENSITIVITY,SPECIFICITY,F1,JACCARD go together, "
            "or --audit and two --mean=MEAN,DEVIATION,SEEDS."
        )
    if len(args.mean) not in (0, 2):
        raise flags.Error(f"--mean must be given twice, got {len(args.mean)}.")
    unused = [
        f"--{name}" for name in ("model", "map", "data_dir", "output", "report_dir", "group_by") if args[name].value
    ]
    if unused:
        raise flags.Error(f"--audit reads no model or data and writes no file. Leave out {', '.join(unused)}.")
    if args.row:
        print_audit(args.row)
    if args.mean:
        print_ranking(args.mean)


def run(args):
    """Score what the flags say."""
    if args.audit or args.row or args.mean:
        run_audit(args)
        return
    command_line.require(args, "model", "data_dir")
    if args.group_by and args.protocol != "standard":
        raise flags.Error(f"--group_by needs --protocol=standard, got --protocol={args.protocol}.")
    if args.protocol == "fischer2021" and not command_line.looks_of(args).single:
        raise flags.Error(
            "--tile, --scales and --flip are not for --protocol=fischer2021, which looks as its authors do."
        )
    from kseg.inference.hub import on_hub

    models = command_line.models_of(args.model)
    if (on_hub(models) or isinstance(models, list)) and not args.output:
        raise flags.Error(f"--model={args.model} is in no folder of yours: give --output=FILE.json for its scores.")
    command_line.check_scored(args, models)
    from kseg.data.datasets.cityscapes import check_regular_ids
    from kseg.data.records.manifest import load_manifest, record_files
    from kseg.inference.model_paths import model_files
    from kseg.inference.outside.class_map import ClassMap
    from kseg.io.outputs import refuse_inputs
    from kseg.reports import report_files

    model = pathlib.Path(args.model).absolute()
    kind = "scores" if args.protocol == "standard" else args.protocol
    output = pathlib.Path(args.output or model.with_name(f"{model.name}.{args.split}.{kind}.json"))
    reports = [pathlib.Path(args.report_dir, name) for name in report_files.FILES] if args.report_dir else []
    read = [*model_files(models), *record_files(args.data_dir)]
    if args.map:
        ClassMap.read(args.map)
        read.append(args.map)
    if args.protocol == "cityscapes" and not args.label_space:
        check_regular_ids(load_manifest(args.data_dir))
    refuse_inputs([output, *reports], read)
    report_files.check_own_scores(output)
    if args.report_dir:
        report_files.check_own_report(args.report_dir)
    one_pass = args.protocol != "fischer2021" and not (args.label_resize or args.train_mode_statistics)
    if args.report_dir and one_pass:
        report = write_report(args, models)
        scores = report.cityscapes or report.scores
    else:
        scores = score(args, models)
        report = write_report(args, models) if args.report_dir else None
    print(scores)
    scores.to_json(output)
    print(f"{output}  the same table")
    if report:
        print(f"\n{report}")
        print(f"{args.report_dir}  the report: {', '.join(report.files)}")


def score(args, models):
    """Run the model over the split for the scores of the protocol alone."""
    import kseg

    looks = command_line.looks_of(args)
    return kseg.evaluate(
        models,
        args.data_dir,
        tile=looks.tile,
        scales=looks.scales,
        flip=looks.flip,
        protocol=args.protocol,
        label_set=args.label_set,
        split=args.split,
        batch_size=args.batch_size,
        label_space=args.label_space,
        progress=True,
        group_by=args.group_by or None,
        label_resize=args.label_resize,
        train_mode_statistics=args.train_mode_statistics,
        class_map=args.map or None,
    )


def write_report(args, models):
    """Write what the model confuses, misses and blurs, and how far its confidence can be trusted."""
    from kseg.inference.loading import as_model
    from kseg.reports import evaluation_report

    return evaluation_report.write_report(
        as_model(models, command_line.looks_of(args)),
        args.data_dir,
        args.report_dir,
        split=args.split,
        label_set=args.label_set,
        label_space=args.label_space,
        batch_size=args.batch_size,
        progress=True,
        cityscapes=args.protocol == "cityscapes",
        group_by=args.group_by or None,
        class_map=args.map or None,
    )


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
