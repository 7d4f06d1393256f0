"""kseg, as it trains."""

import itertools

import keras
import tensorflow as tf

from benchmarks.peers import inputs, steps
from kseg import blocks, layers, losses
from kseg.data.augmentation.plan import epoch_plan
from kseg.data.pipeline.load import open_split
from kseg.evaluation.standard_protocol import evaluate_standard
from kseg.inference.predict import predict
from kseg.layers import pooling
from kseg.models import build_model, costs
from kseg.settings import Augmentation, Resize
from kseg.training.optimizers import make_optimizer
from kseg.training.trainers import make_trainer

versions = steps.versions


def pool_pair(shape):
    """2x2 max pooling with positions, then unpooling by them; forward and backward."""
    pool = layers.MaxPooling2DWithArgmax()
    unpool = layers.MaxUnpooling2D()
    return steps.gradient_run(lambda x: unpool(pool(x, training=True), training=True), inputs.maps(shape)), {}


def batch_norm(shape):
    """Batch normalisation in training and ReLU; forward and backward."""
    norm = layers.BatchNormalization()
    relu = keras.layers.ReLU()
    return steps.gradient_run(lambda x: relu(norm(x, training=True)), inputs.maps(shape), norm), {}


def aspp(shape, filters):
    """ASPP with its projection, no dropout; forward and backward."""
    x = keras.Input(shape[1:])
    model = keras.Model(x, blocks.aspp(x, filters, dropout=0.0))
    return steps.gradient_run(lambda x: model(x, training=True), inputs.maps(shape), model), costs.facts(model)


def train_step(precision, batch, height, width, num_classes, base_filters):
    """SegNet-ASPP: cross entropy, backward, Adam."""
    options = {"base_filters": base_filters}
    return model_step("segnet_aspp", options, precision, batch, height, width, num_classes)


def model_step(model, options, precision, batch, height, width, num_classes):
    """The same of any model of kseg, by its builder's options."""
    steps.set_precision(precision)
    model = build_model(model, (height, width, 3), num_classes, **options)
    facts = costs.facts(model)
    loss = losses.CrossEntropy()
    return steps.train_run(model, loss, *inputs.scene(batch, height, width, num_classes)), facts


def loop_step(model, options, batch, height, width, num_classes, remat=False, accumulate_steps=1, without=""):
    """A step of kseg's own training loop (float32, Adam), as its settings `remat` and `accumulate_steps` make it.

    without: "pooling islands", the XLA computations of `kseg.layers.pooling`; or "Adam's function", for which the rule
    is written out for each variable as in Keras.
    """
    if without == "pooling islands":
        pooling.compiles = lambda *_: False
    trainer = make_trainer("one", batch, accumulate_steps=accumulate_steps)
    with trainer.scope():
        model = build_model(model, (height, width, 3), num_classes, **options)
        optimizer = keras.optimizers.Adam(1e-3) if without == "Adam's function" else make_optimizer("adam", 1e-3)
    trainer.build(model, optimizer, num_classes, losses.loss_terms("cross_entropy"))
    if remat:
        trainer.rematerialize((height, width))
    batch = [tf.constant(array) for array in inputs.scene(batch, height, width, num_classes)]

    def run():
        trainer.train_step(1, batch)
        trainer.wait()
        return trainer.loss_sum / trainer.steps

    return run, {"parameters": costs.parameters(model)}


def training_loop(model, base_filters, batch, height, width, num_classes, records):
    """Steps as training makes them: read from records, while a tf.data iterator lives."""
    source = open_split(records, "train")
    trainer = make_trainer("one", batch)
    with trainer.scope():
        built = build_model(model, (height, width, 3), num_classes, base_filters=base_filters)
        optimizer = keras.optimizers.Adam(1e-3)
    trainer.build(built, optimizer, num_classes, losses.loss_terms("cross_entropy"))

    def plans():
        for epoch in itertools.count():
            yield epoch_plan(len(source), batch, 0, epoch, Augmentation())

    batches = trainer.batches(source, plans, batch, Resize(height, width))
    numbers = itertools.count(1)

    def run():
        trainer.train_step(next(numbers), next(batches))
        trainer.wait()

    return run, {"parameters": costs.parameters(built)}


def evaluation(model, base_filters, height, width, num_classes, records):
    """The scores of the validation split."""
    source = open_split(records, "val")
    built = build_model(model, (height, width, 3), num_classes, base_filters=base_filters)
    return lambda: evaluate_standard(built, source), {"images": len(source)}


def prediction(model, options, height, width, num_classes):
    """The classes of one image in memory, as `kseg.predict` finds them: normalised, at the image's size."""
    built = build_model(model, (None, None, 3), num_classes, **options)
    image = inputs.scene(1, height, width, num_classes)[0][0]
    return lambda: predict(built, image), {"parameters": costs.parameters(built)}


CASES = {
    "pool_pair": pool_pair,
    "batch_norm": batch_norm,
    "aspp": aspp,
    "train_step": train_step,
    "model_step": model_step,
    "loop_step": loop_step,
    "training_loop": training_loop,
    "evaluation": evaluation,
    "prediction": prediction,
}
