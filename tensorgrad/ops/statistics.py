"""Statistics in NumPy's own form: quantiles, medians, averages, ranges and covariances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj, is_complex, real
from tensorgrad.ops.elementwise import (
    clip,
    floor,
    isnan,
    logical_and,
    remainder,
    round,
    sqrt,
    weighted,
    where,
)
from tensorgrad.ops.indexing import beside, gathered, take
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.numpy_forms import as_array, as_inexact, inexact, lined, placed, together
from tensorgrad.ops.padding import diag
from tensorgrad.ops.reductions import any as any_of
from tensorgrad.ops.reductions import max as largest
from tensorgrad.ops.reductions import mean as mean_of
from tensorgrad.ops.reductions import min as smallest
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.scans import cumulative_sum
from tensorgrad.ops.shaping import (
    Axis,
    broadcast_to,
    concat,
    expand_dims,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    squeeze,
)
from tensorgrad.ops.sorting import argsort, sort
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["average", "corrcoef", "cov", "median", "percentile", "ptp", "quantile"]


# --- quantiles ------------------------------------------------------------------------------------

# Of the continuous methods the two numbers that they are made with (Hyndman and Fan, "Sample
# Quantiles in Statistical Packages", The American Statistician 50, 1996): the quantile q of n
# numbers is at n q + a + q (1 - a - b) - 1, counted from 0.
_CONTINUOUS = {
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
METHODS = (
    "linear", *_CONTINUOUS, "inverted_cdf", "averaged_inverted_cdf", "closest_observation",
    "lower", "higher", "midpoint", "nearest",
)  # fmt: skip


def _place(n: Any, q: Any, method: str) -> Any:
    """Where among ``n`` sorted numbers the quantile ``q`` is, between two of them perhaps.

    n: an integer, or integers of any shape; q: numbers that broadcast with it.
    """
    if method in _CONTINUOUS:
        a, b = _CONTINUOUS[method]
        return q * (n + (1.0 - a - b)) + (a - 1.0)
    if method == "inverted_cdf":
        return -floor(-(q * n)) - 1.0
    if method == "averaged_inverted_cdf":
        at = q * n - 1.0
        low = floor(at)
        return where(low == at, low + 0.5, low + 1.0)
    if method == "closest_observation":  # of two at one distance the one with the even rank
        at = q * n - 1.5
        low = floor(at)
        return where(logical_and(low == at, remainder(low, 2.0) == 1.0), low, low + 1.0)
    at = q * (n - 1.0)
    if method == "linear":
        return at
    if method == "nearest":
        return round(at)
    low, high = floor(at), -floor(-at)
    return low if method == "lower" else high if method == "higher" else 0.5 * (low + high)


def between(name: str, rows: Any, n: Any, q: Any, method: str) -> Any:
    """The quantiles ``q`` (k,) of the last axis of ``rows``, sorted: (..., k).

    n: how many of each row count, from the first on; an integer, or (..., 1).
    """
    if method not in METHODS:
        raise ValueError(f"{name}: method must be one of {', '.join(METHODS)}; got {method!r}")
    at = clip(_place(n, q, method), 0.0, clip(n - 1.0, 0.0))
    low = floor(at)
    shape = (*shape_of(rows)[:-1], shape_of(q)[0])
    at, low = broadcast_to(at, shape), broadcast_to(low, shape)
    first = cast(low, dtypes.int64)
    second = clip(first + 1, None, shape_of(rows)[-1] - 1)
    lower, upper = gathered(rows, first, len(shape) - 1), gathered(rows, second, len(shape) - 1)
    return lower + weighted(upper - lower, cast(at - low, rows.dtype))


def quantile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Tensor:
    """The quantiles ``q`` of the elements over ``axis``: (\\*shape of q, \\*rest). NaN of NaN.

    q: numbers in [0, 1]; if it is a tensor, gradients flow to it as well.
    method: each of NumPy's. weights: of the shape of ``a`` or, with one axis, along it, for
        "inverted_cdf" alone; they get no gradient.

    Raises ValueError for ``q`` out of range or an unknown method.
    """
    y = _quantile("quantile", a, q, 1.0, axis, method, keepdims, weights)
    return placed("quantile", y, out)


def percentile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Tensor:
    """As ``quantile``, with ``q`` in [0, 100]."""
    y = _quantile("percentile", a, q, 100.0, axis, method, keepdims, weights)
    return placed("percentile", y, out)


def checked_quantiles(name: str, a: Any, q: Any, most: float) -> Any:
    """``q`` as numbers in [0, 1] beside ``a``. Raises ValueError for others."""
    q = q if hasattr(q, "node") else np.asarray(q, np.float64)
    if hasattr(q, "node"):
        q._read(f"{name}() of quantiles in a tensor")
    numbers = getattr(q, "data", q) if hasattr(q, "node") else q
    if numbers.ndim > 1 or not bool(((numbers >= 0) & (numbers <= most)).all()):
        raise ValueError(
            f"{name}: q must be a number or a vector of numbers in [0, {most:g}]; got {q!r}"
        )
    return beside(a, q / most if most != 1.0 else q)


def _quantile(
    name: str, a: Any, q: Any, most: float, axis: Axis, method: str, keepdims: bool, weights: Any
) -> Any:
    a = as_inexact(a)
    q = checked_quantiles(name, a, q, most)
    rows, _, kept = lined(name, a, axis)
    if not shape_of(rows)[-1]:
        raise ShapeError(f"{name}: there are no elements over axis {axis} of shape {shape_of(a)}")
    if weights is not None:
        y = by_weights(rows, weights_in_rows(name, a, weights, axis, method), reshape(q, (-1,)))
    else:
        rows = sort(rows, axis=-1)
        y = between(name, rows, shape_of(rows)[-1], reshape(q, (-1,)), method)
    last = expand_dims(any_of(isnan(rows), axis=-1), -1)
    y = where(last, np.nan, y)
    return in_front(y, shape_of(q), kept if keepdims else None)


def in_front(y: Any, q_shape: tuple[int, ...], kept: tuple[int, ...] | None) -> Any:
    """Results (..., k) for each of k quantiles as NumPy gives them, the quantiles in front."""
    y = moveaxis(y, -1, 0)
    return reshape(y, (*q_shape, *(shape_of(y)[1:] if kept is None else kept)))


def weights_in_rows(name: str, a: Any, weights: Any, axis: Axis, method: str) -> Any:
    """The weights of elements over ``axis`` along the last axis, as ``lined`` has the elements."""
    if method != "inverted_cdf":
        raise ValueError(f'{name}: weights are for the method "inverted_cdf" alone')
    weights = as_array(weights, a)
    if shape_of(weights) != shape_of(a):
        weights = _along(name, a, weights, axis)
    return lined(name, weights, axis)[0]


def _along(name: str, a: Any, weights: Any, axis: Axis) -> Any:
    """A vector of weights along one axis of ``a``, or weights along several, in its shape."""
    if axis is None:
        raise TypeError(
            f"{name}: an axis must be given where a, {shape_of(a)}, and weights, "
            f"{shape_of(weights)}, differ in shape"
        )
    shape = shape_of(a)
    axes = [normalize_axis(name, i, a) for i in (axis if isinstance(axis, tuple) else (axis,))]
    if shape_of(weights) != tuple(shape[i] for i in axes):
        raise ShapeError(
            f"{name}: weights must have the shape of a, {shape}, or its sizes along {axis}; got "
            f"{shape_of(weights)}"
        )
    order = sorted(range(len(axes)), key=axes.__getitem__)
    weights = moveaxis(weights, tuple(order), tuple(range(len(order))))
    sizes = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    return broadcast_to(reshape(weights, sizes), shape)


def by_weights(rows: Any, weights: Any, q: Any) -> Any:
    """The first of the sorted elements up to which the share of the weights reaches ``q``."""
    order = argsort(rows, axis=-1)
    axis = len(shape_of(rows)) - 1
    share = gathered(cast(weights, dtypes.float64), order, axis)
    share = cumulative_sum(share, axis=axis)
    n = shape_of(rows)[-1]
    share = share / expand_dims(take(share, n - 1, axis=axis), -1)
    below = expand_dims(share, -2) < expand_dims(q, -1)
    none = expand_dims(share, -2) <= 0.0  # what has no weight is not the smallest
    at = clip(total(cast(below | none, dtypes.int64), axis=-1), None, n - 1)
    return gathered(gathered(rows, order, axis), at, axis)


def median(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
) -> Tensor:
    """The middle one of the sorted elements over ``axis``, or the mean of the middle two.

    NaN of NaN, and of nothing.
    """
    a = as_inexact(a)
    rows, _, kept = lined("median", a, axis)
    n = shape_of(rows)[-1]
    if not n:
        y = mean_of(rows, axis=-1)
    else:
        rows = sort(rows, axis=-1)
        axis_of_rows = len(shape_of(rows)) - 1
        y = take(rows, n // 2, axis=axis_of_rows)
        if not n % 2:
            y = (take(rows, n // 2 - 1, axis=axis_of_rows) + y) * 0.5
        y = where(isnan(take(rows, n - 1, axis=axis_of_rows)), np.nan, y)
    return placed("median", reshape(y, kept) if keepdims else y, out)


# --- averages and ranges --------------------------------------------------------------------------


def average(
    a: Any,
    axis: Axis = None,
    weights: Any = None,
    returned: bool = False,
    *,
    keepdims: bool = False,
) -> Any:
    """The mean over ``axis``, each element counted by its weight.

    weights: of the shape of ``a``, or of its sizes along ``axis``; all 1 if ``None``. Where they
        add up to 0 the average is NaN or infinite.
    returned: give the sum of the weights as well, in the shape of the average.
    """
    a, weights = together(a, weights) if weights is not None else (as_array(a), None)
    if weights is None:
        y = mean_of(a, axis=axis, keepdims=keepdims)
        count = math.prod(shape_of(a)) / max(math.prod(shape_of(y)), 1)
        whole: Any = broadcast_to(cast(as_array(count), y.dtype), shape_of(y))
    else:
        if shape_of(weights) != shape_of(a):
            weights = _along("average", a, weights, axis)
        whole = total(weights, axis=axis, keepdims=keepdims)
        y = total(a * weights, axis=axis, keepdims=keepdims) / whole
    return (y, whole) if returned else y


def ptp(a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False) -> Tensor:
    """From the smallest to the largest element over ``axis``: their difference."""
    y = largest(a, axis=axis, keepdims=keepdims) - smallest(a, axis=axis, keepdims=keepdims)
    return placed("ptp", y, out)


# --- covariances ----------------------------------------------------------------------------------


def _variables(name: str, m: Any, rowvar: bool) -> Any:
    if len(shape_of(m)) > 2:
        raise ValueError(f"{name}: at most two axes are possible; got shape {shape_of(m)}")
    return reshape(m, (1, -1)) if len(shape_of(m)) < 2 else m if rowvar else m.T


def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: float | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Tensor:
    """The covariances of variables, each a row of ``m`` (a column unless ``rowvar``) and of ``y``.

    bias: divide by n and not by n - 1; ddof: by n - ddof. fweights: how often each observation
    counts; aweights: the weight of each.
    """
    m, y = inexact(m, y) if y is not None else (as_inexact(m), None)
    m = _variables("cov", m, rowvar or len(shape_of(m)) < 2)
    if y is not None:
        m = concat([m, _variables("cov", y, rowvar or len(shape_of(y)) < 2)], axis=0)
    if dtype is not None:
        m = cast(m, dtypes.as_dtype(dtype))
    if ddof is None:
        ddof = 0 if bias else 1
    n = shape_of(m)[1]
    weights = None if fweights is None else as_array(fweights)
    if aweights is not None:
        weights = as_inexact(aweights, m) if weights is None else weights * as_inexact(aweights, m)
    if weights is None:
        d = m - mean_of(m, axis=1, keepdims=True)
        factor = n - ddof
        found = matmul(d, conj(d.T)) * (1.0 / factor if factor > 0 else np.nan)
    else:
        if shape_of(weights) != (n,):
            raise ShapeError(
                f"cov: there must be a weight for each of {n} observations; got shape "
                f"{shape_of(weights)}"
            )
        weights = cast(weights, m.dtype)
        whole = total(weights)
        d = m - total(m * weights, axis=1, keepdims=True) / whole
        if ddof and aweights is not None:
            whole = whole - ddof * total(weights * as_inexact(aweights, m)) / whole
        else:
            whole = whole - ddof
        found = matmul(d * weights, conj(d.T)) / whole
    return squeeze(found)


def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Tensor:
    """The correlations of variables, covariances divided by both deviations; see ``cov``."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not len(shape_of(c)):
        return c / c
    deviation = sqrt(real(diag(c)))
    c = c / reshape(deviation, (-1, 1)) / reshape(deviation, (1, -1))
    return c if is_complex(c) else clip(c, -1.0, 1.0)
