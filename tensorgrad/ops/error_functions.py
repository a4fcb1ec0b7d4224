"""The error function's relatives: complement, scaled and inverse ones, the normal distribution.

All rest on two approximations, of ``exp(x**2) erfc(x)`` and of the inverse of ``erfc`` by the root
of its logarithm; an exponential of ``x**2`` is taken of its rounding error, too, so results stay
right to a few units in the last place where they are tiny. ``tests/ops/test_special_values.py``
has the bounds and measures them.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from typing import Any

from tensorgrad.ops import special_coefficients as of
from tensorgrad.ops.elementwise import exp
from tensorgrad.ops.table import elementwise
from tensorgrad.ops.wide import by_cases, in_float64, in_two, polynomial
from tensorgrad.tape import Primitive, apply

__all__ = ["erfc", "erfcinv", "erfcx", "erfinv", "log_ndtr", "ndtr", "ndtri"]

_SPECIAL: dict[str, Any] = {"namespace": "special", "method": False}
_ROOT_PI = math.sqrt(math.pi)
_ROOT_2 = math.sqrt(2.0)
#: from which on ``1 - erf(x)`` loses bits
_NEAR = 0.5


def _exp_of_square(xp: Any, x: Any, factor: float) -> Any:
    """``exp(factor * x**2)``, right to 2 ulp for any size of the exponent."""
    x = xp.minimum(xp.abs(x), 64.0)  # beyond, it is 0 or infinite
    high, low = in_two(xp, x)
    return xp.exp(high * high * factor) * xp.exp(low * (x + high) * factor)


def _erf_near(x: Any) -> Any:
    """The error function for ``|x| <= 0.5``."""
    return x * polynomial(of.ERF_NEAR, x * x)


def scaled_erfc(xp: Any, x: Any) -> Any:
    """``exp(x**2) erfc(x)`` for ``x >= 0``, and a little below."""
    t = xp.minimum(x, 1e18)
    return polynomial(of.ERFCX, (t - 4.0) / (t + 4.0)) / (1.0 + 2.0 * x)


def _erfc(xp: Any, x: Any) -> Any:
    def near(x: Any) -> Any:
        return 1.0 - _erf_near(x)

    def far(x: Any) -> Any:
        y = _exp_of_square(xp, x, -1.0) * scaled_erfc(xp, xp.abs(x))
        return xp.where(x < 0, 2.0 - y, y)

    return by_cases(xp, (x,), [(xp.abs(x) < _NEAR, near)], far)


def _erfcx(xp: Any, x: Any) -> Any:
    def mirrored(x: Any) -> Any:
        return 2.0 * _exp_of_square(xp, x, 1.0) - scaled_erfc(xp, xp.abs(x))

    return by_cases(xp, (x,), [(x < 0, mirrored)], lambda x: scaled_erfc(xp, x))


def _ndtr(xp: Any, x: Any) -> Any:
    def near(x: Any) -> Any:
        return 0.5 + 0.5 * _erf_near(x / _ROOT_2)

    def far(x: Any) -> Any:
        y = _exp_of_square(xp, x, -0.5) * scaled_erfc(xp, xp.abs(x) / _ROOT_2) * 0.5
        return xp.where(x > 0, 1.0 - y, y)

    return by_cases(xp, (x,), [(xp.abs(x) < _NEAR * _ROOT_2, near)], far)


def _log_ndtr(xp: Any, x: Any) -> Any:
    def below(x: Any) -> Any:
        return xp.log(scaled_erfc(xp, xp.abs(x) / _ROOT_2) * 0.5) - x * x * 0.5

    return by_cases(xp, (x,), [(x < -1, below)], lambda x: xp.log1p(-_ndtr(xp, -x)))


def _erfcx_slope(xp: Any, x: Any) -> Any:
    def mirrored(x: Any) -> Any:
        return 2.0 * x * _erfcx(xp, x) - 2.0 / _ROOT_PI

    def right(x: Any) -> Any:
        t, from_1 = xp.minimum(x, 1e18), 1.0 + x
        return polynomial(of.ERFCX_SLOPE, (t - 4.0) / (t + 4.0)) / from_1 / -from_1

    return by_cases(xp, (x,), [(x < 0, mirrored)], right)


_ERFCX_SLOPE = Primitive(  # by the formula it would be a difference of nearly equal numbers
    "erfcx_slope",
    in_float64(_erfcx_slope),
    {"x": lambda g, x, y: g * 2.0 * (erfcx(x) + x * y)},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


def _quotient(above: Any, below: Any, x: Any) -> Any:
    return polynomial(above, x) / polynomial(below, x)


def _inverse_of_tail(xp: Any, w: Any) -> Any:
    """x with ``erfc(x) = exp(-w**2)``, for w from 1.15 on."""
    inside = xp.minimum(w, 32.0)
    found = by_cases(
        xp,
        (inside,),
        [
            (inside < 3, lambda w: _quotient(of.ERFCINV_1, of.ERFCINV_1_OVER, w)),
            (inside < 6.1, lambda w: _quotient(of.ERFCINV_2, of.ERFCINV_2_OVER, w)),
        ],
        lambda w: _quotient(of.ERFCINV_3, of.ERFCINV_3_OVER, w),
    )
    return xp.where(w == math.inf, math.inf, found)


def _erfinv_near(y: Any) -> Any:
    """The inverse for ``|y| <= 0.75``."""
    return y * polynomial(of.ERFINV_NEAR, y * y)


def _erfinv(xp: Any, y: Any) -> Any:
    def far(y: Any) -> Any:
        x = _inverse_of_tail(xp, xp.sqrt(-xp.log1p(-xp.abs(y))))
        return xp.where(y < 0, -x, x)

    return by_cases(xp, (y,), [(xp.abs(y) < 0.75, _erfinv_near)], far)


def _erfcinv(xp: Any, y: Any) -> Any:
    def far(y: Any) -> Any:
        x = _inverse_of_tail(xp, xp.sqrt(-xp.log(xp.minimum(y, 2.0 - y))))
        return xp.where(y > 1, -x, x)

    return by_cases(xp, (y,), [(xp.abs(1.0 - y) < 0.75, lambda y: _erfinv_near(1.0 - y))], far)


def _ndtri(xp: Any, y: Any) -> Any:
    def near(y: Any) -> Any:
        return _erfinv_near(2.0 * (y - 0.5)) * _ROOT_2

    def far(y: Any) -> Any:
        x = _inverse_of_tail(xp, xp.sqrt(-xp.log(2.0 * xp.minimum(y, 1.0 - y)))) * _ROOT_2
        return xp.where(y < 0.5, -x, x)

    return by_cases(xp, (y,), [(xp.abs(y - 0.5) < 0.375, near)], far)


erfc = elementwise(
    "erfc",
    in_float64(_erfc),
    lambda g, x: g * (-2.0 / _ROOT_PI) * exp(-(x * x)),
    "The complement ``1 - erf(x)`` of the error function, accurate where it is tiny.",
    reference="scipy.special.erfc",
    torch="special.erfc",
    **_SPECIAL,
)
erfcx = elementwise(
    "erfcx",
    in_float64(_erfcx),
    lambda g, x: g * apply(_ERFCX_SLOPE, (x,)),
    "The scaled complement ``exp(x**2) erfc(x)``; about ``1 / (x sqrt(pi))`` for large ``x``.",
    reference="scipy.special.erfcx",
    torch="special.erfcx",
    **_SPECIAL,
)
erfinv = elementwise(
    "erfinv",
    in_float64(_erfinv),
    lambda g, y: g * (_ROOT_PI / 2) * exp(y * y),
    "The inverse of ``erf``: infinite at -1 and 1, NaN beyond.",
    low=-0.9,
    high=0.9,
    reference="scipy.special.erfinv",
    torch="special.erfinv",
    **_SPECIAL,
)
erfcinv = elementwise(
    "erfcinv",
    in_float64(_erfcinv),
    lambda g, y: g * (-_ROOT_PI / 2) * exp(y * y),
    "The inverse of ``erfc``: infinite at 0, minus infinity at 2, NaN beyond.",
    low=0.1,
    high=1.9,
    reference="scipy.special.erfcinv",
    torch=None,
    **_SPECIAL,
)
ndtr = elementwise(
    "ndtr",
    in_float64(_ndtr),
    lambda g, x: g * (1.0 / math.sqrt(2.0 * math.pi)) * exp(x * x * -0.5),
    "The standard normal distribution: the part of it below ``x``.",
    reference="scipy.special.ndtr",
    torch="special.ndtr",
    **_SPECIAL,
)
ndtri = elementwise(
    "ndtri",
    in_float64(_ndtri),
    lambda g, y: g * math.sqrt(2.0 * math.pi) * exp(y * y * 0.5),
    "The inverse of ``ndtr``: minus infinity at 0, infinity at 1, NaN beyond.",
    low=0.05,
    high=0.95,
    reference="scipy.special.ndtri",
    torch="special.ndtri",
    **_SPECIAL,
)
log_ndtr = elementwise(
    "log_ndtr",
    in_float64(_log_ndtr),
    lambda g, x: g * math.sqrt(2.0 / math.pi) / erfcx(x * (-1.0 / _ROOT_2)),
    "The logarithm of ``ndtr``, also where that would underflow.",
    reference="scipy.special.log_ndtr",
    torch="special.log_ndtr",
    **_SPECIAL,
)
