"""The page of a comparison in headless Chromium: what a reader clicks, sorts, drags and types."""

import re
import shutil

import keras
import numpy as np
import pytest
import tiny
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
    for name in ("plain", "<b>bold</b>", "third"):  # a name is no markup
        image = keras.Input((16, 24, 3))
        layer = keras.layers.Conv2D(3, 1)
        models[name] = keras.Model(image, layer(image))
        layer.set_weights([random.normal(size=(1, 1, 3, 3)), random.normal(size=3) * 100])
    found = kseg.compare(models, root / "records", root / "report", batch_size=10)
    return root / "report", found


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium through its own driver, or a skip that says what to install."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("Chromium is not here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1])) as browser:
        yield browser


def show(browser, report, width=1280, dark=False):
    """Open the page on a screen."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get((report[0] / "index.html").as_uri())


@pytest.fixture
def page(browser, report):
    """The page, freshly opened; afterwards nothing may stand in its log."""
    show(browser, report)
    yield browser
    assert browser.get_log("browser") == []


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10, poll_frequency=0.02).until(lambda _: condition())


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def choose(browser, selector, value):
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))",
        *(selector, str(value)),
    )


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def click(browser, selector):
    browser.find_element("css selector", selector).click()


def cards(browser):
    """The images' indices as their cards stand on the page."""
    script = "return [...document.querySelectorAll('.card')].map(e => Number(e.dataset.index))"
    return browser.execute_script(script)


def value(browser, selector):
    return browser.find_element("css selector", selector).get_property("value")


def test_the_numbers_stand_on_the_page(page, report):
    scores = report[1].scores
    assert texts(page, "#title .model") == ["plain", "<b>bold</b>", "third"]
    (first, *_) = page.find_elements("css selector", "#scores-table tbody tr")
    cells = [cell.text for cell in first.find_elements("css selector", "th, td")]
    assert cells[:4] == ["mean IoU (macro Jaccard)", *(f"{s.mean_iou:.3f}" for s in scores)]
    difference = scores[1].mean_iou - scores[0].mean_iou
    assert cells[4] == f"{difference:+.3f}".replace("-", "−") and " to " in cells[5]
    assert "No model was trained again" in page.find_element("id", "meaning").text
    # One drive, val_0 .. val_65: 66 frames are blocks of 25, 25 and 16.
    assert page.find_element("id", "groups").text == (
        "Independent groups: 3 blocks of 25 consecutive frames, of 1 drive (val). The interval tells how far the "
        "difference hangs on the part of the drive. It is of this drive alone and tells nothing of others."
    )
    widths = page.execute_script(
        "return [...document.querySelectorAll('#classes-table tr .fill.first')].map(e => e.style.width)"
    )
    ious = [row["jaccard"] for row in scores[0].per_class.values()]
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx([100 * iou for iou in ious], abs=0.01)


def test_the_verdict_agrees_with_its_own_numbers(page, report):
    """Whoever is ahead, the difference is the one of the two numbers before it, with its sign."""
    for other in (1, 2):
        choose(page, "#other", other)
        row = report[1].table["scores"][0]
        found = row["differences"][other]
        text = page.find_element("id", "verdict").text.replace("−", "-").replace("±", "")
        values = [float(number) for number in re.findall(r"[+-]?\d\.\d{4}", text)]
        low, high = found["by_group"]
        if low > 0 or high < 0:
            winner, loser = (other, 0) if low > 0 else (0, other)
            ends = (low, high) if low > 0 else (-high, -low)
            assert text.startswith(f"{report[1].names[winner]} has the higher mean IoU: ")
            assert values[:2] == [round(row["values"][m], 4) for m in (winner, loser)]
            assert values[2] == round(values[0] - values[1], 4) > 0
        else:
            ends = low, high
            assert text.startswith("No clear winner by mean IoU: ")
            assert values[:2] == [round(row["values"][m], 4) for m in (0, other)]
            assert values[2] == round(values[1] - values[0], 4)
        assert values[3:5] == pytest.approx(ends, abs=5.1e-5)


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
    show(page, report, width, dark)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    colours = """return ['h1 .first', 'h1 .other', '#subtitle', '#verdict'].map(s => [
        getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor])"""
    for pair in page.execute_script(colours):
        light = sorted(luminance(colour) for colour in pair)
        assert (light[1] + 0.05) / (light[0] + 0.05) > 4.5, pair
    back = luminance(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (back < 0.05) == dark
    open_first(page)
    box = page.execute_script("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0 and box["right"] <= width and box["bottom"] <= 800
    assert box["width"] / box["height"] == pytest.approx(24 / 16, rel=0.01)


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)", as WCAG 2 defines it."""
    channels = np.array([int(part) for part in colour.strip("rgb()").split(",")]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
