"""Tiny things that several tests train on: a folder dataset, its records, and a model of a few hundred weights."""

import json

import numpy as np
from PIL import Image

CLASSES = [{"id": i, "name": name, "color": [90 * i, 50, 20]} for i, name in enumerate(("road", "car", "sky"))]
LABELS = {  # as a model carries them
    "name": "train_ids",
    "classes": [row["name"] for row in CLASSES],
    "palette": [row["color"] for row in CLASSES],
}
SETTINGS = {
    "epochs": 3,
    "batch_size": 2,
    "height": 32,
    "width": 64,
    "learning_rate": 0.01,
    "lr_schedule": "poly",
    "checkpoint_every_steps": 2,
}


def write_folder(root, train=7, val=5, size=(32, 48)):
    """A folder dataset whose labels follow from the images' brightness, smooth so that codecs agree."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (4, 6, 3), np.uint8))
            image = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))
            label = np.digitize(image.mean(-1), [90, 160]).astype(np.uint8)
            label[:2] = 255
            Image.fromarray(image).save(root / split / "images" / f"{split}_{i}.png")
            Image.fromarray(label).save(root / split / "labels" / f"{split}_{i}.png")
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return root


def write_records(root):
    """Records of `write_folder`, 7 training and 5 validation images, in two shards each."""
    from kseg.data.records.prepare import prepare_dataset

    prepare_dataset("folder", write_folder(root / "source"), root / "records", shards=2, workers=1, progress=False)
    return root / "records"


def build_tiny():
    """A model with everything that must be restored: batch norm, dropout's seed, pooling with indices."""
    import keras

    from kseg import layers

    image = keras.Input((32, 64, 3), name="image")
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), size=(32, 64), name="preprocess")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(x)
    x = keras.layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x, indices = layers.MaxPooling2DWithArgmax()(x)
    x = layers.MaxUnpooling2D()([keras.layers.Dropout(0.2, seed=3)(x), indices])
    return keras.Model(image, keras.layers.Conv2D(3, 1, dtype="float32", name="logits")(x), name="tiny")


def build_without_dropout():
    """`build_tiny` without dropout, whose masks are drawn for each replica's own part of the batch."""
    import keras

    model = build_tiny()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def brightness_model(input_shape=(None, None, 3), classes=3, multiple=1):
    """Gives logits that are largest for the class whose range of mean brightness a pixel lies in: 0..90..160..255."""
    import keras

    from kseg.layers import Preprocess

    image = keras.Input(input_shape)
    x = Preprocess((0, 0, 0), (1, 1, 1), multiple=multiple)(image)
    layer = keras.layers.Conv2D(classes, 1)
    model = keras.Model(image, layer(x))
    kernel = np.zeros((1, 1, 3, classes), np.float32)
    bias = np.zeros(classes, np.float32)
    kernel[..., :, 1] = 1 / 3  # m - 89.9; means are thirds, so there are no ties
    bias[1] = -89.9
    kernel[..., :, 2] = 2 / 3  # 2m - 249.8 overtakes it at 159.9
    bias[2] = -249.8
    layer.set_weights([kernel, bias])
    return model
