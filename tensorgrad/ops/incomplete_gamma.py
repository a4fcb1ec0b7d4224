"""The incomplete gamma functions, regularized, with gradients in both arguments.

Temme's uniform expansion where both arguments are large and close, else the power series or the
continued fraction of Legendre, each with a fixed number of terms (NIST Digital Library of
Mathematical Functions, 8.7, 8.9, 8.12). ``tests/ops/test_special_values.py`` has the bounds of the
errors and measures them.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tensorgrad.errors import GradientError
from tensorgrad.ops.elementwise import log
from tensorgrad.ops.error_functions import scaled_erfc
from tensorgrad.ops.fast_paths import binary
from tensorgrad.ops.gamma_functions import (
    correction,
    digamma,
    digamma_of_positive,
    gamma_value,
    gammaln_from_1_to_2,
    hurwitz,
    polygamma,
)
from tensorgrad.ops.table import elementwise2
from tensorgrad.ops.wide import by_cases, in_float64, polynomial
from tensorgrad.tape import Primitive

__all__ = ["gammainc", "gammaincc", "igamma", "igammac"]

_SPECIAL: dict[str, Any] = {"namespace": "special", "method": False}
#: Temme's expansion is for a above, and x within this part of a; its powers of 1 / a, and of eta
_LARGE, _CLOSE, _ORDERS, _POWERS = 25.0, 0.4, 13, 20
#: how far the scaled erfc goes on below 0, above the 3 steps of differences in a
_BEYOND = -0.05
#: terms of the series, levels of the continued fraction, terms of the series for small x
_TERMS, _LEVELS, _FEW = 84, 112, 24
#: up to which x slopes in a are sums, and of how many terms
_SUMMED, _SLOPE_TERMS = 40.0, 160


# --- the two functions ----------------------------------------------------------------------------


def _excess(xp: Any, mu: Any) -> Any:
    """``mu - log(1 + mu)``, without the cancellation near 0."""

    def near(mu: Any) -> Any:
        s = mu / (2.0 + mu)
        odd = tuple(2.0 / (2 * k + 3) for k in range(14))
        return mu * s - s * s * s * polynomial(odd, s * s)

    return by_cases(xp, (mu,), [(xp.abs(mu) < 0.45, near)], lambda mu: mu - xp.log1p(mu))


def _power(xp: Any, a: Any, x: Any) -> Any:
    """``x**a exp(-x) / gamma(a + 1)``."""

    def large(a: Any, x: Any) -> Any:
        exponent = a * _excess(xp, (x - a) / a) + correction(a)
        return xp.exp(-exponent) / xp.sqrt(2.0 * math.pi * a)

    def small(a: Any, x: Any) -> Any:
        x = xp.minimum(x, 1000.0)  # where it is 0
        return xp.power(x, a) * xp.exp(-x) / gamma_value(xp, a + 1.0)

    return by_cases(xp, (a, x), [(a < 10, small)], large)


def _series(a: Any, x: Any) -> Any:
    """P over ``_power``."""
    term = total = a * 0.0 + 1.0
    for n in range(1, _TERMS):
        term = term * (x / (a + float(n)))
        total = total + term
    return total


def _fraction(a: Any, x: Any) -> Any:
    """Q over ``_power`` and a."""
    levels = _LEVELS
    if type(x) is np.ndarray:  # it converges the sooner the larger x is
        levels = min(levels, 24 + int(_LEVELS / x.min()))
    y = x + (2.0 * levels + 1.0) - a
    for n in range(levels, 0, -1):
        y = x + (2.0 * n - 1.0) - a - float(n) * (float(n) - a) / y
    return 1.0 / y


@cache
def _expansion() -> tuple[tuple[float, ...], ...]:
    """The coefficients of Temme's expansion: of each power of 1 / a a polynomial in eta.

    ``mu = lambda - 1`` as a series in eta follows from ``mu' mu = eta (1 + mu)``. From
    ``C_0 = 1 / mu - 1 / eta`` on each is ``C_k = C_{k-1}' / eta + c / mu``, with the c for which it
    has no pole at 0.
    """
    count = _POWERS + 2 * _ORDERS + 3
    mu = np.zeros(count + 2)  # mu[n] is the coefficient of eta**n
    mu[1] = 1.0
    for n in range(2, count + 2):
        rest = sum(k * mu[k] * mu[n + 1 - k] for k in range(2, n))
        mu[n] = (mu[n - 1] - rest) / (n + 1)
    inverse = np.zeros(count)  # of mu / eta
    inverse[0] = 1.0
    for n in range(1, count):
        inverse[n] = -sum(mu[k + 1] * inverse[n - k] for k in range(1, n + 1))
    current, found = inverse[1:], []
    for _ in range(_ORDERS):
        found.append(tuple(current[:_POWERS].tolist()))
        slope = current[1:] * np.arange(1, current.size)
        current = slope[1:] - slope[0] * inverse[1 : slope.size]
    return tuple(found)


def _temme(xp: Any, a: Any, x: Any, upper: Any) -> Any:
    """P, or where ``upper`` says so Q, over ``_power``, for large a and close x.

    Differences in a go a little beyond x, where it has to stay smooth.
    """
    mu = (x - a) / a
    eta = xp.sqrt(2.0 * _excess(xp, mu)) * xp.sign(mu)
    total = polynomial(_expansion()[-1], eta)
    for coefficients in _expansion()[-2::-1]:
        total = total / a + polynomial(coefficients, eta)
    sign = xp.where(upper, 1.0, -1.0)
    half = scaled_erfc(xp, xp.maximum(eta * sign * xp.sqrt(a * 0.5), _BEYOND))
    return xp.exp(correction(a)) * (xp.sqrt(a * (0.5 * math.pi)) * half + sign * total)


def _ratio(xp: Any, a: Any, x: Any, upper: Any) -> Any:
    """P, or where ``upper`` says so Q, over ``_power``: the smaller of the two."""
    close = (a > _LARGE) & (xp.abs(x - a) < _CLOSE * a)
    return by_cases(
        xp,
        (a, x, upper),
        [
            (close, lambda a, x, upper: _temme(xp, a, x, upper)),
            (upper, lambda a, x, upper: a * _fraction(a, x)),
        ],
        lambda a, x, upper: _series(a, x),
    )


def _near_0(xp: Any, a: Any, x: Any) -> Any:
    """Q for x below 1.1 and a below 1."""
    term, total = a * 0.0 + 1.0, a * 0.0
    for n in range(1, _FEW):
        term = term * (x * (-1.0 / n))
        total = total + term / (a + float(n))
    logarithm = a * xp.log(x) - gammaln_from_1_to_2(a)
    return -xp.expm1(logarithm) - a * xp.exp(logarithm) * total


def _has_value(a: Any, x: Any) -> Any:
    """Whether neither is negative, nor both 0 or infinite."""
    neither = ((x == 0) & (a == 0)) | ((x == math.inf) & (a == math.inf))
    return (a >= 0) & (x >= 0) & ~neither


def _edges(xp: Any, a: Any, x: Any, y: Any, upper: bool) -> Any:
    """``y``, and what holds at 0, at infinity and below 0."""
    at_0, at_infinity = (1.0, 0.0) if upper else (0.0, 1.0)
    y = xp.where(x == 0, at_0, xp.where((x == math.inf) | (a == 0), at_infinity, y))
    y = xp.where(a == math.inf, at_0, y)
    return xp.where(_has_value(a, x), y, math.nan)


def _is_upper(a: Any, x: Any) -> Any:
    """Whether Q is computed, and P from it."""
    return (x > a) & (x > 1.1)


def _lower(xp: Any, a: Any, x: Any) -> Any:
    upper = _is_upper(a, x)
    y = _power(xp, a, x) * _ratio(xp, a, x, upper)
    return _edges(xp, a, x, xp.where(upper, 1.0 - y, y), False)


def _upper(xp: Any, a: Any, x: Any) -> Any:
    def elsewhere(a: Any, x: Any) -> Any:
        upper = _is_upper(a, x)
        y = _power(xp, a, x) * _ratio(xp, a, x, upper)
        return xp.where(upper, y, 1.0 - y)

    bound = xp.where(x < 0.5, -0.4 / xp.log(xp.minimum(x, 0.9)), 0.75 * x)
    near = [((x < 1.1) & (a < bound), lambda a, x: _near_0(xp, a, x))]
    return _edges(xp, a, x, by_cases(xp, (a, x), near, elsewhere), True)


# --- slopes ---------------------------------------------------------------------------------------


def _density(xp: Any, a: Any, x: Any) -> Any:
    """The slope of P in x: ``x**(a - 1) exp(-x) / gamma(a)``."""

    def at_0(a: Any, x: Any) -> Any:
        return xp.where(a > 1, 0.0, xp.where(a == 1, 1.0, math.inf))

    y = by_cases(xp, (a, x), [(x == 0, at_0)], lambda a, x: _power(xp, a, x) * a / x)
    y = xp.where((x == math.inf) | (a == 0) | (a == math.inf), 0.0, y)
    return xp.where(_has_value(a, x), y, math.nan)


_DIFFERENCES = {
    1: (0.0, 3 / 4, -3 / 20, 1 / 60),
    2: (-49 / 18, 3 / 2, -3 / 20, 1 / 90),
}


def _differences(f: Callable[[Any], Any], h: Any, order: int) -> Any:
    """The first or second derivative at 0 by seven points; the error is of the order h**6."""
    odd = order % 2
    middle, *sides = _DIFFERENCES[order]
    total = f(h * 0.0) * middle
    for k, weight in enumerate(sides, 1):
        ahead, behind = f(h * float(k)), f(h * float(-k))
        total = total + (ahead - behind if odd else ahead + behind) * weight
    return total / h if odd else total / (h * h)


def _by_terms(xp: Any, a: Any, x: Any, order: int) -> Any:
    """The derivatives in a of the terms of P: ``x**(a + n) exp(-x) / gamma(a + n + 1)``."""
    logarithm = xp.log(x)
    term, total = _power(xp, a, x), a * 0.0
    psi, slope = digamma_of_positive(xp, a + 1.0), hurwitz(xp, 2.0, a + 1.0)
    for n in range(1, _SLOPE_TERMS):
        rest = logarithm - psi
        total = total + term * (rest if order == 1 else rest * rest - slope)
        inverse = 1.0 / (a + float(n))
        psi, slope = psi + inverse, slope - inverse * inverse
        term = term * (x * inverse)
    return total


def _by_differences(xp: Any, a: Any, x: Any, order: int) -> Any:
    """Of what P or Q, the smaller one, is beside ``_power``, which hardly bends."""

    step = 0.02 * xp.sqrt(xp.maximum(a, 1.0))
    upper = x > a
    y = _ratio(xp, a, x, upper)
    rest = xp.log(x) - digamma_of_positive(xp, a + 1.0)

    def moved(h: Any) -> Any:
        return _ratio(xp, a + h, x, upper)

    first = _differences(moved, step, 1)
    if order == 1:
        found = rest * y + first
    else:
        bend = rest * rest - hurwitz(xp, 2.0, a + 1.0)
        found = bend * y + 2.0 * rest * first + _differences(moved, step, 2)
    return _power(xp, a, x) * xp.where(upper, -found, found)


def _slope_value(xp: Any, a: Any, x: Any, order: int) -> Any:
    """The first or second derivative of P in a."""
    y = by_cases(
        xp,
        (a, x),
        [(x <= _SUMMED, lambda a, x: _by_terms(xp, a, x, order))],
        lambda a, x: _by_differences(xp, a, x, order),
    )
    y = xp.where((x == 0) | (x == math.inf) | (a == math.inf), 0.0, y)
    return xp.where(_has_value(a, x), y, math.nan)


def _no_third(g: Any) -> Any:
    raise GradientError("gammainc: there is no third derivative in a")


def _in_a(order: int, rule: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """The derivative of P in a of this order, as a function of a and x."""

    def value(xp: Any, a: Any, x: Any) -> Any:
        return _slope_value(xp, a, x, order)

    rules = {"a": rule, "x": lambda g, a, x: g * _bend(a, x, order)}
    op = Primitive(
        f"gammainc_slope_{order}",
        in_float64(value),
        rules,
        promotion="float",
        half_in_float32=True,
        elementwise=True,
    )
    return binary(op)


def _bend(a: Any, x: Any, order: int) -> Any:
    """The slope in x of the derivative in a: the density's derivative in a."""
    rest = log(x) - digamma(a)
    factor = rest if order == 1 else rest * rest - polygamma(1, a)
    return density(a, x) * factor


_slope_2 = _in_a(2, _no_third)
_slope_1 = _in_a(1, lambda g, a, x: g * _slope_2(a, x))
density = binary(
    Primitive(
        "gamma_density",
        in_float64(_density),
        {
            "a": lambda g, a, x, y: g * y * (log(x) - digamma(a)),
            "x": lambda g, a, x, y: g * y * ((a - 1.0) / x - 1.0),
        },
        promotion="float",
        half_in_float32=True,
        elementwise=True,
    )
)
_BOTH: dict[str, Any] = {
    "promotion": "float",
    "first": {"low": 0.3, "high": 4.0},
    "second": {"low": 0.3, "high": 4.0},
    **_SPECIAL,
}
gammainc = elementwise2(
    "gammainc",
    in_float64(_lower),
    lambda g, x1, x2: g * _slope_1(x1, x2),
    lambda g, x1, x2: g * density(x1, x2),
    "The regularized lower incomplete gamma function of a = ``x1`` and x = ``x2``.",
    reference="scipy.special.gammainc",
    torch=None,
    **_BOTH,
)
gammaincc = elementwise2(
    "gammaincc",
    in_float64(_upper),
    lambda g, x1, x2: -g * _slope_1(x1, x2),
    lambda g, x1, x2: -g * density(x1, x2),
    "The regularized upper incomplete gamma function, ``1 - gammainc(x1, x2)``.",
    reference="scipy.special.gammaincc",
    torch=None,
    **_BOTH,
)
igamma, igammac = gammainc, gammaincc
