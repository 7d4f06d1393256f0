"""Scoring a run's weights, with pictures; and its end: scoring the weights of --keep, and exporting the model."""

import keras
import numpy as np

from kseg.evaluation.standard_protocol import score_batches
from kseg.export.export_model import QUICK_IMAGES, export_saved_model
from kseg.export.exported_facts import carried
from kseg.export.proof import ExportError
from kseg.export.proof_images import of_split
from kseg.inference.finite import image_names
from kseg.inference.loading import load_model
from kseg.inference.predictor import predictor
from kseg.io.files import writing
from kseg.layers.preprocessing import preprocess_layer
from kseg.models.costs import multiply_adds, parameters
from kseg.runs.model_card import CARD_FILE, run_card, write_card
from kseg.visualization.confusion_picture import draw_confusion_matrix
from kseg.visualization.label_maps import prediction_gallery


def draw_predictions(predict, source, path, images=6):
    """Draw a gallery (image | prediction | truth) of a few images of a split, evenly spread.

    Args:
        predict: of `kseg.inference.predictor.predictor`. source: of `open_split`. path: of the picture.
    """
    rows = []
    for index in np.unique(np.linspace(0, len(source) - 1, images).astype(int)):
        image, truth = source[int(index)]
        names = image_names(source.split.names, index, 1)
        rows.append((image, predict(image[np.newaxis], *truth.shape, names)[0], truth))
    prediction_gallery(rows, source.label_set.classes, source.label_set.palette, path)


def score(predict, split, workdir, interruption):
    """Return a predictor's scores on the validation split and the paths of the pictures drawn, by title."""
    pictures = {
        "image | prediction | truth": workdir / "predictions.png",
        "confusion matrix": workdir / "confusion.png",
    }
    with split.readable_errors():
        batches = interruption.watch(split.batches())
        scores = score_batches(
            predict,
            batches,
            split.label_set.classes,
            len(split),
            True,
            names=split.split.names,
            split=split.split.name,
        )
        draw_predictions(predict, split, workdir / "predictions.png")
    draw_confusion_matrix(scores, workdir / "confusion.png")
    return scores, pictures


def finish(folder, keep, train_split, val_split, interruption):
    """Score the file that --keep chose, draw, export; scores.json is written last and says that the run is done.

    Args:
        folder: RunFolder. keep: the setting. train_split, val_split: of `open_split`. interruption: Interruption.
    Returns:
        keras.Model, loaded from the file that was scored.
    """
    workdir = folder.workdir
    path = folder.kept_model(keep)
    model = load_model(path)
    scores, _ = score(predictor(model), val_split, workdir, interruption)
    print(f"\n{path.name} on the validation split:\n{scores}\n")
    interruption.check()
    if keras.backend.backend() == "tensorflow":
        _export(model, workdir / "saved_model", train_split, val_split)
    else:
        print(f"No SavedModel: {keras.backend.backend()} cannot write one. Run scripts/export.py under TensorFlow.")
    _write_card(folder, model, train_split, val_split, scores)
    with writing(workdir / "scores.json"):
        scores.to_json(workdir / "scores.json")
    folder.print_contents()
    return model


def _export(model, path, train_split, val_split):
    """Write the run's SavedModel, with the quick proof; a run does not fail where that does."""
    images = of_split(val_split, QUICK_IMAGES)
    try:
        export_saved_model(model, path, label_set=carried(train_split), images=images)
    except ExportError as error:
        print(f"No SavedModel: {error}")


def _write_card(folder, model, train_split, val_split, scores):
    stored = folder.stored()
    layer = preprocess_layer(model)
    height, width = (layer and layer.size) or model.input_shape[1:3]
    costs = {"parameters": parameters(model), "multiply_adds": None, "height": height, "width": width}
    if keras.backend.backend() == "tensorflow" and height and width:
        costs["multiply_adds"] = multiply_adds(model, (height, width, 3))
    normalization = (layer.mean, layer.scale) if layer else None
    text = run_card(stored, train_split, val_split, scores, costs, normalization=normalization)
    if not write_card(folder.workdir / CARD_FILE, text):
        print(f"{folder.workdir / CARD_FILE} is not kseg's model card and stays as it is.")
