"""Products, and cumulative sums and products: each element with all that precede it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.reductions import of_dtype, spread
from tensorgrad.ops.shaping import (
    Axis,
    concat,
    flip,
    normalize_axes,
    normalize_axis,
    permute_dims,
    reshape,
    shape_of,
)
from tensorgrad.ops.sums import product, running
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["cumprod", "cumsum", "cumulative_prod", "cumulative_sum", "linear_recurrence", "prod"]


# --- the linear recurrence ------------------------------------------------------------------------


def _cut(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(start, stop))


def _shift_value(xp: Any, x: Any, axis: int, reverse: bool, fill: float) -> Any:
    y = xp.full(x.shape, fill, x.dtype)
    if reverse:
        y[_cut(axis, None, -1)] = x[_cut(axis, 1, None)]
    else:
        y[_cut(axis, 1, None)] = x[_cut(axis, None, -1)]
    return y


_SHIFT: Primitive = Primitive(
    "shift",
    _shift_value,
    {"x": lambda g, axis, reverse: _shifted(g, axis, not reverse)},
    moves=True,
)


def _shifted(x: Any, axis: int, reverse: bool = False, fill: float = 0.0) -> Any:
    """``x`` moved one place along ``axis`` (back if ``reverse``), with ``fill`` in the gap."""
    return apply(_SHIFT, (x,), {"axis": axis, "reverse": reverse, "fill": fill})


def _recurrence_value(xp: Any, a: Any, b: Any, axis: int, reverse: bool) -> Any:
    if isinstance(xp, Namespace):
        return xp.linear_recurrence(a, b, axis, reverse)
    a, b = xp.moveaxis(a, axis, 0), xp.moveaxis(b, axis, 0)
    y = xp.empty(b.shape, b.dtype)
    n = len(y)
    if not y.size:
        return xp.moveaxis(y, 0, axis)
    steps = range(n - 1, -1, -1) if reverse else range(n)
    if xp is np and y.size < 8 * n:
        # Few numbers in each step: Python's own arithmetic is faster than NumPy's on them.
        rows = y.reshape(n, -1)
        columns = zip(a.reshape(n, -1).T.tolist(), b.reshape(n, -1).T.tolist(), strict=True)
        for column, (factors, found) in enumerate(columns):
            previous = 0.0
            factors[steps[0]] = 0.0  # what it is must not matter, were it infinite
            for i in steps:
                found[i] = previous = found[i] + factors[i] * previous
            rows[:, column] = found
    else:
        before = None
        for i in steps:
            y[i] = b[i] if before is None else a[i] * before + b[i]
            before = y[i]
    return xp.moveaxis(y, 0, axis)


def _adjoint(g: Any, a: Any, axis: int, reverse: bool) -> Any:
    return linear_recurrence(_shifted(a, axis, not reverse), g, axis=axis, reverse=not reverse)


_RECURRENCE: Primitive = Primitive(
    "linear_recurrence",
    _recurrence_value,
    {
        "a": lambda g, a, y, axis, reverse: (
            _adjoint(g, a, axis, reverse) * _shifted(y, axis, reverse)
        ),
        "b": lambda g, a, axis, reverse: _adjoint(g, a, axis, reverse),
    },
    promotion="same",
    half_in_float32=True,
    complex=True,
)


def _recurrence_reference(a: Any, b: Any, axis: int = 0, reverse: bool = False) -> Any:
    a, b = (np.moveaxis(t, axis, 0)[:: -1 if reverse else 1] for t in (a, b))
    s = [b[0]]
    for i in range(1, len(b)):
        s.append(b[i] + a[i] * s[-1])
    return np.moveaxis(np.stack(s)[:: -1 if reverse else 1], 0, axis)


@operation(
    cases=[
        lambda s: s(s.real(5), s.real(5)),
        lambda s: s(s.real(3, 4), s.real(3, 4), axis=1),
        lambda s: s(s.real(4, 9), s.real(4, 9), axis=0, reverse=True),
        lambda s: s(s.real(1, 3), s.real(1, 3)),
    ],
    reference=_recurrence_reference,
    torch=None,
    method=False,
    primitive=_RECURRENCE,
)
def linear_recurrence(a: Any, b: Any, /, *, axis: int = 0, reverse: bool = False) -> Tensor:
    """``s[i] = b[i] + a[i] * s[i - 1]`` along ``axis``, from ``s[0] = b[0]``; or from the end.

    a, b: of one shape; the first element of ``a`` (the last if ``reverse``) has no effect.
    """
    if shape_of(a) != shape_of(b):
        raise ShapeError(
            f"linear_recurrence: a and b must have the same shape; got {shape_of(a)} and "
            f"{shape_of(b)}"
        )
    place = normalize_axis("linear_recurrence", axis, b)
    return apply(_RECURRENCE, (a, b), {"axis": place, "reverse": reverse})


# --- cumulative -----------------------------------------------------------------------------------


_CUMSUM: Primitive = Primitive(
    "cumulative_sum",
    lambda xp, x, axis: running(xp, "cumsum", x, axis),
    {"x": lambda g, axis: flip(apply(_CUMSUM, (flip(g, axis=axis),), {"axis": axis}), axis=axis)},
    promotion="same",
    half_in_float32=True,
    complex=True,
)
# dx[i] = (product of what precedes x[i]) * (g[i] + x[i+1] * (g[i+1] + x[i+2] * ...)): there is no
# division, so zeros among the factors do no harm.
_CUMPROD: Primitive = Primitive(
    "cumulative_prod",
    lambda xp, x, axis: running(xp, "cumprod", x, axis),
    {
        "x": lambda g, x, y, axis: (
            _shifted(y, axis, fill=1.0)
            * linear_recurrence(_shifted(x, axis, True), g, axis=axis, reverse=True)
        )
    },
    promotion="same",
    half_in_float32=True,
    complex=True,
)
_CUMULATIVE_CASES = [
    lambda s: s(s.real(4)),
    lambda s: s(s.real(3, 4), axis=0),
    lambda s: s(s.real(2, 3, 4), axis=-1),
    lambda s: s(s.real(2, 3), axis=1, include_initial=True),
    lambda s: s(s.real(2, 0), axis=1),
    lambda s: s(np.array([[2.0, 0.0, 3.0, 0.0, -1.0], [0.5, 2.0, 0.0, 1.0, 4.0]]), axis=1),
]


def _cumulative(
    op: Primitive, x: Any, axis: int | None, dtype: Any, include_initial: bool, initial: int
) -> Any:
    if axis is None:
        if len(shape_of(x)) != 1:
            raise ShapeError(
                f"{op.name}: an axis must be given unless x is a vector; got shape {shape_of(x)}"
            )
        axis = 0
    place = normalize_axis(op.name, axis, x)
    if dtype is None:
        y = apply(op, (x,), {"axis": place})
    else:
        y = of_dtype(lambda x: apply(op, (x,), {"axis": place}), x, dtype)
    if include_initial:
        shape = list(shape_of(y))
        shape[place] = 1
        y = concat([beside(y, np.full(shape, initial, y.dtype)), y], axis=place)
    return y


@operation(
    cases=_CUMULATIVE_CASES,
    torch=None,
    primitive=_CUMSUM,
    numpy="x axis= dtype= !out include_initial=",
)
def cumulative_sum(
    x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """At each place along ``axis`` the sum of the elements up to it; of integers in 64 bits.

    axis: may be left out for a vector. dtype: convert to this dtype before adding.
    include_initial: begin with a 0, which makes the axis one longer.
    """
    return _cumulative(_CUMSUM, x, axis, dtype, include_initial, 0)


cumsum = cumulative_sum


@operation(
    cases=_CUMULATIVE_CASES,
    torch=None,
    primitive=_CUMPROD,
    numpy="x axis= dtype= !out include_initial=",
)
def cumulative_prod(
    x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """At each place along ``axis`` the product of the elements up to it.

    The arguments are those of ``cumulative_sum``; ``include_initial`` begins with a 1.
    """
    return _cumulative(_CUMPROD, x, axis, dtype, include_initial, 1)


cumprod = cumulative_prod


# --- the product ----------------------------------------------------------------------------------


def _prod_rule(g: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """``g`` times the product of all other elements, from those before and those behind."""
    rest = tuple(i for i in range(x.ndim) if i not in axis)
    order = rest + axis
    lined = permute_dims(x, order)
    row = reshape(lined, (*lined.shape[: len(rest)], math.prod(lined.shape[len(rest) :])))
    last = len(rest)
    before = _shifted(cumulative_prod(row, axis=last), last, fill=1.0)
    behind = _shifted(
        flip(cumulative_prod(flip(row, axis=last), axis=last), axis=last), last, True, fill=1.0
    )
    others = reshape(before * behind, lined.shape)
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    return spread(g, x.shape, axis, keepdims) * permute_dims(others, back)


_PROD: Primitive = Primitive(
    "prod",
    product,
    {"x": _prod_rule},
    promotion="same",
    half_in_float32=True,
    complex=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(2, 3, 4), axis=1),
        lambda s: s(s.real(2, 3, 4), axis=(0, -1), keepdims=True),
        lambda s: s(np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 2.0], [1.0, 2.0, -3.0]]), axis=1),
        lambda s: s(s.real()),
        lambda s: s(s.real(0, 3), axis=0),
    ],
    torch=None,
    primitive=_PROD,
    numpy="a axis= dtype= !out keepdims= !initial !where=True",
)
def prod(x: Any, /, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product over ``axis`` (all axes if ``None``); of integers in 64 bits.

    dtype: convert to this dtype before multiplying; the result has it too. Zeros have their right
        gradient.
    """
    attrs = {"axis": normalize_axes("prod", axis, x), "keepdims": keepdims}
    if dtype is None:
        return apply(_PROD, (x,), attrs)
    return of_dtype(lambda x: apply(_PROD, (x,), attrs), x, dtype)
