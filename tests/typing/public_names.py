"""Every public name of kseg in use, as the README has it: `basedpyright` must find nothing here. It is never run.

A comment `pyright: ignore` marks what must be an error; one that is not needed is an error itself.
"""

import pathlib

import keras
import numpy as np
from typing_extensions import assert_type

import kseg
from kseg.metrics import SegmentationScores


def mine() -> keras.Model:
    images = keras.Input((160, 224, 3))
    features = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Conv2D(11, 1)(features))


def train_and_score() -> None:
    model, history = kseg.train(
        "segnet_aspp",
        "data/camvid",
        "runs/mine",
        epochs=10,
        height=160,
        width=224,
        batch_size=4,
        model_options={"base_filters": 16},
    )
    kseg.train(mine, pathlib.Path("data/camvid"), "runs/mine_too", epochs=10, callbacks=[keras.callbacks.Callback()])
    print(history[-1]["loss"] + 1.0)
    scores = kseg.evaluate(model, "data/camvid")
    assert_type(scores, kseg.metrics.Scores)
    print(scores, scores.mean_iou + 0.1, scores.per_class["Car"]["jaccard"] + 0.1, scores.confusion_matrix.shape)
    print(scores.accuracy, scores.sensitivity, scores.specificity, scores.f1, scores.jaccard, scores.micro["f1"])
    print(scores.pixel_accuracy, scores.images + 1, scores.scored_classes[0].upper(), scores.groups["0016E5"])
    scores.to_json("scores.json")
    print(kseg.metrics.Scores.from_json("scores.json").values()["mean_iou"])
    print(kseg.evaluate("runs/mine", "data/cityscapes", protocol="cityscapes").mean_iiou + 0.1)
    print(kseg.evaluate("runs/mine", "data/cityscapes", protocol="fischer2021").classes_per_image + 0.1)
    kseg.evaluate(model, [("photo.jpg", np.zeros((8, 8), np.uint8))])
    kseg.evaluate(
        model, kseg.load_dataset("data/camvid", "val"), group_by=None, tile=512, scales=(0.75, 1.0), flip=True
    )


def predict_and_ship(model: keras.Model) -> None:
    labels = kseg.predict(model, "photo.jpg")
    assert_type(labels, np.ndarray)
    labels, confidence = kseg.predict(model, "photo.jpg", flip=True, tile=1024, return_confidence=True)
    print(labels.shape, confidence.mean())
    labels, confidence, disagreement = kseg.predict(
        ["runs/a", model], "photo.jpg", return_confidence=True, return_disagreement=True
    )
    labels, disagreement = kseg.predict(["runs/a", model], b"bytes", return_disagreement=True)
    print(disagreement.max(), kseg.evaluate(["runs/a", model], "data/camvid").mean_iou)
    many = kseg.predict("runs/mine", ["a.jpg", pathlib.Path("b.jpg"), b"bytes", np.zeros((8, 8, 3), np.uint8)])
    print(many[0].shape)
    loaded = kseg.load_model("runs/mine")
    kseg.predict(loaded, pathlib.Path("photo.jpg"))
    assert_type(kseg.export_saved_model(model, "car_model"), pathlib.Path)
    assert_type(kseg.export_model(model, "car.onnx", format="onnx", quantize="float16"), pathlib.Path)
    honest, temperature = kseg.calibrate(model, "data/camvid")
    print(honest.name, temperature.value)
    manifest = kseg.prepare_dataset("folder", "mydata", "data/mydata", store_size=(256, 512))
    print(manifest.splits["val"].names)
    print(kseg.visualization.colorize(labels, [(128, 64, 128)]).shape)


def ordinary_keras_objects() -> None:
    model = kseg.build_model("segnet", (256, 512, 3), num_classes=19)
    model.compile("adam", loss=kseg.losses.CrossEntropy(), metrics=[SegmentationScores(19)])
    data = kseg.load_dataset("data/cityscapes", "train", height=256, width=512, batch_size=4, training=True)
    model.fit(data)
    kseg.MODELS["unet"]((None, None, 3), 19).summary()
    image = keras.Input((32, 32, 8))
    pooled, indices = kseg.layers.MaxPooling2DWithArgmax()(image)
    kseg.layers.MaxUnpooling2D()([pooled, indices])
    kseg.blocks.aspp(image, 64)
    print(kseg.losses.SegmentationLoss("cross_entropy+0.5*dice", class_weights=[1.0, 2.0]))
    print(kseg.metrics.SegmentationScores(19, average="micro", ignore_label=255).scores().mean_iou)
    print(kseg.settings.Augmentation(flip=True), kseg.data.__name__, kseg.models.options_of("unet"), kseg.__version__)


def which_is_better() -> None:
    try:
        found = kseg.compare(["runs/a", "runs/b"], "data/camvid", "report", group_by="drive")
    except kseg.InputError as error:
        raise SystemExit(str(error)) from error
    kseg.compare({"one": mine(), "two": "runs/b", "both": [mine(), "runs/b"]}, "data/camvid", "report", progress=True)
    print(found, found.names[0].upper(), found.scores[1].mean_iou)
    print(kseg.study("configs/studies/streets.toml", engine="local", equivalence=0.02).table["name"])


def mistakes(model: keras.Model) -> None:
    kseg.trian("unet", "data", "runs/x")  # pyright: ignore[reportAttributeAccessIssue]
    kseg.train("unet", "data")  # pyright: ignore[reportCallIssue]
    kseg.evaluate(model, "data").mean_ios  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    kseg.build_model("unet", (32, 32), 19)  # pyright: ignore[reportArgumentType]
    kseg.predict(model, 5)  # pyright: ignore[reportCallIssue, reportArgumentType]
    kseg.load_dataset("data", "val", batch_sise=2)  # pyright: ignore[reportCallIssue]
    kseg.metrics.SegmentationScores()  # pyright: ignore[reportCallIssue]
