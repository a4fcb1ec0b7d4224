"""TensorBoard: the figures of training as event files."""

from __future__ import annotations

import os
from typing import Any

from tensorgrad.data import DataLoader
from tensorgrad.errors import TensorgradError
from tensorgrad.training.trainer import Callback, Trainer


class TensorBoard(Callback):
    """Writes event files that ``tensorboard --logdir folder`` shows, with tensorboardX.

    folder: where to; made if it is not there. A resumed run adds a file.
    every: training steps from one value of "step/loss" to the next; None leaves it out.

    After each epoch: "loss/train", "loss/validation", the metrics likewise, "lr" and "seconds",
    over the number of the epoch.

    Raises TensorgradError if tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int | None = 10) -> None:
        _writer_class()  # said before anything is trained, or written
        self.folder = os.fspath(folder)
        self.every = every
        self._writer: Any = None

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Open the file."""
        self._writer = _writer_class()(self.folder)

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Write the loss, if it is time."""
        if self.every is not None and trainer.steps % self.every == 0:
            assert trainer.last_loss is not None
            self._writer.add_scalar("step/loss", trainer.last_loss.item(), trainer.steps)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Write the figures of the epoch."""
        for column, value in record.items():
            part, _, name = column.partition("_")
            if column != "epoch":
                tag = f"{name}/{part}" if part in ("train", "validation") else column
                self._writer.add_scalar(tag, value, trainer.epoch)
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self._writer.close()

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise TensorgradError(
            "TensorBoard files are written by tensorboardX, which is not installed; "
            "pip install tensorboardX"
        ) from error
    return SummaryWriter
