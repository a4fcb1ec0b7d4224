"""Sums of products over the steps of loops, and parts that are made where they are joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EVERY_EXECUTOR, EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.ops import shaping

needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Step = Callable[..., list[Tensor]]


def count(captured: Captured, name: str) -> int:
    """How many instructions of a name there are."""
    return sum(i.op.name == name for i in captured.program)


def cell(draw: np.random.Generator, units: int) -> tuple[int, Callable[..., Any]]:
    """The number of gates of a cell, and the cell: z, h, c -> h, c."""

    def lstm(z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = tg.split(z, 4, 1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(c), c

    def gated(z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gate = tg.sigmoid(z[:, units:])
        return gate * h + (1.0 - gate) * tg.tanh(z[:, :units]), c

    def plain(z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return tg.tanh(z), c

    def residual(z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return h + 0.3 * tg.tanh(z), c + h

    return [(4, lstm), (2, gated), (1, plain), (1, residual)][int(draw.integers(4))]


def recurrence(
    seed: int, least: int = 5, fewest: int = 1, dtype: Any = tg.float64
) -> tuple[Step, list[Tensor]]:
    """A random loop: steps are skipped or differ, others use the weights, states are handed out.

    least: of units and inputs. fewest: the rows of a batch.
    """
    draw = np.random.default_rng(seed)
    steps, rows = int(draw.integers(3, 9)), fewest + int(draw.integers(3))
    inputs, units = (least + int(draw.integers(7)) for _ in range(2))
    gates, one = cell(draw, units)
    odd = {
        int(k): str(draw.choice(["skip", "bias", "twice", "see"]))
        for k in draw.integers(0, steps, 3)
    }
    elsewhere, joined, backwards, turned = (bool(draw.integers(2)) for _ in range(4))

    def step(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> list[Tensor]:
        h = c = tg.zeros((rows, units), dtype=x.dtype)
        seen, all_h = [], []
        mine, other = (w.T, u.T) if turned else (w, u)
        for k in range(steps)[:: -1 if backwards else 1]:
            kind = odd.get(k, "")
            if kind == "skip":
                continue
            z = x[k] @ (mine.T if turned else w) + h @ (other.T if turned else u)
            z = z if kind == "bias" else z + b
            h, c = one(z, h, c)
            if kind == "twice":
                h, c = one(h @ u + b, h, c)
            if kind == "see":
                seen.append(h)
            all_h.append(h)
        loss = (h * h).sum() + 0.1 * c.sum()
        if elsewhere:
            loss = loss + (u * u).sum() + (w @ u.T).sum()
        if joined and all_h:
            stacked = tg.stack(all_h)
            seen.append(stacked)
            loss = loss + (stacked * stacked).sum()
        return [loss, *seen, *grad(loss, [x, w, u, b])]

    shapes = (
        (steps, rows, inputs),
        (inputs, gates * units),
        (units, gates * units),
        (gates * units,),
    )
    return step, [
        Tensor(draw.normal(size=s) / np.sqrt(least), dtype=dtype, requires_grad=True)
        for s in shapes
    ]


def assert_alike(step: Step, given: list[Tensor], executor: str) -> Captured:
    """Twice, since memory of the first replay must not show in the second."""
    wanted = [t.data.copy() for t in step(*given)]
    captured = Captured(step, given, executor)
    for _ in range(2):
        for a, b in zip(captured(*given), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    return captured


@pytest.mark.parametrize("seed", range(60))
def test_random_recurrences_give_what_eager_mode_gives(seed: int) -> None:
    assert_alike(*recurrence(seed), "numpy")


@needs_compiler
@pytest.mark.parametrize("seed", range(12))
def test_random_recurrences_in_c_give_what_eager_mode_gives(seed: int) -> None:
    assert_alike(*recurrence(seed), "native")


def lstm(
    steps: int, rows: int = 2, inputs: int = 6, units: int = 8, turned: bool = False
) -> tuple[Step, list[Tensor]]:
    """A loop over an LSTM's cell, with weights that lie as they are used or the other way."""
    draw = np.random.default_rng(0)

    def step(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> list[Tensor]:
        h = c = tg.zeros((rows, units), dtype=x.dtype)
        for k in range(steps):
            z = x[k] @ w.T + h @ u.T if turned else x[k] @ w + h @ u
            i, f, g, o = tg.split(z + b, 4, 1)
            c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
            h = tg.sigmoid(o) * tg.tanh(c)
        return [h.sum(), *grad((h * h).sum(), [w, u, b])]

    shapes = (steps, rows, inputs), (inputs, 4 * units), (units, 4 * units), (4 * units,)
    if turned:
        shapes = shapes[0], shapes[1][::-1], shapes[2][::-1], shapes[3]
    return step, [
        Tensor(draw.normal(size=s) * 0.5, dtype=tg.float64, requires_grad=True) for s in shapes
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_the_gradients_of_weights_in_a_loop_are_one_product_each_whatever_its_length(
    turned: bool,
) -> None:
    for steps in (5, 11):
        captured = assert_alike(*lstm(steps, turned=turned), "numpy")
        # x[k] @ w and h @ u of each step, the gradient of h of all but the first, and w's and u's
        assert count(captured, "matmul") == 3 * steps - 1 + 2
        assert count(captured, "sum_to") == 1
        assert count(captured, "concat") == 3  # the x, the h, and the gradients of the gates
        assert count(captured, "unslice") == 0


@needs_compiler
def test_what_is_joined_is_neither_copied_nor_filled_with_zeros() -> None:
    captured = assert_alike(*lstm(6), "native")
    copies = [
        op.out.shape
        for unit in captured.executor.schedule.units
        for op in unit.operations
        if getattr(op, "name", "") == "copy" and op.out.shape in ((6, 8), (2, 8), (2, 6), (2, 32))
    ]
    # Only the gates' gradients, which are columns, and the first state, which is zero.
    assert len(copies) <= 4 * 6 + 1, copies


def test_products_that_read_more_than_they_write_are_left_alone() -> None:
    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        return [sum((x[k] @ w[k] for k in range(4)), tg.zeros((3, 5)))]

    draw = np.random.default_rng(0)
    given = [Tensor(draw.normal(size=s).astype(np.float32)) for s in ((4, 3, 40), (4, 40, 5))]
    captured = Captured(step, given, "numpy")
    assert count(captured, "concat") == 0
    assert count(captured, "matmul") == 4


@pytest.mark.parametrize("executor", [e for e in EXECUTORS if e != "cuda"])
def test_a_factor_that_is_overwritten_before_the_sum_is_read_before(executor: str) -> None:
    draw = np.random.default_rng(0)
    kept = Tensor(draw.normal(size=(2, 7)), dtype=tg.float64)
    g = Tensor(draw.normal(size=(5, 2, 9)), dtype=tg.float64)
    before = kept.data.copy()

    def step(g: Tensor) -> list[Tensor]:
        total = kept.T @ g[0]
        for k in range(1, 4):
            total = total + kept.T @ g[k]
        kept.multiply_(2.0) if hasattr(kept, "multiply_") else kept.copy_(kept * 2.0)
        return [total + kept.T @ g[4]]

    wanted = before.T @ g.data[:4].sum(0) + 2 * before.T @ g.data[4]
    captured = Captured(step, [g], executor)
    for scale in (1, 2):
        (found,) = captured(g)
        np.testing.assert_allclose(found, scale * wanted, rtol=1e-12)


@EVERY_EXECUTOR
def test_a_product_is_not_computed_where_it_is_transposed_if_a_factor_is_another_one_by_then(
    executor: str,
) -> None:
    draw = np.random.default_rng(0)
    kept = Tensor(draw.normal(size=(2, 7)), dtype=tg.float64)
    g = Tensor(draw.normal(size=(5, 2, 9)), dtype=tg.float64)
    before = kept.data.copy()

    def step(g: Tensor) -> list[Tensor]:
        products = [kept.T @ g[k] for k in range(5)]
        kept.copy_(kept * 2.0)
        return [sum((p.T for p in products[1:]), products[0].T)]

    captured = Captured(step, [g], executor)
    for scale in (1, 2):
        (found,) = captured(g)
        np.testing.assert_allclose(found, scale * (before.T @ g.data.sum(0)).T, rtol=1e-12)


def test_infinities_and_nan_reach_the_sum() -> None:
    step, given = lstm(5)
    given[0].data[2, 1, 3] = np.inf
    given[0].data[3, 0, 2] = np.nan
    wanted = [np.isfinite(t.data) for t in step(*given)]
    for executor in [e for e in EXECUTORS if e != "cuda"]:
        for a, b in zip(Captured(step, given, executor)(*given), wanted, strict=True):
            assert np.array_equal(np.isfinite(a), b)


def test_gradients_of_gradients_through_a_loop() -> None:
    _, given = lstm(4)

    def second(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> list[Tensor]:
        h = tg.zeros((2, 8), dtype=x.dtype)
        for k in range(4):
            h = tg.tanh(x[k] @ w[:, :8] + h @ u[:, :8] + b[:8])
        first = grad((h * h).sum(), [w, u], create_graph=True)
        return list(
            grad(sum(((d * d).sum() for d in first), tg.zeros((), dtype=x.dtype)), [x, w, u, b])
        )

    assert_alike(second, given, "numpy")


@pytest.mark.parametrize(
    ("indices", "shape", "apart", "full"),
    [
        ([(..., (0, 3, None)), (..., (3, 5, None))], (2, 5), True, True),
        ([(..., (0, 3, None)), (..., (2, 5, None))], (2, 5), False, False),
        (
            [((None, None, None), (0, 2, None)), ((None, None, None), (3, 5, None))],
            (2, 5),
            True,
            False,
        ),
        ([(0, ...), (1, ...), (-1, ...)], (3, 2), True, True),
        ([(0, ...), (-3, ...)], (3, 2), False, False),
        ([(0, (0, 1, None)), (1, (1, 2, None))], (2, 2), False, False),
        ([((0, 4, 2), ...), ((1, 4, 2), ...)], (4, 2), False, False),
        ([(None, ...), (None, ...)], (3,), False, False),
        ([((-2, None, None), ...), ((None, -2, None), ...)], (5, 2), True, True),
        ([(...,)], (), True, True),
        ([(...,), (...,)], (), False, False),
        ([((3, 1, None), ...), ((None, None, None), ...)], (4,), True, True),
    ],
)
def test_indices_that_lie_apart_and_cover_all(
    indices: list[Any], shape: tuple[int, ...], apart: bool, full: bool
) -> None:
    hits = np.zeros(shape, int)
    for index in indices:
        hits[shaping.decoded(index)] += 1
    assert shaping._coverage(indices, shape) == (apart, full)
    assert not apart or hits.max(initial=0) <= 1  # it may say no in vain, never yes
    assert not full or hits.min(initial=1) == 1
