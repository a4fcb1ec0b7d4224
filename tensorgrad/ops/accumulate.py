"""Running extremes and log-sum-exps: at each place what all elements up to it come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.ops.elementwise import logaddexp, positive
from tensorgrad.ops.indexing import gathered
from tensorgrad.ops.shaping import along, concat, normalize_axis, shape_of, sliced
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["cummax", "cummin", "logcumsumexp"]


def _running(xp: Any, name: str, x: Any, axis: int) -> Any:
    """``name``, as "maximum", of all elements up to each place: of pieces that double in length."""
    function = getattr(xp, name)
    if xp is np:
        return function.accumulate(x, axis)
    step = 1
    while step < x.shape[axis]:
        first, before, behind = (
            x[(*[slice(None)] * axis, slice(*cut))] for cut in ((step,), (-step,), (step, None))
        )
        x = xp.concatenate([first, function(behind, before)], axis=axis)
        step *= 2
    return x


def _places_value(xp: Any, x: Any, axis: int, largest: bool) -> Any:
    """Where the running extreme was met last; a NaN is the extreme from where it stands."""
    n = x.shape[axis]
    found = _running(xp, "maximum" if largest else "minimum", x, axis)
    shape = [1] * x.ndim
    shape[axis] = n
    places = xp.arange(n).reshape(shape)
    met = (x == found) | (x != x)
    return _running(xp, "maximum", xp.where(met, places, 0), axis)


_PLACES = Primitive("running_places", _places_value, {"x": None}, half_in_float32=True)


def _with_places(name: str, x: Any, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    place = normalize_axis(name, axis, x)
    places = apply(_PLACES, (x,), {"axis": place, "largest": largest})
    return gathered(x, places, place), places


def _reference(name: str) -> Callable[..., Any]:
    def extremes(x: Any, axis: int) -> Any:
        values = getattr(np, name).accumulate(x, axis)
        places = np.zeros(x.shape, np.int64)
        for index in np.ndindex(*x.shape):
            row = [*index]
            row[axis] = slice(None, index[axis] + 1)
            places[index] = np.flatnonzero(x[tuple(row)] == values[index])[-1]
        return values, places

    return extremes


_CASES = [
    lambda s: s(s.distinct(5), 0),
    lambda s: s(s.distinct(3, 4), axis=1),
    lambda s: s(s.distinct(2, 3, 2), axis=-2),
    lambda s: s(s.distinct(2, 0), axis=1),
]


@operation(cases=_CASES, reference=_reference("maximum"), torch=None)
def cummax(x: Any, /, axis: int) -> tuple[Tensor, Tensor]:
    """At each place along ``axis`` the largest of the elements up to it, and where that is.

    Of equal ones the last counts, and gets the gradient; NaN is the largest number.
    """
    return _with_places("cummax", x, axis, True)


@operation(cases=_CASES, reference=_reference("minimum"), torch=None)
def cummin(x: Any, /, axis: int) -> tuple[Tensor, Tensor]:
    """At each place along ``axis`` the smallest of the elements up to it, and where that is.

    Of equal ones the last counts, and gets the gradient; from a NaN on all are NaN.
    """
    return _with_places("cummin", x, axis, False)


@operation(
    cases=[
        lambda s: s(s.real(5), 0),
        lambda s: s(s.real(3, 4), axis=1),
        lambda s: s(s.real(2, 3, 2), axis=-2),
        lambda s: s(s.real(2, 0), axis=1),
    ],
    reference=lambda x, axis: np.logaddexp.accumulate(x, axis),
    torch=None,
    complex=False,
)
def logcumsumexp(x: Any, /, axis: int) -> Tensor:
    """At each place along ``axis`` the logarithm of the sum of the exponentials up to it.

    Computed by ``logaddexp`` of pieces that double in length, so nothing overflows.
    """
    place = normalize_axis("logcumsumexp", axis, x)
    n, step = shape_of(x)[place], 1
    y = positive(x)
    while step < n:
        before, behind = (
            sliced(y, along(place, cut)) for cut in ((None, -step, None), (step, None, None))
        )
        first = sliced(y, along(place, (None, step, None)))
        y = concat([first, logaddexp(behind, before)], axis=place)
        step *= 2
    return y
