"""Convolutions of programs: routines in C, against the same convolutions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.captured import Captured

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import conv1d, conv2d

Array = np.ndarray[Any, np.dtype[Any]]


def drawn(rng: np.random.Generator, axes: int) -> tuple[list[Array], dict[str, Any]]:
    """Input, weights and bias of a convolution drawn at random, and its options."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    inner, outer = int(rng.choice([1, 2, 3, 5, 16, 21])), int(rng.choice([1, 2, 4, 16, 20, 33]))
    if rng.random() < 0.2:  # a channel of the result for each of the input
        groups, inner, outer = int(rng.choice([5, 16, 32, 35])), 1, 1
    kernel, dilation = rng.integers(1, 5, axes), rng.choice([1, 1, 1, 2, 3], axes)
    stride = rng.choice([1, 1, 1, 2, 3], axes)
    span = dilation * (kernel - 1)
    padding = [int(rng.integers(0, n + 1)) for n in span]
    size = [int(n + 1 - 2 * p + rng.integers(2 * p, 2 * p + 20)) for n, p in zip(span, padding)]
    size = [max(1, n) for n in size]
    x = rng.standard_normal((int(rng.integers(1, 4)), groups * inner, *size))
    layout = rng.integers(3)
    if layout == 1:
        x = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    elif layout == 2:
        x = x[..., ::-1].copy()[..., ::-1]
    given = [x, rng.standard_normal((groups * outer, inner, *kernel))]
    if rng.random() < 0.7:
        given.append(rng.standard_normal(groups * outer))
    options = {
        "stride": tuple(map(int, stride)),
        "padding": tuple(padding),
        "dilation": tuple(map(int, dilation)),
        "groups": groups,
    }
    return given, options


@pytest.mark.parametrize("seed", range(16))
def test_values_and_gradients_are_those_of_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = 1 + (seed % 4 != 0)
    given, options = drawn(rng, axes)
    given = [a.astype(np.float32, order="K") for a in given]

    def step(x: Tensor, w: Tensor, *bias: Tensor) -> list[Tensor]:
        y = (conv1d, conv2d)[axes - 1](x, w, bias[0] if bias else None, **options)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, w, *bias])]

    singles = [Tensor(a, requires_grad=True) for a in given]
    wanted = step(*[Tensor(a.astype(np.float64), requires_grad=True) for a in given])
    for found, eager, exact in zip(Captured(step, singles)(*singles), step(*singles), wanted):
        scale = abs(exact.numpy()).max() + 1e-30
        error = abs(eager.numpy() - exact.numpy()).max() / scale
        assert abs(found - exact.numpy()).max() / scale <= max(4 * error, 2e-6)
