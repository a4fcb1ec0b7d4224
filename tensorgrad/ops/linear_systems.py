"""Inverses and systems of linear equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.matrices import (
    adjoint,
    batch_of,
    factorization,
    left_to_lapack,
    matrix_shape,
    product,
    raising,
)
from tensorgrad.ops.padding import tril, triu
from tensorgrad.ops.shaping import (
    expand_dims,
    matrix_transpose,
    normalize_axis,
    permute_dims,
    reshape,
    shape_of,
    squeeze,
)
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "cholesky_solve", "inv", "solve", "solve_triangular", "tensorinv", "tensorsolve",
]  # fmt: skip


# --- inverse and solution -------------------------------------------------------------------------


def _inv_value(xp: Any, x: Any) -> Any:
    with raising(xp, x):
        return xp.linalg.inv(x)


def _inv_rule(g: Any, y: Any) -> Any:
    transposed = matrix_transpose(y)
    return -product(transposed, g, transposed)


INV: Primitive = factorization("inv", _inv_value, {"x": _inv_rule})


def inv(x: Any, /) -> Tensor:
    """The inverse of each square matrix.

    Raises ShapeError unless the last two axes have one size, LinAlgError if a matrix is singular.
    """
    matrix_shape("inv", x, square=True)
    found: Tensor = apply(INV, (x,))
    return found


def _solve_value(xp: Any, a: Any, b: Any) -> Any:
    left_to_lapack(xp)
    if a.shape[:-2] != b.shape[:-2]:  # CuPy asks for it
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = xp.broadcast_to(a, batch + a.shape[-2:])
        b = xp.broadcast_to(b, batch + b.shape[-2:])
    with raising(xp, a):
        return xp.linalg.solve(a, b)


def _solve_both(g: Any, needed: Sequence[bool], saved: Any) -> Sequence[Any]:
    right = _solved(matrix_transpose(saved["a"]), g)
    return (-product(right, matrix_transpose(saved["y"])) if needed[0] else None), right


_SOLVE: Primitive = factorization(
    "solve",
    _solve_value,
    {
        "a": lambda g, a, y: -product(_solved(matrix_transpose(a), g), matrix_transpose(y)),
        "b": lambda g, a: _solved(matrix_transpose(a), g),
    },
    together=_solve_both,
)


def _solved(a: Any, b: Any) -> Any:
    return apply(_SOLVE, (a, b))


def fitting_columns(name: str, a: Any, b: Any, left: bool = True) -> tuple[Any, bool]:
    """``b`` as a stack of matrices that fit ``a``, and whether it was a vector."""
    shape, other = matrix_shape(name, a, square=True), shape_of(b)
    if not other:
        raise ShapeError(f"{name}: b needs at least one axis; got a number")
    vector = len(other) == 1
    size = other[0] if vector else other[-2 if left else -1]
    if size != shape[-1]:
        raise ShapeError(
            f"{name}: b must have the size of a, {shape[-1]}, along "
            f"{'its axis' if vector else 'axis -2' if left else 'axis -1'}; got {shape} and {other}"
        )
    if vector:
        return expand_dims(b, -1 if left else 0), True
    batch_of(name, shape, other)
    return b, False


def solve(a: Any, b: Any, /) -> Tensor:
    """The solution ``x`` of ``a @ x = b``.

    a: shape (..., n, n). b: (n,) for one vector, else (..., n, k); the leading axes broadcast.

    Raises ShapeError if the shapes do not fit, LinAlgError if a matrix is singular.
    """
    right, vector = fitting_columns("solve", a, b)
    x = _solved(a, right)
    return squeeze(x, axis=-1) if vector else x


# --- triangles ------------------------------------------------------------------------------------


def _triangular_value(xp: Any, a: Any, b: Any, lower: bool, unit: bool) -> Any:
    """By LU factorization, which of an upper triangle exchanges no rows and is the triangle."""
    left_to_lapack(xp)
    a = (xp.tril if lower else xp.triu)(a)
    if unit:
        eye = xp.eye(a.shape[-1], dtype=a.dtype)
        a = xp.where(eye != 0, eye, a)
    if lower:
        return _solve_value(xp, a[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]
    return _solve_value(xp, a, b)


def _triangular_a(g: Any, a: Any, y: Any, lower: bool, unit: bool) -> Any:
    right = _triangular_b(g, a, lower, unit)
    whole = -product(right, matrix_transpose(y))
    return tril(whole, k=-unit) if lower else triu(whole, k=+unit)


def _triangular_b(g: Any, a: Any, lower: bool, unit: bool) -> Any:
    return triangular(matrix_transpose(a), g, lower=not lower, unit=unit)


_TRIANGULAR: Primitive = factorization(
    "solve_triangular", _triangular_value, {"a": _triangular_a, "b": _triangular_b}
)


def triangular(a: Any, b: Any, *, lower: bool, unit: bool = False) -> Any:
    """The solution of ``a @ x = b``, where of ``a`` one triangle is read."""
    return apply(_TRIANGULAR, (a, b), {"lower": lower, "unit": unit})


def solve_triangular(
    a: Any,
    b: Any,
    /,
    *,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    left: bool = True,
) -> Tensor:
    """The solution ``x`` of ``a @ x = b`` for triangular ``a``; the arguments are SciPy's.

    a: shape (..., n, n), of which the other triangle is not read, nor the diagonal if it consists
        of ones (``unit_diagonal``). b: (n,) for one vector, else (..., n, k).
    trans: 1 or "T" for the transpose of ``a``, 2 or "C" for its adjoint.
    left: False for ``x @ a = b``, with ``b`` of shape (..., k, n).

    Raises ShapeError if the shapes do not fit, LinAlgError for a zero on the diagonal.
    """
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise ValueError(f"solve_triangular: trans must be 0, 1 or 2; got {trans!r}")
    right, vector = fitting_columns("solve_triangular", a, b, left)
    if trans not in (0, "N"):
        a, lower = (adjoint if trans in (2, "C") else matrix_transpose)(a), not lower
    if left:
        x = triangular(a, right, lower=lower, unit=unit_diagonal)
    else:
        a, right = matrix_transpose(a), matrix_transpose(right)
        x = matrix_transpose(triangular(a, right, lower=not lower, unit=unit_diagonal))
    return squeeze(x, axis=-1 if left else 0) if vector else x


def cholesky_solve(b: Any, factor: Any, /, *, upper: bool = False) -> Tensor:
    """The solution ``x`` of ``a @ x = b``, given the ``factor`` of ``a`` that ``cholesky`` gives.

    b: shape (n,) for one vector, else (..., n, k). upper: whether the factor is an upper triangle.

    Raises ShapeError if the shapes do not fit.
    """
    right, vector = fitting_columns("cholesky_solve", factor, b)
    first = adjoint(factor) if upper else factor
    x = triangular(adjoint(first), triangular(first, right, lower=True), lower=False)
    return squeeze(x, axis=-1) if vector else x


# --- tensors --------------------------------------------------------------------------------------


def tensorsolve(a: Any, b: Any, /, axes: Sequence[int] | None = None) -> Tensor:
    """The solution ``x`` of ``tensordot(a, x, x.ndim) = b``.

    a: of shape ``b.shape + x.shape``, each half with as many elements.
    axes: axes of ``a`` that are moved to the end before.

    Raises ShapeError if the halves differ.
    """
    shape = shape_of(a)
    if axes is not None:
        last = [normalize_axis("tensorsolve", axis, a) for axis in axes]
        order = [axis for axis in range(len(shape)) if axis not in last] + last
        a, shape = permute_dims(a, order), tuple(shape[k] for k in order)
    result = shape[len(shape_of(b)) :]
    size = math.prod(result)
    if math.prod(shape) != size * size or math.prod(shape_of(b)) != size:
        raise ShapeError(
            f"tensorsolve: a must have the shape of b and then that of the solution, with as many "
            f"elements each; got {shape} and {shape_of(b)}"
        )
    return reshape(solve(reshape(a, (size, size)), reshape(b, (size,))), result)


def tensorinv(x: Any, /, ind: int = 2) -> Tensor:
    """The inverse of ``x`` for ``tensordot(y, x, ind)``.

    ind: how many axes belong to the first half of the shape, which has as many elements as the
        second. The inverse has the halves exchanged.

    Raises ValueError if ``ind`` is not positive, ShapeError if the halves differ.
    """
    if ind <= 0:
        raise ValueError(f"tensorinv: ind must be positive; got {ind}")
    shape = shape_of(x)
    size = math.prod(shape[:ind])
    if math.prod(shape[ind:]) != size:
        raise ShapeError(
            f"tensorinv: the first {ind} axes must have as many elements as the others; got {shape}"
        )
    return reshape(inv(reshape(x, (size, size))), shape[ind:] + shape[:ind])
