"""Every logger gets settings, scores, pictures and the final table of a run, which goes on in one record."""

import json
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

import kseg
from kseg.metrics import Scores
from kseg.settings import Settings
from kseg.training import logs
from kseg.training.logs import LOGGERS, Logger, RunLog, chosen_loggers

SCORES = Scores.from_confusion_matrix(np.array([[3, 1], [0, 4]]), ("road", "sky"), 2)  # IoU 3/4 and 4/5


def report(workdir, names, first, epochs, final=False):
    """Report `epochs` epochs of two steps after step `first` to loggers, as a run does."""
    Image.new("RGB", (4, 3)).save(workdir / "predictions.png")
    with RunLog(workdir, names, first, {"model": "unet", "epochs": str(first // 2 + epochs)}) as log:
        for step in range(first + 2, first + 2 * epochs + 1, 2):
            log.training(step, {"loss": 10 / step}, 0.1)
            log.validation(step, {"mean_iou": step / 100}, {"image | prediction | truth": workdir / "predictions.png"})
            log.pace(step, 5.0, (2e9, "GPU memory"))
        if final:
            log.final(4, SCORES)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run's folder, in a place where services may leave what they leave."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_tensorboard_has_all_of_a_run_that_went_on(workdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report(workdir, ["tensorboard"], 0, 2)
    report(workdir, ["tensorboard"], 4, 1, final=True)
    shown = EventAccumulator(str(workdir / "logs")).Reload()
    assert [(e.step, round(e.value, 6)) for e in shown.Scalars("val/mean_iou")] == [(2, 0.02), (4, 0.04), (6, 0.06)]
    assert [e.step for e in shown.Images("image | prediction | truth")] == [2, 4, 6]
    assert round(shown.Scalars("final/mean_iou")[0].value, 6) == 0.775  # (3/4 + 4/5) / 2
    settings, table = (
        shown.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in ("settings", "final scores")
    )
    assert "| epochs | 3 |" in settings
    assert table.splitlines()[0] == "| class | accuracy | sensitivity | specificity | f1 | jaccard |"
    assert table.splitlines()[3].startswith("| road | 0.8750 | 0.7500 |")


def test_mlflow_has_all_of_a_run_that_went_on(workdir, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install -e '.[mlflow]')")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report(workdir, ["mlflow"], 0, 2)
    report(workdir, ["mlflow"], 4, 1, final=True)
    client = mlflow.MlflowClient(tracking_uri=pathlib.Path("mlruns").absolute().as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("kseg").experiment_id])  # one record
    number = run.info.run_id
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert [(m.step, m.value) for m in client.get_metric_history(number, "val/mean_iou")] == [
        (2, 0.02),
        (4, 0.04),
        (6, 0.06),
    ]
    assert run.data.metrics["final/mean_iou"] == pytest.approx(0.775)
    assert run.data.params == {"model": "unet", "epochs": "2"}  # as it began; no parameter may change
    folder = pathlib.Path(client.download_artifacts(number, ""))
    assert json.loads((folder / "settings.json").read_text())["epochs"] == "3"
    assert (folder / "final scores.tsv").read_text().splitlines()[2].startswith("road\t0.8750\t0.7500\t")
    assert len(list(folder.glob("pictures/step-*/predictions.png"))) == 3


def test_wandb_has_all_of_a_run_that_went_on(workdir, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed (pip install -e '.[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    report(workdir, ["wandb"], 0, 2)
    report(workdir, ["wandb"], 4, 1, final=True)
    number = (workdir / "logs" / "wandb.txt").read_text().strip()
    parts = sorted((workdir / "logs" / "wandb").glob("offline-run-*"))
    # One id: the server joins what it is sent of both.
    assert len(parts) == 2 and all(part.name.endswith(number) for part in parts)
    rows = [row for part in parts for row in history(part / f"run-{number}.wandb")]
    assert [(row["step"], row["val/mean_iou"]) for row in rows if "val/mean_iou" in row] == [
        (2, 0.02),
        (4, 0.04),
        (6, 0.06),
    ]
    assert next(row["final/mean_iou"] for row in rows if "final/mean_iou" in row) == pytest.approx(0.775)
    assert [len(list(part.glob("files/media/images/*.png"))) for part in parts] == [2, 1]
    (table,) = parts[1].glob("files/media/table/*.json")
    assert json.loads(table.read_text())["data"][1][:3] == ["road", 0.875, 0.75]


def history(path):
    """The rows in a file of wandb's: after 7 bytes LevelDB's log of protocol buffers, in blocks of 32 KiB.

    A part of a record has a checksum (4 bytes), its length (2) and its kind: whole, first, middle, last (1 to 4).
    """
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    place = 7
    content = b""
    while place < len(data):
        room = 2**15 - place % 2**15
        if room < 7:
            place += room
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        content += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            content = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_loggers_are_chosen_by_name(tmp_path, monkeypatch):
    assert chosen_loggers("tensorboard") == ["tensorboard"] and chosen_loggers("") == []
    for text in ("tensorboard,tensorboard", "tensorbord"):
        with pytest.raises(kseg.InputError, match=f"logger must be some of tensorboard, wandb, mlflow.* got '{text}'"):
            chosen_loggers(text)
    explained = Settings.__dataclass_fields__["logger"].metadata["help"]
    assert ", ".join(LOGGERS) in explained


def test_a_package_that_is_missing_is_named_at_once(records, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS, "wandb", Logger(logs.WandbLog, "no_such_service"))
    with pytest.raises(kseg.InputError, match=r"pip install 'kseg\[no_such_service\]'"):
        kseg.train("unet", records, tmp_path / "run", epochs=1, logger="tensorboard,wandb")
    (tmp_path / "no_such_service").mkdir()  # wandb leaves such a folder, which Python takes for a package
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(kseg.InputError, match="which is not installed"):
        chosen_loggers("wandb")
    assert not (tmp_path / "run").exists()


class Unreachable:
    """A service that is gone after it has begun."""

    def __init__(self, workdir, step):
        self.workdir = workdir

    def settings(self, values):
        os.stat(self.workdir / "gone")


def test_a_service_that_fails_ends_no_run(workdir, monkeypatch, capsys):
    monkeypatch.setitem(LOGGERS, "wandb", Logger(Unreachable, "wandb"))
    report(workdir, ["wandb", "tensorboard"], 0, 1)
    assert capsys.readouterr().out.count("WARNING: the logger wandb failed and takes no more of this run: ") == 1
    assert list((workdir / "logs").glob("events*"))
