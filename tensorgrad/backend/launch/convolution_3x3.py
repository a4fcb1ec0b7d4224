"""Convolutions with windows of 3 x 3 side by side, without columns: kernels/convolution_3x3.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.common import THREADS, Plan, blocks_for, per_pack, planned
from tensorgrad.dtypes import float64

#: What a block has of a result: channels, and lines and columns of positions.
_OUTPUTS, _HIGH, _WIDE = 64, 8, 16
_BLOCK = 128
#: Channels of the input whose weights are in shared memory at a time take so many bytes.
_DEPTH = 32
#: Of the positions that blocks compute, how many there have to be: else columns are less work.
_FILLED = 0.6
#: Channels below which most of what is multiplied would be zeros.
_CHANNELS = 8


def worthwhile(dtype: np.dtype[Any], channels: int, rows: int, columns: int) -> bool:
    """Whether a convolution of so many channels that gives ``rows`` x ``columns`` positions is
    computed here."""
    computed = -(-rows // _HIGH) * _HIGH * (-(-columns // _WIDE) * _WIDE)
    return dtype != float64 and channels >= _CHANNELS and rows * columns >= _FILLED * computed


def _staged(dtype: np.dtype[Any], outputs: int, channels: int) -> int:
    """Elements of the weights as blocks have them in shared memory."""
    depth = _DEPTH // dtype.itemsize
    return -(-outputs // _OUTPUTS) * _OUTPUTS * -(-channels // depth) * depth * 9


@planned
def _image_plan(
    xp: Any, dtype: np.dtype[Any], outputs: int, channels: int, turned: bool
) -> tuple[Any, ...]:
    size = _staged(dtype, outputs, channels)
    kernel = kernels.get(xp, "convolution_3x3", "weights_3x3", dtype)
    tail = np.int32(turned), outputs, channels
    return kernel, (blocks_for(size, per_pack(dtype)),), (THREADS,), tail, size


@planned
def _plan(
    xp: Any, dtype: np.dtype[Any], x: tuple[int, ...], y: tuple[int, ...], above: tuple[int, ...],
    bias: bool, packed_in: bool, packed_out: bool,
) -> Plan:  # fmt: skip
    tiles = -(-y[1] // _OUTPUTS) * -(-y[2] // _HIGH) * -(-y[3] // _WIDE)
    grid = (max(1, min(y[0] * tiles, common.MOST_BLOCKS)),)
    flags = [np.int32(flag) for flag in (bias, packed_in, packed_out)]
    kernel = kernels.get(xp, "convolution_3x3", "convolution_3x3", dtype)
    return kernel, grid, (_BLOCK,), (*flags, x[0], x[1], y[1], *x[2:], *y[2:], *above)


def convolved(
    xp: Any, x: Array, weight: Array, bias: Any, size: tuple[int, ...], above: tuple[int, ...],
    turned: bool,
) -> Array:  # fmt: skip
    """The convolution of ``x`` (N, C, H, W) with ``weight`` (O, C, 3, 3), all contiguous.

    size: of the result. above: how far before the first element windows begin, for each axis.
    turned: ``weight`` is (C, O, 3, 3), and its taps begin with the last one.
    """
    dtype, channels = x.dtype, x.shape[1]
    outputs = weight.shape[1 if turned else 0]
    kernel, grid, block, tail, staged = _image_plan(xp, dtype, outputs, channels, turned)
    image = xp.empty(staged, dtype)
    kernel(grid, block, (weight, image, *tail))
    y = xp.empty((x.shape[0], outputs, *size), dtype)
    packed_in, packed_out = (
        not (a.shape[3] % 4 or a.data.ptr % (4 * dtype.itemsize)) for a in (x, y)
    )
    kernel, grid, block, tail = _plan(
        xp, dtype, x.shape, y.shape, above, bias is not None, packed_in, packed_out
    )
    kernel(grid, block, (x, image, x if bias is None else bias, y, *tail))
    return y
