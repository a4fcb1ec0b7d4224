"""Determinants, with gradients that are right for singular matrices too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorgrad.ops.complex_parts import complex as complex_number
from tensorgrad.ops.complex_parts import imag, is_complex
from tensorgrad.ops.elementwise import equal, log, where
from tensorgrad.ops.linear_systems import INV
from tensorgrad.ops.matrices import (
    factorization,
    identity,
    left_to_lapack,
    matrix_shape,
    nan_where,
    packed,
    product,
    raising,
    unpacked,
)
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import expand_dims, matrix_transpose, squeeze
from tensorgrad.tape import Primitive, apply, real_part

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["det", "logdet", "slogdet"]


class SlogdetResult(NamedTuple):
    """The sign, and the logarithm of the absolute value."""

    sign: Tensor
    logabsdet: Tensor


# --- det ------------------------------------------------------------------------------------------

# With ``x = U S V`` the cofactors of x are those of S, turned, and so are their derivatives. Those
# of a diagonal matrix are products of all but one or two of its numbers, without a division.


#: Up to this condition an inverse is as exact as singular values, but for a few digits.
_FAR = 1e3


def _turned(xp: Any, x: Any) -> tuple[Any, Any, Any, Any]:
    """``U``, the singular values, ``V`` and ``det(U) * det(V)``, which is NaN if not all of a
    matrix is finite."""
    whole = xp.isfinite(x).all(axis=(-2, -1))[..., None, None]
    with raising(xp, x):
        u, s, v = xp.linalg.svd(xp.where(whole, x, xp.zeros_like(x)))
    sign = (xp.linalg.det(u) * xp.linalg.det(v))[..., None, None]
    return u, s, v, xp.where(whole, sign, xp.full_like(sign, math.nan))


def _by_inverses(x: Any) -> Any:
    """The cofactors of matrices far from singular, in a quarter of the time; else ``None``."""
    try:
        inverse = np.linalg.inv(x)
    except np.linalg.LinAlgError:
        return None
    lengths = [np.linalg.norm(a, axis=(-2, -1)) for a in (x, inverse)]
    if not (lengths[0] * lengths[1] < _FAR).all():
        return None
    return inverse.swapaxes(-1, -2) * np.linalg.det(x)[..., None, None]


def _all_but_one(xp: Any, s: Any) -> Any:
    """At i the product of all numbers but number i."""
    ones = xp.ones((*s.shape[:-1], 1), s.dtype)
    before = xp.cumprod(xp.concatenate([ones, s[..., :-1]], axis=-1), axis=-1)
    behind = xp.cumprod(xp.concatenate([ones, s[..., :0:-1]], axis=-1), axis=-1)
    return before * behind[..., ::-1]


def _all_but_two(xp: Any, s: Any) -> Any:
    """At i, j the product of all numbers but these two; 0 on the diagonal."""
    n = s.shape[-1]
    found = xp.zeros((*s.shape, n), s.dtype)
    for i in range(n - 1):
        rest = xp.concatenate([s[..., :i], s[..., i + 1 :]], axis=-1)
        found[..., i, i + 1 :] = _all_but_one(xp, rest)[..., i:]
    return found + found.swapaxes(-1, -2)


def _cofactors_value(xp: Any, x: Any) -> Any:
    left_to_lapack(xp)
    if not x.size:
        return xp.zeros(x.shape, x.dtype)
    if xp is np and (found := _by_inverses(x)) is not None:
        return found
    u, s, v, sign = _turned(xp, x)
    return sign * ((u.conj() * _all_but_one(xp, s)[..., None, :]) @ v.conj())


def _second_value(xp: Any, x: Any, by: Any) -> Any:
    left_to_lapack(xp)
    if not x.size:
        return xp.zeros(x.shape, x.dtype)
    u, s, v, sign = _turned(xp, x)
    others = _all_but_two(xp, s)
    inner = u.conj().swapaxes(-1, -2) @ by @ v.conj().swapaxes(-1, -2)
    diagonal = xp.diagonal(inner, 0, -2, -1)
    eye = xp.eye(x.shape[-1], dtype=x.dtype)
    traces = (others @ diagonal[..., None]) * eye
    return sign * (u.conj() @ (traces - others * inner.swapaxes(-1, -2)) @ v.conj())


def _third_rule(g: Any, x: Any, by: Any) -> Any:
    """The derivative of ``det(x) * (tr(B v) tr(B g) - tr(B v B g))`` with ``B = inv(x)``."""
    inverse = apply(INV, (x,))
    one, two = product(inverse, by), product(inverse, g)
    trace_one, trace_two, trace_both = trace_of(one), trace_of(two), trace_of(product(one, two))
    found = (trace_one * trace_two - trace_both) * inverse
    found = found - trace_two * product(one, inverse) - trace_one * product(two, inverse)
    found = found + product(one, two, inverse) + product(two, one, inverse)
    whole = expand_dims(expand_dims(apply(_DET, (x,)), -1), -1)
    return whole * matrix_transpose(found)


def trace_of(x: Any) -> Any:
    """The trace of each matrix, as a matrix of size 1."""
    n = x.shape[-1]
    return sum(x * identity(x, n), axis=(-2, -1), keepdims=True)


_SECOND: Primitive = factorization(
    "cofactor_slope",
    _second_value,
    {"x": _third_rule, "by": lambda g, x: apply(_SECOND, (x, g))},
)
_COFACTORS: Primitive = factorization(
    "cofactors", _cofactors_value, {"x": lambda g, x: apply(_SECOND, (x, g))}
)


def _det_value(xp: Any, x: Any) -> Any:
    left_to_lapack(xp)
    return xp.linalg.det(x)


_DET: Primitive = factorization(
    "det",
    _det_value,
    {"x": lambda g, x: expand_dims(expand_dims(g, -1), -1) * apply(_COFACTORS, (x,))},
)


def det(x: Any, /) -> Tensor:
    """The determinant of each square matrix.

    The first and second gradients are right for all matrices; third ones need inverses, and raise
    LinAlgError for singular matrices.
    """
    matrix_shape("det", x, square=True)
    found: Tensor = apply(_DET, (x,))
    return found


# --- its logarithm --------------------------------------------------------------------------------


def _slogdet_value(xp: Any, x: Any) -> Any:
    left_to_lapack(xp)
    sign, size = xp.linalg.slogdet(x)
    return packed(xp, sign[..., None, None], size[..., None, None])


def _slogdet_rule(g: Any, x: Any, y: Any) -> Any:
    sign, _ = unpacked(y, (1,), (1,))
    slope, g_size = unpacked(g, (1,), (1,))
    singular = expand_dims(equal(sign, 0), -1)
    safe = where(singular, identity(x, x.shape[-1]), x)
    inverse = matrix_transpose(apply(INV, (safe,)))
    by = real_part(g_size)
    if is_complex(x):  # the sign turns by the imaginary part of what the logarithm changes by
        by = complex_number(by, imag(slope * sign))
    return expand_dims(by, -1) * nan_where(singular, inverse)


_SLOGDET: Primitive = factorization("slogdet", _slogdet_value, {"x": _slogdet_rule})


def slogdet(x: Any, /) -> SlogdetResult:
    """The sign of the determinant of each square matrix, and the logarithm of its absolute value.

    The determinant is their product with ``exp``: 0 and minus infinity of a singular matrix, whose
    gradient is NaN.
    """
    matrix_shape("slogdet", x, square=True)
    sign, size = unpacked(apply(_SLOGDET, (x,)), (1,), (1,))
    return SlogdetResult(squeeze(sign, axis=-1), squeeze(real_part(size), axis=-1))


def logdet(x: Any, /) -> Tensor:
    """The logarithm of the determinant of each square matrix: NaN where that is negative."""
    sign, size = slogdet(x)
    return log(sign) + size
