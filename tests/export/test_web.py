"""The page of a web export in headless Chromium, opened from the file system."""

import contextlib
import http.server
import io
import json
import pathlib
import re
import shutil
import threading

import keras
import numpy as np
import pytest
import served
import tiny
from browsing import CAMERA, WEBGPU, click, open_page, press, start_browser, texts, wait, wider_than_screen
from export_faults import FAULTS
from PIL import Image
from test_exports import DIFFERS, smooth

import kseg
from kseg import layers
from kseg.data.synthetic.scene import draw_street
from kseg.export import serving, web_folder
from kseg.export.export_model import export_model
from kseg.export.proof import ExportError
from kseg.export.proof_images import ProofImages
from kseg.inference.outside.carried_files import REPORT

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="Chromium is not here: apt-get install chromium chromium-driver",
)
pytest.importorskip("tf2onnx")
LABELS = {**tiny.LABELS, "classes": ["road", "a <b>car</b>", "sky"]}


def build():
    """Norm, pooling with positions and unpooling: few operations, but those that break."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), multiple=2, label_set=LABELS)(image)
    x = layers.BatchNormalization()(keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x))
    x, indices = layers.MaxPooling2DWithArgmax()(x)
    x = layers.MaxUnpooling2D()([keras.layers.Conv2D(6, 3, padding="same")(x), indices])
    return keras.Model(image, keras.layers.Conv2D(3, 3, padding="same")(x), name="street_labels")


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def images():
    return ProofImages("2 test images", [(f"image {i}", image) for i, image in enumerate(smooth(2))])


@pytest.fixture(scope="module")
def page(model, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "page"
    return export_model(model, folder, format="web", images=images, quick=True)


@pytest.fixture(scope="module")
def opened(page, browser):
    browser.get_log("performance")
    open_page(browser, page)
    wait_for(browser, "Ready")
    return browser


def wait_for(browser, beginning):
    def there():
        assert not texts(browser, "#error")[0]
        return texts(browser, "#status")[0].startswith(beginning)

    wait(browser, there, 120)


def choose_photograph(browser, path):
    browser.execute_script("ksegPage.found = []; document.getElementById('status').textContent = '';")
    browser.find_element("id", "photograph").send_keys(str(path))
    wait_for(browser, "Labelled")


def test_labels_and_confidences_are_kerass_and_nothing_leaves_the_page(opened, model, tmp_path):
    scenes = [draw_street((1, 0, i), 75 + i, 101 + 2 * i)[0] for i in range(16)] + list(smooth(4, size=(75, 101)))
    for i, image in enumerate(scenes):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        choose_photograph(opened, tmp_path / f"{i}.png")
        found = opened.execute_script("const f = ksegPage.found[0]; return [[...f.labels], [...f.confidence]]")
        expected, confidence = kseg.predict(model, image, return_confidence=True)
        labels, sure = (np.array(part).reshape(expected.shape) for part in found)
        assert (labels == expected).mean() >= 0.995
        assert np.quantile(np.abs(sure - confidence), 0.99) < 0.02  # weights of 16 bits
    shares = dict(zip(texts(opened, "#legend tbody th"), shares_of(opened), strict=True))
    counted = np.bincount(expected.ravel(), minlength=3) / expected.size
    for name, share in zip(LABELS["classes"], counted, strict=True):
        assert shares.get(name, 0) == pytest.approx(100 * share, abs=0.6)
    asked = [json.loads(line["message"])["message"] for line in opened.get_log("performance")]
    urls = [line["params"]["request"]["url"] for line in asked if line["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.split(":")[0] in ("file", "blob", "data") for url in urls)


def shares_of(browser):
    return [float(text.split()[-2]) for text in texts(browser, "#legend tbody td:nth-child(2)")]


def test_names_are_text_and_keys_move_the_divider(opened, tmp_path):
    assert texts(opened, "h1") == ["street_labels"] and "a <b>car</b>" in texts(opened, "#legend tbody th")
    Image.fromarray(smooth(1)[0]).save(tmp_path / "one.png")
    choose_photograph(opened, tmp_path / "one.png")
    opened.execute_script("document.getElementById('stage').focus()")
    before = opened.execute_script("return ksegPage.position")
    from selenium.webdriver.common.keys import Keys

    press(opened, Keys.END)
    left = pixels(opened)
    np.testing.assert_array_equal(left, smooth(1)[0])  # the photograph alone
    press(opened, Keys.HOME)
    assert opened.execute_script("return ksegPage.position") == before == 0
    assert (pixels(opened) != left).any()


def pixels(browser):
    script = """
        const view = document.getElementById('view');
        return [view.height, view.width, [...view.getContext('2d').getImageData(0, 0, view.width, view.height).data]]"""
    height, width, values = browser.execute_script(script)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def test_a_second_model_stands_beside_and_a_phone_shows_everything(opened, page, tmp_path):
    Image.fromarray(smooth(1)[0]).save(tmp_path / "one.png")
    choose_photograph(opened, tmp_path / "one.png")
    opened.find_element("id", "second").send_keys(str(page / "model.js"))
    wait(opened, lambda: opened.execute_script("return ksegPage.found.length") == 2, 120)
    first, second = opened.execute_script("return ksegPage.found.map((f) => [...f.labels])")
    assert first == second
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    assert wider_than_screen(opened, 390) == []
    click(opened, "summary")
    assert "of the pixels" in texts(opened, "#facts")[0]
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_tab_reaches_the_buttons_in_their_order_and_shows_where_it_is(opened):
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("const head = document.querySelector('h1'); head.tabIndex = -1; head.focus()")
    reached = []
    for _ in range(4):
        press(opened, Keys.TAB)
        script = "const e = document.activeElement; const button = e.closest('label') || e; return ["
        name, outline = opened.execute_script(f"{script}button.textContent, getComputedStyle(button).outlineStyle]")
        assert outline == "solid"
        reached.append(name)
    assert reached == ["Photograph", "Video", "Camera", "Second model"]


# Each gives what became of a request: "sent", or the browser's error.
FROM_PAGE = """
    const [address, done] = arguments;
    fetch(address, { mode: "no-cors" }).then(() => done("sent"), (error) => done(String(error)));"""
FROM_WORKER = """
    const [address, done] = arguments;
    const ask = `fetch("${address}", { mode: "no-cors" })`;
    const code = `${ask}.then(() => postMessage("sent"), (error) => postMessage(String(error)))`;
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => done(data);"""


def test_the_page_and_its_workers_can_send_nothing(page, tmp_path):
    """Not even where a script in it tries to. The same page without its policy does send."""
    text = (page / "index.html").read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" [^>]*>', text)[0]
    (tmp_path / "index.html").write_text(text.replace(policy, ""))
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, start_browser() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            for folder, answer in ((page, "TypeError: Failed to fetch"), (tmp_path, "sent")):
                open_page(browser, folder)
                for script, name in ((FROM_PAGE, "page"), (FROM_WORKER, "worker")):
                    assert browser.execute_async_script(script, f"{address}/{name}") == answer
                assert seen == ([] if folder == page else ["/page", "/worker"])
        finally:
            server.shutdown()


def test_a_served_page_labels_as_keras_does_with_a_thread_for_each_core_and_sends_nothing(page, model, tmp_path):
    """The server's two headers isolate the page: only then browsers give it threads."""
    image = smooth(1, size=(75, 101))[0]
    Image.fromarray(image).save(tmp_path / "one.png")
    with served.serving(model, page=page) as port, start_browser("--disable-gpu") as browser:
        browser.get(f"http://127.0.0.1:{port}/")
        wait_for(browser, "Ready")
        isolated, cores, device = browser.execute_script(
            "return [self.crossOriginIsolated, navigator.hardwareConcurrency, ksegPage.models[0].device]"
        )
        threads = min(8, cores)
        assert isolated and device == f"WebAssembly, {threads} thread{'s' if threads > 1 else ''}"
        assert device in texts(browser, "#status")[0]
        choose_photograph(browser, tmp_path / "one.png")
        agreement, shown = labelled_frame(browser, model)
        assert agreement >= 0.995
        np.testing.assert_array_equal(shown, image)
        for script in (FROM_PAGE, FROM_WORKER):
            assert "Failed to fetch" in browser.execute_async_script(script, f"http://127.0.0.1:{port}/v2")


def test_evaluate_and_compare_run_the_page_itself(page, model, records, tmp_path, call_script):
    """Of the page's labels, not of the ONNX file inside: what swaps colours in the page shows in the scores."""
    exported = kseg.load_model(page)
    image = smooth(1, size=(75, 101))[0]
    labels, confidence = kseg.predict(exported, image, return_confidence=True)
    own = kseg.predict(model, image, return_confidence=True)
    assert (labels == own[0]).mean() > 0.995 and np.abs(confidence - own[1]).max() < 0.05
    assert exported.label_set["classes"] == LABELS["classes"]
    with pytest.raises(kseg.InputError, match="need the probabilities of all classes.*web page from kseg"):
        kseg.predict(exported, image, flip=True)
    mapped = tmp_path / "page.toml"
    mapped.write_text(f'file = "{page}"\nmap = {{"road" = "road", "a <b>car</b>" = "car", "sky" = "sky"}}\n')
    expected = kseg.evaluate(model, records, class_map={"road": "road", "a <b>car</b>": "car", "sky": "sky"})
    code, _, error = call_script(
        "evaluate", f"--model={mapped}", f"--data_dir={records}", f"--output={tmp_path}/scores.json"
    )
    assert code == 0, error
    table = json.loads((tmp_path / "scores.json").read_text())
    assert table["reads"].startswith("web page from kseg, in browser ") and "WebAssembly" in table["reads"]
    compared = kseg.compare({"keras": tiny.brightness_model(), "page": mapped}, records, tmp_path / "report")
    assert compared.table["models"][1]["reads"] == table["reads"]
    for matrix in (np.array(table["confusion_matrix"]), compared.scores[1].confusion_matrix):
        assert np.abs(matrix - expected.confusion_matrix).sum() <= 0.01 * expected.confusion_matrix.sum()
    shutil.copytree(page, tmp_path / "other")
    text = (page / "index.html").read_text()
    mark = "  const begin = performance.now();\n"
    assert text.count(mark) == 1
    turned = text.replace(mark, mark + "  pixels.reverse();\n").replace("const AGREE = 0.995", "const AGREE = 0")
    assert turned.count("AGREE = 0;") == 1
    (tmp_path / "other" / "index.html").write_text(turned)
    assert (kseg.predict(tmp_path / "other", image) != labels).mean() > 0.1
    (tmp_path / "other" / "index.html").write_text(text.replace("const AGREE = 0.995", "const AGREE = 2"))
    with pytest.raises(kseg.InputError, match="does not open by itself. The page says: .* those that kseg found"):
        kseg.load_model(tmp_path / "other")


def write_video(path, count=12, size=(72, 96)):
    """Write a video in which two scenes take turns, each for half of it: a WebM file, as browsers play it."""
    import av

    scenes = smooth(2, size=size)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=12)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(scenes[2 * number // count], format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def labelled_frame(browser, model):
    """The share of the shown frame's labels that are Keras' for what the page took, and the frame."""
    height, width, pixels, labels = browser.execute_script("""
        const { height, width, rgba } = ksegPage.shown;
        return [height, width, [...rgba], [...ksegPage.found[0].labels]]""")
    frame = np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]
    return (kseg.predict(model, frame).ravel() == labels).mean(), frame


def test_a_video_is_labelled_frame_by_frame(opened, model, tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "drive.webm")
    opened.find_element("id", "video-file").send_keys(str(tmp_path / "drive.webm"))
    wait(opened, lambda: opened.execute_script("return ksegPage.video?.currentTime > 0"), 60)
    click(opened, "#play")  # pauses
    shown = [scene.mean((0, 1)) for scene in smooth(2, size=(72, 96))]
    at = "const { video } = ksegPage; return video.seeking ? -1 : video.currentTime / video.duration"
    for place, scene in zip((0, 900), shown, strict=True):  # of 1000: a frame of either scene
        opened.execute_script(
            """const time = document.getElementById('time');
            time.value = arguments[0];
            time.dispatchEvent(new Event('input'))""",
            place,
        )
        wait(opened, lambda place=place: abs(opened.execute_script(at) - place / 1000) < 0.05, 60)
        opened.execute_script("ksegPage.found = []")

        def is_labelled(scene=scene):  # the frame before may still have been on its way
            if not opened.execute_script("return ksegPage.found.length"):
                return False
            agreement, frame = labelled_frame(opened, model)
            assert agreement >= 0.995 and frame.shape == (72, 96, 3)
            return np.abs(frame.mean((0, 1)) - scene).max() <= 12  # of 255: the codec blurs and rounds

        wait(opened, is_labelled, 60)
    click(opened, "#stop")
    assert opened.execute_script("return ksegPage.video === null && document.getElementById('video-buttons').hidden")
    Image.fromarray(smooth(1)[0]).save(tmp_path / "one.png")
    choose_photograph(opened, tmp_path / "one.png")


def test_a_camera_and_webgpu_label_as_keras_does(page, model, tmp_path):
    with start_browser(*CAMERA, *WEBGPU) as browser:
        open_page(browser, page)
        wait_for(browser, "Ready")
        device = browser.execute_script("return ksegPage.models[0].device")
        assert device == "WebGPU"  # after the page's own check of its labels there
        for i, image in enumerate(smooth(2, size=(75, 101))):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
            choose_photograph(browser, tmp_path / f"{i}.png")
            assert labelled_frame(browser, model)[0] >= 0.995
        browser.execute_script("ksegPage.found = []")
        click(browser, "#camera")
        wait(browser, lambda: browser.execute_script("return ksegPage.found.length"), 120)
        assert labelled_frame(browser, model)[0] >= 0.995
        track = "return ksegPage.video.srcObject.getTracks()[0]"
        browser.execute_script(track.replace("return", "window.track ="))
        click(browser, "#stop")
        assert browser.execute_script("return track.readyState") == "ended"  # the camera's light goes out


def drop(browser, name, kind, content):
    """Drop a file on the page."""
    browser.execute_script("ksegPage.found = []")
    browser.execute_script(
        """const [name, type, content] = arguments;
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], name, { type }));
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));""",
        name,
        kind,
        [*content],
    )
    wait(browser, lambda: browser.execute_script("return ksegPage.found.length"), 60)


def test_a_photograph_that_is_dropped_is_labelled(opened, model):
    image = smooth(1, size=(40, 60))[0]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    drop(opened, "dropped.png", "image/png", file.getvalue())
    agreement, frame = labelled_frame(opened, model)
    assert agreement >= 0.995
    np.testing.assert_array_equal(frame, image)


def test_a_video_that_is_dropped_is_labelled(opened, model, tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "drive.webm")
    drop(opened, "drive.webm", "video/webm", (tmp_path / "drive.webm").read_bytes())
    agreement, frame = labelled_frame(opened, model)
    assert agreement >= 0.995 and frame.shape == (72, 96, 3)
    click(opened, "#stop")


def test_what_is_no_picture_is_said_and_the_page_goes_on(opened, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    opened.find_element("id", "photograph").send_keys(str(tmp_path / "text.png"))
    wait(opened, lambda: "cannot read text.png" in texts(opened, "#error")[0], 60)
    Image.fromarray(smooth(1)[0]).save(tmp_path / "one.png")
    opened.execute_script("document.getElementById('error').textContent = ''")
    choose_photograph(opened, tmp_path / "one.png")


def test_the_folder_carries_classes_and_proof_and_an_own_folder_stays(page, model, images, tmp_path):
    assert json.loads((page / "classes.json").read_text())["classes"] == LABELS["classes"]
    report = json.loads((page / REPORT).read_text())
    card = (page / "README.md").read_text()
    assert "| Format | web page |" in card and "Open `index.html` in a browser." in card
    assert report["kind"] == "web page" and report["quantize"] == "float16" and "WebAssembly" in str(report["versions"])
    assert {group["batch"] for group in report["agreement"]["groups"]} == {1}  # a page labels one at a time
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    with pytest.raises(kseg.InputError, match="kseg did not write"):
        export_model(model, tmp_path / "mine", format="web", images=images, quick=True)
    assert (tmp_path / "mine" / "index.html").read_text() == "my page"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_fails_the_export_and_nothing_is_written(fault, model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "answers", fault(serving.answers, monkeypatch))
    before = _browsers()
    with pytest.raises(ExportError, match=DIFFERS):
        export_model(model, tmp_path / "page", format="web", images=images, quick=True)
    assert not list(tmp_path.iterdir())
    assert _browsers() == before  # none is left behind


def _browsers():
    """The processes of browsers' drivers."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            found += [path.parent.name] if path.read_text().startswith("chromedriver") else []
    return sorted(found)


def test_a_page_that_swaps_channels_fails_the_proof(model, images, tmp_path, monkeypatch):
    asset = web_folder._asset

    def faulty(name):
        swap = (
            b"pixels.forEach((_, i) => { if (i % 3 === 0) [pixels[i], pixels[i + 2]] = [pixels[i + 2], pixels[i]]; });"
        )
        content = asset(name)
        if name == "worker.js":
            mark = b"  const begin = performance.now();\n"
            assert mark in content
            content = content.replace(mark, mark + swap)
        return content

    monkeypatch.setattr(web_folder, "_asset", faulty)
    with pytest.raises(ExportError, match=DIFFERS):
        export_model(model, tmp_path / "page", format="web", images=images, quick=True)
    assert not list(tmp_path.iterdir())


def test_a_page_that_refuses_to_open_fails_the_proof(model, images, tmp_path, monkeypatch):
    asset = web_folder._asset
    mark = b"const AGREE = 0.995"
    assert mark in asset("page.js")
    monkeypatch.setattr(web_folder, "_asset", lambda name: asset(name).replace(mark, b"const AGREE = 2"))
    with pytest.raises(ExportError, match="does not open by itself. It says: .* those that kseg found"):
        export_model(model, tmp_path / "page", format="web", images=images, quick=True)
    assert not list(tmp_path.iterdir())
