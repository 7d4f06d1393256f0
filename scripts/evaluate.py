"""Score a model: python scripts/evaluate.py --model=runs/segnet_aspp --data_dir=data/cityscapes"""

import pathlib

import _flags
from absl import flags

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "Run folder, .keras file or SavedModel folder.", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "Record folder (scripts/prepare_data.py).", flag_values=FLAGS)
flags.DEFINE_string("split", "val", "Split of the records to score.", flag_values=FLAGS)
flags.DEFINE_string("label_set", None, "Classes to score; empty: the training classes.", flag_values=FLAGS)
flags.DEFINE_string("label_space", None, "For records without dataset.json: train_ids or label_ids.", flag_values=FLAGS)
_PROTOCOLS = {"standard": "the classes' mean scores", "cityscapes": "the benchmark's own, equal to cityscapesScripts'"}
flags.DEFINE_enum(
    "protocol",
    "standard",
    list(_PROTOCOLS),
    f"How scores are taken: {'; '.join(map(': '.join, _PROTOCOLS.items()))}.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("batch_size", 1, "Images of a batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("output", None, "JSON file of the scores; empty: beside the model.", flag_values=FLAGS)
flags.DEFINE_string(
    "report_dir",
    None,
    "Folder for confusion.csv, confusion.png, objects.json and boundaries.json (one more pass); empty: none.",
    flag_values=FLAGS,
)


def main(args):
    _flags.require(args, "model", "data_dir")
    model = pathlib.Path(args.model).absolute()
    kind = "scores" if args.protocol == "standard" else args.protocol
    output = pathlib.Path(args.output or model.with_name(f"{model.name}.{args.split}.{kind}.json"))
    if args.output and not output.parent.is_dir():
        raise flags.Error(f"--output must lie in a folder that exists, got {output}.")
    import kseg

    scores = kseg.evaluate(
        args.model,
        args.data_dir,
        protocol=args.protocol,
        label_set=args.label_set,
        split=args.split,
        batch_size=args.batch_size,
        label_space=args.label_space,
        progress=True,
    )
    print(scores)
    scores.to_json(output)
    print(f"{output}  the same table")
    if args.report_dir:
        write_report(args)


def write_report(args):
    """Write and print what the model confuses, misses and blurs, over the same images."""
    from kseg import reporting

    options = {name: args[name].value for name in ("split", "label_set", "label_space", "batch_size")}
    print(f"\n{reporting.write_report(args.model, args.data_dir, args.report_dir, progress=True, **options)}")
    print(f"{args.report_dir}  the report: confusion.csv, confusion.png, objects.json, boundaries.json")


if __name__ == "__main__":
    _flags.run(main, FLAGS)
