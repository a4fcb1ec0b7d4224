"""kernels/activation.cu against float64 NumPy, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg

SIZES = [0, 1, 31, 32, 33, 1000, 65_537]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid(cuda: Cuda, dtype: str, n: int, offset: int, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.uniform(-9, 9, n), dtype, offset, requires_grad=True)
    g = cuda.tensor(rng.normal(size=n), dtype, offset)
    y = tg.sigmoid(x)
    y.backward(g)
    exact = 1 / (1 + np.exp(-as_float64(x)))
    assert_close(y, exact, dtype)
    assert_close(x.grad, as_float64(g) * exact * (1 - exact), dtype, scale=1.0)
    assert cuda.launched == ({"sigmoid_forward": 1, "sigmoid_backward": 1} if n else {})
