"""A number of steps that is given before: from the start of the process, and once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.records.clock import Clock
from bench.records.contestants import Array, Training


def run(
    training: Training,
    batches: Sequence[tuple[Array, ...]],
    rate: Callable[[float], float],
    clock: Clock,
) -> dict[str, Any]:
    """A step for each batch, whose loss is read as it is made; then, with all compiled, once more.

    rate: that after a share of all steps. The score is the mean loss of the last tenth of the first
    turn.
    """
    steps = len(batches)
    losses = []
    for turn in range(2):
        before = clock.read()
        for k, batch in enumerate(batches):
            losses.append(float(training.step(rate(k / steps), *batch)))
        if not turn:
            reached = clock.read()
    return {
        "reached": reached,
        "score": float(np.mean(losses[steps * 9 // 10 : steps])),
        "first_loss": losses[0],
        "steps": steps,
        "parts": {f"{steps:,} further steps": clock.read().since(before)},
    }
