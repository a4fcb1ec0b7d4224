"""Orthogonal polynomials by their recurrences, and the derivatives of these, of any order.

Each family is ``p_0 = 1`` and ``p_(k+1) = (a x + b) p_k - c p_(k-1)`` (NIST Digital Library of
Mathematical Functions, 18.9). The m-th derivative follows the same recurrence with ``m a`` times
the one before added, so that a slope is exact wherever the value is, and of every order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.ops.table import operation
from tensorgrad.ops.wide import in_float64
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
    "chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
    "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
    "shifted_chebyshev_polynomial_w",
]  # fmt: skip

#: a, b and c of the step from k
Step = Callable[[int], tuple[float, float, float]]


def _chebyshev(a: float, b: float) -> Step:
    """The kind whose polynomial of degree 1 is ``a x + b``."""
    return lambda k: (2.0, 0.0, 1.0) if k else (a, b, 0.0)


_STEPS: dict[str, Step] = {
    "t": _chebyshev(1.0, 0.0),
    "u": _chebyshev(2.0, 0.0),
    "v": _chebyshev(2.0, -1.0),
    "w": _chebyshev(2.0, 1.0),
    "h": lambda k: (2.0, 0.0, 2.0 * k),
    "he": lambda k: (1.0, 0.0, float(k)),
    "l": lambda k: (-1.0 / (k + 1), (2.0 * k + 1.0) / (k + 1), k / (k + 1)),
    "p": lambda k: ((2.0 * k + 1.0) / (k + 1), 0.0, k / (k + 1)),
}


def _following(
    step: tuple[float, float, float], x: Any, last: Sequence[Any], before: Sequence[Any]
) -> list[Any]:
    """The next polynomial and its derivatives, of the two before it and theirs."""
    a, b, c = step
    factor = a * x + b if b else a * x
    found = []
    for m, y in enumerate(last):
        y = factor * y - c * before[m] if c else factor * y
        found.append(y + (m * a) * last[m - 1] if m else y)
    return found


def _of_degree(xp: Any, x: Any, kind: str, n: int, order: int) -> Any:
    zero = x * 0.0
    last, before = [zero + 1.0, *[zero] * order], [zero] * (order + 1)
    for k in range(n):
        last, before = _following(_STEPS[kind](k), x, last, before), last
    return last[order] if n >= 0 else zero


def _of_degrees(xp: Any, x: Any, n: Any, kind: str, order: int) -> Any:
    n, zero = xp.trunc(n), x * 0.0
    last, before = [zero + 1.0, *[zero] * order], [zero] * (order + 1)
    found = xp.where(n == 0, last[order], zero)
    for k in range(int(n.max()) if n.size else 0):
        last, before = _following(_STEPS[kind](k), x, last, before), last
        found = xp.where(n == k + 1, last[order], found)
    return found


def _slope_of_degree(g: Any, x: Any, kind: str, n: int, order: int) -> Any:
    return g * apply(_OF_DEGREE, (x,), {"kind": kind, "n": n, "order": order + 1})


def _slope_of_degrees(g: Any, x: Any, n: Any, kind: str, order: int) -> Any:
    return g * apply(_OF_DEGREES, (x, n), {"kind": kind, "order": order + 1})


_FACTS: dict[str, Any] = {"promotion": "float", "half_in_float32": True, "elementwise": True}
_OF_DEGREE: Primitive = Primitive(
    "polynomial_of_degree", in_float64(_of_degree), {"x": _slope_of_degree}, **_FACTS
)
_OF_DEGREES: Primitive = Primitive(
    "polynomial_of_degrees",
    in_float64(_of_degrees),
    {"x": _slope_of_degrees, "n": None},
    **_FACTS,
)


def _reference(kind: str) -> Callable[[Any, Any], Any]:
    """The same in NumPy alone, for the tests."""
    from numpy.polynomial import chebyshev, hermite, hermite_e, laguerre, legendre

    def unit(n: int) -> list[int]:
        return [0] * n + [1]

    def u(x: Any, n: int) -> Any:
        return chebyshev.chebval(x, chebyshev.chebder(unit(n + 1))) / (n + 1) if n >= 0 else 0.0

    values: dict[str, Callable[[Any, int], Any]] = {
        "t": lambda x, n: chebyshev.chebval(x, unit(n)),
        "u": u,
        "v": lambda x, n: u(x, n) - u(x, n - 1),
        "w": lambda x, n: u(x, n) + u(x, n - 1),
        "h": lambda x, n: hermite.hermval(x, unit(n)),
        "he": lambda x, n: hermite_e.hermeval(x, unit(n)),
        "l": lambda x, n: laguerre.lagval(x, unit(n)),
        "p": lambda x, n: legendre.legval(x, unit(n)),
    }
    return np.vectorize(lambda x, n: values[kind](x, int(n)), otypes=[np.float64])


def _family(kind: str, name: str, of: str, shifted: bool = False) -> Callable[[Any, Any], Tensor]:
    """A row for a family of polynomials."""

    def call(x: Any, n: Any) -> Tensor:
        if shifted:
            x = 2.0 * x - 1.0
        if isinstance(n, int | np.integer):
            return apply(_OF_DEGREE, (x,), {"kind": kind, "n": int(n), "order": 0})
        return apply(_OF_DEGREES, (x, n), {"kind": kind, "order": 0})

    def reference(x: Any, n: Any) -> Any:
        return _reference(kind)(2 * x - 1 if shifted else x, n)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"{of} of degree ``n``, a number or a tensor of them, at ``x``.\n\n"
        "Of what is no whole number the part before the point counts, and below 0 it is 0. There\n"
        "is no gradient in ``n``."
    )
    cases = [
        lambda s: s(s.real(3, 4, low=0.1, high=0.9), 5),
        lambda s: s(s.real(2, 3, low=-0.9, high=0.9), np.array([0, 3, 1])),
    ]
    enter = operation(
        cases=cases,
        reference=reference,
        torch=None,
        method=False,
        primitive=_OF_DEGREE,
        namespace="special",
    )
    return enter(call)


chebyshev_polynomial_t = _family(
    "t", "chebyshev_polynomial_t", "The Chebyshev polynomial of the first kind"
)
chebyshev_polynomial_u = _family(
    "u", "chebyshev_polynomial_u", "The Chebyshev polynomial of the second kind"
)
chebyshev_polynomial_v = _family(
    "v", "chebyshev_polynomial_v", "The Chebyshev polynomial of the third kind"
)
chebyshev_polynomial_w = _family(
    "w", "chebyshev_polynomial_w", "The Chebyshev polynomial of the fourth kind"
)
hermite_polynomial_h = _family("h", "hermite_polynomial_h", "The Hermite polynomial of physicists")
hermite_polynomial_he = _family(
    "he", "hermite_polynomial_he", "The Hermite polynomial of statisticians"
)
laguerre_polynomial_l = _family("l", "laguerre_polynomial_l", "The Laguerre polynomial")
legendre_polynomial_p = _family("p", "legendre_polynomial_p", "The Legendre polynomial")
shifted_chebyshev_polynomial_t = _family(
    "t", "shifted_chebyshev_polynomial_t", "``chebyshev_polynomial_t`` at ``2 x - 1``,", True
)
shifted_chebyshev_polynomial_u = _family(
    "u", "shifted_chebyshev_polynomial_u", "``chebyshev_polynomial_u`` at ``2 x - 1``,", True
)
shifted_chebyshev_polynomial_v = _family(
    "v", "shifted_chebyshev_polynomial_v", "``chebyshev_polynomial_v`` at ``2 x - 1``,", True
)
shifted_chebyshev_polynomial_w = _family(
    "w", "shifted_chebyshev_polynomial_w", "``chebyshev_polynomial_w`` at ``2 x - 1``,", True
)
