"""Bias and activation in one pass: kernels/bias_activation.cu, and sums over rows: sums.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.activation import ACTIVATIONS, parameter
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    THREADS,
    contiguous,
    fits,
    launch,
    per_pack,
)

#: Blocks that the largest GPU runs at a time; more would only lengthen the second stage.
ENOUGH_BLOCKS = 2048


class Layout:
    """How the threads of a grid lie on a matrix of rows and columns.

    ``across`` threads of each block along a row, ``tiles`` blocks to cover a row, ``strips`` blocks
    downwards. ``packed``: whether a thread takes 16 bytes of a row at a time.
    """

    def __init__(self, rows: int, columns: int, dtype: np.dtype[Any], packed: bool) -> None:
        width = per_pack(dtype) if packed else 1
        parts = -(-columns // width)
        self.across = min(THREADS, 1 << max(0, parts - 1).bit_length())
        self.tiles = -(-parts // self.across)
        self.down = THREADS // self.across
        most = max(1, min(ENOUGH_BLOCKS, common.MOST_BLOCKS) // self.tiles)
        self.strips = max(1, min(most, -(-rows // (4 * self.down))))
        self.packed = packed

    @property
    def grid(self) -> tuple[int]:
        """The grid of a kernel."""
        return (self.tiles * self.strips,)

    @property
    def partial_rows(self) -> int:
        """Into how many partial sums the rows are added."""
        return self.strips * self.down


def aligned(columns: int, *arrays: Array) -> bool:
    """Whether every row of the matrices begins at a multiple of 16 bytes."""
    return columns % per_pack(arrays[0].dtype) == 0 and not any(a.data.ptr % 16 for a in arrays)


def summed(xp: Any, partial: Array, dtype: np.dtype[Any]) -> Array:
    """The sums of the columns of ``partial`` [strips, columns], as an array of ``dtype``."""
    strips, columns = partial.shape
    out = xp.empty(columns, dtype)
    if columns:
        grid = (max(1, min(-(-columns // 32), common.MOST_BLOCKS)),)
        launch(xp, "sums", "sum_strips", dtype, grid, partial, out, strips, columns)
    return out


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, z: Array, bias: Array, **options: Any) -> Any:
        if not fits(xp, z, bias) or bias.shape != z.shape[-1:]:
            return NotImplemented
        z, bias = contiguous(xp, z), contiguous(xp, bias)
        y = xp.empty(z.shape, z.dtype)
        if z.size:
            columns = z.shape[-1]
            rows = z.size // columns
            at = Layout(rows, columns, z.dtype, aligned(columns, z, y))
            launch(
                xp, "bias_activation", f"bias_{name}_forward", z.dtype, at.grid,
                z, bias, y, parameter(name, options, z.dtype), rows, columns,
                np.int32(at.across), at.tiles, np.int32(at.packed),
            )  # fmt: skip
        return y

    return launcher


def _gradients(name: str) -> Callable[..., Any]:
    def launcher(
        xp: Any,
        g: Array,
        needed: Sequence[bool],
        *,
        y: Array = None,
        z: Array = None,
        bias: Array = None,
        bias_shape: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Any:
        saved = z if y is None else y
        if bias is not None:
            bias_shape = bias.shape
        if not fits(xp, g, saved) or saved.shape != g.shape:
            return NotImplemented
        if bias_shape not in (None, g.shape[-1:]):
            return NotImplemented
        bias = saved if bias is None else contiguous(xp, bias)  # not read, where y is saved
        g, saved = contiguous(xp, g), contiguous(xp, saved)
        dz = xp.empty(g.shape, g.dtype)
        columns = g.shape[-1]
        if not g.size:
            return dz, xp.zeros(columns, g.dtype)
        rows = g.size // columns
        at = Layout(rows, columns, g.dtype, aligned(columns, g, saved, dz))
        partial = xp.empty((at.partial_rows, columns), arithmetic(g.dtype))
        launch(
            xp, "bias_activation", f"bias_{name}_backward", g.dtype, at.grid,
            g, saved, bias, dz, partial, parameter(name, options, g.dtype), rows, columns,
            np.int32(at.across), at.tiles, np.int32(at.packed),
        )  # fmt: skip
        return dz, summed(xp, partial, g.dtype) if needed[1] else None

    return launcher


for _name in ACTIVATIONS:
    FORWARD[f"bias_{_name}"] = _value(_name)
    BACKWARD[f"bias_{_name}"] = _gradients(_name)
