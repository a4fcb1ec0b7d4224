"""Attention: cuDNN where it is, and kernels/attention.cu, where these are fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend import cudnn_attention, kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.launch.common import (
    MOST_BLOCKS,
    Plan,
    backward,
    fits,
    forward,
    planned,
)
from tensorgrad.dtypes import bool as boolean
from tensorgrad.dtypes import float32, float64

#: Features of a head that the kernels are made for; others are zeros.
FEATURES = (64, 128)
#: Axes of heads.
_AXES = 3


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
        arrays = [a.shape[:-2] for a in self[:4] if a is not None]
        return np.broadcast_shapes(*arrays)


def way(xp: Any, call: Call) -> str:
    """How a call is computed: by "tiles", kernels/attention.cu, or by "blocks" of CuPy's products.

    Tiles serve 16-bit floats and float32, heads of up to 128 features and three axes of heads;
    what is empty has nothing for them to do.
    """
    q, k, v, mask = call[:4]
    served = (
        fits(xp, q, k, v)
        and q.dtype != float64
        and max(q.shape[-1], v.shape[-1]) <= FEATURES[-1]
        and min(q.size, k.size, v.size) > 0
        and len(call.heads) <= _AXES
        and (mask is None or (type(mask) is xp.ndarray and _hiding(mask, q) is not None))
    )
    return "tiles" if served else "blocks"


def _hiding(mask: Array | None, q: Array) -> int | None:
    """What the kernels call a mask of this kind; see ``Hiding`` there."""
    if mask is None:
        return 0
    return {boolean: 1, float32: 3, q.dtype: 2}.get(mask.dtype)


# --- how arrays lie -------------------------------------------------------------------------------


def _rows_contiguous(xp: Any, x: Array) -> Array:
    """``x``, copied unless the elements of its rows are neighbours."""
    near = x.shape[-1] == 1 or x.strides[-1] == x.itemsize
    return x if near else xp.ascontiguousarray(x)


def _steps(x: Array, axes: int) -> tuple[int, ...]:
    """Distances in elements along the last axes, 0 where there is nothing to step along."""
    found = [s // x.itemsize if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True)]
    return (*(0,) * (axes - len(found)), *found)


def _lies(x: Array) -> tuple[int, ...]:
    """Along three axes of heads, and of rows."""
    return _steps(x, _AXES + 2)[:-1]


def _like(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    """A new array whose axes are in memory in the order of those of ``x``, so that heads that were
    taken apart are joined for nothing. The last one stays the last."""
    steps = _steps(x, len(shape))[:-1]
    order = sorted(range(len(steps)), key=lambda axis: -abs(steps[axis]))
    made = xp.empty((*(shape[axis] for axis in order), shape[-1]), x.dtype)
    back = [order.index(axis) for axis in range(len(order))]
    return made.transpose(*back, len(back))


def _packed(arrays: tuple[Array, ...]) -> bool:
    """Whether all rows begin at multiples of 16 bytes, and end there."""
    for x in arrays:
        steps = (x.shape[-1], *_lies(x))
        if x.data.ptr % 16 or any(n * x.itemsize % 16 for n in steps):
            return False
    return True


# --- launches -------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What plans depend on besides shapes: all that the kernels are told but arrays and streams."""

    heads: tuple[int, ...]
    rows: int
    columns: int
    width: int
    value_width: int
    causal: bool
    scale: float
    rate: float | None
    packed: bool
    hiding: int
    mask: tuple[int, ...]

    def numbers(self) -> tuple[Any, ...]:
        """As the kernels take them."""
        rate = self.rate or 0.0
        threshold = min(round(rate * 2.0**32), 2**32 - 1)
        kept = 0.0 if rate == 1.0 else 1.0 / (1.0 - rate)
        flags = self.causal, self.rate is not None, self.packed, self.hiding
        return (
            np.uint32(threshold), np.float32(kept), np.float32(self.scale), *map(np.int32, flags),
            *self.heads, self.rows, self.columns, -(-self.columns // 4) * 4, self.width,
            self.value_width, *self.mask,
        )  # fmt: skip


def _sizes(call: Call, heads: tuple[int, ...], arrays: tuple[Array, ...]) -> _Sizes:
    q, k, v, mask = call[:4]
    lies = (0,) * (_AXES + 2) if mask is None else _steps(mask, _AXES + 2)
    return _Sizes(
        (*(1,) * (_AXES - len(heads)), *heads), q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1],
        call.causal, call.scale, None if call.drop is None else call.drop[2], _packed(arrays),
        _hiding(mask, q) or 0, lies,
    )  # fmt: skip


def _threads(dtype: np.dtype[Any], features: int) -> int:
    """Threads of a block, two for each row that it owns; see ``Plan`` in the kernels."""
    return 64 if dtype == float32 and features > FEATURES[0] else 128


@planned
def _plan(
    xp: Any, name: str, dtype: np.dtype[Any], sizes: _Sizes, owned: int, lies: tuple[int, ...]
) -> Plan:
    """Of a kernel whose blocks own some of ``owned`` rows of each head."""
    features = next(n for n in FEATURES if max(sizes.width, sizes.value_width) <= n)
    threads = _threads(dtype, features)
    blocks = math.prod(sizes.heads) * -(-owned // (threads // 2))
    kernel = kernels.get(xp, "attention", f"{name}_{features}", dtype)
    return kernel, (min(blocks, MOST_BLOCKS),), (threads,), (*sizes.numbers(), *lies)


def _stream(drop: tuple[int, int, float] | None) -> tuple[np.uint64, np.uint64]:
    key, position, _ = drop or (0, 0, 0.0)
    return np.uint64(key), np.uint64(position)


@forward("attention")
def _value(
    xp: Any, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float,
    key: int = 0, position: int = 0, p: float | None = None,
) -> Any:  # fmt: skip
    call = Call(q, k, v, mask, causal, scale, None if p is None else (key, position, p))
    if mask is None and p is None:
        found = cudnn_attention.attention(xp, q, k, v, causal, scale)
        if found is not None:
            return found
    if way(xp, call) != "tiles":
        return NotImplemented
    heads = call.heads
    q, k, v = (_rows_contiguous(xp, x) for x in (q, k, v))
    y = _like(xp, q, (*heads, q.shape[-2], v.shape[-1]))
    level = xp.empty((*heads, q.shape[-2], 1), float32)
    arrays = q, k, v, y
    sizes = _sizes(call, heads, arrays)
    lies = tuple(n for x in arrays for n in _lies(x))
    plan = _plan(xp, "attention_forward", q.dtype, sizes, sizes.rows, lies)
    kernel, grid, block, numbers = plan
    hidden = q if mask is None else mask
    kernel(grid, block, (q, k, v, hidden, y, level, *_stream(call.drop), *numbers))
    return y, level


@backward("attention")
def _gradients(
    xp: Any, g: Array, needed: Sequence[bool], *, y: Array, r: Array, q: Array, k: Array, v: Array,
    mask: Array | None, causal: bool, scale: float, key: int = 0, position: int = 0,
    p: float | None = None,
) -> Any:  # fmt: skip
    if mask is not None or p is not None:
        return NotImplemented
    found = cudnn_attention.attention_gradients(xp, g, q, k, v, y, r, causal, scale)
    return NotImplemented if found is None else (*found, None)


@forward("attention_gradient")
def _gradient_value(
    xp: Any, g: Array, q: Array, k: Array, v: Array, mask: Array | None, y: Array, r: Array,
    causal: bool, scale: float, of_mask: bool,
) -> Any:  # fmt: skip
    """All gradients one after the other, as ``attention_gradient_value`` has them."""
    if mask is not None:
        return NotImplemented
    flat = xp.empty(q.size + k.size + v.size, q.dtype)
    ends = q.size, q.size + k.size
    parts = flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] :]
    into = [part.reshape(x.shape) for part, x in zip(parts, (q, k, v))]
    found = cudnn_attention.attention_gradients(xp, g, q, k, v, y, r, causal, scale, into)
    if found is None:
        return NotImplemented
    return flat.reshape(3, *q.shape) if q.shape == k.shape == v.shape else flat
