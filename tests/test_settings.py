"""What a setting may be: the type of its field, finite, in Python as on the command line."""

import functools
import math
import pathlib

import numpy as np
import pytest
import tiny

import kseg
from kseg.settings import Augmentation, Resize, Settings, make_settings, without_effect
from kseg.training.arguments import check_model
from kseg.training.schedules import Schedule, learning_rate


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flip", "False", "flip must be True or False, got 'False'"),
        ("flip", 1, "flip must be True or False, got 1"),
        ("batch_size", 2.0, "batch_size must be a whole number, got 2.0"),
        ("batch_size", True, "batch_size must be a whole number, got True"),
        ("batch_size", None, "batch_size must be a whole number, got None"),
        ("height", "32", "height must be a whole number or None, got '32'"),
        ("epochs", 2.5, "epochs must be a whole number, got 2.5"),
        ("epochs", "3", "epochs must be a whole number, got '3'"),
        ("epochs", np.float64(3), r"epochs must be a whole number, got np.float64\(3.0\)"),
        ("seed", [1], r"seed must be a whole number, got \[1\]"),
        ("learning_rate", math.inf, "learning_rate must be a finite number, got inf"),
        ("learning_rate", math.nan, "learning_rate must be a finite number, got nan"),
        ("learning_rate", 10**400, "learning_rate must be a finite number, got 1000"),
        ("learning_rate", "0.1", "learning_rate must be a finite number, got '0.1'"),
        ("clip_norm", True, "clip_norm must be a finite number, got True"),
        ("brightness", 9, "brightness must be at most 1.0, got 9.0"),
        ("hue", 0.6, "hue must be at most 0.5, got 0.6"),
        ("lr_drop_epochs", [30, 60], r"lr_drop_epochs must be text such as '30,60,90', got \[30, 60\]"),
        ("class_weights", (1, 2), r"class_weights must be text such as '1,2,0.5', got \(1, 2\)"),
        ("loss", ["dice"], r"loss must be text such as 'cross_entropy\+0.5\*dice', got \['dice'\]"),
        ("label_set", None, "label_set must be text, got None"),
        ("optimizer", ["adam"], r"optimizer must be text, got \['adam'\]"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, message):
    with pytest.raises(kseg.InputError, match=message):
        make_settings(**{"epochs": 1, name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale_max": 1e9}, "scale_max must be at most 16.0, got 1000000000.0"),
        ({"scale_min": 17, "scale_max": 18}, "scale_min must be at most 16.0, got 17.0"),
        ({"batch_size": 2**16 + 1}, "batch_size must be at most 65536, got 65537"),
        # 8192 x 8192 are 67,108,864 pixels, the most that an image may have.
        ({"height": 8192, "width": 8193}, "height times width must be at most 67,108,864 pixels, got 8192x8193"),
        ({"crop_height": 10**9, "crop_width": 1}, "crop_height times crop_width must be at most 67,108,864 pixels"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        # Any other number: TensorFlow's whole numbers overflow further on.
        ({"epochs": 0, "train_steps": 2**31}, "train_steps must be at most 2147483647, got 2147483648"),
        ({"warmup_steps": 10**20}, "warmup_steps must be at most 2147483647, got 1000"),
        ({"learning_rate": 1e300}, "learning_rate must be at most 2147483647, got 1e"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(kseg.InputError, match=f"^{message}"):
        make_settings(**{"epochs": 1, **values})


@pytest.mark.parametrize(
    ("values", "others", "message"),
    [
        (
            {"momentum": 0.8},
            {"optimizer": "sgd"},
            "momentum has no effect with optimizer=adam, got 0.8: leave it out, ",
        ),
        (
            {"lr_drop_factor": 0.5},
            {"lr_schedule": "steps", "lr_drop_epochs": "1"},
            "lr_drop_factor has no effect with ",
        ),
        ({"keep": "lowest_loss", "best_by": "f1"}, {"keep": "last"}, "best_by has no effect with keep=lowest_loss, "),
        ({"focal_gamma": 1.0}, {"loss": "focal"}, "focal_gamma has no effect with loss cross_entropy: add focal, or "),
        ({"top_k_share": 0.5}, {"loss": "top_k_cross_entropy"}, "top_k_share has no effect with loss cross_entropy: "),
        ({"class_weights": "1,2", "loss": "dice"}, {"loss": "focal"}, "class_weights has no effect with loss dice: "),
        ({"lr_drop_epochs": "1"}, {"lr_schedule": "steps"}, "lr_schedule=steps and lr_drop_epochs go together, got "),
    ],
)
def test_a_setting_without_an_effect_is_refused(values, others, message):
    """Each is taken beside the setting that gives it one, and its default everywhere."""
    with pytest.raises(kseg.InputError, match=f"^{message}"):
        make_settings(epochs=2, **values)
    make_settings(epochs=2, **{**values, **others})
    for name, value in values.items():
        default = Settings.__dataclass_fields__[name].default
        assert value != default and getattr(make_settings(epochs=2), name) == default


def test_the_settings_that_need_another_name_one_and_its_values():
    needs = {
        name: field.metadata["needs"]
        for name, field in Settings.__dataclass_fields__.items()
        if "needs" in field.metadata
    }
    assert set(needs) == {"momentum", "lr_drop_factor", "best_by"}
    for other, values in needs.values():
        assert set(values) <= set(Settings.__dataclass_fields__[other].metadata["choices"])
    # As text, as flags.txt has them.
    assert without_effect({"momentum": "0.8", "optimizer": "adam"}) == ["momentum"]
    assert without_effect({"momentum": "0.8", "optimizer": "sgd"}) == without_effect({"momentum": "0.9"}) == []


def test_the_largest_sizes_are_taken():
    largest = {"height": 8192, "width": 8192, "batch_size": 2**16, "scale_min": 16, "scale_max": 16, "seed": 2**32 - 1}
    settings = make_settings(epochs=2**31 - 1, **largest)
    assert {name: getattr(settings, name) for name in largest} == largest


def test_every_field_has_a_type_that_its_default_is_of():
    for field in Settings.__dataclass_fields__.values():
        assert field.type in ("bool", "int", "int | None", "float", "str"), field.name
        with pytest.raises(kseg.InputError, match=f"^{field.name} must be "):
            make_settings(**{"epochs": 1, field.name: object()})


def test_scalars_of_numpy_and_paths_are_taken_as_what_they_are():
    settings = make_settings(
        epochs=np.int64(3),
        height=np.uint8(32),
        width=64,
        learning_rate=np.float32(0.5),
        clip_norm=1,
        flip=np.bool_(False),
        init_from=pathlib.Path("runs") / "a",
    )
    found = (settings.epochs, settings.height, settings.learning_rate, settings.clip_norm, settings.flip)
    assert found == (3, 32, 0.5, 1.0, False) and settings.init_from == str(pathlib.Path("runs", "a"))
    assert [type(value) for value in found] == [int, int, float, float, bool]  # flags.txt reads the same from both


def test_options_of_a_model_may_be_of_numpy(tmp_path):
    """They get as far as the records, which are not there."""
    options = {"base_filters": np.int64(8), "rates": [np.int32(2), 4], "dropout": np.float32(0.5)}
    assert check_model("segnet_aspp", options) == {"base_filters": 8, "rates": [2, 4], "dropout": 0.5}
    with pytest.raises(kseg.InputError, match="There is no record folder"):
        kseg.train("segnet_aspp", tmp_path / "none", tmp_path / "run", epochs=1, model_options=options)


def test_the_length_of_a_run():
    assert make_settings(epochs=3, batch_size=2).total_steps(7) == 9  # 3 whole batches an epoch
    assert make_settings(train_steps=4, batch_size=2).total_steps(7) == 4


def test_the_parts_that_settings_hand_out():
    settings = make_settings(
        epochs=9,
        height=40,
        width=60,
        crop_height=16,
        crop_width=32,
        label_resize="smooth",
        scale_min=0.75,
        flip=False,
        lr_schedule="steps",
        lr_drop_epochs="1, 2.5",
        warmup_steps=3,
    )
    # The rest are the defaults of the settings, which change images, unlike those of Augmentation.
    assert settings.augmentation == Augmentation(0.75, 2.0, False, 0.1, 0.2, 0.2, 0.02)
    assert settings.size == (40, 60) and settings.resize((40, 60)) == Resize(40, 60, (16, 32), "smooth")
    plain = make_settings(epochs=9)
    assert plain.size is None and plain.resize((5, 7)) == Resize(5, 7, None, "nearest")
    rate = Schedule(**settings.schedule(total_steps=90, epoch_steps=10))
    assert (rate.learning_rate, rate.total_steps, rate.decay, rate.warmup_steps) == (1e-3, 90, "steps", 3)
    assert rate.drops == (10, 25) and rate.drop_factor == 0.1
    assert learning_rate(**plain.schedule(90, 10)) == 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workdir": ""}, "workdir must be the path of a folder, got ''"),
        ({"workdir": None}, "workdir must be the path of a folder, got None"),
        ({"data_dir": None}, "data_dir must be the path of a folder, got None"),
        ({"data_dir": ""}, "data_dir must be the path of a folder, got ''"),
        ({"callbacks": print}, "callbacks must be a list of keras.callbacks.Callback objects, got <built-in"),
        ({"callbacks": [print]}, "callbacks must hold keras.callbacks.Callback objects, got <built-in"),
        ({"model": 3}, "model must be a name of kseg.MODELS or a function .* builds a keras.Model, got 3"),
        ({"model": lambda classes: None}, "model must be a function without arguments, but <lambda> needs some"),
        ({"model": kseg.MODELS["unet"]}, "but unet needs some .missing a required argument: 'input_shape'."),
        ({"model": functools.partial(kseg.build_model, "unet")}, "but partial needs some .* 'input_shape'"),
        (
            {"model": "unet", "model_options": [1]},
            r"model_options must be a dict of the builder's options by name, got \[1\]",
        ),
        ({"model": "unet", "model_options": {1: 2}}, "model_options must be a dict of the builder's options by name"),
        ({"model": "unet", "model_options": {"depth": np.float64}}, "model_options must hold finite numbers, text"),
        ({"model": "unet", "model_options": {"depth": math.inf}}, "model_options must hold finite numbers, text"),
        ({"strategy": ["one"]}, r"strategy must be one of auto, one, mirrored, multiworker, got \['one'\]"),
        ({"strategy": None}, "strategy must be one of auto, one, mirrored, multiworker, got None"),
        ({"epochs": 1, "train_steps": 1}, "either epochs or train_steps, got epochs=1 and train_steps=1"),
        ({"on_conflict": "new"}, "Unknown setting 'on_conflict'"),
    ],
)
def test_an_argument_of_another_kind_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records").mkdir()
    common = {"model": tiny.build_tiny, "data_dir": "records", "workdir": "run", "epochs": 1}
    with pytest.raises(kseg.InputError, match=message):
        kseg.train(**{**common, **arguments})
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--learning_rate=inf", "learning_rate must be a finite number, got inf"),
        ("--learning_rate=1e999", "learning_rate must be a finite number, got inf"),
        ("--weight_decay=nan", "weight_decay"),
        ("--batch_size=2.0", "batch_size"),
        ("--epochs=2.5", "epochs"),
        ("--scale_max=1e9", "scale_max must be at most 16.0, got 1000000000.0"),
        (
            "--momentum=0.8",
            "--momentum has no effect with --optimizer=adam, got 0.8: leave it out, or choose --optimizer=sgd",
        ),
        ("--flip=maybe", "flip"),
        ('--model_options={"depth": NaN}', "depth must be a whole number of at least 1, got nan"),
        ('--model_options={"initializer": NaN}', "model_options must hold finite numbers"),
        ("--train_steps=3", "Give either --epochs or --train_steps, got --epochs=1 and --train_steps=3."),
        ("--epochs=0", "Give either --epochs or --train_steps, above 0: nothing says how long to train."),
        ("--on_conflict=new", "Unknown command line flag 'on_conflict'"),
    ],
)
def test_the_same_from_the_command_line(flag, message, call_script, tmp_path):
    paths = (f"--data_dir={tmp_path}/data", f"--workdir={tmp_path}/run")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").touch()  # so that nothing is looked for first
    code, _, error = call_script("train", "--model=unet", *paths, "--epochs=1", flag)
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_option_of_models_given_as_a_setting_says_where_it_belongs():
    with pytest.raises(kseg.InputError, match="encoder is an option of a model, no setting: model_options={'encoder'"):
        make_settings(epochs=1, encoder="vgg16")
