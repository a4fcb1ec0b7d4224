"""Decompositions of low rank by random projections (Halko, Martinsson, Tropp 2009)."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad.errors import ShapeError
from tensorgrad.ops import random
from tensorgrad.ops.factorizations import qr
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.matrices import adjoint, matrix_shape
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.spectra import svd

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["pca_lowrank", "svd_lowrank"]


class LowRank(NamedTuple):
    """Orthonormal columns, singular values in descending order, and orthonormal columns."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd_lowrank(x: Any, /, q: int = 6, niter: int = 2, M: Any = None) -> LowRank:
    """The ``q`` largest singular values of matrices, about, with their vectors: x = (U * S) @ V*.

    They are those of what the matrices make of ``q`` random vectors: exact where the rank is not
    above ``q``. niter: how often these are multiplied by the matrix and its adjoint, which brings
    out the largest. M: what is subtracted from the matrices, as their mean.
    """
    m, n = matrix_shape("svd_lowrank", x)[-2:]
    if not 0 <= q <= builtins.min(m, n):
        raise ShapeError(f"svd_lowrank: q must be between 0 and {builtins.min(m, n)}; got {q}")
    x = x if M is None else x - M
    tall = x if m >= n else adjoint(x)
    device = getattr(x, "device", None) if hasattr(x, "node") else None
    drawn = random.normal((builtins.min(m, n), q), dtype=x.dtype, device=device)
    basis = qr(matmul(tall, drawn)).Q
    for _ in range(niter):
        other = qr(matmul(adjoint(tall), basis)).Q
        basis = qr(matmul(tall, other)).Q
    u, s, vh = svd(matmul(adjoint(basis), tall), full_matrices=False)
    left, right = matmul(basis, u), adjoint(vh)
    return LowRank(left, s, right) if m >= n else LowRank(right, s, left)


def pca_lowrank(x: Any, /, q: int | None = None, center: bool = True, niter: int = 2) -> LowRank:
    """``svd_lowrank`` of matrices less the mean of their rows, if ``center``: the principal
    directions are the columns of V. q: 6, or the smaller size, unless given."""
    shape = matrix_shape("pca_lowrank", x)
    count = builtins.min(6, *shape[-2:]) if q is None else q
    return svd_lowrank(x - mean(x, axis=-2, keepdims=True) if center else x, count, niter)
