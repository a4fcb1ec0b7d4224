"""Layer norm and RMS norm: kernels/normalization.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.bias_activation import aligned, summed, summed_two
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    THREADS,
    blocks_for,
    contiguous,
    fits,
    launch,
    per_pack,
)
from tensorgrad.backend.launch.rows import by_rows, lanes_for, tile_of


def _packed(columns: int, *arrays: Array) -> np.int32:
    return np.int32(aligned(columns, *arrays))


def _long_value(xp: Any, name: str, x: Array, packed: np.int32, args: tuple[Any, ...]) -> None:
    """Launch the two kernels for rows that no block holds."""
    rows, columns = args[-2:]
    pack = 32 * per_pack(x.dtype)
    parts = -(-columns // (512 * tile_of(x.dtype)))
    parts = -(-columns // (-(-columns // (parts * pack)) * pack))  # none is empty
    found = xp.empty((rows, parts, 2), arithmetic(x.dtype))
    grid = (blocks_for(rows * parts * THREADS),)
    first = (x, found, packed, rows, columns, parts)
    launch(xp, "normalization", f"{name}_parts", x.dtype, grid, *first, block=(512,))
    more = (found, parts)
    launch(xp, "normalization", f"{name}_long", x.dtype, grid, *args, *more, block=(512,))


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
        rows, packed = x.size // columns, _packed(columns, x, w, b, y)
        args = (
            x, w, b, y, center, scale, wide.type(eps), np.int32(weight is not None),
            np.int32(bias is not None), packed, rows, columns,
        )  # fmt: skip
        if columns <= 1024 * tile_of(x.dtype):
            by_rows(
                xp, "normalization", f"{name}_forward", x.dtype, rows, columns, *args,
                one_tile="_row",
            )  # fmt: skip
        else:
            _long_value(xp, f"{name}_forward", x, packed, args)
        return y, (center, scale) if name == "layer_norm" else scale

    return launcher


#: Blocks of a pass that adds up over rows, at most: each leaves sums of its own. They occupy the
#: largest GPU; of blocks of many threads fewer do.
_PERSISTENT_BLOCKS, _PERSISTENT_THREADS = 1024, 1 << 18


def _blocks(rows: int, threads: int) -> int:
    """Blocks for so many rows (or groups of rows): four rows or more to a block, if that leaves
    enough blocks to occupy a GPU."""
    most = min(_PERSISTENT_BLOCKS, _PERSISTENT_THREADS // threads, common.MOST_BLOCKS)
    return max(1, min(most, max(-(-rows // 4), min(rows, 128))))


def _held(
    name: str, dtype: np.dtype[Any], rows: int, columns: int, packed: bool
) -> tuple[str, int, int, tuple[int, ...]] | None:
    """Kernel, blocks, threads and further arguments for rows that a team of threads can hold."""
    tile = tile_of(dtype)
    if columns <= 32 * tile:
        lanes = lanes_for(columns, tile)
        return f"{name}_short", _blocks(-(-rows * lanes // THREADS), THREADS), THREADS, (lanes,)
    threads = -(-columns // (32 * tile)) * 32
    if packed and dtype.itemsize < 8 and 256 < threads <= 1024:
        return f"{name}_wide", _blocks(rows, threads), threads, ()
    return (f"{name}_row", _blocks(rows, threads), threads, ()) if threads <= 512 else None


#: Parts of a row at most, where rows are so few that blocks share one.
_PARTS = 16


def _swept(
    xp: Any, name: str, arrays: tuple[Array, ...], flags: tuple[np.int32, ...], packed: bool,
    rows: int, columns: int, sums: int,
) -> list[Array]:  # fmt: skip
    """Launch what makes dx, and the sums over the rows of each block.

    arrays: g, x, weight, mean, scale, dx. flags: whether there is a weight, and whether dx and the
    sums are wanted. sums: two arrays of these, or one.
    """
    dtype, scale = arrays[1].dtype, arrays[4]
    held = _held(name, dtype, rows, columns, packed)
    whole = 512 * tile_of(dtype)
    windows = -(-columns // whole)
    strips = max(1, _blocks(rows, 512) // windows) if held is None else held[1]
    # What is not wanted is not written: scale stands in for the pointer.
    partial = [xp.empty((strips, columns), scale.dtype) if flags[2] else scale for _ in range(sums)]
    args = (*arrays, partial[0], partial[-1], *flags, np.int32(packed), rows, columns)
    if held is not None:
        kernel, blocks, threads, more = held
        block = (threads,)
        launch(xp, "normalization", kernel, dtype, (blocks,), *args, *more, block=block)
        return partial
    # 256 blocks make the sums, if there is work for so many
    parts = max(1, min(_PARTS, 256 // rows, columns // whole))
    joint = xp.empty((rows, parts, 2), scale.dtype)
    for kernel, blocks in (
        ("long", blocks_for(rows * parts * THREADS)),
        ("apply", windows * strips),
    ):
        launch(
            xp, "normalization", f"{name}_{kernel}", dtype, (blocks,), *args, joint, parts,
            block=(512,),
        )  # fmt: skip
    return partial


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
        dx = xp.empty(x.shape, x.dtype) if needed[0] else None
        flags = (np.int32(weight is not None), np.int32(needed[0]), np.int32(any(needed[1:])))
        packed = aligned(columns, g, x, w, *([dx] if needed[0] else []))
        sums = _swept(
            xp, f"{name}_backward", (g, x, w, center, scale, x if dx is None else dx), flags,
            packed, x.size // columns, columns, 2 if name == "layer_norm" else 1,
        )  # fmt: skip
        d_weight = d_bias = None
        if len(needed) > 2 and needed[1] and needed[2]:
            d_weight, d_bias = summed_two(xp, sums[0], sums[1], x.dtype)
        elif needed[1]:
            d_weight = summed(xp, sums[0], x.dtype)
        elif needed[2:] and needed[2]:
            d_bias = summed(xp, sums[1], x.dtype)
        return dx, d_weight, d_bias

    return launcher


for _name in ("layer_norm", "rms_norm"):
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradients(_name)
