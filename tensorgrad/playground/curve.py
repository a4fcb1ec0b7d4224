"""The curve of the losses, kept within a bound however long training goes on."""

from __future__ import annotations

import math

_MOST = 1000  # points
Row = tuple[int, float | None, float | None]


class Curve:
    """Rows (step, training loss, test loss), from one epoch in ``every``.

    When there are too many, every second one goes and ``every`` doubles, so what is kept depends on
    the epochs alone, not on when somebody looked. ``version`` counts how often rows went.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.every = 1
        self.version = 0

    def is_due(self, epoch: int) -> bool:
        """Whether the end of this epoch, from 1, is to be noted."""
        return epoch % self.every == 0

    def note(self, step: int, train: float | None, test: float | None) -> None:
        """Add a row; one of the same step is replaced. What is not finite becomes None."""
        train, test = (
            one if one is not None and math.isfinite(one) else None for one in (train, test)
        )
        if self.rows and self.rows[-1][0] == step:
            self.rows[-1] = (step, train, test)
            self.version += 1
            return
        self.rows.append((step, train, test))
        if len(self.rows) > _MOST:
            self.rows = self.rows[::2]
            self.every *= 2
            self.version += 1
