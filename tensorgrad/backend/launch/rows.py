"""Softmax, its logarithm and cross-entropy: kernels/softmax.cu and kernels/cross_entropy.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    THREADS,
    Plan,
    backward,
    blocks_for,
    contiguous,
    fits,
    forward,
    launch,
    per_pack,
    planned,
)

#: Threads at most of a block that holds a row, and of one that reads it tile by tile.
_HOLDING, _READING = 1024, 512
#: Tiles of a thread at most, where a block holds rows that are still longer: VALUE_TILES and
#: GRADIENT_TILES in kernels/softmax.cu. Values of double have one.
_VALUE_TILES, _GRADIENT_TILES = 4, 2
#: Rows that occupy a GPU if each has a block. The blocks of fewer, and parts of a row at most.
_ENOUGH_ROWS, _PART_BLOCKS, _PARTS = 128, 512, 64


def tile_of(dtype: np.dtype[Any]) -> int:
    """How many elements of a row a thread holds at most: TILE in kernels/rows.cuh."""
    return 4 if dtype.itemsize == 8 else 8


def lanes_for(columns: int, tile: int) -> int:
    """How many lanes of a warp share a row: a power of two that gives each half a tile or less."""
    return min(32, 1 << (-(-2 * columns // tile) - 1).bit_length())


@planned
def _row_plan(
    xp: Any, family: str, name: str, dtype: np.dtype[Any], rows: int, columns: int, one_tile: str,
    suffix: str,
) -> Plan:  # fmt: skip
    tile = tile_of(dtype)
    if columns <= 32 * tile:
        lanes = lanes_for(columns, tile)
        kernel = kernels.get(xp, family, f"{name}_short{suffix}", dtype)
        return kernel, (blocks_for(rows * lanes),), (THREADS,), (lanes,)
    most = _READING if one_tile == "_long" else _HOLDING
    threads = min(most, -(-columns // (32 * tile)) * 32)  # whole warps
    variant = one_tile
    if columns > threads * tile:
        variant, threads = "_long", _READING
    kernel = kernels.get(xp, family, f"{name}{variant}{suffix}", dtype)
    return kernel, (blocks_for(rows * THREADS),), (threads,), ()  # a block for each row


def by_rows(
    xp: Any,
    family: str,
    name: str,
    dtype: np.dtype[Any],
    rows: int,
    columns: int,
    *args: Any,
    one_tile: str = "_long",
    suffix: str = "",
) -> int:
    """Launch the variant of a kernel that fits the length of the rows; how many blocks it got.

    one_tile: the variant for rows that a block holds in registers.
    """
    plan = _row_plan(xp, family, name, dtype, rows, columns, one_tile, suffix)
    kernel, grid, block, lanes = plan
    kernel(grid, block, (*args, *lanes))
    return grid[0]


# --- softmax and its logarithm --------------------------------------------------------------------


def _last(xp: Any, x: Array, axis: int) -> Array:
    """``x`` in row-major order with ``axis`` moved to the end: copied, if that is not its order."""
    return contiguous(xp, x if axis == x.ndim - 1 else xp.moveaxis(x, axis, -1))


def _back(xp: Any, y: Array, axis: int) -> Array:
    """The reverse of ``_last``."""
    return y if axis == y.ndim - 1 else contiguous(xp, xp.moveaxis(y, -1, axis))


@planned
def _long_plan(
    xp: Any, name: str, dtype: np.dtype[Any], rows: int, columns: int, packed: bool
) -> tuple[Any, tuple[int, ...], tuple[int, ...], int]:
    """Of rows that no block holds with a tile to a thread: kernel, grid, block; and into how many
    parts the rows are cut, 0 if each is read once."""
    tile, forwards = tile_of(dtype), name.endswith("forward")
    tiles = (_VALUE_TILES if dtype.itemsize < 8 else 1) if forwards else _GRADIENT_TILES
    if packed and rows >= _ENOUGH_ROWS and columns <= tiles * _HOLDING * tile:
        kernel = kernels.get(xp, "softmax", f"{name}_wide", dtype)
        return kernel, (blocks_for(rows * THREADS),), (_HOLDING,), 0
    parts = 1
    if rows < _ENOUGH_ROWS:
        parts = max(1, min(_PARTS, _PART_BLOCKS // rows, columns // (_READING * tile)))
        pack = 32 * per_pack(dtype)
        parts = -(-columns // (-(-columns // (parts * pack)) * pack))  # none is empty
    kernel = kernels.get(xp, "softmax", f"{name}_long", dtype)
    return kernel, (blocks_for(rows * parts * THREADS),), (_READING,), parts


def _over_rows(xp: Any, name: str, *arrays: Array) -> None:
    """Launch a kernel of softmax.cu for the rows of arrays of one shape, of which the last is
    written."""
    x = arrays[0]
    dtype, columns = x.dtype, x.shape[-1]
    rows = x.size // columns
    if columns <= _HOLDING * tile_of(dtype):
        args = (*arrays, rows, columns)
        by_rows(xp, "softmax", name, dtype, rows, columns, *args, one_tile="_row")
        return
    packed = not any((columns * a.itemsize | a.data.ptr) % 16 for a in arrays)
    kernel, grid, block, parts = _long_plan(xp, name, dtype, rows, columns, packed)
    if not parts:
        kernel(grid, block, (*arrays, rows, columns))
        return
    sums = xp.empty((rows, parts, 2), kernels.arithmetic(dtype))
    sizes = (sums, rows, columns, parts)
    if parts > 1:
        first = "exponentials_parts" if name.endswith("forward") else f"{name}_parts"
        launch(xp, "softmax", first, dtype, grid, *arrays[:-1], *sizes, block=block)
    kernel(grid, block, (*arrays, *sizes))


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, x: Array, axis: int) -> Any:
        if not fits(xp, x):
            return NotImplemented
        x = _last(xp, x, axis)
        y = xp.empty(x.shape, x.dtype)
        if x.size:
            _over_rows(xp, f"{name}_forward", x, y)
        return _back(xp, y, axis)

    return launcher


def _gradient(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, g: Array, needed: Sequence[bool], y: Array, axis: int) -> Any:
        if not fits(xp, g, y):
            return NotImplemented
        g, y = _last(xp, g, axis), _last(xp, y, axis)
        d = xp.empty(g.shape, g.dtype)
        if g.size:
            _over_rows(xp, f"{name}_backward", g, y, d)
        return (_back(xp, d, axis),)

    return launcher


for _name in ("softmax", "log_softmax"):
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradient(_name)


# --- cross-entropy --------------------------------------------------------------------------------


def _labels(xp: Any, labels: Array) -> tuple[Any, str]:
    """The labels as the kernels take them, and the ending of the name of those that do."""
    dtype = labels.dtype
    if dtype == np.int32 or dtype == np.int64:
        ending = "_32" if dtype == np.int32 else "_64"
        return (labels if labels.flags.c_contiguous else contiguous(xp, labels)), ending
    # Of uint64, what is beyond int64 becomes negative: out of range all the same.
    return contiguous(xp, labels.astype(np.int64, copy=False)), "_64"


#: Logits that one block reads sooner than a second kernel adds up what several made.
_ONE_BLOCK = 1 << 13


@planned
def _loss_plan(
    xp: Any, dtype: np.dtype[Any], rows: int, columns: int, suffix: str, reduction: str
) -> Plan:
    name = "cross_entropy_forward"
    plan = _row_plan(xp, "cross_entropy", name, dtype, rows, columns, "_long", suffix)
    kernel, grid, block, lanes = plan
    divisor = {"none": 0, "mean": rows, "sum": 1}[reduction]
    if divisor and rows * columns <= _ONE_BLOCK:
        grid = (1,)
    return kernel, grid, block, (rows, columns, divisor, *lanes)


@forward("cross_entropy")
def _cross_entropy(xp: Any, logits: Array, labels: Array, reduction: str) -> Array:
    """The loss, and as the residual ``r``, of one axis, two numbers for each of the N rows.

    r[:N] holds the greatest logits, r[N:] the sums of exp(logit - greatest). The row's own value
    has the probabilities there, which have two axes.
    """
    if not fits(xp, logits) or not logits.size:
        return NotImplemented
    if not logits.flags.c_contiguous:
        logits = contiguous(xp, logits)
    labels, suffix = _labels(xp, labels)
    dtype = logits.dtype
    rows, columns = logits.shape
    arithmetic = kernels.arithmetic(dtype)
    kernel, grid, block, tail = _loss_plan(xp, dtype, rows, columns, suffix, reduction)
    blocks, divisor = grid[0], tail[2]
    r = xp.empty(2 * rows, arithmetic)
    loss = xp.empty(() if divisor else rows, dtype)
    several = divisor and blocks > 1
    partial = xp.empty(blocks, arithmetic) if several else r
    kernel(grid, block, (logits, labels, r, partial, loss, *tail))
    if several:
        block = (min(1024, -(-blocks // 32) * 32),)
        sums = (partial, loss, blocks, divisor)
        launch(xp, "cross_entropy", "cross_entropy_total", dtype, (1,), *sums, block=block)
    return loss, r


@backward("cross_entropy")
def _cross_entropy_gradient(
    xp: Any,
    g: Array,
    needed: Sequence[bool],
    r: Array,
    logits: Array,
    labels: Array,
    reduction: str,
) -> Any:
    if r.ndim != 1 or not fits(xp, g, logits):
        return NotImplemented  # the rule serves either kind of r
    if not (g.flags.c_contiguous and logits.flags.c_contiguous):
        g, logits = contiguous(xp, g), contiguous(xp, logits)
    labels, suffix = _labels(xp, labels)
    rows, columns = logits.shape
    d = xp.empty(logits.shape, logits.dtype)
    step = int(reduction == "none")
    divisor = rows if reduction == "mean" else 1
    args = (g, logits, labels, r, d, rows, columns, step, divisor)
    name = "cross_entropy_backward"
    by_rows(xp, "cross_entropy", name, d.dtype, rows, columns, *args, suffix=suffix)
    return d, None
