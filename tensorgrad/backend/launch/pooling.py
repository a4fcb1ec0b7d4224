"""The largest and the mean of windows: kernels/pooling.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.common import (
    THREADS,
    Plan,
    backward,
    blocks_for,
    contiguous,
    fits,
    forward,
    per_pack,
    planned,
)

#: An axis that nothing is pooled along: size, kernel, stride, padding, dilation, results.
_ALONE = (1, 1, 1, 0, 1, 1)
#: Sizes of axes, and places in them, are 32-bit numbers in the kernels.
_LONGEST = 2**30


def _channels_last(x: Array, n: int) -> Any:
    """``x`` with its channels behind the ``n`` axes of the windows, if it lies so in memory."""
    if x.ndim != n + 2 or x.flags.c_contiguous:
        return None
    turned = x.transpose(0, *range(2, n + 2), 1)
    return turned if turned.flags.c_contiguous else None


def _laid(xp: Any, x: Array, n: int, last: bool) -> Array:
    """``x`` contiguous, with channels last or where they are."""
    return contiguous(xp, x.transpose(0, *range(2, n + 2), 1) if last else x)


def _empty(xp: Any, shape: tuple[int, ...], dtype: Any, last: bool) -> tuple[Array, Array]:
    """A new array [N, C, ...] as the caller sees it, and contiguous."""
    if not last:
        y = xp.empty(shape, dtype)
        return y, y
    y = xp.empty((shape[0], *shape[2:], shape[1]), dtype)
    return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1)), y


@planned
def _plan(
    xp: Any, name: str, dtype: np.dtype[Any], windows: Any, threads: int, outer: int, inner: int,
    packed: bool,
) -> Plan:  # fmt: skip
    axes = [*[_ALONE] * (3 - len(windows)), *windows]
    numbers = [int(k) for w in axes for k in w]
    each = per_pack(dtype) if packed else 1
    grid = (blocks_for(threads, each),)
    kernel = kernels.get(xp, "pooling", name, dtype)
    return kernel, grid, (THREADS,), (*numbers, outer, inner)


def _launch(
    xp: Any, name: str, windows: Any, arrays: tuple[Array, ...], out: Array, last: bool,
    scalars: tuple[Any, ...] = (),
) -> None:  # fmt: skip
    """Launch a kernel on contiguous arrays, of which ``out`` is written, an element to a thread."""
    dtype = arrays[0].dtype
    inner = out.shape[-1] if last else 1
    across = math.prod(out.shape[: out.ndim - len(windows) - last])
    places = name == "max_pool_places"
    every = (*arrays, out)
    packed = last and not places and not any(
        (inner * a.itemsize | a.data.ptr) % 16 for a in every
    )  # fmt: skip
    kernel, grid, block, tail = _plan(xp, name, dtype, windows, out.size, across, inner, packed)
    flag = () if places else (np.int32(packed),)
    kernel(grid, block, (*every, *scalars, *flag, *tail))


def _served(xp: Any, windows: Any, *arrays: Array) -> bool:
    return (
        fits(xp, *arrays)
        and len(windows) <= 3
        and all(max(w.padded, w.results * max(w.stride, 1)) < _LONGEST for w in windows)
    )


def _results(x: Array, windows: Any) -> tuple[int, ...]:
    return (*x.shape[: x.ndim - len(windows)], *[w.results for w in windows])


def _pooled(xp: Any, name: str, x: Array, windows: Any, scalars: tuple[Any, ...] = ()) -> Array:
    n = len(windows)
    turned = _channels_last(x, n)
    last = turned is not None
    y, out = _empty(xp, _results(x, windows), x.dtype, last)
    if out.size:
        given = turned if last else contiguous(xp, x)
        _launch(xp, name, windows, (given,), out, last, scalars)
    return y


@forward("max_pool")
def _max_pool(xp: Any, x: Array, windows: Any) -> Any:
    if not _served(xp, windows, x):
        return NotImplemented
    return _pooled(xp, "max_pool_forward", x, windows)


@backward("max_pool")
def _max_pool_gradient(
    xp: Any, g: Array, needed: Sequence[bool], x: Array, y: Array, windows: Any
) -> Any:
    if not _served(xp, windows, g, x, y):
        return NotImplemented
    n = len(windows)
    last = _channels_last(x, n) is not None
    dx, out = _empty(xp, x.shape, x.dtype, last)
    if out.size:
        arrays = tuple(_laid(xp, a, n, last) for a in (g, x, y))
        _launch(xp, "max_pool_backward", windows, arrays, out, last)
    return (dx,)


@forward("max_pool_places")
def _places(xp: Any, x: Array, y: Array, windows: Any) -> Any:
    if not _served(xp, windows, x, y):
        return NotImplemented
    n = len(windows)
    last = _channels_last(x, n) is not None
    found, out = _empty(xp, y.shape, np.int64, last)
    if out.size:
        arrays = tuple(_laid(xp, a, n, last) for a in (x, y))
        _launch(xp, "max_pool_places", windows, arrays, out, last)
    return found


def _divisor(dtype: Any, counted: bool, divisor: float) -> tuple[Any, ...]:
    return arithmetic(dtype).type(divisor), np.int32(counted)


@forward("avg_pool")
def _avg_pool(xp: Any, x: Array, windows: Any, counted: bool, divisor: float) -> Any:
    if not _served(xp, windows, x):
        return NotImplemented
    return _pooled(xp, "avg_pool_forward", x, windows, _divisor(x.dtype, counted, divisor))


@forward("avg_pool_gradient")
def _avg_pool_gradient(xp: Any, g: Array, windows: Any, counted: bool, divisor: float) -> Any:
    if not _served(xp, windows, g):
        return NotImplemented
    n = len(windows)
    turned = _channels_last(g, n)
    last = turned is not None
    shape = (*g.shape[: g.ndim - n], *[w.size for w in windows])
    dx, out = _empty(xp, shape, g.dtype, last)
    if out.size:
        given = turned if last else contiguous(xp, g)
        scalars = _divisor(g.dtype, counted, divisor)
        _launch(xp, "avg_pool_backward", windows, (given,), out, last, scalars)
    return dx


@backward("avg_pool")
def _avg_pool_gradients(
    xp: Any, g: Array, needed: Sequence[bool], windows: Any, counted: bool, divisor: float
) -> Any:
    dx = _avg_pool_gradient(xp, g, windows, counted, divisor)
    return dx if dx is NotImplemented else (dx,)


@backward("avg_pool_gradient")
def _avg_pool_again(
    xp: Any, g: Array, needed: Sequence[bool], windows: Any, counted: bool, divisor: float
) -> Any:
    y = _avg_pool(xp, g, windows, counted, divisor)
    return y if y is NotImplemented else (y,)
