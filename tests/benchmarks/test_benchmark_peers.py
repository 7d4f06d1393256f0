"""benchmarks/peers: that the contestants compute the same, and that their work is counted rightly."""

import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks import exported_models, suites
from benchmarks.peers import inputs, naive, ours
from kseg.layers import pooling as windows
from kseg.models import build_model, costs
from kseg.models.segnet import segnet_aspp

SHAPE = (2, 8, 12, 3)


@pytest.mark.parametrize("case", ["pool_pair", "batch_norm"])
def test_naive_layers_compute_what_ours_do(case):
    mine, theirs = (module.CASES[case](shape=SHAPE)[0]() for module in (ours, naive))
    assert len(mine) == len(theirs) == (2 if case == "pool_pair" else 4)  # y, dx; and of the norm gamma, beta
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert np.abs(mine[1]).max() > 0


def _copy_to_naive(model, peer):
    """Same names, but ASPP's projection: one kernel over what is summed in ours, in the order of the branches."""
    random = np.random.default_rng(0)
    for layer in model.layers:  # nothing at its initial value, so that nothing can be left out unseen
        layer.set_weights([w + 0.02 * random.random(w.shape, np.float32) for w in layer.get_weights()])
    found = exported_models.arrays(model)
    assert {weight.path for weight in peer.weights} == set(found)
    for weight in peer.weights:
        weight.assign(found[weight.path])


@pytest.fixture(scope="module")
def networks():
    model = segnet_aspp((64, 96, 3), 5, base_filters=2, dropout=0.0)
    peer = naive.segnet_aspp(64, 96, 5, base_filters=2, dropout=0.0)
    _copy_to_naive(model, peer)
    return model, peer


@pytest.mark.parametrize("training", [False, True])
def test_naive_network_is_ours(networks, training):
    model, peer = networks
    images, _ = inputs.scene(2, 64, 96, 5)
    logits = [np.asarray(network(images.astype("float32"), training=training)) for network in (model, peer)]
    assert logits[0].std() > 0.01
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3 * logits[0].std())


def test_pytorch_network_is_ours(networks):
    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch, pytorch_inference

    model, naive_model = networks
    peer = pytorch.SegNetASPP(5, base_filters=2, dropout=0.0)
    pytorch_inference.load(peer, exported_models.arrays(model))
    with torch.no_grad():
        images, _ = inputs.scene(2, 64, 96, 5)
        logits = peer.train()(pytorch.as_maps(images)).permute(0, 2, 3, 1).numpy()
    expected = np.asarray(naive_model(images.astype("float32"), training=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    mine, theirs = (module.CASES["pool_pair"](shape=SHAPE)[0]() for module in (ours, pytorch))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["unet", "r2unet"])
def test_pytorch_unets_are_ours(name):
    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch, pytorch_inference

    keras.utils.set_random_seed(0)
    model = build_model(name, (32, 48, 3), 5, base_filters=2)
    peer = pytorch.NETWORKS[name](5, 2)
    random = np.random.default_rng(0)
    for weight in model.weights:  # nothing at its initial value
        weight.assign(weight + 0.05 * random.random(weight.shape, np.float32))
    pytorch_inference.load(peer, exported_models.arrays(model))
    parts = {name for convolution, _, norms in peer.convolutions() for name in (convolution, *norms)}
    assert parts == {layer.name for layer in model.layers if layer.weights}  # every module has a layer
    with torch.no_grad():
        images, _ = inputs.scene(2, 32, 48, 5)
        logits = peer.train()(pytorch.as_maps(images)).permute(0, 2, 3, 1).numpy()
    expected = np.asarray(model(images.astype("float32"), training=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * expected.std())


@pytest.mark.parametrize("name", suites.SIZES["tiny"]["infer"])
def test_pytorch_labels_as_the_model_whose_weights_it_gets(name, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    if name == "segformer":
        pytest.importorskip("timm")
    from benchmarks.peers import pytorch_inference

    monkeypatch.setattr(exported_models, "FILES", {})
    monkeypatch.setitem(suites.SIZES["tiny"], "infer", {name: suites.SIZES["tiny"]["infer"][name]})
    choices = suites.Choices(suites.SIZES["tiny"], (), "", "", str(tmp_path))
    suites.PREPARATIONS["infer"](choices)
    options = next(each.options for each in suites.SUITES["infer"](choices) if each.who == "PyTorch, eager")
    assert np.unique(np.load(f"{options['folder']}/labels.npy")).size > 1
    run, _ = pytorch_inference.label(**options)  # which compares the labels
    arrays = dict(np.load(f"{options['folder']}/weights.npz"))
    assert run()[1].min() > 1 / 3  # the label's probability is the largest of three
    np.savez(f"{options['folder']}/weights.npz", **arrays, one_too_many=np.zeros(1))
    with pytest.raises(ValueError, match="that PyTorch does not have: .'one_too_many'"):
        pytorch_inference.label(**options)


def test_networks_have_the_published_number_of_parameters():
    # facts.md's arithmetic for 34 classes and the tail; with n classes 257 parameters a class less or more
    assert costs.parameters(naive.segnet_aspp(32, 32, 34)) == 30_849_762
    assert costs.parameters(segnet_aspp((32, 32, 3), 34)) == 30_849_762


@pytest.fixture
def eager(monkeypatch):
    """Tracing the network, and its ten XLA islands, takes half a minute; the step is the same without."""
    monkeypatch.setattr(windows, "compiles", lambda training, shape: False)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.parametrize("module", [ours, naive])
def test_training_steps_lower_the_loss(eager, module):
    keras.utils.set_random_seed(0)
    run, facts = module.CASES["train_step"](precision="float32", **suites.SIZES["tiny"]["train_step"])
    losses = [run() for _ in range(10)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert facts["parameters"] > 0 and facts["multiply_adds"] > 0
