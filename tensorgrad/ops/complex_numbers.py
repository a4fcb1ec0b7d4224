"""Functions of complex numbers that have no complex derivative; see ``complex_parts``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorgrad.ops.complex_parts import complex, zero
from tensorgrad.ops.elementwise import equal, where
from tensorgrad.ops.fast_paths import unary
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["angle"]


def _angle_rule(g: Any, x: Any) -> Any:
    # The angle changes by imag(d / x); at 0 there is none, and the gradient is 0.
    none = equal(x, 0)
    return where(none, 0.0, complex(zero(g), -g) / where(none, 1.0, x))


_ANGLE = Primitive(
    "angle",
    lambda xp, x: xp.angle(x),
    {"x": lambda g: zero(g)},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
    complex=Primitive(
        "angle",
        lambda xp, x: xp.angle(x),
        {"x": _angle_rule},
        promotion="float",
        elementwise=True,
        complex=True,
    ),
)
_angle = unary(_ANGLE)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.0)),
        lambda s: s(s.real(3, 4, avoid=0.0), deg=True),
    ],
    torch=None,
    primitive=_ANGLE,
    numpy="z deg=",
)
def angle(x: Any, /, deg: bool = False) -> Tensor:
    """The angles of complex numbers, in [-pi, pi]; of real ones 0 or pi. The gradient at 0 is 0.

    deg: in degrees.
    """
    return _angle(x) * (180.0 / math.pi) if deg else _angle(x)
