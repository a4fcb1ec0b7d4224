"""The functions of ``np.linalg`` called on tensors; see ``numpy_names``, which loads this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.ops import linear_algebra, shaping
from tensorgrad.ops.determinants import det, slogdet
from tensorgrad.ops.eigenvalues import eig, eigvals
from tensorgrad.ops.factorizations import cholesky, qr
from tensorgrad.ops.least_squares import lstsq, pinv
from tensorgrad.ops.linear_systems import inv, solve, tensorinv, tensorsolve
from tensorgrad.ops.matrix_functions import (
    cond,
    cross,
    diagonal,
    matrix_norm,
    matrix_power,
    matrix_rank,
    multi_dot,
    norm,
    outer,
    trace,
    vector_norm,
)
from tensorgrad.ops.spectra import eigh, eigvalsh, svd, svdvals

#: NumPy's name, our function, and NumPy's arguments, as in ``numpy_names``.
ROWS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("linalg.cholesky", cholesky, "a upper="),
    ("linalg.cond", cond, "x p="),
    ("linalg.cross", cross, "x1 x2 axis="),
    ("linalg.det", det, "a"),
    ("linalg.diagonal", diagonal, "x offset="),
    ("linalg.eig", eig, "a"),
    ("linalg.eigh", eigh, "a UPLO="),
    ("linalg.eigvals", eigvals, "a"),
    ("linalg.eigvalsh", eigvalsh, "a UPLO="),
    ("linalg.inv", inv, "a"),
    ("linalg.lstsq", lstsq, "a b rcond="),
    ("linalg.matmul", linear_algebra.matmul, "x1 x2"),
    ("linalg.matrix_norm", matrix_norm, "x keepdims= ord="),
    ("linalg.matrix_power", matrix_power, "a n"),
    ("linalg.matrix_rank", matrix_rank, "A tol= hermitian= rtol="),
    ("linalg.matrix_transpose", shaping.matrix_transpose, "x"),
    ("linalg.multi_dot", multi_dot, "arrays !out"),
    ("linalg.norm", norm, "x ord= axis= keepdims="),
    ("linalg.outer", outer, "x1 x2"),
    ("linalg.pinv", pinv, "a rcond= hermitian= rtol="),
    ("linalg.qr", qr, "a mode="),
    ("linalg.slogdet", slogdet, "a"),
    ("linalg.solve", solve, "a b"),
    ("linalg.svd", svd, "a full_matrices= compute_uv= hermitian="),
    ("linalg.svdvals", svdvals, "x"),
    ("linalg.tensordot", linear_algebra.tensordot, "x1 x2 axes="),
    ("linalg.tensorinv", tensorinv, "a ind="),
    ("linalg.tensorsolve", tensorsolve, "a b axes="),
    ("linalg.trace", trace, "x offset= dtype="),
    ("linalg.vector_norm", vector_norm, "x axis= keepdims= ord="),
)
