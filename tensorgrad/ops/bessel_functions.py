"""Bessel functions of orders 0 and 1, of the first and second kind and modified ones; Airy's Ai.

Near 0 they are polynomials, beside the logarithm and the pole of the second kind, with the zeros
as factors; far from it amplitude and phase, or an exponential, times a function of 1 / x (NIST
Digital Library of Mathematical Functions, 9.6, 9.8, 10.17, 10.40). Slopes are those of 10.6 and
10.29, with order 2 in place of a quotient by x, which would lose bits near 0.
``tests/ops/test_special_values.py`` has the bounds of the errors and measures them.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.ops import special_coefficients as of
from tensorgrad.ops.elementwise import equal, sign, where
from tensorgrad.ops.table import elementwise
from tensorgrad.ops.wide import by_cases, in_float64, polynomial
from tensorgrad.tape import Primitive, apply

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "j0",
    "j1", "k0", "k0e", "k1", "k1e", "modified_bessel_i0", "modified_bessel_i1",
    "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "y0", "y1",
]  # fmt: skip

_SPECIAL: dict[str, Any] = {"namespace": "special", "method": False}
Value = Callable[[Any, Any], Any]


def _hidden(name: str, value: Value, rule: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that slopes are made of and that has no row."""
    op = Primitive(
        name,
        in_float64(value),
        {"x": rule},
        promotion="float",
        half_in_float32=True,
        elementwise=True,
    )
    return lambda x: apply(op, (x,))


def _quotient(above: Sequence[float], below: Sequence[float], x: Any) -> Any:
    return polynomial(above, x) / polynomial(below, x)


def _derivative(coefficients: Sequence[float]) -> list[float]:
    """The coefficients of a polynomial's derivative."""
    return [n * c for n, c in enumerate(coefficients)][1:]


def _over_itself(y: Any, x: Any) -> Any:
    """``y / x``, and 0 at 0, where ``y`` has a double zero."""
    none = equal(x, 0)
    return where(none, 0.0, y / where(none, 1.0, x))


# --- modified, of the first kind ------------------------------------------------------------------

_I_NEAR = of.I0_NEAR, of.I1_NEAR, of.I2_NEAR
_I_FAR = of.I0_FAR, of.I1_FAR, of.I2_FAR
#: up to which the series is used, which is one in x**2 / 4 up to 15
_I_EDGE = 7.7


def _i_near(k: int, x: Any) -> Any:
    return _i_over_x(k, x) * x if k else polynomial(_I_NEAR[0], (x * 0.5) * (x * 0.5))


def _i_over_x(k: int, x: Any) -> Any:
    """``I_k(x) / x`` for k from 1 on, also at 0."""
    half = x * 0.5
    y = polynomial(_I_NEAR[k], half * half) * 0.5
    for _ in range(k - 1):
        y = y * half
    return y


def _i_far(xp: Any, k: int, x: Any) -> Any:
    """``exp(-x) I_k(x)`` for large x."""
    return polynomial(_I_FAR[k], 1.0 / x - 0.02) / xp.sqrt(x)


def _i(k: int, scaled: bool) -> Value:
    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y = _i_near(k, x)
            return y * xp.exp(-xp.abs(x)) if scaled else y

        def far(x: Any) -> Any:
            a = xp.abs(x)
            y = _i_far(xp, k, a)
            if not scaled:  # in two steps: the exponential would overflow too early
                half = xp.exp(a * 0.5)
                y = xp.where(a == math.inf, math.inf, y * half * half)
            return xp.where(x < 0, -y, y) if k % 2 else y

        return by_cases(xp, (x,), [(xp.abs(x) < _I_EDGE, near)], far)

    return value


def _i_slope(k: int) -> Value:
    """The slope of ``exp(-abs(x)) I_k(x)``.

    Of large x it is not the difference of two functions, which there are nearly equal.
    """

    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            slope = _i_near(k - 1, x) - _i_over_x(k, x) * float(k) if k else _i_near(1, x)
            return (slope - xp.sign(x) * _i_near(k, x)) * xp.exp(-xp.abs(x))

        def far(x: Any) -> Any:
            s = 1.0 / xp.abs(x)
            t = s - 0.02
            y = polynomial(_I_FAR[k], t) * 0.5 + s * polynomial(_derivative(_I_FAR[k]), t)
            y = -y * s * xp.sqrt(s)
            return y if k % 2 else xp.where(x < 0, -y, y)

        return by_cases(xp, (x,), [(xp.abs(x) < _I_EDGE, near)], far)

    return value


def _i_bend(k: int) -> Value:
    """The second derivative of ``exp(-abs(x)) I_k(x)``, k being 0, 1 or 2; see ``_i_slope``."""

    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y, one = _i_near(k, x), _i_near(1, x)
            slope = _i_near(k - 1, x) - _i_over_x(k, x) * float(k) if k else one
            if k == 2:
                bend = y + polynomial(_I_NEAR[2], x * x * 0.25) * 1.5 - _i_over_x(1, x)
            else:
                bend = one - _i_over_x(2, x) if k else y - _i_over_x(1, x)
            return (bend + y - 2.0 * xp.sign(x) * slope) * xp.exp(-xp.abs(x))

        def far(x: Any) -> Any:
            s = 1.0 / xp.abs(x)
            t, first = s - 0.02, _derivative(_I_FAR[k])
            y = polynomial(_I_FAR[k], t) * 0.75 + s * polynomial(first, t) * 3.0
            y = (y + s * s * polynomial(_derivative(first), t)) * s * s * xp.sqrt(s)
            return xp.where(x < 0, -y, y) if k == 1 else y

        return by_cases(xp, (x,), [(xp.abs(x) < _I_EDGE, near)], far)

    return value


_i0e_slope = _hidden("i0e_slope", _i_slope(0), lambda g, x: g * _i0e_bend(x))
_i1e_slope = _hidden("i1e_slope", _i_slope(1), lambda g, x: g * _i1e_bend(x))
_i0e_bend = _hidden("i0e_bend", _i_bend(0), lambda g, x, y: g * (_i1e_bend(x) - sign(x) * y))
_i1e_bend = _hidden(
    "i1e_bend",
    _i_bend(1),
    lambda g, x, y: g * ((_i0e_bend(x) + _i2e_bend(x)) * 0.5 - sign(x) * y),
)
_i2e_slope = _hidden("i2e_slope", _i_slope(2), lambda g, x: g * _i2e_bend(x))

_i2e_bend = _hidden(
    "i2e_bend",
    _i_bend(2),
    lambda g, x, y: g * (_i1e_bend(x) - 2.0 * _i2e_over_x_bend(x, y) - sign(x) * y),
)


def _i2e_over_x_bend(x: Any, bend: Any) -> Any:
    slope = _over_itself(_i2e_slope(x) - _over_itself(_i2e(x), x), x)
    return _over_itself(bend - 2.0 * slope, x)


_i2 = _hidden("i2", _i(2, False), lambda g, x, y: g * (i1(x) - 2.0 * _over_itself(y, x)))
_i2e = _hidden("i2e", _i(2, True), lambda g, x, y: g * _i2e_slope(x))
i0 = elementwise(
    "i0",
    in_float64(_i(0, False)),
    lambda g, x: g * i1(x),
    "The modified Bessel function of the first kind, of order 0.",
    reference="i0",
    torch="special.i0",
    **_SPECIAL,
)
i1 = elementwise(
    "i1",
    in_float64(_i(1, False)),
    lambda g, x: g * ((i0(x) + _i2(x)) * 0.5),
    "The modified Bessel function of the first kind, of order 1.",
    reference="scipy.special.i1",
    torch="special.i1",
    **_SPECIAL,
)
i0e = elementwise(
    "i0e",
    in_float64(_i(0, True)),
    lambda g, x: g * _i0e_slope(x),
    "``exp(-abs(x)) i0(x)``; the gradient at 0 is 0.",
    avoid=0.0,
    reference="scipy.special.i0e",
    torch="special.i0e",
    **_SPECIAL,
)
i1e = elementwise(
    "i1e",
    in_float64(_i(1, True)),
    lambda g, x: g * _i1e_slope(x),
    "``exp(-abs(x)) i1(x)``.",
    avoid=0.0,
    reference="scipy.special.i1e",
    torch="special.i1e",
    **_SPECIAL,
)
modified_bessel_i0, modified_bessel_i1 = i0, i1

# --- modified, of the second kind -----------------------------------------------------------------

_K_NEAR = of.K0_NEAR, of.K1_NEAR
_K_FAR = (of.K0_FAR, of.K0_FAR_OVER), (of.K1_FAR, of.K1_FAR_OVER)


def _k(k: int, scaled: bool) -> Value:
    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y = polynomial(_K_NEAR[k], x * x)
            logarithm = xp.log(x) * _i_near(k, x)
            y = 1.0 / x + (y * x + logarithm) if k else y - logarithm
            y = xp.where(x == 0, math.inf, y)
            return y * xp.exp(x) if scaled else y

        def far(x: Any) -> Any:
            y = _quotient(*_K_FAR[k], 1.0 / x) / xp.sqrt(x)
            return y if scaled else y * xp.exp(-x)

        return by_cases(xp, (x,), [(x < 1, near)], far)

    return value


def _k_slope(k: int) -> Value:
    """The slope of ``exp(x) K_k(x)``, for large x not as a difference; see ``_i_slope``."""
    same, other = _k(k, True), _k(1 - k, True)

    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y = same(xp, x)
            return (y - y / x if k else y) - other(xp, x)

        def far(x: Any) -> Any:
            s, (above, below) = 1.0 / x, _K_FAR[k]
            divisor = polynomial(below, s)
            y = polynomial(above, s) / divisor
            bend = (polynomial(_derivative(above), s) - y * polynomial(_derivative(below), s)) * s
            return -(y * 0.5 + bend / divisor) * s * xp.sqrt(s)

        return by_cases(xp, (x,), [(x < 1, near)], far)

    return value


_k0e_slope = _hidden("k0e_slope", _k_slope(0), lambda g, x, y: g * (y - _k1e_slope(x)))
_k1e_slope = _hidden(
    "k1e_slope",
    _k_slope(1),
    lambda g, x, y: g * (y - (y - k1e(x) / x) / x - _k0e_slope(x)),
)
k0 = elementwise(
    "k0",
    in_float64(_k(0, False)),
    lambda g, x: -g * k1(x),
    "The modified Bessel function of the second kind, of order 0: infinite at 0, NaN below.",
    low=0.3,
    high=4.0,
    reference="scipy.special.k0",
    torch=None,
    **_SPECIAL,
)
k1 = elementwise(
    "k1",
    in_float64(_k(1, False)),
    lambda g, x, y: -g * (k0(x) + y / x),
    "The modified Bessel function of the second kind, of order 1: infinite at 0, NaN below.",
    low=0.3,
    high=4.0,
    reference="scipy.special.k1",
    torch=None,
    **_SPECIAL,
)
k0e = elementwise(
    "k0e",
    in_float64(_k(0, True)),
    lambda g, x: g * _k0e_slope(x),
    "``exp(x) k0(x)``.",
    low=0.3,
    high=4.0,
    reference="scipy.special.k0e",
    torch=None,
    **_SPECIAL,
)
k1e = elementwise(
    "k1e",
    in_float64(_k(1, True)),
    lambda g, x: g * _k1e_slope(x),
    "``exp(x) k1(x)``.",
    low=0.3,
    high=4.0,
    reference="scipy.special.k1e",
    torch=None,
    **_SPECIAL,
)
modified_bessel_k0, modified_bessel_k1 = k0, k1
scaled_modified_bessel_k0, scaled_modified_bessel_k1 = k0e, k1e

# --- of the first and second kind -----------------------------------------------------------------

_J_NEAR = of.J0_NEAR, of.J1_NEAR, of.J2_NEAR
_J_ZEROS = (of.J0_ZERO_1, of.J0_ZERO_2), (of.J1_ZERO_1,), (of.J2_ZERO_1,)
_Y_NEAR = of.Y0_NEAR, of.Y1_NEAR
_MODULUS = (
    ((of.P0, of.P0_OVER), (of.Q0, of.Q0_OVER)),
    ((of.P1, of.P1_OVER), (of.Q1, of.Q1_OVER)),
)
#: up to which the polynomials are used
_J_EDGE = 6.0


def _j_near(k: int, a: Any) -> Any:
    """For 0 <= a <= 6."""
    y = polynomial(_J_NEAR[k], a * a - 18.0)
    for zero, rest in _J_ZEROS[k]:
        y = y * ((a - zero - rest) * (a + zero))
    for _ in range(k):
        y = y * a
    return y


def _waves(xp: Any, k: int, a: Any) -> tuple[Any, Any]:
    """J and Y of order 0 or 1 for large ``a``."""
    p, q = _MODULUS[k]
    square = 1.0 / (a * a)
    above, odd = _quotient(*p, square), _quotient(*q, square) / a
    scale = xp.sqrt(1.0 / (math.pi * a))
    # of the phase a - pi / 4, and less another pi / 2 for order 1, times the root of 2
    cosine, sine = xp.cos(a) + xp.sin(a), xp.sin(a) - xp.cos(a)
    if k:
        cosine, sine = sine, -cosine
    return scale * (above * cosine - odd * sine), scale * (above * sine + odd * cosine)


def _j(k: int) -> Value:
    def value(xp: Any, x: Any) -> Any:
        def far(x: Any) -> Any:
            a = xp.abs(x)
            if k == 2:
                y = 2.0 * _waves(xp, 1, a)[0] / a - _waves(xp, 0, a)[0]
            else:
                y = _waves(xp, k, a)[0]
            y = xp.where(a == math.inf, 0.0, y)
            return xp.where(x < 0, -y, y) if k % 2 else y

        def near(x: Any) -> Any:
            y = _j_near(k, xp.abs(x))
            return xp.where(x < 0, -y, y) if k % 2 else y

        return by_cases(xp, (x,), [(xp.abs(x) < _J_EDGE, near)], far)

    return value


def _y(k: int) -> Value:
    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y = polynomial(_Y_NEAR[k], x * x - 18.0)
            logarithm = 2.0 / math.pi * xp.log(x) * _j_near(k, x)
            y = y * x + logarithm - 2.0 / (math.pi * x) if k else y + logarithm
            return xp.where(x == 0, -math.inf, y)

        def far(x: Any) -> Any:
            return xp.where(x == math.inf, 0.0, _waves(xp, k, x)[1])

        return by_cases(xp, (x,), [(x < _J_EDGE, near)], far)

    return value


_j2 = _hidden("j2", _j(2), lambda g, x, y: g * (j1(x) - 2.0 * _over_itself(y, x)))
j0 = elementwise(
    "j0",
    in_float64(_j(0)),
    lambda g, x: -g * j1(x),
    "The Bessel function of the first kind, of order 0.",
    low=-9.0,
    high=9.0,
    reference="scipy.special.j0",
    torch=None,
    **_SPECIAL,
)
j1 = elementwise(
    "j1",
    in_float64(_j(1)),
    lambda g, x: g * ((j0(x) - _j2(x)) * 0.5),
    "The Bessel function of the first kind, of order 1.",
    low=-9.0,
    high=9.0,
    reference="scipy.special.j1",
    torch=None,
    **_SPECIAL,
)
y0 = elementwise(
    "y0",
    in_float64(_y(0)),
    lambda g, x: -g * y1(x),
    "The Bessel function of the second kind, of order 0: minus infinity at 0, NaN below.",
    low=0.3,
    high=9.0,
    reference="scipy.special.y0",
    torch=None,
    **_SPECIAL,
)
y1 = elementwise(
    "y1",
    in_float64(_y(1)),
    lambda g, x, y: g * where(equal(x, 0), math.inf, y0(x) - y / x),
    "The Bessel function of the second kind, of order 1: minus infinity at 0, NaN below.",
    low=0.3,
    high=9.0,
    reference="scipy.special.y1",
    torch=None,
    **_SPECIAL,
)
bessel_j0, bessel_j1, bessel_y0, bessel_y1 = j0, j1, y0, y1

# --- Airy's ---------------------------------------------------------------------------------------

_AIRY_NEAR = of.AIRY0_NEAR, of.AIRY1_NEAR
_AIRY_ZEROS = (of.AIRY0_ZERO_1, of.AIRY0_ZERO_2), (of.AIRY1_ZERO_1, of.AIRY1_ZERO_2)
_AIRY_FAR = (of.AIRY0_FAR, of.AIRY0_FAR_OVER), (of.AIRY1_FAR, of.AIRY1_FAR_OVER)
_AIRY_P = (of.AIRY0_P, of.AIRY0_P_OVER), (of.AIRY1_P, of.AIRY1_P_OVER)
_AIRY_Q = (of.AIRY0_Q, of.AIRY0_Q_OVER), (of.AIRY1_Q, of.AIRY1_Q_OVER)


def _airy(slope: int) -> Value:
    def value(xp: Any, x: Any) -> Any:
        def near(x: Any) -> Any:
            y = polynomial(_AIRY_NEAR[slope], x + 1.0)
            for zero, rest in _AIRY_ZEROS[slope]:
                y = y * (x - zero - rest)
            return y

        def right(x: Any) -> Any:
            x = xp.minimum(x, 200.0)  # beyond 108 it is 0
            z = 2.0 / 3.0 * x * xp.sqrt(x)
            y = _quotient(*_AIRY_FAR[slope], 1.0 / z) * xp.exp(-z) / (2.0 * math.sqrt(math.pi))
            root = xp.sqrt(xp.sqrt(x))
            return -y * root if slope else y / root

        def left(x: Any) -> Any:
            a = xp.abs(x)
            z = 2.0 / 3.0 * a * xp.sqrt(a)
            square = 1.0 / (z * z)
            p, q = _quotient(*_AIRY_P[slope], square), _quotient(*_AIRY_Q[slope], square) / z
            cosine, sine = xp.cos(z) + xp.sin(z), xp.sin(z) - xp.cos(z)
            root = xp.sqrt(xp.sqrt(a)) * math.sqrt(2.0 * math.pi)
            if slope:
                return (p * sine + q * cosine) * root / (2.0 * math.pi)
            return xp.where(a == math.inf, 0.0, (p * cosine + q * sine) / root)

        return by_cases(xp, (x,), [(x >= 1, right), (x < -4.5, left)], near)

    return value


_airy_slope = _hidden("airy_slope", _airy(1), lambda g, x: g * x * airy_ai(x))
airy_ai = elementwise(
    "airy_ai",
    in_float64(_airy(0)),
    lambda g, x: g * _airy_slope(x),
    "Airy's function Ai, which ``y'' == x * y`` holds of.",
    low=-8.0,
    high=4.0,
    reference="scipy.special.airy.0",
    torch=None,
    **_SPECIAL,
)
