"""Linear layers with a ReLU, and their gradients, as cublasLt makes them: products that do more.

What a program on a GPU is made of, where the library is (see program/library_products.py); nobody
else calls them. A mask has a bit for each result, which says that it is positive: eight to a byte,
the lowest first, and rows of a multiple of 128. Kernels of the library may put bits elsewhere, so
what makes a mask and what reads it go together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.ops.linear_algebra import linear_value
from tensorgrad.ops.sums import total
from tensorgrad.tape import Primitive

#: Bits of a row of a mask are a multiple of so many.
BITS = 128


def row_of(columns: int) -> int:
    """The bits of a row of a mask."""
    return -(-columns // BITS) * BITS


def _rows(x: Any) -> Any:
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def _masked_value(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    y = xp.maximum(linear_value(xp, x, weight, bias), 0.0)
    columns = y.shape[-1]
    bits = xp.zeros((y.size // columns, row_of(columns)), np.uint8)
    bits[:, :columns] = _rows(y) > 0
    weights = xp.asarray(1 << np.arange(8), np.uint8)
    return y, (bits.reshape((-1, 8)) * weights).sum(-1).astype(np.uint8)


def _gradient_value(xp: Any, g: Any, weight: Any, mask: Any, y: Any) -> Any:
    """The gradient behind a layer, ``g @ weight`` where ``y`` is positive, and its sums."""
    d = xp.where(y > 0, xp.matmul(g, weight), y.dtype.type(0))
    return d, total(xp, _rows(d), (0,))


def _weights_value(xp: Any, d: Any, x: Any) -> Any:
    """The gradients of a layer's weights and bias."""
    return xp.matmul(d.T, x), total(xp, d, (0,))


def _made(name: str, value: Any, inputs: tuple[str, ...]) -> Primitive:
    return Primitive(
        name, value, dict.fromkeys(inputs), residual=lambda: None, half_in_float32=True,
        kernel=name, fresh=True,
    )  # fmt: skip


LINEAR_RELU = _made("linear_relu_masked", _masked_value, ("x", "weight", "bias"))
RELU_GRADIENT = _made("linear_relu_gradient", _gradient_value, ("g", "weight", "mask", "y"))
WEIGHTS_AND_BIAS = _made("linear_weights_and_bias", _weights_value, ("d", "x"))
