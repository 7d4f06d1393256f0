"""The names of the models, for what must know them without importing Keras; `kseg.models.MODELS` has the builders."""

MODEL_NAMES = (
    "unet",
    "runet",
    "resunet",
    "r2unet",
    "r2unet_fischer2021",
    "fcn32s",
    "fcn16s",
    "fcn8s",
    "parsenet",
    "segnet",
    "segnet_aspp",
    "segnet_aspp_fischer2021",
    "deeplabv3",
    "deeplabv3plus",
    "fpn",
    "segformer",
)
