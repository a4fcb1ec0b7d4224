"""Checkpointing: the whole state of training in a file, so that it can be resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorgrad.errors import TensorgradError
from tensorgrad.training.callback import Callback
from tensorgrad.training.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from tensorgrad.data import DataLoader
    from tensorgrad.training.trainer import Trainer


class Checkpointing(Callback):
    """Saves ``trainer.state_dict()`` to ``path`` after every so many epochs, and on Ctrl-C.

    path: the file, replaced each time in one step.
    every: epochs from one checkpoint to the next.
    config: saved with it, for whoever resumes.

    ``trainer.load_state_dict(load_checkpoint(path).state)`` resumes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if every < 1:
            raise TensorgradError(f"Checkpointing: every must be at least 1 epoch; got {every}")
        self.path = Path(path)
        self.every = every
        self.config = dict(config or {})
        self._last = 0

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Note which epoch will be the last."""
        self._last = epochs

    def on_epoch_complete(self, trainer: Trainer) -> None:
        """Save, if it is time or the last epoch."""
        if trainer.epoch % self.every == 0 or trainer.epoch == self._last or trainer.should_stop:
            self.save(trainer)

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Save what was reached, if Ctrl-C came between two steps."""
        if isinstance(error, KeyboardInterrupt) and trainer.between_steps:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint now."""
        save_checkpoint(self.path, trainer.state_dict(), self.config)
