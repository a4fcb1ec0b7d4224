"""Polynomials as vectors of coefficients, the highest power first, in NumPy's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.ops.complex_parts import imag, is_complex, real
from tensorgrad.ops.differences import convolve
from tensorgrad.ops.elementwise import add, isfinite, pow, sqrt, square, subtract, where
from tensorgrad.ops.histograms import host
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.inspection import finfo
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.numpy_forms import as_array, as_inexact, inexact, integer, together
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.scans import cumulative_prod
from tensorgrad.ops.shaping import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    reshape,
    shape_of,
    sliced,
)

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint", "polymul", "polysub", "polyval",
    "roots", "vander",
]  # fmt: skip


def _row(x: Any) -> Any:
    x = as_array(x)
    return reshape(x, (-1,)) if len(shape_of(x)) != 1 else x


def _cut(x: Any, start: int | None, stop: int | None = None) -> Any:
    return sliced(x, ((start, stop, None), ...))


def polyval(p: Any, x: Any) -> Tensor:
    """The polynomial with the coefficients ``p`` at ``x``, by Horner's scheme."""
    first = _leading_zeros(p)
    p, x = together(p, x)
    n = shape_of(p)[0]
    if n - first < 2:
        return x * 0 + sliced(p, (n - 1, ...)) if n else where(isfinite(x), x * 0, 0)
    # Multiplied by 0 like NumPy's, for NaN and infinities; a recorded x would get its last power.
    y = (x.detach() if hasattr(x, "node") else x) * 0 + sliced(p, (first, ...))
    for k in range(first + 1, n):
        y = y * x + sliced(p, (k, ...))
    return y


def _leading_zeros(p: Any) -> int:
    """How many of the first coefficients, given as numbers of the host, are 0; never all."""
    if not isinstance(p, np.ndarray) and not (
        isinstance(p, list | tuple) and all(isinstance(c, int | float | complex) for c in p)
    ):
        return 0
    p = np.asarray(p)
    full = [k for k in range(len(p)) if p[k].any()] if p.ndim else []
    return full[0] if full else max(len(p) - 1, 0) if p.ndim else 0


def _aligned(name: str, of: Any, a1: Any, a2: Any) -> Any:
    a1, a2 = map(_row, together(a1, a2))
    n, m = shape_of(a1)[0], shape_of(a2)[0]
    if n == m:
        return of(a1, a2)
    longer = a1 if n > m else a2
    cut = abs(n - m)
    low = of(_cut(a1, cut), a2) if n > m else of(a1, _cut(a2, cut))
    head = _cut(longer, None, cut)
    return concat([-head if of is subtract and longer is a2 else head, low])


def polyadd(a1: Any, a2: Any) -> Tensor:
    """The sum of two polynomials."""
    return _aligned("polyadd", add, a1, a2)


def polysub(a1: Any, a2: Any) -> Tensor:
    """The difference of two polynomials."""
    return _aligned("polysub", subtract, a1, a2)


def polymul(a1: Any, a2: Any) -> Tensor:
    """The product of two polynomials."""
    return convolve(*map(_row, together(a1, a2)))


def polydiv(u: Any, v: Any) -> tuple[Tensor, Tensor]:
    """The quotient and the remainder of two polynomials.

    Leading coefficients of the remainder that are 0 to within rounding are left out, as NumPy does.
    """
    u, v = map(_row, inexact(u, v))
    n, m = shape_of(u)[0], shape_of(v)[0]
    if n < m:
        return sliced(u, ((0, 1, None), ...)) * 0.0, u
    quotient, rest = [], u
    for _ in range(n - m + 1):
        factor = _cut(rest, 0, 1) / _cut(v, 0, 1)
        quotient.append(factor)
        rest = concat([_cut(rest, 1, m) - factor * _cut(v, 1), _cut(rest, m)])
    if not shape_of(rest)[0]:
        rest = factor * 0.0
    numbers = rest.detach() if hasattr(rest, "node") else as_array(rest)
    zero = 0
    for value in numbers.tolist()[:-1]:
        if not np.allclose(value, 0.0, rtol=1e-14):
            break
        zero += 1
    return concat(quotient), _cut(rest, zero)


def polyder(p: Any, m: int = 1) -> Tensor:
    """The ``m``-th derivative of a polynomial."""
    p, m = _row(p), integer("polyder", "m", m)
    if m < 0:
        raise ValueError(f"polyder: m must not be negative; got {m}")
    for _ in range(m):
        n = shape_of(p)[0] - 1
        p = _cut(p, None, -1) * beside(p, np.arange(n, 0, -1))
    return p


def polyint(p: Any, m: int = 1, k: Any = None) -> Tensor:
    """The ``m``-th antiderivative of a polynomial.

    k: its constants of integration, ``m`` numbers in the order of integrating; 0 if ``None``.
    """
    p, m = _row(as_inexact(p)), integer("polyint", "m", m)
    if m < 0:
        raise ValueError(f"polyint: m must not be negative; got {m}")
    given = as_inexact([0.0] * m if k is None else k, p)
    constants = broadcast_to(reshape(given, (-1,)), (m,)) if given.size == 1 else reshape(given, -1)
    if shape_of(constants) != (m,):
        raise ValueError(f"polyint: k must hold {m} numbers, or one; got {shape_of(constants)[0]}")
    for i in range(m):
        n = shape_of(p)[0]
        p = concat([p / beside(p, np.arange(n, 0, -1.0)), _cut(constants, i, i + 1)])
    return p


def poly(seq_of_zeros: Any) -> Tensor:
    """The coefficients of the polynomial with these zeros, the first one 1.

    Raises ValueError for a matrix, whose eigenvalues would be the zeros.
    """
    zeros = as_inexact(seq_of_zeros)
    if len(shape_of(zeros)) > 1:
        raise ValueError(f"poly: a vector of zeros is needed; got shape {shape_of(zeros)}")
    zeros = reshape(zeros, (-1,))
    one = as_inexact(1.0) if not hasattr(zeros, "node") else beside(zeros, np.ones(1, zeros.dtype))
    found = reshape(one, (1,))
    for k in range(shape_of(zeros)[0]):
        padded = concat([found, found[:1] * 0.0])
        found = padded - concat([found[:1] * 0.0, found * sliced(zeros, (k, ...))])
    return found


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of each of a vector's elements in a row: (n, ``N``), the highest first.

    N: how many powers, n if ``None``. increasing: the lowest first.
    """
    x = as_array(x)
    if len(shape_of(x)) != 1:
        raise ValueError(f"vander: a vector is needed; got shape {shape_of(x)}")
    n = shape_of(x)[0]
    count = n if N is None else integer("vander", "N", N)
    column = reshape(x, (n, 1))
    y = concat([pow(column, 0), broadcast_to(column, (n, max(count - 1, 0)))], axis=1)
    y = cumulative_prod(y, axis=1)[:, :count]
    return y if increasing else flip(y, axis=1)


# --- fits and zeros -------------------------------------------------------------------------------


def polyfit(
    x: Any, y: Any, deg: int, rcond: float | None = None, full: bool = False, w: Any = None,
    cov: bool | str = False,
) -> Any:  # fmt: skip
    """The polynomial of degree ``deg`` that is nearest to points, by the squares of distances.

    x: (n,); y: (n,) or (n, k), for k polynomials at once. w: a factor for each distance.
    rcond: directions whose singular values are less than this part of the largest are left out.
    full: give the residuals, the rank, the singular values and rcond as well. cov: give the
    covariances of the coefficients as well, scaled by the residuals unless "unscaled".
    """
    from tensorgrad.ops.least_squares import lstsq  # loaded where it is used
    from tensorgrad.ops.linear_systems import inv

    x, y = inexact(x, y)
    n = shape_of(x)[0]
    if len(shape_of(x)) != 1 or not n or shape_of(y)[:1] != (n,) or len(shape_of(y)) > 2:
        raise TypeError(f"polyfit: x (n,) and y (n,) or (n, k); got {shape_of(x)}, {shape_of(y)}")
    if rcond is None:
        rcond = n * finfo(x.dtype).eps
    left, right = vander(x, integer("polyfit", "deg", deg) + 1), y
    if w is not None:
        weights = reshape(as_inexact(w, x), (n, 1))
        left = left * weights
        right = right * (weights if len(shape_of(y)) == 2 else reshape(weights, (n,)))
    scale = sqrt(total(square(left), axis=0))
    found = lstsq(left / scale, right, rcond=rcond)
    c = found.x / (scale if len(shape_of(y)) == 1 else reshape(scale, (-1, 1)))
    if full:
        return c, found.residuals, found.rank, found.s, rcond
    if not cov:
        return c
    spread = inv(matmul((left / scale).T, left / scale)) / (
        reshape(scale, (-1, 1)) * reshape(scale, (1, -1))
    )
    many = len(shape_of(y)) == 2
    spread = expand_dims(spread, -1) if many else spread
    if cov != "unscaled":
        if n <= deg + 1:
            raise ValueError(f"polyfit: {n} points are too few for covariances of degree {deg}")
        factor = found.residuals / (n - deg - 1)
        spread = spread * (factor if many else sliced(factor, (0, ...)))
    return c, spread


def roots(p: Any) -> Tensor:
    """The zeros of the polynomial with the coefficients ``p``, eigenvalues of its companion matrix.

    They are complex unless all of them are real.
    """
    from tensorgrad.ops.eigenvalues import eigvals  # loaded where it is used

    p = _row(as_inexact(p))
    full = np.flatnonzero(host("roots", p))
    if not full.size:
        return _cut(p, 0, 0)
    first, last = int(full[0]), int(full[-1]) + 1
    behind = shape_of(p)[0] - last
    p = _cut(p, first, last)
    n = shape_of(p)[0] - 1
    if n < 1:
        return p[:0] if not behind else beside(p, np.zeros(behind, p.dtype))
    top = reshape(-_cut(p, 1) / _cut(p, 0, 1), (1, n))
    y = eigvals(concat([top, beside(p, np.eye(n, dtype=p.dtype)[:-1])], axis=0))
    if is_complex(y) and not host("roots", imag(y)).any():
        y = real(y)
    return concat([y, beside(y, np.zeros(behind, y.dtype))]) if behind else y
