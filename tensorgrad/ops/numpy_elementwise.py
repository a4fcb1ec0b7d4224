"""Elementwise functions of NumPy that the array API standard does not have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import complex, imag, is_complex, real
from tensorgrad.ops.elementwise import (
    abs,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_right_shift,
    clip,
    divide,
    equal,
    exp2,
    floor,
    floor_divide,
    greater,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logaddexp,
    logical_and,
    logical_or,
    maximum,
    minimum,
    multiply,
    pow,
    remainder,
    trunc,
    where,
)
from tensorgrad.ops.inspection import finfo
from tensorgrad.ops.numpy_forms import as_array, as_inexact, inexact, placed, plain, together
from tensorgrad.ops.reductions import all as all_of
from tensorgrad.ops.shaping import broadcast_arrays, shape_of
from tensorgrad.ops.table import elementwise
from tensorgrad.tape import cast, not_for_complex

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "allclose", "array_equal", "array_equiv", "bitwise_count", "bitwise_not", "cbrt", "deg2rad",
    "degrees", "divmod", "fabs", "fix", "float_power", "fmax", "fmin", "fmod", "frexp", "gcd",
    "heaviside", "invert", "isclose", "isneginf", "isposinf", "lcm", "ldexp", "left_shift",
    "logaddexp2", "mod", "modf", "nan_to_num", "rad2deg", "radians", "right_shift", "spacing",
    "true_divide",
]  # fmt: skip

# --- other names of rows --------------------------------------------------------------------------

bitwise_not = bitwise_invert
invert = bitwise_invert
left_shift = bitwise_left_shift
right_shift = bitwise_right_shift
mod = remainder
true_divide = divide

# --- arithmetic -----------------------------------------------------------------------------------

cbrt = elementwise(
    "cbrt",
    "cbrt",
    lambda g, y: g / (y * y * 3.0),
    "The cube root; the gradient at 0 is infinite.",
    avoid=0.0,
    torch=None,
)


def _only_real(name: str, *xs: Any, ordered: bool = False) -> None:
    """Raise DtypeError if there are complex numbers among ``xs``."""
    if any(map(is_complex, xs)):
        raise not_for_complex(name, ordered)


def _scaled(name: str, x: Any, factor: float) -> Any:
    x = as_inexact(x)
    _only_real(name, x)
    return multiply(x, factor)


def deg2rad(x: Any, /) -> Tensor:
    """Degrees as radians."""
    return _scaled("deg2rad", x, math.pi / 180.0)


def radians(x: Any, /) -> Tensor:
    """Degrees as radians."""
    return _scaled("radians", x, math.pi / 180.0)


def rad2deg(x: Any, /) -> Tensor:
    """Radians as degrees."""
    return _scaled("rad2deg", x, 180.0 / math.pi)


def degrees(x: Any, /) -> Tensor:
    """Radians as degrees."""
    return _scaled("degrees", x, 180.0 / math.pi)


def fabs(x: Any, /) -> Tensor:
    """The absolute value, as a floating number."""
    return abs(as_inexact(x))


def logaddexp2(x1: Any, x2: Any, /) -> Tensor:
    """``log2(2**x1 + 2**x2)`` without overflow; the gradient at (-inf, -inf) is 0."""
    half = math.log(2.0)
    x1, x2 = inexact(x1, x2)
    return logaddexp(x1 * half, x2 * half) / half


def float_power(x1: Any, x2: Any, /) -> Tensor:
    """``x1 ** x2`` of floating numbers, which integers become first."""
    x1, x2 = inexact(x1, x2)
    return pow(x1, x2)


def fmod(x1: Any, x2: Any, /) -> Tensor:
    """The remainder with the sign of ``x1``, that of a quotient rounded towards 0."""
    x1, x2 = together(x1, x2)
    _only_real("fmod", x1, x2, ordered=True)
    size = abs(x2)
    return where(less(x1, 0), -remainder(-x1, size), remainder(x1, size))


def divmod(x1: Any, x2: Any, /) -> tuple[Tensor, Tensor]:
    """``floor_divide`` and ``remainder``."""
    return floor_divide(x1, x2), remainder(x1, x2)


def heaviside(x1: Any, x2: Any, /) -> Tensor:
    """0 below 0 and 1 above it, and ``x2`` at 0, which gets its gradient there; NaN of NaN."""
    x1, x2 = inexact(x1, x2)
    _only_real("heaviside", x1, x2, ordered=True)
    return where(isnan(x1), x1, where(less(x1, 0.0), 0.0, where(greater(x1, 0.0), 1.0, x2)))


def _of_numbers(pick: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = together(x1, x2)
    found = pick(x1, x2)
    if x1.dtype not in dtypes.FLOATS and x2.dtype not in dtypes.FLOATS:
        return found
    return where(isnan(x1), x2, where(isnan(x2), x1, found))


def fmax(x1: Any, x2: Any, /) -> Tensor:
    """The larger one; of a number and NaN the number. At a tie each gets half the gradient."""
    return _of_numbers(maximum, x1, x2)


def fmin(x1: Any, x2: Any, /) -> Tensor:
    """The smaller one; of a number and NaN the number. At a tie each gets half the gradient."""
    return _of_numbers(minimum, x1, x2)


# --- parts of numbers -----------------------------------------------------------------------------


def ldexp(x1: Any, x2: Any, /) -> Tensor:
    """``x1 * 2**x2``, also where the power alone is out of range; real ``x2`` get a gradient."""
    x1, x2 = as_inexact(x1), as_array(x2)
    _only_real("ldexp", x1, x2)
    power = cast(x2, np.promote_types(x1.dtype, np.float32))
    whole = left = floor(power.detach() if hasattr(power, "node") else power)
    limit = 1 - math.frexp(finfo(x1.dtype).smallest_normal)[1]
    powers = []
    for _ in range(3):  # powers in range: three lead from the least number to beyond the largest
        part = clip(left, -limit, limit)
        powers.append(cast(exp2(part), x1.dtype))
        left = left - part
    # The largest comes last, so that no number on the way to a subnormal one is rounded twice.
    y = x1 * powers[2] * powers[1] * powers[0]
    return y * cast(exp2(power - whole), y.dtype) if x2.dtype in dtypes.FLOATS else y


def frexp(x: Any, /) -> tuple[Tensor, Tensor]:
    """A number in (-1, -0.5] or [0.5, 1), or 0, and the power of 2 that ``x`` is made of it by."""
    x = as_inexact(x)
    power = plain("frexp", [x], part=1)
    return where(isfinite(x), ldexp(x, -power), x), power


def modf(x: Any, /) -> tuple[Tensor, Tensor]:
    """What is behind the point, and the number without it, both with the sign of ``x``."""
    x = as_inexact(x)
    whole = trunc(x)
    return where(isinf(x), 0.0, x - where(isinf(x), 0.0, whole)), whole


def fix(x: Any, out: Any = None) -> Tensor:
    """Rounded towards 0; the gradient is 0."""
    return placed("fix", trunc(x), out)


def spacing(x: Any, /) -> Tensor:
    """How far the next number of the same dtype is, away from 0."""
    return plain("spacing", [as_inexact(x)])


def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Tensor:
    """``x`` with ``nan`` in place of NaN, and of infinities the largest and smallest numbers.

    posinf, neginf: what to take in place of them. With ``copy=False`` ``x`` is overwritten.
    """
    x = as_array(x)
    if is_complex(x):
        parts = [nan_to_num(of(x), True, nan, posinf, neginf) for of in (real, imag)]
        y = complex(*parts)
    elif x.dtype in dtypes.FLOATS:
        y = _without_nan(x, nan, posinf, neginf)
    else:
        return x
    if not copy:
        x[...] = y
    return y if copy else x


def _without_nan(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    top = finfo(x.dtype).max
    y = where(isnan(x), nan, x)
    y = where(equal(x, math.inf), top if posinf is None else posinf, y)
    return where(equal(x, -math.inf), -top if neginf is None else neginf, y)


# --- integers and comparisons ---------------------------------------------------------------------


def gcd(x1: Any, x2: Any, /) -> Tensor:
    """The greatest common divisor of integers."""
    return plain("gcd", [x1, x2])


def lcm(x1: Any, x2: Any, /) -> Tensor:
    """The least common multiple of integers."""
    return plain("lcm", [x1, x2])


def bitwise_count(x: Any, /) -> Tensor:
    """How many bits of the absolute value of an integer are 1."""
    return plain("bitwise_count", [x])


def isposinf(x: Any, out: Any = None) -> Tensor:
    """Is plus infinity."""
    x = as_array(x)
    _only_real("isposinf", x, ordered=True)
    return placed("isposinf", equal(x, math.inf), out)


def isneginf(x: Any, out: Any = None) -> Tensor:
    """Is minus infinity."""
    x = as_array(x)
    _only_real("isneginf", x, ordered=True)
    return placed("isneginf", equal(x, -math.inf), out)


def isclose(
    a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether ``abs(a - b) <= atol + rtol * abs(b)``; infinities are close to themselves."""
    a, b = inexact(a, b)
    y = logical_and(less_equal(abs(a - b), atol + rtol * abs(b)), isfinite(b))
    y = logical_or(y, equal(a, b))
    return logical_or(y, logical_and(isnan(a), isnan(b))) if equal_nan else y


def allclose(
    a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether all elements are close; see ``isclose``."""
    return all_of(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Tensor:
    """Whether both have one shape and equal elements."""
    a1, a2 = together(a1, a2)
    if shape_of(a1) != shape_of(a2):
        return as_array(False)
    y = equal(a1, a2)
    return all_of(logical_or(y, logical_and(isnan(a1), isnan(a2))) if equal_nan else y)


def array_equiv(a1: Any, a2: Any) -> Tensor:
    """Whether the elements are equal when one is repeated to the shape of the other."""
    a1, a2 = together(a1, a2)
    try:
        a1, a2 = broadcast_arrays(a1, a2)
    except ShapeError:
        return as_array(False)
    return all_of(equal(a1, a2))
