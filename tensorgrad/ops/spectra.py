"""Eigenvalues and singular values, with their vectors.

Where eigenvalues coincide, their vectors are any basis of their space, and the derivative of the
vectors divides by zero. Whether what a function makes of them has a gradient is not to be seen from
the gradients of values and vectors: numerators that vanish may be those of ``f(V, w)`` that treats
the values as ``V @ diag(w ** 2) @ inv(V)`` does, of which terms remain. So nothing is added only
where the gradients of the vectors concerned are 0, all of them and exactly (what cancels leaves
rounding errors or not), and those of the coinciding values are equal; else the gradient of that
matrix is NaN. It is so, too, where a gradient came by way of the vectors though all its numbers are
0, as of that product at ``2 * I``; in a stack this is not told from vectors that are left out, by
indexing or ``where``, while those of other matrices are used. Of values alone (``eigvalsh``,
``svdvals``) it is always finite: where they coincide, one of the generalized gradients, and the
gradient if there is one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad.ops.complex_parts import imag, is_complex
from tensorgrad.ops.elementwise import abs, less_equal, where
from tensorgrad.ops.factorizations import depends_on_rest, sliced_to
from tensorgrad.ops.indexing import take_along_axis
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.matrices import (
    COINCIDING,
    VANISHING,
    adjoint,
    columns,
    conjugated,
    either,
    factorization,
    largest,
    matrix_shape,
    noted,
    on_diagonal,
    packed_with_note,
    product,
    raising,
    reached_in_vain,
    roundoff,
    rows,
    scaled,
    skew,
    slice_of,
    unpacked,
)
from tensorgrad.ops.shaping import (
    along,
    broadcast_to,
    expand_dims,
    reshape,
    sliced,
    squeeze,
)
from tensorgrad.ops.sorting import argsort
from tensorgrad.tape import Primitive, apply, real_part

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["eigh", "eigvalsh", "svd", "svdvals"]


class EighResult(NamedTuple):
    """The eigenvalues in ascending order, and an orthonormal eigenvector in each column."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(NamedTuple):
    """Orthonormal columns, the singular values in descending order, orthonormal rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


#: As many rounding errors of 1 do not count as a change by what multiplies complex vectors.
PHASES = 100.0

# --- what coincides -------------------------------------------------------------------------------


def pairs(x: Any) -> tuple[Any, Any]:
    """A vector as a row and as a column, for tables of all pairs."""
    return expand_dims(x, -2), expand_dims(x, -1)


def quotients(values: Any, turning: Any, used: Any, slopes: Any) -> Any:
    """``1 / (values[j] - values[i])`` at i, j; 0 or NaN where two values coincide.

    It is 0 if the gradients of both vectors are 0 and those of both values are equal. turning: what
    multiplies it, before its skew part is taken. used: for each vector, the largest absolute value
    in the gradient with respect to it. slopes: the gradients of the values.
    Of complex numbers each vector may be multiplied by a number of size 1, too: where that changes
    something, the diagonal is NaN.
    """
    n = values.shape[-1]
    noise = n * roundoff(values)
    second, first = pairs(values)
    gap = second - first
    same = less_equal(abs(gap), expand_dims(largest(values, -1), -1) * (COINCIDING * noise))
    use = sum_of_pairs(used)
    second, first = pairs(slopes)
    equal_slopes = less_equal(
        abs(second - first), expand_dims(largest(slopes, -1), -1) * (VANISHING * noise)
    )
    unused = less_equal(use, 0.0) & equal_slopes
    own: Any = on_diagonal(values, n)
    if is_complex(turning):  # what is all rounding errors has no size to be compared with
        own = less_equal(abs(imag(turning)), use * (VANISHING * noise) + PHASES * noise)
    fine = where(on_diagonal(values, n), own, unused)
    return where(same, either(fine, 0.0, math.nan, gap), 1.0 / where(same, 1.0, gap))


def sum_of_pairs(x: Any) -> Any:
    """The sums of all pairs of a vector's numbers, as a matrix."""
    second, first = pairs(x)
    return first + second


# --- Hermitian matrices ---------------------------------------------------------------------------


def _eigh_value(xp: Any, x: Any, lower: bool) -> Any:
    with raising(xp, x):
        w, v = xp.linalg.eigh(x, UPLO="L" if lower else "U")
    return packed_with_note(xp, w[..., None, :], v)


def _eigh_parts(y: Any) -> tuple[Any, Any]:
    n = side_of(y.shape[-1])
    w, v = unpacked(y, (n,), (n, n))
    return real_part(w), v


def side_of(size: int) -> int:
    """The n of which ``n + n * n`` is the size."""
    return (math.isqrt(4 * size + 1) - 1) // 2


def _eigh_rule(g: Any, y: Any, x_shape: tuple[int, ...]) -> Any:
    """That of Hermitian changes: the skew part of ``adjoint(V) gV`` over differences of values."""
    if not x_shape[-1]:
        return sliced_to(g, x_shape)
    w, v = _eigh_parts(y)
    gw, gv = _eigh_parts(g)
    gv = conjugated(gv)
    turning = matmul(adjoint(v), gv)
    used = squeeze(largest(gv, -2), axis=-2) + reached_in_vain(g, gv)
    over = quotients(w, turning, used, gw)
    inner = skew(turning) * over
    return conjugated(product(v, inner, adjoint(v)) + matmul(scaled(v, gw), adjoint(v)))


_EIGH: Primitive = factorization("eigh", _eigh_value, {"x": _eigh_rule})


def eigh(x: Any, /, UPLO: str = "L") -> EighResult:
    """The eigenvalues and eigenvectors of Hermitian matrices.

    UPLO: "L" or "U", the triangle that is read.

    The gradient is that of Hermitian changes, and is Hermitian. Where eigenvalues coincide and the
    result uses their eigenvectors, or treats the values differently, it is NaN. Raises LinAlgError
    where the computation does not converge.
    """
    matrix_shape("eigh", x, square=True)
    y = apply(_EIGH, (x,), {"lower": _is_lower("eigh", UPLO)})
    return EighResult(_eigh_parts(y)[0], _eigh_parts(noted(y))[1])


def _is_lower(name: str, uplo: str) -> bool:
    if uplo.upper() not in ("L", "U"):
        raise ValueError(f'{name}: UPLO must be "L" or "U"; got {uplo!r}')
    return uplo.upper() == "L"


def _eigvalsh_value(xp: Any, x: Any, lower: bool) -> Any:
    with raising(xp, x):
        return xp.linalg.eigvalsh(x, UPLO="L" if lower else "U")


def _eigvalsh_rule(g: Any, x: Any, lower: bool) -> Any:
    v = _eigh_parts(apply(_EIGH, (x,), {"lower": lower}))[1]
    return conjugated(matmul(scaled(v, g), adjoint(v)))


_EIGVALSH: Primitive = factorization("eigvalsh", _eigvalsh_value, {"x": _eigvalsh_rule})


def eigvalsh(x: Any, /, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, in ascending order.

    UPLO: "L" or "U", the triangle that is read.

    The gradient is that of Hermitian changes. Where eigenvalues coincide and are treated
    differently, it is one of the generalized gradients.
    """
    matrix_shape("eigvalsh", x, square=True)
    found: Tensor = apply(_EIGVALSH, (x,), {"lower": _is_lower("eigvalsh", UPLO)})
    return found


# --- singular values ------------------------------------------------------------------------------


def _svd_value(xp: Any, x: Any, full: bool) -> Any:
    with raising(xp, x):
        u, s, vh = xp.linalg.svd(x, full_matrices=full)
    return packed_with_note(xp, u, s[..., None, :], vh)


def _svd_parts(y: Any, shape: tuple[int, ...], full: bool) -> list[Any]:
    m, n = shape[-2:]
    k = min(m, n)
    u, s, vh = unpacked(y, (m, m if full else k), (k,), (n if full else k, n))
    return [u, real_part(s), vh]


def _svd_rule(g: Any, y: Any, x_shape: tuple[int, ...], full: bool) -> Any:
    """With ``P = adjoint(U) dA V`` the turnings of U and V are found from their sum and difference.

    Their sum is the Hermitian part of P over ``s[j] - s[i]``, doubled, and their difference the
    skew part over ``s[i] + s[j]``.
    """
    m, n = x_shape[-2:]
    k = min(m, n)
    if not k:
        return zeros_of(g, x_shape)
    whole_u, s, whole_vh = _svd_parts(y, x_shape, full)
    whole_gu, gs, whole_gvh = _svd_parts(g, x_shape, full)
    whole_gu, whole_gvh = conjugated(whole_gu), conjugated(whole_gvh)
    u, gu = columns(whole_u, None, k), columns(whole_gu, None, k)
    vh, gv = rows(whole_vh, None, k), adjoint(rows(whole_gvh, None, k))
    of_u, of_v = matmul(adjoint(u), gu), matmul(vh, gv)
    size_u, size_v = squeeze(largest(gu, -2), axis=-2), squeeze(largest(gv, -2), axis=-2)
    used = size_u + size_v + reached_in_vain(g, whole_gu, whole_gvh)
    inner = skew(of_u + of_v) * quotients(s, of_u + of_v, used, gs)
    inner = inner + skew(of_u - of_v) * _over_sums(s, used, is_complex(u))
    found = matmul(product(u, inner) + scaled(u, gs), vh)
    if m > k:
        off = gu - matmul(u, of_u)
        if full:
            off = _with_rest(off, columns(whole_u, k, None), columns(whole_gu, k, None), u)
        found = found + matmul(scaled(off, _over_values(s, gs, off, gu, used)), vh)
    if n > k:
        v = adjoint(vh)
        off = gv - matmul(v, of_v)
        if full:
            rest = adjoint(rows(whole_vh, k, None)), adjoint(rows(whole_gvh, k, None))
            off = _with_rest(off, *rest, v)
        found = found + matmul(u, adjoint(scaled(off, _over_values(s, gs, off, gv, used))))
    return conjugated(found)


def zeros_of(g: Any, shape: tuple[int, ...]) -> Any:
    """A gradient of matrices without elements."""
    return reshape(sliced(g, along(len(shape) - 2, slice_of(0, 0))), shape)


def _with_rest(off: Any, rest: Any, g_rest: Any, of: Any) -> Any:
    """What the further columns of a square factor add, which turn against the first."""
    bad = either(depends_on_rest(rest, g_rest), math.nan, 0.0, off)
    return off - product(rest, adjoint(g_rest), of) + bad


def _over_sums(s: Any, used: Any, turns: bool) -> Any:
    """``1 / (s[i] + s[j])``; where both vanish, 0 if nothing depends on their vectors, else NaN.

    turns: whether single vectors may turn, as complex ones do.
    """
    n = s.shape[-1]
    total = sum_of_pairs(s)
    none = less_equal(total, expand_dims(largest(s, -1), -1) * (COINCIDING * n * roundoff(s)))
    fine = less_equal(sum_of_pairs(used), 0.0) | (on_diagonal(s, n) & (not turns))
    return where(none, either(fine, 0.0, math.nan, s), 1.0 / where(none, 1.0, total))


def _over_values(s: Any, gs: Any, off: Any, g: Any, used: Any) -> Any:
    """``1 / s``, which is to multiply the columns of ``off``.

    Where a value is rounding error, the gradient of its vector shrinks with it, or the result
    depends on the choice of the vector, and is NaN. Of a value that is 0 nothing is left to divide,
    and its own gradient has to be 0.
    """
    size = largest(s, -1)
    noise = s.shape[-1] * COINCIDING * roundoff(s)
    none = less_equal(s, size * noise)
    column = squeeze(largest(off, -2), axis=-2)
    share = s / where(less_equal(size, 0.0), 1.0, size)
    shrinks = less_equal(column, largest(used, -1) * share * VANISHING)
    nothing = less_equal(s, 0.0)
    fine = shrinks & (less_equal(abs(gs), 0.0) | ~nothing)
    return where(none & ~fine, math.nan, where(nothing, 0.0, 1.0 / where(nothing, 1.0, s)))


_SVD: Primitive = factorization("svd", _svd_value, {"x": _svd_rule})


def svd(
    x: Any, /, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> SVDResult | Tensor:
    """The singular value decomposition ``x = (U * S) @ Vh``.

    full_matrices: whether U and Vh are square; else they have as many columns and rows as there
        are singular values.
    compute_uv: False for the singular values alone.
    hermitian: the matrices are Hermitian; their lower triangle is read.

    Where singular values coincide and the result uses their vectors, or vanish and it depends on
    the choice of these, the gradient is NaN. Raises LinAlgError where the computation does not
    converge.
    """
    if not compute_uv:
        return _hermitian_svd(x, False) if hermitian else svdvals(x)
    if hermitian:
        return _hermitian_svd(x, True)
    shape = matrix_shape("svd", x)
    full = full_matrices and shape[-1] != shape[-2]
    y = apply(_SVD, (x,), {"full": full})
    u, _, vh = _svd_parts(noted(y), shape, full)
    return SVDResult(u, _svd_parts(y, shape, full)[1], vh)


def thin_svd(x: Any) -> list[Any]:
    """``svd`` without full matrices, for what leaves out vectors by masks."""
    return _svd_parts(apply(_SVD, (x,), {"full": False}), x.shape, False)


def _hermitian_svd(x: Any, vectors: bool) -> Any:
    """From the eigenvalues, by their sizes; their signs go to the second factor."""
    if not vectors:
        w = eigvalsh(x)
        order = argsort(abs(w), axis=-1, descending=True)
        return take_along_axis(abs(w), order, axis=-1)
    w, v = eigh(x)
    order = argsort(abs(w), axis=-1, descending=True)
    w = take_along_axis(w, order, axis=-1)
    v = take_along_axis(v, broadcast_to(expand_dims(order, -2), v.shape), axis=-1)
    signs = either(less_equal(0.0, w), 1.0, -1.0, w)
    return SVDResult(v, abs(w), adjoint(scaled(v, signs)))


def _svdvals_value(xp: Any, x: Any) -> Any:
    with raising(xp, x):
        return xp.linalg.svd(x, full_matrices=False, compute_uv=False)


def _svdvals_rule(g: Any, x: Any) -> Any:
    u, _, vh = _svd_parts(apply(_SVD, (x,), {"full": False}), x.shape, False)
    return conjugated(matmul(scaled(u, g), vh))


_SVDVALS: Primitive = factorization("svdvals", _svdvals_value, {"x": _svdvals_rule})


def svdvals(x: Any, /) -> Tensor:
    """The singular values of each matrix, in descending order.

    Where some coincide and are treated differently, or vanish, the gradient is one of the
    generalized ones.
    """
    matrix_shape("svdvals", x)
    found: Tensor = apply(_SVDVALS, (x,))
    return found
