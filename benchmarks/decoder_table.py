"""What every decoder costs on every encoder, counted.

`python -m benchmarks.decoder_table` prints the table of docs/reference/decoders.md. Nothing is trained and nothing is
timed; it takes some minutes.
"""

import inspect

import keras

from kseg.io.errors import InputError
from kseg.models import MODELS, build_model, costs, options_of
from kseg.models.backbones import ENCODERS

SHAPE = (352, 480, 3)  # CamVid's 360x480 at the next multiple of 32, and its 11 classes, as in the suite `models`
CLASSES = 11
BACKENDS = "both"  # TensorFlow and JAX; no decoder or encoder needs one of them
DEEPEST = 32  # output stride of a builder without that option


def decoders():
    """The names of the models that take an encoder."""
    return [name for name in MODELS if "encoder" in options_of(name)]


def output_stride(decoder):
    """What its builder dilates the encoder to by default."""
    parameters = inspect.signature(MODELS[decoder]).parameters
    return parameters["output_stride"].default if "output_stride" in parameters else DEEPEST


def cost(decoder, encoder):
    """Trainable parameters and multiply-adds of an image, in words.

    Raises: InputError for an encoder that the decoder cannot have.
    """
    keras.backend.clear_session()
    model = build_model(decoder, SHAPE, CLASSES, encoder=encoder, initializer="zeros")  # zeros are fast to draw
    facts = costs.facts(model)
    return f"{facts['parameters'] / 1e6:.2f} M, {facts['multiply_adds'] / 1e9:.4g} G"


def table(names, encoders):
    """Give the lines of a Markdown table, a column per decoder, as they are counted; then why a cell is empty."""
    yield _line(["encoder", *(f"`{name}`" for name in names)])
    yield _line(["---"] * (len(names) + 1))
    yield _line(["output stride", *(str(output_stride(name)) for name in names)])
    yield _line(["backends", *(BACKENDS for _ in names)])
    reasons = []
    for encoder in encoders:
        row = [f"`{encoder}`"]
        for name in names:
            try:
                row.append(cost(name, encoder))
            except InputError as error:
                row.append("-")
                reasons.append(f"- `{name}` on `{encoder}`: {error}")
        yield _line(row)
    if reasons:
        yield ""
    yield from reasons


def _line(cells):
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for line in table(decoders(), ENCODERS):
        print(line, flush=True)
