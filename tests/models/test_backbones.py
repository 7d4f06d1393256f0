"""Encoders by name: their maps against the networks they come from, dilated against strided, saved and trained."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from encoding import SHORT, build, by_layer, close, names_of, randomize, with_scores

import kseg
from kseg import settings
from kseg.layers import BatchNormalization
from kseg.models import common
from kseg.models.backbones import ENCODERS, efficientnet_lite, encode, layerwise, resnet
from kseg.models.pretrained.weights import PREFIX, encoder_layers

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype="uint8")
LITES = tuple(efficientnet_lite.SCALES)
# The layers of keras.applications whose outputs are the maps, by stride.
APPLICATIONS = {
    "mobilenet_v2": (
        "MobileNetV2",
        {
            2: "expanded_conv_project_BN",
            4: "block_2_add",
            8: "block_5_add",
            16: "block_12_add",
            32: "block_16_project_BN",
        },
    ),
    "mobilenet_v3_large": (
        "MobileNetV3Large",
        {
            2: "expanded_conv_add",
            4: "expanded_conv_2_add",
            8: "expanded_conv_5_add",
            16: "expanded_conv_11_add",
            32: "expanded_conv_14_add",
        },
    ),
    "efficientnet_v2_b0": (
        "EfficientNetV2B0",
        {2: "block1a_project_activation", 4: "block2b_add", 8: "block3b_add", 16: "block5e_add", 32: "block6h_add"},
    ),
    "convnext_tiny": (
        "ConvNeXtTiny",
        {
            4: "convnext_tiny_downsampling_layernorm_0",
            8: "convnext_tiny_downsampling_layernorm_1",
            16: "convnext_tiny_downsampling_layernorm_2",
            32: "layer_normalization",
        },
    ),
}
# The ends of Lite's stages: blocks of 1, 2, 2, 3, 3, 4, 1, those between the first and the last times 1.1 or 1.2, up.
LITE_MAPS = {
    "efficientnet_lite0": ("block0_project_bn", "block2_add", "block4_add", "block10_add", "block15_project_bn"),
    "efficientnet_lite1": ("block0_project_bn", "block3_add", "block6_add", "block14_add", "block20_project_bn"),
    "efficientnet_lite2": ("block0_project_bn", "block3_add", "block6_add", "block14_add", "block20_project_bn"),
}
TAKEN_OVER = [*LITES, *APPLICATIONS]


def _application(name):
    """Keras' own network as its users call it: (function from RGB 0..255 to the maps, its arrays by layer)."""
    builder, layers = APPLICATIONS[name]
    network = getattr(keras.applications, builder)(weights=None, include_top=False, input_shape=(64, 96, 3))
    randomize(network)
    adds = [operation for operation in network.operations if type(operation).__name__ == "Add"]
    outputs = []
    for stride, layer in layers.items():
        if name != "convnext_tiny":
            outputs.append(network.get_layer(layer).output)
        elif stride < 32:  # the layer norm before a stage's downsampling is in a layer; stages have 3, 3, 9, 3 blocks
            end = adds[{4: 3, 8: 6, 16: 15}[stride] - 1].output
            inner = network.get_layer(f"convnext_tiny_downsampling_block_{(4, 8, 16).index(stride)}")
            outputs.append(inner.layers[0](end))
        else:
            outputs.append(network.output)
    maps = keras.Model(network.input, outputs)
    prepare = np.float32
    if name == "mobilenet_v2":  # the others have their preprocessing in them

        def prepare(images):
            return keras.applications.mobilenet_v2.preprocess_input(images.astype("float32"))

    return (lambda images: maps(prepare(images))), by_layer(network)


def test_the_names_that_refusals_know_without_keras_are_those_of_the_encoders():
    assert tuple(ENCODERS) == settings.ENCODER_NAMES


@pytest.mark.parametrize("name", APPLICATIONS)
def test_maps_of_an_application_are_keras_own(name):
    reference, arrays = _application(name)
    model, strides = build(name, (64, 96, 3), initializer="zeros")
    layers = APPLICATIONS[name][1]
    assert strides == list(layers) and names_of(model) == [PREFIX + layer for layer in layers.values()]
    for layer in encoder_layers(model):
        layer.set_weights(arrays[layer.name.removeprefix(PREFIX)])
    head = 0 if name == "convnext_tiny" else 2  # the classifier's 1x1 convolution and its batch norm
    assert len(encoder_layers(model)) == len(arrays) - head
    for stride, ours, theirs in zip(strides, model(IMAGES), reference(IMAGES), strict=True):
        assert ours.shape[1:3] == (64 // stride, 96 // stride)
        close(ours, theirs)


@pytest.mark.parametrize("name", LITES)
def test_lite_is_what_the_paper_says(name):
    model, strides = build(name, (64, 96, 3), initializer="zeros")
    assert strides == [2, 4, 8, 16, 32] and names_of(model) == [PREFIX + layer for layer in LITE_MAPS[name]]
    # Without the head's 1x1 convolution and batch norm and the classifier: 4,652,008, 5,416,680 and 6,092,072
    # parameters (TensorFlow's README gives 4.7, 5.4 and 6.1 million). Lite2's last stage has 352 channels.
    whole = {"efficientnet_lite0": 4_652_008, "efficientnet_lite1": 5_416_680, "efficientnet_lite2": 6_092_072}[name]
    last = 352 if name == "efficientnet_lite2" else 320
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == whole - (last * 1280 + 2 * 1280) - (1280 * 1000 + 1000)
    depthwise = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert [layer.kernel_size[0] for layer in depthwise if layer.strides == (2, 2)] == [3, 5, 3, 5]
    assert {layer.max_value for layer in model.layers if isinstance(layer, keras.layers.ReLU)} == {6}
    assert model.get_layer("preprocess").mean == (127,) * 3 and model.get_layer("preprocess").scale == (128,) * 3


def _same_weights(model, other):
    arrays = by_layer(other)
    for layer in encoder_layers(model):
        layer.set_weights(arrays[layer.name])


# Of EfficientNet-Lite one: the networks differ in widths and depths alone. The largest take their time.
DILATED = ["vgg16", "resnet50", "efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_large"]
DILATED += [pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet_v2_b0", "convnext_tiny")]


@pytest.mark.parametrize("name", DILATED)
def test_dilation_keeps_what_stride_skips(name, monkeypatch):
    monkeypatch.setitem(resnet.BLOCKS, "resnet50", (1, 2, 2, 3))
    options = {}
    if not ENCODERS[name].network:
        options["base_filters"] = 4
    keras.utils.set_random_seed(2)
    strided, strides = build(name, (64, 96, 3), **options)
    randomize(strided)
    expected = dict(zip(strides, strided(IMAGES), strict=True))
    for output_stride, step in ((16, 2), (8, 4)):
        dilated, kept = build(name, (64, 96, 3), output_stride=output_stride, initializer="zeros", **options)
        assert kept == [stride for stride in strides if stride <= output_stride]
        if ENCODERS[name].network:
            _same_weights(dilated, strided)
        else:
            dilated.set_weights(strided.get_weights())
        maps = dict(zip(kept, dilated(IMAGES), strict=True))
        assert maps[output_stride].shape[1:3] == (2 * step, 3 * step)
        close(maps[output_stride][:, ::step, ::step], expected[32], 1e-3)  # rounding grows with depth
        for stride in kept[:-1]:
            close(maps[stride], expected[stride])


def test_maps_of_vgg_and_resnet_are_the_deepest_of_their_stride():
    model, strides = build("vgg16", (32, 32, 3), base_filters=2)
    assert strides == [2, 4, 8, 16, 32]
    convolutions = ["block2_conv2_relu", "block3_conv3_relu", "block4_conv3_relu", "block5_conv3_relu"]
    assert names_of(model) == [*convolutions, "block5_pool"]
    model, strides = build("vgg16", (32, 32, 3), base_filters=2, output_stride=8)
    assert strides == [2, 4, 8] and names_of(model) == [*convolutions[:2], "block5_pool"]
    model, strides = build("resnet50", (32, 32, 3), base_filters=2, output_stride=16)
    assert strides == [2, 4, 8, 16]
    assert names_of(model) == ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv5_block3_out"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v3_large"])
def test_names_stay_the_same_in_a_process_and_sizes_may_be_free(name):
    fixed, _ = build(name, (64, 96, 3), output_stride=16, initializer="he_normal")
    free, _ = build(name, (None, None, 3), output_stride=16, initializer="zeros")
    assert [layer.name for layer in free.layers] == [layer.name for layer in fixed.layers]
    free.set_weights(fixed.get_weights())
    for ours, theirs in zip(free(IMAGES), fixed(IMAGES), strict=True):
        close(ours, theirs)
    norms = [layer for layer in fixed.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(type(layer) is BatchNormalization and layer.momentum == 0.9 for layer in norms)
    assert {layer.epsilon for layer in norms} == {1e-3}


def test_depthwise_kernels_begin_by_their_own_fan_in():
    keras.utils.set_random_seed(0)
    image, maps = encode("efficientnet_lite0", (32, 32, 3))
    model = keras.Model(image, maps[32])
    # He: variance 2 over the inputs of a value, 5 * 5 of a depthwise kernel, whatever the number of channels.
    kernel = model.get_layer(f"{PREFIX}block14_depthwise").kernel.numpy()
    assert kernel.shape == (5, 5, 1152, 1) and kernel.std() == pytest.approx(np.sqrt(2 / 25), rel=0.03)


def test_what_cannot_be_is_refused_in_a_line():
    with pytest.raises(kseg.InputError, match="must be one of vgg16, .*convnext_tiny, hub:PRESET or.* got 'vgg19'"):
        encode("vgg19", (32, 32, 3))
    with pytest.raises(kseg.InputError, match="encoder must be one of .* got 3"):
        encode(3, (32, 32, 3))
    with pytest.raises(kseg.InputError, match=r"Encoder mobilenet_v2 has its own widths, got base_filters 32\. Leave"):
        encode("mobilenet_v2", (32, 32, 3), base_filters=32)
    with pytest.raises(kseg.InputError, match="output_stride must be one of 8, 16, 32, got 4"):
        encode("mobilenet_v2", (32, 32, 3), output_stride=4)
    with pytest.raises(kseg.InputError, match="multiples of 16, got 40x32"):
        encode("mobilenet_v2", (40, 32, 3), output_stride=16)
    image, x = common.image_input((256, 256, 3), 16)
    source = keras.Input((256, 256, 3))
    y = keras.layers.Conv2D(2, 3, strides=16, padding="same")(source)
    y = keras.layers.MaxPooling2D(2, name="pool")(y)
    network = keras.Model(source, keras.layers.Conv2D(2, 3)(y))
    with pytest.raises(kseg.InputError, match="Encoder own cannot be dilated to output stride 16: its layer 'pool'"):
        layerwise.take_over(network, image, x, output_stride=16, initializer="zeros", encoder="own")
    image = keras.Input((32, 32, 3))
    head = keras.Model(image, keras.layers.Conv2D(2, 1, name="only")(image))
    with pytest.raises(kseg.InputError, match="has no encoder"):
        encoder_layers(head)


# One of them by default, short; the others with `-m slow`.
SLOW = [name if name == "efficientnet_lite0" else pytest.param(name, marks=pytest.mark.slow) for name in TAKEN_OVER]


@pytest.mark.parametrize("name", SLOW)
def test_it_trains_in_bfloat16_and_is_saved_and_exported(name, tmp_path, monkeypatch):
    if name == "efficientnet_lite0":
        monkeypatch.setattr(efficientnet_lite, "STAGES", SHORT)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = with_scores((64, 64, 3), 3, encoder=name, output_stride=16)
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype="uint8")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, keras.layers.Conv2D)} >= {"bfloat16"}
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        # The bias of a squeeze's dead ReLU has none; every kernel has.
        assert not variable.path.endswith("kernel") or np.abs(gradient).max() > 0, variable.path
    keras.optimizers.SGD(0.01).apply(gradients, model.trainable_variables)
    model.get_layer("preprocess").label_set = {"name": "t", "classes": list("abc"), "palette": [[9, 9, 9]] * 3}
    model.save(tmp_path / "model.keras")
    loaded = kseg.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    assert [layer.name for layer in encoder_layers(loaded)] == [layer.name for layer in encoder_layers(model)]
    kseg.export_saved_model(model, tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"](images=tf.constant(images))
    labels = np.asarray(kseg.predict(model, list(images)))
    assert np.mean(served["labels"].numpy() == labels) > 0.99  # ties and rounding alone


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN_OVER)
def test_it_trains_without_tensorflow(name, root, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (pip install -e '.[test]')")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "tests" / "programs" / "encoders_on_jax.py"), str(tmp_path), name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == "jax" and np.isfinite(found[name]["loss"]) and found[name]["same"]
    assert found[name]["changed"] > 0.9  # all but biases of dead units
