"""Attention: cuDNN where it is, and kernels/attention.cu, where these are fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend import cudnn_attention, kernels, tiles
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch.common import (
    MOST_BLOCKS,
    THREADS,
    Plan,
    backward,
    blocks_for,
    contiguous,
    fits,
    forward,
    newer_than_turing,
    planned,
)
from tensorgrad.dtypes import bfloat16, float32
from tensorgrad.dtypes import bool as boolean


class Call(NamedTuple):
    """What attention is computed of. drop: ``None``, or key, position and rate."""

    q: Array
    k: Array
    v: Array
    mask: Array | None
    causal: bool
    scale: float
    drop: tuple[int, int, float] | None

    @property
    def heads(self) -> tuple[int, ...]:
        """The axes before the last two, which were broadcast."""
        shapes = self.q.shape, self.k.shape, self.v.shape
        return tiles.heads(*shapes, None if self.mask is None else self.mask.shape)


def way(xp: Any, call: Call) -> str:
    """How a call is computed: by "tiles", kernels/attention.cu, or by "blocks" of CuPy's products.

    Tiles serve what ``tiles.serves`` says; bfloat16 from compute capability 8.0 on.
    """
    q, k, v, mask = call[:4]
    served = (
        fits(xp, q, k, v)
        and (mask is None or type(mask) is xp.ndarray)
        and tiles.serves(q, k, v, mask)
        and (q.dtype != bfloat16 or newer_than_turing(xp, q.data.device_id))
    )
    return "tiles" if served else "blocks"


def _hiding(mask: Array | None) -> int:
    """What the kernels call a mask of this kind; see ``Hiding`` there."""
    return 0 if mask is None else 1 if mask.dtype == boolean else 2


# --- how arrays lie -------------------------------------------------------------------------------


def _rows_contiguous(xp: Any, x: Array) -> Array:
    """``x``, copied unless the elements of its rows are neighbours."""
    near = x.shape[-1] == 1 or x.strides[-1] == x.itemsize
    return x if near else xp.ascontiguousarray(x)


class _Lies(NamedTuple):
    """How an array lies. strides: in bytes. aligned: whether it begins at a multiple of 16."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    aligned: bool

    @classmethod
    def of(cls, x: Array) -> _Lies:
        return cls(x.shape, x.strides, x.itemsize, not x.data.ptr % 16)

    def steps(self, axes: int = tiles.AXES + 2) -> tuple[int, ...]:
        """Distances in elements along the last axes, 0 where there is nothing to step along."""
        pairs = zip(self.shape, self.strides, strict=True)
        found = [s // self.itemsize if n > 1 else 0 for n, s in pairs]
        return (*(0,) * (axes - len(found)), *found)

    def packed(self) -> bool:
        """Whether all rows begin at multiples of 16 bytes, and end there."""
        steps = (self.shape[-1], *self.steps()[:-1])
        return self.aligned and not any(n * self.itemsize % 16 for n in steps)


def _like(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    """A new array whose axes are in memory in the order of those of ``x``, so that heads that were
    taken apart are joined for nothing. The last one stays the last."""
    steps = _Lies.of(x).steps(len(shape))[:-1]
    known = [abs(step) for step in steps if step]
    if known == sorted(known, reverse=True):
        return xp.empty(shape, x.dtype)
    order = sorted(range(len(steps)), key=lambda axis: -abs(steps[axis]))
    made = xp.empty((*(shape[axis] for axis in order), shape[-1]), x.dtype)
    back = [order.index(axis) for axis in range(len(order))]
    return made.transpose(*back, len(back))


# --- launches -------------------------------------------------------------------------------------


def _axes(heads: tuple[int, ...]) -> tuple[int, ...]:
    """Three of them."""
    return (*(1,) * (tiles.AXES - len(heads)), *heads)


def _threads(dtype: np.dtype[Any], features: int) -> int:
    """Threads of a block, two for each row that it owns; see ``Plan`` in the kernels."""
    return 64 if dtype == float32 and features > tiles.FEATURES[0] else 128


@planned
def _plan(
    xp: Any, name: str, dtype: np.dtype[Any], arrays: tuple[_Lies, ...], mask: _Lies | None,
    hiding: int, causal: bool, scale: float, rate: float | None, shared: tuple[int, ...],
) -> Plan:  # fmt: skip
    """Of a kernel for arrays that lie so, of which the first are q, k and v."""
    (*_, rows, width), (*_, columns, _), (*_, value_width) = (x.shape for x in arrays[:3])
    given = [x.shape for x in arrays[:3]]
    heads = tiles.heads(*given, None if mask is None else mask.shape)
    features = next(n for n in tiles.FEATURES if max(width, value_width) <= n)
    threads = _threads(dtype, features)
    owned = columns if name == "attention_keys" else rows
    blocks = math.prod(heads) * -(-owned // (threads // 2))
    threshold = min(round((rate or 0.0) * 2.0**32), 2**32 - 1)
    kept = 0.0 if rate == 1.0 else 1.0 / (1.0 - (rate or 0.0))
    flags = causal, rate is not None, all(x.packed() for x in arrays), hiding
    numbers = (
        np.uint32(threshold), np.float32(kept), np.float32(scale), *map(np.int32, flags),
        *_axes(heads), rows, columns, -(-columns // 4) * 4, width, value_width,
        *((0,) * (tiles.AXES + 2) if mask is None else mask.steps()), *shared,
        *(n for x in arrays for n in x.steps()[:-1]),
    )  # fmt: skip
    kernel = kernels.get(xp, "attention", f"{name}_{features}", dtype)
    return kernel, (min(blocks, MOST_BLOCKS),), (threads,), numbers


def _stream(drop: tuple[int, int, float] | None) -> tuple[np.uint64, np.uint64]:
    key, position, _ = drop or (0, 0, 0.0)
    return np.uint64(key), np.uint64(position)


def _run(
    xp: Any, name: str, call: Call, read: tuple[Array, ...], written: tuple[Array, ...],
    strided: tuple[Array, ...], shared: tuple[int, ...] = (),
) -> None:  # fmt: skip
    """Launch a kernel.

    read, written: its arrays besides q, k, v and the mask. strided: those of them of which it is
    told how they lie, in order.
    """
    q, k, v, mask, causal, scale, drop = call
    lies = tuple([_Lies.of(x) for x in (q, k, v, *strided)])
    hidden = None if mask is None else _Lies.of(mask)
    rate = None if drop is None else drop[2]
    kernel, grid, block, numbers = _plan(
        xp, name, q.dtype, lies, hidden, _hiding(mask), causal, scale, rate, shared
    )
    given = (q, k, v, q if mask is None else mask, *read, *written)
    kernel(grid, block, (*given, *_stream(drop), *numbers))


@forward("attention")
def _value(
    xp: Any, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float,
    key: int = 0, position: int = 0, p: float | None = None,
) -> Any:  # fmt: skip
    call = Call(q, k, v, mask, causal, scale, None if p is None else (key, position, p))
    if mask is None and p is None:
        made = cudnn_attention.attention(xp, q, k, v, causal, scale)
        if made is not None:
            return made
    if way(xp, call) != "tiles":
        return NotImplemented
    call = call._replace(**{n: _rows_contiguous(xp, getattr(call, n)) for n in ("q", "k", "v")})
    shape = *call.heads, q.shape[-2], v.shape[-1]
    y = _like(xp, call.q, shape)
    level = xp.empty((*shape[:-1], 1), float32)
    _run(xp, "attention_forward", call, (), (y, level), (y,))
    return y, level


# --- gradients ------------------------------------------------------------------------------------


@planned
def _delta_plan(xp: Any, dtype: np.dtype[Any], g: _Lies, y: _Lies) -> Plan:
    *heads, rows, width = y.shape
    numbers = (
        np.int32(g.packed() and y.packed()), *_axes(tuple(heads)), rows, width, *g.steps()[:-1],
        *y.steps()[:-1],
    )  # fmt: skip
    kernel = kernels.get(xp, "attention", "attention_delta", dtype)
    return kernel, (blocks_for(32 * math.prod(heads) * rows),), (THREADS,), numbers


def _delta(xp: Any, g: Array, y: Array) -> Array:
    """For each row the sum of ``g * y``."""
    delta = xp.empty(y.shape[:-1], float32)
    kernel, grid, block, numbers = _delta_plan(xp, y.dtype, _Lies.of(g), _Lies.of(y))
    kernel(grid, block, (g, y, delta, *numbers))
    return delta


def _shared(call: Call) -> tuple[int, ...]:
    """How many heads along each axis have the same keys and values."""
    axes = range(-len(call.heads) - 2, -2)
    return tuple(
        1 if any(len(x.shape) >= -a and x.shape[a] > 1 for x in (call.k, call.v)) else n
        for a, n in zip(axes, call.heads, strict=True)
    )


def _sum_to(d: Array, x: Array) -> Array:
    """``d``, added up along the axes along which ``x`` was broadcast."""
    if d.shape == x.shape:
        return d  # itself, for whoever takes it without a copy
    if d.size == x.size:
        return d.reshape(x.shape)
    more = d.ndim - x.ndim
    over = tuple(a for a in range(d.ndim) if a < more or d.shape[a] != x.shape[a - more])
    return d.sum(axis=over, keepdims=True).reshape(x.shape)


def _gradients(
    xp: Any, call: Call, g: Array, y: Array, level: Array, targets: tuple[Array, ...] | None,
    needed: Sequence[bool],
) -> Any:  # fmt: skip
    """The gradients of q, k and v, made in ``targets`` where these are given.

    Heads that share keys and values are added up by the kernel, in order; along other axes that
    were broadcast, sums follow.
    """
    if way(xp, call) != "tiles" or not fits(xp, call.q, g, y) or level.dtype != float32:
        return NotImplemented
    call = call._replace(**{n: _rows_contiguous(xp, getattr(call, n)) for n in ("q", "k", "v")})
    g, y, level = _rows_contiguous(xp, g), _rows_contiguous(xp, y), contiguous(xp, level)
    q, k, v = call[:3]
    heads, shared = call.heads, _shared(call)
    delta = _delta(xp, g, y)
    apart = tuple(n // s for n, s in zip(heads, shared, strict=True))
    shapes = (*heads, *q.shape[-2:]), (*apart, *k.shape[-2:]), (*apart, *v.shape[-2:])

    def target(i: int) -> Array:
        x, shape = (q, k, v)[i], shapes[i]
        if targets is not None and math.prod(shape) == x.size:
            return targets[i].reshape(shape)
        return _like(xp, x, shape)

    found: list[Any] = [None] * 3
    read = g, level, delta
    if needed[0]:
        found[0] = target(0)
        _run(xp, "attention_queries", call, read, (found[0],), (g, found[0]))
    if needed[1] or needed[2]:
        found[1], found[2] = target(1), target(2)
        written = found[1], found[2]
        _run(xp, "attention_keys", call, read, written, (g, *written), _axes(shared))
    return [None if d is None else _sum_to(d, x) for d, x in zip(found, (q, k, v), strict=True)]


@backward("attention")
def _all_gradients(
    xp: Any, g: Array, needed: Sequence[bool], q: Array, k: Array, v: Array, mask: Array | None,
    y: Array, r: Array, causal: bool, scale: float, key: int = 0, position: int = 0,
    p: float | None = None,
) -> Any:  # fmt: skip
    call = Call(q, k, v, mask, causal, scale, None if p is None else (key, position, p))
    if needed[3]:
        return NotImplemented
    if mask is None and p is None:
        made = cudnn_attention.attention_gradients(xp, g, q, k, v, y, r, causal, scale)
        if made is not None:
            return (*made, None)
    found = _gradients(xp, call, g, y, r, None, needed)
    return found if found is NotImplemented else (*found, None)


@forward("attention_gradient")
def _flat_gradients(
    xp: Any, g: Array, q: Array, k: Array, v: Array, mask: Array | None, y: Array, r: Array,
    causal: bool, scale: float, of_mask: bool, key: int = 0, position: int = 0,
    p: float | None = None,
) -> Any:  # fmt: skip
    """Those of q, k and v one after the other; see ``attention_gradient_value``."""
    if of_mask:
        return NotImplemented
    call = Call(q, k, v, mask, causal, scale, None if p is None else (key, position, p))
    flat = xp.empty(q.size + k.size + v.size, q.dtype)
    ends = q.size, q.size + k.size
    parts = flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] :]
    targets = tuple(part.reshape(x.shape) for part, x in zip(parts, (q, k, v), strict=True))
    made = None
    if mask is None and p is None:
        into = list(targets)
        made = cudnn_attention.attention_gradients(xp, g, q, k, v, y, r, causal, scale, into)
    found = _gradients(xp, call, g, y, r, targets, (True, True, True)) if made is None else targets
    if found is NotImplemented:
        return found
    for d, t in zip(found, targets, strict=True):
        if d.data.ptr != t.data.ptr:  # a sum
            t[...] = d
    return flat.reshape(3, *q.shape) if q.shape == k.shape == v.shape else flat
