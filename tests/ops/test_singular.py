"""The gradients at singular points that docs/singular-points.md states, row by row."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ops import peers
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
    torch: str
    jax: str


def rows() -> list[Row]:
    """The rows of the tables of the page."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 6:
            call, at, value, gradient, torch, jax = cells
            where = re.findall(r"(\w) = (\[.*?\]|[^,`]+)", at)
            found.append(
                Row(
                    call.strip("`"),
                    {name: eval(text, NAMES) for name, text in where},
                    float(value),
                    [eval(part, NAMES) for part in gradient.split(";")],
                    torch,
                    jax,
                )
            )
    return found


ROWS = rows()


def function(row: Row, names: Any = NAMES) -> Any:
    return eval(f"lambda {', '.join(row.at)}: {row.call}", {**NAMES, **names})


def test_every_row_is_read() -> None:
    lines = PAGE.read_text().splitlines()
    assert len(ROWS) == sum(line.startswith("| `") for line in lines) > 150


SPECIAL = [row for row in ROWS if row.call.startswith("tg.special")]
EVERY_DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])


def check(row: Row, y: Any, gradients: list[Any], dtype: str) -> None:
    """What the page says of value and gradients."""
    assert str(y.dtype) == dtype
    told = f"{row.call} at {row.at}"
    np.testing.assert_allclose(host(y), row.value, rtol=1e-5, atol=1e-40, err_msg=told)
    for g, wanted in zip(gradients, row.gradients, strict=True):
        assert g is not None
        np.testing.assert_allclose(host(g), wanted, rtol=1e-5, atol=1e-40, err_msg=told)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of 1 / 0, as where it is wanted
@EVERY_DTYPE
@pytest.mark.parametrize(
    ("row", "compiled"),
    [
        pytest.param(row, compiled, id=f"{row.call} at {row.at}-{'compiled' * compiled or 'eager'}")
        for row in ROWS
        for compiled in (False, True)
        if not (compiled and row in SPECIAL)  # these are compiled together, see below
    ],
)
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
    check(row, y, [x.grad for x in given], dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_functions_compiled() -> None:
    """All in one program; of float64 they are tried by program/test_differential.py."""
    dtype = "float32"
    functions = [(function(row), len(row.at)) for row in SPECIAL]

    def step(*given: Tensor) -> list[Tensor]:
        following, found = iter(given), []
        for f, count in functions:
            y = f(*[next(following) for _ in range(count)])
            y.backward()
            found.append(y.detach())
        return found

    given = [Tensor(x, dtype=dtype, requires_grad=True) for row in SPECIAL for x in row.at.values()]
    run = tg.compile(step)
    run(*given)
    for x in given:
        x.grad = None
    following = iter(given)
    for row, y in zip(SPECIAL, run(*given), strict=True):
        check(row, y, [next(following).grad for _ in row.at], dtype)


def agrees(found: peers.Found, value: float, gradients: list[Any]) -> bool:
    """Whether that is what a peer gave, up to rounding."""
    pairs = zip([found.value, *found.gradients], [value, *gradients], strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-40, equal_nan=True) for a, b in pairs)


def check_peer(row: Row, cell: str, found: peers.Found | None) -> None:
    """A cell says "same", "-" if there is nothing to compare, or value and gradients."""
    if cell in ("-", "same"):
        assert (found is None) == (cell == "-")
        assert found is None or agrees(found, row.value, row.gradients), found
        return
    value, _, gradients = cell.partition(":")
    assert found is not None
    said = [eval(part, NAMES) for part in gradients.split(";")]
    assert agrees(found, float(value), said), found
    assert not agrees(found, row.value, row.gradients)


@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_gives() -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    names = peers.torch_names()
    for row in ROWS:
        check_peer(row, row.torch, peers.by_torch(function(row, names), list(row.at.values())))


def check_jax(rows: list[Row]) -> None:
    jax = pytest.importorskip("jax", reason="compares with JAX")
    if not jax.__version__.startswith("0.10."):
        pytest.skip("the page tells of JAX 0.10")
    names = {**peers.jax_names(), "F": peers.Names()}
    for row in rows:
        check_peer(row, row.jax, peers.by_jax(function(row, names), list(row.at.values())))


@pytest.mark.filterwarnings("ignore")
def test_what_jax_gives() -> None:
    """Some of the rows, since JAX compiles each."""
    check_jax(ROWS[::30])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_that_jax_gives() -> None:
    check_jax(ROWS)


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
