"""EarlyStopping: end training when the validation figure no longer improves, and keep the best."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from tensorgrad.errors import TensorgradError
from tensorgrad.training.metrics import chosen_mode
from tensorgrad.training.trainer import Callback, Trainer


class EarlyStopping(Callback):
    """Stop after ``patience`` epochs in a row without improvement.

    patience: epochs to wait for an improvement, from 1; None never stops, but still keeps the best.
    monitor: the column of the history to watch.
    mode: "min" if small is good, "max" if large is good; left out, what the column's name says:
        "min" for a loss or an error, "max" for an accuracy and the like.
    min_delta: the least change that counts as an improvement.
    restore_best: at the end put the weights of the best epoch back into the model.

    ``best_epoch`` (from 1; 0 before the first) and ``best`` say where the best was. A figure that
    is NaN is never the best. Another ``fit`` after it stopped waits anew.

    Raises TensorgradError for numbers out of range, another mode, or none where the name of the
    column does not say it.
    """

    def __init__(
        self,
        patience: int | None = 10,
        monitor: str = "validation_loss",
        mode: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        if patience is not None and patience < 1:
            raise TensorgradError(
                f"EarlyStopping: patience must be at least 1, or None; got {patience}"
            )
        if not min_delta >= 0:
            raise TensorgradError(f"EarlyStopping: min_delta must be at least 0; got {min_delta}")
        self.patience = patience
        self.monitor = monitor
        self.sign = 1.0 if chosen_mode("EarlyStopping", monitor, mode) == "min" else -1.0
        self.min_delta = min_delta
        self.restore_best = restore_best
        self.best = math.nan
        self.best_epoch = 0
        self._stopped = 0  # the epoch after which it last ended training
        self._weights: dict[str, Any] | None = None

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Compare with the best so far."""
        if self.monitor not in record:
            raise TensorgradError(
                f"EarlyStopping watches {self.monitor!r}, but the history has "
                f"{', '.join(record)}; give fit() a validation loader, or another monitor"
            )
        value = record[self.monitor]
        first = not self.best_epoch and not math.isnan(value)
        if first or self.sign * (self.best - value) > self.min_delta:
            self.best, self.best_epoch = value, trainer.epoch
            if self.restore_best:
                # Where a moving average is validated, it is what was best.
                average = trainer.average
                with contextlib.nullcontext() if average is None else average.applied():
                    self._weights = {
                        k: v.detach().clone() for k, v in trainer.model.state_dict().items()
                    }
            return
        waited = trainer.epoch - max(self.best_epoch, self._stopped)
        if self.patience is not None and waited >= self.patience:
            trainer.should_stop = True
            self._stopped = trainer.epoch

    def on_fit_end(self, trainer: Trainer) -> None:
        """Put the best weights back."""
        if self._weights is not None:
            trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The best figure, its epoch and its weights."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self._stopped,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._stopped = state.get("stopped", 0)  # not in checkpoints of before this was kept
        self._weights = state["weights"]
