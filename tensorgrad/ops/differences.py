"""Differences, slopes, integrals, interpolation and convolution along an axis, in NumPy's form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj
from tensorgrad.ops.elementwise import abs as size_of
from tensorgrad.ops.elementwise import clip, equal, greater, isnan, less, multiply, remainder, where
from tensorgrad.ops.indexing import take
from tensorgrad.ops.numpy_forms import as_array, as_inexact, inexact, integer, together
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.scans import cumulative_sum
from tensorgrad.ops.shaping import (
    Axis,
    along,
    broadcast_to,
    concat,
    flip,
    moveaxis,
    normalize_axes,
    normalize_axis,
    reshape,
    shape_of,
    sliced,
    stack,
)
from tensorgrad.ops.sorting import argsort, searchsorted
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "convolve", "correlate", "cross", "diff", "ediff1d", "gradient", "interp", "trapezoid",
    "unwrap",
]  # fmt: skip


def part(x: Any, axis: int, start: int | None, stop: int | None) -> Any:
    """``x`` from ``start`` to ``stop`` along ``axis``."""
    return sliced(x, along(axis, (start, stop, None)))


# --- differences ----------------------------------------------------------------------------------


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences of neighbours along ``axis``, ``n`` times over.

    prepend, append: what to put before and behind ``a`` first: a number, or an array.
    """
    a = as_array(a)
    if integer("diff", "n", n) < 0:
        raise ValueError(f"diff: n must not be negative; got {n}")
    place = normalize_axis("diff", axis, a)

    def beside(x: Any) -> Any:
        x = as_array(x, a)
        shape = list(shape_of(a))
        shape[place] = 1
        return x if len(shape_of(x)) else broadcast_to(x, shape)

    ends = [None if x is None or x is _absent() else beside(x) for x in (prepend, append)]
    parts = [x for x in (ends[0], a, ends[1]) if x is not None]
    if n and len(parts) > 1:
        a = concat(parts, axis=place)
    for _ in range(n):
        later, before = part(a, place, 1, None), part(a, place, None, -1)
        a = later != before if a.dtype == dtypes.bool else later - before
    return a


def _absent() -> Any:
    import numpy as np

    return np._NoValue


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Tensor:
    """The differences of neighbours in the flattened ``ary``, between two given pieces."""
    y = diff(reshape(as_array(ary), (-1,)))
    pieces = [None if x is None else reshape(as_array(x, y), (-1,)) for x in (to_begin, to_end)]
    parts = [x for x in (pieces[0], y, pieces[1]) if x is not None]
    return concat(parts) if len(parts) > 1 else y


def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * math.pi) -> Tensor:
    """``p`` with multiples of ``period`` added, so that neighbours are at most half of it apart.

    discont: only jumps of at least this much are taken away.
    """
    p = as_inexact(p)
    place = normalize_axis("unwrap", axis, p)
    jump = diff(p, axis=place)
    half = period / 2
    by = remainder(jump + half, period) - half
    by = where((by == -half) & (jump > 0), half, by) - jump
    if discont is not None:
        by = where(size_of(jump) < discont, 0.0, by)
    by = where(size_of(jump) < half, 0.0, by)
    moved = part(p, place, 1, None) + cumulative_sum(by, axis=place)
    return concat([part(p, place, None, 1), moved], axis=place)


def gradient(f: Any, *varargs: Any, axis: Axis = None, edge_order: int = 1) -> Any:
    """The slope along each axis: central differences, at the ends one-sided ones.

    varargs: nothing for a distance of 1; one distance for all axes; or for each axis a distance,
    or the places of its points. edge_order: 1 or 2, the order of what is done at the ends.

    Gives a tuple for several axes. Raises ValueError for an axis with too few points.
    """
    f = as_inexact(f)
    axes = normalize_axes("gradient", axis, f)
    if len(varargs) not in (0, 1, len(axes)):
        raise TypeError(f"gradient: {len(axes)} axes take 0, 1 or {len(axes)} distances")
    spacings = [1.0] * len(axes) if not varargs else list(varargs) * (
        len(axes) if len(varargs) == 1 else 1
    )  # fmt: skip
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order must be 1 or 2; got {edge_order}")
    found = []
    for place, spacing in zip(axes, spacings, strict=True):
        n = shape_of(f)[place]
        if n < edge_order + 1:
            raise ValueError(
                f"gradient: axis {place} has {n} points, and at least {edge_order + 1} are needed"
            )
        line = moveaxis(f, place, -1)
        found.append(moveaxis(_slope(line, as_inexact(spacing, f), edge_order), -1, place))
    return found[0] if len(found) == 1 else tuple(found)


def _slope(f: Any, spacing: Any, edge_order: int) -> Any:
    """Along the last axis; ``spacing`` is a distance, or the places of the points."""
    last, n = len(shape_of(f)) - 1, shape_of(f)[-1]
    if len(shape_of(spacing)):
        if shape_of(spacing) != (n,):
            raise ValueError(f"gradient: {n} places are needed; got shape {shape_of(spacing)}")
        d = diff(spacing)
    else:
        d = broadcast_to(spacing, (n - 1,))
    before, behind = part(d, 0, None, -1), part(d, 0, 1, None)
    step = diff(f)
    rise = step / d
    inner = (part(rise, last, None, -1) * behind + part(rise, last, 1, None) * before) / (
        before + behind
    )
    first, final = part(rise, last, None, 1), part(rise, last, -1, None)
    if edge_order == 2:
        first = _end(part(d, 0, 0, 1), part(d, 0, 1, 2), first, part(rise, last, 1, 2))
        final = _end(part(d, 0, -1, None), part(d, 0, -2, -1), final, part(rise, last, -2, -1))
    return concat([first, inner, final], axis=last)


def _end(near: Any, far: Any, rise: Any, next_rise: Any) -> Any:
    """The slope at an end of the parabola through three points, from the two rises."""
    return rise + (rise - next_rise) * near / (near + far)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """The integral along ``axis`` of straight lines between points ``dx`` apart, or at ``x``."""
    y, x = inexact(y, x) if x is not None else (as_inexact(y), None)
    place = normalize_axis("trapezoid", axis, y)
    mean = (part(y, place, 1, None) + part(y, place, None, -1)) * 0.5
    if x is None:
        return total(mean, axis=place) * dx
    if len(shape_of(x)) == 1:
        d = reshape(diff(x), [-1 if i == place else 1 for i in range(len(shape_of(y)))])
    else:
        d = diff(x, axis=axis)
    return total(mean * d, axis=place)


# --- interpolation --------------------------------------------------------------------------------


def interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None
) -> Tensor:
    """The straight lines through the points ``(xp, fp)``, ``xp`` ascending, at ``x``.

    left, right: the values before the first point and behind the last one, theirs if ``None``.
    period: after which the points repeat, in any order; ``left`` and ``right`` have no effect.
    """
    x, xp, fp = inexact(x, xp, fp)
    if len(shape_of(xp)) != 1 or shape_of(fp) != shape_of(xp) or not shape_of(xp)[0]:
        raise ValueError(
            "interp: xp and fp must be vectors of one length, which is not 0; got shapes "
            f"{shape_of(xp)} and {shape_of(fp)}"
        )
    if period is not None:
        x, xp, fp = _periodic(x, xp, fp, abs(float(period)))
        left = right = None
    first, last = sliced(fp, (0, ...)), sliced(fp, (-1, ...))
    left, right = first if left is None else left, last if right is None else right
    n = shape_of(xp)[0]
    below, above = less(x, sliced(xp, (0, ...))), greater(x, sliced(xp, (-1, ...)))
    if n == 1:
        y = first + x * 0.0
    else:
        at = clip(searchsorted(xp, x, side="right") - 1, 0, n - 2)
        y = _on_lines(x, xp, fp, at)
        y = where(equal(x, sliced(xp, (-1, ...))), last, y)
    return where(isnan(x), math.nan, where(below, left, where(above, right, y)))


def _periodic(x: Any, xp: Any, fp: Any, period: float) -> tuple[Any, Any, Any]:
    x, xp = remainder(x, period), remainder(xp, period)
    order = argsort(xp)
    xp, fp = take(xp, order, axis=0), take(fp, order, axis=0)
    xp = concat([part(xp, 0, -1, None) - period, xp, part(xp, 0, None, 1) + period])
    return x, xp, concat([part(fp, 0, -1, None), fp, part(fp, 0, None, 1)])


def _on_lines(x: Any, xp: Any, fp: Any, at: Any) -> Any:
    """The line that begins at the point with the number ``at``, for each of ``x``."""
    x0, f0 = take(xp, at, axis=0), take(fp, at, axis=0)
    width = take(xp, at + 1, axis=0) - x0
    width = where(equal(width, 0.0), 1.0, width)
    return f0 + (take(fp, at + 1, axis=0) - f0) / width * (x - x0)


# --- products along an axis -----------------------------------------------------------------------


def _convolve_rule(g: Any, other: Any, mine: tuple[int, ...]) -> Any:
    n = other.shape[0]
    return part(_full(g, flip(other, axis=0)), 0, n - 1, n - 1 + mine[0])


_CONVOLVE: Primitive = Primitive(
    "convolve",
    lambda xp, a, v: xp.convolve(a, v),
    {
        "a": lambda g, a_shape, v: _convolve_rule(g, v, a_shape),
        "v": lambda g, a, v_shape: _convolve_rule(g, a, v_shape),
    },
    promotion="same",
    half_in_float32=True,
    complex=True,
    flops=lambda a, v, out: 2 * a.size * v.size,
)


def _full(a: Any, v: Any) -> Any:
    return apply(_CONVOLVE, (a, v))


def _vectors(name: str, a: Any, v: Any) -> tuple[Any, Any]:
    a, v = together(a, v)
    for x in (a, v):
        if len(shape_of(x)) > 1 or not x.size:
            raise ShapeError(f"{name}: two vectors are needed, not empty; got shape {shape_of(x)}")
    return reshape(a, (-1,)), reshape(v, (-1,))


def _cut(name: str, y: Any, n: int, m: int, mode: str, start: int) -> Any:
    """Of all products of vectors of ``n`` and ``m`` elements (n >= m) what ``mode`` asks for."""
    if mode == "full":
        return y
    if mode == "same":
        return part(y, 0, start, start + n)
    if mode == "valid":
        return part(y, 0, m - 1, n)
    raise ValueError(f'{name}: mode must be "full", "same" or "valid"; got {mode!r}')


def convolve(a: Any, v: Any, mode: str = "full") -> Tensor:
    """The convolution of two vectors: ``y[k]`` is the sum of all ``a[i] * v[k - i]``.

    mode: "full", all n + m - 1 of them; "same", the middle ones, as many as the longer vector
        has; "valid", those for which all of the shorter one is used.
    """
    a, v = _vectors("convolve", a, v)
    n, m = sorted((shape_of(a)[0], shape_of(v)[0]), reverse=True)
    return _cut("convolve", _full(a, v), n, m, mode, (m - 1) // 2)


def correlate(a: Any, v: Any, mode: str = "valid") -> Tensor:
    """The cross-correlation of two vectors: the sums of all ``a[i + k] * conj(v[i])``.

    mode: as for ``convolve``.
    """
    a, v = _vectors("correlate", a, v)
    n, m = shape_of(a)[0], shape_of(v)[0]
    if m > n:
        return flip(conj(correlate(v, a, mode)), axis=0)
    return _cut("correlate", _full(a, flip(conj(v), axis=0)), n, m, mode, (m - 1) // 2)


def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """The cross product of vectors of 3 (or 2) numbers, along an axis; the others broadcast.

    axisa, axisb, axisc: where the vectors lie in ``a``, ``b`` and the result; ``axis``: in all.
    Of two vectors with 2 numbers there is only the third of the result, without an axis.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = together(a, b)
    a, b = moveaxis(a, axisa, 0), moveaxis(b, axisb, 0)
    sizes = shape_of(a)[0], shape_of(b)[0]
    if not {*sizes} <= {2, 3}:
        raise ValueError(f"cross: vectors of 2 or 3 numbers are needed; got {sizes[0]}, {sizes[1]}")
    a0, a1, a2 = _three(a)
    b0, b1, b2 = _three(b)
    third = multiply(a0, b1) - multiply(a1, b0)
    if sizes == (2, 2):
        return third
    found = [_minus(_times(a1, b2), _times(a2, b1)), _minus(_times(a2, b0), _times(a0, b2)), third]
    y = stack(found)
    return moveaxis(y, 0, axisc)


def _three(x: Any) -> Sequence[Any]:
    parts = [sliced(x, (k, ...)) for k in range(shape_of(x)[0])]
    return parts if len(parts) == 3 else [*parts, None]


def _times(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a * b


def _minus(a: Any, b: Any) -> Any:
    return a if b is None else -b if a is None else a - b
