"""The page of a comparison in headless Chromium: what a reader clicks, sorts, drags and types."""

import re

import keras
import numpy as np
import pytest
import tiny
from browsing import choose, click, contrasts, luminance, open_page, press, strays, texts, wait, wider_than_screen
from PIL import Image

import kseg
from kseg.data.records.prepare import prepare_dataset

IMAGES = 66
ROUND = 60  # cards that come at a time
CAR = 1  # the class that some lack


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(folder, Comparison) of three models that label a pixel by a random linear function of its colour."""
    root = tmp_path_factory.mktemp("page")
    source = tiny.write_folder(root / "source", train=1, val=IMAGES, size=(16, 24))
    for i in range(0, IMAGES, 5):  # no car in every fifth
        path = source / "val" / "labels" / f"val_{i}.png"
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == CAR, np.uint8(255), ids)).save(path)
    prepare_dataset("folder", source, root / "records", shards=1, workers=1, progress=False)
    models = {}
    random = np.random.default_rng(0)
    for name in ("plain", "<b>bold</b>", "segnet_aspp_with_rates_1_6_12_18/best.keras"):  # a name is no markup
        image = keras.Input((16, 24, 3))
        layer = keras.layers.Conv2D(3, 1)
        models[name] = keras.Model(image, layer(image))
        layer.set_weights([random.normal(size=(1, 1, 3, 3)), random.normal(size=3) * 100])
    found = kseg.compare(models, root / "records", root / "report", batch_size=10)
    return root / "report", found


@pytest.fixture
def page(browser, report):
    """The page, freshly opened; afterwards nothing may stand in its log."""
    open_page(browser, report[0])
    yield browser
    assert browser.get_log("browser") == []


def cards(browser):
    """The images' indices as their cards stand on the page."""
    script = "return [...document.querySelectorAll('.card')].map(e => Number(e.dataset.index))"
    return browser.execute_script(script)


def value(browser, selector):
    return browser.find_element("css selector", selector).get_property("value")


def test_the_numbers_stand_on_the_page(page, report):
    scores = report[1].scores
    assert texts(page, "#title .model") == ["plain", "<b>bold</b>", "segnet_aspp_with_rates_1_6_12_18/best.keras"]
    (first, *_) = page.find_elements("css selector", "#scores-table tbody tr")
    cells = [cell.text for cell in first.find_elements("css selector", "th, td")]
    assert cells[:4] == ["mean IoU (macro Jaccard)", *(f"{s.mean_iou:.4f}" for s in scores)]
    difference = scores[1].mean_iou - scores[0].mean_iou
    assert cells[4] == f"{difference:+.4f}".replace("-", "−") and " to " in cells[5]
    assert "No model was trained again" in page.find_element("id", "meaning").text
    # One drive, val_0 .. val_65: 66 frames are blocks of 25, 25 and 16.
    assert page.find_element("id", "groups").text == (
        "Independent groups: 3 blocks of 25 consecutive frames, of 1 drive (val). The interval says how much "
        "the difference changes from one part of this drive to another. It says nothing of other drives."
    )
    widths = page.execute_script(
        "return [...document.querySelectorAll('#classes-table tr .fill.first')].map(e => e.style.width)"
    )
    ious = [row["jaccard"] for row in scores[0].per_class.values()]
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx([100 * iou for iou in ious], abs=0.01)


def test_the_verdict_is_that_of_the_text_and_rows_agree_with_it(page, report):
    """Whoever is ahead, differences are those of the numbers beside them, and bold only without 0 in the interval."""
    for other in (1, 2):
        choose(page, "#other", other)
        said = report[1].table["verdicts"][other]
        text = page.find_element("id", "verdict").text.replace("−", "-")
        assert text == said["text"] and text in str(report[1])
        assert texts(page, "#verdict .model") == ([] if said["winner"] is None else [report[1].names[said["winner"]]])
        assert strays(page) == []
        for row in page.find_elements("css selector", "#scores-table tbody tr, #classes-table tbody tr"):
            first, *values = re.findall(r"[+−±]?\d\.\d+", row.text)[:4]
            shown = [float(value.replace("−", "-").strip("±")) for value in (first, *values)]
            assert shown[3] == pytest.approx(shown[other] - shown[0], abs=1e-9), row.text


def test_the_page_says_which_classes_its_means_are_over(page):
    assert "Means are over all 3 classes: those of the truth" in page.find_element("id", "meaning").text
    assert texts(page, "#tiles dt")[0] == "mean IoU, 3 classes"
    named = "data.scored_classes = arguments[0]; return countOfClasses()"
    assert page.execute_script(named, ["road", "sky"]) == "2 of 3 classes (without car)"
    assert page.execute_script(named, ["sky"]) == "1 of 3 classes (sky)"


def test_tables_sort_by_click_and_by_keyboard(page, report):
    ious = {name: row["jaccard"] for name, row in report[1].scores[0].per_class.items()}
    names = "#classes-table tbody th"
    assert texts(page, names) == ["road", "car", "sky"]  # the order of the ids
    click(page, "#classes-table th:nth-child(2) button")
    assert texts(page, names) == sorted(ious, key=lambda name: -ious[name])
    assert (
        page.find_element("css selector", "#classes-table th:nth-child(2)").get_attribute("aria-sort") == "descending"
    )
    press(page, "\ue007")  # Enter: the button has the focus still
    assert texts(page, names) == sorted(ious, key=ious.get)
    click(page, "#classes-table th:nth-child(1) button")
    assert texts(page, names) == ["car", "road", "sky"]


def test_images_sort_and_filter(page, report):
    rows = report[1].table["images"]
    disagreement = [row["disagreement"][1] for row in rows]
    expected = sorted(range(IMAGES), key=lambda i: (-disagreement[i], i))
    assert cards(page) == expected[:ROUND]
    assert page.find_element("id", "count").text == "66 of 66 images"
    choose(page, "#sort", "other")
    ahead = [row["mean_iou"][1] - row["mean_iou"][0] for row in rows]
    assert [ahead[i] for i in cards(page)] == pytest.approx(sorted(ahead, reverse=True)[:ROUND])
    with_car = [i for i, row in enumerate(rows) if CAR in row["classes"]]
    assert 0 < len(with_car) < IMAGES
    click(page, "#classes-table tbody tr:nth-child(2) button")  # the class's own button does the same
    assert value(page, "#class") == str(CAR)
    assert page.find_element("id", "count").text == f"{len(with_car)} of 66 images"
    choose(page, "#sort", "firstWorst")
    ious = [rows[i]["iou"][0][CAR] for i in cards(page)]
    assert set(cards(page)) <= set(with_car) and ious == sorted(ious)
    assert texts(page, ".card .first")[0] == f"{ious[0]:.3f}"


def test_cards_and_thumbnails_come_when_they_are_near(page):
    """The page opens with a screenful or two; the end of the list brings more."""
    assert len(cards(page)) == ROUND
    lazy = "return [...document.querySelectorAll('#grid img')].filter(e => e.loading !== 'lazy').length"
    assert page.execute_script(lazy) == 0
    page.execute_script("document.getElementById('more').scrollIntoView()")
    wait(page, lambda: len(cards(page)) == IMAGES)
    last = "const e = [...document.querySelectorAll('.thumb .photo')].at(-1); e.scrollIntoView(); return e.naturalWidth"
    wait(page, lambda: page.execute_script(last) == 24)


def test_marks_can_be_hidden(page):
    mark = page.find_element("css selector", ".thumb .marks")
    assert mark.is_displayed()
    click(page, "#marks")
    assert not mark.is_displayed()


def open_first(page):
    click(page, ".card")
    wait(page, lambda: page.execute_script("return document.getElementById('viewer').open"))


def sources(page):
    """The pictures on both sides: folder/number, photograph first."""
    script = """return ['left', 'right'].map(s => [...document.querySelectorAll(`#${s}-side img:not([hidden])`)]
                .map(e => e.src.split('/').slice(-2).join('/')))"""
    return page.execute_script(script)


def test_the_viewer_opens_with_both_predictions_and_every_picture_loads(page):
    open_first(page)
    number = f"{cards(page)[0]:05}"
    photo = f"photos/{number}.jpg"
    assert sources(page) == [[photo, f"model0/{number}.png"], [photo, f"model1/{number}.png"]]
    choices = ["model0", "model1", "model2", "truth", "photos", "right"]
    assert page.execute_script("return [...document.getElementById('left').options].map(e => e.value)") == choices
    loaded = """return [...document.querySelectorAll('#left-side img:not([hidden])')]
                .every(e => e.complete && e.naturalWidth === 24)"""
    for choice in choices:
        choose(page, "#left", choice)
        wait(page, lambda: page.execute_script(loaded))
        folder = {"photos": "photos", "right": "right1"}.get(choice, choice)
        assert sources(page)[0][-1].startswith(f"{folder}/{number}")
    assert page.find_element("id", "right-legend").is_displayed()  # it says what the marks' colours mean


def clip(page, name):
    return page.execute_script(f"return getComputedStyle(document.getElementById('{name}-side')).clipPath")


def test_the_slider_follows_keys_and_pointer(page):
    from selenium.webdriver.common.action_chains import ActionChains

    open_first(page)
    assert page.switch_to.active_element.get_attribute("id") == "slider"
    press(page, "\ue014", "\ue014")  # arrow right, twice by 2 %
    assert value(page, "#slider") == "54" and "54%" in clip(page, "right") and "46%" in clip(page, "left")
    ActionChains(page).key_down("\ue008").send_keys("\ue012").key_up("\ue008").perform()  # Shift, arrow left: by 10 %
    assert value(page, "#slider") == "44"
    press(page, "\ue011")  # Home: the range's own
    assert value(page, "#slider") == "0"
    stage = page.find_element("id", "stage")
    move = ActionChains(page).move_to_element(stage).click_and_hold()
    move.move_by_offset(stage.size["width"] // 4, 0).release().perform()
    assert float(value(page, "#slider")) == pytest.approx(75, abs=1)
    ActionChains(page).move_to_element(stage).perform()  # without a button nothing moves
    assert float(value(page, "#slider")) == pytest.approx(75, abs=1)


def test_keys_walk_through_the_images_and_escape_closes(page, report):
    order = cards(page)
    open_first(page)
    names = [page.find_element("id", "viewer-name").text]
    assert page.find_element("id", "previous").get_property("disabled")
    for key in ("n", "n", "p"):
        press(page, key)
        names.append(page.find_element("id", "viewer-name").text)
    click(page, "#next")
    names.append(page.find_element("id", "viewer-name").text)
    expected = [report[1].table["images"][order[place]]["name"] for place in (0, 1, 2, 1, 2)]
    assert names == expected
    assert sources(page)[0][1] == f"model0/{order[2]:05}.png"
    press(page, "s")
    assert sources(page)[0][1] == f"model1/{order[2]:05}.png"
    press(page, "\ue00c")  # Escape
    wait(page, lambda: not page.execute_script("return document.getElementById('viewer').open"))
    # The card of the image shown last gets the focus when the browser has told the page of the close.
    wait(page, lambda: page.switch_to.active_element.get_attribute("data-index") == str(order[2]))
    press(page, "\ue007")  # Enter opens it again
    wait(page, lambda: page.execute_script("return document.getElementById('viewer').open"))


def test_another_model_can_be_compared_with_the_first(page, report):
    rows = report[1].table["images"]
    choose(page, "#other", 2)
    disagreement = [row["disagreement"][2] for row in rows]
    assert [disagreement[i] for i in cards(page)] == sorted(disagreement, reverse=True)[:ROUND]
    open_first(page)
    assert sources(page)[1][1].startswith("model2/")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_phone_width_and_dark(page, report, width, dark):
    """Nothing is wider than the screen, and text stands out from what is behind it (WCAG AA: 4.5)."""
    open_page(page, report[0], width, dark)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    if width < 500:
        assert wider_than_screen(page, width) == []
    assert min(contrasts(page, ["h1 .first", "h1 .other", "#subtitle", "#verdict"])) > 4.5
    back = luminance(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (back < 0.05) == dark
    open_first(page)
    box = page.execute_script("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0 and box["right"] <= width and box["bottom"] <= 800
    assert box["width"] / box["height"] == pytest.approx(24 / 16, rel=0.01)
