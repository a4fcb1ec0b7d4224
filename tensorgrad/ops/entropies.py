"""Products with logarithms that are 0 at 0, the logit, and sin(pi x) / (pi x)."""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.ops import special_coefficients as of
from tensorgrad.ops.elementwise import (
    clip,
    equal,
    less_equal,
    log,
    logical_and,
    weighted,
    where,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.table import elementwise, elementwise2, operation
from tensorgrad.ops.wide import by_cases, in_float64, polynomial, sine_of_pi
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["entr", "logit", "sinc", "spherical_bessel_j0", "xlog1py", "xlogy"]

_SPECIAL: dict[str, Any] = {"namespace": "special", "method": False}


# --- products with logarithms ---------------------------------------------------------------------


def _product(xp: Any, x: Any, logarithm: Any) -> Any:
    """``x * logarithm``, and 0 where ``x`` is 0 unless the logarithm is of no number."""
    return xp.where((x == 0) & (logarithm == logarithm), 0.0, x * logarithm)


def _xlogy(xp: Any, x: Any, y: Any) -> Any:
    # a logarithm of what is negative is NaN, and yet 0 times it is 0
    return _product(xp, x, xp.log(xp.where((x == 0) & (y < 0), 1.0, y)))


def _xlog1py(xp: Any, x: Any, y: Any) -> Any:
    return _product(xp, x, xp.log1p(xp.where((x == 0) & (y < -1), 0.0, y)))


def _times_log(product: Any, g: Any, x1: Any, x2: Any, edge: float) -> Any:
    """``g`` times the logarithm; 0 where that is infinite, or is none, and ``x1`` is 0."""
    return where(logical_and(equal(x1, 0), less_equal(x2, edge)), 0.0, product(g, x2))


def _divisor(x1: Any, x: Any) -> Any:
    """``x``, the argument of a logarithm; 1 where both are 0."""
    return where(logical_and(equal(x1, 0), equal(x, 0)), 1.0, x)


xlogy = elementwise2(
    "xlogy",
    in_float64(_xlogy),
    lambda g, x1, x2: _times_log(xlogy, g, x1, x2, 0.0),
    lambda g, x1, x2: weighted(g / _divisor(x1, x2), x1),
    "``x1 * log(x2)``, and 0 where ``x1`` is 0, whatever ``x2`` is but NaN.",
    promotion="float",
    second={"low": 0.3},
    reference="scipy.special.xlogy",
    torch="special.xlogy",
    **_SPECIAL,
)
xlog1py = elementwise2(
    "xlog1py",
    in_float64(_xlog1py),
    lambda g, x1, x2: _times_log(xlog1py, g, x1, x2, -1.0),
    lambda g, x1, x2: weighted(g / _divisor(x1, x2 + 1.0), x1),
    "``x1 * log(1 + x2)``, and 0 where ``x1`` is 0, whatever ``x2`` is but NaN.",
    promotion="float",
    second={"low": -0.7},
    reference="scipy.special.xlog1py",
    torch="special.xlog1py",
    **_SPECIAL,
)


def _entr(xp: Any, x: Any) -> Any:
    y = -x * xp.log(xp.where(x > 0, x, 1.0))
    return xp.where(x < 0, -math.inf, xp.where(x == 0, 0.0, y))


def _entr_rule(g: Any, x: Any) -> Any:
    logarithm: Any = log(x)
    return g * (-1.0 - logarithm)


entr = elementwise(
    "entr",
    in_float64(_entr),
    _entr_rule,
    "``-x log(x)``, which is 0 at 0; minus infinity below.",
    low=0.3,
    reference="scipy.special.entr",
    torch="special.entr",
    **_SPECIAL,
)


# --- the logit ------------------------------------------------------------------------------------


def _logit(xp: Any, x: Any) -> Any:
    def near(x: Any) -> Any:
        return xp.log1p((2.0 * x - 1.0) / (1.0 - x))

    return by_cases(xp, (x,), [((x > 0.3) & (x < 0.65), near)], lambda x: xp.log(x / (1.0 - x)))


def _logit_rule(g: Any, x: Any) -> Any:
    inside = where(less_equal(0.0, x), where(less_equal(x, 1.0), x, math.nan), math.nan)
    return g / (inside * (1.0 - inside))


def _logit_reference(x: Any, eps: float | None = None) -> Any:
    x = x if eps is None else np.clip(x, eps, 1 - eps)
    return np.log(x) - np.log1p(-x)


_LOGIT = Primitive(
    "logit",
    in_float64(_logit),
    {"x": _logit_rule},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, low=0.1, high=0.9)),
        lambda s: s(s.real(3, 4, low=0.0, high=1.0), 0.2),
    ],
    reference=_logit_reference,
    torch="special.logit",
    primitive=_LOGIT,
    **_SPECIAL,
)
def logit(x: Any, eps: float | None = None) -> Tensor:
    """``log(x / (1 - x))``: minus infinity at 0, infinity at 1, NaN beyond.

    eps: limits ``x`` to [eps, 1 - eps] before; beyond these limits the gradient is 0.
    """
    if eps is not None:
        limit = number("logit", "eps", eps)
        x = clip(x, limit, 1.0 - limit)
    return apply(_LOGIT, (x,))


# --- sin(x) / x -----------------------------------------------------------------------------------


def _over(xp: Any, sine: Any, x: Any) -> Any:
    none = x == 0
    return xp.where(none, 1.0, sine / xp.where(none, 1.0, x))


def _j0(xp: Any, x: Any) -> Any:
    return xp.where(xp.isinf(x), 0.0, _over(xp, xp.sin(x), x))


def _j1(xp: Any, x: Any) -> Any:
    def far(x: Any) -> Any:
        y = (xp.sin(x) / x - xp.cos(x)) / x
        return xp.where(xp.isinf(x), 0.0, y)

    return by_cases(
        xp, (x,), [(xp.abs(x) < 2, lambda x: x * polynomial(of.SPHERICAL_J1, x * x))], far
    )


def _sinc(xp: Any, x: Any) -> Any:
    return xp.where(xp.isinf(x), 0.0, _over(xp, sine_of_pi(xp, x), x * math.pi))


def _over_itself(y: Any, x: Any) -> Any:
    """``y / x`` of what is 0 where ``x`` is, and about a third of it nearby."""
    none = equal(x, 0)
    return where(none, 1.0 / 3.0, y / where(none, 1.0, x))


_SPHERICAL_J1 = Primitive(
    "spherical_bessel_j1",
    in_float64(_j1),
    {"x": lambda g, x, y: g * (spherical_bessel_j0(x) - 2.0 * _over_itself(y, x))},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


def _slope(g: Any, x: Any) -> Any:
    return g * -apply(_SPHERICAL_J1, (x,))


spherical_bessel_j0 = elementwise(
    "spherical_bessel_j0",
    in_float64(_j0),
    _slope,
    "The spherical Bessel function of order 0: ``sin(x) / x``, and 1 at 0.",
    reference=lambda x: np.sinc(x / np.pi),
    torch=None,
    **_SPECIAL,
)
sinc = elementwise(
    "sinc",
    in_float64(_sinc),
    lambda g, x: _slope(g, x * math.pi) * math.pi,
    "``sin(pi x) / (pi x)``: 1 at 0, and exactly 0 at other whole numbers.",
    reference=lambda x: np.where(x == np.rint(x), x == 0, np.sinc(x)),
    torch="special.sinc",
    **_SPECIAL,
)
