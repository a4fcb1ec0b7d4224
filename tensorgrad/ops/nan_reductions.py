"""Reductions in NumPy's own form that leave out NaN, which gets no gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops import reductions, scans
from tensorgrad.ops.elementwise import equal, isnan, logical_not, where
from tensorgrad.ops.numpy_forms import as_array, as_inexact, lined, placed
from tensorgrad.ops.numpy_reductions import given, mean_of, real_of, root, variance_of
from tensorgrad.ops.reductions import of_dtype
from tensorgrad.ops.shaping import (
    Axis,
    broadcast_to,
    expand_dims,
    normalize_axes,
    reshape,
    shape_of,
    stack,
)
from tensorgrad.ops.sorting import sort
from tensorgrad.ops.statistics import (
    between,
    by_weights,
    checked_quantiles,
    in_front,
    weights_in_rows,
)
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin",
    "nanpercentile", "nanprod", "nanquantile", "nanstd", "nansum", "nanvar",
]  # fmt: skip


def _kept(x: Any, where_: Any) -> Any:
    """Which elements count: those that are not NaN, of these which ``where`` names."""
    keep = logical_not(isnan(x))
    return keep if where_ is True else keep & as_array(where_)


def _filled(a: Any, fill: float, where_: Any = True) -> Any:
    """``a`` with ``fill`` in place of what does not count."""
    a = as_array(a)
    if where_ is True and a.dtype not in dtypes.INEXACT:
        return a
    return where(_kept(a, where_), a, fill if a.dtype in dtypes.INEXACT else int(fill))


def _with_dtype(reduced: Callable[[Any], Any], x: Any, dtype: Any) -> Any:
    return reduced(x) if dtype is None else of_dtype(reduced, x, dtype)


def nansum(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False,
    initial: Any = None, where: Any = True,
) -> Tensor:  # fmt: skip
    """The sum over ``axis`` of what is not NaN; 0 of nothing."""
    x = _filled(a, 0.0, where)
    y = _with_dtype(lambda x: reductions.sum(x, axis=axis, keepdims=keepdims), x, dtype)
    initial = given(initial)
    return placed("nansum", y if initial is None else y + initial, out)


def nanprod(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False,
    initial: Any = None, where: Any = True,
) -> Tensor:  # fmt: skip
    """The product over ``axis`` of what is not NaN; 1 of nothing."""
    x = _filled(a, 1.0, where)
    y = _with_dtype(lambda x: scans.prod(x, axis=axis, keepdims=keepdims), x, dtype)
    initial = given(initial)
    return placed("nanprod", y if initial is None else y * initial, out)


def nancumsum(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Tensor:
    """``cumsum`` with 0 in place of NaN; of the flattened ``a`` without an axis."""
    x = _filled(a, 0.0)
    x, axis = (reshape(x, (-1,)), 0) if axis is None else (x, axis)
    return placed("nancumsum", scans.cumulative_sum(x, axis=axis, dtype=dtype), out)


def nancumprod(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Tensor:
    """``cumprod`` with 1 in place of NaN; of the flattened ``a`` without an axis."""
    x = _filled(a, 1.0)
    x, axis = (reshape(x, (-1,)), 0) if axis is None else (x, axis)
    return placed("nancumprod", scans.cumulative_prod(x, axis=axis, dtype=dtype), out)


# --- means ----------------------------------------------------------------------------------------


def nanmean(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, keepdims: bool = False, *,
    where: Any = True,
) -> Tensor:  # fmt: skip
    """The mean over ``axis`` of what is not NaN; NaN of nothing."""
    a = real_of(a, dtype)
    y = mean_of(a, _kept(a, where), normalize_axes("nanmean", axis, a), keepdims)
    return placed("nanmean", y, out)


def nanvar(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, ddof: float = 0,
    keepdims: bool = False, *, where: Any = True, mean: Any = None, correction: Any = None,
) -> Tensor:  # fmt: skip
    """The mean square distance from the mean over ``axis`` of what is not NaN.

    ddof (or correction): the sum is divided by the number of elements less this; where that is not
    positive the result is NaN. mean: where it is known already, with the axes kept.
    """
    return placed("nanvar", _variance(a, axis, dtype, ddof, keepdims, where, mean, correction), out)


def nanstd(
    a: Any, axis: Axis = None, dtype: Any = None, out: Any = None, ddof: float = 0,
    keepdims: bool = False, *, where: Any = True, mean: Any = None, correction: Any = None,
) -> Tensor:  # fmt: skip
    """The square root of ``nanvar``; the gradient is 0 where it is 0."""
    y = _variance(a, axis, dtype, ddof, keepdims, where, mean, correction)
    return placed("nanstd", root(y), out)


def _variance(
    a: Any, axis: Axis, dtype: Any, ddof: float, keepdims: bool, where_: Any, mean: Any,
    correction: Any,
) -> Any:  # fmt: skip
    a = real_of(a, dtype)
    less = ddof if given(correction) is None else correction
    axes = normalize_axes("nanvar", axis, a)
    return variance_of(a, _kept(a, where_), axes, keepdims, given(mean), less)


# --- extremes -------------------------------------------------------------------------------------


def _extreme(
    reduced: Callable[..., Any], a: Any, axis: Axis, keepdims: bool, initial: Any, where_: Any
) -> Any:
    a = as_array(a)
    floating = a.dtype in dtypes.FLOATS
    initial = given(initial)
    if where_ is not True and initial is None:
        raise ValueError("nanmax, nanmin: where= needs an initial value, as that of nothing")
    sign = -1.0 if reduced is reductions.max else 1.0
    if not floating and where_ is True:
        y = reduced(a, axis=axis, keepdims=keepdims)
    else:
        keep = _kept(a, where_)
        fill: Any = sign * math.inf if floating else initial
        y = reduced(where(keep, a, fill), axis=axis, keepdims=keepdims)
        if where_ is True and initial is None:
            some = reductions.any(keep, axis=axis, keepdims=keepdims)
            y = where(some, y, math.nan)
    if initial is None:
        return y
    pair = stack([y, broadcast_to(as_array(initial), shape_of(y))])
    return reduced(pair, axis=0)


def nanmax(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> Tensor:  # fmt: skip
    """The largest element over ``axis`` that is not NaN; NaN if all are."""
    return placed("nanmax", _extreme(reductions.max, a, axis, keepdims, initial, where), out)


def nanmin(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> Tensor:  # fmt: skip
    """The smallest element over ``axis`` that is not NaN; NaN if all are."""
    return placed("nanmin", _extreme(reductions.min, a, axis, keepdims, initial, where), out)


def nanargmax(
    a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False
) -> Tensor:
    """Where the largest element is that is not NaN; 0 if all are."""
    y = reductions.argmax(_filled(a, -math.inf), axis=axis, keepdims=keepdims)
    return placed("nanargmax", y, out)


def nanargmin(
    a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False
) -> Tensor:
    """Where the smallest element is that is not NaN; 0 if all are."""
    y = reductions.argmin(_filled(a, math.inf), axis=axis, keepdims=keepdims)
    return placed("nanargmin", y, out)


# --- quantiles ------------------------------------------------------------------------------------


def _quantiles(
    name: str, a: Any, q: Any, most: float, axis: Axis, method: str, keepdims: bool, weights: Any
) -> Any:
    a = as_inexact(a)
    q = checked_quantiles(name, a, q, most)
    rows, _, kept = lined(name, a, axis)
    if not shape_of(rows)[-1]:
        raise ShapeError(f"{name}: there are no elements over axis {axis} of shape {shape_of(a)}")
    if weights is not None:
        share = where(isnan(rows), 0.0, weights_in_rows(name, a, weights, axis, method))
        y = by_weights(rows, share, reshape(q, (-1,)))
        return in_front(y, shape_of(q), kept if keepdims else None)
    count = expand_dims(reductions.count_nonzero(logical_not(isnan(rows)), axis=-1), -1)
    ordered = sort(rows, axis=-1)  # NaN comes last
    ordered = where(isnan(ordered), 0.0, ordered)  # and would be met with a weight of 0
    y = between(name, ordered, cast(count, dtypes.float64), reshape(q, (-1,)), method)
    y = where(equal(count, 0), math.nan, y)
    return in_front(y, shape_of(q), kept if keepdims else None)


def nanquantile(
    a: Any, q: Any, axis: Axis = None, out: Any = None, overwrite_input: bool = False,
    method: str = "linear", keepdims: bool = False, *, weights: Any = None,
) -> Tensor:  # fmt: skip
    """The quantiles ``q`` over ``axis`` of what is not NaN; see ``quantile``."""
    y = _quantiles("nanquantile", a, q, 1.0, axis, method, keepdims, weights)
    return placed("nanquantile", y, out)


def nanpercentile(
    a: Any, q: Any, axis: Axis = None, out: Any = None, overwrite_input: bool = False,
    method: str = "linear", keepdims: bool = False, *, weights: Any = None,
) -> Tensor:  # fmt: skip
    """As ``nanquantile``, with ``q`` in [0, 100]."""
    y = _quantiles("nanpercentile", a, q, 100.0, axis, method, keepdims, weights)
    return placed("nanpercentile", y, out)


def nanmedian(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
) -> Tensor:
    """The middle one over ``axis`` of what is not NaN, or the mean of the middle two."""
    a = as_inexact(a)
    if not lined("nanmedian", a, axis)[0].shape[-1]:
        y = reductions.mean(a, axis=axis, keepdims=keepdims)
    else:
        y = _quantiles("nanmedian", a, 0.5, 1.0, axis, "linear", keepdims, None)
    return placed("nanmedian", y, out)
