"""Elementwise arithmetic, comparison and the functions of calculus: a row of the table each.

A row reads: name, value, gradient rule(s), documentation. ``g`` is the incoming gradient, ``y`` the
output, ``x`` (or ``x1`` and ``x2``) the input; a rule saves what it names and nothing more. All
functions take tensors, beside which there may be arrays and scalars, broadcast, and return a
tensor of the broadcast shape. Of bare arrays they return a bare array, as NumPy would.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import builtins
import cmath
import math
from contextvars import Context
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import (
    COMPLEX,
    FLOATS,
    WIDE_FLOATS,
    complex_of,
    float32,
    float64,
    int32,
    int64,
)
from tensorgrad.errors import DtypeError
from tensorgrad.ops import special
from tensorgrad.ops.complex_parts import conj, imag, is_complex
from tensorgrad.ops.complex_parts import zero as _zero
from tensorgrad.ops.fast_paths import binary, ternary, unary
from tensorgrad.ops.numbers import constant
from tensorgrad.ops.sums import least_squares
from tensorgrad.ops.table import elementwise, elementwise2, operation
from tensorgrad.tape import NUMBERS, Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctan2", "arctanh", "around", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "ceil", "clamp", "clip", "cos", "cosh", "divide", "equal", "erf", "exp", "exp2", "expm1",
    "floor", "floor_divide", "greater", "greater_equal", "hypot", "isfinite", "isinf", "isnan",
    "less", "less_equal", "log", "log1p", "log2", "log10", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative",
    "not_equal", "positive", "pow", "power", "reciprocal", "remainder", "rint", "round", "rsqrt",
    "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "trunc", "where",
]  # fmt: skip

INTEGER: dict[str, Any] = {"promotion": "same"}  # defined on integers too, and keeps their dtype
LOGICAL: dict[str, Any] = {"promotion": "bool"}


# --- arithmetic -------------------------------------------------------------------------------

add = elementwise2(
    "add", "add", lambda g: g, lambda g: g, "The sum ``x1 + x2``.", first={"low": -3}, complex=True
)
subtract = elementwise2(
    "subtract", "subtract", lambda g: g, lambda g: -g, "The difference ``x1 - x2``.", complex=True
)
multiply = elementwise2(
    "multiply",
    "multiply",
    lambda g, x2: g * x2,
    lambda g, x1: g * x1,
    "The product ``x1 * x2``.",
    complex=True,
)
divide = elementwise2(
    "divide",
    "divide",
    lambda g, x2: g / x2,
    lambda g, y, x2: -(g * y) / x2,
    "The quotient ``x1 / x2``; integers give the default real dtype.",
    promotion="float",
    second={"low": 0.5},
    complex=True,
)


def _floor_divide_value(xp: Any, x1: Any, x2: Any) -> Any:
    y = xp.floor_divide(x1, x2)
    if y.dtype.kind in "iub":
        return y
    if isinstance(x1, int | float):
        x1 = y.dtype.type(x1)
    elif isinstance(x2, int | float):
        x2 = y.dtype.type(x2)
    if xp is np and np.isfinite(x1).all() and np.isfinite(x2).all():
        return y
    # Of one infinity the standard has the quotient, as it is; NumPy has NaN, or -1 for -0.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        return xp.where((xp.isinf(x1) != xp.isinf(x2)) & (x2 != 0), x1 / x2, y)


floor_divide = elementwise2(
    "floor_divide",
    _floor_divide_value,
    None,
    None,
    "The quotient rounded towards minus infinity. Piecewise constant: it carries no gradient.",
    second={"low": 0.5},
)
remainder = elementwise2(
    "remainder",
    "remainder",
    lambda g: g,
    lambda g, x1, x2: -g * floor_divide(x1, x2),
    "The remainder ``x1 - floor(x1 / x2) * x2``; it has the sign of ``x2``.",
    first={"low": 2.1, "high": 2.9},
    second={"low": 1.1, "high": 1.9},
)
negative = elementwise("negative", "negative", lambda g: -g, "``-x``.", **INTEGER, complex=True)
positive = elementwise(
    "positive", "positive", lambda g: g, "``+x``, a copy.", moves=True, **INTEGER, complex=True
)
square = elementwise(
    "square", "square", lambda g, x: g * x * 2.0, "``x * x``.", **INTEGER, complex=True
)
reciprocal = elementwise(
    "reciprocal", "reciprocal", lambda g, y: -g * y * y, "``1 / x``.", low=0.5, complex=True
)
abs = elementwise(
    "abs",
    "abs",
    lambda g, x: g * sign(x),
    "The absolute value; the gradient at 0 is 0.",
    avoid=0.0,
    complex=Primitive(
        "abs",
        "abs",
        {"x": lambda g, x: g * conj(sign(x))},  # it changes by real(conj(sign(x)) * d)
        promotion="same",
        elementwise=True,
        complex=True,
    ),
    **INTEGER,
)
absolute = abs


def _sign_of_complex(xp: Any, x: Any) -> Any:
    size = xp.abs(x)
    with np.errstate(invalid="ignore"):
        y = x / xp.where(size == 0, size.dtype.type(1), size)
    return xp.where(size == 0, x.dtype.type(0), y)


def _sign_rule(g: Any, x: Any, y: Any) -> Any:
    # It turns by imag(conj(y) * d) / abs(x), which multiplies it by 1j.
    size = abs(x)
    none = equal(size, 0)
    turned = imag(g * y) * conj(y) / where(none, 1.0, size)
    return where(none, 0.0, turned * 1j)


sign = elementwise(
    "sign",
    "sign",
    _zero,
    "-1, 0 or 1, with the gradient 0; of complex numbers ``x / abs(x)``, and 0 of 0.",
    avoid=0.0,
    complex=Primitive(
        "sign",
        _sign_of_complex,
        {"x": _sign_rule},
        promotion="same",
        elementwise=True,
        complex=True,
    ),
    **INTEGER,
)


def _power_value(xp: Any, x: Any, exponent: float) -> Any:
    if exponent == 2:
        return xp.multiply(x, x)
    if exponent == 0.5:
        return xp.sqrt(x)
    return xp.power(x, exponent)


def _power_rule(g: Any, x: Any, exponent: float) -> Any:
    if exponent == 0:
        return _zero(g)
    if exponent == 1:
        return g
    return g * exponent * pow(x, exponent - 1)


_POWER = Primitive(
    "pow",
    lambda xp, x1, x2: xp.power(x1, x2),
    {
        "x1": lambda g, x1, x2: weighted(_of_base(g, x1, x2), x2),
        "x2": lambda g, x1, x2, y: g * y * _log_or_nan(x1, x2),
    },
    promotion="same",
    half_in_float32=True,
    elementwise=True,
    complex=Primitive(
        "pow",
        lambda xp, x1, x2: xp.power(x1, x2),
        {
            "x1": lambda g, x1, x2: _of_base(g, x1, x2) * x2,
            # of 0 ** x2 it is 0, as long as this is 0
            "x2": lambda g, x1, x2, y: g * where(equal(y, 0), 0.0, y * log(_not_zero(x1))),
        },
        promotion="same",
        elementwise=True,
        complex=True,
    ),
)


def _of_base(g: Any, x1: Any, x2: Any) -> Any:
    """The gradient of ``x1 ** x2`` with respect to ``x1``, but for the factor ``x2``.

    ``x ** 0`` is 1 for 0 and NaN too, so this is finite there, though ``x1 ** -1`` is not.
    """
    flat = logical_and(equal(x2, 0), logical_or(equal(x1, 0), not_equal(x1, x1)))
    return g * pow(where(flat, 1.0, x1), x2 - 1.0)


def _not_zero(x: Any) -> Any:
    return where(equal(x, 0), 1.0, x)


def _log_or_nan(base: Any, exponent: Any) -> Any:
    """The logarithm of a base; NaN of a negative one.

    Of 0 it is 0 if the exponent is not negative, since ``0 ** exponent`` stays 0.
    """
    found = where(less(base, 0), math.nan, log(where(greater(base, 0), base, 1.0)))
    return where(logical_and(equal(base, 0), less(exponent, 0)), -math.inf, found)


_POWER_CONSTANT = Primitive(
    "pow",
    _power_value,
    {"x": _power_rule},
    promotion="same",
    half_in_float32=True,
    elementwise=True,
    complex=True,
)
_POWER_OF_CONSTANT: Primitive = Primitive(
    "pow",
    lambda xp, x, base: xp.power(constant(base, x.dtype) if xp is np and base else base, x),
    {"x": lambda g, y, base: _of_exponent(g, y, base)},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
    complex=Primitive(
        "pow",
        lambda xp, x, base: xp.power(x.dtype.type(base), x),
        {"x": lambda g, y, base: g * (y * cmath.log(base) if base else _zero(y))},
        promotion="same",
        elementwise=True,
        complex=True,
    ),
)
_power_of_tensor = binary(_POWER)


def _of_exponent(g: Any, y: Any, base: float) -> Any:
    if base == 0:  # of 0 ** x the slope is 0, and -inf where 0 ** x is infinite
        return g * where(equal(y, math.inf), -math.inf, y * 0.0)
    return g * y * (math.log(base) if base > 0 else math.nan)  # of (-1) ** x there is none


@operation(
    cases=[
        lambda s: s(s.real(3, 4, low=0.5), s.real(3, 4)),
        lambda s: s(s.real(2, 3, 1, low=0.5), s.real(4)),
        lambda s: s(s.real(3, 4), 3),
        lambda s: s(s.real(3, 4, low=0.5), -1.5),
        lambda s: s(2.0, s.real(3, 4)),
        lambda s: s(s.real(3), 0),
        lambda s: s(s.real(3), 1),
    ],
    reference="power",
    primitive=_POWER,
)
def pow(x1: Any, x2: Any, /) -> Tensor:
    """``x1 ** x2``. A plain number as exponent has a rule of its own, with no logarithm.

    Integers to a negative power give the default real dtype, as ``1 / x`` does.
    """
    x1, x2 = plain(x1), plain(x2)
    # Next to real numbers True is 1; the rules for two tensors take no plain numbers.
    if type(x2) is bool and getattr(x1, "dtype", None) in FLOATS:
        x2 = int(x2)
    elif type(x1) is bool and getattr(x2, "dtype", None) in FLOATS:
        x1 = int(x1)
    if is_complex(x1) or is_complex(x2):
        return _power_of_complex(x1, x2)
    if type(x2) is int or type(x2) is float:
        dtype = getattr(x1, "dtype", None)
        if dtype in FLOATS or (type(x2) is int and x2 >= 0 and dtype is not None):
            return apply(_POWER_CONSTANT, (x1,), {"exponent": x2})
        if dtype is not None:
            x2 = float(x2)
    elif (type(x1) is int or type(x1) is float) and getattr(x2, "dtype", None) in FLOATS:
        return apply(_POWER_OF_CONSTANT, (x2,), {"base": x1})
    return _power_of_tensor(x1, x2)


power = pow


def _power_of_complex(x1: Any, x2: Any) -> Any:
    """``x1 ** x2``, one of which is complex."""
    if type(x2) in NUMBERS and getattr(x1, "dtype", None) is not None:
        x1 = x1 if x1.dtype in COMPLEX else cast(x1, complex_of(x1.dtype))
        return apply(_POWER_CONSTANT, (x1,), {"exponent": x2})
    if type(x1) in NUMBERS and getattr(x2, "dtype", None) is not None:
        x2 = x2 if x2.dtype in COMPLEX else cast(x2, complex_of(x2.dtype))
        return apply(_POWER_OF_CONSTANT, (x2,), {"base": x1})
    return _power_of_tensor(x1, x2)


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python number, which takes on the dtype of what it meets."""
    return value.item() if isinstance(value, np.generic) else value


# --- exponentials, logarithms, roots ------------------------------------------------------------

exp = elementwise("exp", "exp", lambda g, y: g * y, "The exponential e**x.")


def _expm1_of_complex(xp: Any, x: Any) -> Any:
    whole = xp.isfinite(x)
    with np.errstate(invalid="ignore"):
        y = xp.asarray(xp.expm1(x))
        y.real += 0  # of -0 it is 0
        if xp is np and whole.all():
            return y
        # Special numbers are those of exp, as the standard says.
        return xp.where(whole, y, xp.exp(x) - x.dtype.type(1))


expm1 = elementwise(
    "expm1",
    "expm1",
    lambda g, y: g * (y + 1.0),
    "``exp(x) - 1``, exact for small ``x``.",
    complex=Primitive(
        "expm1",
        _expm1_of_complex,
        {"x": lambda g, y: g * (y + 1.0)},
        promotion="float",
        elementwise=True,
        complex=True,
    ),
)
exp2 = elementwise("exp2", "exp2", lambda g, y: g * y * math.log(2.0), "``2 ** x``.", complex=True)
log = elementwise("log", "log", lambda g, x: g / x, "The natural logarithm.", low=0.3, complex=True)
log1p = elementwise(
    "log1p",
    "log1p",
    lambda g, x: g / (x + 1.0),
    "``log(1 + x)``, exact for small ``x``.",
    low=-0.7,
    complex=True,
)
log2 = elementwise(
    "log2",
    "log2",
    lambda g, x: g / x * (1 / math.log(2.0)),
    "The logarithm to base 2.",
    low=0.3,
    complex=True,
)
log10 = elementwise(
    "log10", "log10", lambda g, x: g / x * (1 / math.log(10.0)), "The logarithm to base 10.",
    low=0.3, complex=True,
)  # fmt: skip


# Where NumPy says nothing of overflow. Entering it costs a tenth of what np.errstate costs; it is
# copied for each use, since two threads cannot be in one context.
_UNCHECKED = Context()
_UNCHECKED.run(np.seterr, over="ignore")


def sigmoid_value(xp: Any, x: Any) -> Any:
    """What ``sigmoid`` computes, in an array of its own."""
    # exp(-x) may overflow to infinity, whose reciprocal is the right 0: no branch is needed, and
    # the result keeps its relative accuracy for negative x, which tanh(x / 2) / 2 + 1 / 2 loses.
    if xp is not np:
        return xp.sigmoid(x) if isinstance(xp, Namespace) else 1 / (1 + xp.exp(-x))
    y = _UNCHECKED.copy().run(np.exp, np.negative(x))
    if type(y) is not np.ndarray:  # of a 0-d array
        return 1 / (1 + y)
    y += constant(1.0, y.dtype)
    return np.reciprocal(y, y)


def _sigmoid_rule(g: Any, y: Any) -> Any:
    if type(g) is np.ndarray and g.shape:  # the same in place, which is quicker
        d = np.subtract(constant(1.0, y.dtype), y)
        d *= y
        d *= g
        return d
    return (1.0 - y) * y * g


def sigmoid_reference(x: Any) -> Any:
    """``sigmoid`` in NumPy alone, for the tests."""
    return 1 / (1 + np.exp(-x))


sigmoid = elementwise(
    "sigmoid",
    sigmoid_value,
    _sigmoid_rule,
    "The logistic function ``1 / (1 + exp(-x))``, without overflow at any ``x``.",
    reference=sigmoid_reference,
    kernel="sigmoid",
    complex=True,
)
logaddexp = elementwise2(
    "logaddexp",
    "logaddexp",
    # not exp(x1 - y): at large arguments the rounding of y would change it by a factor
    lambda g, x1, x2: _of_sum(g, x1, x2),
    lambda g, x1, x2: _of_sum(g, x2, x1),
    "``log(exp(x1) + exp(x2))`` without overflow; the gradient at (-inf, -inf) is 0.",
    promotion="float",
)


def _of_sum(g: Any, x1: Any, x2: Any) -> Any:
    """``g`` times the part of ``exp(x1)`` in the sum with ``exp(x2)``; of equal ones a half."""
    with np.errstate(invalid="ignore"):  # the difference of equal infinities is NaN
        apart = x1 - x2
    part = sigmoid(where(logical_and(equal(x1, x2), isinf(x1)), 0.0, apart))
    return g * where(equal(x1, -math.inf), 0.0, part)


def _sqrt_rule(g: Any, y: Any) -> Any:
    if type(g) is np.ndarray and g.shape:  # the same in place, which is quicker
        d = np.multiply(g, constant(0.5, g.dtype))
        d /= y
        return d
    return g * 0.5 / y


sqrt = elementwise("sqrt", "sqrt", _sqrt_rule, "The square root.", low=0.3, complex=True)
rsqrt = elementwise(
    "rsqrt",
    lambda xp, x: xp.reciprocal(xp.sqrt(x)),
    lambda g, y: g * -0.5 * (y * y * y),
    "``1 / sqrt(x)``.",
    low=0.3,
    reference=lambda x: 1 / np.sqrt(x),
    complex=True,
)
hypot = elementwise2(
    "hypot",
    "hypot",
    lambda g, x1, y: g * ratio(x1, y),
    lambda g, x2, y: g * ratio(x2, y),
    "``sqrt(x1**2 + x2**2)`` without overflow; the gradient at (0, 0) is 0.",
    promotion="float",
    first={"low": 0.5},
)

# --- trigonometric and hyperbolic ---------------------------------------------------------------

sin = elementwise("sin", "sin", lambda g, x: g * cos(x), "The sine of ``x`` radians.", complex=True)
cos = elementwise(
    "cos", "cos", lambda g, x: -g * sin(x), "The cosine of ``x`` radians.", complex=True
)
tan = elementwise(
    "tan", "tan", lambda g, y: g * (y * y + 1.0), "The tangent.", low=-1.2, high=1.2, complex=True
)
asin = elementwise(
    "asin",
    "arcsin",
    lambda g, x: g * rsqrt((1.0 - x) * (1.0 + x)),
    "The inverse sine, in [-pi/2, pi/2].",
    low=-0.9,
    high=0.9,
    complex=True,
)
arcsin = asin
acos = elementwise(
    "acos",
    "arccos",
    lambda g, x: -g * rsqrt((1.0 - x) * (1.0 + x)),
    "The inverse cosine, in [0, pi].",
    low=-0.9,
    high=0.9,
    complex=True,
)
arccos = acos
atan = elementwise(
    "atan",
    "arctan",
    lambda g, x: g / (x * x + 1.0),
    "The inverse tangent, in (-pi/2, pi/2).",
    complex=True,
)
arctan = atan
atan2 = elementwise2(
    "atan2",
    "arctan2",
    lambda g, x1, x2: g * _over_squares(x2, x1),
    lambda g, x1, x2: -g * _over_squares(x1, x2),
    "The angle of the point (x2, x1), in [-pi, pi]; the gradient at (0, 0) is 0.",
    promotion="float",
    first={"low": 0.3},
)
arctan2 = atan2


def _over_squares_value(xp: Any, x: Any, other: Any) -> Any:
    if isinstance(x, int | float):  # of which ``abs`` would make a float64
        x = other.dtype.type(x)
    elif isinstance(other, int | float):
        other = x.dtype.type(other)
    if xp is np:
        with np.errstate(over="ignore", under="ignore"):
            squares = x * x
            squares = squares + other * other
        if squares.size and _inside(squares, least_squares(squares.dtype)):
            return x / squares
    top = xp.maximum(xp.abs(x), xp.abs(other))
    none = (top == 0) | xp.isinf(top)
    top = xp.where(none, top.dtype.type(1), top)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        part, rest = x / top, other / top
        y = part / (part * part + rest * rest) / top
    return xp.where(none, y.dtype.type(0), y)


def _inside(x: Any, least: float) -> bool:
    """Whether all numbers are above ``least`` and finite."""
    return bool(x.min() > least and x.max() < math.inf)


_over_squares = binary(
    Primitive(
        "over_squares",
        _over_squares_value,
        {
            "x": lambda g, x, other: (
                g * (square(_over_squares(other, x)) - square(_over_squares(x, other)))
            ),
            "other": lambda g, x, other: (
                g * -2.0 * _over_squares(x, other) * _over_squares(other, x)
            ),
        },
        promotion="float",
        half_in_float32=True,
        elementwise=True,
    )
)


sinh = elementwise("sinh", "sinh", lambda g, x: g * cosh(x), "The hyperbolic sine.", complex=True)
cosh = elementwise("cosh", "cosh", lambda g, x: g * sinh(x), "The hyperbolic cosine.", complex=True)


def _tanh_rule(g: Any, y: Any) -> Any:
    # g (1 - y**2) without a constant: a number beside an array costs more than a multiplication
    if type(g) is np.ndarray and g.shape:  # the same in place, which is quicker
        d = np.multiply(g, y)
        d *= y
        return np.subtract(g, d, d)
    return g - g * y * y


def _tanh_of_complex(xp: Any, x: Any) -> Any:
    y, ends = xp.asarray(xp.tanh(x)), xp.isinf(x.real) & xp.isfinite(x.imag)
    if xp is not np or ends.any():  # the standard's zero has the sign of the imaginary part
        y.imag = xp.where(ends, x.imag * 0, y.imag)
    return y


tanh = elementwise(
    "tanh",
    "tanh",
    _tanh_rule,
    "The hyperbolic tangent.",
    kernel="tanh",
    complex=Primitive(
        "tanh",
        _tanh_of_complex,
        {"x": _tanh_rule},
        promotion="float",
        elementwise=True,
        complex=True,
    ),
)
asinh = elementwise(
    "asinh",
    "arcsinh",
    lambda g, x: g / hypot(x, 1.0),  # x * x would overflow
    "The inverse hyperbolic sine.",
    complex=Primitive(
        "asinh",
        "arcsinh",
        {"x": lambda g, x: g * rsqrt(1.0 + x * 1j) * rsqrt(1.0 - x * 1j)},
        promotion="float",
        elementwise=True,
        complex=True,
    ),
)
arcsinh = asinh
acosh = elementwise(
    "acosh",
    "arccosh",
    lambda g, x: g * rsqrt(x - 1.0) * rsqrt(x + 1.0),  # x * x would overflow
    "The inverse hyperbolic cosine.",
    low=1.2,
    high=3.0,
    complex=True,
)
arccosh = acosh
atanh = elementwise(
    "atanh",
    "arctanh",
    lambda g, x: g / ((1.0 - x) * (1.0 + x)),
    "The inverse hyperbolic tangent.",
    low=-0.9,
    high=0.9,
    complex=True,
)
arctanh = atanh
erf = elementwise(
    "erf",
    special.erf,
    lambda g, x: g * (2.0 / math.sqrt(math.pi)) * exp(-(x * x)),
    "The error function ``2/sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to ``x``.",
    reference=lambda x: np.vectorize(math.erf, otypes=[np.float64])(x),
    torch="special.erf",
)

# --- rounding (piecewise constant: the gradient is 0) ---------------------------------------------

_STEP: dict[str, Any] = {"promotion": "same", "low": 0.1, "high": 0.4}
floor = elementwise("floor", "floor", _zero, "Rounded down; the gradient is 0.", **_STEP)
ceil = elementwise("ceil", "ceil", _zero, "Rounded up; the gradient is 0.", **_STEP)
trunc = elementwise("trunc", "trunc", _zero, "Rounded towards 0; the gradient is 0.", **_STEP)
_ROUND = Primitive(
    "round",
    lambda xp, x: x.copy() if x.dtype.kind in "iub" else xp.rint(x),
    {"x": _zero},
    promotion="same",
    half_in_float32=True,
    elementwise=True,
    complex=True,
)
_rounded = unary(_ROUND)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, low=0.1, high=0.4)),
        lambda s: s(s.real(3, 4, low=0.21, high=0.24), 1),
        lambda s: s(s.real(3, 4, low=0.1, high=0.4), -1),
    ],
    torch=None,
    primitive=_ROUND,
    numpy="a decimals= !out",
)
def round(x: Any, /, decimals: int = 0) -> Tensor:
    """Rounded to the nearest integer, halves to even; the gradient is 0.

    decimals: to so many behind the point; if negative, to tens, hundreds, ...
    """
    if not decimals:
        return _rounded(x)
    power = 10.0 ** builtins.abs(decimals)
    if getattr(x, "dtype", float32) in FLOATS | COMPLEX or not hasattr(x, "dtype"):
        return _rounded(x * power) / power if decimals > 0 else _rounded(x / power) * power
    return _rounded(x) if decimals > 0 else cast(_rounded(x / power) * power, x.dtype)


around = round
rint = round

# --- comparison and logic -----------------------------------------------------------------------

equal = elementwise2(
    "equal", "equal", None, None, "``x1 == x2``, elementwise.", torch="eq", **LOGICAL, complex=True
)
not_equal = elementwise2(
    "not_equal", "not_equal", None, None, "``x1 != x2``, elementwise.", **LOGICAL, complex=True
)
less = elementwise2("less", "less", None, None, "``x1 < x2``, elementwise.", **LOGICAL)
less_equal = elementwise2(
    "less_equal", "less_equal", None, None, "``x1 <= x2``, elementwise.", **LOGICAL
)
greater = elementwise2("greater", "greater", None, None, "``x1 > x2``, elementwise.", **LOGICAL)
greater_equal = elementwise2(
    "greater_equal", "greater_equal", None, None, "``x1 >= x2``, elementwise.", **LOGICAL
)
logical_and = elementwise2(
    "logical_and", "logical_and", None, None, "Both are true (not zero).", **LOGICAL, complex=True
)
logical_or = elementwise2(
    "logical_or",
    "logical_or",
    None,
    None,
    "At least one is true (not zero).",
    **LOGICAL,
    complex=True,
)
logical_xor = elementwise2(
    "logical_xor",
    "logical_xor",
    None,
    None,
    "Exactly one is true (not zero).",
    **LOGICAL,
    complex=True,
)
logical_not = elementwise(
    "logical_not", "logical_not", None, "False (zero).", **LOGICAL, complex=True
)
isnan = elementwise("isnan", "isnan", None, "Is NaN.", **LOGICAL, complex=True)
isinf = elementwise("isinf", "isinf", None, "Is plus or minus infinity.", **LOGICAL, complex=True)
isfinite = elementwise(
    "isfinite", "isfinite", None, "Is neither infinite nor NaN.", **LOGICAL, complex=True
)

_BITS = [lambda s: s(s.ints(3, 4, high=9), s.ints(4, high=9))]
bitwise_and = elementwise2(
    "bitwise_and",
    "bitwise_and",
    None,
    None,
    "``x1 & x2`` of integers or truth values.",
    cases=_BITS,
)
bitwise_or = elementwise2(
    "bitwise_or", "bitwise_or", None, None, "``x1 | x2`` of integers or truth values.", cases=_BITS
)
bitwise_xor = elementwise2(
    "bitwise_xor",
    "bitwise_xor",
    None,
    None,
    "``x1 ^ x2`` of integers or truth values.",
    cases=_BITS,
)
bitwise_left_shift = elementwise2(
    "bitwise_left_shift",
    "left_shift",
    None,
    None,
    "``x1 << x2`` of integers.",
    cases=_BITS,
    reference="left_shift",
)
bitwise_right_shift = elementwise2(
    "bitwise_right_shift",
    "right_shift",
    None,
    None,
    "``x1 >> x2`` of integers.",
    cases=_BITS,
    reference="right_shift",
)


def _invert_value(xp: Any, x: Any) -> Any:
    return xp.invert(x)


_INVERT = Primitive("bitwise_invert", _invert_value, {"x": None}, elementwise=True)


@operation(
    cases=[lambda s: s(s.ints(3, 4, high=9))],
    reference="invert",
    torch="bitwise_not",
    gradient=False,
    primitive=_INVERT,
)
def bitwise_invert(x: Any, /) -> Tensor:
    """``~x`` of integers or truth values."""
    return apply(_INVERT, (x,))


# --- selection ----------------------------------------------------------------------------------


def _part_value(xp: Any, g: Any, x1: Any, x2: Any) -> Any:
    more, same = xp.greater(x1, x2), xp.equal(x1, x2)
    y = keep_where(xp, more, g)
    if xp is not np or same.any():
        y = y + keep_where(xp, same, g * 0.5)
    return y


_PART: Primitive = Primitive(
    "part_of_larger",
    _part_value,
    {"g": lambda g, x1, x2: _part_of_larger(g, x1, x2), "x1": None, "x2": None},
    promotion="same",
    half_in_float32=True,
    elementwise=True,
)


def _part_of_larger(g: Any, x1: Any, x2: Any) -> Any:
    """The gradient of x1 where the larger of x1 and x2 was taken; ties share.

    It is chosen and not multiplied: the gradient of what was not taken may be infinite.
    """
    return apply(_PART, (g, x1, x2))


maximum = elementwise2(
    "maximum",
    "maximum",
    lambda g, x1, x2: _part_of_larger(g, x1, x2),
    lambda g, x1, x2: _part_of_larger(g, x2, x1),
    "The larger of ``x1`` and ``x2``; NaN if either is. At a tie each gets half the gradient.",
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.0), 0.0),
        lambda s: s(s.real(3, 4, high=0.9), s.real(3, 4, low=1.0)),
        lambda s: s(s.real(2, 3, 1, low=1.0), s.real(4, high=0.9)),
        lambda s: s(s.real(), s.real(4, low=3.0, high=4.0)),
    ],
)
minimum = elementwise2(
    "minimum",
    "minimum",
    lambda g, x1, x2: _part_of_larger(g, x2, x1),
    lambda g, x1, x2: _part_of_larger(g, x1, x2),
    "The smaller of ``x1`` and ``x2``; NaN if either is. At a tie each gets half the gradient.",
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.0), 0.0),
        lambda s: s(s.real(3, 4, high=0.9), s.real(3, 4, low=1.0)),
        lambda s: s(s.real(2, 3, 1, low=1.0), s.real(4, high=0.9)),
        lambda s: s(s.real(), s.real(4, low=3.0, high=4.0)),
    ],
)


_BOOL = np.dtype(np.bool_)
_AS_INTEGER = {float32: int32, float64: int64}
ZEROS = {d: np.zeros((), d) for d in WIDE_FLOATS}  # cheaper beside an array than the number 0


def keep_where(xp: Any, condition: Any, x: Any) -> Any:
    """``x`` where ``condition``, an array of its shape, is true; else 0.

    On the CPU a select with an irregular mask costs a mispredicted branch every second element.
    Multiplying the bits of the number, as an integer, by 0 or 1 is ten times faster, and unlike a
    multiplication of the number itself it makes 0 of infinity too.
    """
    if xp is not np:
        return _select_on_gpu(xp, condition, x, 0)
    dtype = x.dtype
    bits = _AS_INTEGER.get(dtype)
    if bits is None or x.size <= 512:
        return np.where(condition, x, ZEROS.get(dtype, 0))
    return np.multiply(x.view(bits), condition).view(dtype)


def _ratio_value(xp: Any, x: Any, length: Any) -> Any:
    if xp is np and length.size and _inside(length, 0.0):
        return x / length
    with np.errstate(invalid="ignore"):
        y = x / xp.where(length == 0, length.dtype.type(math.inf), length)
        return xp.where(xp.isinf(length) & xp.isinf(x), xp.sign(x), y)


_RATIO: Primitive = Primitive(
    "ratio",
    _ratio_value,
    {
        "x": lambda g, length: ratio(g, length),
        "length": lambda g, y, length: -ratio(g * y, length),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)
_ratio = binary(_RATIO)


def ratio(x: Any, length: Any) -> Any:
    """``x / length``: the slope of a length, which is not negative, along ``x``.

    It is 0 where the length is 0, and the sign of ``x`` where both are infinite.
    """
    return _ratio(x, length)


def _weighted_value(xp: Any, x: Any, weight: Any) -> Any:
    with np.errstate(invalid="ignore"):
        y = x * weight
    return keep_where(xp, weight != 0, y)


_WEIGHTED: Primitive = Primitive(
    "weighted",
    _weighted_value,
    {
        "x": lambda g, weight: weighted(g, weight),
        "weight": lambda g, x: weighted(x, g),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)
_weighted = binary(_WEIGHTED)


def weighted(x: Any, weight: Any) -> Any:
    """``x * weight``, and 0 where the weight is 0, whatever ``x`` is; so is the gradient."""
    return _weighted(x, weight)


def _is_zero(x: Any) -> bool:
    """Whether it is the number 0.0, and not -0.0, which equals it."""
    return type(x) is float and x == 0.0 and math.copysign(1.0, x) > 0.0


def _where_value(xp: Any, condition: Any, x1: Any, x2: Any) -> Any:
    if _is_zero(x2) and _fits(condition, x1):
        return keep_where(xp, condition, x1)
    if _is_zero(x1) and _fits(condition, x2):
        return keep_where(xp, xp.logical_not(condition), x2)
    return np.where(condition, x1, x2) if xp is np else _select_on_gpu(xp, condition, x1, x2)


def _select_on_gpu(xp: Any, condition: Any, x1: Any, x2: Any) -> Any:
    y = xp.where(condition, x1, x2)
    if y.dtype == float32:  # CuPy's where gives that of bfloat16
        wanted = getattr(x1, "dtype", None) or getattr(x2, "dtype", float32)
        y = y.astype(wanted, copy=False)
    return y


def _fits(condition: Any, x: Any) -> bool:
    """Whether both are arrays of one shape: truth values and floats."""
    return (
        getattr(condition, "dtype", None) is _BOOL
        and getattr(x, "shape", None) == condition.shape
        and x.dtype in FLOATS
    )


_WHERE = Primitive(
    "where",
    _where_value,
    {
        "condition": None,
        "x1": lambda g, condition: _kept(g, condition, True),
        "x2": lambda g, condition: _kept(g, condition, False),
    },
    promotion="same",
    promoted=frozenset({1, 2}),
    elementwise=True,
    moves=True,
)


_where = ternary(_WHERE)


def _kept(g: Any, condition: Any, when: bool) -> Any:
    """``g`` where ``condition`` is ``when``, else 0."""
    if type(g) is np.ndarray and type(condition) is np.ndarray and _fits(condition, g):
        if g.size <= 512 and g.dtype in ZEROS:
            zero = ZEROS[g.dtype]
            return np.where(condition, g, zero) if when else np.where(condition, zero, g)
        return keep_where(np, condition if when else np.logical_not(condition), g)
    return where(condition, g, 0.0) if when else where(condition, 0.0, g)


@operation(
    cases=[
        lambda s: s(s.bools(3, 4), s.real(3, 4), s.real(3, 4)),
        lambda s: s(s.bools(4), s.real(2, 3, 1), 0.0),
        lambda s: s(s.bools(3, 1), 1.0, s.real(4)),
    ],
    method=False,
    primitive=_WHERE,
)
def where(condition: Any, x1: Any, x2: Any, /) -> Tensor:
    """``x1`` where ``condition`` is true, else ``x2``; the three broadcast."""
    if x1 is None or x2 is None:
        raise DtypeError(
            "where: both values are needed, got None; where a condition is true says nonzero(x)"
        )
    return _where(condition, x1, x2)


def _clip_value(xp: Any, x: Any, min: Any, max: Any) -> Any:
    if min is not None:
        x = xp.maximum(x, min)
    return x if max is None else xp.minimum(x, max)


def _within(g: Any, x: Any, min: Any, max: Any) -> Any:
    if min is not None:
        g = where(less(x, min), 0.0, g)
    return g if max is None else where(greater(x, max), 0.0, g)


_CLIP = Primitive(
    "clip",
    _clip_value,
    {
        "x": _within,
        "min": lambda g, x, min, max: where(less(x, min), _within(g, min, None, max), 0.0),
        "max": lambda g, x, min, max: where(greater(_clip_low(x, min), max), g, 0.0),
    },
    promotion="same",
    half_in_float32=True,
    elementwise=True,
)


def _clip_low(x: Any, min: Any) -> Any:
    return x if min is None else maximum(x, min)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.5), None, 0.5),
        lambda s: s(s.real(3, 4, avoid=-0.5), -0.5),
        lambda s: s(s.real(3, 4, low=0.1), 0.0, 3.0),
        lambda s: s(s.real(3, 4), s.real(4, low=-4, high=-2.5), s.real(3, 1, low=2.5, high=4)),
        lambda s: s(s.real(3, 4), s.real(4, low=2.5, high=3.0), s.real(3, 1, low=3.5, high=4)),
    ],
    reference=lambda x, min=None, max=None: np.clip(x, min, max),
    primitive=_CLIP,
)
def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """``x`` limited to [min, max]; ``None`` leaves that side open. On a limit the gradient is 1.

    min, max: scalars or tensors that broadcast with ``x``. Where min > max the result is max.
    """
    return apply(_CLIP, (x, min, max))


clamp = clip
