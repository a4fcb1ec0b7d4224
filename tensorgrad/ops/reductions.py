"""Reductions: sums, extremes, statistics and cumulative operations over one or more axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import DtypeError
from tensorgrad.ops.complex_parts import imag, is_complex, real
from tensorgrad.ops.elementwise import (
    abs,
    equal,
    exp,
    hypot,
    not_equal,
    pow,
    ratio,
    sign,
    where,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.shaping import (
    Axis,
    broadcast_to,
    normalize_axes,
    normalize_axis,
    reshape,
)
from tensorgrad.ops.sums import least_squares, total
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "logsumexp", "max", "mean",
    "min", "norm", "std", "sum", "var",
]  # fmt: skip


def spread(g: Any, x_shape: tuple[int, ...], axis: tuple[int, ...], keepdims: bool) -> Any:
    """``g``, reduced over ``axis``, repeated along those axes to ``x_shape``."""
    if not keepdims:
        g = _with_axes(g, x_shape, axis)
    return broadcast_to(g, x_shape)


_SUM: Primitive = Primitive(
    "sum",
    total,
    {"x": spread},
    promotion="same",
    half_in_float32=True,
    complex=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(2, 3, 4), axis=1),
        lambda s: s(s.real(2, 3, 4), axis=(0, -1), keepdims=True),
        lambda s: s(s.real()),
        lambda s: s(s.real(0, 3), axis=0),
    ],
    primitive=_SUM,
    numpy="a axis= dtype= !out keepdims= !initial !where=True",
)
def sum(x: Any, /, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over ``axis`` (all axes if ``None``); of integers in 64 bits.

    dtype: convert to this dtype before adding; the result has it too, and wraps around in it.
    """
    attrs = {"axis": normalize_axes("sum", axis, x), "keepdims": keepdims}
    if dtype is None:
        return apply(_SUM, (x,), attrs)
    return of_dtype(lambda x: apply(_SUM, (x,), attrs), x, dtype)


def of_dtype(reduced: Any, x: Any, dtype: Any) -> Any:
    """``reduced(x)`` computed with elements of ``dtype``, and given in it."""
    wanted = dtypes.as_dtype(dtype)
    y = reduced(cast(x, wanted))
    return y if y.dtype == wanted else cast(y, wanted)


_CASES = [
    lambda s: s(s.real(3, 4)),
    lambda s: s(s.real(2, 3, 4), axis=1),
    lambda s: s(s.real(2, 3, 4), axis=-1, keepdims=True),
    lambda s: s(s.real(2, 3, 4), axis=(0, -1)),
    lambda s: s(s.real(3, 1), axis=1),
    lambda s: s(s.real()),
]


def _number(shape: tuple[int, ...], axis: tuple[int, ...]) -> int:
    """How many elements are reduced to one."""
    return math.prod(shape[a] for a in axis)


def _divided(total: Any, number: float) -> Any:
    if number > 0:
        return total / number
    with np.errstate(divide="ignore", invalid="ignore"):  # of no elements the mean is NaN
        return total / np.maximum(total.dtype.type(number), 0)


def _mean_value(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return _divided(total(xp, x, axis, keepdims), _number(x.shape, axis))


_MEAN: Primitive = Primitive(
    "mean",
    _mean_value,
    {
        "x": lambda g, x_shape, axis, keepdims: spread(
            g * (1.0 / (_number(x_shape, axis) or 1)), x_shape, axis, keepdims
        )
    },
    promotion="float",
    half_in_float32=True,
    complex=True,
)


@operation(cases=_CASES, primitive=_MEAN, numpy="a axis= dtype= !out keepdims= !where=True")
def mean(x: Any, /, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over ``axis``; of integers in the default real dtype, of nothing NaN.

    dtype: convert to this dtype, which has to be a floating one, before adding.
    """
    if dtype is not None:
        wanted = dtypes.as_dtype(dtype)
        if wanted not in dtypes.INEXACT:
            raise DtypeError(f"mean: the dtype of a mean must be a floating one; got {wanted}")
        x = cast(x, wanted)
    return apply(_MEAN, (x,), {"axis": normalize_axes("mean", axis, x), "keepdims": keepdims})


# --- spread about the mean ------------------------------------------------------------------------


def _var_value(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool, correction: float) -> Any:
    n = _number(x.shape, axis)
    d = x - _divided(total(xp, x, axis, True), n)
    d *= d
    return _divided(total(xp, d, axis, keepdims), n - correction)


def _std_value(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool, correction: float) -> Any:
    n = _number(x.shape, axis)
    if n <= correction:
        return xp.sqrt(_var_value(xp, x, axis, keepdims, correction))
    d = x - _divided(total(xp, x, axis, True), n)
    return length(xp, d, axis, keepdims) / math.sqrt(n - correction)


def length(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The root of the sum of squares, also where a square is outside the range of the numbers."""
    if xp is np or not x.size:
        with np.errstate(over="ignore", under="ignore"):
            squares = total(xp, x * x, axis, keepdims)
        least = most = squares
        if type(squares) is np.ndarray:  # one that is NaN says nothing about the others
            least = np.fmin.reduce(squares, axis=None, initial=1)
            most = np.fmax.reduce(squares, axis=None, initial=0)
        if not x.size or (least > least_squares(x.dtype) and most < math.inf) or most != most:
            return xp.sqrt(squares)
    if isinstance(xp, Namespace):
        return xp.root_of_squares([x], axis, keepdims)
    top = xp.abs(x).max(axis=axis, keepdims=True)
    top = xp.where((top > 0) & xp.isfinite(top), top, top.dtype.type(1))
    y = x / top
    y = top * xp.sqrt(total(xp, y * y, axis, True))
    return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in axis])


def _deviation(
    g: Any, x: Any, axis: tuple[int, ...], keepdims: bool, correction: float, factor: float
) -> Any:
    """``factor * g / (n - correction)``, and the distance from the mean."""
    n = _number(x.shape, axis) - correction
    g = g * (factor / n if n > 0 else math.nan)
    return spread(g, x.shape, axis, keepdims), x - mean(x, axis=axis, keepdims=True)


def _var_rule(g: Any, x: Any, axis: tuple[int, ...], keepdims: bool, correction: float) -> Any:
    share, d = _deviation(g, x, axis, keepdims, correction, 2.0)
    return share * d


def _std_rule(
    g: Any, x: Any, y: Any, axis: tuple[int, ...], keepdims: bool, correction: float
) -> Any:
    share, d = _deviation(g, x, axis, keepdims, correction, 1.0)
    return share * ratio(d, _with_axes(y, x.shape, axis))


def _with_axes(y: Any, x_shape: tuple[int, ...], axis: tuple[int, ...]) -> Any:
    """``y``, reduced over ``axis``, with these axes of size 1."""
    return reshape(y, tuple([1 if i in axis else n for i, n in enumerate(x_shape)]))


_VAR: Primitive = Primitive(
    "var",
    _var_value,
    {"x": _var_rule},
    promotion="float",
    half_in_float32=True,
)
_STD: Primitive = Primitive(
    "std",
    _std_value,
    {"x": _std_rule},
    promotion="float",
    half_in_float32=True,
)
_SPREAD_CASES = [
    lambda s: s(s.distinct(3, 4), correction=0),
    lambda s: s(s.distinct(2, 3, 4), axis=1, correction=1),
    lambda s: s(s.distinct(2, 3, 4), axis=(0, -1), correction=0.5, keepdims=True),
    lambda s: s(s.distinct(5), axis=0, correction=0),
]


def _moment(op: Primitive, x: Any, axis: Axis, correction: float, keepdims: bool) -> Tensor:
    axes = normalize_axes(op.name, axis, x)
    correction = number(op.name, "correction", correction)
    if is_complex(x):  # the mean square distance is that of the parts together
        re, im = (_moment(op, part(x), axis, correction, keepdims) for part in (real, imag))
        return re + im if op is _VAR else hypot(re, im)
    return apply(op, (x,), {"axis": axes, "keepdims": keepdims, "correction": correction})


@operation(
    cases=_SPREAD_CASES,
    primitive=_VAR,
    complex=True,
)
def var(
    x: Any,
    /,
    axis: Axis = None,
    *,
    correction: float = 0.0,
    keepdims: bool = False,
    ddof: float | None = None,
) -> Tensor:
    """The mean square distance from the mean; the sum is divided by ``n - correction``.

    correction: 0 for the variance of the numbers themselves, 1 for an unbiased estimate from a
        sample. The result is NaN or infinite where ``n - correction`` is not positive.
    ddof: NumPy's name for it.
    """
    return _moment(_VAR, x, axis, correction if ddof is None else ddof, keepdims)


@operation(
    cases=_SPREAD_CASES,
    primitive=_STD,
    complex=True,
)
def std(
    x: Any,
    /,
    axis: Axis = None,
    *,
    correction: float = 0.0,
    keepdims: bool = False,
    ddof: float | None = None,
) -> Tensor:
    """The square root of ``var``; the gradient is 0 where it is 0."""
    return _moment(_STD, x, axis, correction if ddof is None else ddof, keepdims)


# --- extremes -------------------------------------------------------------------------------------


def _share_value(xp: Any, x: Any, y: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not keepdims:
        y = y.reshape([1 if i in axis else n for i, n in enumerate(x.shape)])
    taken = x == y
    if xp is not np or np.isnan(y).any():
        taken |= xp.isnan(x) & xp.isnan(y)
    share = taken.astype(x.dtype)
    share /= xp.maximum(total(xp, share, axis, True), 1)
    return share


# The part of the gradient that each element gets: what was taken, and ties share evenly.
_SHARE: Primitive = Primitive(
    "share_of_extreme", _share_value, {"x": None, "y": None}, promotion="same", half_in_float32=True
)


def _extreme_rule(g: Any, x: Any, y: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    share = apply(_SHARE, (x, y), {"axis": axis, "keepdims": keepdims})
    return spread(g, x.shape, axis, keepdims) * share


def _explain_empty(shape: tuple[int, ...] = (), *, axis: tuple[int, ...], keepdims: bool) -> str:
    return f"there is no extreme of no elements: axes {axis} of the shape are empty"


def _extreme(name: str) -> Primitive:
    return Primitive(
        name,
        lambda xp, x, axis, keepdims: getattr(x, name)(axis=axis, keepdims=keepdims),
        {"x": _extreme_rule},
        promotion="same",
        half_in_float32=True,
        explain=_explain_empty,
    )


_MAX, _MIN = _extreme("max"), _extreme("min")
_EXTREME_CASES = [
    lambda s: s(s.distinct(3, 4)),
    lambda s: s(s.distinct(2, 3, 4), axis=1),
    lambda s: s(s.distinct(2, 3, 4), axis=(0, -1), keepdims=True),
    lambda s: s(s.distinct(3, 1), axis=1),
    lambda s: s(s.distinct()),
    lambda s: s(s.distinct(0, 3), axis=1),
]


@operation(
    cases=_EXTREME_CASES,
    torch="amax",
    primitive=_MAX,
    numpy="a axis= !out keepdims= !initial !where=True",
)
def max(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """The largest element over ``axis``; NaN if there is one. Ties share the gradient evenly.

    Raises ShapeError if there are no elements to choose from.
    """
    return apply(_MAX, (x,), {"axis": normalize_axes("max", axis, x), "keepdims": keepdims})


amax = max


@operation(
    cases=_EXTREME_CASES,
    torch="amin",
    primitive=_MIN,
    numpy="a axis= !out keepdims= !initial !where=True",
)
def min(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """The smallest element over ``axis``; NaN if there is one. Ties share the gradient evenly.

    Raises ShapeError if there are no elements to choose from.
    """
    return apply(_MIN, (x,), {"axis": normalize_axes("min", axis, x), "keepdims": keepdims})


amin = min


def _place_of_extreme(name: str) -> Primitive:
    def value(xp: Any, x: Any, axis: int | None, keepdims: bool) -> Any:
        return getattr(xp, name)(x, axis=axis, keepdims=keepdims)

    return Primitive(name, value, {"x": None}, promotion="same", half_in_float32=True)


_ARGMAX, _ARGMIN = _place_of_extreme("argmax"), _place_of_extreme("argmin")
_PLACE_CASES = [
    lambda s: s(s.distinct(3, 4)),
    lambda s: s(s.distinct(3, 4), axis=0),
    lambda s: s(s.distinct(2, 3, 4), axis=-1, keepdims=True),
    lambda s: s(s.ints(3, 4, high=3), axis=1),
    lambda s: s(s.distinct(0, 3), axis=1),
]


def _place(op: Primitive, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    place = None if axis is None else normalize_axis(op.name, axis, x)
    return apply(op, (x,), {"axis": place, "keepdims": keepdims})


@operation(
    cases=_PLACE_CASES,
    torch=None,
    gradient=False,
    primitive=_ARGMAX,
    numpy="a axis= !out keepdims=",
)
def argmax(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """Where the largest element is, the first of equal ones; in the flattened ``x`` if ``None``."""
    return _place(_ARGMAX, x, axis, keepdims)


@operation(
    cases=_PLACE_CASES,
    torch=None,
    gradient=False,
    primitive=_ARGMIN,
    numpy="a axis= !out keepdims=",
)
def argmin(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """Where the smallest element is, the first of equal ones.

    In the flattened ``x`` if ``axis`` is ``None``."""
    return _place(_ARGMIN, x, axis, keepdims)


# --- truth ----------------------------------------------------------------------------------------


def _truth_value(name: str) -> Primitive:
    return Primitive(
        name,
        lambda xp, x, axis, keepdims: getattr(xp, name)(x != 0, axis=axis, keepdims=keepdims),
        {"x": None},
        complex=True,
    )


_ALL, _ANY = _truth_value("all"), _truth_value("any")
_COUNT: Primitive = Primitive(
    "count_nonzero",
    lambda xp, x, axis, keepdims: (x != 0).sum(axis=axis, keepdims=keepdims),
    {"x": None},
    complex=True,
)
_TRUTH_CASES = [
    lambda s: s(s.bools(3, 4)),
    lambda s: s(s.bools(3, 4), axis=0),
    lambda s: s(s.ints(2, 3, 4, high=2), axis=(0, -1), keepdims=True),
    lambda s: s(s.bools(0, 3), axis=0),
]


@operation(
    cases=_TRUTH_CASES, gradient=False, primitive=_ALL, numpy="a axis= !out keepdims= !where=True"
)
def all(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Whether all elements over ``axis`` are true (not zero); of none they are."""
    return apply(_ALL, (x,), {"axis": normalize_axes("all", axis, x), "keepdims": keepdims})


@operation(
    cases=_TRUTH_CASES, gradient=False, primitive=_ANY, numpy="a axis= !out keepdims= !where=True"
)
def any(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Whether any element over ``axis`` is true (not zero); of none it is not."""
    return apply(_ANY, (x,), {"axis": normalize_axes("any", axis, x), "keepdims": keepdims})


@operation(
    cases=_TRUTH_CASES, torch=None, gradient=False, primitive=_COUNT, numpy="a axis= keepdims="
)
def count_nonzero(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """How many elements over ``axis`` are true (not zero)."""
    axes = normalize_axes("count_nonzero", axis, x)
    return apply(_COUNT, (x,), {"axis": axes, "keepdims": keepdims})


# --- logarithms of sums, norms --------------------------------------------------------------------


def _logsumexp_value(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not _number(x.shape, axis):
        return xp.full_like(total(xp, x, axis, keepdims), -math.inf)
    top = _finite_top(xp, x, axis)
    with np.errstate(divide="ignore"):
        y = xp.log(total(xp, xp.exp(x - top), axis, True)) + top
    if keepdims:
        return y
    return y.reshape([n for i, n in enumerate(x.shape) if i not in axis])


def _finite_top(xp: Any, x: Any, axis: tuple[int, ...]) -> Any:
    top = x.max(axis=axis, keepdims=True)
    return xp.where(xp.isfinite(top), top, top.dtype.type(0))  # -inf - -inf would be NaN


# Without a gradient: a shift changes nothing in the quotient below, whatever it depends on.
_TOP: Primitive = Primitive(
    "finite_top", _finite_top, {"x": None}, promotion="float", half_in_float32=True
)


def _logsumexp_rule(g: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    # Not exp(x - y): at 1e4 the rounding of y alone would change it by a factor.
    if not _number(x.shape, axis):
        return x * 0.0
    e = exp(x - apply(_TOP, (x,), {"axis": axis}))
    share = ratio(e, sum(e, axis=axis, keepdims=True))  # 0 of a sum of nothing, 1 of infinity
    return spread(g, x.shape, axis, keepdims) * share


_LOGSUMEXP: Primitive = Primitive(
    "logsumexp", _logsumexp_value, {"x": _logsumexp_rule}, promotion="float", half_in_float32=True
)


def _logsumexp_reference(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


@operation(cases=_CASES, reference=_logsumexp_reference, torch=None, primitive=_LOGSUMEXP)
def logsumexp(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` without overflow; -inf where all elements are -inf."""
    axes = normalize_axes("logsumexp", axis, x)
    return apply(_LOGSUMEXP, (x,), {"axis": axes, "keepdims": keepdims})


_NORM: Primitive = Primitive(
    "norm",
    length,
    {
        "x": lambda g, x, y, axis, keepdims: (
            spread(g, x.shape, axis, keepdims) * ratio(x, _with_axes(y, x.shape, axis))
        )
    },
    promotion="float",
    half_in_float32=True,
)


def _p_norm_value(xp: Any, x: Any, ord: float, axis: tuple[int, ...], keepdims: bool) -> Any:
    size = xp.abs(x)
    if not _number(x.shape, axis):
        with np.errstate(divide="ignore"):
            return size.sum(axis=axis, keepdims=keepdims) ** (1.0 / ord)
    # The powers of parts of the largest, or of multiples of the least, are in the range.
    scale = (size.max if ord > 0 else size.min)(axis=axis, keepdims=True)
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, scale.dtype.type(1))
    with np.errstate(divide="ignore", under="ignore", over="ignore"):
        y = scale * total(xp, (size / scale) ** ord, axis, True) ** (1.0 / ord)
    return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in axis])


def _p_norm_rule(g: Any, x: Any, y: Any, ord: float, axis: tuple[int, ...], keepdims: bool) -> Any:
    part = ratio(abs(x), _with_axes(y, x.shape, axis))
    none = equal(part, 0)  # there the slope is 0 or, of orders below 1, infinite
    slope = where(none, 0.0, sign(x) * pow(where(none, 1.0, part), ord - 1.0))
    return spread(g, x.shape, axis, keepdims) * slope


_P_NORM: Primitive = Primitive(
    "p_norm", _p_norm_value, {"x": _p_norm_rule}, promotion="float", half_in_float32=True
)


def _norm_reference(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    return np.linalg.vector_norm(
        x, axis=axis, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord
    )


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4, avoid=0.0), 1, axis=0),
        lambda s: s(s.real(2, 3, 4), 2, axis=-1, keepdims=True),
        lambda s: s(s.real(2, 3, 4), "fro", axis=(1, 2)),
        lambda s: s(s.distinct(3, 4) + 0.1, math.inf, axis=1),
        lambda s: s(s.distinct(3, 4) + 0.1, -math.inf, axis=1),
        lambda s: s(s.real(3, 4, avoid=0.0), 3, axis=1),
        lambda s: s(s.real(3, 4, avoid=0.0), 1.5),
        lambda s: s(s.real(3, avoid=0.0), 0),
        lambda s: s(s.real(0)),
    ],
    reference=_norm_reference,
    torch=None,
    primitive=_NORM,
    complex=True,
)
def norm(
    x: Any, /, ord: float | str | None = None, axis: Axis = None, *, keepdims: bool = False
) -> Tensor:
    """The norm of the vector of all elements over ``axis`` (all axes if ``None``).

    ord: p for ``sum(abs(x)**p) ** (1/p)``; 2 if ``None`` (or "fro", which means the same);
        infinity and minus infinity for the largest and smallest absolute value; 0 for the number
        of elements that are not 0.

    No square or power overflows or vanishes on the way. The gradient is 0 at the zero vector, and
    along an element that is 0. Raises ValueError for any other ``ord``.
    """
    axes = normalize_axes("norm", axis, x)
    if is_complex(x):
        x = abs(x)
    if ord is not None and not isinstance(ord, str):
        ord = number("norm", "ord", ord)
    if ord is None or ord == 2 or ord == "fro":
        return apply(_NORM, (x,), {"axis": axes, "keepdims": keepdims})
    if isinstance(ord, str) or ord != ord:
        raise ValueError(f'norm: ord must be a number, "fro" or None; got {ord!r}')
    if ord == 0:
        return sum(cast(not_equal(x, 0), mean(x).dtype), axis=axes, keepdims=keepdims)
    size = abs(x)
    if ord == math.inf:
        return max(size, axis=axes, keepdims=keepdims)
    if ord == -math.inf:
        return min(size, axis=axes, keepdims=keepdims)
    if ord == 1:
        return sum(size, axis=axes, keepdims=keepdims)
    return apply(_P_NORM, (x,), {"ord": float(ord), "axis": axes, "keepdims": keepdims})
