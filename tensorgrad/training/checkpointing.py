"""Checkpointing: the whole state of training in files, so that it can be resumed."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorgrad.data import DataLoader
from tensorgrad.errors import TensorgradError
from tensorgrad.files import linked_file, remove_parts
from tensorgrad.training.checkpoint import older, save_checkpoint
from tensorgrad.training.metrics import chosen_mode
from tensorgrad.training.trainer import Callback, Trainer


class Checkpointing(Callback):
    """Saves ``trainer.state_dict()`` to ``path``, now and then and on Ctrl-C.

    path: the file of the newest checkpoint, replaced each time in one step.
    every: epochs from one checkpoint to the next.
    config: saved with it, for whoever resumes.
    steps: besides, after so many training steps, in the middle of an epoch.
    minutes: besides, after so many minutes.
    apart: leave out the checkpoint of an epoch that ends less than so many seconds after the last
        one was saved, unless it is the best or the last.
    keep: how many checkpoints there are, the newest included. Of ``c.safetensors`` the one before
        is ``c.1.safetensors``, and so on. ``load_newest`` takes one of them if the newest is
        damaged.
    best: a column of the history, such as "validation_loss". The checkpoint of the epoch in which
        it was best is kept as ``c.best.safetensors``; NaN never is.
    mode: whether "min" or "max" is best; left out, what the column's name says, as for
        EarlyStopping.

    ``trainer.load_state_dict(load_newest(path).state)`` resumes.

    Raises TensorgradError for numbers below 1 (minutes: not above 0), and for ``best`` and ``mode``
    as EarlyStopping does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        config: Mapping[str, Any] | None = None,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        apart: float = 0.0,
        keep: int = 1,
        best: str | None = None,
        mode: str | None = None,
    ) -> None:
        if every < 1:
            raise TensorgradError(f"Checkpointing: every must be at least 1 epoch; got {every}")
        if keep < 1 or (steps is not None and steps < 1) or (minutes is not None and minutes <= 0):
            raise TensorgradError(
                "Checkpointing: keep and steps must be whole numbers from 1, minutes above 0; got "
                f"{keep}, {steps} and {minutes}"
            )
        self.path = Path(path)
        self.every = every
        self.config = dict(config or {})
        self.steps, self.minutes, self.apart = steps, minutes, apart
        self.keep = keep
        self.best = best
        self.mode = None if best is None else chosen_mode("Checkpointing", best, mode)
        self.best_path = self.path.with_suffix(f".best{self.path.suffix}")
        self._best_figure = math.nan
        self._last = 0
        self._saved_at = 0.0

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Note which epoch will be the last; remove what an earlier process left half-written."""
        self._last = epochs
        self._saved_at = time.monotonic()
        remove_parts(self.path)

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Save, if so many steps or minutes have passed."""
        late = self.minutes is not None and self._since() >= 60 * self.minutes
        if late or (self.steps is not None and trainer.steps % self.steps == 0):
            self.save(trainer)

    def on_epoch_complete(self, trainer: Trainer) -> None:
        """Save, if it is time, the last epoch, or the best."""
        better = self._is_best(trainer)
        if (
            better
            or (trainer.epoch % self.every == 0 and self._since() >= self.apart)
            or trainer.epoch == self._last
            or trainer.should_stop
        ):
            self.save(trainer)
        if better:
            _link(self.path, self.best_path)

    def _since(self) -> float:
        """Seconds since the last checkpoint, or the start."""
        return time.monotonic() - self._saved_at

    def _is_best(self, trainer: Trainer) -> bool:
        if self.best is None:
            return False
        record = trainer.history[-1]
        if self.best not in record:
            raise TensorgradError(
                f"Checkpointing keeps the best by {self.best!r}, but the history has "
                f"{', '.join(record)}; give fit() a validation loader, or name another column"
            )
        sign = 1.0 if self.mode == "min" else -1.0
        figure = record[self.best]
        first = math.isnan(self._best_figure) and not math.isnan(figure)
        if first or sign * figure < sign * self._best_figure:
            self._best_figure = figure
            return True
        return False

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Save what was reached, if Ctrl-C came between two steps."""
        if isinstance(error, KeyboardInterrupt) and trainer.between_steps:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint now."""
        save_checkpoint(self.path, trainer.state_dict(), self.config, self._rotate)
        if self.keep > 1:
            older(self.path, self.keep).unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def _rotate(self) -> None:
        """Give the checkpoints that are there older names, once the next one is on the disk.

        A killed process leaves ``keep`` different files, or as many as there were: the oldest is
        moved one further, and goes only after the new one has its name.
        """
        if self.keep == 1 or not self.path.exists():
            return
        free = 1
        while free < self.keep and older(self.path, free).exists():
            free += 1
        for number in range(free, 1, -1):
            older(self.path, number - 1).replace(older(self.path, number))
        _link(self.path, older(self.path, 1))

    def state_dict(self) -> dict[str, Any]:
        """The best figure."""
        return {"best_figure": self._best_figure}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._best_figure = state["best_figure"]


def _link(source: Path, target: Path) -> None:
    """Give the file ``source`` a second name, in one step; a copy where there are no links."""
    source = linked_file(source)  # a second name of the file, not of a symbolic link to it
    part = target.with_name(f".{target.name}.link.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copy2(source, part)
    part.replace(target)
    part.unlink(missing_ok=True)  # nothing is renamed where both are one file already
