"""Factorizations into triangles: Cholesky, QR and LU; and products of Householder reflections."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import is_complex
from tensorgrad.ops.elementwise import equal, less_equal, where
from tensorgrad.ops.indexing import beside, take_along_axis
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.linear_systems import fitting_columns, triangular
from tensorgrad.ops.matrices import (
    VANISHING,
    adjoint,
    columns,
    conjugated,
    factorization,
    identity,
    largest,
    left_to_lapack,
    matrix_shape,
    nan_where,
    on_diagonal,
    packed,
    product,
    raising,
    roundoff,
    rows,
    skew,
    unpacked,
)
from tensorgrad.ops.padding import diagonal, tril, triu
from tensorgrad.ops.reductions import min
from tensorgrad.ops.shaping import (
    broadcast_to,
    concat,
    expand_dims,
    matrix_transpose,
    shape_of,
    squeeze,
)
from tensorgrad.ops.sorting import argsort
from tensorgrad.tape import Primitive, apply, cast, real_part

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["cholesky", "geqrf", "householder_product", "lu", "lu_factor", "lu_solve", "qr"]


class QRResult(NamedTuple):
    """Orthonormal columns, and an upper triangle."""

    Q: Tensor
    R: Tensor


class Reflections(NamedTuple):
    """``R`` with vectors of reflections below its diagonal, and their factors."""

    a: Tensor
    tau: Tensor


class LUResult(NamedTuple):
    """A permutation, a lower triangle with ones on its diagonal, and an upper triangle."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactors(NamedTuple):
    """Both triangles in one matrix, and the row that each row was exchanged with, from 0."""

    lu: Tensor
    piv: Tensor


# --- Cholesky -------------------------------------------------------------------------------------


def _cholesky_value(xp: Any, x: Any) -> Any:
    with raising(xp, x):
        return xp.linalg.cholesky(x)


def _halved(x: Any) -> Any:
    """The lower triangle, with half of the diagonal."""
    return where(on_diagonal(x, x.shape[-1]), tril(x) * 0.5, tril(x))


def _cholesky_rule(g: Any, y: Any) -> Any:
    """That of Hermitian changes, after Murray (2016), arXiv 1602.07527."""
    inner = _halved(matmul(matrix_transpose(y), g))
    left = triangular(matrix_transpose(y), inner, lower=False)
    whole = matrix_transpose(triangular(adjoint(y), matrix_transpose(left), lower=False))
    return (whole + adjoint(whole)) * 0.5


_CHOLESKY: Primitive = factorization("cholesky", _cholesky_value, {"x": _cholesky_rule})


def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """The lower triangle ``y`` with ``y @ adjoint(y) = x``, of Hermitian positive definite ``x``.

    Of ``x`` the lower triangle is read. upper: read the upper one, and give the adjoint of ``y``.

    The gradient is that of Hermitian changes, and is Hermitian. Raises LinAlgError unless ``x`` is
    positive definite.
    """
    matrix_shape("cholesky", x, square=True)
    found: Tensor = apply(_CHOLESKY, (adjoint(x) if upper else x,))
    return adjoint(found) if upper else found


# --- QR -------------------------------------------------------------------------------------------


def _qr_value(xp: Any, x: Any, complete: bool) -> Any:
    with raising(xp, x):
        q, r = xp.linalg.qr(x, "complete" if complete else "reduced")
    return packed(xp, q, r)


def _qr_parts(y: Any, shape: tuple[int, ...], complete: bool) -> list[Any]:
    m, n = shape[-2:]
    k = m if complete else n
    return unpacked(y, (m, k), (k, n))


def singular_triangle(r: Any) -> Any:
    """Whether a number on the diagonal vanishes beside the largest, of each matrix."""
    size = largest(r, (-2, -1))
    on = min(abs(diagonal(r, 0, -2, -1)), axis=-1, keepdims=True)
    limit = max(r.shape[-2:]) * roundoff(r)
    return less_equal(expand_dims(on, -1), size * limit)


def _qr_rule(g: Any, y: Any, x_shape: tuple[int, ...], complete: bool) -> Any:
    """Of at least as many rows as columns.

    With ``dQ = Q W + rest`` and ``dR = T R`` the matrix ``adjoint(Q) dA inv(R)`` is ``W + T``, of
    which W is skew and T a triangle with a real diagonal; so its lower triangle is that of W.
    """
    m, n = x_shape[-2:]
    if not n:
        return sliced_to(g, x_shape)
    whole_q, whole_r = _qr_parts(y, x_shape, complete)
    whole_gq, whole_gr = (conjugated(part) for part in _qr_parts(g, x_shape, complete))
    q, gq = columns(whole_q, None, n), columns(whole_gq, None, n)
    r, gr = rows(whole_r, None, n), rows(whole_gr, None, n)
    of_r, of_q = matmul(gr, adjoint(r)), matmul(adjoint(q), gq)
    off = of_q - of_r
    inner = of_r - of_q + tril(off - adjoint(off), k=-1) + imaginary_diagonal(off)
    bracket = gq + matmul(q, inner)
    bad = singular_triangle(r)
    if complete and m > n:
        rest, g_rest = columns(whole_q, n, None), columns(whole_gq, n, None)
        bracket = bracket - product(rest, adjoint(g_rest), q)
        bad = bad | depends_on_rest(rest, g_rest)
    safe = where(bad, identity(r, n), r)
    found = adjoint(triangular(safe, adjoint(bracket), lower=False))
    return conjugated(nan_where(bad, found))


def imaginary_diagonal(x: Any) -> Any:
    """The imaginary part of the diagonal, as a matrix; 0 of real matrices."""
    if not is_complex(x):
        return 0.0
    return where(on_diagonal(x, x.shape[-1]), (x - conjugated(x)) * 0.5, 0.0)


def sliced_to(g: Any, shape: tuple[int, ...]) -> Any:
    """A gradient without elements, of this shape."""
    return unpacked(g, (shape[-2], shape[-1]))[0]


def depends_on_rest(rest: Any, g_rest: Any) -> Any:
    """Whether a function depends on the choice of columns that are any basis of their space.

    Turning them among themselves must change nothing: the skew part of ``adjoint(rest) @ g_rest``.
    """
    turning = largest(skew(matmul(adjoint(rest), g_rest)), (-2, -1))
    noise = VANISHING * max(rest.shape[-2:]) * roundoff(rest)
    return turning > largest(g_rest, (-2, -1)) * noise


_QR: Primitive = factorization("qr", _qr_value, {"x": _qr_rule})


def qr(x: Any, /, mode: str = "reduced") -> QRResult | Tensor:
    """The orthonormal ``Q`` and the upper triangle ``R`` with ``Q @ R = x``.

    mode: "reduced" for as many columns in Q as x has rows or columns, whichever are fewer;
        "complete" for a square Q; "r" for R alone.

    The gradient is NaN if ``x`` lacks full rank (of the first columns, where it has more columns
    than rows), and if a function depends on the choice of the further columns of a square Q.
    Raises ValueError for another mode.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f'qr: mode must be "reduced", "complete" or "r"; got {mode!r}')
    m, n = shape = matrix_shape("qr", x)[-2:]
    complete = mode == "complete" and m > n
    if m >= n:
        y = apply(_QR, (x,), {"complete": complete})
        q, r = _qr_parts(y, shape, complete)
    else:  # the further columns play no part in Q
        y = apply(_QR, (columns(x, None, m),), {"complete": False})
        q, first = _qr_parts(y, (m, m), False)
        r = concat([first, matmul(adjoint(q), columns(x, m, None))], axis=-1)
    return r if mode == "r" else QRResult(q, r)


def _geqrf_value(xp: Any, x: Any) -> Any:
    left_to_lapack(xp)
    *batch, m, n = x.shape
    k = builtins.min(m, n)
    size = int(np.prod(batch))
    a, tau = xp.empty((size, m, n), x.dtype), xp.empty((size, 1, k), x.dtype)
    for i, one in enumerate(x.reshape(size, m, n)):
        turned, tau[i, 0] = xp.linalg.qr(one, mode="raw")
        a[i] = turned.T
    return packed(xp, a.reshape(x.shape), tau.reshape(*batch, 1, k))


_GEQRF: Primitive = factorization("geqrf", _geqrf_value, {"x": None})


def geqrf(x: Any, /) -> Reflections:
    """``R`` and the reflections whose product is ``Q``, as LAPACK gives them and
    ``householder_product`` takes them; nothing is recorded."""
    m, n = matrix_shape("geqrf", x)[-2:]
    return Reflections(*unpacked(apply(_GEQRF, (x,)), (m, n), (builtins.min(m, n),)))


def householder_product(x: Any, tau: Any, /) -> Tensor:
    """The first columns of the product of reflections ``I - tau[i] * outer(v, conj(v))``.

    x: shape (..., m, n) with m >= n; vector number i is column i below the diagonal, with a one on
        it. tau: shape (..., k) with k <= n.

    Raises ShapeError if the shapes do not fit.
    """
    shape, count = matrix_shape("householder_product", x), shape_of(tau)
    m, n = shape[-2:]
    if not count or m < n or count[-1] > n:
        raise ShapeError(
            f"householder_product: m >= n >= k is needed of shapes (..., m, n) and (..., k); got "
            f"{shape} and {count}"
        )
    vectors = tril(x, k=-1) + columns(identity(x, m), None, n)
    batch = np.broadcast_shapes(shape[:-2], count[:-1])
    y = broadcast_to(columns(identity(x, m), None, n), (*batch, m, n))
    for k in range(count[-1] - 1, -1, -1):
        v = columns(vectors, k, k + 1)
        y = y - matmul(expand_dims(tau[..., k : k + 1], -2) * v, matmul(adjoint(v), y))
    return y


# --- LU -------------------------------------------------------------------------------------------


def _lu_value(xp: Any, x: Any) -> Any:
    """Both triangles in one matrix, and the numbers of the rows that were exchanged."""
    left_to_lapack(xp)
    y = xp.array(x)
    m, n = y.shape[-2:]
    flat = y.reshape(int(np.prod(y.shape[:-2])), m, n)
    exchanged = xp.zeros((len(flat), builtins.min(m, n)), xp.int64)
    each = xp.arange(len(flat))
    for k in range(builtins.min(m, n)):
        column = flat[:, k:, k]  # of complex numbers LAPACK adds the parts, too
        size = xp.abs(column.real) + xp.abs(column.imag) if y.dtype.kind == "c" else xp.abs(column)
        best = xp.argmax(size, axis=1) + k
        exchanged[:, k] = best
        row = flat[each, best]
        flat[each, best] = flat[:, k]
        flat[:, k] = row
        pivot = flat[:, k, k]
        safe = xp.where(pivot == 0, xp.ones_like(pivot), pivot)
        below = flat[:, k + 1 :, k] / safe[:, None]
        flat[:, k + 1 :, k] = below
        flat[:, k + 1 :, k + 1 :] -= below[:, :, None] * flat[:, k, None, k + 1 :]
    y = flat.reshape(y.shape)
    return packed(xp, y, exchanged.reshape(*y.shape[:-2], 1, builtins.min(m, n)).astype(y.dtype))


def _lu_parts(y: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    m, n = shape[-2:]
    compact, exchanged = unpacked(y, (m, n), (builtins.min(m, n),))
    return compact, real_part(exchanged)


def lower_of(compact: Any) -> Any:
    """The triangle with ones on its diagonal of both in one matrix."""
    m, n = compact.shape[-2:]
    k = builtins.min(m, n)
    return tril(columns(compact, None, k), k=-1) + columns(identity(compact, m), None, k)


def upper_of(compact: Any) -> Any:
    """The other triangle."""
    m, n = compact.shape[-2:]
    return triu(rows(compact, None, builtins.min(m, n)))


def _lu_rule(g: Any, y: Any, x_shape: tuple[int, ...]) -> Any:
    """``L = [L1, L2]`` and ``U = [U1, U2]`` with square L1, U1 of which the others follow."""
    m, n = x_shape[-2:]
    k = builtins.min(m, n)
    if not k:
        return sliced_to(g, x_shape)
    compact, exchanged = _lu_parts(y, x_shape)
    g = conjugated(_lu_parts(g, x_shape)[0])
    lower, upper = lower_of(compact), upper_of(compact)
    l1, u1 = rows(lower, None, k), columns(upper, None, k)
    bad = singular_triangle(u1)
    u1 = where(bad, identity(u1, k), u1)
    square = columns(rows(g, None, k), None, k)
    of_l, of_u = matmul(adjoint(l1), tril(square, k=-1)), matmul(triu(square), adjoint(u1))
    g_low, g_right = columns(rows(g, k, None), None, k), columns(rows(g, None, k), k, None)
    if m > n:
        of_u = of_u - matmul(adjoint(rows(lower, k, None)), g_low)
    elif m < n:
        of_l = of_l - matmul(g_right, adjoint(columns(upper, k, None)))
    inner = tril(of_l, k=-1) + triu(of_u)
    whole = adjoint(triangular(u1, adjoint(inner), lower=False))
    if m > n:
        low = adjoint(triangular(u1, adjoint(g_low), lower=False))
        found = concat([triangular(adjoint(l1), whole, lower=False, unit=True), low], axis=-2)
    else:
        parts = concat([whole, g_right], axis=-1) if m < n else whole
        found = triangular(adjoint(l1), parts, lower=False, unit=True)
    order = expand_dims(row_order(exchanged, m), -1)
    back = argsort(order, axis=-2)
    found = take_along_axis(found, broadcast_to(back, found.shape), axis=-2)
    return conjugated(nan_where(bad, found))


_LU: Primitive = factorization("lu", _lu_value, {"x": _lu_rule})


def _row_order_value(xp: Any, exchanged: Any, m: int) -> Any:
    left_to_lapack(xp)
    *batch, k = exchanged.shape
    flat = exchanged.reshape(int(np.prod(batch)), k).astype(xp.int64)
    each = xp.arange(len(flat))
    order = xp.zeros((len(flat), m), xp.int64) + xp.arange(m)
    for i in range(k):
        other = flat[:, i]
        row = order[each, other]
        order[each, other] = order[:, i]
        order[:, i] = row
    return order.reshape(*batch, m)


_ROW_ORDER: Primitive = Primitive("row_order", _row_order_value, {"exchanged": None}, fresh=True)


def row_order(exchanged: Any, m: int) -> Any:
    """Which row of a matrix of ``m`` rows is where once rows were exchanged one after another."""
    return apply(_ROW_ORDER, (exchanged,), {"m": m})


def lu_factor(x: Any, /) -> LUFactors:
    """Both triangles of ``lu`` in one matrix, without the ones, and how rows were exchanged.

    Row i was exchanged with row ``piv[i]``, for i from 0 on: what SciPy gives.
    """
    shape = matrix_shape("lu_factor", x)
    compact, exchanged = _lu_parts(apply(_LU, (x,)), shape)
    return LUFactors(compact, cast(exchanged.detach(), np.dtype(np.int32)))


def lu(x: Any, /, permute_l: bool = False, *, p_indices: bool = False) -> Any:
    """The permutation ``P`` and the triangles ``L`` and ``U`` with ``P @ L @ U = x``.

    x: shape (..., m, n). With k the smaller of both sizes: P (..., m, m), L (..., m, k) with ones
    on its diagonal, U (..., k, n).

    permute_l: give ``P @ L`` and ``U`` alone. p_indices: in place of P the integers ``p`` with
        ``L[p] @ U = x``.

    In each column the largest number becomes the pivot. The gradient is NaN where U is singular.
    """
    m = matrix_shape("lu", x)[-2]
    compact, exchanged = lu_factor(x)
    if permute_l or p_indices:
        back = argsort(row_order(exchanged, m), axis=-1)
        lower, upper = lower_of(compact), upper_of(compact)
        if permute_l:
            return _taken(lower, expand_dims(back, -1)), upper
        return LUResult(back, lower, upper)
    numbers = beside(compact, np.arange(m)[:, None])
    permutation = cast(equal(expand_dims(row_order(exchanged, m), -2), numbers), compact.dtype)
    return LUResult(permutation, lower_of(compact), upper_of(compact))


def lu_solve(lu_and_piv: tuple[Any, Any], b: Any, /, trans: int = 0) -> Tensor:
    """The solution ``x`` of ``a @ x = b``, given what ``lu_factor`` gives of ``a``.

    b: shape (n,) for one vector, else (..., n, k). trans: 1 for the transpose of ``a``, 2 for its
        adjoint.

    Raises ShapeError if the shapes do not fit, LinAlgError if ``a`` is singular.
    """
    compact, exchanged = lu_and_piv
    if trans not in (0, 1, 2):
        raise ValueError(f"lu_solve: trans must be 0, 1 or 2; got {trans!r}")
    b, vector = fitting_columns("lu_solve", compact, b)
    order = expand_dims(row_order(exchanged, shape_of(compact)[-1]), -1)
    if trans:
        turn = adjoint if trans == 2 else matrix_transpose
        x = triangular(turn(compact), b, lower=True)
        x = triangular(turn(compact), x, lower=False, unit=True)
        x = _taken(x, argsort(order, axis=-2))
    else:
        x = triangular(compact, _taken(b, order), lower=True, unit=True)
        x = triangular(compact, x, lower=False)
    return squeeze(x, axis=-1) if vector else x


def _taken(x: Any, order: Any) -> Any:
    """The rows of each matrix in this order; both stacks broadcast."""
    batch = np.broadcast_shapes(shape_of(x)[:-2], shape_of(order)[:-2])
    whole = (*batch, *shape_of(x)[-2:])
    return take_along_axis(broadcast_to(x, whole), broadcast_to(order, whole), axis=-2)
