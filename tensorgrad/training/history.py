"""History: the figures of every epoch in a file, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tensorgrad.data.files import write_atomically
from tensorgrad.errors import TensorgradError
from tensorgrad.training.callback import Callback

if TYPE_CHECKING:
    from tensorgrad.training.trainer import Trainer


class History(Callback):
    """After each epoch writes the whole history to ``path`` (``*.csv`` or ``*.json``) in one step.

    A row for each epoch, with the columns of ``Trainer.history``; numbers in full precision.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".csv", ".json"):
            raise TensorgradError(f"History writes .csv or .json, not {self.path.name!r}")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Write the file."""
        rows = trainer.history
        if self.path.suffix == ".json":
            text = json.dumps(rows, indent=1) + "\n"
        else:
            out = io.StringIO()
            columns = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(out, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            text = out.getvalue()
        write_atomically(self.path, text.encode())
