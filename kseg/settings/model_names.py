"""The models by name, for what must know them without importing Keras. `kseg.models.MODELS` has the builders."""

import ast
import os
import pathlib

from kseg.io.errors import InputError, MissingFileError

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
_NO_OPTION = "name"  # a keyword of every builder: the model's own name


def options_in_source(name):
    """Return the names of the options that the builder of a model takes, as its source says.

    Args: `name`: a key of `MODEL_FILES`.
    """
    path = pathlib.Path(__file__).resolve().parents[1] / "models" / f"{MODEL_FILES[name]}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [keyword.arg for keyword in node.args.kwonlyargs if keyword.arg != _NO_OPTION]
    raise LookupError(f"{path} has no builder {name}.")


def check_model_name(name, models):
    """Raise InputError unless a name is one of the models."""
    if not isinstance(name, str) or name not in models:
        raise InputError(f"Unknown model {name!r}. Choose one of {', '.join(sorted(models))}.")


def check_weights_source(source):
    """Raise MissingFileError if the weights of an encoder are to come from a file that is not there."""
    if isinstance(source, str) and source not in ("", "imagenet", "preset") and not os.path.exists(source):
        raise MissingFileError(f"No encoder weights at {source}. Give 'imagenet', 'preset', or a file of weights.")


def check_model_options(name, options, known):
    """Raise InputError for an option that is not one of those known of a model."""
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"Model {name!r} has no option {', '.join(unknown)}. Its options are {', '.join(known)}.")
