"""Signs and neighbours of floating-point numbers, as their bits have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad.ops.complex_parts import zero
from tensorgrad.ops.elementwise import equal, where
from tensorgrad.ops.fast_paths import binary
from tensorgrad.ops.table import elementwise, elementwise2, operation
from tensorgrad.tape import Primitive

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["copysign", "nextafter", "signbit"]


def _copysign_rule(g: Any, x1: Any, y: Any) -> Any:
    none = equal(x1, 0)
    return where(none, 0.0, g * (y / where(none, 1.0, x1)))


copysign = elementwise2(
    "copysign",
    "copysign",
    _copysign_rule,
    lambda g: zero(g),
    "``x1`` with the sign of ``x2``, that of zeros and NaN too; the gradient at 0 is 0.",
    promotion="float",
    first={"avoid": 0.0},
    second={"avoid": 0.0},
)
signbit = elementwise(
    "signbit",
    "signbit",
    None,
    "Has a minus sign, as -0.0 and some NaN have.",
    promotion="bool",
    cases=[lambda s: s(s.real(3, 4, avoid=0.0))],
)

_NEXTAFTER = Primitive(
    "nextafter",
    "nextafter",
    # away from x2 it is x1 and a constant; at x2 it stands still
    {"x1": lambda g, x1, x2: where(equal(x1, x2), 0.0, g), "x2": lambda g: zero(g)},
    promotion="float",
    elementwise=True,
)
_nextafter = binary(_NEXTAFTER)


@operation(
    cases=[lambda s: s(s.real(3, 4), s.real(3, 4)), lambda s: s(s.real(2, 3, 1), s.real(4))],
    primitive=_NEXTAFTER,
)
def nextafter(x1: Any, x2: Any, /) -> Tensor:
    """The next number of the dtype after ``x1`` on the way to ``x2``.

    The gradient of ``x1`` is 1, and 0 where it is ``x2``; that of ``x2`` is 0.
    """
    return _nextafter(x1, x2)
