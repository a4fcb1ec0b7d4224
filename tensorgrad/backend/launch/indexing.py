"""Rows taken and added by index: kernels/indexing.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.bias_activation import Layout, aligned
from tensorgrad.backend.launch.common import (
    contiguous,
    fits,
    forward,
    launch,
    per_pack,
    planned,
)
from tensorgrad.backend.launch.sorting import rows_in_order
from tensorgrad.backend.templates import ARRAY, filled

#: Contributions to a thread: PIECE in kernels/indexing.cu.
PIECE = 8


def _by_rows(template: Sequence[Any], indices: Sequence[Any]) -> bool:
    """Whether the index is one array on the first axis, and all of the others."""
    whole = ((None, None, None), Ellipsis)
    return len(indices) == 1 and template[0] == ARRAY and all(p in whole for p in template[1:])


@forward("getitem")
def _taken(xp: Any, x: Array, *indices: Array, template: Sequence[Any]) -> Array:
    if not fits(xp, x) or not _by_rows(template, indices):
        return NotImplemented
    (index,) = indices
    x = contiguous(xp, x)
    out = xp.empty(index.shape + x.shape[1:], x.dtype)
    if not x.size or not out.size:
        return NotImplemented  # CuPy says what is wrong, if anything is
    name = "take_rows_32" if index.dtype == np.int32 else "take_rows_64"
    if index.dtype not in (np.int32, np.int64):
        index = index.astype(np.int64)
    index = contiguous(xp, index)
    columns = math.prod(x.shape[1:])
    at = Layout(index.size, columns, x.dtype, aligned(columns, x, out))
    launch(
        xp, "indexing", name, x.dtype, at.grid, x, index, out, index.size, x.shape[0], columns,
        np.int32(at.across), at.tiles, np.int32(at.packed),
    )  # fmt: skip
    return out


@planned
def _sum_plan(xp: Any, dtype: np.dtype[Any], n: int, columns: int, packed: bool) -> tuple[Any, ...]:
    """For the two kernels: function, grid, block; the arguments that are no arrays; the chunks."""
    parts = columns // per_pack(dtype) if packed else columns
    across = min(32, 1 << (parts - 1).bit_length())
    tiles = -(-parts // across)
    down = min(32, 256 // across)  # pieces of a chunk
    chunk = down * PIECE
    chunks = -(-n // chunk)
    grid = (tiles * max(1, min(chunks, common.MOST_BLOCKS // tiles)),)
    add, join = (kernels.get(xp, "indexing", name, dtype) for name in ("add_rows", "join_rows"))
    tail = n, columns, chunk, np.int32(across), tiles, np.int32(packed)
    return (
        (add, grid, (across * down,)),
        (join, grid, (across * min(32, 512 // across),)),
        tail,
        chunks,
    )


def _added(
    xp: Any, g: Array, index: Array, shape: tuple[int, ...], columns: int,
    m: int, rows: int, inner: int = 1,
) -> Array:  # fmt: skip
    """Zeros of ``shape`` to which rows of ``g``, of ``columns`` elements, are added.

    index, m, rows, inner: to which rows of it; see ``rows_in_order``.
    """
    y = xp.zeros(shape, g.dtype)
    n = index.size
    if not n or not columns or not y.size:
        return y
    if n >= 1 << 31:
        return NotImplemented
    order, in_order = rows_in_order(xp, index, m, rows, inner)
    g = contiguous(xp, g)
    packed = aligned(columns, g, y)
    (add, grid, block), join, tail, chunks = _sum_plan(xp, g.dtype, n, columns, packed)
    first, last = (xp.empty((chunks, columns), arithmetic(g.dtype)) for _ in range(2))
    add(grid, block, (g, order, in_order, y, first, last, *tail))
    function, grid, block = join
    function(grid, block, (in_order, y, first, last, *tail))
    return y


def _positions(xp: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Array:
    """The places that ``index`` names in an array of ``shape``, in row-major order."""
    return xp.arange(math.prod(shape)).reshape(shape)[index]


@forward("index_add")
def _index_added(
    xp: Any,
    g: Array,
    *indices: Array,
    template: Sequence[Any],
    shape: tuple[int, ...],
    distinct: bool,
) -> Any:
    if distinct or not fits(xp, g):
        return NotImplemented
    if _by_rows(template, indices) and shape[0]:
        (index,) = indices
        return _added(xp, g, index, shape, math.prod(shape[1:]), index.size, shape[0])
    places = _positions(xp, shape, filled(template, indices))
    if places.shape != g.shape:
        g = xp.broadcast_to(g, places.shape)
    return _added(xp, g, places, shape, 1, places.size, math.prod(shape))


@forward("scatter_add")
def _scattered(
    xp: Any, src: Array, indices: Array, axis: int, shape: tuple[int, ...], distinct: bool
) -> Any:
    if distinct or not fits(xp, src) or not src.size:
        return NotImplemented
    m, rows, inner = indices.shape[axis], shape[axis], math.prod(shape[axis + 1 :])
    if indices.shape != (*shape[:axis], m, *shape[axis + 1 :]):
        return NotImplemented
    return _added(xp, src, indices, shape, 1, m, rows, inner)
