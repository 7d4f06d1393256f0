"""`kseg.load_model`: refuse what can be refused while Keras is not imported; then load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kseg.inference.model_paths import described_model
from kseg.io.files import StrPath

if TYPE_CHECKING:
    import keras

    from kseg.inference.label_model import LabelModel


def load_model(path: StrPath) -> keras.Model | LabelModel:
    """Load a run folder (the weights it kept), a .keras file, the seeds of a study, or a contestant from outside.

    A folder that holds runs seed-0, seed-1, ..., as OUTPUT/runs/MODEL/DATA of a study does, is the mean of their
    probabilities. From outside comes a SavedModel folder, an ONNX or TFLite file, or a folder of predicted label maps.
    Every export of kseg's is loaded into its own runtime, a web export into Chromium.
    hf://USER/NAME is any of them on the Hugging Face Hub (`kseg.inference.hub`). What they are is read from their
    content; what they do not show stands in a description (`kseg.inference.outside.description`).

    Args:
        path: str or path, of the model or of its description.
    Returns:
        keras.Model, or a `LabelModel`, which has no layers but evaluates alike.
    Raises:
        FileNotFoundError: nothing there. ValueError: not a model, a damaged file, or one of which more must be known.
    """
    described_model(path)
    from kseg.inference import loading

    return loading.load_model(path)
