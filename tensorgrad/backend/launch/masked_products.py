"""Products of a linear layer with a ReLU and with sums, by cublasLt: see ops/masked_products.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.launch import epilogues
from tensorgrad.backend.launch.common import contiguous, fits, forward
from tensorgrad.backend.launch.products import tf32


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _row(columns: int) -> int:
    return -(-columns // epilogues.MASK) * epilogues.MASK


@forward("linear_relu_masked")
def _relu(xp: Any, x: Array, weight: Array, bias: Array) -> Any:
    lt = epilogues.of(xp, x)
    if lt is None or not fits(xp, x, weight, bias):
        return NotImplemented
    columns = bias.size
    mask = xp.empty(math.prod(x.shape[:-1]) * _row(columns) // 8, np.uint8)
    y = lt.multiply(
        "RELU_AUX_BIAS", _rows(x), weight.T, contiguous(xp, bias), mask, _row(columns), tf32(xp)
    )
    return NotImplemented if y is None else (y.reshape(*x.shape[:-1], columns), mask)


def has_algorithm(xp: Any, x: tuple[int, ...], weight: tuple[int, ...], dtype: Any) -> bool:
    """Whether the library multiplies arrays of these shapes so, which is tried once."""
    given = xp.zeros(x, dtype), xp.zeros(weight, dtype), xp.zeros(weight[0], dtype)
    return _relu(xp, *given) is not NotImplemented


@forward("linear_relu_gradient")
def _relu_gradient(xp: Any, g: Array, weight: Array, mask: Array, y: Array) -> Any:
    lt = epilogues.of(xp, g)
    if lt is None or not fits(xp, g, weight, y):
        return NotImplemented
    columns = y.shape[-1]
    sums = xp.empty(columns, y.dtype)
    d = lt.multiply("DRELU_BGRAD", _rows(g), weight, sums, mask, _row(columns), tf32(xp))
    return NotImplemented if d is None else (d.reshape(y.shape), sums)


@forward("linear_weights_and_bias")
def _weights(xp: Any, d: Array, x: Array) -> Any:
    lt = epilogues.of(xp, d)
    if lt is None or not fits(xp, d, x):
        return NotImplemented
    sums = xp.empty(d.shape[1], d.dtype)
    dw = lt.multiply("BGRADB", d.T, x, sums, tf32=tf32(xp))
    return NotImplemented if dw is None else (dw, sums)
