"""The numbers of studies in README.md and docs/reference/results.md are those that the committed counts give."""

import csv
import pathlib
import re

import numpy as np
import pytest

from kseg.io.hash_list import HASHES
from kseg.io.text import shown_gap
from kseg.studies.statistics.intervals import mean_iou
from kseg.studies.study_report import STUDY_PARTS, compared
from kseg.studies.verify import verify

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"
FOUR_POOLINGS = "SegNet-ASPP, four poolings"
NAMES = {
    "U-Net": "unet",
    "R2U-Net": "r2unet",
    "SegNet": "segnet",
    "SegNet-ASPP": "segnet_aspp",
    "SegNet-ASPP, pyramid at 1/8": "segnet_aspp_stride8",
    "SegNet, bilinear instead of positions": "segnet_bilinear",
}
LONGER = {**NAMES, "SegNet-ASPP, auxiliary loss": "segnet_aspp_auxiliary"}


def rows_of(page, heading):
    """The rows of the first table below a heading: {first cell: other cells}."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group()
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table.splitlines()]
    return {first: cells for first, *cells in rows[2:]}


@pytest.fixture(scope="module")
def streets():
    return compared(STUDIES / "streets").table


def assert_table_of_the_streets(heading, study):
    """The table below a heading of results.md has all models of a study, with its numbers."""
    (section,) = study["sections"]
    found = {row["model"]: row for row in section["scores"]}
    images = {row["model"]: row["images_seen"] for row in study["costs"]}
    objects = {row["model"]: row["value"] for row in section["objects"]["sizes"][0]["models"]}
    table = rows_of("docs/reference/results.md", heading)
    assert {LONGER[name] for name in table} == set(found)
    for name, (seen, mean, interval, ends, share) in table.items():
        row = found[LONGER[name]]
        assert seen == f"{images[LONGER[name]]:,}"
        values = (mean, *interval.split(" to "), *ends.split(", "), share)
        runs = row["runs"].values()
        expected = (row["mean_iou"], row["low"], row["high"], min(runs), max(runs), objects[LONGER[name]])
        assert [float(value) for value in values] == pytest.approx(expected, abs=0.0006), name
    return found, images


def test_the_tables_of_the_streets(streets):
    found, images = assert_table_of_the_streets("The study of the streets", streets)
    shown = rows_of("README.md", "Which model is better?")
    assert set(shown) == {"U-Net", "R2U-Net", "SegNet", "SegNet-ASPP"}
    for name, (mean, interval, seen) in shown.items():
        row = found[NAMES[name]]
        values = (mean, *interval.split(" to "))
        expected = (row["mean_iou"], row["low"], row["high"])
        assert [float(value) for value in values] == pytest.approx(expected, abs=0.0006), name
        assert seen == f"{images[NAMES[name]]:,}"


def test_the_table_of_the_learning_rates():
    text = (ROOT / "docs/reference/results.md").read_text(encoding="utf-8")
    table = re.search(r"^\| learning rate .*\n(?:\|.*\n)+", text, re.MULTILINE).group()
    runs = compared(STUDIES / "streets_rates").runs["streets_rates", "val"]
    found = {name: mean_iou(next(iter(of.values())).counts.sum(axis=0)) for name, of in runs.items()}
    assert len(found) == 3 * len(NAMES)
    for name, *cells in cells_of(table):
        rates = [found[f"{NAMES[name]}_{rate}"] for rate in ("01", "03", "10")]
        assert [float(cell.strip("*")) for cell in cells] == pytest.approx(rates, abs=0.0006), name
        assert [cell.startswith("**") for cell in cells] == [rate == max(rates) for rate in rates], name


def test_the_tables_of_camvid():
    table = compared(STUDIES / "camvid").table
    val, test = table["sections"]
    images = {row["model"]: f"{row['images_seen']:,}" for row in table["costs"]}
    rows = rows_of("docs/reference/results.md", "The study of CamVid")
    assert len(rows) == 5
    drives = {row["group"]: {one["model"]: one["value"] for one in row["models"]} for row in test["per_group"]}
    for name, (seen, mean, ends, other_mean, other_ends, dusk, unseen) in rows.items():
        model = NAMES.get(name, "edgetpu")
        assert seen == images.get(model, "")
        for section, value, lowest in ((val, mean, ends), (test, other_mean, other_ends)):
            (found,) = [row for row in section["scores"] if row["model"] == model]
            runs = found["runs"].values()
            assert float(value) == pytest.approx(found["mean_iou"], abs=0.0006), name
            if lowest:
                assert [float(end) for end in lowest.split(", ")] == pytest.approx([min(runs), max(runs)], abs=0.0006)
        assert [float(dusk), float(unseen)] == pytest.approx(
            [drives[d][model] for d in ("0001TP", "Seq05VD")], abs=6e-4
        )
    order = ["unet", "r2unet", "segnet", "segnet_aspp"]
    for section in (val, test):
        assert [row["model"] for row in section["scores"]] == ["edgetpu", *order]
        assert {pair["result"] for pair in section["pairs"]}.isdisjoint(("better", "practically equal"))
    every_seed = [{row["model"]: row["runs"] for row in val["scores"]}[model] for model in order]
    for better, worse in zip(every_seed, every_seed[1:], strict=False):
        assert all(better[seed] > worse[seed] for seed in better)


def test_the_verdict_of_the_streets(streets):
    (section,) = streets["sections"]
    results = {(pair["first"], pair["second"]): pair for pair in section["pairs"]}
    one = results["r2unet", "segnet_aspp"]
    assert one["result"] == "better" and "\n**R2U-Net is better than SegNet-ASPP**" in (ROOT / "README.md").read_text()
    assert [round(one[key], 3) for key in ("difference", "low", "high")] == [0.253, 0.212, 0.294]
    segnets = {name for name in NAMES.values() if name.startswith("segnet")}
    for (first, second), pair in results.items():
        within = {first, second} <= segnets or {first, second} == {"unet", "r2unet"}
        assert (pair["result"] == "better") != within, (first, second)


def test_the_longer_runs_of_the_streets():
    study = compared(STUDIES / "streets_longer").table
    found, _ = assert_table_of_the_streets("Three times the budget", study)
    (section,) = study["sections"]
    text = " ".join((ROOT / "docs/reference/results.md").read_text(encoding="utf-8").replace("\n> ", " ").split())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    order = ["r2unet", "segnet_aspp_auxiliary", "segnet_aspp"]
    assert list(found) == order and len(section["pairs"]) == 3
    for pair in section["pairs"]:
        difference, low, high = (f"{pair[key]:+.3f}" for key in ("difference", "low", "high"))
        assert order.index(pair["first"]) < order.index(pair["second"]) and pair["result"] == "better"
        assert any(f"difference {difference} ({level}{low} to {high})" in text for level in ("", "95 % interval "))
    shares = [f"{found[name]['mean_iou']:.2f}" for name in ("r2unet", "segnet_aspp", "segnet_aspp_auxiliary")]
    assert "R2U-Net has {}, SegNet-ASPP {} and, with an auxiliary loss, {}".format(*shares) in readme


@pytest.mark.parametrize("study", sorted(path.name for path in STUDIES.iterdir()))
def test_a_committed_study_is_as_it_was_committed(study):
    """Every file has its sha256, results.csv is that of the counts, and every run is there."""
    found = verify(STUDIES / study)
    assert found.faults == () and len(found.notes) == 1 and "There is no report here" in found.notes[0]
    names = [line.split("  ", 1)[1] for line in (STUDIES / study / HASHES).read_text().splitlines()]
    assert len(names) == found.files and {name.partition("/")[0] for name in names} <= set(STUDY_PARTS)


PEOPLE_AND_VEHICLES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


def test_the_objects_of_the_streets():
    """Share found by size and kind, and the differences in the text: each that of the two shares as shown."""
    found = compared(STUDIES / "streets")
    runs = found.runs["streets", "val"]
    (table,) = [section["objects"] for section in found.table["sections"]]
    sizes = {row["size"]: row for row in table["sizes"]}
    text = (ROOT / "docs/reference/results.md").read_text(encoding="utf-8")
    lines = text.partition("| objects found | all |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = {first: rest for first, *rest in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    classes = next(iter(runs["unet"].values())).classes
    things = [classes.index(name) for name in PEOPLE_AND_VEHICLES]
    for name, shown in cells.items():
        of_kinds = []
        for model, of in runs.items():
            counts = np.stack([run.objects.sum(axis=(0, 3)) for run in of.values()])  # (S, 2, C)
            kinds = (counts[..., things].sum(axis=-1), np.delete(counts, things, axis=-1).sum(axis=-1))
            if name == "how many":
                of_kinds = [kind[0, 0] for kind in kinds]
            elif model == NAMES[name]:
                of_kinds = [np.mean(kind[:, 1] / kind[:, 0]) for kind in kinds]
        values = [float(cell.replace(",", "")) for cell in shown]
        if name == "how many":
            expected = [sizes[size]["objects"] for size in ("all", "tiny", "small", "medium")]
        else:
            rows = [sizes[size]["models"] for size in ("all", "tiny", "small", "medium")]
            expected = [next(one["value"] for one in row if one["model"] == NAMES[name]) for row in rows]
        assert values == pytest.approx([*expected, *of_kinds], abs=0.0006), name
    all_sizes = {frozenset((pair["first"], pair["second"])): pair for pair in sizes["all"]["pairs"]}
    for pair, said in (
        (("segnet", "segnet_aspp"), "difference of 0.010 (95 % interval -0.008 to +0.027)"),
        (("segnet", "segnet_bilinear"), "SegNet finds 0.055 more of them (0.041 to 0.068)"),
        (("segnet_aspp_stride8", "segnet_aspp"), "finds 0.033 more objects (0.011 to 0.054)"),
    ):
        row = all_sizes[frozenset(pair)]
        assert said in re.sub(r"\s+", " ", text)
        gap, low, high = map(float, re.findall(r"[+-]?\d\.\d+", said))
        shown = shown_gap(row["second_value"], row["first_value"], 3)
        assert (gap, low, high) == (shown, round(row["low"], 3), round(row["high"], 3)), pair
    within = [pair for row in table["sizes"] for pair in row["pairs"]]
    of_aspp = [pair for pair in within if {pair["first"], pair["second"]} == {"segnet", "segnet_aspp"}]
    assert all(pair["low"] < 0 < pair["high"] for pair in of_aspp)  # "in no size does an interval exclude 0"


def test_the_table_of_the_laptop():
    """A row for each seed, then the means; drives of test from the counts of each run."""
    found = compared(STUDIES / "laptop")
    val, test = (found.runs["camvid", split]["laptop"] for split in ("val", "test"))
    table = rows_of("docs/reference/results.md", "The laptop recipe")
    rows = []
    for seed, run in test.items():
        drives = np.array([name.partition("_")[0] for name in run.names])
        of_drives = [mean_iou(run.counts[drives == drive].sum(axis=0)) for drive in ("0001TP", "Seq05VD")]
        rows.append([*(mean_iou(one.counts.sum(axis=0)) for one in (val[seed], run)), *of_drives])
        assert [float(cell) for cell in table[str(seed)]] == pytest.approx(rows[-1], abs=0.0006), seed
    assert [float(cell.strip("*")) for cell in table["mean"]] == pytest.approx(np.mean(rows, axis=0), abs=0.0006)
    assert len(table) == len(rows) + 1


def test_the_table_of_pretraining():
    table = compared(STUDIES / "pretrained").table
    names = {
        "R2U-Net, from scratch": "r2unet",
        "SegNet, pretrained": "segnet_pretrained",
        "SegNet-ASPP, pretrained": "segnet_aspp_pretrained",
        "SegNet-ASPP, from scratch": "segnet_aspp",
        "SegNet, from scratch": "segnet",
    }
    rows = list(csv.DictReader((STUDIES / "pretrained" / "results.csv").read_text(encoding="utf-8").splitlines()))
    images = {row["model"]: row["images_seen"] for row in table["costs"]}
    (drives,) = [section["per_group"] for section in table["sections"] if section["split"] == "test"]
    shown = rows_of("docs/reference/results.md", "What pretraining is worth")
    assert {names[name] for name in shown} == set(images)
    for name, (seen, val, test, *of_drives) in shown.items():
        model = names[name]
        assert seen == f"{images[model]:,}"
        for split, cell in (("val", val), ("test", test)):
            runs = [row for row in rows if (row["model"], row["split"]) == (model, split)]
            expected = [float(row["mean_iou"]) for row in sorted(runs, key=lambda row: int(row["seed"]))]
            assert [float(value) for value in cell.split(", ")] == pytest.approx(expected, abs=0.0006), (name, split)
        expected = [next(row["value"] for row in drive["models"] if row["model"] == model) for drive in drives]
        assert [float(value) for value in of_drives] == pytest.approx(expected, abs=0.0006), name


def test_the_tables_of_the_baselines():
    text = (ROOT / "docs/reference/results.md").read_text(encoding="utf-8")
    text = text.partition("\n## Fair baselines from scratch\n")[2].partition("\n## ")[0]
    searched, trained = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    suffixes = {
        "the first": "",
        "no class weights": "_unweighted",
        "0.5 of the Dice loss added": "_dice",
        "0.5 of the Lovász-Softmax loss added": "_lovasz",
        "moving average of the weights (0.99)": "_ema",
        "random scale of 0.5 to 2": "_wide_scales",
        "rate of 0.01": "_high_rate",
        "rate of 0.002": "_low_rate",
        "average and rate of 0.002": "_ema_low_rate",
        "Dice and rate of 0.01": "_dice_high_rate",
        "one pooling less: three in R2U-Net, four in SegNet-ASPP": "_shallower",
        "one pooling less, average and rate of 0.002": "_shallower_ema_low_rate",
        "one pooling less and Dice": "_shallower_dice",
        "one pooling less and rate of 0.01": "_shallower_high_rate",
        "one pooling less and batches of two images": "_shallower_batch2",
        "one pooling less, Dice and batches of two images": "_shallower_dice_batch2",
        "the same, and an auxiliary loss of weight 0.4": "_shallower_dice_batch2_auxiliary",
        "the same with a weight of 1": "_shallower_dice_batch2_auxiliary1",
        "the same with a weight of 2": "_shallower_dice_batch2_auxiliary2",
        "the same with a weight of 4": "_shallower_dice_batch2_auxiliary4",
        "auxiliary loss of weight 0.4 and rate of 0.01": "_shallower_dice_batch2_auxiliary_high_rate",
        "two poolings less and Dice": "_three_poolings_dice",
    }
    rows = list(csv.DictReader((STUDIES / "baselines_search" / "results.csv").read_text(encoding="utf-8").splitlines()))
    found = {row["model"]: float(row["mean_iou"]) for row in rows}
    cells = {}
    for recipe, *values in cells_of(searched):
        for model, cell in zip(("r2unet", "segnet_aspp"), values, strict=True):
            if cell:
                cells[model + suffixes[recipe]] = cell
    assert set(cells) == set(found)
    for name, cell in cells.items():
        assert float(cell.strip("*")) == pytest.approx(found[name], abs=0.0006), name
        model = "r2unet" if name.startswith("r2unet") else "segnet_aspp"
        best = max(value for other, value in found.items() if other.startswith(model))
        assert cell.startswith("**") == (found[name] == best), name
    shown = {first: cells for first, *cells in cells_of(trained)}
    seen = {}
    for study, models in (
        ("baselines", {"R2U-Net": "r2unet", "SegNet-ASPP": "segnet_aspp", FOUR_POOLINGS: "segnet_aspp_shallower"}),
        (
            "baselines_longer",
            {
                f"{FOUR_POOLINGS}, batches of two": "segnet_aspp",
                f"{FOUR_POOLINGS}, batches of two, auxiliary loss": "segnet_aspp_auxiliary2",
            },
        ),
    ):
        scored = compared(STUDIES / study)
        splits = {split: scored.runs["camvid", split] for split in ("val", "test")}
        (of_drives,) = [section["per_group"] for section in scored.table["sections"] if section["split"] == "test"]
        drives = {row["group"]: {one["model"]: one["value"] for one in row["models"]} for row in of_drives}
        images = {row["model"]: f"{row['images_seen']:,}" for row in scored.table["costs"]}
        assert set(models.values()) == set(images)
        for name, model in models.items():
            seen[name], *values = shown[name]
            assert seen[name] == images[model]
            expected = [mean_iou(next(iter(splits[s][model].values())).counts.sum(axis=0)) for s in ("val", "test")]
            expected += [drives[drive][model] for drive in ("0001TP", "Seq05VD")]
            assert [float(value.strip("*")) for value in values] == pytest.approx(expected, abs=0.0006), name
    assert seen.keys() == shown.keys()


def cells_of(table):
    """The cells of the rows of a table's Markdown, below its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
