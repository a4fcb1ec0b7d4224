"""How PyTorch's matrix functions are called here, for ``bench.coverage``.

Its samples say themselves what of a result does not depend on the choice of vectors, and which
matrices are Hermitian or triangles; that goes around both functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorgrad
from tensorgrad import linalg
from tensorgrad.ops.factorizations import lower_of, row_order, upper_of

tg: Any = tensorgrad

Function = Callable[..., Any]


class _Adjoint:
    """The third factor of PyTorch's older function, of which its samples take the adjoint."""

    def __init__(self, vh: Any) -> None:
        self.mH = vh


def judged(op: Any, sample: Any, ours: Function) -> tuple[Function, Function]:
    """PyTorch's function and ours, as the sample wants their arguments and results."""
    finish, name = sample.output_process_fn_grad, str(op.name)
    wrapper = getattr(op.gradcheck_wrapper, "__name__", "")

    def theirs(*args: Any, **kwargs: Any) -> Any:
        if "hermitian" in wrapper:
            return finish(op.gradcheck_wrapper(op.get_op(), *args, **kwargs))
        return finish(op.get_op()(*_triangles(name, args, kwargs), **kwargs))

    def here(x: Any, *args: Any, **kwargs: Any) -> Any:
        if "hermitian" in wrapper:
            x = x + tg.conj(x.mT)
        return finish(ours(*_triangles(name, (x, *args), kwargs), **kwargs))

    return theirs, here


def _triangles(name: str, args: Any, kwargs: Any) -> Any:
    """The arguments, of factors the triangle that is meant."""
    if name not in ("cholesky_solve", "cholesky_inverse"):
        return args
    k = len(args) - 1
    side = "triu" if kwargs.get("upper") else "tril"
    factor = args[k].triu() if side == "triu" else args[k].tril()
    return (*args[:k], factor)


def _solved(a: Any, b: Any, left: bool = True) -> Any:
    """To PyTorch ``b`` may be a stack of vectors."""
    if len(b.shape) == 1 or tuple(b.shape) == tuple(a.shape[:-1]):
        return linalg.solve(a, b[..., None])[..., 0]
    return linalg.solve(a, b) if left else linalg.solve(a.mT, b.mT).mT


def _least_squares(a: Any, b: Any, driver: str = "gelsy") -> Any:
    """What PyTorch gives besides depends on LAPACK's function."""
    found = linalg.lstsq(a, b)
    nothing = tg.zeros((0,), dtype=a.dtype)
    residuals = found.residuals if found.residuals.size and driver != "gelsy" else nothing
    rank = tg.zeros((0,), dtype=tg.int64) if driver == "gels" else found.rank
    s = nothing if driver in ("gels", "gelsy") else found.s.detach()  # PyTorch's have no gradient
    return found.x, residuals, rank, s


def _principal(a: Any, b: Any, **options: Any) -> Any:
    found = linalg.pca_lowrank(a @ b.mT, **options)
    return found.U, found.S, _Adjoint(tg.conj(found.V.mT))


def _old_svd(x: Any, some: bool = True) -> Any:
    u, s, vh = linalg.svd(x, full_matrices=not some)
    return u, s, _Adjoint(vh)


def _unpacked(compact: Any, pivots: Any) -> Any:
    m = compact.shape[-2]
    order = row_order(pivots - 1, m)
    p = (order[..., None, :] == tg.arange(m)[:, None]).astype(compact.dtype)
    return p, lower_of(compact), upper_of(compact)


def _factored(x: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    compact, exchanged = linalg.lu_factor(x)
    found = compact, exchanged + 1
    return (*found, tg.zeros(tuple(x.shape[:-2]), dtype=tg.int32)) if get_infos else found


def _lu_solved(compact: Any, pivots: Any, b: Any, left: bool = True, adjoint: bool = False) -> Any:
    if left:
        return linalg.lu_solve((compact, pivots - 1), b, trans=2 if adjoint else 0)
    x = linalg.lu_solve((compact, pivots - 1), tg.conj(b.mT), trans=0 if adjoint else 2)
    return tg.conj(x.mT)


def _rank(x: Any, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    """PyTorch's tolerance is the larger of both."""
    if atol is None:
        s = linalg.svdvals(x)
        if rtol is None or not s.shape[-1]:
            return linalg.matrix_rank(x, hermitian=hermitian)
        return linalg.matrix_rank(x, tol=s[..., 0] * rtol)
    if rtol is not None and x.shape[-1]:
        s = linalg.svdvals(x)
        atol = tg.maximum(s[..., 0] * rtol, atol)
    return linalg.matrix_rank(x, tol=atol, hermitian=hermitian)


def _reflected(a: Any, tau: Any, c: Any, left: bool = True, transpose: bool = False) -> Any:
    m, k = a.shape[-2], tau.shape[-1]
    a = a[..., :k]
    whole = tg.concat([a, tg.zeros((*a.shape[:-1], m - k), dtype=a.dtype)], axis=-1)
    q = linalg.householder_product(whole, tau)
    q = tg.conj(q.mT) if transpose else q
    return q @ c if left else c @ q


def _triangular(b: Any, a: Any, upper: bool = True, transpose: bool = False, **more: Any) -> Any:
    unit = more.get("unitriangular", False)
    trans = 1 if transpose else 0
    return linalg.solve_triangular(a, b, lower=not upper, trans=trans, unit_diagonal=unit), a


CALLS: dict[str, Function] = {
    "block_diag": lambda *x: linalg.block_diag(*x),
    "cholesky": lambda x, upper=False: linalg.cholesky(x, upper=upper),
    "cholesky_inverse": lambda x, upper=False: linalg.cholesky_solve(
        tg.eye(x.shape[-1], dtype=x.dtype), x, upper=upper
    ),
    "cholesky_solve": lambda b, x, upper=False: linalg.cholesky_solve(b, x, upper=upper),
    "logdet": lambda x: linalg.logdet(x),
    "lu": _factored,
    "lu_solve": lambda b, compact, pivots: _lu_solved(compact, pivots, b),
    "lu_unpack": _unpacked,
    "matrix_exp": lambda x: linalg.expm(x),
    "ormqr": _reflected,
    "pinverse": lambda x: linalg.pinv(x),
    "qr": lambda x, some=True: linalg.qr(x, "reduced" if some else "complete"),
    "svd": _old_svd,
    "triangular_solve": _triangular,
    "linalg.diagonal": lambda x, offset=0, dim1=-2, dim2=-1: tg.diagonal(x, offset, dim1, dim2),
    "linalg.lstsq": _least_squares,
    "linalg.lstsq grad_oriented": lambda a, b, driver: _least_squares(a, b, driver)[:2],
    "linalg.lu": lambda x, pivot=True: linalg.lu(x),
    "linalg.lu_factor": _factored,
    "geqrf": linalg.geqrf,
    "pca_lowrank": _principal,
    "linalg.lu_solve": _lu_solved,
    "linalg.matrix_power": lambda x, n: linalg.matrix_power(x, n),
    "linalg.matrix_rank": _rank,
    "linalg.multi_dot": lambda x: linalg.multi_dot(x),
    "linalg.pinv singular": lambda a, b: linalg.pinv(a @ b.mT),
    "linalg.solve": _solved,
    "linalg.solve_triangular": lambda a, b, *, upper, left=True, unitriangular=False: (
        linalg.solve_triangular(a, b, lower=not upper, left=left, unit_diagonal=unitriangular)
    ),
    "linalg.tensorsolve": lambda a, b, dims=None: linalg.tensorsolve(a, b, axes=dims),
    "linalg.vander": lambda x, N=None: linalg.vander(x if x.ndim else x.reshape(1), N),
    "linalg.vecdot": lambda a, b, dim=-1: linalg.vecdot(a, b, axis=dim),
}
