"""Eigenvalues of any square matrices, which are complex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad import dtypes
from tensorgrad.ops.complex_parts import real
from tensorgrad.ops.elementwise import where
from tensorgrad.ops.factorizations import sliced_to
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.linear_systems import INV
from tensorgrad.ops.matrices import (
    adjoint,
    conjugated,
    factorization,
    largest,
    left_to_lapack,
    matrix_shape,
    nan_where,
    noted,
    on_diagonal,
    packed_with_note,
    product,
    raising,
    reached_in_vain,
    roundoff,
    scaled,
    unpacked,
)
from tensorgrad.ops.padding import diagonal
from tensorgrad.ops.shaping import expand_dims, squeeze
from tensorgrad.ops.spectra import quotients, side_of
from tensorgrad.tape import Primitive, apply, cast, real_part

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["eig", "eigvals"]

#: The roundoff times the largest number in the inverse of the eigenvectors, from which on there are
#: too few of them for all that one can tell.
_DEFECTIVE = 1e-4


class EigResult(NamedTuple):
    """The eigenvalues, and an eigenvector of length 1 in each column."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _eig_value(xp: Any, x: Any) -> Any:
    left_to_lapack(xp)
    if not x.size:  # cuSOLVER has none
        *batch, _, n = x.shape
        return xp.zeros((*batch, n + n * n + 1), dtypes.complex_of(x.dtype))
    with raising(xp, x):
        w, v = xp.linalg.eig(x)
    return packed_with_note(xp, w[..., None, :], v).astype(dtypes.complex_of(x.dtype), copy=False)


def _eig_parts(y: Any) -> tuple[Any, Any]:
    n = side_of(y.shape[-1])
    w, v = unpacked(y, (n,), (n, n))
    return w, v


def _eig_rule(g: Any, y: Any, x_shape: tuple[int, ...], x_dtype: Any) -> Any:
    """With ``P = inv(V) dA V`` the vectors change by ``V M``, ``M = P / (w[j] - w[i])``, and by
    what keeps their length."""
    if not x_shape[-1]:
        found = sliced_to(g, x_shape)
        return found if x_dtype in dtypes.COMPLEX else real_part(found)
    w, v = _eig_parts(y)
    gw, gv = (conjugated(part) for part in _eig_parts(g))
    turning = matmul(adjoint(v), gv)
    lengths = real(diagonal(turning, 0, -2, -1))
    turned = turning - scaled(matmul(adjoint(v), v), lengths)
    used = squeeze(largest(gv, -2), axis=-2) + reached_in_vain(g, gv)
    over = quotients(w, turning, used, gw)
    inner = turned * conjugated(over)
    inner = inner + where(on_diagonal(w, w.shape[-1]), expand_dims(gw, -2), 0.0)
    back = apply(INV, (v,))
    found = product(adjoint(back), inner, adjoint(v))
    defective = largest(back, (-2, -1)) * roundoff(w) > _DEFECTIVE
    found = conjugated(nan_where(defective, found))
    return found if x_dtype in dtypes.COMPLEX else cast(real_part(found), x_dtype)


EIG: Primitive = factorization("eig", _eig_value, {"x": _eig_rule})


def eig(x: Any, /) -> EigResult:
    """The eigenvalues and eigenvectors of square matrices, complex numbers in any case.

    The gradient is NaN where eigenvalues coincide and the result uses their vectors, where vectors
    turn by a number of size 1 and the result depends on that choice, and of matrices with too few
    eigenvectors. Raises LinAlgError where the computation does not converge.
    """
    matrix_shape("eig", x, square=True)
    y = apply(EIG, (x,))
    return EigResult(_eig_parts(y)[0], _eig_parts(noted(y))[1])


def eigvals(x: Any, /) -> Tensor:
    """The eigenvalues of square matrices, complex numbers in any case; see ``eig``."""
    matrix_shape("eigvals", x, square=True)
    found: Tensor = _eig_parts(apply(EIG, (x,)))[0]
    return found
