"""Second gradients where a rule tells cases apart: equal arguments, zeros, ones.

A rule that puts a constant in a place of its own, as at ``x1 == x2``, may have the right value and
lose the slope. Where first gradients on both sides agree on a slope, the second gradient is it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from ops.test_table import ROWS

import tensorgrad as tg
from tensorgrad.ops.table import Operation

POINTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)
STEPS = (1e-5, 5e-6)


def inputs_of(row: Operation) -> int:
    """How many tensors the row is a function of, element by element; 0 if it is another kind."""
    if not row.elementwise or not row.gradient or row.primitive is None:
        return 0

    count = len(row.primitive.inputs)
    try:
        row.function(*[tg.Tensor(np.full(2, 0.5)) for _ in range(count)])
    except Exception:  # it takes something else besides
        return 0
    return count if count <= 2 else 0


def first_gradients(row: Operation, points: list[Any]) -> list[Any]:
    """As tensors with a history, and the tensors."""
    leaves = [tg.Tensor(p, requires_grad=True) for p in points]
    y = row.function(*leaves)
    return [leaves, tg.autograd.grad(y.sum(), leaves, create_graph=True)]


def numeric(row: Operation, points: list[Any], which: int, by: int) -> list[Any]:
    """Slopes of a first gradient to the left and to the right, by steps of two lengths."""

    def at(shift: float) -> Any:
        moved = [p + shift if k == by else p for k, p in enumerate(points)]
        return first_gradients(row, moved)[1][which].detach().numpy()

    there = at(0.0)
    return [(at(sign * step) - there) / (sign * step) for step in STEPS for sign in (-1, 1)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", [row for row in ROWS if inputs_of(row)], ids=lambda row: row.name)
def test_second_gradients_are_the_slopes_of_the_first(row: Operation) -> None:
    count = inputs_of(row)
    grid = np.array(list(itertools.product(POINTS, repeat=count))).T
    points = [np.array(p) for p in grid]
    leaves, firsts = first_gradients(row, points)
    for which, first in enumerate(firsts):
        if not first.requires_grad:
            found = [np.zeros_like(p) for p in points]
        else:
            seconds = tg.autograd.grad(first.sum(), leaves, retain_graph=True)
            found = [s.numpy() for s in seconds]
        for by in range(count):
            slopes = np.array(numeric(row, points, which, by))
            scale = 1.0 + np.abs(slopes).max(0)
            smooth = np.isfinite([*slopes, found[by]]).all(0) & (np.ptp(slopes, 0) < 1e-3 * scale)
            mean = slopes.mean(0)
            wrong = smooth & (np.abs(found[by] - mean) > 1e-3 * scale)
            assert not wrong.any(), (
                f"d2/d{which}d{by} at {grid[:, wrong][:, :3].T.tolist()}: "
                f"{found[by][wrong][:3]}, not {mean[wrong][:3]}"
            )


@pytest.mark.parametrize("zero", [0.0, 0j])
def test_second_gradients_of_zero_to_the_zero_are_finite(zero: complex) -> None:
    base, exponent = (tg.Tensor(np.array(zero), requires_grad=True) for _ in range(2))
    (first,) = tg.autograd.grad(tg.real(base**exponent), base, create_graph=True)
    assert first.item() == 0
    for second in tg.autograd.grad(tg.real(first), [base, exponent]):
        assert np.isfinite(second.numpy())
