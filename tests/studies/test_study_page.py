"""The page of a study: what it is made of, and how it looks in headless Chromium."""

import json
import re
import shutil

import browsing
import numpy as np
import pytest
import tiny
from drawn_study import CLASSES, IMAGES, maps_of, write_study
from PIL import Image

from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.io.errors import InputError
from kseg.studies.kept_maps import IMAGES as KEPT
from kseg.studies.kept_maps import kept_images, truth_path
from kseg.studies.study_report import report

LONG = "segnet_aspp_with_rates_1_6_12_18"
GONE = "fcn8s_at_a_very_long_name_that_someone_chose_without_thinking_of_phones"
LEVELS = {LONG: 0.8, "segnet": 0.6, "r2unet_t3_base_filters_16": 0.81, "unet": 0.82, "deeplabv3plus": 0.84, GONE: 0.5}
BROKEN = {
    "run": "segnet/drawn/seed-4",
    "code": 3,
    "log": "logs/log.txt",
    "end": ["step 7", "The loss is nan: <b>" + 90 * "x"],
}
HEADS = [
    *("Every pair", "Every run", "Learning curves", "IoU by class", "Mean IoU by drive"),
    *("Objects found and swallowed", "Cost and score", "Images", "Where the numbers come from", "Broken runs"),
]


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(page's folder, report's table) of six models and six seeds: one model is missing, a run is broken."""
    output = tmp_path_factory.mktemp("drawn")
    write_study(output, LEVELS, 6, without=[("segnet", 4), *((GONE, seed) for seed in range(6))])
    return output / "report", report(output, broken=[BROKEN]).table


@pytest.fixture
def page(browser, study):
    """The page, freshly opened; afterwards nothing may stand in its log."""
    browsing.open_page(browser, study[0])
    yield browser
    assert browser.get_log("browser") == []


def visible(browser, selector):
    return [element.text for element in browser.find_elements("css selector", selector) if element.is_displayed()]


def test_the_same_study_gives_the_same_bytes_from_its_counts_and_maps_alone(study, tmp_path):
    folder, table = study
    for name in ("study.json", "counts", "maps"):
        source = folder.parent / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    found = report(tmp_path, broken=[BROKEN])
    assert content(tmp_path / "report") == content(folder)
    assert report(tmp_path, broken=[BROKEN]).table == found.table  # over the earlier page
    assert content(tmp_path / "report") == content(folder)
    numbers = json.loads((folder / "study.json").read_text())
    assert {key: numbers[key] for key in table} == json.loads(json.dumps(table))


def test_what_else_lies_in_the_pages_folder_is_not_touched(tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 1)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"report holds notes.txt, which kseg did not write"):
        report(tmp_path)
    assert content(tmp_path / "report") == {"notes.txt": b"mine"}
    assert (tmp_path / "report.txt").exists()


def test_sections_are_in_order_and_the_verdict_is_first(page, study):
    (section,) = study[1]["sections"]
    assert page.find_element("css selector", "main p").text == section["headline"]
    assert visible(page, "main h2") == HEADS
    gaps = page.find_element("id", "gaps").text
    assert gaps == (
        f"7 runs of 36 are not there. No run of {GONE} is finished. Compared are the seeds that all models have: "
        "0, 1, 2, 3, 5."
    )
    assert visible(page, "#tiles h3") == [row["model"] for row in section["scores"]]
    assert "The loss is nan: <b>x" in page.find_element("id", "broken-list").text  # text is no markup


def test_intervals_of_every_pair_stand_on_the_page(page, study):
    (section,) = study[1]["sections"]
    pairs = {f"{pair['first']} − {pair['second']}": pair for pair in section["pairs"]}
    rows = page.find_elements("css selector", "#pairs-table tbody tr")
    assert len(rows) == len(pairs) == 10
    for row in rows:
        pair = pairs[re.sub(r"\s+", " ", row.find_element("css selector", "th").get_property("textContent"))]
        digits = pair["digits"]
        cells = [cell.text for cell in row.find_elements("css selector", "td")]
        numbers = [float(text.replace("−", "-")) for text in re.findall(r"[+−]\d\.\d+", " ".join(cells[1:3]))]
        shown = round(round(pair["first_score"], digits) - round(pair["second_score"], digits), digits)
        assert numbers == [shown, *(round(pair[key], digits) for key in ("low", "high"))]
    assert browsing.strays(page) == []
    bold = sum(pair["low"] > 0 or pair["high"] < 0 for pair in section["pairs"])
    assert len(page.find_elements("css selector", "#pairs-table strong")) == bold > 0
    verdicts = browsing.texts(page, "#verdicts li")
    assert sorted(text.replace("−", "-") for text in verdicts) == sorted(pair["verdict"] for pair in section["pairs"])


def test_what_the_columns_mean_and_what_few_seeds_cannot_settle_is_said(page, study):
    """Ten pairs of five seeds: 10 x 2 / 2^5."""
    text = page.find_element("id", "columns").get_property("textContent")
    assert "cannot fall below 0.62 (Holm) with so few seeds" in text and "Bouthillier" in text
    (section,) = study[1]["sections"]
    stars = sum(pair["superiority"]["low"] > 0.5 for pair in section["pairs"])
    cells = browsing.texts(page, "#pairs-table tbody td:nth-child(7)")
    assert sum(cell.endswith(" *") for cell in cells) == stars


def test_every_run_has_its_sources(page, study):
    page.execute_script("document.querySelector('#sources details').open = true")
    rows = page.find_elements("css selector", "#sources-table tbody tr")
    assert len(rows) == len(study[1]["sources"]) == 29
    titles = [code.get_attribute("title") for code in page.find_elements("css selector", "#sources-table code")]
    wanted = ("manifest_sha256", "weights_sha256", "flags_sha256")
    assert titles == [row[key] for row in study[1]["sources"] for key in wanted if row[key]]
    assert browsing.strays(page) == []


def test_there_is_a_dot_for_every_run_at_its_score(page, study):
    (section,) = study[1]["sections"]
    script = """return [...document.querySelectorAll('#runs-chart .lanes')].map(e =>
                [...e.querySelectorAll('.run')].map(dot => parseFloat(dot.getAttribute('cx'))))"""
    for row, dots in zip(section["scores"], page.execute_script(script), strict=True):
        scores = list(row["runs"].values())
        assert len(dots) == len(scores) == 5
        # One scale: places are a linear function of the scores.
        slopes = np.diff(dots) / np.diff(scores)
        np.testing.assert_allclose(slopes, slopes[0], rtol=1e-4)
    titles = browsing.texts(page, "#runs-chart .run title")
    first = section["scores"][0]
    assert titles[0] == f"{first['model']}, seed 0: {first['runs']['0']:.4f}"


def test_learning_curves_of_every_run_and_both_kinds(page):
    assert len(page.find_elements("css selector", "#curves-chart .panel")) == 5
    assert len(page.find_elements("css selector", "#curves-chart polyline")) == 29  # of one run more than are compared
    browsing.choose(page, "#curve", "val_mean_iou")
    assert len(page.find_elements("css selector", "#curves-chart polyline")) == 0
    assert len(page.find_elements("css selector", "#curves-chart .end")) == 29  # each run was scored once
    assert "short runs have few values" in page.find_element("id", "curves-note").text
    assert browsing.texts(page, "#curves-chart .panel .quiet")[0].endswith("images and 1 value each")


def test_classes_groups_and_objects(page, study):
    (section,) = study[1]["sections"]
    assert (
        "Only one drive has traffic_sign_with_a_long_name: no interval." in page.find_element("id", "classes-note").text
    )
    assert len(page.find_elements("css selector", "#classes-chart .lanes")) == 3
    assert len(page.find_elements("css selector", "#groups-chart .lanes")) == 12
    assert len(page.find_elements("css selector", "#sizes-chart .lanes")) == 5
    assert browsing.texts(page, "#sizes-chart .lane-label")[4].startswith("large, ≥ 10,000 px")
    browsing.choose(page, "#size", 2)
    rows = page.find_elements("css selector", "#gains-table tbody tr")
    assert len(rows) == 10 and browsing.strays(page) == []
    for row in rows:
        numbers = [cell.text.replace("−", "-") for cell in row.find_elements("css selector", "td")]
        first, second, gap, low, high = (float(text) for text in re.findall(r"[+-]?\d\.\d+", " ".join(numbers)))
        assert gap == pytest.approx(first - second, abs=1e-9) and low <= gap <= high and gap >= 0
    browsing.choose(page, "#swallower", "segnet")
    row = next(one for one in section["objects"]["classes"][0]["models"] if one["model"] == "segnet")
    cells = [cell.text for cell in page.find_elements("css selector", "#objects-table tbody tr:first-child td")]
    assert cells[1:] == [f"{row['value']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", "car 100 %"]


def test_cost_against_score(page, study):
    panels = page.find_elements("css selector", "#costs-chart .panel")
    assert [panel.find_element("css selector", "figcaption").text for panel in panels] == [
        *("parameters", "multiply-adds of an image", "CPU seconds of a run", "peak memory"),
    ]
    assert all(len(panel.find_elements("css selector", ".dot")) == 5 for panel in panels)
    row = page.find_element("css selector", "#costs-table tbody tr")
    assert row.text.startswith("deeplabv3plus")
    # 1000 * 7^4 parameters; seconds are the mean of 60 to 65.
    assert "2.4 M" in row.text and "63" in row.text and "1 GB" in row.text


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_on_a_phone_and_in_the_dark(page, study, width, dark):
    browsing.open_page(page, study[0], width, dark)
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    if width == 390:
        assert browsing.wider_than_screen(page, width) == []
    assert min(browsing.contrasts(page, ["h1", "#verdict", "#subtitle", ".tick", ".tile dd.ends"])) > 4.5
    back = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (browsing.luminance(back) < 0.05) == dark
    marks = """return [0, 1, 2, 3, 4, 5, 6, 7].map(i =>
        getComputedStyle(document.body).getPropertyValue(`--m${i}`).trim())"""
    for colour in page.execute_script(marks):
        channels = ", ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
        low, high = sorted([browsing.luminance(f"rgb({channels})"), browsing.luminance(back)])
        assert (high + 0.05) / (low + 0.05) > 3, colour  # of graphics, WCAG 1.4.11


def test_axis_labels_do_not_overlap_on_a_phone(page, study):
    browsing.open_page(page, study[0], 390)
    script = """
        return [...document.querySelectorAll('.axis .lane-plot, .x')].filter((axis) => {
            const boxes = [...axis.querySelectorAll('.tick')].map((tick) => tick.getBoundingClientRect());
            return boxes.some((box, i) => i && box.left < boxes[i - 1].right);
        }).length"""
    assert page.execute_script(script) == 0
    assert len(page.find_elements("css selector", ".tick")) > 20


def test_nothing_is_loaded_but_the_pictures_beside_the_page(browser, study):
    browsing.requests(browser)
    browsing.open_page(browser, study[0])
    browsing.click(browser, ".card")
    shown = "return [...document.querySelectorAll('#stage img')].filter(e => !e.hidden).map(e => e.naturalWidth)"
    browsing.wait(browser, lambda: browser.execute_script(shown) == [30, 30])
    here = study[0].as_uri()
    page, *pictures = browsing.requests(browser)
    assert page == f"{here}/index.html"
    assert len(pictures) > 2 and all(url.startswith(f"{here}/0/") for url in pictures)
    text = (study[0] / "index.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert "default-src 'none'" in text


def test_the_keyboard_reaches_sorting_details_and_the_viewer(page):
    page.execute_script("document.querySelector('#pairs-table th:nth-child(3) button').focus()")
    browsing.press(page, "\ue007")  # Enter
    gaps = [text.replace("−", "-") for text in browsing.texts(page, "#pairs-table tbody td:nth-child(3)")]
    assert [float(gap) for gap in gaps] == sorted(map(float, gaps), reverse=True)
    page.execute_script("document.querySelector('#columns summary').focus()")
    browsing.press(page, "\ue007")
    assert page.execute_script("return document.querySelector('#columns').open")
    page.execute_script("document.querySelector('.card').focus()")
    browsing.press(page, "\ue007")
    browsing.wait(page, lambda: page.execute_script("return document.getElementById('viewer').open"))
    name = page.find_element("id", "viewer-name").text
    browsing.press(page, "n")
    assert page.find_element("id", "viewer-name").text != name
    browsing.press(page, "\ue00c")  # Escape
    browsing.wait(page, lambda: not page.execute_script("return document.getElementById('viewer').open"))


def test_the_gallery_shows_truth_and_predictions_where_there_are_no_photographs(page, study):
    folder, table = study
    order = [row["model"] for row in table["sections"][0]["scores"]]
    (gallery,) = json.loads((folder / "study.json").read_text())["galleries"]
    assert [model["name"] for model in gallery["models"]] == order and gallery["without"] == [GONE]
    note = page.find_element("id", "images-note").text
    assert "as the run of seed 0 predicts them" in note and "No photographs: There is no record folder nowhere." in note
    assert not (folder / "0" / "photos").exists()
    indices = kept_images(IMAGES)
    assert len(indices) == KEPT == len(gallery["images"])
    for number, index in enumerate(indices):
        truth, prediction = maps_of(order[1], index)
        picture = Image.open(folder / "0" / "model1" / f"{number:05}.png")
        assert (np.asarray(picture) == prediction).all()
        differ = (prediction != maps_of(order[0], index)[1])[truth < 3].mean()
        assert gallery["images"][number]["disagreement"][1] == pytest.approx(differ)
    assert page.execute_script("return [...document.getElementById('left').options].map(e => e.value)") == [
        *("model0", "model1", "model2", "model3", "model4", "truth", "right"),
    ]
    browsing.click(page, ".card")
    shown = "return [...document.querySelectorAll('#stage img')].filter(e => !e.hidden).map(e => e.naturalWidth)"
    browsing.wait(page, lambda: page.execute_script(shown) == [30, 30])


def test_the_gallery_shows_the_photographs_of_the_records(tmp_path):
    source = tiny.write_folder(tmp_path / "source", train=1, val=14, size=(20, 30))
    prepare_dataset("folder", source, tmp_path / "records", shards=1, workers=1, progress=False)
    manifest = load_manifest(str(tmp_path / "records"))
    names = manifest.split("val").names
    where = {"data_dir": tmp_path / "records", "digest": manifest.digest, "names": names}
    write_study(tmp_path / "study", {"a": 0.9, "b": 0.5}, 1, **where)
    report(tmp_path / "study")
    (gallery,) = json.loads((tmp_path / "study" / "report" / "study.json").read_text())["galleries"]
    assert gallery["photos"] and gallery["why_no_photos"] == ""
    for number, index in enumerate(kept_images(14)):
        photo = np.asarray(Image.open(tmp_path / "study" / "report" / "0" / "photos" / f"{number:05}.jpg"), float)
        expected = np.asarray(Image.open(source / "val" / "images" / f"{names[index]}.png"), float)
        assert abs(photo - expected).mean() < 8  # it is a JPEG
    write_study(tmp_path / "study", {"a": 0.9, "b": 0.5}, 1, **{**where, "digest": "of other records"})
    report(tmp_path / "study")
    (gallery,) = json.loads((tmp_path / "study" / "report" / "study.json").read_text())["galleries"]
    assert not gallery["photos"] and "have changed since the runs were scored" in gallery["why_no_photos"]
    assert not (tmp_path / "study" / "report" / "0" / "photos").exists()


def test_a_damaged_map_is_named(tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 1)
    path = truth_path(tmp_path, "drawn", "val", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match="is no label map of a study"):
        report(tmp_path)
    Image.fromarray(np.full((20, 30), 7, np.uint8)).convert("P").save(path)
    with pytest.raises(InputError, match=re.escape(f"{path} must hold ids up to 3, but has ")):
        report(tmp_path)


def test_what_earlier_counts_lack_is_said_on_the_page(browser, tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2, old=("a", "b"))
    report(tmp_path)
    browsing.open_page(browser, tmp_path / "report")
    assert "before kseg kept their learning curves" in browser.find_element("id", "curves-note").text
    assert "before kseg counted objects in studies" in browser.find_element("id", "objects-note").text
    assert "needs label maps of two models" in browser.find_element("id", "images-note").text
    assert visible(browser, "#curves-chart .panel, #objects-parts *, .card, .controls") == []
    verdict = report(tmp_path).table["sections"][0]["headline"]
    assert browser.find_element("id", "verdict").text.replace("−", "-") == verdict
    assert browser.get_log("browser") == []


def test_without_a_seed_that_all_models_have_there_is_no_verdict(browser, tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2, without=[("a", 0), ("b", 1)])
    report(tmp_path)
    browsing.open_page(browser, tmp_path / "report", 390)
    assert browser.find_element("id", "verdict").text == "No verdict: no seed is finished for every model."
    assert len(browser.find_elements("css selector", "#curves-chart .panel")) == 2
    assert browser.get_log("browser") == []


def test_two_splits_are_shown_one_at_a_time(browser, tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2)
    plan = json.loads((tmp_path / "study.json").read_text())
    plan["plan"]["data"][0]["splits"] = ["val", "night"]
    (tmp_path / "study.json").write_text(json.dumps(plan))
    report(tmp_path)
    browsing.open_page(browser, tmp_path / "report")
    assert browsing.texts(browser, "#section option") == ["drawn, split val", "drawn, split night"]
    assert len(browser.find_elements("css selector", "#classes-chart .lanes")) == len(CLASSES)
    browsing.choose(browser, "#section", 1)
    assert "no seed is finished" in browser.find_element("id", "verdict").text
    assert visible(browser, ".lanes, .card, table, details") == []
    browsing.choose(browser, "#section", 0)
    assert len(browser.find_elements("css selector", ".card")) == KEPT
    assert browser.get_log("browser") == []


def test_a_page_of_runs_that_each_left_out_a_drive(browser, tmp_path):
    """Their images differ: there is a verdict by drives, and a reason where runs cannot be added up."""
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 12, left_out=True)
    (section,) = report(tmp_path).table["sections"]
    browsing.open_page(browser, tmp_path / "report")
    assert browser.find_element("css selector", "main p").text == section["headline"] != ""
    assert len(section["left_out"]) == 12 and section["headline"].startswith("a is better than b: ")
    for name in ("classes", "groups", "objects"):
        note = browser.find_element("id", f"{name}-note").text
        assert note.startswith("Each run is scored on the drive that it left out."), name
    assert len(browser.find_elements("css selector", "#runs-chart circle")) == 24
    assert browser.get_log("browser") == []
