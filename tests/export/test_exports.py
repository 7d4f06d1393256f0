"""Every format: what is written does what the model does, or is not written."""

import collections
import functools
import subprocess
import sys
import zipfile
from importlib.metadata import version

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from browsing import require_chromium
from export_faults import FAULTS
from PIL import Image

import kseg
from kseg import layers
from kseg.data.pipeline import examples_tensorflow
from kseg.evaluation.temperature import with_temperature
from kseg.export import EXPORTERS, export_model, proof, savedmodel, serving
from kseg.export.folding import WIDE, Folding
from kseg.export.proof_images import ProofImages, images_for
from kseg.export.serving import OUTPUTS
from kseg.inference.logits import logits_at
from kseg.inference.outside import alone
from kseg.inference.outside.carried_files import CLASSES, REPORT, carried_table
from kseg.inference.outside.file_kinds import kind_of
from kseg.io.errors import NotFiniteError
from kseg.models import options_of

# Size, batch, image and class of what a file does otherwise.
DIFFERS = (
    r"file does not do .* images of \d+x\d+ in batches of \d, .* image \d: .* class (road|(a <b>)?car(</b>)?|sky), "
)
SUFFIXES = {name: exporter.suffix for name, exporter in EXPORTERS.items() if name != "web"}  # which has its own tests


def build(size=(None, None)):
    """Padding to 4, norms, positions of maxima, both interpolations: what converters have got wrong."""
    keras.utils.set_random_seed(3)
    image = keras.Input((*size, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), multiple=4, label_set=tiny.LABELS)(image)
    x = keras.layers.Conv2D(6, 3, padding="same")(x)
    x = keras.layers.ReLU()(layers.BatchNormalization()(x))
    x, indices = layers.MaxPooling2DWithArgmax()(x)
    y = keras.layers.MaxPooling2D()(x)
    y = keras.layers.UpSampling2D(2)(keras.layers.Conv2D(6, 3, padding="same")(y))
    x = layers.MaxUnpooling2D()([keras.layers.Add()([x, y]), indices])
    model = keras.Model(image, keras.layers.Conv2D(3, 3, padding="same")(x), name="small")
    model(np.random.default_rng(0).integers(0, 256, (2, *(side or 48 for side in size), 3), np.uint8), training=True)
    return model


def smooth(count, size=(60, 90)):
    """Images of soft colours, in which a shift or a swap shows."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (count, 7, 9, 3), np.uint8)
    return [np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.BICUBIC)) for one in coarse]


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def images():
    return ProofImages("6 test images", [(f"image {i}", image) for i, image in enumerate(smooth(6))])


def written(model, format, folder, images, **options):
    path = folder / f"model{SUFFIXES[format]}"
    return export_model.export_model(model, path, format=format, images=images, quick=True, **options)


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("fault", (None, *FAULTS), ids=lambda fault: getattr(fault, "__name__", "none"))
def test_a_planted_fault_fails_the_export_and_nothing_is_written(fault, format, model, images, tmp_path, monkeypatch):
    if fault is None:
        path = written(model, format, tmp_path, images)
        found = carried_table(path, EXPORTERS[format].kind, REPORT)
        assert found["agreement"]["pixels"] > 0.999 and len(found["agreement"]["classes_seen"]) == 3
        return
    monkeypatch.setattr(serving, "answers", fault(serving.answers, monkeypatch))
    with pytest.raises(proof.ExportError, match=DIFFERS):
        written(model, format, tmp_path, images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", SUFFIXES)
def test_wrong_probabilities_beside_right_labels_fail_the_export(format, model, images, tmp_path, monkeypatch):
    own = serving.answers

    def faulty(*given):
        found = own(*given)
        return {**found, "probabilities": found["probabilities"][..., ::-1]}

    monkeypatch.setattr(serving, "answers", faulty)
    message = r"other probabilities than .* Of image image \d of \d+x\d+, .* class (road|car|sky)\."
    with pytest.raises(proof.ExportError, match=message):
        written(model, format, tmp_path, images)
    assert not list(tmp_path.iterdir())


def test_files_of_images_that_are_read_otherwise_fail_the_export(model, images, tmp_path, monkeypatch):
    own = examples_tensorflow.decode_images
    monkeypatch.setattr(examples_tensorflow, "decode_images", lambda files: own(files)[..., ::-1])
    message = (
        r"other labels for a PNG file than for its pixels. Of image image \d of \d+x\d+, .* class (road|car|sky), "
    )
    with pytest.raises(proof.ExportError, match=message):
        written(model, "savedmodel", tmp_path, images)
    assert not list(tmp_path.iterdir())


# What is written.


@pytest.mark.parametrize("format", EXPORTERS)
def test_a_file_is_proved_in_a_fresh_process_and_scored_like_its_model(format, records, tmp_path):
    """Of a model of fixed size, to which the file itself resizes images of other sizes."""
    from kseg.data.pipeline.load import open_split
    from kseg.export.exported_facts import carried

    if format == "web":
        require_chromium()
    model = tiny.build_tiny()
    for variable in model.trainable_variables:
        variable.assign(variable + np.random.default_rng(0).normal(0, 0.1, variable.shape))
    model.get_layer("preprocess").label_set = carried(open_split(records, "val"))
    path = tmp_path / f"tiny{EXPORTERS[format].suffix}"
    kseg.export_model(model, path, format=format, data_dir=records)
    kind = EXPORTERS[format].kind
    report = carried_table(path, kind, REPORT)
    assert report["images"] == (
        "5 images of split val of source, 7 images of split train of source and 9 synthetic streets"
    )
    drawn = "9 of 21 images were drawn streets, no photographs."
    assert report["notes"] == [drawn] and drawn in export_model.summary(path, format).splitlines()
    sizes = {(group["height"], group["width"]) for group in report["agreement"]["groups"]}
    assert len(sizes) == 3 and all(height % 32 and width % 32 for height, width in sizes)
    batches = {group["batch"] for group in report["agreement"]["groups"]}
    assert batches == ({1} if format == "web" else {1, 3})  # a page labels one at a time
    assert report["quantize"] == ("float16" if format == "web" else None)
    limits = proof.LIMITS[report["quantize"]]
    assert report["scores"]["images"] == 5
    assert abs(report["scores"]["mean_iou"] - report["scores"]["keras_mean_iou"]) < limits.mean_iou
    assert report["latency"]["median_ms"] > 0
    assert format == "web" or report["latency"]["peak_memory_bytes"] > 1e6
    used = ("tensorflow", "tf2onnx", "onnx") if format in ("onnx", "web") else ("tensorflow",)
    assert report["converted_with"] == {package: version(package) for package in used}
    facts = carried_table(path, kind, CLASSES)
    assert facts["classes"] == ["road", "car", "sky"] and facts["ids"] == [[0], [1], [2]]
    own = kseg.evaluate(model, records).confusion_matrix
    found = kseg.evaluate(path, records).confusion_matrix
    assert np.abs(own - found).sum() <= 2 * (1 - limits.pixels) * own.sum()  # a pixel leaves one cell for another
    if format == "litert":
        assert zipfile.ZipFile(path).namelist() == [CLASSES, REPORT, "README.md"]


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_quantised_files_are_smaller_and_still_agree(format, quantize, images, tmp_path):
    """Of fixed size: the resize of the images to it must not be spoilt. Of wide margins: the arithmetic is coarser."""
    model = tiny.brightness_model((48, 64, 3))
    model.layers[1].label_set = tiny.LABELS
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for i, image in enumerate(smooth(4, (64, 96))):
        Image.fromarray(image).save(photographs / f"{i}.png")
    calibration = photographs if quantize == "int8" else None
    path = written(model, format, tmp_path, images, quantize=quantize, calibration_data=calibration)
    found = carried_table(path, EXPORTERS[format].kind, REPORT)
    assert found["quantize"] == quantize and found["limits"]["pixels"] == {"float16": 0.995, "int8": 0.97}[quantize]
    assert quantize in {value.dtype.name for value in kernels_of(path) if value.ndim == 4}


def kernels_of(path):
    """The constants of a file."""
    if path.suffix == ".onnx":
        import onnx

        return [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    found = []
    for tensor in interpreter.get_tensor_details():
        try:
            found.append(interpreter.get_tensor(tensor["index"]))
        except ValueError:  # no constant
            continue
    return found


@pytest.fixture(scope="module")
def plain():
    """A convolution whose probabilities are far from 0 and 1."""
    keras.utils.set_random_seed(5)
    image = keras.Input((None, None, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), multiple=2, label_set=tiny.LABELS)(image)
    return keras.Model(image, keras.layers.Conv2D(3, 3, padding="same", name="conv")(x), name="plain")


@pytest.mark.parametrize("format", SUFFIXES)
def test_an_export_gives_the_probabilities_of_all_classes_where_they_are_averaged(format, plain, tmp_path):
    images = ProofImages("3 test images", [(f"image {i}", image) for i, image in enumerate(smooth(3))])
    path = written(plain, format, tmp_path, images)
    image = smooth(1, (45, 71))[0]
    own = np.asarray(keras.ops.softmax(logits_at(plain, image[None], 45, 71)))
    exported = kseg.load_model(path)
    found = exported.probabilities(image[None], ["it"])
    assert found.shape == (1, 45, 71, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, own, atol=1e-4)
    labels, confidence = kseg.predict(path, image, return_confidence=True)
    np.testing.assert_array_equal(labels, found[0].argmax(-1))
    np.testing.assert_allclose(confidence, found[0].max(-1), atol=1e-6)
    _, confidence, disagreement = kseg.predict([path, plain], image, return_confidence=True, return_disagreement=True)
    np.testing.assert_allclose(confidence, own[0].max(-1), atol=1e-4)
    np.testing.assert_allclose(disagreement, 0, atol=1e-4)
    for looks in ({"flip": True}, {"tile": 32}):
        of_file = kseg.predict(path, image, return_confidence=True, **looks)
        np.testing.assert_allclose(
            of_file[1], kseg.predict(plain, image, return_confidence=True, **looks)[1], atol=1e-4
        )
    # The file sees whole pixel values.
    own = kseg.predict(plain, image, return_confidence=True, scales=(1, 0.5))
    of_file = kseg.predict(path, image, return_confidence=True, scales=(1, 0.5))
    np.testing.assert_allclose(of_file[1], own[1], atol=0.01)
    assert (of_file[0] == own[0]).mean() > 0.99


@pytest.mark.parametrize("format", SUFFIXES)
def test_an_export_of_a_calibrated_model_has_its_confidences(format, plain, tmp_path):
    """Far from those without the temperature, whose labels are the same."""
    with_temperature(plain, 3.0).save(tmp_path / "calibrated.keras")
    images = ProofImages("3 test images", [(f"image {i}", image) for i, image in enumerate(smooth(3))])
    path = written(tmp_path / "calibrated.keras", format, tmp_path, images)
    image = smooth(1, (45, 71))[0]
    labels, confidence = kseg.predict(tmp_path / "calibrated.keras", image, return_confidence=True)
    found_labels, found = kseg.predict(path, image, return_confidence=True)
    assert (found_labels == labels).mean() > 0.999
    np.testing.assert_allclose(found, confidence, atol=1e-4)
    before = kseg.predict(plain, image, return_confidence=True)[1]
    assert np.abs(found - before).mean() > 0.05
    assert kseg.load_model(path).label_set["classes"] == tiny.LABELS["classes"]


@pytest.mark.parametrize("format", SUFFIXES)
def test_an_export_without_probabilities_says_so(format, plain, tmp_path, monkeypatch):
    """As an earlier kseg wrote them."""
    function = serving.Serving.function
    monkeypatch.setattr(serving.Serving, "function", lambda self, outputs=(), *rest: function(self, OUTPUTS[:2], *rest))
    monkeypatch.setattr(savedmodel, "save", without_probabilities(savedmodel.save))
    monkeypatch.setattr(proof, "_compare_others", lambda *_: None)
    images = ProofImages("3 test images", [(f"image {i}", image) for i, image in enumerate(smooth(3))])
    path = written(plain, format, tmp_path, images)
    image = smooth(1)[0]
    assert kseg.predict(path, image, return_confidence=True)[1].max() < 1
    with pytest.raises(kseg.InputError, match="export of an earlier kseg"):
        kseg.predict(path, image, flip=True)


def without_probabilities(save):
    def faulty(functions, folder):
        save({name: function for name, function in functions.items() if name != "probabilities"}, folder)

    return faulty


def test_confidences_that_are_not_finite_name_the_image(plain, tmp_path):
    """Of a file whose weights nobody sees."""
    images = ProofImages("3 test images", [(f"image {i}", image) for i, image in enumerate(smooth(3))])
    path = written(plain, "onnx", tmp_path, images)
    import onnx

    made = onnx.load(str(path))
    for tensor in made.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(value, np.nan), tensor.name))
    onnx.save(made, str(path))
    with pytest.raises(NotFiniteError, match="scores for the image are not finite"):
        kseg.predict(path, smooth(1)[0])


def test_what_is_not_ksegs_is_not_replaced(model, images, tmp_path):
    mine = tmp_path / "model.onnx"
    mine.write_bytes(b"mine")
    with pytest.raises(kseg.InputError, match="is there already, and kseg did not export it"):
        written(model, "onnx", tmp_path, images)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    path = written(model, "onnx", tmp_path, images)
    assert kind_of(path) == "ONNX"
    before = path.read_bytes()
    written(model, "onnx", tmp_path, images, label_set={**tiny.LABELS, "name": "other"})
    assert path.read_bytes() != before and carried_table(path, "ONNX")["name"] == "other"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.onnx", {"format": "litert"}, r"must end in \.tflite"),
        ("a.onnx", {"format": "saved"}, "must be one of savedmodel, onnx, litert"),
        ("a", {"quantize": "int8", "calibration_data": "x"}, "savedmodel holds float32 alone.* onnx, litert"),
        ("a.onnx", {"format": "onnx", "quantize": "int8"}, "calibration_data go together"),
        ("a.onnx", {"format": "onnx", "calibration_data": "x"}, "calibration_data go together"),
        ("a.onnx", {"format": "onnx", "data_dir": "nothing"}, "no such folder"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, message, model, tmp_path):
    with pytest.raises(kseg.InputError, match=message):
        kseg.export_model(model, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_stops_is_told(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08\x3a\x00")
    with pytest.raises(proof.ExportError, match="The runtime of the ONNX file ended with code 1: .*"):
        with proof.in_a_process(tmp_path / "a.onnx", "ONNX"):
            pass


def test_the_program_that_runs_files_imports_no_kseg():
    code = f"import runpy, sys; runpy.run_path({alone.__file__!r}); assert 'kseg' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_images_come_from(records, tmp_path):
    """Those the user names; those of the run, if they are there; streets."""
    model = tiny.brightness_model((32, 48, 3))
    model.layers[1].label_set = {**tiny.LABELS, "name": "train_ids"}
    drawn = images_for(model, None, images=2)
    assert drawn.where == "2 synthetic streets"
    assert drawn.notes == ("2 of 2 images were drawn streets, no photographs.",)
    run = tmp_path / "run"
    run.mkdir()
    (run / "flags.txt").write_text(f"--model=unet\n--data_dir={records}\n")
    found = images_for(model, run, images=4)
    assert found.where == "4 images of split val of source" and len(found.split) == 5 and found.notes == ()
    (run / "flags.txt").write_text(f"--model=unet\n--data_dir={tmp_path}/gone\n")
    gone = images_for(model, run / "best.keras", images=4)
    assert gone.where == "4 synthetic streets" and "The run's records are not used" in gone.notes[0]
    photographs = records.parent / "source" / "val" / "images"
    assert images_for(model, run, photographs, 3).where == "3 photographs of folder images"
    one_drawn = images_for(model, run, photographs, 6)  # of 5 photographs
    assert one_drawn.notes == ("1 of 6 images was a drawn street, no photograph.",)


# The graph.


def test_onnx_runtime_opens_a_nearest_upsampling_without_a_warning(images, tmp_path):
    keras.utils.set_random_seed(2)
    image = keras.Input((None, None, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), multiple=6, label_set=tiny.LABELS)(image)
    x = keras.layers.AveragePooling2D(6)(x)
    x = keras.layers.UpSampling2D(2)(keras.layers.Conv2D(8, 3, padding="same")(x))
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(keras.layers.UpSampling2D(3)(x)), name="nearest")
    path = written(model, "onnx", tmp_path, images)  # its labels are Keras'
    onnx = pytest.importorskip("onnx")
    nodes = [node for node in onnx.load(str(path)).graph.node if node.op_type == "Resize"]
    modes = [{item.name: item.s.decode() for item in node.attribute} for node in nodes]
    nearest = [mode["coordinate_transformation_mode"] for mode in modes if mode["mode"] == "nearest"]
    assert nearest == ["half_pixel"] * 2


def test_the_antialiased_resize_is_tensorflows():
    images = tf.constant(smooth(2, (50, 70)), tf.float32)
    for size in ((23, 31), (50, 33), (80, 100), (50, 70)):
        expected = tf.image.resize(images, size, antialias=True)
        found = serving.portable_resize(images, *map(tf.constant, size), antialias=True)
        np.testing.assert_allclose(found, expected, atol=2e-3)  # of 255


def test_norms_are_folded_into_every_kind_of_convolution():
    """But not where the convolution's own result is used too, has an activation, or was added to another."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 24, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", bias_initializer="normal")
    shared = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)
    x = layers.BatchNormalization()(conv(image))  # folded
    x = layers.BatchNormalization(scale=False)(keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x))  # folded
    x = layers.BatchNormalization(center=False)(keras.layers.Conv2DTranspose(4, 4, strides=2)(x))  # folded
    x = layers.BatchNormalization()(shared(layers.BatchNormalization()(shared(x))))  # both, each with its kernel
    y = keras.layers.Conv2D(4, 1)(x)
    x = keras.layers.Add()([layers.BatchNormalization()(y), y])  # y is used twice
    x = layers.BatchNormalization()(x)  # of a sum
    x = layers.BatchNormalization()(keras.layers.Conv2D(4, 1, activation="relu")(x))
    model = keras.Model(image, x)
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    pixels = random.uniform(size=(2, 16, 24, 3)).astype(np.float32)
    folding = Folding()
    folding.find(lambda x: model(x, training=False), tf.TensorSpec((None, 16, 24, 3)))
    assert (folding.norms, folding.count) == (8, 5)
    with folding.applied():
        found = tf.function(lambda x: model(x, training=False), autograph=False)(pixels)
    np.testing.assert_allclose(found, model(pixels, training=False), rtol=2e-5)


CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)


def foldable(model):
    """Count in a model's graph the norms that alone take what a convolution gives, but those before a last pooling.

    All norms that lead to a max pooling that gives positions stay. Returns: (norms that fold, all norms).
    """
    graphs = [model, *(layer for layer in model._flatten_layers() if isinstance(layer, keras.Sequential))]
    folds = norms = 0
    for graph in graphs:
        nodes = [
            node for nodes in (getattr(graph, "_functional", None) or graph)._nodes_by_depth.values() for node in nodes
        ]
        takers = collections.Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
        takers.update(id(tensor) for tensor in graph.outputs)
        maker = {id(tensor): node for node in nodes for tensor in node.outputs}
        todo = [node for node in nodes if isinstance(node.operation, layers.MaxPooling2DWithArgmax)]
        before_pooling = set()
        while todo:
            node = todo.pop()
            if id(node) not in before_pooling:
                before_pooling.add(id(node))
                todo += [maker[id(tensor)] for tensor in node.input_tensors]
        for node in nodes:
            if isinstance(node.operation, keras.layers.BatchNormalization):
                norms += 1
                (tensor,) = node.input_tensors
                convolution = maker[id(tensor)].operation
                linear = getattr(convolution, "activation", None) in (None, keras.activations.linear)
                follows = isinstance(convolution, CONVOLUTIONS) and linear
                folds += follows and takers[id(tensor)] == 1 and id(node) not in before_pooling
    return folds, norms


@pytest.mark.parametrize("name", ["segnet", "segnet_aspp", "r2unet", "unet", "deeplabv3plus"])
def test_every_norm_of_a_real_model_that_can_be_folded_is(name):
    options = {"depth": 2} if "depth" in options_of(name) else {}
    model = kseg.build_model(name, (None, None, 3), 3, base_filters=2, **options)
    folding = serving.Serving(model).folding
    assert (folding.count, folding.norms) == foldable(model)
    assert folding.count > 1


def kinds(model, folding, pixels):
    """Return what a model gives in a graph of its own, and the types of the graph's operations."""
    spec = tf.TensorSpec((None, None, None, 3))

    def predict(images):
        with folding.applied():
            return model(images, training=False)

    folding.find(lambda images: model(images, training=False), spec)
    graph = tf.function(predict, autograph=False).get_concrete_function(spec)
    return graph(tf.constant(pixels)), [operation.type for operation in graph.graph.get_operations()]


@pytest.mark.parametrize("tensorflow", [True, False])
def test_a_convolution_of_a_doubled_map_is_one_transposed_convolution(tensorflow):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    conv = functools.partial(keras.layers.Conv2D, 4, 3, padding="same", bias_initializer="normal")
    double = keras.layers.UpSampling2D
    x = layers.BatchNormalization()(conv()(double()(image)))
    x = conv(activation="relu")(double()(x))  # without a norm
    twice = double()(x)
    x = keras.layers.Add()([conv()(twice), twice[..., :4]])  # the doubled map is used twice
    # None of these is one: two other upsamplings, four other convolutions.
    others = [conv()(double(3)(x)), conv()(layers.UpSampling2D(interpolation="bilinear")(x))]
    others.append(keras.layers.Conv2D(4, 1)(double()(x)))
    others.append(conv(dilation_rate=2)(double()(x)))
    others.append(conv(strides=2)(double()(x)))
    others.append(conv(groups=2)(double()(x)))
    model = keras.Model(image, [x, *others])
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    pixels = np.random.default_rng(0).uniform(size=(2, 7, 5, 3)).astype(np.float32)
    found, operations = kinds(model, Folding(tensorflow=tensorflow), pixels)
    assert operations.count("Conv2DBackpropInput") == (3 if tensorflow else 0)
    for one, expected in zip(found, model(pixels, training=False), strict=True):
        np.testing.assert_allclose(one, expected, rtol=2e-5)


@pytest.mark.parametrize("tensorflow", [True, False])
def test_wide_convolutions_are_several_narrow_ones_for_tensorflow(tensorflow):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    conv = functools.partial(keras.layers.Conv2D, bias_initializer="normal")
    x = layers.BatchNormalization()(conv(WIDE, 3, strides=2, padding="same", use_bias=False)(image))  # 4 parts
    x = conv(WIDE + 1, 3, padding="same", dilation_rate=2, activation="relu")(x)  # 5 parts, the last of one
    x = conv(WIDE, 1)(x)
    model = keras.Model(image, conv(WIDE - 1, 3)(x))
    pixels = np.random.default_rng(0).uniform(size=(2, 17, 14, 3)).astype(np.float32)
    found, operations = kinds(model, Folding(tensorflow=tensorflow), pixels)
    assert operations.count("Conv2D") == (4 + 5 + 1 + 1 if tensorflow else 4)
    np.testing.assert_allclose(found, model(pixels, training=False), atol=1e-5)


def test_a_convolution_before_positions_of_maxima_stays_as_it_is():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(WIDE, 3, padding="same")(keras.layers.UpSampling2D()(image))
    x, positions = layers.MaxPooling2DWithArgmax()(x)
    model = keras.Model(image, layers.MaxUnpooling2D()([x, positions]))
    _, operations = kinds(model, Folding(tensorflow=True), np.zeros((1, 4, 4, 3), np.float32))
    assert "Conv2DBackpropInput" not in operations and operations.count("Conv2D") == 1


@pytest.mark.parametrize(("portable", "count"), [(False, 4), (True, 0)])
def test_a_unet_doubles_by_transposed_convolutions_for_tensorflow_alone(portable, count):
    made = serving.Serving(kseg.build_model("unet", (None, None, 3), 3, base_filters=2), portable=portable)
    operations = made.function().get_concrete_function().graph.get_operations()
    assert [operation.type for operation in operations].count("Conv2DBackpropInput") == count


def test_converters_get_a_model_of_mixed_precision_in_float32_and_its_saved_model_stays_as_it_is(images, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy(before)
    same = serving.in_float32(model)
    assert {layer.compute_dtype for layer in same.layers} == {"float32"}
    assert all(np.array_equal(a, b) for a, b in zip(same.get_weights(), model.get_weights(), strict=True))
    path = written(model, "savedmodel", tmp_path, images)
    found = carried_table(path, EXPORTERS["savedmodel"].kind, REPORT)
    assert found["agreement"]["pixels"] == 1 and found["computed_in"] == "bfloat16"
    assert "| Numbers | float32, computed in bfloat16" in (path / "README.md").read_text()


@pytest.mark.parametrize(("package", "format"), [("tf2onnx", "onnx"), ("ai_edge_litert", "litert")])
def test_a_missing_package_is_named(package, format, model, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(kseg.InputError, match=rf"needs the package {package}.* 'kseg\[{format}\]'"):
        written(model, format, tmp_path, images)
    assert not list(tmp_path.iterdir())


def test_a_segnet_keeps_its_norms_up_to_the_last_positions():
    """Positions of maxima at near ties change with any rounding, so nothing before them is computed in another way."""
    image = keras.Input((None, None, 3))

    def unit(x, name):
        return layers.BatchNormalization(name=name)(keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x))

    x, first = layers.MaxPooling2DWithArgmax()(unit(image, "before"))
    x, second = layers.MaxPooling2DWithArgmax()(unit(x, "between"))
    x = unit(layers.MaxUnpooling2D()([unit(x, "after"), second]), "last")
    model = keras.Model(image, layers.MaxUnpooling2D()([x, first]))
    folding = Folding()
    folding.find(lambda x: model(x, training=False), tf.TensorSpec((None, 16, 24, 3)))
    assert (folding.norms, folding.count) == (4, 2)
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 1.5, weight.shape))
    pixels = np.random.default_rng(1).uniform(size=(1, 16, 24, 3)).astype(np.float32)
    with folding.applied():
        found = tf.function(lambda x: model(x, training=False), autograph=False)(pixels)
    expected = model(pixels, training=False)
    assert np.array_equal(np.equal(found, 0), np.equal(expected, 0))  # zeros are where no maximum was
    np.testing.assert_allclose(found, expected, rtol=2e-5)
