"""The gamma function, its logarithm and the derivatives of that, the beta and zeta functions.

Small arguments are moved to an interval of length 1 by the recurrence, large ones have Stirling's
series, negative ones the reflection formula (Abramowitz and Stegun, 6.1 to 6.4; NIST Digital
Library of Mathematical Functions, 5.11, 5.15, 25.11). ``tests/ops/test_special_values.py`` has the
bounds of the errors and measures them.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import GradientError
from tensorgrad.ops import special_coefficients as of
from tensorgrad.ops.fast_paths import binary
from tensorgrad.ops.numbers import number
from tensorgrad.ops.table import elementwise, elementwise2, operation
from tensorgrad.ops.wide import by_cases, cosine_of_pi, in_float64, polynomial, sine_of_pi
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "beta", "betaln", "digamma", "gamma", "gammaln", "lgamma", "multigammaln", "mvlgamma",
    "polygamma", "psi", "zeta",
]  # fmt: skip

_SPECIAL: dict[str, Any] = {"namespace": "special", "method": False}
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
#: Bernoulli's numbers of even index, from the second on
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
    -174611 / 330, 854513 / 138, -236364091 / 2730,
)  # fmt: skip
_STIRLING = tuple(b / ((2 * k + 2) * (2 * k + 1)) for k, b in enumerate(_BERNOULLI[:9]))
_PSI_SERIES = tuple(b / (2 * k + 2) for k, b in enumerate(_BERNOULLI[:8]))


def quotient(above: Any, below: Any, x: Any) -> Any:
    """A rational function."""
    return polynomial(above, x) / polynomial(below, x)


def _is_whole(xp: Any, x: Any) -> Any:
    return xp.floor(x) == x


# --- the logarithm of gamma -----------------------------------------------------------------------


def correction(x: Any) -> Any:
    """What Stirling's formula lacks: a series for ``x >= 8``."""
    inverse = 1.0 / x
    return polynomial(_STIRLING, inverse * inverse) * inverse


def _stirling(xp: Any, x: Any) -> Any:
    return (x - 0.5) * (xp.log(x) - 1.0) + (_HALF_LOG_2PI - 0.5) + correction(x)


def gammaln_from_1_to_2(v: Any) -> Any:
    """Of 1 + v, for v in [0, 1]."""
    return v * (v - 1.0) * quotient(of.GAMMALN_1, of.GAMMALN_1_OVER, v)


def _gammaln_from_2_to_3(x: Any) -> Any:
    u = x - 2.0
    return u * (x - 1.0) * quotient(of.GAMMALN_2, of.GAMMALN_2_OVER, u)


def _moved_down(xp: Any, x: Any, steps: int) -> tuple[Any, Any]:
    """x less a whole number, in [2, 3), and what gamma is divided by, for x below 3 + steps."""
    factor = x * 0.0 + 1.0
    for _ in range(steps):
        large = x >= 3
        x = xp.where(large, x - 1.0, x)
        factor = xp.where(large, factor * x, factor)
    return x, factor


def _gammaln_to_8(xp: Any, x: Any) -> Any:
    x, factor = _moved_down(xp, x, 5)
    return xp.log(factor) + _gammaln_from_2_to_3(x)


def gammaln_of_positive(xp: Any, x: Any) -> Any:
    """The logarithm of gamma for ``x >= 0``."""

    def to_2(x: Any) -> Any:
        small = x < 1
        y = gammaln_from_1_to_2(xp.where(small, x, x - 1.0))
        return y - xp.log(xp.where(small, x, 1.0))

    return by_cases(
        xp,
        (x,),
        [
            (x < 2, to_2),
            (x < 3, _gammaln_from_2_to_3),
            (x < 8, lambda x: _gammaln_to_8(xp, x)),
        ],
        lambda x: _stirling(xp, x),
    )


def _gammaln(xp: Any, x: Any) -> Any:
    a = xp.abs(x)
    just_below = (x <= 0) & (a < 0.5)  # where the recurrence loses nothing
    y = gammaln_of_positive(xp, xp.where(just_below, 1.0 - a, a))

    def negative(x: Any, y: Any) -> Any:
        a = xp.abs(x)
        sine = xp.abs(sine_of_pi(xp, a))
        by_recurrence, reflected = y - xp.log(a), xp.log(math.pi / (sine * a)) - y
        pole = _is_whole(xp, a)
        return xp.where(pole, math.inf, xp.where(a < 0.5, by_recurrence, reflected))

    return by_cases(xp, (x, y), [(x > 0, lambda x, y: y)], negative)


gammaln = elementwise(
    "gammaln",
    in_float64(_gammaln),
    lambda g, x: g * digamma(x),
    "The logarithm of the absolute value of ``gamma``; infinite at 0, -1, -2, ...",
    low=0.3,
    high=5.0,
    reference="scipy.special.gammaln",
    torch="lgamma",
    **_SPECIAL,
)
lgamma = gammaln

# --- gamma ----------------------------------------------------------------------------------------


def _gamma_near(xp: Any, x: Any) -> Any:
    """For x from -8 to 12, by the recurrence."""
    y, factor = _moved_down(xp, x, 9)
    divisor = x * 0.0 + 1.0
    for _ in range(10):
        small = y < 2
        divisor = xp.where(small, divisor * y, divisor)
        y = xp.where(small, y + 1.0, y)
    found = factor * quotient(of.GAMMA, of.GAMMA_OVER, y - 2.0) / divisor
    return xp.where((x < 0) & (divisor == 0), math.nan, found)


def _gamma_far(xp: Any, x: Any) -> Any:
    """For others, by Stirling's series, in two factors of which none overflows."""
    a = xp.minimum(xp.abs(x), 200.0)
    root = xp.power(a, 0.5 * a - 0.25)
    rest = root * xp.exp(-a) * xp.exp(correction(a)) * math.sqrt(2.0 * math.pi)
    turned = -math.pi / (a * sine_of_pi(xp, xp.abs(x))) / root / rest
    turned = xp.where(_is_whole(xp, x), math.nan, turned)
    return xp.where(x > 0, root * rest, turned)


def gamma_value(xp: Any, x: Any) -> Any:
    near = (x > -8) & (x < 12)
    return by_cases(xp, (x,), [(near, lambda x: _gamma_near(xp, x))], lambda x: _gamma_far(xp, x))


gamma = elementwise(
    "gamma",
    in_float64(gamma_value),
    lambda g, x, y: g * y * digamma(x),
    "The gamma function: infinite at 0, NaN at -1, -2, ...",
    low=0.3,
    high=5.0,
    reference="scipy.special.gamma",
    torch=None,
    **_SPECIAL,
)

# --- digamma and polygamma ------------------------------------------------------------------------


def _digamma_to_10(xp: Any, x: Any) -> Any:
    small = x < 1
    y = xp.where(small, x + 1.0, x)
    total = xp.where(small, -1.0 / x, 0.0)
    for _ in range(8):
        large = y >= 2
        y = xp.where(large, y - 1.0, y)
        total = xp.where(large, total + 1.0 / y, total)
    root, rest = of.DIGAMMA_ROOT
    return total + (y - root - rest) * quotient(of.DIGAMMA, of.DIGAMMA_OVER, y - 1.0)


def _digamma_far(xp: Any, x: Any) -> Any:
    inverse = 1.0 / x
    square = inverse * inverse
    return xp.log(x) - 0.5 * inverse - polynomial(_PSI_SERIES, square) * square


def digamma_of_positive(xp: Any, x: Any) -> Any:
    near = [(x < 10, lambda x: _digamma_to_10(xp, x))]
    return by_cases(xp, (x,), near, lambda x: _digamma_far(xp, x))


def _digamma(xp: Any, x: Any) -> Any:
    def negative(x: Any) -> Any:
        y = digamma_of_positive(xp, 1.0 - x)
        y = y - math.pi * cosine_of_pi(xp, x) / sine_of_pi(xp, x)
        return xp.where(_is_whole(xp, x), math.nan, y)

    return by_cases(xp, (x,), [(x < 0, negative)], lambda x: digamma_of_positive(xp, x))


digamma = elementwise(
    "digamma",
    in_float64(_digamma),
    lambda g, x: g * polygamma(1, x),
    "The slope of ``gammaln``: minus infinity at 0, NaN at -1, -2, ...",
    low=0.3,
    high=5.0,
    reference="scipy.special.digamma",
    torch="digamma",
    **_SPECIAL,
)
psi = digamma

#: how many terms are added before the rest is an integral with corrections (Euler and Maclaurin)
_TERMS = 10
_TAIL = tuple(b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))


def hurwitz(xp: Any, s: Any, q: Any) -> Any:
    """The sum of ``(q + k)**-s`` over k = 0, 1, ... for s > 1 and q > 0."""
    total = xp.power(q, -s)
    for k in range(1, _TERMS):
        total = total + xp.power(q + float(k), -s)
    w = q + float(_TERMS)
    last = xp.power(w, -s)
    total = total + xp.power(w, 1.0 - s) / (s - 1.0) + last * 0.5
    bounded = min(s, 1e8) if isinstance(s, float) else xp.minimum(s, 1e8)  # else 0 times infinity
    inverse = 1.0 / (w * w)
    term = last * bounded / w
    for k, factor in enumerate(_TAIL):
        total = total + term * factor
        term = term * ((bounded + (2.0 * k + 1.0)) * (bounded + (2.0 * k + 2.0)) * inverse)
    return xp.where(q == math.inf, 0.0, total)


@cache
def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The coefficients of the n-th derivative of ``cot``, a polynomial in ``cot``."""
    found = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(found)][1:]
        found = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope])]
    return tuple(float(c) for c in found)


def _polygamma(xp: Any, x: Any, n: int) -> Any:
    sign = 1.0 if n % 2 else -1.0

    def of_positive(x: Any) -> Any:
        return sign * math.gamma(n + 1.0) * hurwitz(xp, n + 1.0, x)

    def negative(x: Any) -> Any:
        cotangent = cosine_of_pi(xp, x) / sine_of_pi(xp, x)
        slope = math.pi ** (n + 1) * polynomial(_cotangent_derivative(n), cotangent)
        y = -slope - sign * of_positive(1.0 - x)
        return xp.where(_is_whole(xp, x), sign * math.inf, y)

    return by_cases(xp, (x,), [(x > 0, of_positive)], negative)


_POLYGAMMA = Primitive(
    "polygamma",
    in_float64(_polygamma),
    {"x": lambda g, x, n: g * polygamma(n + 1, x)},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


@operation(
    cases=[
        lambda s: s(1, s.real(3, 4, low=0.3, high=3.0)),
        lambda s: s(2, s.real(3, 4, low=-0.9, high=-0.1)),
        lambda s: s(0, s.real(3, low=0.3, high=3.0)),
    ],
    reference="scipy.special.polygamma",
    torch="polygamma",
    primitive=_POLYGAMMA,
    **_SPECIAL,
)
def polygamma(n: int, x: Any) -> Tensor:
    """The ``n``-th derivative of ``digamma``, for ``n`` from 0 to 169; it has no gradient in ``n``.

    At 0, -1, -2, ... it is infinite: above 0 for odd ``n``, below for even ones.
    """
    order = number("polygamma", "n", n)
    if order != int(order) or not 0 <= order < 170:
        raise ValueError(f"polygamma: n must be a whole number from 0 to 169; got {n}")
    return apply(_POLYGAMMA, (x,), {"n": int(order)}) if order else digamma(x)


# --- zeta -----------------------------------------------------------------------------------------


def _of_negative(xp: Any, s: Any, q: Any) -> Any:
    """The sum of ``hurwitz`` for whole ``s`` and negative ``q``: of each ``s`` by polygamma."""
    nearest = q - xp.rint(q)
    found = xp.power(nearest, -s) + xp.power(nearest - xp.where(nearest > 0, 1.0, -1.0), -s)
    for value in xp.unique(s).tolist():
        if value < 150:  # for larger ones the two terms nearest to 0 are all that counts
            n = int(value) - 1
            y = _polygamma(xp, q, n) / (math.gamma(value) * (1.0 if n % 2 else -1.0))
            found = xp.where(s == value, y, found)
    return xp.where(_is_whole(xp, q), math.inf, found)


def _zeta(xp: Any, s: Any, q: Any) -> Any:
    none = (s < 1) | ((q <= 0) & (xp.floor(s) != s)) | (s != s)
    y = by_cases(
        xp,
        (s, q),
        [
            (none, lambda s, q: s * math.nan),
            (s == 1, lambda s, q: q * 0.0 + math.inf),
            (q <= 0, lambda s, q: _of_negative(xp, s, q)),
        ],
        lambda s, q: hurwitz(xp, s, q),
    )
    return xp.where((q == 0) & ~(s < 1), math.inf, y)


def _no_slope(g: Any) -> Any:
    raise GradientError(
        "zeta: there is no gradient in x, the exponent; give x.detach(), or require none of it"
    )


_zeta_of_two = binary(
    Primitive(
        "zeta",
        in_float64(_zeta),
        {"x": _no_slope, "q": lambda g, x, q: g * -x * _zeta_of_two(x + 1.0, q)},
        promotion="float",
        half_in_float32=True,
        elementwise=True,
    )
)


@operation(
    cases=[
        lambda s: s(2.5, s.real(3, 4, low=0.3, high=3.0)),
        lambda s: s(np.array([3, 2, 4]), s.real(2, 3, low=-0.9, high=-0.1)),
    ],
    reference="scipy.special.zeta",
    torch="special.zeta",
    elementwise=True,
    **_SPECIAL,
)
def zeta(x: Any, q: Any = 1.0) -> Tensor:
    """The zeta function of Hurwitz, the sum of ``(q + k)**-x`` over k = 0, 1, ...; for 1 Riemann's.

    Infinite at ``x == 1`` and at ``q`` = 0, -1, ...; NaN for ``x < 1``, and for negative ``q``
    unless ``x`` is whole. There is no gradient in ``x``; asking for one raises GradientError.
    """
    return _zeta_of_two(x, q)


# --- beta -----------------------------------------------------------------------------------------


def _is_pole(xp: Any, x: Any) -> Any:
    """Whether gamma is infinite there."""
    return (x <= 0) & _is_whole(xp, x)


def _betaln_in_order(xp: Any, p: Any, q: Any) -> Any:
    """For p <= q, without the cancellation of large logarithms."""

    def both_large(p: Any, q: Any) -> Any:
        series = correction(p) + correction(q) - correction(p + q)
        logs = (p - 0.5) * xp.log(p / (p + q)) - q * xp.log1p(p / q) - 0.5 * xp.log(q)
        return logs + _HALF_LOG_2PI + series

    def one_large(p: Any, q: Any) -> Any:
        series = correction(q) - correction(p + q)
        rest = -(q - 0.5) * xp.log1p(p / q) - p * (xp.log(p + q) - 1.0)
        return _gammaln(xp, p) + (rest + series)

    def others(p: Any, q: Any) -> Any:
        return _gammaln(xp, p) + (_gammaln(xp, q) - _gammaln(xp, p + q))

    return by_cases(
        xp,
        (p, q),
        [
            (_is_pole(xp, p) | _is_pole(xp, q), lambda p, q: p * 0.0 + math.inf),
            ((p > 0) & (q == math.inf), lambda p, q: -q),
            (p >= 10, both_large),
            ((q >= 10) & (p + q >= 8), one_large),
        ],
        others,
    )


def _turned(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """``a``, a pole of gamma, as ``1 - a - b`` where ``b`` is whole and that is positive; and the
    sign that is lost so (then the poles of gamma of a and of a + b cancel)."""
    whole = (a <= 0) & _is_whole(xp, a) & _is_whole(xp, b) & (1.0 - a - b > 0)
    odd = b - 2.0 * xp.floor(b * 0.5)
    return xp.where(whole, 1.0 - a - b, a), xp.where(whole, 1.0 - 2.0 * odd, 1.0)


def _signed_betaln(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The logarithm of the absolute value, and the sign."""
    a, one = _turned(xp, a, b)
    b, two = _turned(xp, b, a)
    p, q = xp.minimum(a, b), xp.maximum(a, b)
    logarithm = _betaln_in_order(xp, p, q)
    sign = one * two
    for x in (p, q, p + q):
        whole = xp.floor(x)
        odd = whole - 2.0 * xp.floor(whole * 0.5)
        sign = xp.where(x < 0, sign * (1.0 - 2.0 * odd), sign)
    return logarithm, sign


def _beta(xp: Any, a: Any, b: Any) -> Any:
    def by_gamma(a: Any, b: Any) -> Any:
        p, q = xp.minimum(a, b), xp.maximum(a, b)
        total = p + q
        lost = p - (total - q)  # by rounding the sum, by which gamma may change a hundredfold
        y = gamma_value(xp, p) * (gamma_value(xp, q) / gamma_value(xp, total))
        return y * (1.0 - lost * xp.log(xp.maximum(xp.abs(total), 1.0)))

    def by_logarithm(a: Any, b: Any) -> Any:
        logarithm, sign = _signed_betaln(xp, a, b)
        return sign * xp.exp(logarithm)

    usual = True
    for x in (a, b, a + b):
        usual = usual & (xp.abs(x) < 170) & ~_is_pole(xp, x)
    return by_cases(xp, (a, b), [(usual, by_gamma)], by_logarithm)


_POSITIVE: dict[str, Any] = {"low": 0.3, "high": 4.0}
beta = elementwise2(
    "beta",
    in_float64(_beta),
    lambda g, x1, x2, y: g * y * (digamma(x1) - digamma(x1 + x2)),
    lambda g, x1, x2, y: g * y * (digamma(x2) - digamma(x1 + x2)),
    "The beta function ``gamma(x1) gamma(x2) / gamma(x1 + x2)``.",
    promotion="float",
    first=_POSITIVE,
    second=_POSITIVE,
    reference="scipy.special.beta",
    torch=None,
    **_SPECIAL,
)
betaln = elementwise2(
    "betaln",
    in_float64(lambda xp, a, b: _signed_betaln(xp, a, b)[0]),
    lambda g, x1, x2: g * (digamma(x1) - digamma(x1 + x2)),
    lambda g, x1, x2: g * (digamma(x2) - digamma(x1 + x2)),
    "The logarithm of the absolute value of ``beta``.",
    promotion="float",
    first=_POSITIVE,
    second=_POSITIVE,
    reference="scipy.special.betaln",
    torch=None,
    **_SPECIAL,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, low=1.2, high=4.0), 3),
        lambda s: s(s.real(3, low=0.3, high=4.0), 1),
    ],
    reference="scipy.special.multigammaln",
    torch="mvlgamma",
    **_SPECIAL,
)
def multigammaln(a: Any, d: int) -> Tensor:
    """The logarithm of the gamma function of ``d`` dimensions, for ``a > (d - 1) / 2``."""
    count = number("multigammaln", "d", d)
    if count != int(count) or count < 1:
        raise ValueError(f"multigammaln: d must be a whole number from 1 on; got {d}")
    total = gammaln(a)
    for j in range(1, int(count)):
        total = total + gammaln(a - j / 2)
    return total + count * (count - 1) / 4 * math.log(math.pi)


mvlgamma = multigammaln
