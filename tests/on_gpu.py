"""Values and gradients on the stand-in for CuPy, held against float64 on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from sampler import host

import tensorgrad as tg

TOLERANCES = {"float32": 2e-6, "float16": 3e-3, "bfloat16": 2e-2}


def drawn(*shape: int, dtype: Any = tg.float32, device: str = "cuda") -> Any:
    draw = np.random.default_rng(len(shape) + sum(shape))
    return tg.Tensor(draw.normal(size=shape), dtype=dtype, device=device, requires_grad=True)


def wide(x: Any) -> Any:
    return host(x).astype(np.float64)


def close(found: Any, wanted: Any, dtype: Any) -> None:
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(wide(found), wanted, rtol=0, atol=TOLERANCES[str(dtype)] * scale)


def on_cpu(function: Any, *given: Any) -> list[Any]:
    """The value and all gradients of a function of tensors, in float64 on the CPU."""
    inputs = [
        None if x is None else tg.Tensor(wide(x), dtype=tg.float64, requires_grad=True)
        for x in given
    ]
    y = function(*inputs)
    y.backward(tg.Tensor(weighting(y.shape), dtype=tg.float64))
    return [y, *(None if x is None else x.grad for x in inputs)]


def weighting(shape: tuple[int, ...]) -> Any:
    """A gradient to begin with; 16 bits hold its numbers."""
    return (np.arange(np.prod(shape)) % 5 - 2.0).reshape(shape) / 2


def on_gpu(function: Any, *given: Any) -> list[Any]:
    y = function(*given)
    y.backward(tg.Tensor(weighting(y.shape), dtype=y.dtype, device="cuda"))
    return [y, *(None if x is None else x.grad for x in given)]


def check(function: Any, *given: Any) -> None:
    dtype = given[0].dtype
    for found, wanted in zip(on_gpu(function, *given), on_cpu(function, *given), strict=True):
        if wanted is not None:
            close(found, wide(wanted), dtype)
