"""Networks with a pyramid of maps as encoders: backbones of KerasHub, built from their configuration, and one's own."""

import builtins

import keras
import numpy as np
import pytest
import tensorflow as tf
from encoding import close, with_scores

import kseg
from kseg.layers import Pyramid
from kseg.models import common, options_of
from kseg.models.backbones import encode, keras_hub_backbone, load_encoder
from kseg.models.pretrained.weights import encoder_layers

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype="uint8")
STRIDES = {"mit": [4, 8, 16, 32], "resnet": [4, 8, 16, 32], "csp_darknet": [2, 4, 8, 16, 32]}


def _backbone(kind, size=64, stages=4):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed: pip install -e '.[hub]'")
    keras.utils.set_random_seed(0)
    if kind == "mit":
        return hub.models.MiTBackbone(
            layerwise_depths=[1] * stages,
            num_layers=stages,
            layerwise_num_heads=[1, 1, 2, 2][:stages],
            layerwise_sr_ratios=[1] * stages,
            max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3, 3, 3][:stages],
            layerwise_strides=[4, 2, 2, 2][:stages],
            image_shape=(size, size, 3),
            hidden_dims=[4, 8, 8, 16][:stages],
        )
    if kind == "resnet":
        return hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64, 64, 64],
            stackwise_num_blocks=[1, 1, 1, 1],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="basic_block",
        )
    return hub.models.CSPNetBackbone(  # cspdarknet53, an eighth as wide
        stem_filters=4,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1, 1, 1, 1],
        stackwise_strides=[2, 2, 2, 2, 2],
        stackwise_num_filters=[8, 16, 32, 64, 128],
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0),
        block_type="dark_block",
        stage_type="csp",
        down_growth=True,
        stem_padding="same",
        stem_pooling=None,
    )


def _scores(backbone, shape=(64, 64, 3)):
    image, maps = encode(backbone, shape)
    x = common.logits(maps[32], 3, initializer="he_normal")
    x = kseg.layers.UpSampling2D(32, interpolation="bilinear", dtype="float32", name="upsampling")(x)
    return keras.Model(image, x, name="on_a_pyramid"), maps


@pytest.mark.parametrize("kind", STRIDES)
def test_a_backbone_gives_its_own_maps_trains_and_is_saved(kind, tmp_path):
    backbone = _backbone(kind)
    model, maps = _scores(backbone)
    assert list(maps) == STRIDES[kind]
    # The backbone's own maps of what `preprocess` makes of the images.
    features = keras.Model(backbone.input, list(backbone.pyramid_outputs.values()))
    expected = {64 // y.shape[1]: y for y in features(model.get_layer("preprocess")(IMAGES))}
    for stride, ours in zip(maps, keras.Model(model.input, list(maps.values()))(IMAGES), strict=True):
        close(ours, expected[stride], 1e-5)
    assert [layer.name for layer in encoder_layers(model)] == ["encoder_pyramid"]
    encoder = encoder_layers(model)[0].trainable_variables
    assert len(encoder) == len(model.trainable_variables) - 2  # all but those of the scores, each once
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(IMAGES, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert sum(gradient is not None and bool(np.abs(gradient).max() > 0) for gradient in gradients) > len(encoder) / 2
    keras.optimizers.SGD(0.01).apply_gradients(
        (gradient, variable)
        for gradient, variable in zip(gradients, model.trainable_variables, strict=True)
        if gradient is not None
    )
    model.get_layer("preprocess").label_set = {"name": "t", "classes": list("abc"), "palette": [[9, 9, 9]] * 3}
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(kseg.load_model(tmp_path / "model.keras")(IMAGES), model(IMAGES))
    kseg.export_saved_model(model, tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"](images=tf.constant(IMAGES))
    assert np.mean(served["labels"].numpy() == np.asarray(kseg.predict(model, list(IMAGES)))) > 0.99


@pytest.mark.parametrize("decoder", [name for name in kseg.MODELS if "encoder" in options_of(name)])
def test_every_decoder_learns_on_a_mix_transformer(decoder):
    """It has no map of stride 2 and cannot be dilated: the DeepLabs get one of three stages, which ends at 16."""
    backbone = _backbone("mit", stages=3 if decoder.startswith("deeplabv3") else 4)
    narrow = {} if decoder == "deeplabv3" else {"decoder_filters": 16}
    model = kseg.build_model(decoder, (64, 64, 3), 3, encoder=backbone, **narrow)
    labels = np.random.default_rng(1).integers(0, 3, (2, 64, 64))
    with tf.GradientTape() as tape:
        logits = model(IMAGES, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    assert logits.shape == (2, 64, 64, 3)
    encoder = {variable.path for variable in encoder_layers(model)[0].trainable_variables}
    gradients = zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True)
    found = {variable.path: gradient for variable, gradient in gradients}
    assert all(np.isfinite(gradient).all() for gradient in found.values() if gradient is not None)
    # What KerasHub puts behind the maps has none; of the decoder every variable has one.
    assert encoder <= found.keys() and not [path for path in found.keys() - encoder if found[path] is None]
    assert sum(found[path] is not None and np.abs(found[path]).max() > 0 for path in encoder) > len(encoder) / 2


def test_one_that_is_built_for_a_size_is_built_anew_for_another():
    backbone = _backbone("mit", 32)
    image, maps = encode(backbone, (64, 64, 3))
    model = keras.Model(image, list(maps.values()))
    assert maps[32].shape == (None, 2, 2, 16)
    for ours, theirs in zip(model.layers[-1].network.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # KerasHub's attention takes square maps alone.
    with pytest.raises(kseg.InputError, match=r"cannot take images of \(64, 96, 3\): "):
        encode(backbone, (64, 96, 3))
    with pytest.raises(kseg.InputError, match=r"cannot take images of \(None, None, 3\): "):
        encode(backbone, (None, None, 3))
    with pytest.raises(kseg.InputError, match="Mix Transformers take no other"):
        encode(backbone, (64, 96, 3))


def test_a_preset_folder_is_an_encoder(tmp_path):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed: pip install -e '.[hub]'")
    backbone = _backbone("resnet")
    backbone.save_to_preset(tmp_path / "preset")
    converter = hub.layers.ResNetImageConverter(image_size=(64, 64), scale=[0.02, 0.01, 0.04], offset=[-1.0, -2.0, 0.5])
    converter.save_to_preset(tmp_path / "preset")
    name = f"hub:{tmp_path / 'preset'}"
    backbone.save_to_preset(tmp_path / "alone")
    with pytest.raises(kseg.InputError, match="no converter .* both a backbone and its image converter were saved"):
        encode(f"hub:{tmp_path / 'alone'}", (64, 64, 3))
    model = with_scores((64, 64, 3), 3, encoder=name)
    # x * scale + offset = (x - mean) / deviation
    preprocess = model.get_layer("preprocess")
    assert preprocess.mean == pytest.approx((50, 200, -12.5)) and preprocess.scale == pytest.approx((50, 100, 25))
    given = backbone.get_weights()
    network = encoder_layers(model)[0].network
    assert any((a != b).any() for a, b in zip(network.get_weights(), given, strict=True))
    report = load_encoder(model, name, "preset")
    assert len(report["used"]) == len(given) and report["unused"] == []
    for ours, theirs in zip(network.get_weights(), given, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(kseg.InputError, match="the weights of its preset: encoder_weights='preset', got imagenet"):
        load_encoder(model, name, "imagenet")
    with pytest.raises(kseg.InputError, match="KerasHub gives no backbone for encoder hub:.*none: "):
        encode(f"hub:{tmp_path / 'none'}", (64, 64, 3))


def test_without_keras_hub_it_says_what_to_install(monkeypatch):
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "keras_hub":
            raise ImportError("No module named 'keras_hub'")
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(kseg.InputError, match=r"needs KerasHub: pip install 'kseg\[hub\]'"):
        encode("hub:mit_b0_ade20k_512", (64, 64, 3))


def _own(size=None):
    """A network of two maps, as one writes it without KerasHub."""
    image = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 4, strides=4, name="a")(image)
    y = keras.layers.Conv2D(6, 4, strides=4, name="b")(x)
    network = keras.Model(image, y, name="own")
    network.pyramid_outputs = {"P2": x, "P4": y}
    return network


def test_ones_own_network_is_an_encoder(tmp_path):
    network = _own()
    image, maps = encode(network, (32, 32, 3), output_stride=16)
    assert list(maps) == [4, 16] and maps[16].shape == (None, 2, 2, 6)
    model = keras.Model(image, [maps[4], maps[16]])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[-1], Pyramid)
    images = IMAGES[:, :32, :32]
    expected = network.pyramid_outputs["P2"], network.pyramid_outputs["P4"]
    reference = keras.Model(network.input, list(expected))(model.get_layer("preprocess")(images))
    for ours, again, theirs in zip(model(images), loaded(images), reference, strict=True):
        np.testing.assert_array_equal(ours, again)
        close(ours, theirs, 1e-6)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a"), ("P10", "P2"), ("P2", "P10")])
def test_of_several_maps_of_a_stride_the_last_given_counts(first, second):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 4, strides=4)(image)
    y = keras.layers.Conv2D(6, 1)(x)
    network = keras.Model(image, keras.layers.Conv2D(5, 8, strides=8)(y), name="own")
    for maps in ({first: x, second: y, "last": network.output}, [x, y, network.output]):
        network.pyramid_outputs = maps
        assert [value.shape[-1] for value in encode(network, (32, 32, 3))[1].values()] == [6, 5]


def test_maps_that_are_none_are_refused():
    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 32, strides=32)(image)
    network = keras.Model(image, x, name="own")
    for wrong, got in (
        (keras.layers.GlobalAveragePooling2D()(x), r"must be its maps \(B, H, W, C\), got shape \(None, 4\) as 'P6'"),
        (np.zeros((1, 2, 2, 4)), "must be its maps .* got ndarray as 'P6'"),
        (_own().pyramid_outputs["P2"], "must be maps of its own: "),
        (keras.layers.Permute((3, 1, 2))(x), "must have one stride, got 16 down and 32 across"),
    ):
        network.pyramid_outputs = {"P5": x, "P6": wrong}
        with pytest.raises(kseg.InputError, match=got):
            encode(network, (64, 64, 3))

    class Never(keras.Model):
        pass

    never_called = Never(name="never")
    never_called.pyramid_outputs = [x]
    with pytest.raises(kseg.InputError, match="must be a functional network of one input"):
        encode(never_called, (64, 64, 3))


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(
        kseg.InputError, match="own has maps of strides 4, 16 and cannot be dilated, but .* 32 is asked"
    ):
        encode(_own(), (32, 32, 3))
    with pytest.raises(kseg.InputError, match="Encoder own takes images of 64x64 alone, got input_shape"):
        encode(_own(64), (32, 32, 3), output_stride=16)
    plain = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 2, strides=2)], name="plain")
    with pytest.raises(
        kseg.InputError, match="Encoder plain must be a functional network of one input, with pyramid_outputs"
    ):
        encode(plain, (32, 32, 3))
    with pytest.raises(kseg.InputError, match="Encoder own came with its weights"):
        load_encoder(plain, _own(), "imagenet")
    with pytest.raises(kseg.InputError, match="Encoder own has its own widths"):
        encode(_own(), (32, 32, 3), output_stride=16, base_filters=8)
    with pytest.raises(kseg.InputError, match="Model 'plain' has no encoder hub:x"):
        keras_hub_backbone.load_preset(plain, "hub:x", "preset")
