"""What every model of MODELS keeps: one parametrised test of each promise, on narrow networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scenes import make_camvid

import kseg
from kseg import blocks
from kseg.export.export_model import export_saved_model
from kseg.models import MODELS, build_model, common, options_of
from kseg.models.backbones import resnet
from kseg.settings import size_multiple

SIZE = (64, 64)
# Every model by its name (two levels of the U-Nets, since XLA compiles each layer), and those that take any encoder on
# VGG16 and on a ResNet.
CASES = {name: {"depth": 2} if "depth" in options_of(name) else {} for name in MODELS}
for _name in [name for name in MODELS if "encoder" in options_of(name)]:
    CASES[f"{_name}-vgg16"] = {"encoder": "vgg16"}
    if "depth" in options_of(_name):  # those of the others is a ResNet by default
        CASES[f"{_name}-resnet50"] = {"encoder": "resnet50"}
# What compiles or exports takes long: by default for one, with `-m slow` (as .ci/run has it) for every other model, on
# one encoder. A compiled step of every model is in test_as_users.py, the export of SegNet-ASPP in test_savedmodel.py.
the_others_slow = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case == "r2unet" else pytest.mark.slow)
        for case in (*MODELS, "deeplabv3-vgg16", "unet-resnet50")
    ],
    indirect=True,
)


def _build(case, size=SIZE, classes=3, **options):
    name = case.partition("-")[0]
    if "dropout" in options_of(name):
        options = {"dropout": 0.0, **options}
    return build_model(name, (*size, 3), classes, **{"base_filters": 4, **CASES[case], **options})


def _image(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """ResNets of six blocks: XLA compiles each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, "resnet50", (1, 1, 1, 3))
        yield


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def model(case):
    """With moving statistics that are not the initial ones."""
    keras.utils.set_random_seed(0)
    model = _build(case)
    model(_image(2, *SIZE, 3), training=True)
    return model


def test_shape_name_and_type(case, model):
    logits = model(_image(2, *SIZE, 3))
    assert model.name == case.partition("-")[0]
    assert logits.shape == (2, *SIZE, 3) and logits.dtype == "float32"
    assert model.layers[1].name == "preprocess" and model.get_layer("preprocess").size == SIZE
    # Training refuses other sizes before it imports what builds models.
    assert model.get_layer("preprocess").multiple == size_multiple(model.name, CASES[case])
    if not CASES[case] or "depth" in CASES[case]:
        assert build_model(model.name, (None, None, 3), 3, base_filters=1).get_layer("preprocess").multiple == (
            size_multiple(model.name, {})
        )
    with pytest.raises(ValueError, match=r"multiples of \d+, got 65x64. Choose a size that fits, such as"):
        _build(case, (65, 64))


def _gradients(model, images, labels):
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, model.trainable_variables)


@the_others_slow
def test_trains_under_xla_to_overfit_two_half_planes(case):
    """One image is split left and right, the other top and bottom; what tells the halves apart is brightness."""
    keras.utils.set_random_seed(0)
    model = _build(case, classes=2)
    labels = np.zeros((2, *SIZE), "int32")
    labels[0, :, 32:] = 1
    labels[1, 32:] = 1
    images = tf.constant((_image(2, *SIZE, 3) * 0.5 + 100 * labels[..., None]).astype("uint8"))
    start = model.get_weights()
    loss, gradients = _gradients(model, images, labels)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        # The bias of a convolution in front of a batch norm has no gradient by construction; all else has.
        if not variable.path.endswith("bias") or "logits" in variable.path or "score" in variable.path:
            assert np.abs(gradient).max() > 0, variable.path
    model.set_weights(start)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step():
        loss, gradients = _gradients(model, images, labels)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    assert float(step()) == pytest.approx(float(loss), rel=1e-3)
    for _ in range(99):
        step()
    # One batch norm for many convolutions fits in training mode; its moving statistics fit none of them (the trap).
    shared = case == "segnet_aspp_fischer2021"
    assert np.mean(np.argmax(model(images, training=shared), -1) == labels) > 0.95


def test_logits_are_float32_under_mixed_precision(case):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = _build(case)
    finally:
        keras.config.set_dtype_policy("float32")
    kernels = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert {"bfloat16"} <= {layer.compute_dtype for layer in kernels}
    assert model(_image(2, *SIZE, 3)).dtype == "float32"
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)


def test_free_size_equals_fixed(case, model):
    free = _build(case, (None, None))
    free.set_weights(model.get_weights())
    images = _image(2, *SIZE, 3)
    np.testing.assert_allclose(free(images), model(images), rtol=1e-4, atol=1e-4)
    assert free(_image(1, 64, 96, 3)).shape == (1, 64, 96, 3)


@the_others_slow
def test_saved_files_are_equal(case, model, tmp_path):
    images = _image(2, *SIZE, 3)
    label_set = {"name": "three", "classes": list("abc"), "palette": [[9, 9, 9]] * 3}
    model.get_layer("preprocess").label_set = label_set
    model.save(tmp_path / "model.keras")
    loaded = kseg.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    export_saved_model(model, tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"](images=tf.constant(images))
    probabilities = tf.nn.softmax(model(images)).numpy()
    np.testing.assert_allclose(served["confidence"], probabilities.max(-1), atol=5e-3)
    labels = served["labels"].numpy()
    assert np.mean(labels == kseg.predict(model, list(images))) > 0.999  # ties and rounding alone
    chosen = np.take_along_axis(probabilities, labels[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, probabilities.max(-1), atol=5e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_docstring_names_every_option(name):
    """`help(kseg.MODELS[name])` is where a user finds them; "as in" another builder leads to one that says more."""
    text = MODELS[name].__doc__
    assert [option for option in options_of(name) if f"`{option}`" not in text] == []


def stripes(input_shape, num_classes, *, base_filters=4, blur=1, name="stripes"):
    """A builder as one writes it. Args: `base_filters`: of its one convolution. `blur`: its height in pixels."""
    image, x = common.image_input(input_shape, 1)
    x = blocks.conv_bn_relu(x, base_filters, (blur, 1), name="blur")
    return keras.Model(image, common.logits(x, num_classes, initializer="he_normal"), name=name)


def test_a_new_model_is_one_builder_and_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "stripes", stripes)
    make_camvid(tmp_path / "camvid")  # scenes of 16x24
    kseg.prepare_dataset("camvid", tmp_path / "camvid", tmp_path / "records", workers=1, progress=False)
    model, history = kseg.train(
        "stripes",
        tmp_path / "records",
        tmp_path / "run",
        model_options={"blur": 3},
        epochs=1,
        batch_size=2,
    )
    assert model.name == "stripes" and model.get_layer("blur").kernel_size == (3, 1) and len(history) == 1
    assert kseg.evaluate(tmp_path / "run", tmp_path / "records").images == 2
    with pytest.raises(ValueError, match="has no option blurr. Its options are 'base_filters', 'blur"):
        build_model("stripes", (16, 24, 3), 2, blurr=3)
    with pytest.raises(ValueError, match="blur must be a whole number of at least 1, got 0"):
        build_model("stripes", (16, 24, 3), 2, blur=0)
    with pytest.raises(ValueError, match="Choose one of .*segnet_aspp_fischer2021, stripes, unet"):
        build_model("stripe", (16, 24, 3), 2)
