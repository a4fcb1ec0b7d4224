"""LivePlot: a page for the browser that shows how training goes while it goes."""

from __future__ import annotations

import math
import os
import time
from html import escape
from pathlib import Path

from tensorgrad.data import DataLoader
from tensorgrad.files import write_atomically
from tensorgrad.training.curves import draw_curves
from tensorgrad.training.trainer import Callback, Trainer


class LivePlot(Callback):
    """Keeps an HTML page up to date: open the file ``path`` in a browser, which loads it anew.

    seconds: how often at most it is written, in the middle of an epoch too, and how often the
        browser looks. When training has ended the page stays as it is.

    The page holds everything it shows, so it opens without a server or a network.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 2.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self._written = 0.0
        self._epochs = 0
        self._batches = 1

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Write the page for the first time."""
        self._epochs, self._batches = epochs, len(loader)
        self._write(trainer, "training begins", running=True)

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Write the page, if it is time."""
        if time.monotonic() - self._written >= self.seconds:
            text = f"epoch {trainer.epoch + 1} of {self._epochs}, batch {done} of {self._batches}"
            self._write(trainer, text, running=True)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Write the page, if it is time."""
        if time.monotonic() - self._written >= self.seconds:
            text = f"epoch {trainer.epoch} of {self._epochs} is done"
            self._write(trainer, text, running=True)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write the page for the last time."""
        self._write(trainer, f"ended after epoch {trainer.epoch}", running=False)

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Say on the page how training ended."""
        text = " ".join(str(error).split()) or "interrupted"
        self._write(trainer, f"ended in epoch {trainer.epoch + 1}: {text}", running=False)

    def _write(self, trainer: Trainer, state: str, running: bool) -> None:
        figures = "".join(
            f"<tr><td>{escape(name)}</td><td>{value:.6g}</td></tr>"
            for name, value in trainer.running.items()
            if math.isfinite(value)
        )
        again = f'<meta http-equiv="refresh" content="{max(self.seconds, 1):g}">' if running else ""
        page = (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{again}'
            "<title>training</title><style>body{font:15px system-ui,sans-serif;margin:2em}"
            "td{padding:.1em 1em .1em 0}</style></head><body>"
            f"<h1>{escape(state)}</h1>{draw_curves(trainer.history)}"
            f"<h2>the epoch so far</h2><table>{figures}</table></body></html>\n"
        )
        write_atomically(self.path, page.encode())
        self._written = time.monotonic()
