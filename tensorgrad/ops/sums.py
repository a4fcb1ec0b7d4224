"""Sums of NumPy arrays whose rounding errors do not grow with the number of elements.

NumPy adds in pairs along the innermost axis alone. Along any other axis it adds in order, one row
onto the next, so that in float32 a sum over a million rows is wrong in its second digit. Here rows
are added in blocks, and the sums of the blocks in blocks again. The order depends on shape and
strides only, and so do the bits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import COMPLEX, WIDE, real_of

Array = ndarray[Any, Any]

#: So many numbers are added in order at most, and so many rows make a block of a larger sum.
IN_ORDER = 128
_BLOCK = 32
# Short rows that lie side by side are added as one row of about so many elements: the inner loop
# of NumPy is then long enough to be worth starting.
_WIDE = 1024


def total(xp: Any, x: Any, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The sum of ``x`` over ``axis`` (all axes if ``None``), as ``x.sum`` gives it.

    axis: numbers of axes, none of them negative.
    """
    if xp is not np:
        return x.sum(axis=axis, keepdims=keepdims)
    reduce: Any = np.add.reduce
    ndim = x.ndim
    over = range(ndim) if axis is None else axis
    count = x.shape[over[0]] if len(over) == 1 else math.prod([x.shape[k] for k in over])
    if count <= IN_ORDER or ndim == 1 or x.dtype not in WIDE:
        return reduce(x, axis, keepdims=keepdims)
    first = ndim - len(over)
    if x.flags.c_contiguous and all(k >= first for k in over):
        return reduce(x, axis, keepdims=keepdims)
    # In the order in which the axes lie in memory, the innermost last.
    order = sorted(
        [k for k, n in enumerate(x.shape) if n != 1], key=lambda k: abs(x.strides[k]), reverse=True
    )
    y = x.transpose([*order, *[k for k, n in enumerate(x.shape) if n == 1]])
    y = y.reshape(y.shape[: len(order)])
    left = [k not in over for k in order]
    while not all(left):
        y, left = _without_last(y, left)
    kept = [k for k in order if k not in over]
    y = y.transpose([kept.index(k) for k in sorted(kept)])
    sizes = [1 if k in over else n for k, n in enumerate(x.shape) if keepdims or k not in over]
    return y.reshape(sizes)


def _without_last(y: Array, left: list[bool]) -> tuple[Array, list[bool]]:
    """``y`` summed over the last of the axes that are not ``left``, and those that lie with it."""
    end = len(left) - left[::-1].index(False)
    begin = end - 1
    while (
        begin and not left[begin - 1] and y.strides[begin - 1] == y.shape[begin] * y.strides[begin]
    ):
        begin -= 1
    outer, inner = y.shape[:begin], y.shape[end:]
    rows = y.reshape(math.prod(outer), math.prod(y.shape[begin:end]), math.prod(inner))
    found = _over_rows(rows) if inner else np.add.reduce(rows[:, :, 0], axis=1)
    return found.reshape(outer + inner), left[:begin] + left[end:]


def _adjacent(y: Array, axis: int) -> bool:
    """Whether the elements along the axis and the one before it lie at equal distances."""
    return bool(y.strides[axis - 1] == y.shape[axis] * y.strides[axis])


def _over_rows(x: Array) -> Array:
    """The sums of ``x``, shape (stack, rows, columns), over the rows."""
    while x.shape[1] > IN_ORDER:
        stack, n, columns = x.shape
        together = 1
        if _adjacent(x, 2):
            together = max(1, min(_WIDE // columns, n // _BLOCK))
        count = n // (_BLOCK * together)
        whole = count * _BLOCK * together
        sums = np.empty((stack, count * together + (whole < n), columns), x.dtype)
        blocks = x[:, :whole].reshape(stack, count, _BLOCK, together * columns)
        into = sums[:, : count * together].reshape(stack, count, together * columns)
        np.add.reduce(blocks, axis=2, out=into)
        if whole < n:
            sums[:, -1] = _over_rows(x[:, whole:])
        x = sums
    return np.add.reduce(x, axis=1)


@lru_cache(maxsize=8)
def least_squares(dtype: np.dtype[Any]) -> float:
    """Below it a sum of squares may have lost some of them."""
    limits = np.finfo(str(dtype))
    return float(limits.tiny / limits.eps)


def length(xp: Any, *arrays: Any) -> Any:
    """The root of the sum of all squares, on the CPU also where these are out of range."""
    if isinstance(xp, Namespace):
        return xp.root_of_squares(arrays, None, False)
    flat = [a.reshape(-1) for a in arrays]
    squares = sum(xp.vdot(a, a) for a in flat)  # which says nothing of an overflow
    if xp is not np or least_squares(squares.dtype) < squares < math.inf:
        return xp.sqrt(squares)
    top = max(float(np.abs(a).max(initial=0)) for a in flat)
    if not 0 < top < math.inf:
        return np.sqrt(squares)
    return top * np.sqrt(sum(np.vdot(a, a) for a in [a / top for a in flat]))


def running(xp: Any, name: str, x: Any, axis: int) -> Any:
    """``x.cumsum(axis)`` or ``x.cumprod(axis)``, as ``name`` says.

    Many float32 numbers are added or multiplied in float64, and each result is rounded once.
    """
    if xp is not np or x.dtype != np.float32 or x.shape[axis] <= IN_ORDER:
        return getattr(x, name)(axis=axis)
    return getattr(x, name)(axis=axis, dtype=np.float64).astype(x.dtype)


def product(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """``x.prod(axis)``; many float32 numbers are multiplied in float64."""
    if xp is not np or x.dtype != np.float32 or math.prod([x.shape[k] for k in axis]) <= IN_ORDER:
        return x.prod(axis=axis, keepdims=keepdims)
    return x.prod(axis=axis, keepdims=keepdims, dtype=np.float64).astype(x.dtype)


# Every how many-th position is looked at: no number of columns that anything has.
_STRIDE = 13


def many_at_one(positions: Array, dtype: np.dtype[Any]) -> bool:
    """Whether numbers of ``dtype`` added at ``positions``, one after the other, might drift."""
    if dtype != np.float32 or positions.size <= IN_ORDER:
        return False
    # A sample counted by the last bits: that costs little, and may say yes in vain.
    sample = positions.reshape(-1)[::_STRIDE]
    sample = sample & ((2 << sample.size.bit_length()) - 1)
    return bool(np.bincount(sample).max() > IN_ORDER // _STRIDE)


def add_at(y: Array, positions: Array, values: Array) -> Array:
    """``values`` added up at ``positions`` in the flat array ``y``, which holds zeros.

    ``y`` itself is overwritten, unless many float32 numbers meet: these are added in float64.
    """
    at, given = positions.reshape(-1), values.reshape(-1)
    if y.dtype == np.float32 and at.size > max(IN_ORDER, 4 * y.size):
        return np.bincount(at, given, y.size).astype(y.dtype).reshape(y.shape)
    if many_at_one(at, y.dtype):
        wide = np.zeros(y.size)
        np.add.at(wide, at, given.astype(np.float64))
        return wide.astype(y.dtype).reshape(y.shape)
    np.add.at(y.reshape(-1), at, given)
    return y


def add_on_gpu(xp: Any, y: Any, index: Any, values: Any) -> None:
    """``values`` added up at ``index`` in ``y``, which holds zeros; CuPy adds no complex ones."""
    if y.dtype not in COMPLEX:
        xp.add.at(y, index, values)
        return
    for part in ("real", "imag"):
        sums = xp.zeros(y.shape, real_of(y.dtype))
        xp.add.at(sums, index, getattr(values, part))
        setattr(y, part, sums)


# A reduction of a small matrix takes three times as long as the product with ones that gives the
# same. Up to this number of elements OpenBLAS computes that product in the thread that calls it; it
# may add in order, so that no more than so many numbers are left to it.
_SMALL = 8192
_FEW = 256


@lru_cache(maxsize=64)
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    return np.ones(n, dtype)


def column_sums(x: Array) -> Array:
    """The sums over the first axis of a float32 or float64 matrix."""
    if 0 < x.size <= _SMALL and len(x) <= _FEW:
        return _ones(len(x), x.dtype).dot(x)
    found: Array = total(np, x, (0,))
    return found


def row_sums(x: Array) -> Array:
    """The sums over the second axis of a float32 or float64 matrix."""
    if 0 < x.size <= _SMALL and x.shape[1] <= _FEW:
        return x.dot(_ones(x.shape[1], x.dtype))
    found: Array = total(np, x, (1,))
    return found
