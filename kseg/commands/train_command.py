"""Train, evaluate and export a model.

    kseg train --flagfile=quickstart
    kseg train --flagfile=segnet_aspp --batch_size=6
    kseg train --model=r2unet --dataset=folder --data_dir=data/mydata --workdir=runs/mydata --epochs=50

The first two are configs that come with kseg; `kseg configs` lists them. The same command continues a run that was
interrupted.
"""

import importlib.util
import json
import os
import pathlib
import shlex

from absl import flags

from kseg.commands import command_line
from kseg.data.datasets import DATASETS
from kseg.io.errors import NotFiniteError
from kseg.runs.workdir import RunFolder
from kseg.settings import (
    MODEL_FILES,
    OPTION_FLAGS,
    Settings,
    check_model_name,
    check_model_options,
    current_options,
    options_in_source,
)


def define_run(flag_values):
    """Define the flags that say what is trained and how."""
    flags.DEFINE_string(
        "data_dir", None, "Record folder to train on (kseg prepare writes one).", flag_values=flag_values
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder for the run. The same command continues a run that was interrupted.",
        flag_values=flag_values,
    )
    flags.DEFINE_string("model", None, f"Architecture: one of {', '.join(MODEL_FILES)}.", flag_values=flag_values)
    flags.DEFINE_enum(
        "dataset",
        "cityscapes",
        list(DATASETS),
        "What --data_dir is to hold if it has no records yet: synthetic draws streets there, others say what to "
        "download. Records that are there say themselves what they are.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "base_filters",
        None,
        "Filters of the first block; empty: as many as in the model's paper.",
        1,
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "encoder",
        "",
        "Encoder of a model that takes one: a name in docs/reference/encoders.md, e.g. mobilenet_v2, or hub:PRESET "
        "for a backbone of KerasHub; empty: the model's own.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "encoder_weights",
        "",
        "ImageNet weights for the encoder: imagenet (downloads them, or finds the installed package), preset (a hub: "
        "encoder's own) or a file; empty: none.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "model_options",
        "{}",
        'Other options of the model as JSON, e.g. {"decoder": "transposed"}.',
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ("auto", "one", "mirrored", "multiworker"),
        "Devices to train on. auto: the largest number of GPUs that divides the batch size. multiworker: the machines "
        "in TF_CONFIG.",
        flag_values=flag_values,
    )
    command_line.define_fields(Settings, flag_values)


FLAGS = command_line.new_flags(__name__)
define_run(FLAGS)


def settings_and_options(args):
    """Return the Settings and the options of the model that the flags say."""
    from kseg.settings import make_settings

    settings = make_settings(**{field: args[field].value for field in Settings.__dataclass_fields__})
    options = command_line.parse_json(args, "model_options")
    for name in OPTION_FLAGS:
        value = args[name].value
        if value and options.setdefault(name, value) != value:
            raise flags.Error(
                f"--{name} is {value}, but --model_options says {json.dumps(options[name])}. Give one of them."
            )
    return settings, options


def checked_settings_and_options(args):
    """Return what `settings_and_options` does; InputError for a model or an option that does not exist."""
    check_model_name(args.model, MODEL_FILES)  # the first thing that a user should hear of
    settings, options = settings_and_options(args)
    check_model_options(args.model, current_options(args.model, options), options_in_source(args.model))
    return settings, options


def run(args):
    """Train with what the flags say."""
    command_line.require(args, "data_dir", "workdir", "model")
    if os.path.realpath(args.data_dir) == os.path.realpath(args.workdir):
        raise flags.Error(f"--data_dir and --workdir must be different folders, got {args.workdir} for both.")
    settings, options = checked_settings_and_options(args)  # before anything imports Keras, as all that takes no model
    from kseg.training.launch import choose_for_run, refuse_early

    refuse_early(args.model, args.data_dir, args.workdir, options, args.strategy, settings)
    choose_for_run(args.model, args.workdir, options, settings.onednn)  # before anything imports TensorFlow
    import kseg
    from kseg.data.records.ensure import ensure_records
    from kseg.training.distribution.cluster import leads

    size = settings.crop or (settings.height, settings.width)
    one_of_group = args.strategy == "multiworker"  # it may run nothing before the others
    to_draw = args.dataset == "synthetic" and not os.path.exists(f"{args.data_dir}/dataset.json")
    if to_draw and size[0] and not one_of_group:  # a mistake shows before any street is drawn
        from kseg.inference.compatibility import check_batch_norm

        narrow = {name: value for name, value in options.items() if name != "encoder_weights"}
        built = kseg.build_model(args.model, (*size, 3), 2, **narrow)
        check_batch_norm(built, settings.batch_size // settings.accumulate_steps, settings.crop)
    if to_draw and one_of_group:
        raise flags.Error("All workers of a group would draw the same streets: run kseg prepare first.")
    ensure_records(args.dataset, args.data_dir)
    try:
        kseg.train(
            args.model,
            args.data_dir,
            args.workdir,
            model_options=options,
            strategy=args.strategy,
            **vars(settings),
        )
        if leads(args.strategy):
            print(next_commands(args.workdir, args.data_dir))
    except NotFiniteError as error:
        raise NotFiniteError(f"{error} Earlier checkpoints, if any, are in {args.workdir}/checkpoints.") from error


def next_commands(workdir, data_dir):
    """Return the three commands that are worth typing after a run: look at it, compare it, export it.

    The format is one that this installation can write: an ONNX file, which more runtimes take, if it has the converter.
    """
    import keras

    workdir = workdir.rstrip("/")
    run = shlex.quote(workdir)
    data = shlex.quote(data_dir)
    exported = "--format=savedmodel --output=" + shlex.quote(workdir + "-saved_model")
    if importlib.util.find_spec("tf2onnx"):
        exported = "--format=onnx --output=" + shlex.quote(workdir + ".onnx")
    backend = "" if keras.backend.backend() == "tensorflow" else "KERAS_BACKEND=tensorflow "
    lines = {
        "look": f"kseg predict --model={run} --data_dir={data} --split=val --output={shlex.quote(workdir + '-labels')}",
        "compare": f"kseg compare {run} {_another_run(workdir, data_dir)} --data_dir={data} --output=report",
        "export": f"{backend}kseg export --model={run} {exported}",
    }
    return "\n".join(["\nNext:", *(f"  {name:8} {command_line.as_typed(text)}" for name, text in lines.items())])


def _another_run(workdir, data_dir):
    """Return the latest finished run on the same records beside a run, or a word in its place."""
    run = pathlib.Path(workdir).absolute()
    others = [RunFolder(folder) for folder in run.parent.iterdir() if folder != run and folder.is_dir()]
    found = [other for other in others if other.finished and (other.stored_or_none() or {}).get("data_dir") == data_dir]
    if not found:
        return "ANOTHER_RUN"
    latest = max(found, key=lambda other: (other.workdir / "scores.json").stat().st_mtime)
    return shlex.quote(os.path.join(os.path.dirname(workdir), latest.workdir.name))


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
