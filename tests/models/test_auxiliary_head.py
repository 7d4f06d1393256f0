"""The auxiliary head: where it sits, and that only training has it. Its steps on replicas: replica_recipes.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import losses
from kseg.models import build_model
from kseg.models.auxiliary_head import add_auxiliary_head
from kseg.models.pretrained.weights import encoder_layers
from kseg.settings import make_settings
from kseg.training.build import training_parts
from kseg.training.trainers import make_trainer


@pytest.mark.parametrize(
    ("name", "options", "layer", "size"),
    [
        ("deeplabv3", {"encoder": "resnet50"}, "conv4_block6_out", 4),
        ("deeplabv3", {"encoder": "vgg16", "output_stride": 8}, "block4_pool", 8),
        ("fcn8s", {}, "block4_pool", 4),
        ("segnet_aspp", {}, "block4_pool", 4),  # whose pooling gives positions too
    ],
)
def test_the_head_is_on_the_map_that_the_paper_names(name, options, layer, size):
    model = build_model(name, (64, 64, 3), 3, base_filters=4, initializer="zeros", **options)
    before = [weight.path for weight in model.weights]
    trained = add_auxiliary_head(model)
    output = model.get_layer(layer).output
    assert trained.get_layer("auxiliary_conv").input is (output[0] if isinstance(output, list | tuple) else output)
    assert trained.get_layer("auxiliary_conv").input.shape[1:3] == (size, size)
    assert [tuple(output.shape) for output in trained.outputs] == [(None, 64, 64, 3)] * 2
    assert trained.outputs[0] is model.output
    assert [weight.path for weight in model.weights] == before  # the model has none of it
    assert not any(layer.name.startswith("auxiliary") for layer in model.layers)
    # And the encoder is what encoder_weights fills: in FCN with VGG16's dense layers, in no model its head.
    names = [layer.name for layer in encoder_layers(model)]
    assert (names[-1] == "fc7") == (name == "fcn8s") and not any(
        "logits" in n or "score" in n or "aspp" in n for n in names
    )
    assert len(names) == {"resnet50": 106, "vgg16": 13}.get(options.get("encoder"), 15 if name == "fcn8s" else 13)


def test_a_free_model_has_a_free_head():
    trained = add_auxiliary_head(build_model("fcn32s", (None, None, 3), 3, base_filters=1))
    main, auxiliary = trained(np.zeros((1, 32, 64, 3), "float32"))
    assert main.shape == auxiliary.shape == (1, 32, 64, 3)


def test_other_models_say_that_they_have_no_place_for_it_or_no_encoder():
    unet = build_model("unet", (32, 32, 3), 3, base_filters=1, depth=2)
    segnet = build_model("segnet", (32, 32, 3), 3, base_filters=1)
    three_blocks = build_model("segnet", (32, 32, 3), 3, base_filters=1, depth=3)
    for model in (unet, three_blocks):
        with pytest.raises(ValueError, match=f"an auxiliary head, one on VGG16 or a ResNet, got '{model.name}'"):
            add_auxiliary_head(model)
    with pytest.raises(ValueError, match="'unet' has no encoder"):
        encoder_layers(unet)
    assert [layer.name for layer in encoder_layers(segnet)][::12] == ["block1_conv1", "block5_conv3"]  # norms are not


@pytest.mark.parametrize("settings", [{"auxiliary_weight": 0.4}, {"freeze_encoder_epochs": 1}])
def test_what_another_backend_cannot_do_is_said(settings, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="need KERAS_BACKEND=tensorflow, got jax. Leave them out"):
        training_parts(None, make_settings(epochs=1, **settings), 1)


def test_the_loss_is_the_sum_of_both_by_weight():
    """On an untrained model, before any update: loss(weight) = main + weight * auxiliary."""
    model = build_model("fcn32s", (32, 32, 3), 3, base_filters=1, dropout=0.0)
    trained = add_auxiliary_head(model)
    trained.get_layer("auxiliary_dropout").rate = 0.0
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (2, 32, 32, 3), np.uint8))
    labels = tf.constant(random.integers(0, 3, (2, 32, 32), np.uint8))
    each = [float(losses.CrossEntropy()(labels, output)) for output in trained(images, training=True)]
    assert each[0] != pytest.approx(each[1], rel=1e-3)
    trainer = make_trainer("one", 2)
    terms = losses.loss_terms("cross_entropy")
    trainer.build(model, keras.optimizers.SGD(0.0), 3, terms, auxiliary=trained, auxiliary_weight=0.4)
    tf.config.run_functions_eagerly(True)
    try:
        trainer.train_step(1, (images, labels))
    finally:
        tf.config.run_functions_eagerly(False)
    trainer.wait()
    assert trainer.loss_sum == pytest.approx(each[0] + 0.4 * each[1], rel=1e-5)
