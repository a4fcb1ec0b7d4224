"""Rows in order of their numbers: kernels/sorting.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch import common
from tensorgrad.backend.launch.common import blocks_for, contiguous, planned
from tensorgrad.dtypes import float32

#: Numbers of a block, and how many kinds of a byte there are: CHUNK and DIGITS in
#: kernels/sorting.cu.
_CHUNK, _DIGITS = 2048, 256


@planned
def _plan(xp: Any, name: str, n: int) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """Kernel, grid and block; the dtype of what is compiled beside it does not matter."""
    grid: tuple[int, ...] = (blocks_for(n),)
    if name == "sort_offsets":
        grid = (1,)
    elif not name.startswith("sort_keys"):
        grid = (min(-(-n // _CHUNK), common.MOST_BLOCKS),)
    block = (1024,) if name == "sort_offsets" else (common.THREADS,)
    return kernels.get(xp, "sorting", name, float32), grid, block


def rows_in_order(xp: Any, index: Array, m: int, rows: int, inner: int) -> tuple[Array, Array]:
    """Where the numbers of ``index`` come in order, and the places that they name, in order.

    index: integers [outer, m, inner], each the number of a row of an array [outer, rows, inner];
        numbers beyond the rows count on from the other end. Places are those in that array. Equal
        ones keep their order. There are elements, fewer than 2**31 of them.
    """
    n = index.size
    if index.dtype not in (np.int32, np.int64):
        index = index.astype(np.int64)
    index = contiguous(xp, index)
    chunks = -(-n // _CHUNK)
    keys, other_keys, values, other_values = (xp.empty(n, np.int64) for _ in range(4))
    counts = xp.empty(_DIGITS * chunks, np.uint32)
    kernel, grid, block = _plan(xp, f"sort_keys_{8 * index.itemsize}", n)
    kernel(grid, block, (index, keys, n, m, rows, inner))
    last = (n // (m * inner)) * rows * inner - 1
    count, offsets, place = (
        _plan(xp, name, n) for name in ("sort_count", "sort_offsets", "sort_place")
    )
    for shift in range(0, max(1, last.bit_length()), 8):
        by = np.int32(shift)
        count[0](*count[1:], (keys, counts, n, chunks, by))
        offsets[0](*offsets[1:], (counts, counts.size))
        place[0](
            *place[1:],
            (keys, values, other_keys, other_values, counts, n, chunks, by, np.int32(not shift)),
        )
        keys, other_keys, values, other_values = other_keys, keys, other_values, values
    return values, keys
