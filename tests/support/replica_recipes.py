"""What one replica and two must agree in besides the loss: `replicas.py` calls `check` where two devices are."""

import keras
import numpy as np
import tensorflow as tf

from kseg import losses
from kseg.layers import BatchNormalization, Preprocess, UpSampling2D
from kseg.models.auxiliary_head import add_auxiliary_head
from kseg.settings import make_settings
from kseg.training.build import build_optimizer
from kseg.training.trainers import make_trainer

RATE = 0.05
CLIP = 0.05


def build(size=(16, 16), classes=3):
    """A model with the map that an auxiliary head is on, at half the image's size; its encoder is the layer `first`."""
    image = keras.Input((*size, 3))
    x = Preprocess((124, 116, 104), (60, 60, 60), multiple=2, name="preprocess")(image)
    x = BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, padding="same", name="first")(x))
    x = keras.layers.MaxPooling2D(name="block4_pool")(x)
    x = keras.layers.Conv2D(classes, 1, name="scores")(x)
    return keras.Model(image, UpSampling2D(2, interpolation="bilinear", dtype="float32")(x), name="small")


def _run(strategy):
    """Three steps of SGD, ignored pixels in the second replica's half, one layer frozen.

    Gives every variable of model, head and optimizer, the averages, and the weights' changes in the first step.
    """
    values = {"epochs": 3, "optimizer": "sgd", "learning_rate": RATE, "weight_decay": 0.1}
    settings = make_settings(**values, clip_norm=CLIP, freeze_encoder_epochs=1, mixed_precision="float16")
    trainer = make_trainer(strategy, 4)
    with trainer.scope():
        keras.utils.set_random_seed(0)
        model = build()
        encoder = model.get_layer("first").trainable_variables
        trained = add_auxiliary_head(model)
        trained.get_layer("auxiliary_dropout").rate = 0.0  # its masks are drawn for each replica's part
        optimizer = build_optimizer(settings, 3, 1, encoder)  # with loss scaling
    terms = losses.loss_terms("cross_entropy")
    trainer.build(
        model,
        optimizer,
        3,
        terms,
        auxiliary=trained,
        auxiliary_weight=0.4,
        frozen=encoder,
        frozen_steps=3,
        ema_momentum=0.5,
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 16, 16, 3), np.uint8)
    labels = random.integers(0, 3, (12, 16, 16), np.uint8)
    labels[2::4, 3:] = labels[3::4] = 255
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4, drop_remainder=True)
    before = [variable.numpy() for variable in trained.trainable_variables]
    for step, batch in enumerate(trainer.strategy.experimental_distribute_dataset(data), 1):
        trainer.train_step(step, batch)
        trainer.wait()
        if step == 1:
            names = [variable.name for variable in trained.trainable_variables]
            # Without the decay, w - rate * decay * w of kernels, the first step of SGD is rate * gradient.
            decayed = [old * (1 - RATE * 0.1) if n == "kernel" else old for n, old in zip(names, before, strict=True)]
            changes = [v.numpy() - old for v, old in zip(trained.trainable_variables, decayed, strict=True)]
            same = [np.array_equal(v.numpy(), old) for v, old in zip(trained.trainable_variables, before, strict=True)]
            assert same == [any(v is frozen for frozen in encoder) for v in trained.trainable_variables]
            moved = [change for change, still in zip(changes, same, strict=True) if not still]
    with trainer.averaged_weights():
        averages = [variable.numpy() for variable in model.variables]  # moving statistics too
    return [v.numpy() for v in (*trained.variables, *optimizer.variables)] + averages, moved


def check():
    """Clipping (of the sum over replicas), averages, a frozen layer and an auxiliary head: the same on 1 and 2."""
    (one, moved), (two, _) = (_run(strategy) for strategy in ("one", "mirrored"))
    length = np.sqrt(sum((change**2).sum() for change in moved))
    np.testing.assert_allclose(length, RATE * CLIP, rtol=1e-3)  # clipped: longer without
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
