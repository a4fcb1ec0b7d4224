"""NanStop: end training at the first loss that is not finite, and say where it arose."""

from __future__ import annotations

import math
from typing import Any

from numpy import ndarray

from tensorgrad.autograd import detect_anomaly
from tensorgrad.data import DataLoader
from tensorgrad.errors import AnomalyError, TensorgradError
from tensorgrad.tensor import Tensor
from tensorgrad.training.trainer import Callback, Trainer, TrainingError

_MOST_BYTES = 1 << 26


class NanStop(Callback):
    """Watches the loss of every step (on a GPU: of every ``every`` steps, so as not to wait).

    every: steps from one copy of the model's and the optimizer's state to the next; fewer where
        the batches since, which are kept too, take more than 64 MiB.

    When a loss is not finite, the last copy is put back and the steps since are repeated under
    ``detect_anomaly``, with the same batches and random numbers. Training ends with a
    TrainingError that names the operation and the line; the weights are those of the last copy.
    """

    def __init__(self, every: int = 100) -> None:
        if every < 1:
            raise TensorgradError(f"NanStop: every must be a whole number from 1; got {every}")
        self.every = every
        self._state: dict[str, Any] = {}
        self._batches: list[tuple[Tensor, ...]] = []
        self._losses: list[Any] = []
        self._bytes = 0  # of the batches

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Take the first copy."""
        self._take(trainer)

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Look at the loss."""
        assert trainer.last_loss is not None
        self._batches.append(trainer.batch)
        self._bytes += sum(part.nbytes for part in trainer.batch)
        self._losses.append(trainer.last_loss.data)
        if isinstance(trainer.last_loss.data, ndarray):
            if math.isfinite(trainer.last_loss.data):
                self._losses.clear()
            else:
                self._stop(trainer)
        if len(self._batches) >= self.every or self._bytes > _MOST_BYTES:
            for loss in self._losses:
                if not math.isfinite(float(loss)):
                    self._stop(trainer)
            self._take(trainer)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Look at the losses of the rest of the epoch."""
        if any(not math.isfinite(float(loss)) for loss in self._losses):
            self._stop(trainer)
        self._take(trainer)  # callbacks after this one may change the model

    def _take(self, trainer: Trainer) -> None:
        self._state = trainer.training_state()
        self._batches.clear()
        self._losses.clear()
        self._bytes = 0

    def _stop(self, trainer: Trainer) -> None:
        state, batches = self._state, list(self._batches)
        first = trainer.steps - len(batches)
        trainer.restore_training_state(state)
        step = trainer.uncompiled_step()
        found = "it did not arise again when the steps since were repeated without compiling"
        at = trainer.steps
        for number, batch in enumerate(batches, first + 1):
            try:
                # Where losses are scaled, gradients that are not finite are nothing unusual.
                if trainer.scales_losses and number < trainer.steps:
                    step(*batch)
                else:
                    with detect_anomaly():
                        step(*batch)
            except AnomalyError as error:
                found, at = str(error), number
                break
        trainer.restore_training_state(state)
        raise TrainingError(
            f"the training loss was not finite in step {trainer.steps}, epoch {trainer.epoch + 1}; "
            f"step {at}: {found}. The weights are those after step {first}. Lower the learning "
            "rate, clip the gradients, or look at the input"
        )
