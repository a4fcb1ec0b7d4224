"""Powers, exponentials, products of many matrices, ranks and norms."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from itertools import pairwise
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops import linear_algebra, padding
from tensorgrad.ops.determinants import slogdet
from tensorgrad.ops.elementwise import abs, equal, logical_not, where
from tensorgrad.ops.least_squares import rank_of, tolerance_of
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.linear_systems import inv
from tensorgrad.ops.matrices import (
    columns,
    either,
    factorization,
    identity,
    in_batch,
    largest,
    left_to_lapack,
    matrix_shape,
    raising,
    rows,
)
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import all, max, min, sum
from tensorgrad.ops.reductions import norm as norm_of_all
from tensorgrad.ops.scans import cumulative_prod
from tensorgrad.ops.shaping import (
    Axis,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    matrix_transpose,
    moveaxis,
    normalize_axes,
    normalize_axis,
    reshape,
    roll,
    shape_of,
    squeeze,
)
from tensorgrad.ops.spectra import eigvalsh, svdvals
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "block_diag", "cond", "cross", "diagonal", "expm", "matrix_norm", "matrix_power", "matrix_rank",
    "multi_dot", "norm", "outer", "trace", "vander", "vector_norm",
]  # fmt: skip


# --- products -------------------------------------------------------------------------------------


def matrix_power(x: Any, n: int, /) -> Tensor:
    """The product of ``n`` factors ``x``; of the inverse if ``n`` is negative, and 1 for 0.

    Raises ShapeError unless the last two axes have one size, LinAlgError if an inverse is missing.
    """
    shape = matrix_shape("matrix_power", x, square=True)
    n = as_int(n)
    if n == 0:
        return in_batch(identity(x, shape[-1]), tuple(shape[:-2])) + x * 0
    if n < 0:
        x, n = inv(x), -n
    while not n & 1:
        x, n = matmul(x, x), n >> 1
    found: Tensor = x
    while n := n >> 1:
        x = matmul(x, x)
        if n & 1:
            found = matmul(found, x)
    return found


def multi_dot(arrays: Sequence[Any], /) -> Tensor:
    """The product of two or more matrices, in the order that needs the fewest multiplications.

    The first and the last may be vectors, a row and a column. Raises ShapeError if sizes differ.
    """
    factors = list(arrays)
    if len(factors) < 2:
        raise ValueError(f"multi_dot: at least two factors are needed; got {len(factors)}")
    shapes = [shape_of(x) for x in factors]
    row, column = len(shapes[0]) == 1, len(shapes[-1]) == 1
    if row:
        factors[0] = expand_dims(factors[0], 0)
    if column:
        factors[-1] = expand_dims(factors[-1], -1)
    whole = [shape_of(x) for x in factors]
    if [len(shape) for shape in whole] != [2] * len(whole) or any(
        a[1] != b[0] for a, b in pairwise(whole)
    ):
        got = ", ".join(map(str, shapes))
        raise ShapeError(f"multi_dot: matrices with sizes that fit are needed; got shapes {got}")
    sizes = [shape[0] for shape in whole] + [whole[-1][1]]
    found = _in_order(factors, _best_cuts(sizes), 0, len(factors) - 1)
    if column:
        found = squeeze(found, axis=-1)
    return squeeze(found, axis=0) if row else found


def _best_cuts(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """For factors i to j after which of them to cut; by dynamic programming."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    cuts = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            found = [
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            ]
            cost[i, j], cuts[i, j] = sorted(found)[0]
    return cuts


def _in_order(factors: Sequence[Any], cuts: dict[tuple[int, int], int], i: int, j: int) -> Any:
    if i == j:
        return factors[i]
    k = cuts[i, j]
    return matmul(_in_order(factors, cuts, i, k), _in_order(factors, cuts, k + 1, j))


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three numbers along ``axis``; the other axes broadcast.

    Raises ShapeError unless both have size 3 along the axis.
    """
    shapes = shape_of(x1), shape_of(x2)
    places = [normalize_axis("cross", axis, x) for x in (x1, x2)]
    if [shape[k] for shape, k in zip(shapes, places, strict=True)] != [3, 3]:
        raise ShapeError(
            f"cross: both must have size 3 along axis {axis}; got {shapes[0]} and {shapes[1]}"
        )
    a, b = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)
    found = roll(a, -1, axis=-1) * roll(b, 1, axis=-1) - roll(a, 1, axis=-1) * roll(b, -1, axis=-1)
    return moveaxis(found, -1, axis)


def outer(x1: Any, x2: Any, /) -> Tensor:
    """All products of an element of ``x1`` and one of ``x2``, two vectors: a matrix.

    Raises ShapeError for anything but vectors.
    """
    for shape in (shape_of(x1), shape_of(x2)):
        if len(shape) != 1:
            raise ShapeError(f"outer: two vectors are needed; got shape {shape}")
    return linear_algebra.outer(x1, x2)


def block_diag(*arrays: Any) -> Tensor:
    """Matrices along the diagonal of a matrix that is 0 elsewhere; the leading axes broadcast.

    A vector is a row, and a number a matrix of size 1.
    """
    if not arrays:
        raise ValueError("block_diag: at least one array is needed")
    blocks = [reshape(x, (1,) * (2 - len(shape_of(x))) + shape_of(x)) for x in arrays]
    shapes = [shape_of(x) for x in blocks]
    batch = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    width, start, found = builtins.sum(shape[-1] for shape in shapes), 0, []
    for x, shape in zip(blocks, shapes, strict=True):
        around = [(0, 0)] * len(batch) + [(0, 0), (start, width - start - shape[-1])]
        found.append(padding.pad(in_batch(x, batch), around))
        start += shape[-1]
    return concat(found, axis=-2)


def vander(x: Any, /, n: int | None = None, *, increasing: bool = True) -> Tensor:
    """The powers 0 to n - 1 of each number, along a new last axis.

    n: how many; as many as there are numbers along the last axis if ``None``. increasing: False for
        the powers n - 1 to 0.
    """
    shape = shape_of(x)
    if n is None and not shape:
        raise ShapeError("vander: of a number say how many powers are wanted")
    n = shape[-1] if n is None else as_int(n)
    if n < 0:
        raise ValueError(f"vander: n must not be negative; got {n}")
    ones = expand_dims(x * 0 + 1, -1)[..., : builtins.min(n, 1)]
    if n > 1:
        factors = broadcast_to(expand_dims(x, -1), (*shape, n - 1))
        ones = concat([ones, cumulative_prod(factors, axis=-1)], axis=-1)
    return ones if increasing else flip(ones, axis=-1)


# --- diagonals ------------------------------------------------------------------------------------


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The elements ``x[..., i, i + offset]`` of each matrix, along the last axis."""
    return padding.diagonal(x, offset, -2, -1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of the elements ``x[..., i, i + offset]`` of each matrix.

    dtype: convert to this dtype before adding.
    """
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


# --- the exponential ------------------------------------------------------------------------------

#: Coefficients of the Pade approximant of degree 13, and the norm up to which it is exact.
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0,
    129060195264000.0, 10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0,
    960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_LIMIT = 5.371920351148152


def _expm_value(xp: Any, x: Any) -> Any:
    """After Higham (2005), "The scaling and squaring method for the matrix exponential"."""
    left_to_lapack(xp)
    if not x.size:
        return xp.zeros(x.shape, x.dtype)
    n = x.shape[-1]
    size = xp.abs(x).sum(axis=-2).max(axis=-1)
    finite = xp.isfinite(size)
    steps = xp.ceil(xp.log2(xp.maximum(xp.where(finite, size, 1.0), _LIMIT) / _LIMIT))
    a = x * (2.0**-steps)[..., None, None].astype(size.dtype)
    eye = xp.eye(n, dtype=x.dtype)
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    b = _PADE
    u = a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * eye
    v = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * eye
    u = a @ u
    with raising(xp, x):
        found = xp.linalg.solve(v - u, v + u)
    for k in range(int(steps.max())):
        found = xp.where((steps > k)[..., None, None], found @ found, found)
    return found


def _expm_rule(g: Any, x: Any) -> Any:
    """The upper right of ``expm([[x.T, g], [0, x.T]])``, where ``g`` is as large as ``x.T``."""
    n = x.shape[-1]
    if not n:
        return g
    transposed = matrix_transpose(x)
    size = detached(largest(g, (-2, -1)))
    size = where(equal(size, 0), 1.0, size)
    upper = concat([transposed, g / size], axis=-1)
    lower = concat([g * 0.0, transposed], axis=-1)
    whole = apply(_EXPM, (concat([upper, lower], axis=-2),))
    return columns(rows(whole, None, n), n, None) * size


def detached(x: Any) -> Any:
    """``x`` without its history; an array as it is."""
    return x.detach() if hasattr(x, "node") else x


_EXPM: Primitive = factorization("expm", _expm_value, {"x": _expm_rule})


def expm(x: Any, /) -> Tensor:
    """The exponential of each square matrix: the sum of ``x**k / k!``."""
    matrix_shape("expm", x, square=True)
    found: Tensor = apply(_EXPM, (x,))
    return found


# --- ranks and condition --------------------------------------------------------------------------


def matrix_rank(x: Any, /, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Tensor:
    """The number of singular values of each matrix that are larger than a tolerance.

    tol: the tolerance. rtol: as a part of the largest singular value; by default the larger size of
        the matrix times the roundoff of its dtype. Numbers, or one for each matrix of a stack.
    hermitian: the matrices are Hermitian; their lower triangle is read.

    Raises ValueError if both are given.
    """
    if tol is not None and rtol is not None:
        raise ValueError("matrix_rank: give the tolerance once, as tol or as rtol")
    shape = shape_of(x)
    if len(shape) < 2:  # as NumPy has it: whether there is anything but zeros
        return cast(logical_not(all(equal(x, 0))), dtypes.int64)
    matrix_shape("matrix_rank", x, square=hermitian)
    s = abs(eigvalsh(x)) if hermitian else svdvals(x)
    if tol is None:
        return rank_of(s, tolerance_of("matrix_rank", x, rtol))
    if shape_of(tol):
        tol = expand_dims(tol, -1)
    return sum(cast(s > tol, dtypes.int64), axis=-1)


def cond(x: Any, /, p: float | str | None = None) -> Tensor:
    """The condition number of each matrix: its norm times that of its inverse.

    p: which norm, as ``ord`` of ``matrix_norm``; 2 if ``None``, for which any matrix has one.

    Of singular matrices it is infinite.
    """
    shape = matrix_shape("cond", x, square=p not in (None, 2, -2))
    if 0 in shape[-2:]:
        raise ShapeError(f"cond: matrices without elements have none; got shape {shape}")
    if p in (None, 2, -2):
        s = svdvals(x)
        large, small = s[..., 0], s[..., -1]
        if p == -2:
            return _infinite_where(equal(large, 0), small, large)
        return _infinite_where(equal(small, 0), large, small)
    singular = equal(slogdet(x).sign, 0)
    at = expand_dims(singular, (-2, -1))
    inverse = inv(where(at, identity(x, shape[-1]), x))
    return _infinite_where(singular, matrix_norm(x, ord=p) * matrix_norm(inverse, ord=p))


def _infinite_where(condition: Any, x: Any, by: Any = None) -> Any:
    """``x / by`` of numbers that are not negative; infinite, with its slope, at the condition."""
    x = x + either(condition, 1.0, 0.0, x)
    if by is not None:
        x = x / where(condition, 1.0, by)
    return x * either(condition, math.inf, 1.0, x)


# --- norms ----------------------------------------------------------------------------------------


def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The norm of the vectors along ``axis``, of all elements if ``None``; see ``norm``."""
    if isinstance(ord, str):
        raise ValueError(f"vector_norm: {ord!r} is a norm of matrices")
    return norm_of_all(x, ord, axis, keepdims=keepdims)


@in_float32
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Tensor:
    """The norm of each matrix.

    ord: "fro" (or ``None``) for the root of the sum of all squares, "nuc" for the sum of singular
        values; 1 and -1 for the largest and smallest sum of absolute values of a column, inf and
        -inf of a row; 2 and -2 for the largest and smallest singular value.

    Raises ValueError for any other ``ord``.
    """
    matrix_shape("matrix_norm", x)
    if ord is None or ord == "fro":
        return norm_of_all(x, axis=(-2, -1), keepdims=keepdims)
    if ord == "nuc" or (not isinstance(ord, str) and ord in (2, -2)):
        s = svdvals(x)
        reduced = sum if ord == "nuc" else max if ord == 2 else min
        found = reduced(s, axis=-1)
        return expand_dims(found, (-2, -1)) if keepdims else found
    if isinstance(ord, str) or ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(
            f'matrix_norm: ord must be "fro", "nuc", 1, -1, 2, -2, inf or -inf; got {ord!r}'
        )
    sums = sum(abs(x), axis=-2 if ord in (1, -1) else -1, keepdims=True)
    return (max if ord > 0 else min)(sums, axis=(-2, -1), keepdims=keepdims)


def norm(
    x: Any, /, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False
) -> Tensor:
    """A norm of vectors or of matrices, as NumPy's function of the name has it.

    axis: one axis for vectors, two for matrices; ``None`` for all, which have to be one or two
        unless ``ord`` is ``None`` too. ord: see ``vector_norm`` and ``matrix_norm``; ``None`` for
        the root of the sum of all squares.

    Raises ValueError if there is no such norm.
    """
    n = len(shape_of(x))
    if ord is None and axis is None:
        return norm_of_all(x, axis=tuple(range(n)), keepdims=keepdims)
    axes = normalize_axes("norm", axis, x)
    if len(axes) == 1:
        if isinstance(ord, str):
            raise ValueError(f"norm: {ord!r} is a norm of matrices; axis {axes} is one")
        return norm_of_all(x, ord, axis=axes, keepdims=keepdims)
    if len(axes) != 2:
        raise ValueError(f"norm: a norm is over one or two axes; got {len(axes)}")
    found = matrix_norm(moveaxis(x, axes, (-2, -1)), ord=ord)
    return expand_dims(found, tuple(sorted(axes))) if keepdims else found
