"""Train, evaluate and export a model: python scripts/train.py --flagfile=configs/segnet_aspp.flags --batch_size=6"""

import _flags
from absl import flags

from kseg.settings import Settings

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Record folder (scripts/prepare_data.py).", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Folder of the run; the same command goes on there.", flag_values=FLAGS)
flags.DEFINE_string("model", None, "Architecture: a name of kseg.MODELS.", flag_values=FLAGS)
flags.DEFINE_enum(
    "dataset",
    "cityscapes",
    ("cityscapes", "camvid", "folder", "synthetic"),
    "What --data_dir should hold. synthetic: streets are drawn there if it is empty; the others: what to download.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("base_filters", None, "Filters of the first block; empty: the paper's.", 1, flag_values=FLAGS)
flags.DEFINE_string(
    "encoder_weights", "", "ImageNet weights of the encoder: imagenet, a file, or empty.", flag_values=FLAGS
)
flags.DEFINE_string(
    "model_options",
    "{}",
    'Other options of the builder as JSON, e.g. {"decoder": "transposed"}.',
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "strategy",
    "auto",
    ("auto", "one", "mirrored"),
    "Devices: auto is all GPUs that divide the batch.",
    flag_values=FLAGS,
)
_flags.define_fields(Settings, FLAGS)


def main(args):
    _flags.require(args, "data_dir", "workdir", "model")
    from kseg.settings import make_settings

    settings = make_settings(**{field: args[field].value for field in Settings.__dataclass_fields__})
    options = _flags.parse_json(args, "model_options")
    options |= {name: args[name].value for name in ("base_filters", "encoder_weights") if args[name].value}
    import kseg
    from kseg.data.origins import ensure_records

    size = settings.crop or (settings.height, settings.width)
    if args.dataset == "synthetic" and size[0]:  # a mistake shows before any street is drawn
        narrow = {name: value for name, value in options.items() if name != "encoder_weights"}
        kseg.build_model(args.model, (*size, 3), 2, **narrow)
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
    except FloatingPointError as error:
        raise ValueError(f"{error} Checkpoints up to there, if any, are in {args.workdir}/checkpoints.") from error


if __name__ == "__main__":
    _flags.run(main, FLAGS)
