"""The gradients at singular points that docs/singular-points.md states, row by row."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import gradgradcheck
from tensorgrad.nn import functional as F  # noqa: N812

PAGE = Path(__file__).parents[2] / "docs" / "singular-points.md"
NAMES = {"tg": tg, "F": F, "inf": math.inf, "nan": math.nan, "float": float}


class Row(NamedTuple):
    call: str
    at: dict[str, Any]
    value: float
    gradients: list[Any]


def rows() -> list[Row]:
    """The rows of the tables of the page."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            call, at, value, gradient = cells
            where = re.findall(r"(\w) = (\[.*?\]|[^,`]+)", at)
            found.append(
                Row(
                    call.strip("`"),
                    {name: eval(text, NAMES) for name, text in where},
                    float(value),
                    [eval(part, NAMES) for part in gradient.split(";")],
                )
            )
    return found


ROWS = rows()


def function(row: Row) -> Any:
    return eval(f"lambda {', '.join(row.at)}: {row.call}", NAMES)


def test_every_row_is_read() -> None:
    lines = PAGE.read_text().splitlines()
    assert len(ROWS) == sum(line.startswith("| `") for line in lines) > 60


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of 1 / 0, as where it is wanted
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.call} at {row.at}")
def test_row(row: Row, compiled: bool, dtype: str) -> None:
    f = function(row)

    def step(*given: Tensor) -> Tensor:
        y: Tensor = f(*given)
        y.backward()
        return y.detach()

    given = [Tensor(x, dtype=dtype, requires_grad=True) for x in row.at.values()]
    run = tg.compile(step) if compiled else step
    y = run(*given)
    if compiled:  # the first call captures, the second replays
        for x in given:
            x.grad = None
        y = run(*given)
    assert str(y.dtype) == dtype
    np.testing.assert_allclose(host(y), row.value, rtol=1e-5, atol=1e-40)
    for x, g in zip(given, row.gradients, strict=True):
        assert x.grad is not None
        np.testing.assert_allclose(host(x.grad), g, rtol=1e-5, atol=1e-40)


ORDINARY: dict[str, tuple[Any, list[list[float]]]] = {
    "norm": (lambda v: tg.norm(v), [[0.5, -2.0, 1.5]]),
    "norm of order 3": (lambda v: tg.norm(v, 3), [[0.5, -2.0, 1.5]]),
    "norm of order 0.5": (lambda v: tg.norm(v, 0.5), [[0.5, -2.0, 1.5]]),
    "norm of order -1.5": (lambda v: tg.norm(v, -1.5), [[0.5, -2.0, 1.5]]),
    "std": (lambda v: tg.std(v, correction=1), [[0.5, -2.0, 1.5]]),
    "hypot": (tg.hypot, [[0.5, -2.0], [1.0, 3.0]]),
    "atan2": (tg.atan2, [[0.5, -2.0], [1.0, 3.0]]),
    "asin": (tg.asin, [[0.5, -0.9]]),
    "atanh": (tg.atanh, [[0.5, -0.9]]),
    "asinh": (tg.asinh, [[0.5, -2.0]]),
    "acosh": (tg.acosh, [[1.5, 2.0]]),
    "logaddexp": (tg.logaddexp, [[0.5, -2.0], [1.0, -2.5]]),
    "pow": (tg.pow, [[0.5, 2.0], [1.5, -0.5]]),
    "cosine": (
        lambda v, w: F.cosine_similarity(v, w, axis=0),
        [[0.5, -2.0, 1.5], [1.0, 0.5, -1.0]],
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_second_derivatives_elsewhere(name: str) -> None:
    f, at = ORDINARY[name]
    gradgradcheck(f, [Tensor(x, dtype="float64", requires_grad=True) for x in at])


def test_rows_of_a_norm_need_each_their_own_scale() -> None:
    values = np.array([[3e25, 4e25], [3.0, 4.0], [3e-30, 4e-30], [0.0, 0.0]], np.float32)
    x = Tensor(values, requires_grad=True)
    y = tg.norm(x, axis=1)
    y.sum().backward()
    np.testing.assert_allclose(host(y), [5e25, 5, 5e-30, 0], rtol=1e-6)
    assert x.grad is not None
    np.testing.assert_allclose(host(x.grad), [[0.6, 0.8]] * 3 + [[0, 0]], rtol=1e-6)


def test_an_order_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="ord must be a number"):
        tg.norm(tg.ones(2), math.nan)
