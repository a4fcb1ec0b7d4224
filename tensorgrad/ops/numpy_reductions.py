"""Reductions as NumPy calls them: with ``where=``, ``initial=``, ``ddof=`` and ``out=``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.ops import reductions, scans
from tensorgrad.ops.complex_parts import imag, is_complex, real
from tensorgrad.ops.elementwise import equal, maximum, minimum, sqrt, square
from tensorgrad.ops.elementwise import where as chosen
from tensorgrad.ops.numpy_forms import as_array, as_inexact, placed
from tensorgrad.ops.shaping import Axis, broadcast_to, normalize_axes, shape_of
from tensorgrad.tape import cast


def given(value: Any) -> Any:
    """``value``, or ``None`` where it is NumPy's mark of what is not given."""
    return None if value is np._NoValue else value


def only(a: Any, where: Any, fill: Any) -> Any:
    """``a`` with ``fill`` in place of what ``where`` does not name."""
    a = as_array(a)
    return a if where is True else chosen(as_array(where), a, fill)


# --- sums and products ----------------------------------------------------------------------------


def sum(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False,
    initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    """``np.sum``."""
    y = reductions.sum(only(a, where, 0), axis, dtype=dtype, keepdims=bool(given(keepdims)))
    return placed("sum", y if given(initial) is None else y + initial, out)


def prod(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False,
    initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    """``np.prod``."""
    y = scans.prod(only(a, where, 1), axis, dtype=dtype, keepdims=bool(given(keepdims)))
    return placed("prod", y if given(initial) is None else y * initial, out)


# --- extremes -------------------------------------------------------------------------------------


def _extreme(
    reduced: Any, pair: Any, a: Any, axis: Axis, keepdims: Any, initial: Any, where: Any
) -> Any:
    a, initial = as_array(a), given(initial)
    if where is not True and initial is None:
        raise ValueError(
            f"np.{reduced.__name__}: where= needs an initial value, which is that of nothing"
        )
    if initial is not None and a.dtype not in dtypes.FLOATS:
        initial = cast(as_array(initial), a.dtype)
    if not a.size and initial is not None:
        y = reductions.sum(cast(a, a.dtype), axis, keepdims=bool(given(keepdims)))
        return broadcast_to(cast(as_array(initial, a), a.dtype), shape_of(y))
    y = reduced(only(a, where, initial), axis, keepdims=bool(given(keepdims)))
    return y if initial is None else pair(y, initial)


def max(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> Any:  # fmt: skip
    """``np.max``."""
    return placed("max", _extreme(reductions.max, maximum, a, axis, keepdims, initial, where), out)


def min(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> Any:  # fmt: skip
    """``np.min``."""
    return placed("min", _extreme(reductions.min, minimum, a, axis, keepdims, initial, where), out)


# --- truth ----------------------------------------------------------------------------------------


def all(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, *, where: Any = True
) -> Any:
    """``np.all``."""
    y = reductions.all(only(a, where, 1), axis, keepdims=bool(given(keepdims)))
    return placed("all", y, out)


def any(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, *, where: Any = True
) -> Any:
    """``np.any``."""
    y = reductions.any(only(a, where, 0), axis, keepdims=bool(given(keepdims)))
    return placed("any", y, out)


# --- means ----------------------------------------------------------------------------------------


def divided(total: Any, count: Any) -> Any:
    """``total / count``, NaN where the count is 0 or less; there the gradient is 0."""
    none = count <= 0.0
    return chosen(none, math.nan, total / chosen(none, 1.0, count))


def mean_of(a: Any, keep: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The mean over ``axes`` of what is to be kept."""
    total = reductions.sum(chosen(keep, a, 0.0), axis=axes, keepdims=keepdims)
    return divided(total, _count(keep, axes, keepdims, a.dtype))


def _count(keep: Any, axes: tuple[int, ...], keepdims: bool, dtype: Any) -> Any:
    counts = reductions.count_nonzero(keep, axis=axes, keepdims=keepdims)
    return cast(counts, dtypes.real_of(dtype))


def variance_of(
    a: Any, keep: Any, axes: tuple[int, ...], keepdims: bool, mean: Any, less: float
) -> Any:
    """The mean square distance from the mean over ``axes`` of what is to be kept.

    mean: if it is known, with the axes kept. less: by how much less than the number is divided.
    """
    if mean is None:
        mean = mean_of(a, keep, axes, True)
    d = chosen(keep, a - mean, 0.0)
    squares = square(real(d)) + square(imag(d)) if is_complex(d) else square(d)
    total = reductions.sum(squares, axis=axes, keepdims=keepdims)
    return divided(total, _count(keep, axes, keepdims, a.dtype) - float(less))


def root(y: Any) -> Any:
    """The square root, with gradient 0 where it is 0."""
    none = equal(y, 0.0)
    return chosen(none, 0.0, sqrt(chosen(none, 1.0, y)))


def real_of(a: Any, dtype: Any) -> Any:
    """``a`` in ``dtype``, or as floating numbers. Raises DtypeError for a dtype of integers."""
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    if wanted is not None and wanted not in dtypes.INEXACT:
        raise DtypeError(f"a mean has a floating dtype; got dtype={wanted}")
    return as_inexact(a) if wanted is None else cast(as_array(a), wanted)


def kept(a: Any, where: Any) -> Any:
    """A truth value for each element of ``a``."""
    return broadcast_to(as_array(where) != 0, np.broadcast_shapes(shape_of(a), shape_of(where)))


def mean(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False, *,
    where: Any = True,
) -> Any:  # fmt: skip
    """``np.mean``."""
    keepdims = bool(given(keepdims))
    if where is True:
        return placed("mean", reductions.mean(a, axis, dtype=dtype, keepdims=keepdims), out)
    a = real_of(a, dtype)
    return placed(
        "mean", mean_of(a, kept(a, where), normalize_axes("mean", axis, a), keepdims), out
    )


def _moment(
    known: Callable[..., Any], a: Any, axis: Axis, dtype: Any, ddof: float, keepdims: Any,
    where: Any, mean: Any, correction: Any,
) -> Any:  # fmt: skip
    less = ddof if given(correction) is None else correction
    keepdims, mean = bool(given(keepdims)), given(mean)
    if where is True and mean is None:
        a = a if dtype is None else real_of(a, dtype)
        return known(a, axis, correction=less, keepdims=keepdims)
    a = real_of(a, dtype)
    axes = normalize_axes(known.__name__, axis, a)
    y = variance_of(a, kept(a, where), axes, keepdims, mean, less)
    return y if known is reductions.var else root(y)


def var(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, ddof: float = 0,
    keepdims: bool = False, *, where: Any = True, mean: Any = None, correction: Any = None,
) -> Any:  # fmt: skip
    """``np.var``."""
    y = _moment(reductions.var, a, axis, dtype, ddof, keepdims, where, mean, correction)
    return placed("var", y, out)


def std(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, ddof: float = 0,
    keepdims: bool = False, *, where: Any = True, mean: Any = None, correction: Any = None,
) -> Any:  # fmt: skip
    """``np.std``."""
    y = _moment(reductions.std, a, axis, dtype, ddof, keepdims, where, mean, correction)
    return placed("std", y, out)
