"""One process of a run: `python tests/programs/workers.py RECORDS WORKDIR STRATEGY [die_after_step [worker]]`.

It notes the training records that it reads in WORKDIR.reads.INDEX, a line each.
"""

import json
import os
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import keras
import tiny

import kseg
from kseg.data.records import manifest

SETTINGS = {**tiny.SETTINGS, "optimizer": "sgd", "learning_rate": 0.1, "lr_schedule": "constant", "ema_momentum": 0.5}


def note_reads(path):
    """Write the index of every training record that is read to a file."""
    read = manifest.Split.read

    def noted(split, index):
        if split.name == "train":
            with open(path, "a") as file:
                file.write(f"{index}\n")
        return read(split, index)

    manifest.Split.read = noted


def main(data_dir, workdir, strategy, die_after_step="0", worker="1"):
    """Train; SIGKILL this process, if it is that worker, when that many steps are done."""
    index = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)
    note_reads(f"{workdir}.reads.{index}")

    class Die(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if self.steps == int(die_after_step) and index == int(worker):
                os.kill(os.getpid(), signal.SIGKILL)

    kseg.train(tiny.build_without_dropout, data_dir, workdir, strategy=strategy, callbacks=[Die()], **SETTINGS)


if __name__ == "__main__":
    main(*sys.argv[1:])
