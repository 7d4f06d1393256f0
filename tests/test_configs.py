"""Every config: parsed as scripts/train.py parses it, built as it stands, and one training step of a narrow copy."""

import json
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.commands import flagfiles, train_command
from kseg.data.datasets import camvid, cityscapes
from kseg.losses import loss_terms
from kseg.models import MODELS, build_model, options_of
from kseg.settings import Settings, make_settings
from kseg.training.build import build_optimizer
from kseg.training.trainers import make_trainer

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.flags") if path.parent.name != "shared")
COMPARED = [name for name in MODELS if not name.endswith("_fischer2021")]  # those are the paper's own
NARROW = {"base_filters": 4}


@pytest.fixture
def parse():
    """A function that gives (model, builder's options, settings, data set) of a config, weights left out."""

    def forget():
        train_command.FLAGS.unparse_flags()
        for flag in train_command.FLAGS:
            train_command.FLAGS[flag].unparse()

    def parse(name):
        forget()
        train_command.FLAGS(["train.py", *flagfiles.expand_flagfiles([f"--flagfile={CONFIGS / name}"])])
        given = types.SimpleNamespace(**{flag: train_command.FLAGS[flag].value for flag in train_command.FLAGS})
        assert given.data_dir and given.workdir
        values = {field: getattr(given, field) for field in Settings.__dataclass_fields__}
        settings = make_settings(**values)
        options = json.loads(given.model_options)
        for option in ("base_filters", "encoder"):
            if getattr(given, option):
                options[option] = getattr(given, option)
        return given.model, options, settings, given.dataset

    return parse


@pytest.fixture
def eagerly():
    """A single step is not worth a graph."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _narrow(options):
    """Options of a narrow copy: an encoder that is no VGG16 or ResNet has a width of its own."""
    return {"decoder_filters": 16} if "encoder" in options else NARROW


def _classes(settings, dataset):
    infos = {"cityscapes": cityscapes.info, "camvid": camvid.info, "synthetic": cityscapes.info}
    return infos[dataset]().label_set(settings.label_set).num_classes


@pytest.mark.parametrize("name", NAMES)
def test_config_builds_and_takes_a_step(name, parse, eagerly):
    model, options, settings, dataset = parse(name)
    outputs = settings.num_outputs or _classes(settings, dataset)
    size = (None, None) if settings.crop else (settings.height, settings.width)
    full = build_model(model, (*size, 3), outputs, **(options | {"initializer": "zeros"}))  # zeros are fast to draw
    assert full.output_shape == (None, *size, outputs)

    if name.startswith("camvid/") and not options.keys() - NARROW.keys():
        return  # its narrow copy took a step in the config of its name, its recipe in camvid/segnet_aspp.flags
    seed = {"seed": 0} if "seed" in options_of(model) else {}
    narrow = build_model(model, (64, 64, 3), outputs, **(options | seed | _narrow(options)))
    before = [keras.ops.convert_to_numpy(weight) for weight in narrow.trainable_weights]
    trainer = make_trainer("one", settings.batch_size)
    trainer.build(narrow, build_optimizer(settings, 10), outputs, loss_terms(settings.loss))
    random = np.random.default_rng(0)
    batch = (max(settings.batch_size, 1), 64, 64)
    images = tf.constant(random.integers(0, 256, (*batch, 3), "uint8"))
    trainer.train_step(1, (images, tf.constant(random.integers(0, outputs, batch, "uint8"))))
    trainer.wait()
    assert trainer.logs()["loss"] > 0
    if settings.warmup_steps == 0:  # else the first step's rate may be 0
        after = [keras.ops.convert_to_numpy(weight) for weight in narrow.trainable_weights]
        assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_every_model_has_its_configs():
    for model in COMPARED:
        assert {f"{model}.flags", f"camvid/{model}.flags"} <= set(NAMES)
    paper = {f"fischer2021/{model}{text}.flags" for model in ("r2unet", "segnet_aspp") for text in ("", "_as_written")}
    assert paper <= set(NAMES)


def test_models_are_compared_like_for_like(parse):
    """On each dataset the configs differ in architecture, place, width and rate, in nothing else of the recipe."""
    own = {"learning_rate", "epochs"}
    for folder in ("", "camvid/"):
        recipes = {}
        for model in COMPARED:
            name, _, settings, _ = parse(f"{folder}{model}.flags")
            assert name == model
            recipes[model] = {key: value for key, value in vars(settings).items() if key not in own}
        assert all(recipe == recipes["segnet_aspp"] for recipe in recipes.values())
        if not folder:
            assert len({parse(f"{model}.flags")[2].epochs for model in COMPARED}) == 1


def test_the_paper_s_own_recipes_are_what_its_authors_did(parse):
    model, options, settings, _ = parse("fischer2021/r2unet.flags")
    assert model == "r2unet_fischer2021"
    assert (settings.label_set, settings.num_outputs, settings.batch_size) == ("fischer2021_r2unet", 34, 1)
    assert (settings.height, settings.width, settings.label_resize, settings.keep) == (512, 512, "smooth", "last")
    built = build_model(model, (64, 64, 3), 34, **(options | NARROW))
    applied = {layer["config"]["name"]: len(layer["inbound_nodes"]) for layer in built.get_config()["layers"]}
    assert applied["encoder1_conv1_bn"] == 3  # one batch norm for all steps
    model, options, settings, _ = parse("fischer2021/segnet_aspp.flags")
    assert (settings.label_set, settings.num_outputs, settings.batch_size) == ("all_ids", 35, 3)
    assert (settings.height, settings.width, settings.label_resize) == (256, 512, "nearest")
    assert settings.keep == "lowest_loss"
    built = build_model(model, (64, 64, 3), 35, **(options | NARROW))
    applied = {layer["config"]["name"]: len(layer["inbound_nodes"]) for layer in built.get_config()["layers"]}
    # By width (here 32, 16, 8, 4 for 512, 256, 128, 64): encoder 6 + 3 + 2 + 2, decoder 5 + 3 + 2 + 2 convolutions.
    assert [applied[f"norm_{width}"] for width in (32, 16, 8, 4)] == [11, 6, 4, 4]
    preprocess = built.get_layer("preprocess")
    assert preprocess.mean == (0, 0, 0) and preprocess.scale == (255, 255, 255)
    kernel = np.array(built.get_layer("decoder5_conv1").kernel)  # 3x3, 32 channels: uniform within 1 / sqrt(9 * 32)
    assert 0.9 < np.abs(kernel).max() * np.sqrt(9 * 32) <= 1
    options = parse("fischer2021/segnet_aspp_as_written.flags")[1]
    built = build_model(model, (64, 64, 3), 34, **(options | NARROW))
    transposed = [layer for layer in built.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert len(transposed) == 13 and "tail" not in [layer.name for layer in built.layers]
    model, options, settings, _ = parse("fischer2021/r2unet_as_written.flags")
    assert settings.crop == (512, 512) and options["head_activation"] == "relu"
