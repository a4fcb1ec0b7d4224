"""Attention, block by block: its value and its gradients on arrays.

The scores of all queries and keys never exist at once. Queries and keys are gone through in blocks;
the largest score of each row and the sum of its exponentials are kept up to date on the way (online
softmax), and the gradient computes the blocks again from the logarithm of that sum. So memory grows
with the length and not with its square. Sources: Milakov and Gimelshein, "Online normalizer
calculation for softmax" (2018); Dao and others, "FlashAttention" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product as every
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import philox
from tensorgrad.dtypes import HALVES, float32
from tensorgrad.dtypes import bool as boolean
from tensorgrad.ops.linear_algebra import product

#: The names of the arrays, in order.
INPUTS = ("q", "k", "v", "mask")
#: So many scores are computed at a time, at most, and so many rows of one head.
SCORES = 1 << 18
ROWS = 256
#: By how much blocks are larger and higher on a GPU, where each costs launches and not cache.
ON_GPU = 64, 8

Slices = tuple[slice, ...]


# --- blocks ---------------------------------------------------------------------------------------


class Blocks:
    """The arrays of one call, and how they are cut.

    The axes before the last two, the heads, are broadcast and cut in groups; of a group the queries
    (rows) and keys (columns) are cut in blocks. ``drop`` is None or (key, position, p).
    """

    def __init__(
        self, xp: Any, inputs: Sequence[Any], causal: bool, scale: float, drop: Any
    ) -> None:
        q, k, v, mask = inputs
        self.xp, self.causal, self.scale, self.drop = xp, causal, scale, drop
        given = [x.shape[:-2] for x in inputs if x is not None]
        self.heads: tuple[int, ...] = np.broadcast_shapes(*given)
        self.rows, self.columns = q.shape[-2], k.shape[-2]
        self.q, self.k, self.v = (self.broadcast(_for_products(xp, x)) for x in (q, k, v))
        self.mask = mask
        if mask is not None:
            shape = (*self.heads, self.rows, self.columns)
            self.mask = xp.broadcast_to(mask, shape)
        more, higher = (1, 1) if xp is np else ON_GPU
        self.scores_at_once, rows = SCORES * more, ROWS * higher
        # What lies above the diagonal is left out block by block: so not all in one.
        self.height = min(self.rows, -(-rows // 2) if causal else rows)
        if not causal and self.rows * self.columns <= self.scores_at_once:
            self.height = self.rows
        room = self.scores_at_once // max(1, self.height)
        self.width = self.columns if self.columns <= room else max(4, room // 4 * 4)

    def broadcast(self, x: Any) -> Any:
        """``x`` with the axes of all heads."""
        shape = (*self.heads, *x.shape[-2:])
        return x if x.shape == shape else self.xp.broadcast_to(x, shape)

    def groups(self) -> Iterator[Slices]:
        """Parts of the heads, each of which has as many as there is room for."""
        room = max(1, self.scores_at_once // max(1, self.height * self.width))
        steps: list[int] = []
        for n in reversed(self.heads):
            steps.insert(0, max(1, min(n, room)))
            room = room // n if 0 < n <= room else 1
        cuts = [_cut(n, step) for n, step in zip(self.heads, steps, strict=True)]
        return every(*cuts)

    def row_blocks(self) -> list[slice]:
        """The blocks of queries."""
        return _cut(self.rows, self.height)

    def column_blocks(self, rows: slice) -> list[slice]:
        """The blocks of keys that some of the queries see."""
        return _cut(min(self.columns, rows.stop) if self.causal else self.columns, self.width)

    def scores(self, queries: Any, keys: Any, heads: Slices, rows: slice, columns: slice) -> Any:
        """The scores of a block, -inf where a query does not see a key."""
        xp = self.xp
        s = product(xp, queries, xp.swapaxes(keys, -1, -2))
        if self.mask is not None:
            mask = self.mask[(*heads, rows, columns)]
            s = xp.where(mask, s, s.dtype.type(-math.inf)) if mask.dtype == boolean else s + mask
        if self.causal and columns.stop - 1 > rows.start:
            seen = _numbers(xp, rows)[:, None] >= _numbers(xp, columns)
            s = xp.where(seen, s, s.dtype.type(-math.inf))
        return s

    def kept(self, like: Any, heads: Slices, rows: slice, columns: slice) -> Any:
        """What dropout multiplies the weights of a block with.

        It depends on the places of query and key alone, so it is the same for other blocks. The
        words of a row begin at a whole block of four.
        """
        xp = self.xp
        key, position, p = self.drop
        count = math.prod(self.heads)
        head = xp.arange(count, dtype=np.uint64).reshape(self.heads)[heads].reshape(-1, 1)
        row = head * np.uint64(self.rows) + _numbers(xp, rows).astype(np.uint64)
        words = philox.rows(
            xp, key, position + columns.start, row.reshape(-1), stride_of(self.columns),
            columns.stop - columns.start,
        )  # fmt: skip
        factor = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
        found = words >= np.uint32(min(round(p * 2.0**32), 2**32 - 1))
        return found.reshape(like.shape).astype(like.dtype) * like.dtype.type(factor)


def _cut(n: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, n)) for k in range(0, n, max(1, step))]


def _numbers(xp: Any, part: slice) -> Any:
    return xp.arange(part.start, part.stop)


def stride_of(columns: int) -> int:
    """How many words of a random stream a row of weights takes."""
    return -(-columns // 4) * 4


def _for_products(xp: Any, x: Any) -> Any:
    """``x``, copied if its matrices do not lie as a BLAS takes them: NumPy would do without one."""
    if xp is not np or x.size == 0:
        return x
    (rows, columns), (down, right) = x.shape[-2:], x.strides[-2:]
    size = x.itemsize
    fits = (right == size and down >= columns * size) or (down == size and right >= rows * size)
    return x if fits else np.ascontiguousarray(x)


# --- value ----------------------------------------------------------------------------------------


def attention_value(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any = None
) -> Any:
    """The results, and for each query the logarithm of the sum of its exponentials."""
    blocks = Blocks(xp, (q, k, v, mask), causal, scale, drop)
    y = xp.zeros((*blocks.heads, blocks.rows, v.shape[-1]), q.dtype)
    r = xp.zeros((*blocks.heads, blocks.rows, 1), q.dtype)
    for heads in blocks.groups():
        for rows in blocks.row_blocks():
            columns = blocks.column_blocks(rows)
            if columns:
                y[(*heads, rows)], r[(*heads, rows)] = _rows_of(blocks, heads, rows, columns)
    return y, r


def _rows_of(blocks: Blocks, heads: Slices, rows: slice, columns: Sequence[slice]) -> Any:
    """The results of a block of queries, and the logarithms of the sums of exponentials.

    What sees no key gives 0, and infinity for the logarithm, by which the gradient knows it: the
    exponentials of its scores are 0.
    """
    xp = blocks.xp
    queries = blocks.q[(*heads, rows)] * blocks.scale
    top: Any = None
    for part in columns:
        s = blocks.scores(queries, blocks.k[(*heads, part)], heads, rows, part)
        new = s.max(axis=-1, keepdims=True)
        if top is not None:
            new = xp.maximum(new, top)
        low = xp.where(new == -math.inf, s.dtype.type(0), new)
        s -= low
        xp.exp(s, out=s)
        found_sum = s.sum(axis=-1, keepdims=True)
        if blocks.drop is not None:
            s *= blocks.kept(s, heads, rows, part)
        found = product(xp, s, blocks.v[(*heads, part)])
        if top is None:
            y, sums = found, found_sum
        else:
            shrink = xp.exp(top - low)
            y = y * shrink + found
            sums = sums * shrink + found_sum
        top = new
    none = sums == 0
    sums = xp.where(none, sums.dtype.type(1), sums)
    level = xp.where(none, sums.dtype.type(math.inf), low + xp.log(sums))
    return xp.where(none, y.dtype.type(0), y / sums), level


# --- gradients ------------------------------------------------------------------------------------


def _gradients(blocks: Blocks, g: Any, y: Any, r: Any, targets: Sequence[Any]) -> None:
    """Add the gradients of q, k, v and mask to ``targets``, arrays of their shapes or ``None``."""
    xp, g = blocks.xp, blocks.broadcast(_for_products(blocks.xp, g))
    into = [_Sum(t, len(blocks.heads)) for t in targets]
    for heads in blocks.groups():
        for rows in blocks.row_blocks():
            here = (*heads, rows)
            queries, up = blocks.q[here] * blocks.scale, g[here]
            blind = r[here] == math.inf  # they see no key: whatever lies there adds nothing
            some = xp is not np or blind.any()
            if some:
                queries, up = _cleared(xp, blind, queries), _cleared(xp, blind, up)
            level = (up * y[here]).sum(axis=-1, keepdims=True)
            for columns in blocks.column_blocks(rows):
                there = (*heads, columns)
                p = blocks.scores(queries, blocks.k[there], heads, rows, columns)
                p -= r[here]
                xp.exp(p, out=p)
                d = product(xp, up, xp.swapaxes(blocks.v[there], -1, -2))
                weights = p
                if blocks.drop is not None:
                    kept = blocks.kept(p, heads, rows, columns)
                    d *= kept
                    weights = p * kept
                d -= level
                d *= p
                d = _cleared(xp, blind, d) if some else d
                if targets[0] is not None:
                    found = product(xp, d, blocks.k[there]) * blocks.scale
                    into[0].add(heads, rows, _cleared(xp, blind, found) if some else found)
                if targets[1] is not None:
                    into[1].add(heads, columns, product(xp, xp.swapaxes(d, -1, -2), queries))
                if targets[2] is not None:
                    into[2].add(heads, columns, product(xp, xp.swapaxes(weights, -1, -2), up))
                if targets[3] is not None:
                    into[3].add(heads, rows, d, columns)


def _cleared(xp: Any, where: Any, x: Any) -> Any:
    return xp.where(where, x.dtype.type(0), x)


class _Sum:
    """The gradient of an array that was broadcast, to which parts are added.

    target: in the shape of the array. heads: how many axes lie before the last two.
    """

    def __init__(self, target: Any, heads: int) -> None:
        if target is not None:
            target = target.reshape((1,) * (heads + 2 - target.ndim) + target.shape)
        self.target = target

    def add(self, heads: Slices, rows: slice, d: Any, columns: slice = slice(None)) -> None:
        """Add ``d``, the part for these heads, rows and columns."""
        parts = (*heads, rows, columns)
        shape = self.target.shape
        over = tuple(k for k, n in enumerate(shape) if n == 1 != d.shape[k])
        if over:
            d = d.sum(axis=over, keepdims=True)
        place = tuple(slice(None) if n == 1 else part for n, part in zip(shape, parts))
        self.target[place] += d


def attention_gradient_value(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, drop: Any = None,
) -> Any:  # fmt: skip
    """The gradients of q, k and v, (3, ...) if their shapes are equal, else one after the other,
    flat; or that of the mask."""
    blocks = Blocks(xp, (q, k, v, mask), causal, scale, drop)
    if of_mask:
        found = xp.zeros(mask.shape, g.dtype)
        _gradients(blocks, g, y, r, (None, None, None, found))
        return found
    flat = xp.zeros(q.size + k.size + v.size, g.dtype)
    ends = q.size, q.size + k.size
    parts = flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] :]
    shaped = [part.reshape(x.shape) for part, x in zip(parts, (q, k, v))]
    _gradients(blocks, g, y, r, (*shaped, None))
    return flat.reshape(3, *q.shape) if q.shape == k.shape == v.shape else flat


def attention_gradients(g: Any, needed: Sequence[bool], saved: Any) -> list[Any]:
    """All gradients that are needed at once, where nothing is recorded."""
    xp = backend.of(g).xp
    dtype = g.dtype

    def wide(x: Any) -> Any:
        return x.astype(float32) if getattr(x, "dtype", None) in HALVES else x

    inputs = [wide(saved[name]) for name in INPUTS]
    g = wide(g)
    found = [xp.zeros(x.shape, g.dtype) if wanted else None for x, wanted in zip(inputs, needed)]
    drop = (saved["key"], saved["position"], saved["p"]) if "p" in saved else None
    blocks = Blocks(xp, inputs, saved["causal"], saved["scale"], drop)
    _gradients(blocks, g, wide(saved["y"]), saved["r"], found)
    return [None if d is None else d.astype(dtype, copy=False) for d in found]
