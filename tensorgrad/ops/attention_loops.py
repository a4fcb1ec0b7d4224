"""The forms of attention that programs turn into C.

Float32 goes to routines of ``program/c/attention.h``, block by block, as in ``attention_blocks``.
What has no routine is products and nests, for which all scores are there at once, as long as they
take no more memory than is linear in that of queries, keys and values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import tiles
from tensorgrad.dtypes import bool as boolean
from tensorgrad.dtypes import float32
from tensorgrad.ops.attention_blocks import SCORES, stride_of

# Queries of a block of the value, and floats that its keys and values may take.
_HIGH, _ROOM = 128, 1 << 14
# Queries and keys of a block of the gradients; the first that fits into the memory of a thread.
_BLOCKS = ((32, 128), (32, 64), (32, 32), (16, 32))
_FLOATS = 1 << 16
# Features for which the last of them fits.
_FEATURES = 256
# Fewer queries than this are no tile: most of its work would be in vain.
_QUERIES = 4
# Features and keys for which ``program/c/narrow_attention.h`` is quicker.
_FEW_FEATURES, _FEW_KEYS = 8, 128
# Work, in additions, that is worth a piece of its own.
_PIECE = 1 << 17

# --- routines -------------------------------------------------------------------------------------


def _has_routine(xp: Any, q: Any, k: Any, v: Any, mask: Any) -> bool:
    """Whether there is a routine for these arrays."""
    kinds = {x.dtype for x in (q, k, v)}
    return (
        xp.on_host
        and kinds == {float32}
        and (mask is None or mask.dtype in (boolean, float32))
        and len(_heads(q, k, v, mask)) <= 3
        and max(q.shape[-1], v.shape[-1]) <= _FEATURES
        and min(q.size, k.size, v.size) > 0
        and q.shape[-2] >= _QUERIES
    )


def _heads(*arrays: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*[x.shape[:-2] for x in arrays if x is not None])


def _is_narrow(v: Any, d: int, mask: Any, drop: Any) -> bool:
    """Whether a routine takes queries as lanes."""
    few = max(d, v.shape[-1]) <= _FEW_FEATURES and v.shape[-2] <= _FEW_KEYS
    return few and mask is None and drop is None


def _lies(x: Any, heads: Sequence[int]) -> tuple[int, ...]:
    """The distances of its elements along three axes of heads, rows and columns."""
    steps: tuple[int, ...] = x.elements.strides
    if x.shape[:-2] != heads:
        wide = x.xp.broadcast_to(x, (*heads, *x.shape[-2:]))
        steps = wide.elements.strides
    return (0,) * (5 - len(steps)) + steps


def _strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The distances of elements in row-major order."""
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def _rounded(n: int, to: int) -> int:
    return -(-n // to) * to


def _sizes(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any, block: tuple[int, int]
) -> tuple[int | float, ...]:
    """What the routines are told first; see ``tg_attention``."""
    heads = _heads(q, k, v, mask)
    rows, keys = q.shape[-2], k.shape[-2]
    words, least, factor, seen = 0, 0, 1.0, 0
    hidden: tuple[int, ...] = (0,) * 5
    if drop is not None:
        words, (least, factor) = stride_of(keys), _threshold(drop[2])
    if mask is not None:
        seen = 1 if mask.dtype == boolean else 2
        hidden = _lies(mask.xp.broadcast_to(mask, (*heads, rows, keys)), heads)
    return (
        *(1, 1, *heads)[-2:], rows, keys, q.shape[-1], v.shape[-1], *block, int(causal), seen,
        words, least, float(scale), factor, *_lies(q, heads), *_lies(k, heads), *_lies(v, heads),
        *hidden,
    )  # fmt: skip


def _threshold(p: float) -> tuple[int, float]:
    """From which random word on a weight is kept, and what it is multiplied with."""
    return min(round(p * 2.0**32), 2**32 - 1), 0.0 if p == 1.0 else 1.0 / (1.0 - p)


def _stream(xp: Any, drop: Any, instead: Any) -> list[Any]:
    """Key and position of the random words as arrays; something else without dropout."""
    if drop is None:
        return [instead, instead]
    signed = [np.int64((int(x) + 2**63) % 2**64 - 2**63) if type(x) is int else x for x in drop[:2]]
    return [xp.asarray(x, np.int64) for x in signed]


def _piece(items: int, cost: int) -> int:
    """Items of a part, so that two or four threads have equally many where there are some."""
    parts = -(-cost // _PIECE)
    return max(1, items // (-(-parts // 4) * 4)) if parts > 2 else -(-items // parts)


def _value_routine(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any
) -> tuple[Any, Any]:
    heads, (rows, d), (keys, e) = _heads(q, k, v, mask), q.shape[-2:], v.shape[-2:]
    wide = 256
    while wide > 32 and wide * (d + _rounded(e, 16)) > _ROOM:
        wide //= 2
    high = min(_HIGH, _rounded(rows, 16))
    block = high, min(wide, _rounded(keys, 32))
    # The result lies as the queries do, so that heads that were taken apart are joined for nothing.
    queries = xp.broadcast_to(q, (*heads, rows, d)).elements.strides[:-1]
    order = sorted(range(len(heads) + 1), key=lambda axis: -abs(queries[axis]))
    shape = (*heads, rows)
    back = [order.index(axis) for axis in range(len(order))]
    steps = _strides_of((*[shape[axis] for axis in order], e))
    lies = (0,) * (3 - len(heads)) + (*[steps[place] for place in back], 1)
    items = math.prod(heads) * -(-rows // high)
    cost = math.prod(shape) * keys * (16 + d + e) // 8
    narrow = _is_narrow(v, d, mask, drop)
    y, level = xp.routine(
        "narrow_attention.narrow_value" if narrow else "attention.attention_value",
        _sizes(q, k, v, mask, causal, scale, drop, block) + lies,
        [q, k, v, q if mask is None else mask, *_stream(xp, drop, q)],
        [((*[shape[axis] for axis in order], e), float32), ((*shape, 1), float32)],
        items, _piece(items, cost), cost,
    )  # fmt: skip
    return y.transpose(*back, len(back)), level


def _gradient_block(rows: int, keys: int, d: int, e: int) -> tuple[int, int]:
    """Queries and keys of a block of the gradients; see ``tg_backward``."""
    of_keys, of_values = _rounded(d, 16), _rounded(e, 16)

    def floats(high: int, wide: int) -> int:
        packed = wide * (d + e + 2 * of_keys + of_values + 1)
        return packed + high * (2 * of_keys + of_values + 2 * wide + 2)

    high, wide = next(block for block in _BLOCKS if floats(*block) <= _FLOATS)
    return min(high, _rounded(rows, 16)), min(wide, _rounded(keys, 32))


def _side_by_side(q: Any, k: Any, v: Any) -> tuple[tuple[int, ...], list[int]]:
    """The shape in which gradients of three arrays of one shape lie as these do, so that those of
    slices of one array are that one's, and the places of its axes: of the three, then of one.
    """
    apart, lie = math.inf, q.elements.strides[:-1]
    views = [x.elements for x in (q, k, v)]
    first, second = (b.offset - a.offset for a, b in itertools.pairwise(views))
    alike = len({(x.storage, x.strides) for x in views}) == 1
    if alike and first == second > 0:
        apart = first
    steps, sizes = [apart, *map(abs, lie)], (3, *q.shape[:-1])
    order = sorted(range(len(steps)), key=lambda axis: -steps[axis])
    made = (*(sizes[axis] for axis in order), q.shape[-1])
    return made, [order.index(axis) for axis in range(len(order))]


def _gradient_routine(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, drop: Any,
) -> Any:  # fmt: skip
    """The gradients of q, k and v as ``attention_gradient_value`` gives them."""
    heads, (rows, d), (keys, e) = _heads(q, k, v, mask), q.shape[-2:], v.shape[-2:]
    block = _gradient_block(rows, keys, d, e)
    count = math.prod(heads)
    shapes = [(*heads, *x.shape[-2:]) for x in (q, k, v)]
    sizes = [math.prod(shape) for shape in shapes]
    if shapes[0] == q.shape == k.shape == v.shape:
        made, back = _side_by_side(q, k, v)
        steps = _strides_of(made)
        apart, *lie = (steps[place] for place in back)
        lies, places = [(0,) * (4 - len(lie)) + (*lie, 1)] * 3, (apart, 2 * apart)
    else:
        made, back = (sum(sizes),), []
        lies = [(0,) * (5 - len(shape)) + _strides_of(shape) for shape in shapes]
        places = (sizes[0], sizes[0] + sizes[1])
    cost = count * rows * keys * (24 + 3 * d + 2 * e) // 8
    narrow = _is_narrow(v, d, mask, drop)
    (found,) = xp.routine(
        "narrow_attention.narrow_gradient" if narrow else "attention.attention_gradient",
        (
            *_sizes(q, k, v, mask, causal, scale, drop, block), *_lies(g, heads), *_lies(y, heads),
            *lies[0], *lies[1], *lies[2], *places,
        ),
        [q, k, v, q if mask is None else mask, g, y, r, *_stream(xp, drop, q)],
        [(made, float32)], count, _piece(count, cost), cost,
    )  # fmt: skip
    if back:
        return found.transpose(*back, len(back))
    if all(shape == x.shape for shape, x in zip(shapes, (q, k, v))):
        return found
    ends = np.cumsum([0, *sizes])
    parts = [found[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]
    summed = [_summed(xp, part, x.shape) for part, x in zip(parts, (q, k, v))]
    return _joined(xp, summed)


# --- products and nests ---------------------------------------------------------------------------


def _leave_to_kernel(xp: Any, q: Any, k: Any, v: Any, mask: Any, drop: Any) -> None:
    """Refuse where kernels/attention.cu can be a part of the graph: not with dropout, whose place
    in the stream is another one in every replay."""
    if not xp.on_host and drop is None and tiles.serves(q, k, v, mask):
        xp.refuse("a kernel goes tile by tile")


def _scores_in_loops(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float
) -> tuple[Any, Any]:
    """The scores, -inf where nothing is seen, and the scaled queries."""
    shapes = [x.shape[:-2] for x in (q, k, v, mask) if x is not None]
    shape = (*np.broadcast_shapes(*shapes), q.shape[-2], k.shape[-2])
    if math.prod(shape) > max(SCORES, 2 * (q.size + k.size + v.size)):
        xp.refuse("so many scores go block by block")
    queries = q * scale
    s = xp.matmul(queries, xp.swapaxes(k, -1, -2))
    least = s.dtype.type(-math.inf)
    if mask is not None:
        s = xp.where(mask, s, least) if mask.dtype == boolean else s + mask
    if causal:
        s = xp.where(xp.arange(shape[-2])[:, None] >= xp.arange(shape[-1]), s, least)
    return xp.broadcast_to(s, shape), queries


def _kept_in_loops(xp: Any, s: Any, drop: Any) -> Any:
    """What dropout multiplies the weights with; see ``Blocks.kept``."""
    key, position, p = drop
    shape = (*s.shape[:-1], stride_of(s.shape[-1]))
    words = xp.random_words(key, position, shape)[..., : s.shape[-1]]
    least, factor = _threshold(p)
    kept = words >= np.uint32(least)
    return kept.astype(s.dtype) * s.dtype.type(factor)


def attention_loops(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any = None
) -> Any:
    """The value and the logarithms of the sums; see ``attention_value``."""
    if _has_routine(xp, q, k, v, mask):
        return _value_routine(xp, q, k, v, mask, causal, scale, drop)
    _leave_to_kernel(xp, q, k, v, mask, drop)
    s, _ = _scores_in_loops(xp, q, k, v, mask, causal, scale)
    low = s.max(axis=-1, keepdims=True)
    low = xp.where(low == -math.inf, s.dtype.type(0), low)
    e = xp.exp(s - low)
    sums = e.sum(axis=-1, keepdims=True)
    none = sums == 0
    sums = xp.where(none, s.dtype.type(1), sums)
    p = e / sums
    if drop is not None:
        p = p * _kept_in_loops(xp, s, drop)
    y, level = xp.matmul(p, v), low + xp.log(sums)
    zero, inf = s.dtype.type(0), s.dtype.type(math.inf)
    return xp.where(none, zero, y), xp.where(none, inf, level)


def attention_gradient_loops(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, drop: Any = None,
) -> Any:  # fmt: skip
    """The gradients; see ``attention_gradient_value``."""
    if not of_mask and _has_routine(xp, q, k, v, mask) and g.dtype == float32:
        return _gradient_routine(xp, g, q, k, v, mask, y, r, causal, scale, drop)
    if not of_mask:
        _leave_to_kernel(xp, q, k, v, mask, drop)
    s, queries = _scores_in_loops(xp, q, k, v, mask, causal, scale)
    p = xp.exp(s - r)
    blind, zero = r == math.inf, s.dtype.type(0)  # as in ``attention_blocks``
    queries, g = xp.where(blind, zero, queries), xp.where(blind, zero, g)
    d = xp.matmul(g, xp.swapaxes(v, -1, -2))
    weights = p
    if drop is not None:
        kept = _kept_in_loops(xp, s, drop)
        d, weights = d * kept, p * kept
    d = xp.where(blind, zero, (d - (g * y).sum(axis=-1, keepdims=True)) * p)
    if of_mask:
        return _summed(xp, d, mask.shape)
    found = (
        (xp.where(blind, zero, xp.matmul(d, k) * scale), q.shape),
        (xp.matmul(xp.swapaxes(d, -1, -2), queries), k.shape),
        (xp.matmul(xp.swapaxes(weights, -1, -2), g), v.shape),
    )
    return _joined(xp, [_summed(xp, x, shape) for x, shape in found])


def dropping_loops(
    xp: Any, q: Any, k: Any, v: Any, mask: Any,
    causal: bool, scale: float, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    """As ``attention_loops``, with dropout."""
    return attention_loops(xp, q, k, v, mask, causal, scale, (key, position, p))


def dropping_gradient_loops(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, r: Any,
    causal: bool, scale: float, of_mask: bool, key: int, position: int, p: float,
) -> Any:  # fmt: skip
    """As ``attention_gradient_loops``, with dropout."""
    drop = key, position, p
    return attention_gradient_loops(xp, g, q, k, v, mask, y, r, causal, scale, of_mask, drop)


def _joined(xp: Any, parts: Sequence[Any]) -> Any:
    """Gradients as ``attention_gradient_value`` gives them."""
    flat, shape = xp.concatenate([x.reshape(-1) for x in parts]), parts[0].shape
    return flat.reshape(3, *shape) if all(x.shape == shape for x in parts) else flat


def _summed(xp: Any, d: Any, shape: tuple[int, ...]) -> Any:
    """``d`` added up to ``shape``, which was broadcast to that of ``d``."""
    extra = d.ndim - len(shape)
    over = [k for k in range(d.ndim) if k < extra or shape[k - extra] == 1 != d.shape[k]]
    return (d.sum(axis=tuple(over)) if over else d).reshape(shape)
