"""The modes of NumPy's ``pad`` whose numbers are not those of the array alone.

As NumPy does it goes axis by axis, over what the axes before have added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.ops.elementwise import floor, round
from tensorgrad.ops.indexing import beside, take
from tensorgrad.ops.numpy_forms import as_array
from tensorgrad.ops.padding import FURTHER, pad
from tensorgrad.ops.reductions import max, mean, min
from tensorgrad.ops.shaping import along, concat, moveaxis, shape_of, sliced
from tensorgrad.ops.statistics import median
from tensorgrad.tape import cast

Pair = tuple[Any, Any]

_STATISTICS: dict[str, Callable[..., Any]] = {
    "maximum": max, "mean": mean, "median": median, "minimum": min
}  # fmt: skip


def padded(x: Any, mode: str, widths: Sequence[Pair], options: Sequence[Pair]) -> Any:
    """``x`` with ramps to the ``options``, or with statistics of so many elements, on each side."""
    for axis, (pair, given) in enumerate(zip(widths, options, strict=True)):
        if mode == "linear_ramp":
            low, high = (_ramp(x, axis, k, pair[k], given[k]) for k in (0, 1))
        else:
            low, high = (_statistic(x, mode, axis, k, pair[k], given[k]) for k in (0, 1))
        x = concat([low, x, high], axis=axis)
    return x


def _edge(x: Any, axis: int, side: int, count: int = 1) -> Any:
    """The first or the last elements along an axis."""
    n = shape_of(x)[axis]
    part = (0, count, None) if side == 0 else (n - count, n, None)
    return sliced(x, along(axis, part))


def _repeated(x: Any, axis: int, count: int) -> Any:
    return take(x, np.zeros(count, np.int64), axis)


def _ramp(x: Any, axis: int, side: int, count: int, end: Any) -> Any:
    """Numbers from ``end`` to the edge, which they do not reach."""
    shape = [1] * len(shape_of(x))
    shape[axis] = count
    steps = np.arange(count) / (count or 1)
    share = beside(x, (steps if side == 0 else steps[::-1].copy()).reshape(shape))
    edge = _edge(x, axis, side)
    if edge.dtype in dtypes.INTEGERS:
        return cast(floor(end + (cast(edge, dtypes.float64) - end) * share), edge.dtype)
    return cast(end + (edge - end) * cast(share, dtypes.real_of(edge.dtype)), edge.dtype)


def _statistic(x: Any, mode: str, axis: int, side: int, count: int, length: Any) -> Any:
    n = shape_of(x)[axis]
    if length is None or length > n:
        length = n
    if not length and mode in ("maximum", "minimum"):
        raise ValueError("pad: stat_length of 0 yields no value for padding")
    found = _STATISTICS[mode](_edge(x, axis, side, length), axis=axis, keepdims=True)
    if x.dtype in dtypes.INTEGERS and found.dtype not in dtypes.INTEGERS:
        found = round(found)
    return _repeated(cast(found, x.dtype), axis, count)


def reflected_oddly(x: Any, mode: str, axis: int, pair: Pair) -> Any:
    """``x`` mirrored so that it goes on beyond the edges in the direction it had there.

    What NumPy adds is a sum of multiples of one element and of both edges, which are found from
    what it adds to arrays of noughts and ones.
    """
    n = shape_of(x)[axis]

    def by_numpy(row: Any, kind: str) -> Any:
        return np.pad(row, pair, mode=mode, reflect_type=kind)  # type: ignore[call-overload]

    places = by_numpy(np.arange(n), "even")
    if n == 1:
        return take(x, places, axis)
    first, last, ones = np.zeros(n, np.int64), np.zeros(n, np.int64), np.ones(n, np.int64)
    first[0] = last[-1] = 1
    low, high, whole = (by_numpy(row, "odd") for row in (first, last, ones))
    shape = [1] * len(shape_of(x))
    shape[axis] = -1
    own, low, high = (
        beside(x, a.astype(x.dtype).reshape(shape)) for a in (whole - low - high, low, high)
    )
    return take(x, places, axis) * own + _edge(x, axis, 0) * low + _edge(x, axis, 1) * high


FURTHER.update(computed=padded, odd=reflected_oddly)

# --- NumPy's form ---------------------------------------------------------------------------------

_OPTIONS: dict[str, tuple[str, ...]] = {
    "constant": ("constant_values",),
    "linear_ramp": ("end_values",),
    "reflect": ("reflect_type",),
    "symmetric": ("reflect_type",),
    **dict.fromkeys(_STATISTICS, ("stat_length",)),
}


def by_numpys_arguments(array: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
    """``np.pad(array, pad_width, mode, **options)``; ``mode`` may be a function."""
    array = as_array(array)
    if isinstance(pad_width, dict):
        n = len(shape_of(array))
        widths: list[Any] = [(0, 0)] * n
        for axis, width in pad_width.items():
            widths[axis] = (width, width) if isinstance(width, int) else tuple(width)
        pad_width = widths
    if callable(mode):
        return _by_function(pad(array, pad_width), pad_width, mode, options)
    wrong = set(options) - set(_OPTIONS.get(mode, ()))
    if wrong:
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {wrong}")
    return pad(array, pad_width, mode, **options)


def _by_function(
    y: Any, pad_width: Any, function: Callable[..., Any], options: Mapping[str, Any]
) -> Any:
    """``function`` overwrites, along each axis in turn, the ends of each vector of ``y``."""
    shape = shape_of(y)
    widths = np.broadcast_to(np.asarray(pad_width), (len(shape), 2)).tolist()
    for axis, pair in enumerate(widths):
        rows = moveaxis(y, axis, -1)
        for place in np.ndindex(*shape_of(rows)[:-1]):
            function(rows[place], tuple(pair), axis, dict(options))
    return y
