"""Bias and activation in one pass: kernels/bias_activation.cu, and sums over rows: sums.cu."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.activation import ACTIVATIONS, parameter
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    THREADS,
    Plan,
    contiguous,
    fits,
    per_pack,
    planned,
)

#: Blocks that the largest GPU runs at a time; more would only lengthen the second stage.
ENOUGH_BLOCKS = 2048
#: Rows up to which their sum is one launch: so many that a second one would take as long.
FEW_ROWS = 1024


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
    width = columns * arrays[0].itemsize
    return all((width | a.data.ptr) % 16 == 0 for a in arrays)


@planned
def _sums_plan(xp: Any, name: str, strips: int, columns: int, dtype: np.dtype[Any]) -> Plan:
    arrays = 2 if name == "sum_strips_of_two" else 1
    grid = (max(1, min(-(-columns // 32) * arrays, common.MOST_BLOCKS)),)
    # Each warp of a block adds up some strips; eight to a warp, where there are enough.
    block = (32 * max(1, min(32, -(-strips // 8))),)
    return kernels.get(xp, "sums", name, dtype), grid, block, (strips, columns)


def summed(xp: Any, partial: Array, dtype: np.dtype[Any], out: Array = None) -> Array:
    """The sums of the columns of ``partial`` [strips, columns], as an array of ``dtype``."""
    strips, columns = partial.shape
    out = xp.empty(columns, dtype) if out is None else out
    if columns:
        kernel, grid, block, sizes = _sums_plan(xp, "sum_strips", strips, columns, dtype)
        kernel(grid, block, (partial, out, *sizes))
    return out


def summed_two(xp: Any, partial: Array, other: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The same of two arrays of one shape in one launch."""
    strips, columns = partial.shape
    out, other_out = xp.empty(columns, dtype), xp.empty(columns, dtype)
    if columns:
        kernel, grid, block, sizes = _sums_plan(xp, "sum_strips_of_two", strips, columns, dtype)
        kernel(grid, block, (partial, other, out, other_out, *sizes))
    return out, other_out


@planned
def _plan(
    xp: Any, kernel: str, shape: tuple[int, ...], dtype: np.dtype[Any], packed: bool
) -> tuple[Any, ...]:
    """The plan of a pass over an array of this shape, a 0, and the shape of the partial sums."""
    columns = shape[-1]
    rows = math.prod(shape[:-1])
    at = Layout(rows, columns, dtype, packed)
    tail = rows, columns, np.int32(at.across), at.tiles, np.int32(packed)
    function = kernels.get(xp, "bias_activation", kernel, dtype)
    zero = arithmetic(dtype).type(0.0)
    return function, at.grid, (THREADS,), tail, zero, (at.partial_rows, columns)


def spread(xp: Any, bias: Array, shape: tuple[int, ...]) -> Array:
    """An array of ``shape`` whose rows are ``bias``: what a product can be added to."""
    y = xp.empty(shape, bias.dtype)
    if y.size:
        bias = bias if bias.flags.c_contiguous else contiguous(xp, bias)
        packed = not (bias.nbytes | y.data.ptr) % 16
        function, grid, block, tail, _, _ = _plan(
            xp, "bias_identity_forward", shape, bias.dtype, packed
        )
        function(grid, block, (bias, y, *tail))
    return y


def column_sums(xp: Any, g: Array, out: Array = None) -> Array:
    """The sum over all axes but the last: the gradient of a bias, where ``g`` is that of z too.

    out: what it is written to, if that is there and ``g`` has elements.
    """
    shape, dtype = g.shape, g.dtype
    rows = math.prod(shape[:-1])
    if not g.size:
        return xp.zeros(shape[-1], dtype)
    g = contiguous(xp, g)
    if rows <= FEW_ROWS:
        out = xp.empty(shape[-1], dtype) if out is None else out
        kernel, grid, block, sizes = _sums_plan(xp, "sum_rows", rows, shape[-1], dtype)
        kernel(grid, block, (g, out, *sizes))
        return out
    packed = not (shape[-1] * g.itemsize | g.data.ptr) % 16
    function, grid, block, tail, zero, strips = _plan(
        xp, "bias_identity_backward", shape, dtype, packed
    )
    partial = xp.empty(strips, zero.dtype)
    function(grid, block, (g, partial, *tail))
    return summed(xp, partial, dtype, out)


def _value(name: str) -> Callable[..., Any]:
    kernel = f"bias_{name}_forward"

    def launcher(xp: Any, z: Array, bias: Array, **options: Any) -> Any:
        if not fits(xp, z, bias) or bias.shape != z.shape[-1:]:
            return NotImplemented
        shape, dtype = z.shape, z.dtype
        if not (z.flags.c_contiguous and bias.flags.c_contiguous):
            z, bias = contiguous(xp, z), contiguous(xp, bias)
        y = xp.empty(shape, dtype)
        if z.size:
            packed = not (shape[-1] * z.itemsize | z.data.ptr | y.data.ptr) % 16
            function, grid, block, tail, scalar, _ = _plan(xp, kernel, shape, dtype, packed)
            if options:
                scalar = parameter(name, options, dtype)
            function(grid, block, (z, bias, y, scalar, *tail))
        return y

    return launcher


def _gradients(name: str) -> Callable[..., Any]:
    kernel = f"bias_{name}_backward"

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
        shape, dtype = g.shape, g.dtype
        if not fits(xp, g, saved) or saved.shape != shape:
            return NotImplemented
        if bias_shape not in (None, shape[-1:]):
            return NotImplemented
        bias = saved if bias is None else contiguous(xp, bias)  # not read, where y is saved
        if not (g.flags.c_contiguous and saved.flags.c_contiguous):
            g, saved = contiguous(xp, g), contiguous(xp, saved)
        dz = xp.empty(shape, dtype)
        if not g.size:
            return dz, xp.zeros(shape[-1], dtype)
        packed = not (shape[-1] * g.itemsize | g.data.ptr | saved.data.ptr | dz.data.ptr) % 16
        function, grid, block, tail, scalar, strips = _plan(xp, kernel, shape, dtype, packed)
        if options:
            scalar = parameter(name, options, dtype)
        partial = xp.empty(strips, scalar.dtype)
        function(grid, block, (g, saved, bias, dz, partial, scalar, *tail))
        return dz, summed(xp, partial, dtype) if needed[1] else None

    return launcher


for _name in ACTIVATIONS:
    FORWARD[f"bias_{_name}"] = _value(_name)
    BACKWARD[f"bias_{_name}"] = _gradients(_name)
