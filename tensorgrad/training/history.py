"""History: the figures of every epoch in a file, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from tensorgrad.data import DataLoader
from tensorgrad.errors import TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.training.trainer import Callback, Trainer


class History(Callback):
    """Keeps the whole history in the file ``path``, ``*.csv`` or ``*.json``.

    A row for each epoch, with the columns of ``Trainer.history``; numbers in full precision. The
    file is written in one step when training begins and ends; in between a line is added to a CSV
    file after each epoch, and a JSON file is written anew.

    Raises TensorgradError for another ending.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".csv", ".json"):
            raise TensorgradError(f"History writes .csv or .json, not {self.path.name!r}")
        self._columns: list[str] = []  # those that the file has

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Write what there is of a resumed run: its file may have more."""
        if trainer.history or self.path.exists():
            self._write(trainer)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Add the epoch."""
        if self.path.suffix == ".json" or list(record) != self._columns:
            self._write(trainer)
            return
        # A thousand short epochs must not mean a thousand longer and longer files.
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(record.values())

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write the file for good."""
        self._write(trainer)

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Write the file for good."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        rows = trainer.history
        if self.path.suffix == ".json":
            text = json.dumps(rows, indent=1) + "\n"
        else:
            out = io.StringIO()
            self._columns = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(out, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            text = out.getvalue()
        write_atomically(self.path, text.encode())
