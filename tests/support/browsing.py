"""What tests of pages do in headless Chromium. The fixture `browser` is in conftest.py."""

import json
import shutil

import numpy as np
import pytest

# A camera that shows a moving pattern, and yes to a page that asks for it.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# WebGPU without a GPU: Chromium's own software renderer.
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


def require_chromium():
    """Return selenium.webdriver and the paths of Chromium and its driver, or skip and say what to install."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("Chromium is not here: apt-get install chromium chromium-driver")
    return webdriver, *programs


def start_browser(*arguments):
    """Start headless Chromium, which ends with the block, or skip and say what to install."""
    webdriver, *programs = require_chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))


def open_page(browser, path, width=1280, dark=False):
    """Open a page's index.html on a screen."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get_log("browser")  # what pages before this one have said
    browser.get((path / "index.html").as_uri())


def wait(browser, condition, seconds=10):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.02).until(lambda _: condition())


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


def wider_than_screen(browser, width):
    """The elements, but for SVG's, that reach beyond the screen or are cut by a box around them, as a line each."""
    script = """
        const width = arguments[0];
        const wide = [...document.querySelectorAll('body *:not(svg *)')].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width && (box.right > width + 0.5 || box.left < -0.5);
        });
        const texts = 'td, th, p, li, h1, h2, h3, dd, dt, .lane-label, .lane-value, .scroll';
        const isCut = (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1;
        const cut = [...document.querySelectorAll(texts)].filter(isCut);
        return [...wide, ...cut].map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 60)}`);"""
    return browser.execute_script(script, width)


def strays(browser):
    """Bold differences whose interval holds 0, in every table that has both: there must be none."""
    script = """
        const number = (text) => Number(text.replace('−', '-').replace('±', ''));
        return [...document.querySelectorAll('tr')].filter((row) => row.querySelector('td strong')).filter((row) => {
            const ends = row.querySelector('.interval')?.textContent.split(' to ').map(number);
            return !ends || !(ends[0] > 0 || ends[1] < 0);
        }).map((row) => row.textContent);"""
    return browser.execute_script(script)


def requests(browser):
    """The addresses that the browser has asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def contrasts(browser, selectors):
    """Contrast of the text of elements to the page behind them, as WCAG 2 defines it."""
    script = """return arguments[0].map(s => [
        getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor])"""
    found = []
    for pair in browser.execute_script(script, selectors):
        dark, light = sorted(luminance(colour) for colour in pair)
        found.append((light + 0.05) / (dark + 0.05))
    return found


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)", as WCAG 2 defines it."""
    channels = np.array([int(part) for part in colour.strip("rgb()").split(",")]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
