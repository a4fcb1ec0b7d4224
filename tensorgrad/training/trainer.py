"""The Trainer: epochs of training steps and validation, and the state that resumes them.

Beside it the base of what can be hung into training.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from tensorgrad.autograd.modes import no_grad
from tensorgrad.data import DataLoader
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import Module
from tensorgrad.nn.evaluating import evaluating
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.optim import ExponentialMovingAverage, Optimizer
from tensorgrad.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tensorgrad.tensor import Tensor
from tensorgrad.training.arithmetic import arithmetic, differences
from tensorgrad.training.metrics import (
    AccuracyOfClasses,
    EpochMetric,
    Figures,
    Metric,
    mode_of,
    resolve,
)
from tensorgrad.training.step import Parts, Step, prepared


class TrainingError(TensorgradError, ArithmeticError):
    """Training cannot go on: the loss is no longer a finite number."""


class Callback:
    """Base of the callbacks; each method may be overridden, and does nothing here.

    They are called in the order in which the Trainer was given them. What they want to know is in
    the trainer: ``epoch`` (epochs done), ``history``, ``running`` (means of the current epoch).
    """

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Before the first batch; ``epochs`` is the number at which training will end."""

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """After each training step; ``done`` batches of the epoch are done."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After validation; ``record`` is the new last line of ``trainer.history``."""

    def on_epoch_complete(self, trainer: Trainer) -> None:
        """After every callback has seen ``on_epoch_end``: the state is that of a whole epoch."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, unless training was aborted."""

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """When ``error`` (KeyboardInterrupt, a loss that is not finite, ...) ends the training."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""


class Trainer:
    """Fits a model to data.

    model: a Module, called with all parts of a batch but the last.
    optimizer: what updates the model's parameters.
    loss: ``loss(output, target)``, the mean over the batch as a tensor of one element; the target
        is the last part of a batch.
    prepare: a function from the inputs of a batch to those of the model, computed inside the step,
        as ``lambda x: x.float() * (1 / 255)`` for pixels that are kept as bytes.
    penalty: a function without arguments whose value is added to the loss for the gradient, as
        ``lambda: l1_penalty(model.parameters(), 1e-4)``. The losses reported are without it.
    metrics: names (``metrics.NAMES``), functions ``metric(output, target)`` -> mean over the
        batch, or ``EpochMetric`` objects. Left out, the accuracy where the targets are classes.
    scheduler: a learning-rate scheduler, stepped after each epoch, or after each batch with
        ``schedule_every="batch"``. ReduceLROnPlateau is given ``monitor``, a column of the history.
    accumulate: each batch goes through the network in so many parts, whose gradients are added up
        before the update: the memory of a small batch, the gradient of a large one (but batch
        normalization sees the parts).
    clip_norm: scale the gradients so that their common norm is at most this.
    precision: "float16" or "bfloat16" computes matrix products in 16 bits (``amp.autocast``);
        parameters and their updates stay float32. float16 losses are scaled (``amp.GradScaler``).
    average: an ``ExponentialMovingAverage`` of the model, updated after each step. Validation is
        done with the means, and after the last epoch they become the weights.
    callbacks: called in this order.
    compile: run the step as a program (``tensorgrad.compile``). Where it cannot become one, the
        reason is given once, as a warning, and the step runs as it is.

    What training gave is in ``history``: one dict for each epoch, with epoch (from 1), lr,
    train_loss, validation_loss, the metrics likewise, and seconds. ``epoch`` is the number of
    epochs done, ``steps`` that of batches; setting ``should_stop`` ends training after the epoch
    under way, and another ``fit`` goes on. ``batch`` and ``last_loss`` are those of the last step.

    Raises TensorgradError for an unknown metric, precision, or schedule_every, and for a
    ReduceLROnPlateau that takes the wrong direction of ``monitor`` for the better one.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        prepare: Callable[..., Any] | None = None,
        penalty: Callable[[], Tensor] | None = None,
        metrics: Sequence[str | Metric | EpochMetric] | None = None,
        scheduler: LRScheduler | ReduceLROnPlateau | None = None,
        schedule_every: str = "epoch",
        monitor: str = "validation_loss",
        accumulate: int = 1,
        clip_norm: float | None = None,
        precision: str | None = None,
        average: ExponentialMovingAverage | None = None,
        callbacks: Sequence[Callback] = (),
        compile: bool = True,
    ) -> None:
        if schedule_every not in ("epoch", "batch"):
            raise TensorgradError(
                f'Trainer: schedule_every must be "epoch" or "batch"; got {schedule_every!r}'
            )
        if isinstance(scheduler, ReduceLROnPlateau) and mode_of(monitor) not in (
            None,
            scheduler.mode,
        ):
            raise TensorgradError(
                f"Trainer: of {monitor!r} the {mode_of(monitor)} is best, but the scheduler has "
                f"mode={scheduler.mode!r}; give ReduceLROnPlateau the other mode, or the Trainer "
                "another monitor"
            )
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.prepare = prepare
        self.penalty = penalty
        self.metrics = resolve((AccuracyOfClasses(),) if metrics is None else metrics)
        self.scheduler = scheduler
        self.schedule_every = schedule_every
        self.monitor = monitor
        self.average = average
        self.callbacks = tuple(callbacks)
        self.epoch = 0
        self.steps = 0
        self.history: list[dict[str, float]] = []
        self.should_stop = False
        self._resumed = False  # since the last fit
        self.between_steps = True
        self.batch: tuple[Tensor, ...] = ()
        self.last_loss: Tensor | None = None
        self._step = Step(accumulate, clip_norm, precision, compile)
        self._figures = Figures(self.metrics)
        self._loader: DataLoader | None = None
        self._loader_state: Mapping[str, Any] | None = None
        self._random: Mapping[str, Any] | None = None  # since load_state_dict, until fit
        self._place: tuple[int, int] | None = None  # of the pass under way: epoch, batches done
        self._interrupted = False
        self._rate: float | None = None  # with which the epoch began

    @property
    def running(self) -> dict[str, float]:
        """The means of the loss and the metrics over the current epoch so far."""
        return self._figures.compute()

    def fit(
        self,
        train_loader: DataLoader,
        validation_loader: DataLoader | None = None,
        epochs: int = 10,
    ) -> list[dict[str, float]]:
        """Train until ``epochs`` epochs are done, those done before included; returns the history.

        A model in evaluation mode is put into that of training. In one that is in training mode,
        modules on which ``eval()`` was called, as a batch normalization that is to keep its
        statistics, stay as they are.

        Ctrl-C ends training between two steps, so that a checkpoint written then is whole; a
        second Ctrl-C ends it at once.

        Raises TrainingError when the loss is no longer finite, KeyboardInterrupt after Ctrl-C.
        """
        self.attach(train_loader)
        if not self._resumed:  # else it is the run that was saved that was to stop
            self.should_stop = False
        self._resumed = False
        try:
            with self._interrupts_deferred():
                for callback in self.callbacks:
                    callback.on_fit_start(self, train_loader, epochs)
                while self.epoch < epochs and not self.should_stop:
                    self._run_epoch(train_loader, validation_loader)
        except BaseException as error:
            for callback in self.callbacks:
                try:
                    callback.on_abort(self, error)
                except Exception as other:  # the next one may have a checkpoint to write
                    error.add_note(f"{type(callback).__name__} failed besides: {other}")
            raise
        if self.average is not None:
            self.average.copy_to_model()
        for callback in self.callbacks:
            callback.on_fit_end(self)
        return self.history

    def attach(self, train_loader: DataLoader) -> None:
        """Take ``train_loader`` for the one whose position ``state_dict`` tells; ``fit`` does so.

        A position that ``load_state_dict`` brought is given to it, and the random numbers go on
        from where they were then, whatever was drawn since.
        """
        first = next(self.model.parameters(), None)
        if first is not None:
            self._step.moved_to(first.device)
        self._loader, self._place = train_loader, None
        if self._loader_state is not None:
            train_loader.load_state_dict(self._loader_state)
            self._loader_state = None
        if self._random is not None:  # the loader, made since, may have drawn its seed from them
            self._restore_random(self._random)
            self._random = None

    def step(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """One training step on a batch; returns the loss (without the penalty) and the output."""
        return self._step(self._parts(), batch)

    def _parts(self) -> Parts:
        return Parts(
            self.model, self.optimizer, self.loss, self.prepare, self.penalty, self.average
        )

    def uncompiled_step(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """The training step as it is written, for looking at what happens in it."""
        own = self._step
        plain = Step(own.accumulate, own.clip_norm, own.precision, compile=False)
        plain.scaler = own.scaler

        def step(*batch: Tensor) -> tuple[Tensor, Tensor]:
            """As ``Trainer.step``."""
            return plain(self._parts(), batch)

        return step

    def source(self) -> str:
        """The code of the compiled step: C or CUDA, or Python over NumPy.

        Raises CompileError before the first step, or where it is not compiled.
        """
        return self._step.source

    @property
    def scales_losses(self) -> bool:
        """Whether losses are scaled, so that gradients are now and then not finite."""
        return self._step.scaler is not None

    def evaluate(self, loader: DataLoader) -> dict[str, float]:
        """The mean loss and metrics over all examples of ``loader``, in evaluation mode.

        Records no gradients and leaves each module in the mode it was in.
        """
        return self.evaluated(loader).compute()

    def evaluated(self, loader: DataLoader) -> Figures:
        """As ``evaluate``, but what the figures are computed from: the metrics themselves."""
        figures = Figures(self.metrics)
        with evaluating(self.model), no_grad():
            for batch in loader:
                if type(batch) is dict:
                    raise _no_tuple(batch)
                *inputs, target = batch
                with self._step.cast():
                    output = self.model(*prepared(self.prepare, inputs))
                    loss = self.loss(output, target)
                figures.add(loss, output, target)
                self._stop_if_interrupted()
        return figures

    def _run_epoch(self, train_loader: DataLoader, validation_loader: DataLoader | None) -> None:
        started = time.perf_counter()
        if not self.model.training:
            self.model.train()
        number, done = train_loader.next_place()
        if not done or self._rate is None:
            self._rate = float(self.optimizer.param_groups[0]["lr"])
        # Those that do nothing after a batch are not asked.
        watching = [c for c in self.callbacks if type(c).on_batch_end is not Callback.on_batch_end]
        by_batch = self.schedule_every == "batch" and self.scheduler is not None
        for batch in train_loader:
            if type(batch) is dict:
                raise _no_tuple(batch)
            self.between_steps = False
            loss, output = self.step(*batch)
            self._figures.add(loss, output, batch[-1])
            if by_batch:
                cast(LRScheduler, self.scheduler).step()
            done += 1
            self._place = number, done
            self.steps += 1
            self.batch, self.last_loss = batch, loss
            self.between_steps = True
            for callback in watching:
                callback.on_batch_end(self, done)
            if self._interrupted:
                raise KeyboardInterrupt
        record: dict[str, float] = {"epoch": self.epoch + 1, "lr": self._rate}
        record.update({f"train_{name}": value for name, value in self.running.items()})
        if not math.isfinite(record["train_loss"]):
            raise TrainingError(
                f"the training loss became {record['train_loss']} in epoch {self.epoch + 1}; lower "
                "the learning rate, or look for the first NaN with autograd.detect_anomaly()"
            )
        if validation_loader is not None:
            with contextlib.nullcontext() if self.average is None else self.average.applied():
                figures = self.evaluate(validation_loader)
            record.update({f"validation_{name}": value for name, value in figures.items()})
        if self._step.compiled_state()["dropped"]:
            # A check found the program wrong, and the numbers are Python's since then: a resumed
            # run need not end with the same bits.
            record["equal_bits"] = 0.0
        record["seconds"] = round(time.perf_counter() - started, 3)
        self.between_steps = False
        if self.schedule_every == "epoch":
            self._step_scheduler(record)
        self._figures = Figures(self.metrics)
        self.history.append(record)
        self.epoch += 1
        self._place = None  # not before: a run interrupted in validation resumes with that
        for callback in self.callbacks:
            callback.on_epoch_end(self, record)
        self.between_steps = True
        for callback in self.callbacks:
            callback.on_epoch_complete(self)
        self._stop_if_interrupted()

    def _step_scheduler(self, record: Mapping[str, float]) -> None:
        if self.scheduler is None:
            return
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
            return
        if self.monitor not in record:
            raise TensorgradError(
                f"ReduceLROnPlateau is to watch {self.monitor!r}, but the history has "
                f"{', '.join(record)}; give fit() a validation loader, or another monitor"
            )
        self.scheduler.step(record[self.monitor])

    # --- interruption and resumption --------------------------------------------------------------

    @contextlib.contextmanager
    def _interrupts_deferred(self) -> Iterator[None]:
        """Let the first Ctrl-C take effect between two steps and not inside one."""
        self._interrupted = False
        usual = signal.default_int_handler
        on_main = threading.current_thread() is threading.main_thread()
        if not on_main or signal.getsignal(signal.SIGINT) is not usual:
            yield
            return

        def note(*_: Any) -> None:
            """The first time; after it Python's own handler."""
            self._interrupted = True
            signal.signal(signal.SIGINT, usual)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def training_state(self) -> dict[str, Any]:
        """A copy of all that a training step changes: weights, optimizer, random numbers.

        ``restore_training_state`` puts it back, without a word about epochs and callbacks.
        """
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"model": weights, **self._state_beside_the_model()}

    def _state_beside_the_model(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self._step.scaler is None else self._step.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": {name: g.state() for name, g in self._named_generators()},
        }

    def restore_training_state(self, state: Mapping[str, Any]) -> None:
        """Put back what ``training_state`` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._step.scaler is not None and state["scaler"] is not None:
            self._step.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self._restore_random(state["random"])

    def _restore_random(self, states: Mapping[str, Any]) -> None:
        for name, generator in self._named_generators():
            generator.set_state(states[name])

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to end with the same bits as an uninterrupted one.

        It refers to the live parameters: save it before training goes on.
        """
        loader_state = self._loader_state
        if self._loader is not None and loader_state is None:
            # Callbacks may go through the loader too; what counts is where training stands.
            epoch, position = self._place or self._loader.next_place()
            loader_state = {**self._loader.state_dict(), "epoch": epoch, "position": position}
        return {
            "model": self.model.state_dict(),
            **self._state_beside_the_model(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "loader": loader_state,
            "epoch": self.epoch,
            "steps": self.steps,
            "rate": self._rate,
            "running": self._figures.state_dict(),
            "history": self.history,
            "should_stop": self.should_stop,
            "compiled": self._step.compiled_state(),
            "arithmetic": arithmetic(),
            "callbacks": {name: c.state_dict() for name, c in self._named_callbacks()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, including the state of the random numbers.

        The next ``fit`` goes on from there, in the middle of an epoch if need be. A callback that
        the saved trainer did not have starts afresh. A warning says if NumPy, its BLAS or the
        number of its threads are others than then, for the last bits may be others too.
        """
        self.restore_training_state(state)
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._loader_state, self._random = state["loader"], dict(state["random"])
        self.epoch = state["epoch"]
        self.steps, self._rate = state["steps"], state["rate"]
        self._figures.load_state_dict(state["running"])
        self.history = [dict(record) for record in state["history"]]
        self.should_stop, self._resumed = state["should_stop"], True
        if "compiled" in state:  # not in checkpoints of before this was kept
            self._step.resume(state["compiled"])
        others = differences(state.get("arithmetic", {}), arithmetic())
        if others:
            warnings.warn(
                f"the run that is resumed computed with {'; '.join(others)}: from here on the last "
                "bits may not be those of an uninterrupted run",
                stacklevel=2,
            )
        for name, callback in self._named_callbacks():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])

    def _named_generators(self) -> Iterator[tuple[str, Generator]]:
        """The default generator, and those that modules of the model have for themselves."""
        yield "default", default_generator
        for path, module in self.model.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Generator):
                    yield f"model.{path}.{name}", value

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """The callbacks under the names of their classes, numbered from the second of a kind."""
        seen: dict[str, int] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}{seen[name]}"), callback


def _no_tuple(batch: Mapping[Any, Any]) -> TensorgradError:
    keys = ", ".join(f"batch[{key!r}]" for key in batch)
    return TensorgradError(
        "a Trainer needs batches that are tuples, of the inputs and, last, the target; got a dict. "
        f"Give the DataLoader transform=lambda batch: ({keys}), in that order"
    )
