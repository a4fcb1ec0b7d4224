"""Pooling over windows that tile an array, as programs have it: with the number of each element.

Not the place in the array but the number of the element in its window, a byte, comes with the
largest. So the gradient needs neither an index nor a scatter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.ops.windows import Windows
from tensorgrad.tape import Primitive

#: Elements of a window that a byte can number.
MOST = 256
# Whole numbers of as many bytes.
_WHOLE = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def fits(windows: Windows) -> bool:
    """Whether the windows lie apart and inside, and a byte can number their elements."""
    return all(w.tiles for w in windows) and math.prod(w.kernel for w in windows) <= MOST


def _taps(x: Any, windows: Windows) -> Iterator[Any]:
    """For each element of a window the view of that one of all windows, in row-major order."""
    for at in itertools.product(*[range(w.kernel) for w in windows]):
        each = zip(at, windows, strict=True)
        yield x[(..., *[slice(t, t + (w.results - 1) * w.stride + 1, w.stride) for t, w in each])]


def _largest_value(xp: Any, x: Any, windows: Windows) -> tuple[Any, Any]:
    """The largest element of each window, and its number: the first of equal ones, the last NaN."""
    if xp is np:
        return _largest_of_arrays(x, windows)
    best, *others = _taps(x, windows)
    if not others:
        return best + 0, xp.zeros(best.shape, np.uint8)
    number: Any = np.uint8(0)
    for t, part in enumerate(others, 1):
        better = xp.logical_or(part > best, part != part)
        best = xp.where(better, part, best)
        number = xp.where(better, np.uint8(t), number)
    return best, number


def _largest_of_arrays(x: Any, windows: Windows) -> tuple[Any, Any]:
    """The same of NumPy's arrays, of elements that lie side by side."""
    best, *others = (part.copy() for part in _taps(x, windows))
    number = np.zeros(best.shape, np.uint8)
    bits = best.view(_WHOLE[best.itemsize])
    for t, part in enumerate(others, 1):
        better = (part > best) | (part != part)
        bits ^= _bits_where(better, bits ^ part.view(bits.dtype))
        number ^= _bits_where(better, number ^ np.uint8(t)).view(np.uint8)
    return best, number


def _bits_where(held: Any, x: Any) -> Any:
    """The bits of an array where that holds, else zeros: ``np.where`` takes five times as long, as
    it decides at each element."""
    whole = _WHOLE[x.itemsize]
    return x.view(whole) & np.negative(held.view(np.int8)).astype(whole, copy=False)


def _spread_value(xp: Any, g: Any, number: Any, size: tuple[int, ...], windows: Windows) -> Any:
    """``g`` put at the elements with these numbers of windows over axes of ``size``, else zeros."""
    whole = all(w.stride == w.kernel and w.size == w.results * w.kernel for w in windows)
    last = whole and isinstance(xp, Namespace) and _lies_last(g, len(windows))
    if last:  # channels are the innermost axis, and stay it
        order = (0, *range(2, g.ndim), 1)
        g, number = g.transpose(order), number.transpose(order)
    if not whole or xp is np:  # loops over the elements of one window would be short
        d = xp.zeros((*g.shape[: -len(windows)], *size), g.dtype)
        for t, part in enumerate(_taps(d, windows)):
            if xp is np:
                part.view(_WHOLE[g.itemsize])[...] = _bits_where(number == t, g)
            else:
                part[...] = xp.where(number == t, g, 0)
        return d
    first = 1 if last else g.ndim - len(windows)
    # An axis for the elements of the window follows the axis of the windows.
    index: list[Any] = [slice(None)] * first
    for _ in windows:
        index += [slice(None), None]
    each: Any = None
    for k, w in enumerate(windows):
        own = xp.arange(w.kernel, dtype=np.uint8).reshape(
            (-1,) + (1,) * (2 * (len(windows) - k - 1))
        )
        each = own if each is None else each * np.uint8(w.kernel) + own
    if last:
        each = each[..., None]
    d = xp.where(number[(*index, ...)] == each, g[(*index, ...)], 0)
    d = d.reshape((*g.shape[:first], *size, *g.shape[first + len(windows) :]))
    return d.transpose(0, g.ndim - 1, *range(1, g.ndim - 1)) if last else d


def _lies_last(g: Any, axes: int) -> bool:
    """Whether, of (N, C, ...), the channels lie side by side in memory."""
    if g.ndim != axes + 2 or g.shape[1] == 1:
        return False
    strides = g.elements.strides
    return bool(strides[1] == 1 and strides[-1] == g.shape[1])


MAX_POOL_TILES = Primitive(
    "max_pool_tiles",
    _largest_value,
    {"x": None},
    promotion="same",
    residual=lambda x, windows: _largest_value(np, x, windows)[1],
)

SPREAD_TILES = Primitive(
    "spread_tiles", _spread_value, {"g": None, "number": None}, moves=True, fresh=True
)
