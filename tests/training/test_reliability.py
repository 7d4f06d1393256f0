"""That runs survive what stops them, and damaged files are refused, as docs/explanation/reliability.md promises."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import zipfile

import keras
import numpy as np
import pytest
import tiny
from PIL import Image
from scenes import make_cityscapes, zip_cityscapes

import kseg
from kseg.data.datasets import cityscapes
from kseg.data.records import manifest as records
from kseg.data.records.prepare import prepare_dataset
from kseg.io import files, images, tfrecord
from kseg.runs.workdir import RunFolder
from kseg.training.logs import TensorBoardLog
from kseg.training.signals import Interruption, Stopped

MEMORY = 2 * 2**30


@pytest.fixture(scope="module")
def lives(tmp_path_factory, root):
    """What programs/kills.py saw of a run that was killed, terminated, torn and out of room, and then finished."""
    folder = tmp_path_factory.mktemp("lives") / "stage"
    command = [sys.executable, root / "tests" / "programs" / "kills.py", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_that_was_stopped_in_every_way_ends_with_the_same_bits(lives):
    """Weights, history.csv, scores, picture, TensorBoard's curves; no temporary file and no lock stays."""
    assert lives["differences"] == []
    assert lives["lives"][-1]["code"] == 0 and lives["lives"][-1]["hidden"] == []


def test_sigkill_leaves_the_last_whole_checkpoint(lives):
    while_saving = lives["lives"][0]
    while_exporting = lives["lives"][5]
    assert while_saving["code"] == while_exporting["code"] == -signal.SIGKILL
    assert while_saving["checkpoints"] == ["step-00000002.npz", "step-00000003.npz"]
    assert while_saving["hidden"] == [".lock", ".tmp"]  # the next life clears them
    assert lives["lives"][1]["said"][0] == "Going on from step 3 of 9."
    assert lives["lives"][6]["said"] == ["Going on from step 9 of 9."]


def test_sigterm_saves_the_step_and_exits_with_143(lives):
    in_an_epoch = lives["lives"][1]
    in_validation = lives["lives"][3]
    assert in_an_epoch["code"] == in_validation["code"] == 143
    for life, step in ((in_an_epoch, 5), (in_validation, 6)):
        assert life["said"][-1] == f"Stopped at step {step} of 9, saved. The same command continues."
        assert life["checkpoints"][-1] == f"step-{step:08}.npz" and life["hidden"] == []


def test_a_full_disk_is_one_line_and_leaves_the_last_state(lives):
    life = lives["lives"][2]
    assert life["code"] == 2 and life["hidden"] == [] and life["checkpoints"][-1] == "step-00000005.npz"
    assert "Cannot write" in life["said"][-1] and "predictions.png: File too large. Earlier files" in life["said"][-1]


def test_a_torn_checkpoint_is_an_error_that_says_how_to_go_on(lives):
    torn, after = lives["lives"][4:6]
    assert torn["code"] == 2 and "step-00000006.npz is torn" in torn["said"][-1]
    assert "Delete it to continue from step-00000005.npz." in torn["said"][-1]
    assert after["said"] == ["Going on from step 5 of 9."]


@pytest.mark.slow
def test_fifty_random_kills(tmp_path, root):
    """About half an hour on two cores."""
    command = [sys.executable, root / "tests" / "programs" / "kills.py", tmp_path / "stage", "50", "0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    print(summary)
    assert summary["kills"] == sum(summary["at"].values()) == 50 and summary["differences"] == {}


def fuzz(root, folder, first, count):
    """Run cases of tests/programs/fuzz.py in one child; it must answer each within 20 seconds and stay under 2 GB."""
    command = [sys.executable, root / "tests" / "programs" / "fuzz.py", folder, str(first), str(count)]
    found = []
    waiting = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        errors = []
        threading.Thread(target=lambda: errors.append(child.stderr.read()), daemon=True).start()
        while True:
            ready = select.select([child.stdout], [], [], 120 if not found else 20)[0]
            if not ready:
                child.kill()
                pytest.fail(f"case {first + len(found)} hangs (or the one after {found[-1:]})")
            block = os.read(child.stdout.fileno(), 1 << 16)
            if not block:
                break
            *lines, waiting = (waiting + block).split(b"\n")
            found += map(json.loads, lines)
        assert child.wait() == 0, f"died after {found[-1:]}: {errors}"
    whole, cases = ([row for row in found if (row["case"] == "whole") is is_whole] for is_whole in (True, False))
    assert {row["outcome"] for row in whole} == {"read"} and len(cases) == count
    assert found[-1]["peak"] < MEMORY
    return cases


def counts(cases):
    """{kind: {outcome: number of cases}}."""
    kinds = sorted({row["kind"] for row in cases})
    ends = ("read", "refused", "defect")
    return {k: {end: sum((row["kind"], row["outcome"]) == (k, end) for row in cases) for end in ends} for k in kinds}


def check_cases(cases):
    assert [row for row in cases if row["outcome"] == "defect"] == []
    kinds = counts(cases)
    wanted = {"checkpoint", "flagfile", "foreign", "jpeg", "keras", "manifest", "photograph", "png", "tfrecord"}
    wanted |= {"tiff_label", "torch"}
    assert set(kinds) == wanted and all(kind["refused"] for kind in kinds.values())  # the damage is damage


def test_three_hundred_damaged_files(tmp_path, root):
    check_cases(fuzz(root, tmp_path / "fuzz", 0, 300))


@pytest.mark.slow
def test_twenty_thousand_damaged_files(tmp_path, root):
    cases = fuzz(root, tmp_path / "fuzz", 300, 20_000)
    print(json.dumps(counts(cases), indent=1), max(row["peak"] for row in cases))
    check_cases(cases)


def test_two_runs_do_not_share_a_workdir(tmp_path):
    workdir = tmp_path / "runs" / "one"
    with RunFolder(workdir).alone():
        holder = f"{workdir} is in use by process {os.getpid()} on .*another folder"
        with pytest.raises(ValueError, match=holder):
            kseg.train(tiny.build_tiny, tmp_path, workdir, **tiny.SETTINGS)
        assert [path.name for path in workdir.iterdir()] == [files.LOCK]
    assert not (tmp_path / "runs").exists()  # made for the lock, and nothing came into it


def test_a_lock_outlives_no_process(tmp_path, root):
    program = (
        "import os, pathlib, signal, sys; from kseg.io.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=root)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / files.LOCK).exists()
    with files.locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / files.LOCK).read_text()
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_went_is_no_lock(tmp_path):
    """Between opening the file and locking it, the process that held it ended and removed it."""
    path = tmp_path / files.LOCK
    with open(path, "w+b") as file:
        path.unlink()
        with pytest.raises(ValueError, match="was in use until just now. Start again"):
            files._lock(file.fileno(), path)


def test_tensorboard_shows_no_event_that_was_done_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # Killed after step 1, without a checkpoint; killed after step 4; going on after the checkpoint of step 2.
    for last, going_on_after in ((1, 0), (4, 0), (5, 2)):
        with contextlib.closing(TensorBoardLog(tmp_path, going_on_after)) as log:
            for step in range(going_on_after + 1, last + 1):
                log.scalars(step, {"loss": 10 * going_on_after + step})
                if step == 3 and not going_on_after:
                    log.scalars(step, {"val": 1})
            # What was logged can be seen while the log is open.
            shown = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(1, 1), (2, 2), (3, 23), (4, 24), (5, 25)]
    assert shown.Scalars("val") == []


def test_without_locks_a_warning_says_so(tmp_path, monkeypatch):
    import fcntl

    def refuse(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .*not implemented.*: do not start anything else in it"):
        with files.locked(tmp_path):
            pass


READ_ONLY = """
import ctypes, pathlib, sys
from kseg.io.files import locked, write_atomic
folder = pathlib.Path(sys.argv[1])
for function in (lambda: locked(folder).__enter__(), lambda: write_atomic(folder / "history.csv", b"2")):
    try:
        function()
    except OSError as error:
        print(error)
print((folder / "history.csv").read_text(), sorted(path.name for path in folder.iterdir()))
"""


def test_a_read_only_folder_is_a_clear_error(tmp_path, root):
    """In a child without the capability that lets root write everywhere."""

    def give_up():
        import ctypes

        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: gone with the exec that follows

    (tmp_path / "history.csv").write_text("1")
    tmp_path.chmod(0o555)
    try:
        command = [sys.executable, "-c", READ_ONLY, tmp_path]
        done = subprocess.run(command, cwd=root, preexec_fn=give_up, capture_output=True, text=True, check=True)
    finally:
        tmp_path.chmod(0o755)
    first, second, left = done.stdout.splitlines()
    assert f"Cannot write {tmp_path}: Permission denied. Earlier files are intact" in first
    assert f"Cannot write {tmp_path}/history.csv: Permission denied" in second
    assert left == "1 ['history.csv']"


def test_the_second_signal_does_what_it_always_did():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append("ours"))
    try:
        with pytest.raises(SystemExit), Interruption() as interruption:
            interruption.check()
            assert list(interruption.watch([1, 2])) == [1, 2]
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.requested is signal.SIGTERM and not caught
            with pytest.raises(Stopped):
                interruption.check()
            with pytest.raises(SystemExit) as stop:
                try:
                    interruption.check()
                except Stopped:
                    interruption.leave()
            assert stop.value.code == 128 + 15
            assert stop.value.__suppress_context__  # no "during the handling of Stopped"
            os.kill(os.getpid(), signal.SIGTERM)
            assert caught == ["ours"]
        with pytest.raises(KeyboardInterrupt), Interruption():
            os.kill(os.getpid(), signal.SIGINT)  # nothing checks for it: it comes at the end
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_and_ignored_signals_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # nohup
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    def enter():
        with Interruption() as interruption:
            seen.append((signal.getsignal(signal.SIGTERM), interruption.requested))

    seen = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGTERM), None)]


def test_a_keras_file_that_brings_code_is_refused(tmp_path):
    image = keras.Input((4, 4, 3))
    mark = tmp_path / "executed"
    name = str(tmp_path / "executed")
    keras.Model(image, keras.layers.Lambda(lambda x: (open(name, "w"), x)[1])(image)).save(tmp_path / "lambda.keras")
    mark.unlink()
    with pytest.raises(ValueError, match="lambda.keras is damaged or not a .keras file: .*[Ll]ambda"):
        kseg.load_model(tmp_path / "lambda.keras")
    assert not mark.exists()


def test_weights_that_do_not_match_their_checksum_are_refused(tmp_path):
    """Keras reads on where a checksum fails."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, bias_initializer="ones")]).save(path)
    whole = path.read_bytes()
    assert whole.count(np.ones(2, np.float32).tobytes()) == 1
    path.write_bytes(whole.replace(np.ones(2, np.float32).tobytes(), np.full(2, 3, np.float32).tobytes()))
    with pytest.raises(ValueError, match="the checksum of model.weights.h5 differs"):
        kseg.load_model(path)


def test_zips_are_read_in_place_whatever_names_they_hold(tmp_path):
    """Names that lead out of the folder are no frames; nothing appears beside the records."""
    folder = zip_cityscapes(make_cityscapes(tmp_path / "unpacked", train=1, val=1), tmp_path / "zips")
    outside = ("../../evil.png", "/evil.png", "leftImg8bit/train/../../../evil_000000_000019_leftImg8bit.png")
    with zipfile.ZipFile(folder / "leftImg8bit_trainvaltest.zip", "a") as archive:
        for name in outside:
            archive.writestr(name, images.encode(np.zeros((16, 24, 3), np.uint8)))
    source = cityscapes.read(folder)
    assert [len(source.splits[split]) for split in ("train", "val")] == [1, 1]
    assert any("evil" in problem for problem in source.problems)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="evil"):
        prepare_dataset("cityscapes", folder, tmp_path / "records", workers=1, progress=False)
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "records") for path in new)


def claimed(width, height):
    """A PNG of a few bytes that claims a size, every checksum right."""
    from mutations import mend_png

    data = bytearray(images.encode(np.zeros((1, 1, 3), np.uint8)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return mend_png(bytes(data))


@pytest.mark.parametrize("size", [(8193, 8192), (20000, 20000)])  # one column too many; beyond Pillow's own limit
def test_images_beyond_the_limit_are_refused_by_name_before_they_are_decoded(size, tmp_path):
    assert images.MAX_PIXELS == 8192 * 8192
    with pytest.raises(ValueError, match=r"big.png: .*at most 67,108,864 pixels. Cut it"):
        images.decode_image(claimed(*size), "big.png")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "small.jpg")
    jpeg = bytearray((tmp_path / "small.jpg").read_bytes())
    start = jpeg.index(b"\xff\xc0") + 5  # SOF0: marker, length, precision, then height and width
    jpeg[start : start + 4] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
    with pytest.raises(ValueError, match="big.jpg: .*at most 67,108,864 pixels"):
        images.decode_label(bytes(jpeg), "big.jpg")


def test_records_beyond_the_limit_are_refused_by_both_readers(tmp_path):
    from kseg.data.pipeline.examples import Examples
    from kseg.data.pipeline.examples_tensorflow import RecordSource

    values = {"image/encoded": claimed(9000, 8000), "image/filename": "huge", "image/height": 8000}
    values |= {"image/width": 9000, "image/segmentation/class/encoded": claimed(9000, 8000)}
    (tmp_path / "val-00000-of-00001").write_bytes(tfrecord.frame(tfrecord.serialize_example(values)))
    with pytest.raises(ValueError, match="Record 0 of shard .* image of record huge: 9000x8000, but kseg reads"):
        Examples(tmp_path, "val", label_space="train_ids")[0]
    source = RecordSource(tmp_path, "val", label_space="train_ids")
    with pytest.raises(ValueError, match="image of record huge: 9000x8000, but kseg reads"):
        with source.readable_errors():
            list(source.batches())


def test_a_record_of_another_size_than_listed_is_refused(tmp_path):
    encoded = {"image/encoded": images.encode(np.zeros((4, 6, 3), np.uint8)), "image/height": 4, "image/width": 8}
    label = {"image/segmentation/class/encoded": images.encode(np.zeros((4, 6), np.uint8))}
    (tmp_path / "val-00000-of-00001").write_bytes(tfrecord.frame(tfrecord.serialize_example(encoded | label)))
    manifest = records.load_manifest(tmp_path, label_space="train_ids")
    assert manifest.split("val").widths.tolist() == [8]
    from kseg.data.pipeline.examples import Examples

    with pytest.raises(ValueError, match="must have the same size, got 6x4, 6x4, 8x4"):
        Examples(tmp_path, "val", label_space="train_ids")[0]
