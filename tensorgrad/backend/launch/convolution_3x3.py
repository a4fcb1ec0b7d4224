"""Convolutions with windows of 3 x 3 side by side, without columns: kernels/convolution_3x3*.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.bias_activation import summed
from tensorgrad.backend.launch.common import THREADS, Plan, blocks_for, per_pack, planned
from tensorgrad.dtypes import float32, float64

#: What a block has of a result: channels, and lines and columns of positions (kernels/patches.cuh).
_OUTPUTS, _HIGH, _WIDE = 64, 8, 16
_BLOCK = 128
#: Channels of the input whose weights are in shared memory at a time take so many bytes.
_DEPTH = 32
#: Of the positions that blocks compute, how many there have to be: else columns are less work.
_FILLED = 0.6
#: Channels below which most of what is multiplied would be zeros; those of the result, in sums for
#: weights, where they are not what is summed over.
_CHANNELS = 8
_RESULTS = 16
#: Blocks that share out the positions in sums for weights: more would write more partial sums.
_ENOUGH_BLOCKS = 512


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
    packed_in, packed_out = (_packed(a) for a in (x, y))
    kernel, grid, block, tail = _plan(
        xp, dtype, x.shape, y.shape, above, bias is not None, packed_in, packed_out
    )
    kernel(grid, block, (x, image, x if bias is None else bias, y, *tail))
    return y


def worthwhile_for_weights(
    dtype: np.dtype[Any], channels: int, outputs: int, rows: int, columns: int
) -> bool:
    """Whether the gradient for such weights is computed here."""
    return outputs >= _RESULTS and worthwhile(dtype, channels, rows, columns)


@planned
def _weight_plan(
    xp: Any, dtype: np.dtype[Any], g: tuple[int, ...], x: tuple[int, ...], above: tuple[int, ...],
    packed_in: bool, packed_out: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """A plan, and how many parts of the positions there are."""
    tiles = -(-g[1] // _OUTPUTS) * -(-x[1] // (_DEPTH // dtype.itemsize))
    items = g[0] * -(-g[2] // _HIGH) * -(-g[3] // _WIDE)
    parts = max(1, min(items, _ENOUGH_BLOCKS // tiles))
    grid = (max(1, min(tiles * parts, common.MOST_BLOCKS)),)
    flags = [np.int32(flag) for flag in (packed_in, packed_out)]
    kernel = kernels.get(xp, "convolution_3x3_weight", "convolution_3x3_weight", dtype)
    return kernel, grid, (96,), (*flags, x[0], x[1], g[1], *x[2:], *g[2:], *above, parts), parts


def weight_sums(xp: Any, g: Array, x: Array, above: tuple[int, ...]) -> Array:
    """The gradient (O, C, 3, 3) for the weights of ``convolved``, all contiguous.

    Each part of the positions has sums of its own, in float32, which are added up in order.
    """
    packed_in, packed_out = (_packed(a) for a in (x, g))
    kernel, grid, block, tail, parts = _weight_plan(
        xp, g.dtype, g.shape, x.shape, above, packed_in, packed_out
    )
    shape = g.shape[1], x.shape[1], 3, 3
    partial = xp.empty((parts, 9 * shape[0] * shape[1]), float32)
    kernel(grid, block, (g, x, partial, *tail))
    return summed(xp, partial, g.dtype, xp.empty(shape, g.dtype))


def _packed(x: Array) -> bool:
    """Whether lines can be read and written four elements at a time."""
    return not (x.shape[3] % 4 or x.data.ptr % (4 * x.itemsize))
