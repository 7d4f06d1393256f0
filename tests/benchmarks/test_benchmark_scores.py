"""The suite "scores": the contestants score the same images, and alike."""

import pathlib
import sys

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks import suites
from benchmarks.peers import kseg_scores, scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    suites.write_scenes(folder, images=2, height=96, width=128)
    return folder


def test_official_scores_equal_the_package_in_one_run(folder, monkeypatch):
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    from benchmarks.peers import cityscapes_scripts

    run, facts = kseg_scores.official(folder)
    peer, theirs = cityscapes_scripts.official(folder)
    assert facts == theirs and facts["images"] == 2 and 0 < facts["score"] < 1
    assert run() == peer() == facts["score"]  # the second run starts anew


def test_five_scores_equal_scikit_learn(folder):
    truth, predicted = np.concatenate([np.load(path).reshape(2, -1) for path in scenes.files(folder, "five")], axis=1)
    valid = truth != 255
    assert 0 < valid.sum() < truth.size
    expected = jaccard_score(truth[valid], predicted[valid], average="macro")
    assert kseg_scores.five(folder, 19)[1]["score"] == pytest.approx(expected, rel=1e-12)
