"""Progress: a line that shows how training goes, and stays as one line for each epoch."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from tensorgrad.data import DataLoader
from tensorgrad.training.trainer import Callback, Trainer

_INTERVAL = 0.1  # seconds between two drawings of the line


class Progress(Callback):
    """Shows the epoch, the loss, the metrics, the rate and the time remaining.

    stream: where to; standard error by default. On a terminal the line is drawn anew while the
        epoch runs; anywhere else there is one plain line when it ends.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._given = stream
        self._epochs = 0
        self._batches = 0
        self._started = 0.0
        self._done = 0  # batches since fit began
        self._drawn = 0.0
        self._width = 0  # of the line that is on the terminal now
        self._examples = 1  # in a batch
        self._live = False

    @property
    def _stream(self) -> TextIO | None:
        """None where standard error is closed: then nothing is said."""
        return sys.stderr if self._given is None else self._given

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Start the clock."""
        self._epochs, self._batches = epochs, len(loader)
        self._examples = loader.batch_size
        self._done = 0
        self._started = time.perf_counter()
        self._live = self._stream is not None and self._stream.isatty()

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Draw the line, if it is time."""
        self._done += 1
        if not self._live:
            return
        now = time.perf_counter()
        if now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        rate = self._done / max(now - self._started, 1e-9)
        left = self._batches * (self._epochs - trainer.epoch) - done
        filled = round(20 * done / self._batches)
        self._draw(
            f"epoch {trainer.epoch + 1:>{len(str(self._epochs))}}/{self._epochs} "
            f"[{'=' * filled}{' ' * (20 - filled)}]  {_figures(trainer.running)}  "
            f"{rate * self._examples:,.0f} examples/s  {_clock(left / rate)} left"
        )

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Leave one line for the epoch."""
        parts = []
        for part in ("train", "validation"):
            own = {k.partition("_")[2]: v for k, v in record.items() if k.startswith(f"{part}_")}
            if own:
                parts.append(f"{part}: {_figures(own)}")
        count = f"{trainer.epoch:>{len(str(self._epochs))}}/{self._epochs}"
        self._clear()
        self._put(f"epoch {count}  {'  '.join(parts)}  {record['seconds']:.2f} s\n")

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Leave the terminal on a fresh line."""
        self._clear()

    def _draw(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        self._put("\r" + line.ljust(self._width))
        self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            self._put("\r" + " " * self._width + "\r")
            self._width = 0

    def _put(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def _figures(values: dict[str, float]) -> str:
    """Losses as numbers, accuracies in percent."""
    return "  ".join(
        f"{name} {value * 100:.2f} %" if name == "accuracy" else f"{name} {value:.4f}"
        for name, value in values.items()
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
