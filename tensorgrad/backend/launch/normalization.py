"""Layer norm and RMS norm: kernels/normalization.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.bias_activation import Layout, aligned, summed
from tensorgrad.backend.launch.common import BACKWARD, FORWARD, contiguous, fits, launch
from tensorgrad.backend.launch.rows import by_rows


def _packed(columns: int, *arrays: Array) -> np.int32:
    return np.int32(aligned(columns, *arrays))


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, x: Array, weight: Array, bias: Array = None, *, eps: float) -> Any:
        given = [p for p in (weight, bias) if p is not None]
        if not fits(xp, x, *given) or any(p.shape != x.shape[-1:] for p in given) or not x.size:
            return NotImplemented
        x = contiguous(xp, x)
        # A parameter that is not there is not read: x stands in for the pointer.
        w, b = (x if p is None else contiguous(xp, p) for p in (weight, bias))
        y = xp.empty(x.shape, x.dtype)
        columns = x.shape[-1]
        wide = arithmetic(x.dtype)
        scale = xp.empty((*x.shape[:-1], 1), wide)
        center = xp.empty((*x.shape[:-1], 1), wide) if name == "layer_norm" else scale
        by_rows(
            xp, "normalization", f"{name}_forward", x.dtype, x.size // columns, columns,
            x, w, b, y, center, scale, wide.type(eps), np.int32(weight is not None),
            np.int32(bias is not None), _packed(columns, x, w, b, y), x.size // columns, columns,
            one_tile="_row",
        )  # fmt: skip
        return y, (center, scale) if name == "layer_norm" else scale

    return launcher


def _gradients(name: str) -> Callable[..., Any]:
    def launcher(
        xp: Any,
        g: Array,
        needed: Sequence[bool],
        *,
        r: Array = None,
        x: Array = None,
        weight: Array = None,
        eps: float = 0.0,
    ) -> Any:
        if x is None or not g.size:  # the gradient of the bias alone, which is g
            return NotImplemented
        given = [] if weight is None else [weight]
        if not fits(xp, g, x, *given) or any(p.shape != x.shape[-1:] for p in given):
            return NotImplemented
        center, scale = r if name == "layer_norm" else (r, r)
        g, x = contiguous(xp, g), contiguous(xp, x)
        w = x if weight is None else contiguous(xp, weight)
        columns = x.shape[-1]
        rows = x.size // columns
        dx = d_weight = d_bias = None
        if needed[0]:
            dx = xp.empty(x.shape, x.dtype)
            by_rows(
                xp, "normalization", f"{name}_backward", x.dtype, rows, columns,
                g, x, w, center, scale, dx, np.int32(weight is not None),
                _packed(columns, g, x, w, dx), rows, columns, one_tile="_row",
            )  # fmt: skip
        if any(needed[1:]):
            at = Layout(rows, columns, x.dtype, packed=False)
            weights, biases = (
                xp.empty((at.partial_rows, columns), arithmetic(x.dtype)) for _ in range(2)
            )
            launch(
                xp, "normalization", f"{name}_parameters", x.dtype, at.grid,
                g, x, center, scale, weights, biases, rows, columns, np.int32(at.across),
                at.tiles,
            )  # fmt: skip
            if needed[1]:
                d_weight = summed(xp, weights, x.dtype)
            if needed[2:] and needed[2]:
                d_bias = summed(xp, biases, x.dtype)
        return dx, d_weight, d_bias

    return launcher


for _name in ("layer_norm", "rms_norm"):
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradients(_name)
