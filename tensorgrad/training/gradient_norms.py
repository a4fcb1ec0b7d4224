"""GradientNorms: how long the gradient of each parameter is, as training goes on."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from tensorgrad import backend
from tensorgrad.errors import TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.training.trainer import Callback, Trainer


class GradientNorms(Callback):
    """Notes the Euclidean norm of every parameter's gradient, after every so many steps.

    every: training steps from one row to the next. A GPU is waited for only when rows are read.
    path: a CSV file, written after each epoch in one step: step, and a column for each parameter.

    ``rows`` is a list of dicts: "step", and the name of each parameter with a gradient -> norm.
    With sigmoid units the norms of the first layers are orders of magnitude smaller than with
    ReLU: vanishing gradients. ``viz.plot_gradient_norms`` draws them.
    """

    def __init__(self, every: int = 10, path: str | os.PathLike[str] | None = None) -> None:
        if every < 1:
            raise TensorgradError(
                f"GradientNorms: every must be a whole number from 1; got {every}"
            )
        self.every = every
        self.path = None if path is None else Path(path)
        self._rows: list[dict[str, float]] = []
        self._unread: list[tuple[int, dict[str, Any]]] = []  # squares, perhaps on a GPU

    @property
    def rows(self) -> list[dict[str, float]]:
        """The norms noted so far, as numbers."""
        for step, squares in self._unread:
            norms = {name: math.sqrt(float(square)) for name, square in squares.items()}
            self._rows.append({"step": step, **norms})
        self._unread.clear()
        return self._rows

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Note the norms, if it is time."""
        if trainer.steps % self.every:
            return
        squares: dict[str, Any] = {}
        for name, p in trainer.model.named_parameters():
            if p.grad is not None:
                flat = p.grad.data.reshape(-1)
                of = backend.of(flat)
                with of.at(p.device):
                    wide = flat.astype("float64")
                    squares[name] = of.xp.dot(wide, wide)
        self._unread.append((trainer.steps, squares))

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Write the file, if there is to be one."""
        if self.path is None or not self.rows:
            return
        out = io.StringIO()
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, out.getvalue().encode())

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._rows = [dict(row) for row in state["rows"]]
        self._unread.clear()
