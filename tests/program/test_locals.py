"""Variables of comprehensions that have the names of cell variables around them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor


def bare_in_the_place_of_a_cell(x: Tensor) -> Tensor:
    p = [x * 2.0]

    class Around:
        value = p[0]

    found = [p + p for p in [[q * 3.0 for q in p] for p in [[x], p]]]
    return Around.value + found[0][0] + found[1][0] * p[0]


def kept_by_a_function(x: Tensor) -> Tensor:
    p = x * 2.0
    made = [lambda: p for p in (x, x * 5.0)]  # noqa: B023
    return made[0]() * p + made[1]()


def read_as_a_whole(x: Tensor) -> Tensor:
    p = x * 2.0
    total = [(lambda: p)() for _ in range(1)]
    for p in [p * y for y in (x, x + 1.0)]:
        total.append(p)
    a, p = p, total[0]
    return a + p + total[1]


def nested(x: Tensor) -> Tensor:
    p, q = x + 1.0, x + 2.0

    def both() -> Tensor:
        return p * q

    rows = [[p * q for p in (p, q)] for q, p in ((p, q), (q, p))]
    return rows[0][0] + rows[0][1] * rows[1][0] + rows[1][1] + both()


def ended_by_an_error(x: Tensor) -> Tensor:
    p = x + 1.0

    def around() -> Tensor:
        return p

    with contextlib.suppress(ZeroDivisionError):
        [p / 0 for p in (1, 2)]
    return around() * [p * 1.0 for p in (x, p)][1]


@pytest.mark.parametrize(
    "step",
    [bare_in_the_place_of_a_cell, kept_by_a_function, read_as_a_whole, nested, ended_by_an_error],
)
def test_values(step: Callable[[Tensor], Tensor]) -> None:
    """They are followed, and nothing crashes: f_locals of 3.13 do, where a place is no cell."""
    compiled = tg.compile(step, executor="numpy")
    for k in range(4):
        x = tg.tensor([1.0 + k, -2.0])
        np.testing.assert_allclose(compiled(x).numpy(), step(x).numpy(), rtol=1e-6)
