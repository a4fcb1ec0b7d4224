"""Rows B1 to B5 of the lectures: the units of a network."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor

EXACT = 1e-10


def test_B1_sigmoid() -> None:
    z = Tensor([-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2], dtype=np.float64)
    printed = [0.12, 0.18, 0.27, 0.38, 0.50, 0.62, 0.73, 0.82, 0.88]
    found = tg.sigmoid(z)
    assert [round(v, 2) for v in found.tolist()] == printed
    closed = [1 / (1 + math.exp(-v)) for v in z.tolist()]
    assert found.tolist() == pytest.approx(closed, abs=EXACT)


@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (tg.sigmoid, lambda s: s * (1 - s)),
        (tg.tanh, lambda t: (1 - t) * (1 + t)),
    ],
    ids=["sigmoid", "tanh"],
)
def test_B2_derivative_from_the_output(
    f: Callable[[Tensor], Tensor], derivative: Callable[[Any], Any]
) -> None:
    z = Tensor(np.linspace(-6, 6, 101), requires_grad=True)
    y = f(z)
    y.backward(tg.ones_like(y))
    assert z.grad is not None
    np.testing.assert_allclose(host(z.grad), derivative(host(y)), atol=EXACT)


@pytest.mark.parametrize("f", [tg.sigmoid, tg.tanh], ids=["sigmoid", "tanh"])
def test_B2_no_second_exponential(f: Callable[[Tensor], Tensor]) -> None:
    """Only the output is stored, so nothing is there to compute an exponential from."""
    z = Tensor([0.5], requires_grad=True) + 0.0
    y = f(z)
    argument = weakref.ref(z.data)
    del z
    assert argument() is None
    y.backward()


def test_B3_relu() -> None:
    z = Tensor([-2.0, -0.0, 0.0, 3.0], dtype=np.float64, requires_grad=True)
    y = tg.relu(z)
    y.backward(tg.ones_like(y))
    assert y.tolist() == [0, 0, 0, 3]
    assert z.grad is not None
    assert z.grad.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e4])
def test_B4_softmax_sums_to_one(scale: float) -> None:
    rng = np.random.default_rng(4)
    z = Tensor(rng.uniform(-scale, scale, (20, 7)), requires_grad=True)
    p = tg.softmax(z, axis=1)
    np.testing.assert_allclose(host(p).sum(1), 1, atol=EXACT)
    assert (host(p) >= 0).all()
    w = rng.normal(size=p.shape)
    p.backward(Tensor(w))
    assert z.grad is not None
    s = host(p)
    wanted = s * (w - (s * w).sum(1, keepdims=True))
    np.testing.assert_allclose(host(z.grad), wanted, atol=EXACT)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_B4_softmax_is_stable_far_out(dtype: str) -> None:
    z = Tensor([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype, requires_grad=True)
    p = tg.softmax(z, axis=1)
    np.testing.assert_allclose(host(p), [[0.5, 0.5, 0], [1 / 3] * 3], atol=5e-4)
    p.backward(tg.ones_like(p))
    assert z.grad is not None
    assert np.abs(host(z.grad)).max() < 1e-3


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_B5_sigmoid_far_out(dtype: str) -> None:
    """Warnings are errors here, so that none can go unnoticed."""
    z = Tensor([-1e4, -1e3, 1e3, 1e4], dtype, requires_grad=True)
    y = tg.sigmoid(z)
    y.backward(tg.ones_like(y))
    assert str(y.dtype) == dtype
    assert y.tolist() == [0, 0, 1, 1]
    assert z.grad is not None
    assert z.grad.tolist() == [0, 0, 0, 0]
