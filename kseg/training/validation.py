"""Scoring a run's weights, with pictures; and its end: scoring the weights of --keep, and exporting the model."""

import dataclasses

import keras
import numpy as np

from kseg.data.groups import shown_groups
from kseg.data.sampling import evenly_spread
from kseg.evaluation.standard_protocol import score_batches
from kseg.export.export_model import export_saved_model
from kseg.export.exported_facts import carried
from kseg.export.proof import ExportError
from kseg.export.proof_images import of_split
from kseg.export.writing import QUICK_IMAGES
from kseg.inference.finite import image_names
from kseg.inference.loading import load_model, with_label_set
from kseg.inference.predictor import predictor
from kseg.io.files import writing
from kseg.io.progress import QUIET_SECONDS, Waiting, progress_bar, say
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
    for index in evenly_spread(len(source), images):
        image, truth = source[int(index)]
        names = image_names(source.split.names, index, 1)
        rows.append((image, predict(image[np.newaxis], *truth.shape, names)[0], truth))
    prediction_gallery(rows, source.label_set.classes, source.label_set.palette, path)


def compile_predictor(predict, split, title):
    """Predict one image of a split, so that a predictor is compiled."""
    with split.readable_errors(), Waiting(f"{title}: compiling the prediction", after=QUIET_SECONDS):
        image, truth = split[0]
        predict(image[np.newaxis], *truth.shape, image_names(split.split.names, 0, 1))


def score(predict, split, workdir, interruption, title, groups=None):
    """Return a predictor's scores on the validation split and the paths of the pictures drawn, by title.

    title: of what is waited for. groups: of the images, to be scored too.
    """
    pictures = {
        "image | prediction | truth": workdir / "predictions.png",
        "confusion matrix": workdir / "confusion.png",
    }
    with split.readable_errors():
        with progress_bar(f"{title}: scoring", len(split), stays=False) as bar:
            scores = score_batches(
                predict,
                _counted(interruption.watch(split.batches()), bar),
                split.label_set.classes,
                len(split),
                names=split.split.names,
                groups=groups,
                split=split.split.name,
            )
        with Waiting(f"{title}: drawing", after=QUIET_SECONDS):
            draw_predictions(predict, split, workdir / "predictions.png")
            draw_confusion_matrix(scores, workdir / "confusion.png")
    if scores.out_of_range:
        say(f"WARNING: {scores.out_of_range} pixels have a label that is neither a class nor void.")
    return scores, pictures


def _counted(batches, bar):
    for batch in batches:
        yield batch
        bar.update(len(batch[0]))


def finish(folder, epochs, train_split, val_split, interruption):
    """Score the file that --keep chose, draw, export; scores.json is written last and says that the run is done.

    Args:
        folder: RunFolder. epochs: the run's loop, which has its settings, state, selection and log. train_split,
            val_split: of `open_split`. interruption: Interruption.
    Returns:
        keras.Model, loaded from the file that was scored.
    """
    workdir = folder.workdir
    path = folder.kept_model(epochs.settings.keep)
    with Waiting(f"loading {path.name}", after=QUIET_SECONDS):
        model = with_label_set(load_model(path), carried(train_split))
    predict = predictor(model)
    compile_predictor(predict, val_split, path.name)
    scores, _ = score(predict, val_split, workdir, interruption, path.name, _drives(val_split))
    row = epochs.selection.kept(epochs.state.history)
    scores = dataclasses.replace(scores, epoch=row["epoch"], step=row["step"])
    last = epochs.state.history[-1]["epoch"]
    print(f"\n{path.name} of epoch {scores.epoch} of {last} (step {scores.step}) on the validation split:\n{scores}\n")
    epochs.log.final(scores.step, scores)
    interruption.check()
    with Waiting("writing the model card", after=QUIET_SECONDS):
        card = _write_card(folder, model, train_split, val_split, scores)
    if keras.backend.backend() == "tensorflow":
        with Waiting("exporting saved_model", after=QUIET_SECONDS):
            _export(model, workdir / "saved_model", train_split, val_split, card)
    else:
        print(f"No SavedModel: {keras.backend.backend()} cannot write one. Export the run under TensorFlow.")
    with writing(workdir / "scores.json"):
        scores.to_json(workdir / "scores.json")
    folder.print_contents()
    return model


def _drives(split):
    """Return the groups of a split whose names show several drives, else None."""
    groups = shown_groups(split.split.names, split.manifest.drive)
    return groups if groups.unit == "drive" else None


def _export(model, path, train_split, val_split, card):
    """Write the run's SavedModel, with the quick proof; a run does not fail where that does. card: the run's."""
    images = of_split(val_split, QUICK_IMAGES)
    try:
        export_saved_model(model, path, label_set=carried(train_split), images=images, card=card)
    except ExportError as error:
        say(f"No SavedModel: {error}")


def _write_card(folder, model, train_split, val_split, scores):
    """Write the run's model card, and return it."""
    stored = folder.stored()
    layer = preprocess_layer(model)
    height, width = (layer and layer.size) or model.input_shape[1:3]
    costs = {"parameters": parameters(model), "multiply_adds": None, "height": height, "width": width}
    if height and width:
        multiple = layer.multiple if layer else 1
        padded = [-(-side // multiple) * multiple for side in (height, width)]
        costs["multiply_adds"] = multiply_adds(model, (*padded, 3))
    normalization = (layer.mean, layer.scale) if layer else None
    text = run_card(stored, train_split, val_split, scores, costs, normalization=normalization)
    if not write_card(folder.workdir / CARD_FILE, text):
        say(f"{folder.workdir / CARD_FILE} is not kseg's model card and stays as it is.")
    return text
