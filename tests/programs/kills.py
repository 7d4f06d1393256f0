"""Lives and deaths of a run: `python tests/programs/kills.py FOLDER`, or `... FOLDER KILLS SEED` for random ones.

TensorFlow is imported once; each life is a fork of this process that calls kseg.train. A byte of shared memory says
what the child is at, so that it can be killed there, and where it was when it was killed at a random time.
"""

import collections
import functools
import json
import mmap
import os
import pathlib
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import keras
import numpy as np
import tiny
from tqdm import tqdm

import kseg
from kseg import metrics
from kseg.data.pipeline import examples_tensorflow  # noqa: F401 so that no child imports it anew
from kseg.runs import checkpoints
from kseg.runs import workdir as runs
from kseg.training import train as training
from kseg.training import validation as finishing
from kseg.training.trainers import tensorflow

PHASES = {
    "step": (tensorflow.TensorFlowTrainer, "train_step"),
    "checkpoint": (checkpoints, "save_checkpoint"),
    "best.keras, last.keras": (runs.RunFolder, "save_model"),
    "history.csv": (runs.RunFolder, "write_history"),
    "validation": (finishing, "score_batches"),
    "predictions.png": (finishing, "draw_predictions"),
    "final scoring": (training, "finish"),
    "export": (finishing, "export_saved_model"),
    "scores.json": (metrics.Scores, "to_json"),
}
NAMES = ["start", *PHASES, "between"]
SETTINGS = {**tiny.SETTINGS, "ema_momentum": 0.5}


class At(keras.callbacks.Callback):
    """Does something when that many steps of the run are done."""

    def __init__(self, step, action):
        super().__init__()
        self.step = step
        self.action = action

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.action()


class Stage:
    """Where lives are led: the folder of the records, the runs, and a log of each life."""

    def __init__(self, folder):
        self.folder = folder
        self.lives = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.records = tiny.write_records(folder)

    def fork(self, function):
        """Call a function in a child; its exit code is 0, that of a SystemExit, or 1 with a traceback in the log."""
        self.lives += 1
        log = self.folder / f"life{self.lives}.log"
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            file = os.open(log, os.O_CREAT | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            function()
            code = 0
        except SystemExit as error:
            code = error.code
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except BaseException:  # the child must not return into its parent's program
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(code)

    def live(self, workdir, *callbacks, prepare=None, **settings):
        """Start a life of the run in `workdir`; (child, shared byte). `prepare` is called in the child first."""
        byte = mmap.mmap(-1, 1)

        def train():
            tqdm.set_lock(threading.RLock())  # its own is one for all forks: a killed child would keep it for ever
            for name, (owner, attribute) in PHASES.items():
                setattr(owner, attribute, marking(byte, NAMES.index(name), getattr(owner, attribute)))
            if prepare:
                prepare()
            kseg.train(tiny.build_tiny, self.records, workdir, callbacks=callbacks, **(SETTINGS | settings))

        return self.fork(train), byte

    def log(self):
        """The lines that the latest life printed."""
        return (self.folder / f"life{self.lives}.log").read_text(errors="replace").splitlines()


def marking(byte, number, function):
    """The function, telling by the shared byte that it runs."""

    @functools.wraps(function)
    def marked(*args, **kwargs):
        before = byte[0] or NAMES.index("between")
        byte[0] = number
        try:
            return function(*args, **kwargs)
        finally:
            byte[0] = before

    return marked


def watch(life, kill=lambda phase, seconds: False):
    """Wait for a life and end it when `kill(phase, seconds it has lasted)`; (exit code, phase, seconds)."""
    start = time.monotonic()
    (child, byte) = life
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        phase = NAMES[byte[0]]
        seconds = time.monotonic() - start
        if done:
            return os.waitstatus_to_exitcode(status), phase, seconds
        if seconds > 600 or kill(phase, seconds):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert seconds <= 600, f"a life hangs: {phase}"
            return -signal.SIGKILL, NAMES[byte[0]], seconds
        time.sleep(0.0005)


def weights(path):
    """The bytes of a saved model's arrays."""
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def events(logs):
    """{tag: [(step, value), ...]} as TensorBoard shows the folder's logs; no speed, no memory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(logs)).Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if tag.startswith(("train/", "val/", "learning_rate"))]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in tags}


def differences(workdir, whole):
    """What a run that was stopped has otherwise than one that was not."""
    found = [name for name in ("best.keras", "last.keras") if weights(workdir / name) != weights(whole / name)]
    texts = ("history.csv", "scores.json", "predictions.png")
    found += [name for name in texts if (workdir / name).read_bytes() != (whole / name).read_bytes()]
    found += [] if events(workdir / "logs") == events(whole / "logs") else ["logs"]
    names = [{path.name for path in folder.iterdir()} for folder in (workdir, whole)]
    return found + sorted(names[0] ^ names[1])


def random_kills(stage, kills, seed):
    """Kill at random times and in random phases until that many kills are done; print what was hit and what came."""
    random = np.random.default_rng(seed)
    hit = collections.Counter()
    wrong = {}
    code, _, length = watch(stage.live(stage.folder / "whole"))
    assert code == 0
    runs_done = 0
    while hit.total() < kills:
        workdir = stage.folder / f"run{runs_done}"
        code = None
        while code != 0:
            rule = after(random.uniform(0, length)) if random.random() < 0.5 else within(random)
            code, phase, _ = watch(stage.live(workdir), rule if hit.total() < kills else after(1e9))
            assert code in (0, -signal.SIGKILL), f"life {stage.lives} ended with {code}"
            hit[phase] += code != 0
        if found := differences(workdir, stage.folder / "whole"):
            wrong[workdir.name] = found
        else:
            shutil.rmtree(workdir)
        runs_done += 1
        seen = {"runs": runs_done, "lives": stage.lives, "kills": hit.total(), "differences": wrong}
        print(json.dumps(seen | {"at": {name: hit[name] for name in NAMES}}), flush=True)


def after(limit):
    """Kill at that time."""
    return lambda phase, seconds: seconds >= limit


def within(random):
    """Kill in a random phase, up to 30 ms after it began."""
    chosen = list(PHASES)[random.integers(len(PHASES))]
    delay = random.uniform(0, 0.03)
    since = []

    def rule(phase, seconds):
        if phase == chosen:
            since.append(seconds)
        return bool(since) and seconds - since[0] >= delay

    return rule


def planned(stage):
    """A run that was not stopped, and one that was in every way; print what was seen of each of its lives."""
    whole = stage.folder / "whole"
    stopped = stage.folder / "stopped"
    seen = []
    other = stage.live(whole)

    def live(*callbacks, prepare=None):
        code = watch(stage.live(stopped, *callbacks, prepare=prepare))[0]
        said = [line for line in stage.log() if line.startswith(("Going on", "Stopped", "error:"))]
        names = [path.name for path in checkpoints.list_checkpoints(stopped / "checkpoints")]
        hidden = sorted(path.name.partition("-")[0] for path in stopped.rglob(".*"))
        seen.append({"code": code, "said": said, "checkpoints": names, "hidden": hidden})

    # Epochs end at steps 3, 6, 9; checkpoints are at 2, 3, 4, 6, 8, 9.
    live(prepare=lambda: die_before_replacing("step-00000004.npz"))
    live(At(5, terminate))
    live(At(6, lambda: limit_files(3000)))
    live(prepare=lambda: terminate_in_validation(batch=3))
    newest = checkpoints.list_checkpoints(stopped / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-200])
    live()
    newest.unlink()
    live(prepare=lambda: die_before_replacing("saved_model.pb"))
    live()
    assert watch(other)[0] == 0
    print(json.dumps({"lives": seen, "differences": differences(stopped, whole)}))


def die_before_replacing(name):
    """SIGKILL when the file or folder of that name is whole but has its temporary name yet."""
    replace = os.replace

    def replacing(source, target):
        if os.path.basename(target) == name:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replacing


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def limit_files(size):
    """From here on no file can grow beyond `size` bytes: what a full disk does to writes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def terminate_in_validation(batch):
    """SIGTERM when that batch of the next validation was scored."""
    score = finishing.score_batches

    def scoring(label, batches, *args, **options):
        def given():
            for number, pair in enumerate(batches, 1):
                yield pair
                if number == batch:
                    terminate()

        return score(label, given(), *args, **options)

    finishing.score_batches = scoring


if __name__ == "__main__":
    stage = Stage(pathlib.Path(sys.argv[1]))
    numbers = [int(number) for number in sys.argv[2:]]
    random_kills(stage, *numbers) if numbers else planned(stage)
