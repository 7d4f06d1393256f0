"""From a model's name and a record folder to a trained, scored and exported model."""

import contextlib
import math
import pathlib

import keras

from kseg.data.augmentation.plan import epoch_plan
from kseg.data.checks.record_faults import quick_check
from kseg.data.pipeline.load import open_split
from kseg.data.records.manifest import NO_VALIDATION
from kseg.export.exported_facts import carried
from kseg.inference.compatibility import check_batch_norm, check_output
from kseg.inference.loading import load_model, with_label_set
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError, as_written
from kseg.io.files import checked_path
from kseg.io.progress import QUIET_SECONDS, Waiting, progress_bar, say
from kseg.io.runtime import check_kernels, settle_kernels
from kseg.layers.preprocessing import preprocess_layer
from kseg.runs import checkpoints
from kseg.runs.checkpoints import TrainState
from kseg.runs.workdir import RunFolder, describe
from kseg.settings import make_settings
from kseg.training.arguments import check_arguments, check_model
from kseg.training.build import (
    build_for_run,
    build_optimizer,
    check_loads,
    make_terms,
    own_architecture,
    precision,
    training_parts,
)
from kseg.training.distribution.cluster import leads
from kseg.training.early_stopping import Selection
from kseg.training.logs import RunLog, chosen_loggers
from kseg.training.screen import EpochClock, duration, epoch_line, run_line, warn_of_warmup
from kseg.training.signals import Interruption, Stopped
from kseg.training.trainers import make_trainer
from kseg.training.validation import compile_predictor, finish, score

_LOG_EVERY_STEPS = 10  # between two looks at the loss
_TIMED_SECONDS = 2  # of the first steps, from which the time of all is estimated


def train(model, data_dir, workdir, *, model_options=None, strategy="auto", callbacks=(), **settings):
    """`kseg.train`, which says what the arguments are, where TensorFlow may be imported."""
    settings = make_settings(**settings)
    check_arguments(data_dir, workdir, callbacks)
    model_options = check_model(model, model_options)
    folder = RunFolder(pathlib.Path(checked_path(workdir, "workdir")))
    with folder.alone() if leads(strategy) else contextlib.nullcontext():
        return _train(model, data_dir, folder, model_options, strategy, callbacks, settings)


def _train(model, data_dir, folder, model_options, strategy, callbacks, settings):
    # First of all: a group of workers must be joined before TensorFlow runs anything.
    trainer = make_trainer(strategy, settings.batch_size, settings.deterministic, settings.accumulate_steps)
    train_split = open_split(data_dir, "train", settings.label_set, settings.label_space)
    if "val" not in train_split.manifest.splits:
        raise InputError(f"{data_dir}: {NO_VALIDATION}.")
    val_split = open_split(data_dir, "val", settings.label_set, settings.label_space)
    digest = train_split.manifest.digest
    wanted = describe(model, data_dir, model_options, strategy, settings, digest, keras.backend.backend())
    longer = folder.check(wanted, len(train_split))
    stored = None if folder.never_saved else (folder.stored() or {}).get("onednn")
    check_kernels(settings.onednn, stored)
    if folder.finished and not longer:
        if not isinstance(model, str):
            with trainer.scope(), precision(settings.mixed_precision):
                folder.check_architecture(own_architecture(model()))
        print(f"{folder.workdir} is finished, nothing to train. Its scores are in scores.json.")
        return _load(folder, settings.keep, train_split), folder.read_history()
    if folder.finished and not checkpoints.list_checkpoints(folder.checkpoints):
        raise InputError(
            f"{folder.workdir} is finished and cannot continue: its checkpoints are gone. Use another --workdir with "
            f"--init_from={folder.workdir}, which starts from its weights."
        )
    wanted["onednn"] = settle_kernels(settings.onednn, stored)
    for warning in quick_check(train_split, val_split):
        print(f"WARNING: {warning}")
    epochs = _Epochs(trainer, settings, folder, train_split, val_split)
    with _clear_if_a_worker_is_lost(trainer):
        with Waiting("building the model", after=QUIET_SECONDS):
            epochs.build(model, model_options)
        log = contextlib.nullcontext()
        if trainer.chief:
            folder.open(wanted, epochs.state.step, epochs.architecture)
            log = RunLog(folder.workdir, chosen_loggers(settings.logger), epochs.state.step, folder.stored_or_none())
    # A worker that stops to save would wait for the others, which know nothing of its signal.
    noted = strategy != "multiworker"
    with _clear_if_a_worker_is_lost(trainer), log as epochs.log, Interruption(noted=noted) as interruption:
        try:
            epochs.run(callbacks, interruption)
            trained = None
            if trainer.chief:
                trained = finish(folder, epochs, train_split, val_split, interruption)
            epochs.from_chief("finished")  # a worker that leaves earlier is one that is gone
            return trained or _load(folder, settings.keep, train_split), epochs.state.history
        except Stopped:
            state = epochs.state
            print(
                f"Stopped at step {state.step} of {state.total_steps}, saved. The same command continues.", flush=True
            )
            interruption.leave()


def _load(folder, keep, train_split):
    return with_label_set(load_model(folder.kept_model(keep)), carried(train_split))


def _clear_if_a_worker_is_lost(trainer):
    """A context in which the loss of another worker is one clear line (ConnectionError)."""
    return trainer.group.readable_errors() if trainer.group else contextlib.nullcontext()


class _Epochs:
    """The loop over a run's epochs: trains, validates, keeps the best weights, and writes checkpoints."""

    def __init__(self, trainer, settings, folder, train_split, val_split):
        self.trainer = trainer
        self.settings = settings
        self.folder = folder
        self.train_split = train_split
        self.val_split = val_split
        self.size = settings.size or train_split.common_size()
        self.epoch_steps = len(self._plan(0))
        self.state = TrainState(total_steps=settings.total_steps(len(train_split)))
        self.selection = Selection(settings.keep, settings.best_by, settings.patience)
        self.architecture = None  # of a model of the user's function
        self.log = None  # RunLog of the chief
        self._announced = False  # whether the line about the run is on the screen
        self._predicted = False  # whether the model has been compiled for scoring
        self._end_seconds = 0.0  # of the last epoch that was scored: scoring, drawing, saving

    def build(self, model, model_options):
        """Build model and optimizer in the trainer; read the newest checkpoint, if there is any."""
        settings = self.settings
        trainer = self.trainer
        found = checkpoints.list_checkpoints(self.folder.checkpoints)
        keras.utils.set_random_seed(settings.seed)
        with trainer.scope(), precision(settings.mixed_precision):
            made = model
            if not isinstance(model, str):
                made = model()
                self.architecture = own_architecture(made)  # as it is built, before the run tells it anything
                self.folder.check_architecture(self.architecture)
            built = build_for_run(made, model_options, settings, self.train_split, self.size, resumed=bool(found))
            check_batch_norm(built, settings.batch_size // settings.accumulate_steps, settings.crop)
            encoder, parts = training_parts(built, settings, self.epoch_steps)
            optimizer = build_optimizer(settings, self.state.total_steps, self.epoch_steps, encoder)
        terms = make_terms(
            self.train_split,
            built.output_shape[-1],
            loss=settings.loss,
            class_weights=settings.class_weights,
            focal_gamma=settings.focal_gamma,
            top_k_share=settings.top_k_share,
        )
        trainer.build(built, optimizer, self.train_split.label_set.num_classes, terms, **parts)
        if not isinstance(model, str):
            check_loads(built)  # after all that draws from the seed
            check_output(built, settings.crop or self.size)
        if settings.remat:
            trainer.rematerialize(settings.crop or self.size)
        if found:
            self._restore(found[-1], bool(settings.init_from or model_options.get("encoder_weights")))

    def _plan(self, epoch):
        settings = self.settings
        images = len(self.train_split)
        return epoch_plan(images, settings.batch_size, settings.seed, epoch, settings.augmentation)

    def _plans(self):
        """The plans of what is left: the rest of this epoch, then whole epochs without end."""
        epoch, done = divmod(self.state.step, self.epoch_steps)
        yield self._plan(epoch)[done:]
        while True:
            epoch += 1
            yield self._plan(epoch)

    def _restore(self, path, began_from_weights):
        state = checkpoints.restore_checkpoint(path, self.trainer.state)
        total_steps = self.state.total_steps
        known = state.normalization != checkpoints.UNKNOWN
        if began_from_weights and not known:
            raise InputError(
                f"Checkpoint {path} is from an earlier kseg and does not say how the run normalises images, which its "
                "initial weights decided. Use another --workdir, and start there as this run did."
            )
        if known and state.normalization:
            layer = preprocess_layer(self.trainer.model)
            layer.mean, layer.scale = map(tuple, state.normalization)
        sums = state.sums
        text = ""
        if state.total_steps is not None and state.total_steps < total_steps:
            sums = state.cut or sums  # an epoch that the earlier end cut short is done to its end
            text = f" (until now {state.total_steps}), --lr_schedule={self.settings.lr_schedule} over {total_steps} "
            text += f"steps from step {state.step + 1} on, where the learning rate is "
            text += f"{self.trainer.learning_rate:.4g}"
            if state.stopped:
                state.best_epoch = state.history[-1]["epoch"]
                text += "; the wait for a better epoch counts from here" if self.settings.patience else ""
            state.stopped = False
        state.total_steps = total_steps
        self.state = state
        self.trainer.restart(**sums)
        say(as_written(f"Going on from step {state.step} of {total_steps}{text}."))

    def _save(self, cut=None):
        """Write a checkpoint; `cut`: the sums of the epoch, if the run's end cuts it short."""
        layer = preprocess_layer(self.trainer.model)
        self.state.normalization = [layer.mean, layer.scale] if layer else None
        self.state.sums = self.trainer.sums()
        self.state.cut = cut
        if self.trainer.chief:
            checkpoints.save_checkpoint(self.folder.checkpoints, self.state, self.trainer.state)

    def from_chief(self, value):
        """Return the chief's value (JSON types) on every worker of a group, all of which must call this."""
        return self.trainer.group.from_chief(value) if self.trainer.group else value

    def run(self, callbacks, interruption):
        """Run the steps that are left; ordinary Keras callbacks are driven along."""
        settings = self.settings
        state = self.state
        trainer = self.trainer
        self.interruption = interruption
        callbacks = keras.callbacks.CallbackList(list(callbacks), model=trainer.model)
        self._hardware, warning = trainer.hardware()  # before a tf.data iterator lives and works beside
        trainer.model.optimizer = trainer.optimizer
        trainer.model.stop_training = False
        resize = settings.resize(self.size)
        batches = trainer.batches(self.train_split, self._plans, settings.batch_size, resize)
        if warning:
            print(f"WARNING: {warning}", flush=True)
        warn_of_warmup(settings.warmup_steps, state.total_steps)
        # A lost worker is reported first: finding a broken record means reading them all.
        with self.train_split.readable_errors(), _clear_if_a_worker_is_lost(trainer):
            callbacks.on_train_begin()
            while (state.step < state.total_steps or trainer.steps) and not state.stopped:
                try:
                    self._epoch(batches, callbacks)
                except Stopped:
                    trainer.check_weights(state.step)
                    self._save()
                    raise
            callbacks.on_train_end()

    @property
    def _epochs_in_all(self):
        return math.ceil(self.state.total_steps / self.epoch_steps)

    def _epoch(self, batches, callbacks):
        state = self.state
        trainer = self.trainer
        size = self.settings.batch_size
        # Of an epoch that was stopped while it was scored all steps are done, but they are still in the sums.
        epoch = (state.step - bool(trainer.steps)) // self.epoch_steps
        first = epoch * self.epoch_steps
        end = min(first + self.epoch_steps, state.total_steps)
        title = f"epoch {epoch + 1}/{self._epochs_in_all}"
        callbacks.on_epoch_begin(epoch)
        begin, clock = self._compiled_steps(title, batches, callbacks, first, end)
        with progress_bar(title, (end - first) * size, (state.step - first) * size, stays=False) as bar:
            while state.step < end:
                if logs := self._train_step(batches, callbacks, first, end):
                    bar.set_postfix({name: f"{value:.3f}" for name, value in logs.items()}, refresh=False)
                bar.update(size)
        clock.stop_steps()
        row = self._end_epoch(epoch, title, clock, callbacks)
        if trainer.chief:
            self._report(epoch, title, row, clock, state.step - begin)

    def _compiled_steps(self, title, batches, callbacks, first, end):
        """Run the step that is compiled, if the next one is, which would be no step's time.

        The first time in a process, time a few more and say what the run is like.

        Returns: (the step after which the clock of the epoch began, that EpochClock).
        """
        state = self.state
        if state.step == end or not self.trainer.compiles(state.step + 1):
            return state.step, EpochClock()
        with Waiting(f"{title}: compiling the training step"):
            self._train_step(batches, callbacks, first, end)
            self.trainer.wait()
            begin = state.step
            clock = EpochClock()
            while not self._announced and state.step < end and clock.seconds() < _TIMED_SECONDS:
                self._train_step(batches, callbacks, first, end)
            self.trainer.wait()
        if not self._announced:
            self._announced = True
            left = state.total_steps - state.step
            seconds = left * clock.seconds() / (state.step - begin) if state.step > begin else None
            name = self.trainer.model.name
            say(run_line(name, self._hardware, self.settings, state.total_steps, self._epochs_in_all, seconds))
        return begin, clock

    def _report(self, epoch, title, row, clock, steps):
        """Print the line about an epoch; steps: that the clock has timed."""
        state = self.state
        pace = []
        if "val_mean_iou" in row:
            self._end_seconds = clock.end_seconds()
        if steps:  # none where the run goes on after an epoch's last step, or compiled for its only one
            rate = clock.rate(steps * self.settings.batch_size)
            memory = self.trainer.peak_memory()
            self.log.pace(state.step, rate, memory)
            every = self.settings.validate_every_epochs
            in_all = self._epochs_in_all
            scored = in_all // every - (epoch + 1) // every + bool(in_all % every)  # the last epoch always is
            seconds = (state.total_steps - state.step) * clock.step_seconds(steps) + scored * self._end_seconds
            pace = [f"{rate:.3g} images/s", f"{memory[0] / 1e9:.2f} GB {memory[1]}"]
            if state.step < state.total_steps and not state.stopped:
                pace.insert(1, f"{duration(seconds)} left")
        say(epoch_line(title, row, self.selection.column, state.best_epoch == row["epoch"], pace))
        if self.selection.exhausted(state, row):
            say(f"Nothing better for {self.settings.patience} epochs: stopped after epoch {epoch + 1}.")

    def _train_step(self, batches, callbacks, first, end):
        """Run the next step of an epoch of steps `first` to `end`; returns the epoch's logs where it looked at them."""
        state = self.state
        position = state.step - first
        callbacks.on_train_batch_begin(position)
        self.trainer.train_step(state.step + 1, next(batches))
        state.step += 1
        logs = self._look() if state.step % _LOG_EVERY_STEPS == 0 or state.step == end else None
        callbacks.on_train_batch_end(position, logs)
        self.interruption.check()
        if state.step % self.settings.checkpoint_every_steps == 0 and state.step < end:
            self.trainer.check_weights(state.step)
            self._save()
        return logs

    def _look(self):
        self.trainer.wait()
        logs = self.trainer.logs()
        if self.log:
            self.log.training(self.state.step, logs, self.trainer.learning_rate)
        return logs

    def _end_epoch(self, epoch, title, clock, callbacks):
        """Score and save; returns the epoch's row of the history."""
        state = self.state
        trainer = self.trainer
        trainer.check_weights(state.step)
        row = {"epoch": epoch + 1, "step": state.step, "learning_rate": trainer.learning_rate, **trainer.logs()}
        last = state.step == state.total_steps
        if last or (epoch + 1) % self.settings.validate_every_epochs == 0:
            row |= self._validate(title, clock)
        self._offer(row)
        callbacks.on_epoch_end(epoch, {name: value for name, value in row.items() if name not in ("epoch", "step")})
        stopped = self.from_chief(bool(trainer.model.stop_training)) or self.selection.exhausted(state, row)
        if stopped and "val_mean_iou" not in row:  # a callback or the loss ends it here: this is the last epoch
            row |= self._validate(title, clock)
            self._offer(row)
        state.history.append(row)
        state.stopped = stopped
        cut = trainer.sums() if state.step % self.epoch_steps else None
        trainer.restart()
        if trainer.chief:
            self.folder.write_history(state.history)
        if last or stopped:
            self._save_model("last.keras")
        self._save(cut)
        return row

    def _validate(self, title, clock):
        """The chief scores, and all know what it found."""
        row = {}
        if self.trainer.chief:
            with self.trainer.averaged_weights():
                predict = predictor(self.trainer.model)
                if not self._predicted:
                    self._predicted = True
                    with clock.stopped():
                        compile_predictor(predict, self.val_split, title)
                scores, pictures = score(predict, self.val_split, self.folder.workdir, self.interruption, title)
                found = scores.values()
                self.log.validation(self.state.step, found, pictures)
                row = {f"val_{name}": value for name, value in found.items()}
        return self.from_chief(row)

    def _offer(self, row):
        if self.selection.offer(self.state, row):
            self._save_model("best.keras")

    def _save_model(self, name):
        if self.trainer.chief:
            with self.trainer.savable():
                self.folder.save_model(self.trainer.model, name)
