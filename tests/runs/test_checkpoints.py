"""What a checkpoint holds comes back as it was, also from a file that an earlier kseg wrote."""

import json

import keras
import numpy as np

from kseg.runs.checkpoints import UNKNOWN, TrainState, list_checkpoints, restore_checkpoint, save_checkpoint


def test_a_state_comes_back_and_the_two_newest_stay(tmp_path):
    variable = keras.Variable([1.0, 2.0])
    state = TrainState(
        step=1,
        best=0.5,
        best_epoch=2,
        history=[{"epoch": 1, "loss": 1.25}],
        sums={"loss_sum": 2.0, "steps": 3, "matrix": [[1, 2]]},
        total_steps=9,
        normalization=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    )
    for state.step in (1, 2, 11):
        path = save_checkpoint(tmp_path, state, {"model": [variable]})
        variable.assign([0.0, float(state.step)])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002.npz", "step-00000011.npz"]
    assert restore_checkpoint(path, {"model": [variable]}) == state
    assert keras.ops.convert_to_numpy(variable).tolist() == [0.0, 2.0]


def test_what_an_earlier_kseg_did_not_say(tmp_path):
    """Its header had four keys in its state, the sums under the name of the epoch."""
    sums = {"loss_sum": 2.0, "steps": 3, "matrix": [[1, 2]]}
    state = {"best": 0.5, "history": [], "stopped": True, "epoch": sums}
    header = {"format": "kseg-checkpoint-1", "step": 7, "shapes": {"model": [[1]]}, "state": state}
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), "model/0": np.float32([3])}
    np.savez(tmp_path / "step-00000007.npz", **arrays)
    found = restore_checkpoint(tmp_path / "step-00000007.npz", {"model": [keras.Variable([0.0])]})
    assert found == TrainState(7, best=0.5, stopped=True, sums=sums, normalization=UNKNOWN)
    assert found.total_steps is None and found.best_epoch == 0
