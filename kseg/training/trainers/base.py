"""What training needs from a backend: build in a scope, give batches, run steps, say when something is not finite."""

import contextlib
import math

import keras
import numpy as np

from kseg.inference.finite import first_not_finite
from kseg.io.errors import InputError, NotFiniteError
from kseg.io.runtime import peak_memory
from kseg.metrics.scores import five_scores
from kseg.training.averaging import MovingAverage


class Trainer:
    """The accounting that backends share. A subclass has `scope`, `build`, `hardware`, `batches` and `train_step`.

    It adds up the epoch's loss and confusion matrix, and looks at steps some time after they were started, so that a
    device need not wait. `devices` is the number of replicas; `trained` is `model`, or holds it and an auxiliary head;
    `average` is the model's MovingAverage, or None; `group` is the WorkerGroup that this process is in, or None.
    """

    def __init__(self):
        self.devices = 1
        self.model = None
        self.trained = None
        self.optimizer = None
        self.metric = None
        self.average = None
        self.group = None
        self.loss_sum = 0.0
        self.steps = 0
        self._matrix_before = 0
        self._started = []  # (step, its loss, how many replicas' gradients are not finite), not looked at yet
        self._compiled = False  # whether the step to come has run before

    @property
    def chief(self):
        """Whether this process writes what a run leaves."""
        return self.group is None or self.group.index == 0

    def compiles(self, number):
        """Whether the step of that number is compiled first, which takes many times as long as a step."""
        return not self._compiled

    @property
    def state(self):
        """The variables that a checkpoint holds, lists by what they belong to."""
        variables = {"model": self.trained.variables, "optimizer": self.optimizer.variables}
        if self.average:
            variables["average"] = self.average.variables
        return variables

    def restart(self, loss_sum=0.0, steps=0, matrix=None):
        """Begin an epoch, or continue in the middle of one with its sums so far."""
        self.metric.reset_state()
        self._matrix_before = 0 if matrix is None else np.asarray(matrix, np.int64)
        self.loss_sum = loss_sum
        self.steps = steps

    def sums(self):
        """What the epoch has added up so far, JSON types: what `restart` takes."""
        return {"loss_sum": self.loss_sum, "steps": self.steps, "matrix": self.matrix.tolist()}

    @property
    def matrix(self):
        """The epoch's confusion matrix so far, int64 (C, C + 1)."""
        return self.metric.matrix() + self._matrix_before

    @property
    def learning_rate(self):
        """The rate of the next step."""
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))

    def logs(self):
        """Return the epoch's mean loss and training mean IoU so far."""
        return {"loss": self.loss_sum / max(self.steps, 1), "mean_iou": five_scores(self.matrix, "macro")["jaccard"]}

    def peak_memory(self):
        """Return (bytes, of what): the most memory of this process so far, or of a device if the backend reports it."""
        return peak_memory(), "memory"

    def hardware(self):
        """Return (what the steps run on, of `devices_text`, a warning about it or None)."""
        raise NotImplementedError

    def wait(self):
        """Wait for the steps so far; FloatingPointError names the first whose loss or gradient is not finite."""
        for number, loss, broken in self._started:
            loss = float(loss)
            if int(broken) or not math.isfinite(loss):
                what = "gradient" if math.isfinite(loss) else "loss"
                raise NotFiniteError(f"The {what} of step {number} is not finite (loss {loss}).")
            self.loss_sum += loss
            self.steps += 1
        self._started.clear()

    def check_weights(self, step):
        """As `wait`, and every weight must be finite after `step`: nothing else may get into a checkpoint."""
        self.wait()
        if path := first_not_finite(self.trained.variables):
            raise NotFiniteError(f"{path} is not finite after step {step}.")

    @contextlib.contextmanager
    def savable(self):
        """The model as a file should hold it: averaged weights if there are any, no optimizer."""
        self.model.optimizer = None
        with self.averaged_weights():
            yield
        self.model.optimizer = self.optimizer

    @contextlib.contextmanager
    def averaged_weights(self):
        """Put the moving average in place for a while, if there is one."""
        with self.average.in_place() if self.average else contextlib.nullcontext():
            yield

    def _start_average(self, momentum):
        """Follow the model's weights from here on; momentum 0: do not. For `build`, in the scope."""
        if momentum:
            self.average = MovingAverage(self.model, self.optimizer, momentum)


def devices_text(count, kind, name):
    """Return "1 CPU (oneDNN on)", "2 GPUs (NVIDIA H200)"."""
    return f"{count} {kind}{'' if count == 1 else 's'} ({name})"


def choose_devices(strategy, batch_size, accelerators, others):
    """Return the devices to train on: a list of one or more, of the accelerators if there are any.

    Args:
        strategy: as in `make_trainer`. batch_size: images of one pass. accelerators, others: lists of devices.
    """
    devices = accelerators or others
    if strategy == "one" or (strategy == "auto" and not accelerators):
        return devices[:1]
    if strategy == "auto":
        return devices[: max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)]
    if batch_size % len(devices):
        raise InputError(
            f"A batch (of one pass, if accumulated) must be divisible by the {len(devices)} devices, got {batch_size} "
            f"images. Take {-(-batch_size // len(devices)) * len(devices)}, or strategy auto."
        )
    return devices
