"""Several looks at an image: the mean of their probabilities, and windows that agree with the whole image."""

import json

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kseg
from kseg.inference import windows
from kseg.inference.ensemble import AveragingModel
from kseg.inference.label_model import LabelModel
from kseg.inference.logits import logits_at
from kseg.inference.looks import Looks
from kseg.io.errors import NotFiniteError
from kseg.layers import Preprocess


def small_network(size=(None, None), multiple=4):
    """A network of 3 classes that sees 5 pixels to each side and is not symmetric."""
    keras.utils.set_random_seed(0)
    image = keras.Input((*size, 3))
    x = Preprocess((128,) * 3, (64,) * 3, multiple=multiple, name="preprocess")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D(multiple)(x)
    x = keras.layers.UpSampling2D(multiple)(x)
    x = keras.layers.Conv2D(3, 1)(x)
    return keras.Model(image, x)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.mark.parametrize("kind", ["fixed", "trained at a size", "exported", "free"])
def test_a_model_of_one_size_sees_full_windows_alone(kind):
    """Else it would see what is at the right edge larger than what is elsewhere."""
    model = small_network((32, 64) if kind == "fixed" else (None, None))
    if kind == "trained at a size":
        model.get_layer("preprocess").size = (32, 64)
    if kind == "exported":
        model = Exported()
    averaging = AveragingModel([model], Looks(tile=64))
    seen = []

    def watched(images, names):
        seen.append(images.shape[1:3])
        return np.full((*images.shape[:3], 3), 1 / 3, np.float32)

    averaging._runs = [watched]
    averaging.labels_and_confidence(photo(150, 90), "it")
    if kind == "free":
        assert {(64, 64), (54, 64), (64, 58)} <= set(seen)  # whole steps of its coarsest grid: 90 - 32, 150 - 96
    else:
        assert set(seen) == {(64, 64)}


class Exported(LabelModel):
    """What the file of a model of one size says of itself."""

    gives_probabilities = True
    num_classes = 3
    reads = "a file"

    def __init__(self):
        self.label_set = {"name": "x", "classes": ["a", "b", "c"], "size": [32, 64]}


def test_flip_is_the_mean_with_the_mirror_image(network):
    image = photo(32, 48)
    whole = softmax(network(image[None].astype("float32")))[0]
    mirrored = softmax(network(image[None, :, ::-1].astype("float32")))[0][:, ::-1]
    expected = (whole + mirrored) / 2
    ids, confidence = AveragingModel([network], Looks(flip=True)).labels_and_confidence(image, "it")
    np.testing.assert_allclose(confidence, expected.max(-1), atol=1e-5)
    np.testing.assert_array_equal(ids, expected.argmax(-1))
    assert np.abs(whole - mirrored).max() > 0.01  # the mirror image shows it something else


def test_scales_are_the_mean_of_predictions_at_each(network):
    image = photo(32, 48)
    one, half, both = (
        AveragingModel([network], Looks(scales=scales)).probabilities(image[None], ["it"])[0]
        for scales in ((1,), (0.5,), (1, 0.5))
    )
    np.testing.assert_allclose(both, (one + half) / 2, atol=1e-6)
    np.testing.assert_allclose(one, softmax(network(image[None].astype("float32")))[0], atol=1e-5)
    assert np.abs(one - half).max() > 0.01
    small = keras.ops.image.resize(image[None].astype("float32"), (16, 24), antialias=True)
    logits = keras.ops.image.resize(network(small), (32, 48))
    np.testing.assert_allclose(half, softmax(logits)[0], atol=1e-4)


def test_an_export_is_shown_other_scales_too(network, tmp_path):
    """It gets whole pixel values; its logits, of which it gives the softmax, are resized back."""
    names = {"name": "x", "classes": list("abc"), "palette": [[0, 0, 0]] * 3}
    path = kseg.export_saved_model(network, tmp_path / "model", label_set=names)
    image = np.asarray(Image.fromarray(photo(8, 12)).resize((130, 97), Image.Resampling.BICUBIC))
    found = AveragingModel([kseg.load_model(path)], Looks(scales=(1, 0.5))).probabilities(image[None], ["it"])[0]
    small = keras.ops.image.resize(image[None].astype("float32"), (48, 65), antialias=True)  # 48.5 to even
    half, whole = logits_at(network, np.rint(np.asarray(small)), 97, 130), logits_at(network, image[None], 97, 130)
    np.testing.assert_allclose(found, (softmax(half) + softmax(whole))[0] / 2, atol=1e-4)
    of_keras = kseg.predict(network, image, scales=(1, 0.5))
    assert (kseg.predict(path, image, scales=(1, 0.5)) == of_keras).mean() > 0.99
    with pytest.raises(ValueError, match="resizes all to 64x32. Give its run, if that was trained on crops"):
        sized = kseg.export_saved_model(small_network((32, 64)), tmp_path / "sized", label_set=names)
        kseg.predict(sized, image, scales=(0.5,))


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (64, 64), (40, 300), (200, 63)])
def test_windows_agree_with_the_whole_image_where_they_see_enough(network, size):
    image = photo(*size)
    whole = AveragingModel([network], Looks()).labels_and_confidence(image, "it")
    tiled = AveragingModel([network], Looks(tile=64)).labels_and_confidence(image, "it")
    np.testing.assert_array_equal(tiled[0], whole[0])
    np.testing.assert_allclose(tiled[1], whole[1], atol=1e-5)


def test_a_window_is_predicted_as_an_image_of_its_own():
    """A model trained at 32x32 sees each window at 32x32, as it sees a whole image."""
    network = small_network(size=(None, None), multiple=1)
    sized = small_network(size=(32, 32), multiple=1)
    sized.set_weights(network.get_weights())
    image = photo(64, 64)
    tiled = AveragingModel([sized], Looks(tile=64)).probabilities(image[None], ["it"])[0]
    small = keras.ops.image.resize(image[None].astype("float32"), (32, 32), antialias=True)
    logits = keras.ops.image.resize(network(small), (64, 64))
    np.testing.assert_allclose(tiled, softmax(logits)[0], atol=1e-4)


def test_label_maps_of_another_size(network):
    found = AveragingModel([network], Looks(flip=True)).predict(photo(32, 48)[None], 64, 96, ["it"])
    ids, _ = AveragingModel([network], Looks(flip=True)).labels_and_confidence(photo(32, 48), "it")
    np.testing.assert_array_equal(found[0], ids.repeat(2, 0).repeat(2, 1))


def test_scores_that_are_not_finite_name_the_image(network):
    broken = small_network()
    broken.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(NotFiniteError, match="street 7 are not finite"):
        AveragingModel([broken], Looks(tile=64)).labels_and_confidence(photo(100, 100), "street 7")


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ({"tile": 16}, "tile must be a whole number of at least 32, got 16"),
        ({"tile": 64.5}, "tile must be a whole number"),
        ({"scales": ()}, "scales must be a list of numbers from 0.1 to 10"),
        ({"scales": (1, 0)}, "scales must be a list of numbers"),
        ({"scales": (1, float("nan"))}, "scales must be a list of numbers"),
        ({"scales": (1, 1.0)}, "scales must differ"),
        ({"flip": 1}, "flip must be True or False"),
    ],
)
def test_looks_that_cannot_be(looks, message):
    with pytest.raises(ValueError, match=message):
        Looks(**looks)


def test_models_that_cannot_look_so(network):
    with pytest.raises(ValueError, match="tile must be at least 80 for"):
        AveragingModel([small_network(multiple=40)], Looks(tile=64))
    with pytest.raises(ValueError, match="scales other than 1 need a model of free size, but .* of 32x32"):
        AveragingModel([small_network(size=(32, 32))], Looks(scales=(1, 2)))
    with pytest.raises(ValueError, match=r"scales other than 1 need a file .* \(a file\) resizes all to 64x32"):
        AveragingModel([Exported()], Looks(scales=(1, 2)))
    assert AveragingModel([small_network(size=(32, 32))], Looks(flip=True)).num_classes == 3


def test_one_look_is_single():
    assert Looks().single and Looks(scales=[1]).single
    assert not Looks(flip=True).single and not Looks(tile=64).single and not Looks(scales=(0.5,)).single


def test_predict_and_evaluate_look_as_they_are_told(network):
    image, truth = photo(97, 131), np.random.default_rng(1).integers(0, 3, (97, 131)).astype(np.uint8)
    looks = {"tile": 64, "scales": (1, 0.5), "flip": True}
    ids, confidence = AveragingModel([network], Looks(**looks)).labels_and_confidence(image, "it")
    np.testing.assert_array_equal(kseg.predict(network, image, **looks), ids)
    found = kseg.predict(network, [image], return_confidence=True, **looks)
    np.testing.assert_array_equal(found[0][0], ids)
    np.testing.assert_array_equal(found[0][1], confidence)
    assert (ids != kseg.predict(network, image)).any()
    scores = kseg.evaluate(network, [(image, truth)], **looks)
    assert scores.pixel_accuracy == pytest.approx((ids == truth).mean())
    plain = kseg.predict(network, image, return_confidence=True)
    np.testing.assert_array_equal(plain[0], kseg.predict(network, image))
    np.testing.assert_allclose(plain[1], softmax(logits_at(network, image[None], 97, 131))[0].max(-1), atol=1e-5)
    with pytest.raises(ValueError, match='are not of protocol "fischer2021"'):
        kseg.evaluate(network, [(image, truth)], protocol="fischer2021", flip=True)


@pytest.mark.parametrize("size", [(700, 90), (90, 700)])
def test_a_large_image_takes_the_memory_of_a_band(size, network, monkeypatch):
    """The largest array of floats is a band of windows across the longer side, however long that is."""
    sizes = []
    zeros = np.zeros

    def seen(shape, *arguments, **keywords):
        sizes.append(np.prod(shape))
        return zeros(shape, *arguments, **keywords)

    image = photo(*size)
    monkeypatch.setattr(windows.np, "zeros", seen)
    ids = kseg.predict(network, image, tile=64)
    monkeypatch.undo()
    assert ids.shape == size and max(sizes) == 64 * 90 * 3
    np.testing.assert_array_equal(ids, kseg.predict(network, image))


def test_windows_take_images_beyond_the_limit_of_others(network, tmp_path, monkeypatch):
    monkeypatch.setattr("kseg.inference.read_image.MAX_PIXELS", 10_000)
    Image.fromarray(photo(97, 131)).save(tmp_path / "a.png")  # 12,707 pixels
    with pytest.raises(ValueError, match=r"a.png: 131x97, but kseg reads images of at most 10,000 .*predict --tile"):
        kseg.predict(network, tmp_path / "a.png")
    expected = kseg.predict(network, photo(97, 131), tile=64)
    np.testing.assert_array_equal(kseg.predict(network, tmp_path / "a.png", tile=64), expected)


def test_the_command_line(network, tmp_path, call_script):
    Image.fromarray(photo(97, 131)).save(tmp_path / "a.png")
    model = keras.models.clone_model(network)
    model.get_layer("preprocess").label_set = {"name": "x", "classes": list("abc"), "palette": [[0, 0, 0]] * 3}
    model.set_weights(network.get_weights())
    model.save(tmp_path / "model.keras")
    paths = [f"--model={tmp_path}/model.keras", f"--images={tmp_path}/a.png", f"--output={tmp_path}/out"]
    code, out, error = call_script("predict", *paths, "--tile=64", "--scales=1,0.5", "--flip")
    assert code == 0 and f"{tmp_path}/out/a.png" in out, error
    expected = kseg.predict(network, photo(97, 131), tile=64, scales=(1, 0.5), flip=True)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), expected)
    for flag, message in (
        ("--tile=8", "tile must be a whole number of at least 32, got 8"),
        ("--scales=a", "--scales must be numbers such as 0.75,1,1.25, got a"),
        ("--scales=0", "scales must be a list of numbers from 0.1 to 10"),
    ):
        code, _, error = call_script("predict", *paths, flag)
        assert code == 2 and message in error
    code, _, error = call_script("predict", f"--check={tmp_path}", "--flip")
    assert code == 2 and "--check takes no" in error


@pytest.mark.parametrize("report", [False, True])
def test_the_command_evaluate_scores_what_the_looks_give(report, network, records, tmp_path, call_script):
    """Also where a report is written in the same pass."""
    model = keras.models.clone_model(network)
    model.get_layer("preprocess").label_set = tiny.LABELS
    model.set_weights(network.get_weights())
    model.save(tmp_path / "model.keras")
    flags = [f"--model={tmp_path}/model.keras", f"--data_dir={records}", f"--output={tmp_path}/scores.json"]
    flags += [f"--report_dir={tmp_path}/report"] if report else []
    code, _, error = call_script("evaluate", *flags, "--tile=32", "--scales=1,0.5", "--flip")
    assert code == 0, error
    found = json.loads((tmp_path / "scores.json").read_text())["confusion_matrix"]
    expected = kseg.evaluate(model, records, tile=32, scales=(1, 0.5), flip=True).confusion_matrix
    np.testing.assert_array_equal(found, expected)
    assert (kseg.evaluate(model, records).confusion_matrix != expected).any()


def test_a_model_is_compiled_once_for_all_predictions(tmp_path):
    network = small_network()
    image = photo(32, 48)
    kseg.predict(network, image, scales=(1, 0.5), flip=True)
    kseg.predict(network, image)
    before = dict(network.kseg_compiled[1])
    assert len(before) == 3  # probabilities at two scales, labels
    expected = kseg.predict(network, image, scales=(1, 0.5), flip=True)
    kseg.predict(network, image)
    assert {name: id(function) for name, function in network.kseg_compiled[1].items()} == {
        name: id(function) for name, function in before.items()
    }
    network.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(kseg.predict(tmp_path / "model.keras", image, scales=(1, 0.5), flip=True), expected)
