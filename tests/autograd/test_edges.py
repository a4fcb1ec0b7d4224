"""Derivatives at their edges: random numbers of what is computed again, second derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.amp import autocast
from tensorgrad.autograd import checkpoint, hessian
from tensorgrad.ops.random import Generator, default_generator

pytestmark = pytest.mark.usefixtures("own_random_numbers")


@pytest.mark.parametrize("own", [False, True])
def test_computing_again_draws_nothing_new(own: bool) -> None:
    """The mask is the same, and what is drawn after the backward pass goes on from before it."""
    generator = Generator(3) if own else default_generator
    layer = nn.Dropout(0.5, generator=generator) if own else nn.Dropout(0.5)
    generator.seed(5)
    x = Tensor(np.ones(200), requires_grad=True)
    y = checkpoint(lambda x: layer(x) * 1.0, x)
    generator.uniform((3,))
    state = generator.state()
    y.sum().backward()
    assert generator.state() == state
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_computing_again_keeps_the_precision() -> None:
    """Outside of ``autocast``, where backward is called, the products are those of inside."""
    rng = np.random.default_rng(0)
    w = Tensor(rng.standard_normal((4, 4)).astype(np.float32), requires_grad=True)
    x = Tensor(rng.standard_normal((3, 4)).astype(np.float32))
    gradients: list[Any] = []
    for again in (False, True):
        w.grad = None
        with autocast("bfloat16"):
            y = checkpoint(lambda w: tg.tanh(x @ w), w) if again else tg.tanh(x @ w)
        y.float().sum().backward()
        assert w.grad is not None
        gradients.append(w.grad.numpy().copy())
    np.testing.assert_array_equal(*gradients)


def test_mixed_second_derivatives() -> None:
    """Of x**2 y**3 + 4 x: 2 y**3, 6 x y**2, 6 x**2 y."""
    x, y = Tensor(np.array([2.0])), Tensor(np.array([3.0]))
    found = hessian(lambda x, y: (x**2 * y**3 + 4 * x).sum(), (x, y))
    values = [[float(part.item()) for part in row] for row in found]
    np.testing.assert_allclose(values, [[54, 108], [108, 72]])
