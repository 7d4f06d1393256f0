"""The numbers of studies in README.md and docs/reference/results.md are those that the committed counts give."""

import pathlib
import re

import pytest

from kseg.studies.study_report import compared

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"
NAMES = {
    "U-Net": "unet",
    "R2U-Net": "r2unet",
    "SegNet": "segnet",
    "SegNet-ASPP": "segnet_aspp",
    "SegNet-ASPP, pyramid at 1/8": "segnet_aspp_stride8",
    "SegNet, bilinear instead of positions": "segnet_bilinear",
}


def rows_of(page, heading):
    """The rows of the first table below a heading: {first cell: other cells}."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group()
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table.splitlines()]
    return {first: cells for first, *cells in rows[2:]}


@pytest.fixture(scope="module")
def streets():
    return compared(STUDIES / "streets").table


def test_the_tables_of_the_streets(streets):
    (section,) = streets["sections"]
    found = {row["model"]: row for row in section["scores"]}
    images = {row["model"]: row["images_seen"] for row in streets["costs"]}
    objects = {row["model"]: row["value"] for row in section["objects"]["sizes"][0]["models"]}
    table = rows_of("docs/reference/results.md", "The study of the streets")
    assert {NAMES[name] for name in table} == set(found)
    for name, (seen, mean, interval, ends, share) in table.items():
        row = found[NAMES[name]]
        assert seen == f"{images[NAMES[name]]:,}"
        values = (mean, *interval.split(" to "), *ends.split(", "), share)
        runs = row["runs"].values()
        expected = (row["mean_iou"], row["low"], row["high"], min(runs), max(runs), objects[NAMES[name]])
        assert [float(value) for value in values] == pytest.approx(expected, abs=0.0006), name
    shown = rows_of("README.md", "Which model is better?")
    assert set(shown) == {"U-Net", "R2U-Net", "SegNet", "SegNet-ASPP"}
    for name, (mean, interval, seen) in shown.items():
        row = found[NAMES[name]]
        values = (mean, *interval.split(" to "))
        expected = (row["mean_iou"], row["low"], row["high"])
        assert [float(value) for value in values] == pytest.approx(expected, abs=0.0006), name
        assert seen == f"{images[NAMES[name]]:,}"


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
