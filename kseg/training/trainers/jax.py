"""The training step on JAX: Keras' own compiled `train_on_batch`, over one device or all of them."""

import contextlib

import jax
import keras

from kseg.io.errors import InputError
from kseg.losses.keras_losses import Objective
from kseg.metrics.keras_metric import SegmentationScores
from kseg.training.trainers.base import Trainer, choose_devices, devices_text


class JaxTrainer(Trainer):
    """Runs steps under `keras.distribution`; batch norm and loss are global there by themselves.

    A gradient that is not finite shows in the loss of the next step.
    """

    def __init__(self, strategy, batch_size, deterministic, accumulate_steps):
        super().__init__()
        if strategy == "multiworker" or accumulate_steps > 1:
            what = "strategy multiworker" if strategy == "multiworker" else "accumulate_steps"
            raise InputError(f"{what} needs KERAS_BACKEND=tensorflow, got jax. Leave it out, or change the backend.")
        if deterministic:
            raise InputError(
                "deterministic works under TensorFlow only; under JAX set XLA_FLAGS=--xla_gpu_deterministic_ops=true."
            )
        present = jax.local_devices()
        accelerators = [device for device in present if device.platform != "cpu"]
        devices = choose_devices(strategy, batch_size, accelerators, present)
        self.devices = len(devices)
        self._used = devices
        self._distribution = None
        if self.devices > 1:
            names = [f"{device.platform}:{device.id}" for device in devices]
            self._distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)

    @contextlib.contextmanager
    def scope(self):
        """Where model and optimizer are built."""
        with self._distribution.scope() if self._distribution else contextlib.nullcontext():
            yield

    def build(self, model, optimizer, num_classes, terms, *, ema_momentum=0.0):
        """Take the model and the optimizer, both built in `scope`, and the `losses.Term`s of the loss."""
        self.model = model
        self.trained = model
        self.optimizer = optimizer
        with self.scope():
            self.metric = SegmentationScores(num_classes)
            model.compile(optimizer, Objective(terms), metrics=[self.metric], auto_scale_loss=False)
            optimizer.build(model.trainable_variables)
            self._start_average(ema_momentum)
        self._next_average = jax.jit(self._averaged, donate_argnums=0)
        self.restart()

    def peak_memory(self):
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in self._used]
        return super().peak_memory() if None in peaks else (max(peaks), "device memory")

    def hardware(self):
        return devices_text(self.devices, self._used[0].platform.upper(), f"JAX, {self._used[0].device_kind}"), None

    def rematerialize(self, size):
        """Refuse what this backend does not do."""
        raise InputError("remat needs KERAS_BACKEND=tensorflow, got jax. Leave it out, or change the backend.")

    def batches(self, source, plans, batch_size, resize):
        """Iterate over the batches of the plans; the arguments are those of `TensorFlowTrainer.batches`."""
        return source.training_batches(plans, batch_size, resize)

    def restart(self, loss_sum=0.0, steps=0, matrix=None):
        self.model.reset_metrics()
        super().restart(loss_sum, steps, matrix)
        self._mean_loss = 0.0
        self._count = 0

    def train_step(self, number, batch):
        """Run the step of that number (from 1) on a batch of `batches`."""
        with self.scope():
            # Keras gives the mean loss since `restart`; a step's own is the difference of the sums.
            mean_loss = float(self.model.train_on_batch(*batch, return_dict=True)["loss"])
            loss = mean_loss * (self._count + 1) - self._mean_loss * self._count
            self._mean_loss = mean_loss
            self._count += 1
            self._started.append((number, loss, 0))
            self._compiled = True
            if self.average:
                own = self.average.variables
                followed = self.average.followed
                values = self._next_average([v.value for v in own], [v.value for v in followed])
                for variable, value in zip(own, values, strict=True):
                    variable.assign(value)

    def _averaged(self, own, followed):
        """`MovingAverage.update` of values, for jax.jit."""
        average = self.average
        variables = [*average.variables, *average.followed]
        with keras.StatelessScope(state_mapping=zip(variables, [*own, *followed], strict=True)) as scope:
            average.update()
            return [scope.get_current_value(variable) for variable in average.variables]
