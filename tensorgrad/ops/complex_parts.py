"""Complex numbers: their parts, and what is made of two real ones.

Gradients pair without conjugation (backward.py). None of these functions has a complex derivative,
so each rule follows from what it makes of a small change ``d``: of ``real(x)`` it makes
``real(d)``, and ``g * real(d) == real(g * d)`` says that ``g`` goes on as it is.
"""

# Rules name operations that are defined further down, which mypy cannot follow inside a lambda.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from tensorgrad import dtypes
from tensorgrad.dtypes import COMPLEX
from tensorgrad.ops.fast_paths import binary, unary
from tensorgrad.ops.table import operation
from tensorgrad.ops.views import puts_back, viewing
from tensorgrad.tape import NO_ATTRS, REAL, Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["complex", "conj", "conjugate", "imag", "real"]


def is_complex(x: Any) -> bool:
    """Whether ``x`` is a complex tensor, array or number."""
    dtype = getattr(x, "dtype", None)
    return isinstance(x, builtins.complex) if dtype is None else dtype in COMPLEX


_ZERO = Primitive("zero", "zeros_like", {"x": None}, elementwise=True, moves=True)


def zero(x: Any) -> Any:
    """Zeros like ``x``, which carry no gradient."""
    return apply(_ZERO, (x,))


# --- two real numbers make a complex one ----------------------------------------------------------


def _complex_value(xp: Any, real: Any, imag: Any) -> Any:
    real, imag = xp.broadcast_arrays(real, imag)
    y = xp.empty(real.shape, dtypes.complex_of(real.dtype))
    y.real, y.imag = real, imag  # of 1j * imag an infinity would make NaN
    return y


_COMPLEX: Primitive = Primitive(
    "complex",
    _complex_value,
    {"real": lambda g: real(g), "imag": lambda g: -imag(g)},
    promotion="float",
    elementwise=True,
    half_in_float32=True,
)
_of_parts = binary(_COMPLEX)


def complex(real: Any, imag: Any, /) -> Tensor:
    """``real + 1j * imag`` of real tensors: complex128 of float64, else complex64."""
    return _of_parts(real, imag)


# --- parts ----------------------------------------------------------------------------------------


_IMAG = Primitive(
    "imag",
    "zeros_like",
    {"x": lambda g: zero(g)},
    elementwise=True,
    moves=True,
    fresh=False,
    complex=Primitive(
        "imag",
        lambda xp, x: x.imag,
        {"x": lambda g: complex(zero(g), -g)},  # imag(d) == real(-1j * d)
        elementwise=True,
        moves=True,
        fresh=False,
        complex=True,
    ),
)
assert isinstance(_IMAG.complex, Primitive)
_imag_of_real = unary(_IMAG)
_real_part, _imag_part = viewing(REAL), viewing(_IMAG.complex)
puts_back(_real_part, lambda x, y, attrs: complex(y, imag(x)) if is_complex(x) else y)
puts_back(_imag_part, lambda x, y, attrs: complex(real(x), y))
_PART_CASES = [lambda s: s(s.real(3, 4)), lambda s: s(s.real())]


@operation(cases=_PART_CASES, method=False, primitive=REAL, numpy="val")
def real(x: Any, /) -> Tensor:
    """The real parts, a view; real numbers are their own."""
    return _real_part(x, NO_ATTRS)


@operation(cases=_PART_CASES, torch=None, method=False, primitive=_IMAG, numpy="val")
def imag(x: Any, /) -> Tensor:
    """The imaginary parts, a view; those of real numbers are 0."""
    return _imag_part(x, NO_ATTRS) if is_complex(x) else _imag_of_real(x)


_CONJ = Primitive(
    "conj",
    "conjugate",
    {"x": lambda g: g},
    promotion="same",
    elementwise=True,
    moves=True,
    loops=lambda xp, x: xp.positive(x),
    complex=Primitive(
        "conj",
        "conjugate",
        {"x": lambda g: conj(g)},  # real(g * conj(d)) == real(conj(g) * d)
        elementwise=True,
        complex=True,
    ),
)
_conj = unary(_CONJ)


@operation(cases=_PART_CASES, primitive=_CONJ)
def conj(x: Any, /) -> Tensor:
    """The complex conjugates; real numbers are their own."""
    return _conj(x)


conjugate = conj
