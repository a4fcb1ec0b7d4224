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
    planned,
)

#: Threads at most of a block that has a row; of more elements than they hold, a row is read tile by
#: tile.
_MOST_THREADS = 512


def tile_of(dtype: np.dtype[Any]) -> int:
    """How many elements of a row a thread holds at most: TILE in kernels/rows.cuh."""
    return 4 if dtype.itemsize == 8 else 8


def lanes_for(columns: int, tile: int) -> int:
    """How many lanes of a warp share a row: a power of two that gives each half a tile or less."""
    return min(32, 1 << (-(-2 * columns // tile) - 1).bit_length())


def _threads(columns: int, tile: int) -> int:
    """Threads of a block that has a row to itself: whole warps, with one tile where they can."""
    return min(_MOST_THREADS, -(-columns // (32 * tile)) * 32)


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
    threads = _threads(columns, tile)
    variant = one_tile if columns <= threads * tile else "_long"
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


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, x: Array, axis: int) -> Any:
        if not fits(xp, x):
            return NotImplemented
        x = _last(xp, x, axis)
        y = xp.empty(x.shape, x.dtype)
        if x.size:
            columns = x.shape[-1]
            rows = x.size // columns
            args = (x, y, rows, columns)
            by_rows(
                xp, "softmax", f"{name}_forward", x.dtype, rows, columns, *args, one_tile="_row"
            )
        return _back(xp, y, axis)

    return launcher


def _gradient(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, g: Array, needed: Sequence[bool], y: Array, axis: int) -> Any:
        if not fits(xp, g, y):
            return NotImplemented
        g, y = _last(xp, g, axis), _last(xp, y, axis)
        d = xp.empty(g.shape, g.dtype)
        if g.size:
            columns = g.shape[-1]
            rows = g.size // columns
            args = (g, y, d, rows, columns)
            by_rows(
                xp, "softmax", f"{name}_backward", g.dtype, rows, columns, *args, one_tile="_row"
            )
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
    reduced = reduction != "none"
    arithmetic = kernels.arithmetic(dtype)
    r = xp.empty(2 * rows, arithmetic)
    loss = xp.empty(() if reduced else rows, dtype)
    # one sum for each block, of which there are no more than teams of lanes or rows
    partial = xp.empty(blocks_for(rows * THREADS), arithmetic) if reduced else r
    args = (logits, labels, r, partial, loss, rows, columns, int(reduced))
    name = "cross_entropy_forward"
    blocks = by_rows(xp, "cross_entropy", name, dtype, rows, columns, *args, suffix=suffix)
    if reduced:
        divisor = rows if reduction == "mean" else 1
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
