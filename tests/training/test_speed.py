"""The benchmark that an installed kseg has: a tiny model, for the numbers mean nothing here."""

import re

import kseg
from kseg.models import costs


def test_a_model_is_timed_without_data(call_script):
    flags = ("--model=unet", "--base_filters=2", '--model_options={"depth": 2}', "--height=32", "--width=64")
    others = (
        "--data_dir=nowhere",
        "--workdir=nowhere",
        "--epochs=3",
        "--class_weights=median_frequency",
    )  # of a config
    code, out, error = call_script("benchmark", *flags, *others, "--batch_size=2", "--steps=2", "--num_classes=5")
    assert code == 0, error
    head, columns, trained, predicted, memory = out.splitlines()
    count = costs.parameters(kseg.build_model("unet", (32, 64, 3), 5, base_filters=2, depth=2))
    assert re.fullmatch(rf"unet on 1 CPU \(oneDNN \w+\), float32, {count:,} parameters", head)
    assert columns.split() == ["image", "batch", "images/s", "ms/batch", "compiled", "in"]
    for line, name, batch in ((trained, "train", 2), (predicted, "predict", 1)):
        row = re.fullmatch(rf"{name} +64x32 +{batch} +(\S+) +(\d+) +\d+\.\d s", line)
        assert row and float(row[1]) > 0, line
    assert re.search(r"\d\.\d\d GB", memory)


def test_a_benchmark_needs_a_model(call_script):
    code, _, error = call_script("benchmark", "--steps=2")
    assert code == 2 and "--model must be given" in error
    code, _, error = call_script("benchmark", "--model=unet", '--model_options={"width": 2}')
    assert code == 2 and "has no option width" in error
