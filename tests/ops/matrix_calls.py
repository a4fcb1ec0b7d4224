"""Calls of all functions of ``tg.linalg``, each as NumPy, SciPy and PyTorch have it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

Array = np.ndarray[Any, Any]
INF = math.inf


@dataclass(frozen=True)
class MatrixCall:
    """``call(m, *arrays)`` with a module ``l`` of matrix functions: tg.linalg, or another's.

    numpy, torch: how NumPy and PyTorch are called, where that differs; ``None`` where they have no
    such function.
    shapes: of the arrays, that are drawn at random; square ones are far from singular.
    hermitian: the first is symmetric, and so are its changes.
    """

    call: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    numpy: Callable[..., Any] | str | None = ""
    torch: Callable[..., Any] | str | None = ""
    hermitian: bool = False

    def arrays(self, name: str, complex: bool = False) -> list[Array]:
        """The arrays, the same in every run."""
        rng = np.random.default_rng(crc32(name.encode()))
        found: list[Array] = []
        for k, shape in enumerate(self.shapes):
            x: Array = rng.uniform(-1, 1, shape)
            if complex:
                x = x + 1j * rng.uniform(-1, 1, shape)
            if len(shape) > 1 and shape[-1] == shape[-2]:
                x = x + np.diag(np.arange(2.0, 2.0 + shape[-1]))
            if k == 0 and self.hermitian:
                x = (x + x.swapaxes(-1, -2).conj()) / 2
            found.append(x)
        return found

    def prepared(self, function: Callable[..., Any], x: Any, *more: Any) -> Any:
        """What ``function`` gives, of the Hermitian part if it is one for such matrices."""
        if self.hermitian:
            x = (x + x.swapaxes(-1, -2).conj()) / 2
        return function(x, *more)


def _squares(result: Any) -> list[Any]:
    """Vectors whose signs or phases are free, and the values, squared."""
    return [abs(y) ** 2 for y in result]


def _scipy() -> Any:
    import pytest

    return pytest.importorskip("scipy.linalg", reason="compares with SciPy")


def _torch() -> Any:
    import torch

    return torch


def _of_stacks(name: str) -> Callable[..., Any]:
    """A function of SciPy for each matrix of a stack."""

    def call(m: Any, a: Any, *rest: Any, **options: Any) -> Any:
        function = getattr(_scipy(), name)
        if a.ndim == 2:
            return function(a, *rest, **options)
        return np.stack([function(*parts, **options) for parts in zip(a, *rest, strict=True)])

    return call


_NORMS = {str(k): k for k in ("fro", "nuc", 1, -1, 2, -2, INF, -INF)}

CALLS: dict[str, MatrixCall] = {
    "block_diag": MatrixCall(
        lambda m, *x: m.block_diag(*x), ((2, 3), (1, 2), (3,)),
        lambda m, *x: _scipy().block_diag(*x), lambda m, *x: _torch().block_diag(*x),
    ),
    "cholesky": MatrixCall(lambda m, x: m.cholesky(x), ((2, 3, 3),), hermitian=True),
    "cholesky-upper": MatrixCall(
        lambda m, x: m.cholesky(x, upper=True), ((3, 3),), hermitian=True
    ),
    "cholesky_solve": MatrixCall(
        lambda m, a, b: m.cholesky_solve(b, m.cholesky(a)), ((2, 3, 3), (3, 2)),
        lambda m, a, b: m.solve(a, b),
        lambda m, a, b: _torch().cholesky_solve(b, m.cholesky(a)), hermitian=True,
    ),
    "cholesky_solve-upper": MatrixCall(
        lambda m, a, b: m.cholesky_solve(b, m.cholesky(a, upper=True), upper=True), ((3, 3), (3,)),
        lambda m, a, b: m.solve(a, b), lambda m, a, b: m.solve(a, b), hermitian=True,
    ),
    "cond": MatrixCall(lambda m, x: m.cond(x), ((2, 3, 4),)),
    "cond-1": MatrixCall(
        lambda m, x: m.cond(x, 1), ((3, 3),),
        torch=None,
    ),
    "cross": MatrixCall(
        lambda m, a, b: m.cross(a, b), ((2, 3), (3,)),
        torch=lambda m, a, b: m.cross(a, b.expand(2, 3)),
    ),
    "eig": MatrixCall(
        lambda m, x: _squares(m.eig(x)), ((2, 3, 3),),
    ),
    "eigvals": MatrixCall(lambda m, x: m.eigvals(x) ** 2, ((3, 3),)),
    "det": MatrixCall(lambda m, x: m.det(x), ((2, 3, 3),)),
    "diagonal": MatrixCall(lambda m, x: m.diagonal(x, offset=1), ((2, 3, 3),)),
    "eigh": MatrixCall(lambda m, x: _squares(m.eigh(x)), ((2, 3, 3),), hermitian=True),
    "eigh-U": MatrixCall(lambda m, x: _squares(m.eigh(x, UPLO="U")), ((3, 3),), hermitian=True),
    "eigvalsh": MatrixCall(lambda m, x: m.eigvalsh(x), ((2, 3, 3),), hermitian=True),
    "expm": MatrixCall(
        lambda m, x: m.expm(x), ((2, 3, 3),), _of_stacks("expm"), lambda m, x: m.matrix_exp(x)
    ),
    "householder_product": MatrixCall(
        lambda m, x, t: m.householder_product(x, t), ((2, 4, 3), (2, 3)), None
    ),
    "inv": MatrixCall(lambda m, x: m.inv(x), ((2, 3, 3),)),
    "logdet": MatrixCall(
        lambda m, x: m.logdet(x), ((2, 3, 3),), lambda m, x: m.slogdet(x)[1],
        lambda m, x: _torch().logdet(x),
    ),
    "lstsq": MatrixCall(
        lambda m, a, b: m.lstsq(a, b)[0], ((4, 3), (4, 2)),
        lambda m, a, b: m.lstsq(a, b, rcond=None)[0],
    ),
    "lu": MatrixCall(
        lambda m, x: m.lu(x), ((2, 3, 3),), lambda m, x: [np.stack(y) for y in
        zip(*[_scipy().lu(part) for part in x], strict=True)],
    ),
    "lu-tall": MatrixCall(lambda m, x: m.lu(x), ((4, 3),), lambda m, x: _scipy().lu(x)),
    "lu-two": MatrixCall(
        lambda m, x: m.lu(x, permute_l=True), ((3, 3),), lambda m, x: _scipy().lu(x, True),
        torch=None,
    ),
    "lu-places": MatrixCall(
        lambda m, x: m.lu(x, p_indices=True), ((4, 3),),
        lambda m, x: _scipy().lu(x, p_indices=True),
        torch=None,
    ),
    "lu-wide": MatrixCall(lambda m, x: m.lu(x), ((3, 4),), lambda m, x: _scipy().lu(x)),
    "lu_solve": MatrixCall(
        lambda m, a, b: m.lu_solve(m.lu_factor(a), b), ((2, 3, 3), (2, 3, 2)),
        lambda m, a, b: m.solve(a, b), lambda m, a, b: m.lu_solve(*m.lu_factor(a), b),
    ),
    "lu_solve-transposed": MatrixCall(
        lambda m, a, b: m.lu_solve(m.lu_factor(a), b, trans=1), ((3, 3), (3,)),
        lambda m, a, b: m.solve(a.swapaxes(-1, -2), b),
        lambda m, a, b: m.solve(a.swapaxes(-1, -2), b),
    ),
    "matrix_norm-keepdims": MatrixCall(
        lambda m, x: m.matrix_norm(x, keepdims=True, ord="nuc"), ((2, 3, 4),),
        torch=lambda m, x: m.matrix_norm(x, "nuc", keepdim=True),
    ),
    "matrix_power": MatrixCall(lambda m, x: m.matrix_power(x, 5), ((2, 3, 3),)),
    "matrix_power-negative": MatrixCall(lambda m, x: m.matrix_power(x, -2), ((3, 3),)),
    "matrix_power-0": MatrixCall(lambda m, x: m.matrix_power(x, 0), ((2, 3, 3),)),
    "matrix_rank": MatrixCall(lambda m, x: m.matrix_rank(x), ((2, 3, 4),)),
    "multi_dot": MatrixCall(
        lambda m, *x: m.multi_dot(x), ((3,), (3, 4), (4, 2), (2, 3), (3,))
    ),
    "norm": MatrixCall(lambda m, x: m.norm(x), ((2, 3, 4),)),
    "norm-of-vectors": MatrixCall(
        lambda m, x: m.norm(x, 3, axis=1, keepdims=True), ((2, 3, 4),),
        torch=lambda m, x: m.norm(x, 3, 1, True),
    ),
    "norm-of-matrices": MatrixCall(
        lambda m, x: m.norm(x, 2, axis=(2, 0), keepdims=True), ((2, 3, 4),),
        torch=lambda m, x: m.norm(x, 2, (2, 0), True),
    ),
    "outer": MatrixCall(
        lambda m, a, b: m.outer(a, b), ((2,), (3,)), torch=lambda m, a, b: _torch().outer(a, b)
    ),
    "pinv-tall": MatrixCall(lambda m, x: m.pinv(x), ((2, 4, 3),)),
    "pinv-wide": MatrixCall(lambda m, x: m.pinv(x), ((3, 4),)),
    "pinv-low-rank": MatrixCall(lambda m, a, b: m.pinv(a @ b), ((4, 2), (2, 3))),
    "pinv-hermitian": MatrixCall(
        lambda m, x: m.pinv(x, hermitian=True), ((3, 3),), hermitian=True
    ),
    "qr": MatrixCall(lambda m, x: m.qr(x), ((3, 3),)),
    "qr-tall": MatrixCall(lambda m, x: m.qr(x), ((2, 4, 3),)),
    "qr-wide": MatrixCall(lambda m, x: m.qr(x), ((3, 4),)),
    "qr-r": MatrixCall(
        lambda m, x: m.qr(x, mode="r"), ((4, 3),), torch=lambda m, x: m.qr(x)[1]
    ),
    "slogdet": MatrixCall(lambda m, x: m.slogdet(x), ((2, 3, 3),)),
    "solve": MatrixCall(lambda m, a, b: m.solve(a, b), ((2, 3, 3), (3, 2))),
    "solve-vector": MatrixCall(lambda m, a, b: m.solve(a, b), ((2, 3, 3), (3,))),
    "solve_triangular": MatrixCall(
        lambda m, a, b: m.solve_triangular(a, b), ((2, 3, 3), (2, 3, 2)),
        _of_stacks("solve_triangular"), lambda m, a, b: m.solve_triangular(a, b, upper=True),
    ),
    "solve_triangular-lower": MatrixCall(
        lambda m, a, b: m.solve_triangular(a, b, lower=True, unit_diagonal=True), ((3, 3), (3, 2)),
        lambda m, a, b: _scipy().solve_triangular(a, b, lower=True, unit_diagonal=True),
        lambda m, a, b: m.solve_triangular(a, b, upper=False, unitriangular=True),
    ),
    "solve_triangular-transposed": MatrixCall(
        lambda m, a, b: m.solve_triangular(a, b, lower=True, trans="T"), ((3, 3), (3,)),
        lambda m, a, b: _scipy().solve_triangular(a, b, lower=True, trans="T"),
        lambda m, a, b: m.solve_triangular(a.T, b[:, None], upper=True)[:, 0],
    ),
    "solve_triangular-right": MatrixCall(
        lambda m, a, b: m.solve_triangular(a, b, left=False), ((3, 3), (2, 3)),
        lambda m, a, b: _scipy().solve_triangular(a.T, b.T, lower=True).T,
        lambda m, a, b: m.solve_triangular(a, b, upper=True, left=False),
    ),
    "svd": MatrixCall(lambda m, x: _squares(m.svd(x, full_matrices=False)), ((3, 3),)),
    "svd-tall": MatrixCall(lambda m, x: _squares(m.svd(x, full_matrices=False)), ((2, 4, 3),)),
    "svd-wide": MatrixCall(lambda m, x: _squares(m.svd(x, full_matrices=False)), ((3, 4),)),
    "svd-full": MatrixCall(
        lambda m, x: [abs(y[..., :3, :3]) ** 2 for y in m.svd(x)[::2]], ((4, 3),), torch=None,
    ),
    "svd-hermitian": MatrixCall(
        lambda m, x: _squares(m.svd(x, hermitian=True)), ((3, 3),),
        torch=lambda m, x: _squares(m.svd(x)), hermitian=True,
    ),
    "svdvals": MatrixCall(lambda m, x: m.svdvals(x), ((2, 3, 4),)),
    "tensorinv": MatrixCall(lambda m, x: m.tensorinv(x, 1), ((4, 2, 2),)),
    "tensorsolve": MatrixCall(lambda m, a, b: m.tensorsolve(a, b), ((2, 2, 4), (2, 2))),
    "tensorsolve-axes": MatrixCall(
        lambda m, a, b: m.tensorsolve(a, b, axes=(0,)), ((4, 2, 2), (2, 2)),
        torch=lambda m, a, b: m.tensorsolve(a, b, (0,)),
    ),
    "trace": MatrixCall(
        lambda m, x: m.trace(x, offset=-1), ((2, 3, 3),),
        torch=lambda m, x: _torch().diagonal(x, -1, -2, -1).sum(-1),
    ),
    "vander": MatrixCall(
        lambda m, x: m.vander(x, 4), ((3,),), lambda m, x: np.vander(x, 4, increasing=True),
        lambda m, x: m.vander(x, N=4),
    ),
    "vander-decreasing": MatrixCall(
        lambda m, x: m.vander(x, increasing=False), ((3,),), lambda m, x: np.vander(x),
        lambda m, x: m.vander(x).flip(-1),
    ),
    "vector_norm": MatrixCall(
        lambda m, x: m.vector_norm(x, axis=(0, 2), ord=4), ((2, 3, 4),),
        torch=lambda m, x: m.vector_norm(x, 4, (0, 2)),
    ),
    **{
        f"matrix_norm-{name}": MatrixCall(
            lambda m, x, ord=ord: m.matrix_norm(x, ord=ord), ((2, 3, 4),)
        )
        for name, ord in _NORMS.items()
    },
}  # fmt: skip
