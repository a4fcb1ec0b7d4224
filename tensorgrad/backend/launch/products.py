"""Matrix products by cuBLAS, through CuPy's binding: backend/gemm.py says how.

16-bit floats are multiplied as they are: cuBLAS adds in float32 and rounds once.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tensorgrad.backend import gemm
from tensorgrad.backend.base import Array, Postponed
from tensorgrad.backend.gemm import CUDA_TYPES, DEFAULT_ALGORITHM, ZERO_AND_ONE
from tensorgrad.backend.launch import epilogues
from tensorgrad.backend.launch.bias_activation import column_sums, spread
from tensorgrad.backend.launch.common import BACKWARD, FORWARD, backward, contiguous, fits, forward
from tensorgrad.backend.launch.queueing import WAY
from tensorgrad.dtypes import HALVES, float32


@cache
def _library(xp: Any) -> tuple[Any, Any, Any]:
    """The binding of ``xp``, what gives this thread's handle, and where the precision is set."""
    return (
        importlib.import_module("cupy_backends.cuda.libs.cublas"),
        importlib.import_module("cupy.cuda.device").get_cublas_handle,
        importlib.import_module("cupy._core._routines_linalg"),
    )


def tf32(xp: Any) -> bool:
    """Whether CuPy's setting allows TF32 for products of float32."""
    setting = _library(xp)[2]
    return bool(setting.get_compute_type(float32) == setting.COMPUTE_TYPE_TF32)


def product(xp: Any, a: Array, b: Array, out: Array = None, add: bool = False) -> Any:
    """``a @ b`` of floats of one dtype, where neither is copied if cuBLAS can take it as it lies.

    out: what the result is written to, an array without gaps; a new one of their dtype if ``None``.
    Factors of 16 bits may have one of float32. add: add the product to what is there.

    ``NotImplemented`` for other arrays, and for shapes that do not fit.
    """
    dtype = a.dtype
    kind = CUDA_TYPES.get(dtype)
    if kind is None or b.dtype != dtype or not (a.ndim and b.ndim):
        return NotImplemented
    row, column = a.ndim == 1, b.ndim == 1
    if row:
        a = a[None]
    if column:
        b = b[:, None]
    plan = gemm.planned(a.shape, a.strides, b.shape, b.strides, dtype.itemsize)
    if type(plan) is gemm.Copies:
        a, b = _copied(xp, a, b, plan)
        plan = gemm.planned(a.shape, a.strides, b.shape, b.strides, dtype.itemsize)
    if type(plan) is not gemm.Gemm:
        return NotImplemented
    if out is None:
        out = xp.empty(plan.shape, dtype)
    _multiply(xp, plan, a, b, out, add)
    if row or column:
        shape = plan.shape[:-2] + plan.shape[-2:-1] * (not row) + plan.shape[-1:] * (not column)
        return out.reshape(shape)
    return out


def _copied(xp: Any, a: Array, b: Array, copies: gemm.Copies) -> tuple[Array, Array]:
    if copies.broadcast:
        dims = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (xp.broadcast_to(x, (*dims, *x.shape[-2:])) for x in (a, b))
    return (
        xp.ascontiguousarray(a) if copies.a else a,
        xp.ascontiguousarray(b) if copies.b else b,
    )


def _multiply(xp: Any, plan: gemm.Gemm, a: Array, b: Array, out: Array, add: bool) -> None:
    """Queue the calls of a plan on the current stream."""
    dtype = a.dtype
    if WAY.multiply is not None:
        WAY.multiply(plan, a, b, out, dtype == float32 and tf32(xp), add)
        return
    cublas, get_handle, _ = _library(xp)
    handle = get_handle()
    kind, into = CUDA_TYPES[dtype], CUDA_TYPES[out.dtype]
    compute = gemm.compute_type(dtype, dtype == float32 and tf32(xp))
    zero, one = ZERO_AND_ONE[dtype]
    beta = one if add else zero
    m, k, n = plan.sizes
    (ta, lda, step_a), (tb, ldb, step_b) = plan.a, plan.b
    at_a, at_b, at_c = a.data.ptr, b.data.ptr, out.data.ptr
    # cuBLAS counts by columns, where a row-major matrix is its own transpose: C' = B' A'.
    if plan.matrices == 1 and len(plan.places) == 1:
        cublas.gemmEx(
            handle, tb, ta, n, m, k, one, at_b, kind, ldb, at_a, kind, lda,
            beta, at_c, into, n, compute, DEFAULT_ALGORITHM,
        )  # fmt: skip
        return
    size, size_c = dtype.itemsize, out.dtype.itemsize
    for first_a, first_b, first_c in plan.places:
        cublas.gemmStridedBatchedEx(
            handle, tb, ta, n, m, k, one,
            at_b + first_b * size, kind, ldb, step_b,
            at_a + first_a * size, kind, lda, step_a,
            beta, at_c + first_c * size_c, into, n, plan.c,
            plan.matrices, compute, DEFAULT_ALGORITHM,
        )  # fmt: skip


@forward("matmul")
def _matmul(xp: Any, a: Array, b: Array) -> Any:
    """Products of two vectors are sums, which CuPy computes in more blocks than cuBLAS."""
    if not (isinstance(a, xp.ndarray) and isinstance(b, xp.ndarray)):
        return NotImplemented
    if a.ndim == 1 == b.ndim and a.dtype not in HALVES:
        return NotImplemented
    return product(xp, a, b)


@forward("linear")
def _linear(xp: Any, x: Array, weight: Array, bias: Array) -> Any:
    """The bias is what the product is added to, so that the sum is rounded once."""
    arrays = (x, weight) if bias is None else (x, weight, bias)
    if not fits(xp, *arrays):
        return NotImplemented
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is None:
        return product(xp, x, weight.T)
    if bias.shape != weight.shape[:1] or not x.size or not bias.size:
        return NotImplemented
    lt = epilogues.of(xp, x)
    if lt is not None:
        y = lt.multiply("BIAS", _as_rows(x), weight.T, contiguous(xp, bias), tf32=tf32(xp))
        if y is not None:
            return y.reshape(*x.shape[:-1], bias.size)
    y = spread(xp, bias, (*x.shape[:-1], bias.size))
    return product(xp, x, weight.T, y, add=True)


@backward("matmul")
def _matmul_gradients(
    xp: Any,
    g: Array,
    needed: Sequence[bool],
    *,
    x1: Array = None,
    x2: Array = None,
    x1_shape: tuple[int, ...] | None = None,
    x2_shape: tuple[int, ...] | None = None,
) -> Any:
    """One product for each; what broadcast is summed by the caller."""
    first, second = x1_shape or x1.shape, x2_shape or x2.shape
    if len(first) == 1:
        g = g[..., None, :] if len(second) > 1 else g[None]
        x1 = None if x1 is None else x1[None]
    if len(second) == 1:
        g = g[..., None]
        x2 = None if x2 is None else x2[:, None]
    left = right = None
    if needed[0]:
        left = product(xp, g, x2.swapaxes(-1, -2))
        if left is NotImplemented:
            return NotImplemented
        left = left.reshape(left.shape[:-2] + left.shape[-1:]) if len(first) == 1 else left
    if needed[1]:
        if len(second) < 3:
            x1, g = _as_rows(x1), _as_rows(g)
        right = product(xp, x1.swapaxes(-1, -2), g)
        if right is NotImplemented:
            return NotImplemented
        right = right.reshape(right.shape[:-1]) if len(second) == 1 else right
    return left, right


@backward("linear")
def _linear_gradients(
    xp: Any, g: Array, needed: Sequence[bool], *, x: Array = None, weight: Array = None
) -> Any:
    """Two products and a sum, which cublasLt makes along with the second of them."""
    lt, dx = epilogues.of(xp, g), None
    if needed[0]:
        dx = product(xp, g, weight) if lt is None else _postponed(xp, g, weight)
        if dx is NotImplemented:
            return NotImplemented
    if lt is not None or g.ndim != 2:
        dw, db = _of_parameters(xp, lt, g, x, needed[1], needed[2])
    else:
        dw = product(xp, g.T, x) if needed[1] else None
        db = column_sums(xp, g) if needed[2] else None
    return NotImplemented if dw is NotImplemented else (dx, dw, db)


def _postponed(xp: Any, g: Array, weight: Array) -> Postponed:
    def computed(g: Array, weight: Array) -> Array:
        d = product(xp, g, weight)
        return xp.matmul(g, weight) if d is NotImplemented else d

    return Postponed(g, weight, computed)


def _of_parameters(
    xp: Any, lt: Any, g: Array, x: Array, weight: bool, bias: bool
) -> tuple[Any, Any]:
    """The gradients of a layer's weight and bias, of which those are made that are wanted."""
    if weight and bias and lt is not None and g.size and x.size:
        db = xp.empty(g.shape[-1], g.dtype)
        dw = lt.multiply("BGRADB", _as_rows(g).T, _as_rows(x), db, tf32=tf32(xp))
        if dw is not None:
            return dw, db
    dw = product(xp, _as_rows(g).T, _as_rows(x)) if weight else None
    return dw, column_sums(xp, g) if bias else None


def _as_rows(x: Array) -> Array:
    """A stack of matrices as one matrix, a vector as a matrix of one row."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# --- with an activation ---------------------------------------------------------------------------


def _row(name: str, columns: int) -> int:
    """Numbers to a row of the auxiliary matrix: a bit for each result, or the inputs."""
    step = epilogues.MASK if name == "relu" else epilogues.INPUT
    return -(-columns // step) * step


def _auxiliary(xp: Any, name: str, y: Array | tuple[int, ...], columns: int, dtype: Any) -> Array:
    rows = math.prod(y[:-1])
    if name == "relu":
        return xp.empty(rows * (_row(name, columns) // 8), np.uint8)
    return xp.empty(y, dtype)


def _activated(name: str) -> Any:
    """The value with what its gradient needs: the mask of a ReLU, the input of a GELU."""

    def launcher(xp: Any, x: Array, weight: Array, bias: Array) -> Any:
        if not fits(xp, x, weight, bias) or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            return NotImplemented
        if not x.ndim or x.shape[-1] != weight.shape[1] or not x.size or not bias.size:
            return NotImplemented
        lt, columns = epilogues.of(xp, x), bias.size
        shape = (*x.shape[:-1], columns)
        if lt is not None and (name == "relu" or columns % epilogues.INPUT == 0):
            aux = _auxiliary(xp, name, shape, columns, x.dtype)
            y = lt.multiply(
                _FORWARD_EPILOGUES[name], _as_rows(x), weight.T, contiguous(xp, bias), aux,
                _row(name, columns), tf32(xp),
            )  # fmt: skip
            if y is not None:
                return y.reshape(shape), aux
        z = _linear(xp, x, weight, bias)
        if z is NotImplemented:
            return NotImplemented
        y = FORWARD[name](xp, z)
        return y, y if name == "relu" else z

    return launcher


def _gradients_of_activated(name: str) -> Any:
    """Where the gradient is a product that is not computed yet, the activation's is part of it."""

    def launcher(
        xp: Any,
        g: Any,
        needed: Sequence[bool],
        *,
        y: Array = None,
        x: Array = None,
        weight: Array = None,
        bias: Array = None,
        r: Array = None,
    ) -> Any:
        lt, dz, db = epilogues.of(xp, g), None, None
        if type(g) is Postponed:
            columns = g.shape[-1]
            fit = r.dtype == np.uint8 if name == "relu" else columns % epilogues.INPUT == 0
            if lt is not None and fit:
                db = xp.empty(columns, g.dtype)
                dz = lt.multiply(
                    _BACKWARD_EPILOGUES[name], _as_rows(g.factor), g.weight, db,
                    contiguous(xp, r), _row(name, columns), tf32(xp),
                )  # fmt: skip
                dz = None if dz is None else dz.reshape(g.shape)
            g = g if dz is not None else g.array()
        dw = None
        if dz is None:
            found = BACKWARD[name](xp, g, (True,), **({"y": y} if name == "relu" else {"x": r}))
            if found is NotImplemented:
                return NotImplemented
            (dz,) = found
            dw, db = _of_parameters(xp, lt, dz, x, needed[1], needed[2])
        elif needed[1]:
            dw = product(xp, _as_rows(dz).T, _as_rows(x))
        dx = _postponed(xp, dz, weight) if needed[0] else None
        return NotImplemented if dw is NotImplemented else (dx, dw, db)

    return launcher


_FORWARD_EPILOGUES = {"relu": "RELU_AUX_BIAS", "gelu_tanh": "GELU_AUX_BIAS"}
_BACKWARD_EPILOGUES = {"relu": "DRELU_BGRAD", "gelu_tanh": "DGELU_BGRAD"}
for _name in _FORWARD_EPILOGUES:
    FORWARD[f"linear_{_name}"] = _activated(_name)
    BACKWARD[f"linear_{_name}"] = _gradients_of_activated(_name)
