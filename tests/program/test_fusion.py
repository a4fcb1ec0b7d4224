"""Instructions that are made of several neighbours compute what these did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import recorded
from program.executors import EVERY_EXECUTOR

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.nn import functional
from tensorgrad.ops import tiled_pooling
from tensorgrad.ops.windows import Window
from tensorgrad.program.passes import simplified

Array = np.ndarray[Any, Any]


def names(function: Callable[..., Any], *arrays: Array) -> list[str]:
    program = simplified(recorded(function, [Tensor(a, requires_grad=True) for a in arrays]))
    return [i.op.name for i in program]


def pooled(x: Tensor, kernel: Any = 2) -> Tensor:
    y = functional.max_pool2d(tg.relu(x * 1.5), kernel)
    (y * y).sum().backward()
    assert x.grad is not None
    return x.grad


def equal(compiled: Any, plain: Any) -> None:
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def check(function: Callable[[Tensor], Any], x: Array, executor: str) -> None:
    """The same bits as in eager mode; three calls, so that checks take place as well."""
    run = tg.compile(function, executor=executor)
    for _ in range(3):
        given, other = (Tensor(x, requires_grad=True) for _ in range(2))
        with np.errstate(invalid="ignore"):  # infinities that cancel
            equal(run(given), function(other))


def test_a_pool_over_tiles_needs_no_places_and_the_relu_comes_after_it() -> None:
    found = names(pooled, np.ones((2, 3, 6, 4), np.float32))
    assert "scatter_add" not in found
    assert "max_pool_places" not in found
    assert found.index("max_pool_tiles") < found.index("relu")
    assert found.index("pass_positive") < found.index("spread_tiles")


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: functional.max_pool2d(x, 3, 2),
        lambda x: functional.max_pool2d(x, 2, 2, 1),
        lambda x: functional.max_pool2d(x, 2, 1),
        lambda x: functional.adaptive_max_pool2d(x, 4),
        lambda x: functional.max_pool2d(x, 2, dilation=2),
        lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    ],
    ids=["overlapping", "padded", "stride 1", "adaptive", "dilated", "with indices"],
)
@EVERY_EXECUTOR
def test_other_pools_stay(pool: Callable[[Tensor], Tensor], executor: str, rng: Any) -> None:
    def step(x: Tensor) -> list[Any]:
        y = pool(tg.relu(x))
        (y * y).sum().backward()
        return [y, x.grad]

    check(step, rng.integers(-3, 4, (2, 3, 7, 6)).astype(np.float32), executor)


SHAPES: list[Any] = [((2, 3, 6, 4), 2), ((1, 2, 7, 9), (3, 2)), ((2, 1, 5, 5), 5),
          ((3, 5, 4, 4), 1), ((2, 2, 17, 16), 16), ((2, 2, 34, 17), 17), ((2, 3, 9), 3),
          ((1, 2, 4, 5, 6), (2, 1, 3)),
          ((2, 3, 11, 8), (2, 4))]  # fmt: skip


def pool_of(x: Tensor, kernel: Any, stride: Any = None) -> Tensor:
    pools = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
    return pools[x.ndim](x, kernel, stride)


@pytest.mark.parametrize(("shape", "kernel"), SHAPES)
@EVERY_EXECUTOR
def test_pools_are_those_of_eager_mode(shape: Any, kernel: Any, executor: str, rng: Any) -> None:
    """Many ties, zeros of both signs, NaN and infinities among the numbers."""

    def step(x: Tensor) -> list[Any]:
        y = pool_of(tg.relu(x), kernel)
        z = pool_of(x, kernel)
        (y * y + z).sum().backward()
        return [y, z, x.grad]

    x = rng.choice([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0], shape).astype(np.float32)
    check(step, x, executor)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = np.inf
    x[rng.random(shape) < 0.1] = -np.inf
    check(step, x, executor)


@pytest.mark.parametrize("stride", [3, (2, 5)])
@EVERY_EXECUTOR
def test_windows_may_leave_out_elements(stride: Any, executor: str, rng: Any) -> None:
    def step(x: Tensor) -> list[Any]:
        y = pool_of(tg.relu(x), 2, stride)
        (y * y).sum().backward()
        return [y, x.grad]

    check(step, rng.integers(-3, 4, (2, 3, 11, 12)).astype(np.float32), executor)


def _exposed(x: Tensor) -> list[Any]:
    a = tg.relu(x)
    y = functional.max_pool2d(a, 2)
    (y * y).sum().backward()
    return [y, a, x.grad]


def _used_twice(x: Tensor) -> list[Any]:
    a = tg.relu(x)
    y = functional.max_pool2d(a, 2)
    (y.sum() + (a * a).sum()).backward()
    return [y, x.grad]


def _watched(x: Tensor) -> list[Any]:
    a = tg.relu(x)
    y = functional.max_pool2d(a, 2)
    (y * y).sum().backward()
    return [y, a.detach().mean(), x.grad]


def _two_pools(x: Tensor) -> list[Any]:
    a = tg.relu(x)
    (functional.max_pool2d(a, 2).sum() * 2.0 + functional.max_pool2d(a, 4).sum()).backward()
    return [x.grad]


def _two_gradients(x: Tensor) -> list[Any]:
    y = functional.max_pool2d(tg.relu(x), 2)
    (first,) = tg.autograd.grad([(y * y).sum()], [x], retain_graph=True)
    (second,) = tg.autograd.grad([(y * 3.0).sum()], [x])
    return [first, second]


def _second_order(x: Tensor) -> list[Any]:
    y = functional.max_pool2d(tg.relu(x * x), 2)
    (first,) = tg.autograd.grad([(y * y).sum()], [x], create_graph=True)
    (second,) = tg.autograd.grad([(first * first).sum()], [x])
    return [first, second]


def _indices(x: Tensor) -> list[Any]:
    y, places = functional.max_pool2d(tg.relu(x), 2, return_indices=True)
    (y * y).sum().backward()
    return [y, places, x.grad]


def _sums(x: Tensor) -> list[Any]:
    """Of the gradient, over all axes of the windows and over some."""
    y = functional.max_pool2d(tg.relu(x), 2)
    (g,) = tg.autograd.grad([(y * y).sum()], [x])
    axes: list[Any] = [None, (2, 3), (-1, 0, -2), (0, 2), 3, 1, (0, 1)]
    return [g.sum(axis=a) for a in axes]


@pytest.mark.parametrize(
    "step",
    [_exposed, _used_twice, _watched, _two_pools, _two_gradients, _second_order, _indices, _sums],
)
@EVERY_EXECUTOR
def test_whoever_else_looks_sees_the_same(step: Any, executor: str, rng: Any) -> None:
    check(step, rng.integers(-3, 4, (2, 3, 6, 8)).astype(np.float32), executor)


def test_the_largest_is_found_again_where_last_bits_are_moved(rng: Any) -> None:
    """Gradients of a norm are nearly all rounding; the places lie beyond a border."""
    norm = nn.GroupNorm(1, 15)

    def step(x: Tensor) -> list[Any]:
        norm.zero_grad()
        y = norm(functional.max_pool2d(tg.relu(x), 3, 2, 1)).reshape(3, -1)
        (y * y).mean().backward()
        return [x.grad, *[p.grad for p in norm.parameters()]]

    run = tg.compile(step)
    for _ in range(5):
        x = rng.standard_normal((3, 15, 9, 9)).astype(np.float32)
        found = run(Tensor(x, requires_grad=True))
        for a, b in zip(found, step(Tensor(x, requires_grad=True)), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)
    assert not run.dropped


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8"]
)
def test_tiles_of_arrays_are_picked_to_the_bit(dtype: str, rng: np.random.Generator) -> None:
    """As ``np.where`` picks them: NaN, negative zeros and equal elements in any layout."""
    windows = (Window(7, 2, 2, 0, 1, 3), Window(9, 3, 3, 0, 1, 3))
    x = np.round(rng.standard_normal((3, 4, 7, 9)) * 2).astype(np.dtype(dtype))
    if x.dtype.kind in "fV":
        x.reshape(-1)[rng.integers(0, x.size, 30)] = np.nan
        x.reshape(-1)[rng.integers(0, x.size, 30)] = -0.0
    for array in (x, np.asfortranarray(x), x.transpose(0, 3, 2, 1).copy().transpose(0, 3, 2, 1)):
        best, *others = tiled_pooling._taps(array, windows)
        number = np.zeros(best.shape, np.uint8)
        with np.errstate(invalid="ignore"):
            largest, found = tiled_pooling._largest_value(np, array, windows)
            for t, part in enumerate(others, 1):
                better = (part > best) | (part != part)
                best, number = np.where(better, part, best), np.where(better, np.uint8(t), number)
        assert (largest.dtype, found.dtype) == (x.dtype, np.uint8)
        assert largest.tobytes() == best.tobytes()
        assert found.tobytes() == number.tobytes()
        g = np.asfortranarray(best)
        whole = np.zeros(x.shape, x.dtype)
        for t, part in enumerate(tiled_pooling._taps(whole, windows)):
            part[...] = np.where(number == t, g, np.zeros((), x.dtype))
        spread = tiled_pooling._spread_value(np, g, number, (7, 9), windows)
        assert spread.dtype == x.dtype
        assert spread.tobytes() == whole.tobytes()
