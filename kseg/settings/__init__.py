"""Every setting of a training run, the grammar of `--loss`, and how flags.txt writes them. Imports no framework."""

from kseg.settings.flag_lines import current_options, flag_line, read_flag_line
from kseg.settings.loss_grammar import (
    CLASS_WEIGHTS,
    FOCAL_GAMMA,
    LOSSES,
    TOP_K_SHARE,
    Loss,
    parse_class_weights,
    parse_loss,
)
from kseg.settings.model_names import (
    COMPUTED,
    ENCODER_NAMES,
    HUB,
    MODEL_FILES,
    WIDTH,
    check_encoder_name,
    check_encoder_options,
    check_model_name,
    check_model_options,
    is_hub,
    options_in_source,
)
from kseg.settings.training_settings import GROUPS, Augmentation, Resize, Settings, make_settings, without_effect

__all__ = [
    "CLASS_WEIGHTS",
    "COMPUTED",
    "ENCODER_NAMES",
    "FOCAL_GAMMA",
    "GROUPS",
    "HUB",
    "LOSSES",
    "MODEL_FILES",
    "TOP_K_SHARE",
    "WIDTH",
    "Augmentation",
    "Loss",
    "Resize",
    "Settings",
    "check_encoder_name",
    "check_encoder_options",
    "check_model_name",
    "check_model_options",
    "current_options",
    "flag_line",
    "is_hub",
    "make_settings",
    "options_in_source",
    "parse_class_weights",
    "parse_loss",
    "read_flag_line",
    "without_effect",
]
