"""For the tests of convolutions: they are compared with those of the CPU in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_devices import as_float64, assert_close

import tensorgrad as tg
from tensorgrad.nn import functional


def leaf(values: Any, dtype: str, device: str) -> Any:
    if values is None:
        return None
    return tg.tensor(values, dtype=getattr(tg, dtype), device=device, requires_grad=True)


def check(
    rng: np.random.Generator, x: tuple[int, ...], w: tuple[int, ...], dtype: str = "float32",
    bias: bool = True, transposed: bool = False, **options: Any,
) -> None:  # fmt: skip
    """Value and gradients on the GPU against those of the CPU in float64.

    x, w: shapes of the input and of the weights.
    """
    axes = len(x) - 2
    function = getattr(functional, f"conv{'_transpose' * transposed}{axes}d")
    outputs = w[1] * options.get("groups", 1) if transposed else w[0]
    drawn = [rng.normal(size=x), rng.normal(size=w), rng.normal(size=outputs) if bias else None]
    host = [None if a is None else leaf(a, dtype, "cpu") for a in drawn]
    given = [None if a is None else as_float64(a) for a in host]
    found, g = [], None
    for device, kind in (("cpu", "float64"), ("cuda", dtype)):
        inputs = [leaf(a, kind, device) for a in given]
        y = function(*inputs, **options)
        if g is None:
            g = as_float64(tg.tensor(rng.normal(size=y.shape), dtype=getattr(tg, dtype)))
        y.backward(tg.tensor(g, dtype=y.dtype, device=device))
        found.append([y, *[a.grad for a in inputs if a is not None]])
    for theirs, ours in zip(*found, strict=True):
        assert ours.dtype == getattr(tg, dtype)
        size = float(np.abs(as_float64(theirs)).max(initial=1.0))
        assert_close(ours, as_float64(theirs), dtype, rounding=8, scale=size)
