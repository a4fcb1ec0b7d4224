"""Whether numbers are complex, in NumPy's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad.ops.complex_parts import imag, is_complex, real
from tensorgrad.ops.elementwise import abs as size_of
from tensorgrad.ops.elementwise import equal, not_equal
from tensorgrad.ops.histograms import host
from tensorgrad.ops.inspection import finfo
from tensorgrad.ops.numpy_forms import as_array

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["iscomplex", "iscomplexobj", "isreal", "isrealobj", "real_if_close"]


def iscomplex(x: Any) -> Tensor:
    """Whether the imaginary part of each element is other than 0."""
    x = as_array(x)
    return not_equal(imag(x), 0) if is_complex(x) else not_equal(x, x) & False


def isreal(x: Any) -> Tensor:
    """Whether the imaginary part of each element is 0."""
    x = as_array(x)
    return equal(imag(x), 0) if is_complex(x) else equal(x, x) | True


def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is a complex one."""
    return is_complex(as_array(x))


def isrealobj(x: Any) -> bool:
    """Whether the dtype is no complex one."""
    return not iscomplexobj(x)


def real_if_close(a: Any, tol: float = 100) -> Tensor:
    """The real part, if all imaginary parts are at most ``tol`` roundings large, else ``a``.

    tol: if 1 or less, how large they may be.
    """
    a = as_array(a)
    if not is_complex(a):
        return a
    limit = tol * finfo(real(a).dtype).eps if tol > 1 else tol
    close = host("real_if_close", size_of(imag(a)) < limit)
    return real(a) if close.all() else a
