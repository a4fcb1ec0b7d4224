"""kernels/activation.cu against float64 NumPy, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from activation_cases import CASES, sigmoid
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.backend.launch import common

SIZES = [0, 1, 31, 32, 33, 1000, 65_537]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(cuda: Cuda, name: str, dtype: str, rng: np.random.Generator) -> None:
    """Large arrays in two dtypes are enough."""
    for n in SIZES[: None if dtype in ("float16", "float32") else -1]:
        for offset in (0, 1)[: 1 + (n < 65_537)]:
            cuda.launched.clear()
            check_value_and_gradient(cuda, name, dtype, n, offset, rng)


def check_value_and_gradient(
    cuda: Cuda, name: str, dtype: str, n: int, offset: int, rng: np.random.Generator
) -> None:
    function, options, value, slope = CASES[name]
    x = cuda.tensor(rng.uniform(-6, 6, n), dtype, offset, requires_grad=True)
    g = cuda.tensor(rng.uniform(0.5, 1.5, n), dtype, offset)
    y = function(x, **options)
    y.backward(g)
    assert x.grad is not None
    assert (y.dtype, x.grad.dtype) == (x.dtype, x.dtype)
    exact = as_float64(x)
    # what cancels in 1 + erf and x * phi is of the order of 1 (and x)
    assert_close(y, value(exact), dtype, rounding=6, scale=1.0)
    assert_close(x.grad, as_float64(g) * slope(exact), dtype, rounding=20, scale=1.0)
    assert cuda.launched == ({f"{name}_forward": 1, f"{name}_backward": 1} if n else {})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_extremes(cuda: Cuda, name: str, dtype: str) -> None:
    """No NaN where the function has a value; NaN stays NaN."""
    function, options, _, _ = CASES[name]
    numbers = [-np.inf, -1e4, -80.0, -0.0, 0.0, 80.0, 1e4, np.inf, np.nan]
    if name in ("gelu", "gelu_tanh", "silu"):
        numbers[0] = -1e4  # infinity times 0, on the CPU as well
    found = as_float64(function(cuda.tensor(numbers, dtype), **options))
    expected = as_float64(function(tg.tensor(numbers, dtype=getattr(tg, dtype)), **options))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=1e-30)
    x = cuda.tensor(numbers[1:-2], dtype, requires_grad=True)
    function(x, **options).sum().backward()
    assert x.grad is not None
    assert np.isfinite(as_float64(x.grad)).all()


def test_relu_passes_no_infinity_where_it_is_off(cuda: Cuda) -> None:
    x = cuda.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    tg.relu(x).backward(cuda.tensor([np.inf, np.inf, np.inf]))
    assert x.grad is not None
    assert as_float64(x.grad).tolist() == [0, 0, np.inf]


def test_any_layout(cuda: Cuda, rng: np.random.Generator) -> None:
    """Transposed, stepped and reversed inputs, and a gradient that is one number repeated."""
    base = cuda.tensor(rng.normal(size=(6, 40)), requires_grad=True)
    for view in (base.T, base[::2, ::-3]):
        base.grad = None
        y = tg.sigmoid(view)
        y.sum().backward()
        exact = sigmoid(as_float64(view))
        assert_close(y, exact, "float32")
        slope = np.zeros((6, 40))
        (slope.T if view.shape == (40, 6) else slope[::2, ::-3])[...] = exact * (1 - exact)
        assert base.grad is not None
        assert_close(base.grad, slope, "float32", scale=1.0)


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """More elements than the grid has threads."""
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    for offset in (0, 1):
        x = cuda.tensor(rng.normal(size=5003), offset=offset, requires_grad=True)
        y = tg.tanh(x)
        y.backward(cuda.tensor(np.ones(5003)))
        assert x.grad is not None
        assert_close(y, np.tanh(as_float64(x)), "float32")
        assert_close(x.grad, 1 - np.tanh(as_float64(x)) ** 2, "float32", scale=1.0)


def test_higher_orders_use_the_rules(cuda: Cuda) -> None:
    x = cuda.tensor([-1.0, 0.5, 2.0], "float64", requires_grad=True)
    for name, (function, options, _, slope) in CASES.items():
        (first,) = tg.autograd.grad(function(x, **options).sum(), x, create_graph=True)
        assert_close(first, slope(as_float64(x)), "float64", rounding=20, scale=1.0)
        if not first.requires_grad:  # that of relu does not depend on x
            continue
        (second,) = tg.autograd.grad(first.sum(), x)
        h = 1e-5
        exact = (slope(as_float64(x) + h) - slope(as_float64(x) - h)) / (2 * h)
        np.testing.assert_allclose(as_float64(second), exact, atol=1e-8, err_msg=name)


def test_integers_go_without_a_kernel(cuda: Cuda) -> None:
    assert tg.relu(tg.tensor([-1, 2], device="cuda")).tolist() == [0, 2]
    assert not cuda.launched


def test_kernels_can_be_switched_off(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorgrad.backend.cuda import load

    monkeypatch.setattr(load(), "kernels", False)
    x = cuda.tensor([1.0], requires_grad=True)
    tg.sigmoid(x).backward()
    assert not cuda.launched


@pytest.mark.parametrize(("x_offset", "g_offset"), [(1, 0), (0, 1)])
def test_alignment_of_each_array(
    cuda: Cuda, x_offset: int, g_offset: int, rng: np.random.Generator
) -> None:
    """16 bytes at a time only if all arrays begin there, and not just some."""
    x = cuda.tensor(rng.normal(size=1003), offset=x_offset, requires_grad=True)
    tg.softplus(x).backward(cuda.tensor(np.ones(1003), offset=g_offset))
    assert x.grad is not None
    assert_close(x.grad, sigmoid(as_float64(x)), "float32", scale=1.0)
