"""The tables of encoder layers against keras.applications, and what the loader says of what does not fit."""

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import resnet as keras_resnet

from kseg.layers import Preprocess
from kseg.models.backbones import vgg
from kseg.models.pretrained import weights

RESNETS = {"resnet50": keras.applications.ResNet50, "resnet101": keras.applications.ResNet101}


def _encoder(base_filters=2):
    image = keras.Input((32, 32, 3))
    x = Preprocess((0, 0, 0), (1, 1, 1), name="preprocess")(image)
    return keras.Model(image, vgg.vgg16(x, base_filters, initializer="he_normal")["out"], name="narrow")


def _strip(path):
    """The file as Keras wrote it before groups had the names of their layers."""
    with h5py.File(path, "a") as file:

        def strip(_, item):
            item.attrs.pop("name", None)

        file.visititems(strip)


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_table_is_that_of_keras(name):
    model = RESNETS[name](weights=None, include_top=False, input_shape=(32, 32, 3))
    kinds = {keras.layers.Conv2D: "conv", keras.layers.BatchNormalization: "norm"}
    expected = {layer.name: kinds[type(layer)] for layer in model.layers if layer.weights}
    table = weights.ARCHITECTURES[name]
    assert {layer: kind for layer, (kind, _, _) in table["layers"].items()} == expected
    assert next(iter(table["layers"])) == "conv1_conv"
    file = f"resnet/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert table["files"] == {file: keras_resnet.WEIGHTS_HASHES[name][1]}


def test_resnet_needs_the_names_of_layers(tmp_path):
    # Its shortcuts make the order of groups ambiguous: equal shapes would hide an exchange.
    source = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    source.save_weights(tmp_path / "r.weights.h5")
    _strip(tmp_path / "r.weights.h5")
    with pytest.raises(ValueError, match="conv1_conv/kernel is missing; .*; and 315 more arrays. Give ResNet-50"):
        weights.load_encoder_weights(source, "resnet50", tmp_path / "r.weights.h5")
    (tmp_path / "r.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="resnet50 takes no PyTorch weights.*Give ResNet-50 as Keras' .h5"):
        weights.load_encoder_weights(source, "resnet50", tmp_path / "r.pth")


def test_vgg16_is_read_in_order_where_layers_have_no_names(tmp_path):
    source = _encoder()
    model = _encoder()
    source.save_weights(tmp_path / "v.weights.h5")
    _strip(tmp_path / "v.weights.h5")
    report = weights.load_encoder_weights(model, "vgg16", tmp_path / "v.weights.h5", keep_preprocess=True)
    assert len(report["used"]) == 26 and report["unused"] == []
    for i, (ours, theirs) in enumerate(zip(model.get_weights(), source.get_weights(), strict=True)):
        np.testing.assert_array_equal(ours, theirs if i else theirs[:, :, ::-1])  # to RGB order
    preprocess = model.get_layer("preprocess")
    assert (preprocess.mean, preprocess.scale) == ((0, 0, 0), (1, 1, 1))
    weights.load_encoder_weights(model, "vgg16", tmp_path / "v.weights.h5")
    assert (preprocess.mean, preprocess.scale) == (weights.CAFFE_MEAN, (1, 1, 1))


def test_moments_of_an_optimizer_are_not_taken_for_weights(tmp_path):
    source = _encoder()
    model = _encoder()
    names = [f"block{block}_conv{i}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        for name in names:
            for kind, value in zip(("kernel", "bias"), source.get_layer(name).get_weights(), strict=True):
                file[f"model_weights/{name}/narrow/{name}/{kind}"] = value
                file[f"optimizer_weights/adam/{name}/{kind}"] = np.zeros_like(value)
    report = weights.load_encoder_weights(model, "vgg16", tmp_path / "whole.h5")
    assert len(report["used"]) == len(report["unused"]) == 26
    np.testing.assert_array_equal(model.get_weights()[2], source.get_weights()[2])
    with h5py.File(tmp_path / "whole.h5", "a") as file:
        del file["model_weights/block1_conv2/narrow/block1_conv2/bias"]
    with pytest.raises(ValueError, match="block1_conv2/bias is missing"):
        weights.load_encoder_weights(model, "vgg16", tmp_path / "whole.h5")


def test_models_that_do_not_fit_are_errors(tmp_path):
    with pytest.raises(ValueError, match="architecture must be one of vgg16, resnet50, resnet101, got 'vgg19'"):
        weights.load_encoder_weights(_encoder(), "vgg19", "imagenet")
    text = "Model 'narrow' has no encoder resnet50: it lacks 106 of its layers, first 'conv1_conv'"
    with pytest.raises(ValueError, match=text):  # 53 convolutions, each with its batch norm
        weights.load_encoder_weights(_encoder(), "resnet50", "imagenet")
    with pytest.raises(FileNotFoundError, match="No encoder weights at .*none.h5.*VGG16 as Keras' .h5 or torchvision"):
        weights.load_encoder_weights(_encoder(), "vgg16", tmp_path / "none.h5")

    def unbiased(layer):
        options = {"use_bias": False} if layer.name == "block1_conv2" else {}
        return layer.__class__.from_config({**layer.get_config(), **options})

    model = keras.models.clone_model(_encoder(), clone_function=unbiased)
    _encoder().save_weights(tmp_path / "v.weights.h5")
    with pytest.raises(ValueError, match="'block1_conv2' has kernel, the file kernel, bias"):
        weights.load_encoder_weights(model, "vgg16", tmp_path / "v.weights.h5")
