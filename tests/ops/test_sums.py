"""Sums of many numbers along every axis: rounding errors that do not grow with their number.

The numbers are all 0.1, so that errors of additions in order would not cancel. Right is the sum in
float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.ops.sums import add_at, column_sums, row_sums, total

Array = Any
#: a few units in the last place
CLOSE = 2e-6


def tenths(*shape: int) -> Array:
    return np.full(shape, 0.1, np.float32)


def off(found: Any, right: Any) -> float:
    """The largest relative error."""
    found = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    return float(np.max(np.abs(found.astype(np.float64) / right - 1)))


# --- of NumPy arrays ------------------------------------------------------------------------------

SHAPES = [
    (300, 7), (7, 300), (2, 300, 5), (1000, 3, 5), (300, 1, 9), (40, 50, 6, 2), (129, 1), (0, 300),
    (300, 0), (700, 2), (33, 40),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["plain", "slices", "backwards", "repeated"])
@pytest.mark.parametrize("shape", SHAPES)
def test_total_is_the_sum(shape: tuple[int, ...], layout: str) -> None:
    """Of every layout and order of axes, over every set of axes, with and without ``keepdims``."""
    rng = np.random.default_rng(len(shape))
    x = rng.random([2 * n + 1 for n in shape]).astype(np.float32)
    x = x[tuple(slice(1, 2 * n, 2) for n in shape)]
    if layout == "plain":
        x = np.ascontiguousarray(x)
    elif layout == "backwards":
        x = x[(slice(None, None, -1),) * x.ndim]
    elif layout == "repeated":
        x = np.broadcast_to(x[:1], shape)
    axes = [a for r in range(1, x.ndim + 1) for a in itertools.combinations(range(x.ndim), r)]
    for order in itertools.permutations(range(x.ndim)):
        y = x.transpose(order)
        for axis, keepdims in itertools.product([None, *axes], (False, True)):
            found = total(np, y, axis, keepdims)
            right = y.astype(np.float64).sum(axis=axis, keepdims=keepdims)
            assert (found.shape, found.dtype) == (right.shape, y.dtype)
            np.testing.assert_allclose(found, right, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_, np.int64, np.float64])
def test_total_of_other_dtypes(dtype: Any) -> None:
    """Integers are added in 64 bits, as NumPy does it."""
    x = np.ones((300, 5), dtype)
    found, right = total(np, x, (0,)), x.sum(axis=0)
    assert found.dtype == right.dtype
    assert found.tolist() == right.tolist()


@pytest.mark.parametrize("shape", [(8192, 1), (4096, 2), (700, 10), (128, 64), (10, 800)])
def test_sums_of_small_matrices(shape: tuple[int, int]) -> None:
    assert off(column_sums(tenths(*shape)), shape[0] * np.float64(np.float32(0.1))) < CLOSE
    assert off(row_sums(tenths(*shape)), shape[1] * np.float64(np.float32(0.1))) < CLOSE


# --- of tensors, in eager mode and in programs ----------------------------------------------------

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(),
    "rows": lambda x: x.sum(axis=0),
    "columns": lambda x: x.sum(axis=1),
    "transposed": lambda x: (x * 2.0).T.sum(axis=1),
    "slice": lambda x: x[:, 1:].sum(axis=0),
    "mean": lambda x: x.mean(axis=0, keepdims=True),
    "std": lambda x: (x - 0.25).std(axis=0, correction=1) + 0.25,
    "norm": lambda x: tg.norm(x, axis=0),
    "logsumexp": lambda x: tg.logsumexp(x, axis=0),
    "softmax": lambda x: tg.softmax(x, axis=0),
    "softmax of rows": lambda x: tg.softmax(x, axis=1),
    "log_softmax": lambda x: tg.log_softmax(x, axis=0),
    "rms_norm": lambda x: tg.rms_norm(x.T, x.shape[0], eps=1e-6),
    "middle": lambda x: x.reshape(2, -1, x.shape[1]).sum(axis=1),
    "first and last": lambda x: x.reshape(-1, 2, x.shape[1]).sum(axis=(0, 2)),
    "products summed": lambda x: (x * x).sum(axis=0),
    "cumulative": lambda x: tg.cumulative_sum(x, axis=0),
    "cumulative in rows": lambda x: tg.cumulative_sum(x, axis=1),
}


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
@pytest.mark.parametrize("shape", [(50_000, 3), (2, 60_000), (4000, 130)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_sums_do_not_drift(name: str, shape: tuple[int, int], executor: str) -> None:
    """Adding in order would be off by 1e-4."""
    f = REDUCTIONS[name]
    values = tenths(*shape)
    right = f(Tensor(values.astype(np.float64))).numpy()
    call = f if executor == "eager" else tg.compile(f, executor=executor)
    x = Tensor(values)
    assert off(call(x), right) < CLOSE
    if executor != "eager":
        assert off(call(x), right) < CLOSE


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_products_do_not_drift(axis: int | None, executor: str) -> None:
    values = np.full((3000, 2) if axis == 0 else (2, 3000), 1.001, np.float32)
    right = values.astype(np.float64).prod(axis=axis)
    call: Any = lambda x: x.prod(axis=axis)  # noqa: E731
    if executor != "eager":
        call = tg.compile(call, executor=executor)
    for _ in range(2):
        assert off(call(Tensor(values)), right) < CLOSE


def test_cumulative_products_do_not_drift() -> None:
    values = np.full((2, 3000), 1.001, np.float32)
    right = values.astype(np.float64).cumprod(axis=1)
    assert off(tg.cumulative_prod(Tensor(values), axis=1), right) < CLOSE


# --- gradients, statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["eager", *EXECUTORS])
def test_the_gradient_of_what_is_broadcast_does_not_drift(executor: str) -> None:
    """A bias, a factor, a number: their gradients are sums over the rows."""
    bias, factor = tg.zeros(3, requires_grad=True), tg.ones((1, 3), requires_grad=True)
    number = tg.zeros((), requires_grad=True)

    def step(x: Tensor) -> Tensor:
        for t in (bias, factor, number):
            t.grad = None
        loss = ((x * factor + bias + number) * 0.1).sum()
        loss.backward()
        return loss.detach()

    x = Tensor(tenths(50_000, 3))
    call = step if executor == "eager" else tg.compile(step, executor=executor)
    tenth = np.float64(np.float32(0.1))
    for _ in range(2):
        call(x)
        for t, right in (
            (bias, 50_000 * tenth),
            (factor, 50_000 * tenth**2),
            (number, 150_000 * tenth),
        ):
            assert t.grad is not None
            assert off(t.grad, right) < CLOSE


def test_the_bias_of_a_linear_layer() -> None:
    layer = nn.Linear(2, 3)
    layer(Tensor(tenths(50_000, 2))).backward(Tensor(tenths(50_000, 3)))
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert off(layer.bias.grad, 50_000 * np.float64(np.float32(0.1))) < CLOSE


def test_batch_statistics() -> None:
    norm = nn.BatchNorm1d(3, momentum=1.0)
    values = tenths(50_000, 3)
    values[::2] += 1
    norm(Tensor(values))
    exact = values.astype(np.float64)
    assert off(norm.running_mean, exact.mean(0)) < CLOSE
    assert off(norm.running_var, exact.var(0, ddof=1)) < CLOSE


@pytest.mark.parametrize(
    "pick",
    [
        lambda x, i: x[i],
        lambda x, i: x[:, 0][i],
        lambda x, i: x[i, i // 2],
        lambda x, i: tg.take(x, i, axis=0),
        lambda x, i: tg.take_along_axis(x, i[:, None], axis=0),
    ],
)
def test_a_row_that_is_picked_many_times(pick: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The padding of sentences, say: each pick adds to the gradient of the same row."""
    x = tg.zeros((4, 2), requires_grad=True)
    y = pick(x, Tensor(np.full(60_000, 2)))
    y.backward(Tensor(tenths(*y.shape)))
    assert x.grad is not None
    found = x.grad.numpy()
    right = 60_000 * np.float64(np.float32(0.1))
    assert off(found[found != 0], right) < CLOSE
    assert not found[[0, 1, 3]].any()


@pytest.mark.parametrize("sizes", [(40_000, 5), (40_000, 20_000), (40_000, 400_000)])
def test_numbers_added_at_places(sizes: tuple[int, int], rng: np.random.Generator) -> None:
    """Half of them at one place, in an array that is small, of the same size, or much larger."""
    count, n = sizes
    positions = rng.integers(0, n, count)
    positions[::2] = 3
    right = np.bincount(positions, tenths(count).astype(np.float64), n)
    found = add_at(np.zeros(n, np.float32), positions, tenths(count))
    np.testing.assert_allclose(found, right, rtol=CLOSE)
