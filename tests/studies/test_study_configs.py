"""Every STUDY.toml in configs/studies: it is read, and each contestant is built and gets steps of its budget."""

import json
import pathlib

import pytest

from kseg.commands import flagfiles, train_command
from kseg.models import build_model, costs
from kseg.studies.budgets import share_of
from kseg.studies.study_plan import read_plan, train_flags

STUDIES = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs" / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_read_and_its_models_are_built(path, monkeypatch):
    monkeypatch.chdir(path.parents[2])
    plan = read_plan(path)
    for model in plan.models:
        flags = [*train_flags(plan, model, plan.data[0]), "--workdir=x", "--epochs=0", "--train_steps=1"]
        train_command.FLAGS(["train.py", *flagfiles.expand_flagfiles(flags)])
        settings, options = train_command.settings_and_options(train_command.FLAGS)
        assert options.items() >= model.options.items() and settings.patience == 0
        options.pop("encoder_weights", None)  # a file that is not here
        built = build_model(train_command.FLAGS.model, (*(settings.crop or settings.size), 3), 19, **options)
        if plan.budget.kind != "seconds":  # they are measured when it begins
            share = share_of(plan.budget, {"batch_size": settings.batch_size, **costs.facts(built)}, model.name)
            # Rounding to whole steps costs no model a hundredth of its budget: they are equal enough to compare.
            assert 0 <= share.left < plan.budget.value / 100
        json.dumps(plan.as_json())
        train_command.FLAGS.unparse_flags()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_read_alike_in_every_folder(path, tmp_path, monkeypatch):
    """An installed kseg has no folder configs/ where people work: its flagfiles are found by their names."""
    monkeypatch.chdir(path.parents[2])
    here = read_plan(path)
    monkeypatch.chdir(tmp_path)
    assert read_plan(path) == here


def test_there_is_one_for_the_mission():
    (plan,) = [read_plan(path) for path in STUDIES if path.stem == "streets"]
    taken_apart = {"segnet_aspp_stride8", "segnet_bilinear"}
    assert {model.name for model in plan.models} == {"r2unet", "segnet_aspp", "segnet", "unet"} | taken_apart
    assert len(plan.seeds) == 6 and plan.budget.kind == "multiply-adds"
