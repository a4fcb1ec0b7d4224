"""Pseudo-inverses, least squares, and which singular values count."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.elementwise import abs, greater, where
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.matrices import (
    adjoint,
    conjugated,
    factorization,
    identity,
    left_to_lapack,
    matrix_shape,
    product,
    raising,
    roundoff,
)
from tensorgrad.ops.padding import tril
from tensorgrad.ops.reductions import max, sum
from tensorgrad.ops.shaping import expand_dims, shape_of, squeeze
from tensorgrad.ops.spectra import svdvals, thin_svd
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["lstsq", "pinv"]


class LstsqResult(NamedTuple):
    """The solution, the squared lengths of the residuals, the rank, the singular values."""

    x: Tensor
    residuals: Tensor
    rank: Tensor
    s: Tensor


# --- pseudo-inverse -------------------------------------------------------------------------------


def _pinv_value(xp: Any, x: Any, rtol: Any, hermitian: bool, cuts: bool) -> Any:
    left_to_lapack(xp)
    if not x.size:
        return xp.empty((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    with raising(xp, x):
        if hermitian:
            s, u = xp.linalg.eigh(x)
            size, v = xp.abs(s), u
        else:
            u, s, vh = xp.linalg.svd(x, full_matrices=False)
            size, v = s, vh.swapaxes(-1, -2).conj()
    if not isinstance(rtol, float):  # one for each matrix
        rtol = rtol.astype(size.dtype)[..., None]
    kept = size > rtol * size.max(axis=-1, keepdims=True)
    inverse = xp.where(kept, 1.0 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))
    return (v * inverse[..., None, :]) @ u.swapaxes(-1, -2).conj()


def _pinv_rule(g: Any, x: Any, y: Any, rtol: Any, hermitian: bool, cuts: bool) -> Any:
    """That of matrices whose rank stays, and what is to be added for values that are cut off.

    After Golub and Pereyra (1973), "The differentiation of pseudo-inverses".
    """
    g = conjugated(g)
    m, n = x.shape[-2:]
    if hermitian:  # of which one triangle was read
        lower = tril(x)
        x = lower + adjoint(tril(x, k=-1))
    transposed, back = adjoint(y), adjoint(g)
    found = -product(transposed, g, transposed)
    if m > 0 and n > 0:
        rows_left = identity(x, m) - matmul(x, y)
        columns_left = identity(x, n) - matmul(y, x)
        found = found + product(rows_left, back, y, transposed)
        found = found + product(transposed, y, back, columns_left)
        if cuts:
            found = found + _of_values_cut_off(back, x, rtol)
    if hermitian:
        found = (found + adjoint(found)) * 0.5
    return conjugated(found)


def _of_values_cut_off(back: Any, x: Any, rtol: Any) -> Any:
    """What singular values that are cut off, but are not 0, add to the gradient.

    The pseudo-inverse puts ``f(s)`` for ``s``, which is 1 / s for values kept and else 0. In the
    basis of the singular vectors its derivative has the divided differences
    ``(f(s[i]) -+ f(s[j])) / (s[i] -+ s[j])`` of the Hermitian and of the skew part. With 0 for the
    value cut off they are those of a rank that stays; here is the rest.
    """
    u, s, vh = thin_svd(x)
    kept = greater(s, max(s, axis=-1, keepdims=True) * _along_values(rtol))
    first, second = expand_dims(s, -1), expand_dims(s, -2)
    one, other = expand_dims(kept, -1), expand_dims(kept, -2)
    large, small = where(one, first, second), where(one, second, first)
    noise = builtins.max(x.shape[-2:]) * roundoff(s)
    cut = (one != other) & greater(small, large * noise)
    large, small = where(cut, large, 1.0), where(cut, small, 0.0)
    share = small / large
    over = 1.0 / (large * large - small * small)
    inner = product(adjoint(u), back, adjoint(vh))
    inner = inner * (share * share * over) + adjoint(inner) * (share * over)
    return product(u, inner, vh)


def _along_values(rtol: Any) -> Any:
    """A tolerance for each matrix, or for all, beside the singular values."""
    return expand_dims(rtol, -1) if shape_of(rtol) else rtol


_PINV: Primitive = factorization(
    "pinv", _pinv_value, {"x": _pinv_rule, "rtol": None}, promoted=frozenset({0})
)


_HALVES = {dtypes.float16: 2.0**-10, dtypes.bfloat16: 2.0**-7}


def tolerance_of(name: str, x: Any, rtol: Any) -> Any:
    """``rtol``, or where there is none the larger size of the matrix times the roundoff."""
    if rtol is not None:
        return rtol if shape_of(rtol) else float(rtol)
    shape = matrix_shape(name, x)
    dtype: Any = getattr(x, "dtype", dtypes.float32)
    real = np.dtype(dtype).kind not in "biu"
    eps = _HALVES.get(dtype) or roundoff(x) if real else float(np.finfo(np.float32).eps)
    return builtins.max(shape[-2:]) * eps


def pinv(x: Any, /, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Tensor:
    """The Moore-Penrose pseudo-inverse of each matrix.

    rcond, rtol: two names of the tolerance: singular values up to this part of the largest count
        as 0; a number, or one for each matrix of a stack. By default the larger size of the matrix
        times the roundoff of its dtype.
    hermitian: the matrices are Hermitian; their lower triangle is read.

    The gradient is that of matrices of which as many singular values count as do, also where those
    cut off by a tolerance are not 0. Raises ValueError if both names of the tolerance are given.
    """
    if rcond is not None and rtol is not None:
        raise ValueError("pinv: give the tolerance once, as rtol or as rcond")
    matrix_shape("pinv", x, square=hermitian)
    given = rcond if rtol is None else rtol
    rtol = tolerance_of("pinv", x, given)
    attrs = {"hermitian": hermitian, "cuts": given is not None}
    found: Tensor = apply(_PINV, (x, rtol), attrs)
    return found


def lstsq(a: Any, b: Any, /, rcond: float | None = None) -> LstsqResult:
    """The shortest ``x`` that makes ``a @ x - b`` the shortest.

    a: shape (..., m, n). b: (m,) for one vector, else (..., m, k). rcond: as in ``pinv``.

    Gives ``x``; the squared lengths of the residuals (nothing unless ``a`` has more rows than
    columns and full rank); the rank of ``a``; its singular values. The gradient is as in ``pinv``.
    Raises ShapeError if the shapes do not fit.
    """
    shape, other = matrix_shape("lstsq", a), shape_of(b)
    vector = len(other) == 1
    if not other or other[0 if vector else -2] != shape[-2]:
        raise ShapeError(f"lstsq: b must have as many rows as a; got {shape} and {other}")
    right = expand_dims(b, -1) if vector else b
    rtol = tolerance_of("lstsq", a, rcond)
    x = matmul(pinv(a, rtol=rcond), right)
    s = svdvals(a)
    rank = rank_of(s, rtol)
    m, n = shape[-2:]
    if m > n and bool((rank == n).all()):
        off = right - matmul(a, x)
        residuals = sum(abs(off) ** 2, axis=-2)
    else:
        residuals = sum(abs(right), axis=-2)[..., :0]
    return LstsqResult(squeeze(x, axis=-1) if vector else x, residuals, rank, s)


def rank_of(s: Any, rtol: Any) -> Any:
    """How many of the singular values count."""
    if not s.shape[-1]:
        return sum(cast(s, np.dtype(np.int64)), axis=-1)
    kept = greater(s, max(s, axis=-1, keepdims=True) * _along_values(rtol))
    return sum(cast(kept, np.dtype(np.int64)), axis=-1)
