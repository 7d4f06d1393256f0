"""From a model's name and a record folder to a trained, scored and exported model."""

import contextlib
import dataclasses
import math
import pathlib

import keras

from kseg.data.augmentation.plan import Augmentation, epoch_plan
from kseg.data.checks.record_faults import quick_check
from kseg.data.pipeline.load import open_split
from kseg.data.records.manifest import NO_VALIDATION
from kseg.inference.compatibility import check_arguments, check_batch_norm
from kseg.inference.loading import load_model
from kseg.inference.predict import labeller
from kseg.io.errors import InputError
from kseg.io.files import checked_path
from kseg.io.progress import progress_bar
from kseg.io.runtime import settle_kernels
from kseg.layers.preprocessing import preprocess_layer
from kseg.runs import checkpoints
from kseg.runs.workdir import RunFolder, describe
from kseg.settings import make_settings
from kseg.training.build import build_for_run, check_loads, check_model, make_terms, precision, training_parts
from kseg.training.distribution.cluster import leads
from kseg.training.early_stopping import Selection
from kseg.training.logs import EpochClock, NoLog, RunLog
from kseg.training.optimizers import make_optimizer
from kseg.training.signals import Interruption, Stopped
from kseg.training.trainers import make_loop
from kseg.training.validation import finish, score


def train(model, data_dir, workdir, *, model_options=None, strategy="auto", callbacks=(), **settings):
    """`kseg.train`, which says what the arguments are, where TensorFlow may be imported."""
    settings = make_settings(**settings)
    check_arguments(data_dir, workdir, callbacks)
    check_model(model, model_options)
    folder = RunFolder(pathlib.Path(checked_path(workdir, "workdir")))
    with folder.alone() if leads(strategy) else contextlib.nullcontext():
        return _train(model, data_dir, folder, model_options, strategy, callbacks, settings)


def _train(model, data_dir, folder, model_options, strategy, callbacks, settings):
    # First of all: a group of workers must be joined before TensorFlow runs anything.
    loop = make_loop(strategy, settings.batch_size, settings.deterministic, settings.accumulate_steps)
    train_split = open_split(data_dir, "train", settings.label_set, settings.label_space)
    if "val" not in train_split.manifest.splits:
        raise InputError(f"{data_dir}: {NO_VALIDATION}.")
    val_split = open_split(data_dir, "val", settings.label_set, settings.label_space)
    digest = train_split.manifest.digest
    wanted = describe(model, data_dir, model_options or {}, strategy, settings, digest)
    longer = folder.check(wanted, len(train_split))
    if folder.finished and not longer:
        print(f"{folder.workdir} is finished, nothing to train. Its scores are in scores.json.")
        return load_model(folder.kept_model(settings.keep)), folder.read_history()
    if folder.finished and not checkpoints.list_checkpoints(folder.checkpoints):
        raise InputError(
            f"{folder.workdir} is finished and cannot go on: its checkpoints are gone. Use another --workdir with "
            f"--init_from={folder.workdir}, which begins with its weights."
        )
    stored = folder.stored() or {}
    settings = dataclasses.replace(settings, onednn=settle_kernels(settings.onednn, stored.get("onednn")))
    wanted = describe(model, data_dir, model_options or {}, strategy, settings, digest)
    for warning in quick_check(train_split, val_split):
        print(f"WARNING: {warning}")
    with loop.readable_errors():
        run = _Run(model, model_options or {}, loop, settings, train_split, val_split, folder)
        if loop.chief:
            folder.open(wanted, run.step)
    # A worker that stops to save would wait for the others, which know nothing of its signal.
    with loop.readable_errors(), Interruption(noted=strategy != "multiworker") as run.interruption:
        try:
            run.train(callbacks)
            trained = finish(run) if loop.chief else None
            loop.from_chief("finished")  # a worker that leaves earlier is one that is gone
            return trained or load_model(folder.kept_model(settings.keep)), run.history
        except Stopped:
            print(f"Stopped at step {run.step} of {run.total_steps}, saved. The same command goes on.", flush=True)
            run.interruption.leave()


class _Run:
    """Everything a run holds while it lasts: the data, the model in its loop, and where it stands."""

    def __init__(self, model, model_options, loop, settings, train_split, val_split, folder):
        self.settings, self.train_split, self.val_split, self.folder = settings, train_split, val_split, folder
        self.label_set = train_split.label_set
        self.size = (settings.height, settings.width) if settings.height else train_split.common_size()
        self.epoch_steps = len(self._plan(0))
        self.total_steps = settings.total_steps(len(train_split))
        self.step, self.selection, self.history, self.stopped = 0, Selection(settings), [], False
        self.loop = loop
        found = checkpoints.list_checkpoints(folder.checkpoints)
        keras.utils.set_random_seed(settings.seed)
        with self.loop.scope(), precision(settings.mixed_precision):
            self.model = build_for_run(model, model_options, settings, train_split, self.size, resumed=bool(found))
            check_batch_norm(self.model, settings.batch_size // settings.accumulate_steps, settings.crop)
            encoder, parts = training_parts(self.model, settings, self.epoch_steps)
            optimizer = make_optimizer(settings, self.total_steps, self.epoch_steps, encoder)
        terms = make_terms(settings, train_split, self.model.output_shape[-1])
        self.loop.attach(self.model, optimizer, self.label_set.num_classes, terms, **parts)
        if not isinstance(model, str):
            check_loads(self.model)  # after all that draws from the seed
        if settings.remat:
            self.loop.rematerialize(settings.crop or self.size)
        if found:
            self._restore(found[-1], bool(settings.init_from or model_options.get("encoder_weights")))

    def _plan(self, epoch):
        s = self.settings
        ranges = (s.scale_min, s.scale_max, s.flip, s.brightness, s.contrast, s.saturation, s.hue)
        return epoch_plan(len(self.train_split), s.batch_size, s.seed, epoch, Augmentation(*ranges))

    def _plans(self):
        """The plans of what is left: the rest of this epoch, then whole epochs without end."""
        epoch, done = divmod(self.step, self.epoch_steps)
        yield self._plan(epoch)[done:]
        while True:
            epoch += 1
            yield self._plan(epoch)

    def _variables(self):
        average = {"average": self.loop.average.variables} if self.loop.average else {}
        return {"model": self.loop.trained.variables, "optimizer": self.loop.optimizer.variables, **average}

    def _restore(self, path, began_from_weights):
        self.step, state = checkpoints.restore_checkpoint(path, self._variables())
        if began_from_weights and "normalization" not in state:
            raise InputError(
                f"Checkpoint {path} is of an earlier kseg and does not say how the images of the weights that the run "
                "began with are normalised. Use another --workdir, and begin there as this run did."
            )
        if state.get("normalization"):
            layer = preprocess_layer(self.model)
            layer.mean, layer.scale = map(tuple, state["normalization"])
        self.history, self.stopped = state["history"], state["stopped"]
        waited_from, sums = state.get("best_epoch", 0), state["epoch"]
        before, text = state.get("total_steps", self.total_steps), ""
        if before < self.total_steps:
            sums = state["cut"] or sums  # an epoch that the earlier end cut short is done to its end
            text = f" (until now {before}), --lr_schedule={self.settings.lr_schedule} over {self.total_steps} steps "
            text += f"holding from step {self.step + 1} on, where its learning rate is {self.loop.learning_rate:.4g}"
            if self.stopped:
                waited_from = self.history[-1]["epoch"]
                text += "; the wait for a better epoch counts from here" if self.settings.patience else ""
            self.stopped = False
        self.selection = Selection(self.settings, state["best"], waited_from)
        self.loop.restart(**sums)
        print(f"Going on from step {self.step} of {self.total_steps}{text}.")

    def _sums(self):
        """What the epoch has added up so far, JSON types."""
        return {"loss_sum": self.loop.loss_sum, "steps": self.loop.steps, "matrix": self.loop.matrix.tolist()}

    def _save(self, cut=None):
        """Write a checkpoint; `cut`: `_sums` of the epoch, if the run's end cuts it short."""
        layer = preprocess_layer(self.model)
        state = {"best": self.selection.best, "best_epoch": self.selection.epoch, "history": self.history}
        state |= {"stopped": self.stopped, "epoch": self._sums(), "cut": cut, "total_steps": self.total_steps}
        state["normalization"] = [layer.mean, layer.scale] if layer else None
        if self.loop.chief:
            keep = self.settings.keep_checkpoints
            checkpoints.save_checkpoint(self.folder.checkpoints, self.step, self._variables(), state, keep)

    def train(self, callbacks):
        """Run the steps that are left; ordinary Keras callbacks are driven along."""
        callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        hardware, warning = self.loop.hardware()  # before a tf.data iterator lives and works beside
        self.model.optimizer, self.model.stop_training = self.loop.optimizer, False
        result = (*self.size, self.settings.crop, self.settings.label_resize)  # as `training_batches` takes them
        batches = self.loop.batches(self.train_split, self._plans, self.settings.batch_size, result)
        steps = f"{self.total_steps} steps of {self.settings.batch_size} images"
        print(f"{self.model.name}: {steps} on {hardware}", flush=True)
        if warning:
            print(f"WARNING: {warning}", flush=True)
        log = RunLog(self.folder.workdir / "logs", self.step) if self.loop.chief else NoLog()
        # A lost worker is told first: to find a broken record is to read them all.
        with log as self.log, self.train_split.readable_errors(), self.loop.readable_errors():
            callbacks.on_train_begin()
            while (self.step < self.total_steps or self.loop.steps) and not self.stopped:
                try:
                    self._epoch(batches, callbacks)
                except Stopped:
                    self.loop.check_weights(self.step)
                    self._save()
                    raise
            callbacks.on_train_end()

    def _epoch(self, batches, callbacks):
        # Of an epoch that was stopped while it was scored all steps are done, but they are still in the loop's sums.
        settings, epoch = self.settings, (self.step - bool(self.loop.steps)) // self.epoch_steps
        first, end = epoch * self.epoch_steps, min((epoch + 1) * self.epoch_steps, self.total_steps)
        size, title = settings.batch_size, f"epoch {epoch + 1}/{math.ceil(self.total_steps / self.epoch_steps)}"
        callbacks.on_epoch_begin(epoch)
        begin, clock = self.step, EpochClock()
        with progress_bar(title, (end - first) * size, (self.step - first) * size) as bar:
            while self.step < end:
                position = self.step - first
                callbacks.on_train_batch_begin(position)
                self.loop.step(self.step + 1, next(batches))
                self.step += 1
                logs = self._look(bar) if self.step % settings.log_every_steps == 0 or self.step == end else None
                callbacks.on_train_batch_end(position, logs)
                bar.update(size)
                self.interruption.check()
                if self.step % settings.checkpoint_every_steps == 0 and self.step < end:
                    self.loop.check_weights(self.step)
                    self._save()
        clock.stop_steps()
        self._end_epoch(epoch, callbacks)
        steps, remaining = self.step - begin, 0 if self.stopped else self.total_steps - self.step
        pace = clock.rate(steps * size), self.loop.peak_memory(), clock.left(steps, remaining)
        self.log.pace(self.step, title, *pace)

    def _look(self, bar):
        self.loop.check()
        logs = self.loop.logs()
        bar.set_postfix({name: f"{value:.3f}" for name, value in logs.items()}, refresh=False)
        self.log.training(self.step, logs, self.loop.learning_rate)
        return logs

    def _end_epoch(self, epoch, callbacks):
        self.loop.check_weights(self.step)
        row = {"epoch": epoch + 1, "step": self.step, "learning_rate": self.loop.learning_rate, **self.loop.logs()}
        last = self.step == self.total_steps
        if last or (epoch + 1) % self.settings.validate_every_epochs == 0:
            row |= self._validate()
        self._offer(row)
        callbacks.on_epoch_end(epoch, {name: value for name, value in row.items() if name not in ("epoch", "step")})
        stopped = self.loop.from_chief(bool(self.model.stop_training)) or self.selection.exhausted(row)
        if stopped and "val_mean_iou" not in row:  # a callback or the loss ends it here: this is the last epoch
            row |= self._validate()
            self._offer(row)
        if self.selection.exhausted(row):
            print(f"Nothing better for {self.settings.patience} epochs: stopped after epoch {epoch + 1}.", flush=True)
        self.history, self.stopped = [*self.history, row], stopped
        cut = self._sums() if self.step % self.epoch_steps else None
        self.loop.restart()
        if self.loop.chief:
            self.folder.write_history(self.history)
        if last or self.stopped:
            self._save_model("last.keras")
        self._save(cut)

    def _validate(self):
        """The chief scores, and all know what it found."""
        row = {}
        if self.loop.chief:
            with self.loop.averaged_weights():
                row = self.log.validation(self.step, *score(self, labeller(self.model)))
        return self.loop.from_chief(row)

    def _offer(self, row):
        if self.selection.offer(row):
            self._save_model("best.keras")

    def _save_model(self, name):
        if self.loop.chief:
            with self.loop.savable():
                self.folder.save_model(self.model, name)
