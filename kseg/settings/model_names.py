"""The models by name, for what must know them without importing Keras. `kseg.models.MODELS` has the builders."""

import ast
import functools
import numbers
import os
import pathlib
import zipfile

from kseg.io.errors import InputError, MissingFileError, check_whole, is_whole
from kseg.io.files import reading
from kseg.io.text import did_you_mean

# The file of kseg/models in which each builder is. Builder and model have one name.
MODEL_FILES = {
    "unet": "unet",
    "runet": "unet",
    "resunet": "unet",
    "r2unet": "unet",
    "r2unet_fischer2021": "unet",
    "fcn32s": "fcn",
    "fcn16s": "fcn",
    "fcn8s": "fcn",
    "parsenet": "fcn",
    "segnet": "segnet",
    "segnet_aspp": "segnet",
    "segnet_aspp_fischer2021": "segnet",
    "deeplabv3": "deeplabv3",
    "deeplabv3plus": "deeplabv3plus",
    "fpn": "fpn",
    "segformer": "segformer",
}
ENCODER_NAMES = (
    "vgg16",
    "resnet50",
    "resnet101",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_v2_b0",
    "convnext_tiny",
)  # `kseg.models.backbones.ENCODERS` has what makes them
OPTION_FLAGS = ("base_filters", "encoder", "encoder_weights")  # options of builders that train has flags for
HUB = "hub:"  # before the name of a preset of KerasHub
WIDTH = 64  # base_filters of every builder where nothing else is said, and of the published weights
_HDF5, _HDF5_PLACES = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)  # where such a file may say what it is
_PICKLE = b"\x80"  # how PyTorch's files began before they were zip archives
COMPUTED = object()  # a default that the source computes
_LEAST = {"seed": 0, "steps": 0}  # of options that are whole numbers; the others begin at 1
_NO_OPTION = "name"  # a keyword of every builder: the model's own name


@functools.cache
def options_in_source(name):
    """Return the options that the builder of a model takes, as its source says: {name: default}, in its order.

    Args: `name`: a key of `MODEL_FILES`.
    Returns: dict; a default that is no literal is `COMPUTED`.
    """
    path = pathlib.Path(__file__).resolve().parents[1] / "models" / f"{MODEL_FILES[name]}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {keyword.arg: _literal(default) for keyword, default in pairs if keyword.arg != _NO_OPTION}
    raise LookupError(f"{path} has no builder {name}.")


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def size_multiple(name, options):
    """What height and width of a model's images must be multiples of, as its builder says, without building it.

    Args: `name`: a key of `MODEL_FILES`. `options`: of it, which `check_model_options` has judged.
    """
    options = {**options_in_source(name), **options}
    if "output_stride" in options:
        return options["output_stride"] if options["output_stride"] in (8, 16, 32) else 1  # no other can be built
    if options.get("encoder") or "depth" not in options:
        return 32
    levels = options["depth"] if is_whole(options["depth"]) else 5  # of the papers
    return 2**levels if MODEL_FILES[name] == "segnet" else 2 ** (levels - 1)  # the U-Nets' first level pools nothing


def check_model_name(name, models):
    """Raise InputError unless a name is one of the models."""
    if not isinstance(name, str) or name not in models:
        raise InputError(f"Unknown model {name!r}. Choose one of {', '.join(sorted(models))}.")


def is_hub(encoder):
    """Whether an encoder is a preset of KerasHub."""
    return isinstance(encoder, str) and encoder.startswith(HUB)


def check_encoder_name(encoder):
    """Raise InputError unless a text, or what stands in its place, names an encoder."""
    if encoder in ENCODER_NAMES or (is_hub(encoder) and encoder != HUB):
        return
    raise InputError(
        f"encoder must be one of {', '.join(ENCODER_NAMES)}, hub:PRESET or, in Python, a keras.Model with "
        f"pyramid_outputs, got {encoder!r}.{did_you_mean(str(encoder).lower(), ENCODER_NAMES)}"
    )


def check_encoder_options(options):
    """Raise InputError for an encoder, or weights for it, that cannot be, as far as it shows without Keras.

    Args: `options`: of a model; those of another type than they must have are not judged.
    """
    encoder = options.get("encoder")
    source = options.get("encoder_weights")
    if isinstance(encoder, str):
        check_encoder_name(encoder)
    if not isinstance(source, (str, os.PathLike)) or not source:
        return
    if is_hub(encoder) != (source == "preset"):
        raise InputError(
            f"encoder_weights 'preset' and an encoder hub:PRESET go together, got {os.fspath(source)!r} for encoder "
            f"{encoder or 'of the model itself'}."
        )
    width = options.get("base_filters", WIDTH)
    if source == "imagenet" and width != WIDTH:
        raise InputError(
            f"The published weights are those of base_filters {WIDTH}, got {width}. Leave out base_filters, or the "
            "weights."
        )
    if source not in ("imagenet", "preset"):
        _check_weights_file(os.path.expanduser(source))


def _check_weights_file(path):
    if not os.path.exists(path):
        raise MissingFileError(f"No encoder weights at {path}. Give 'imagenet', or a file of weights.")
    if os.path.isdir(path):
        raise InputError(f"The encoder weights must be a file, but {path} is a folder.")
    with reading(path), open(path, "rb") as file:
        head = file.read(_HDF5_PLACES[-1] + len(_HDF5))
    if not head:
        raise InputError(f"The file of encoder weights {path} is empty.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" in archive.namelist():
                raise InputError(f"{path} is a whole model, not an encoder's weights. Start from it with init_from.")
    elif not head.startswith(_PICKLE) and not any(head[place:].startswith(_HDF5) for place in _HDF5_PLACES):
        raise InputError(f"The encoder weights {path} must be Keras' HDF5 or a PyTorch state dict, but are neither.")


def check_model_options(name, options, known):
    """Raise InputError for an option that a model does not have, or whose value is not of the type of its default.

    Args: `options`: {name: value}. `known`: {name: default} of the model's options.
    """
    unknown = [option for option in options if option not in known]
    if unknown:
        others = [model for model in MODEL_FILES if unknown[0] in options_in_source(model)]
        having = f" Models with {unknown[0]} are {', '.join(others)}." if others else ""
        raise InputError(
            f"Model {name!r} has no option {', '.join(unknown)}.{having} Its options are "
            f"{', '.join(map(repr, known))}."  # in quotes, for not every one is a flag of a command
        )
    for option, value in options.items():
        _check_option(option, value, known[option])


def _check_option(option, value, default):
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{option} must be True or False, got {value!r}.")
    elif isinstance(default, int):
        check_whole(option, value, _LEAST.get(option, 1))
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
            raise InputError(f"{option} must be at least 0 and below 1, got {value!r}.")
    elif option in ("depth", "decoder_filters", "aspp_filters"):
        if value is not default:
            check_whole(option, value, 1)
    elif option in ("rates", "multi_grid"):
        whole = isinstance(value, (tuple, list)) and value and all(is_whole(one) and one >= 1 for one in value)
        if not whole and value != default:
            raise InputError(f"{option} must be a list of whole numbers of at least 1, got {value!r}.")
    elif option == "encoder_weights" and not isinstance(value, (str, os.PathLike)) and value is not default:
        raise InputError(f"{option} must be 'imagenet', the path of a file or None, got {value!r}.")
