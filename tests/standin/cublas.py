"""A stand-in for cuBLAS: products as its reference describes them, computed on the host.

It refuses what the library refuses: combinations of types that are not in the table of
cublasGemmEx, leading dimensions that are too small, operations and algorithms that there are not,
and addresses at which a device could not read an element. Where results would lie over one another,
which the library leaves undefined, an assertion fails. Factors are rounded to TF32 where asked.
"""

from __future__ import annotations

import ctypes
import threading
import time
from functools import partial
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from standin import cupy_standin

Host = np.ndarray[Any, Any]

SUCCESS, INVALID_VALUE, NOT_SUPPORTED = 0, 7, 15
#: cudaDataType.
TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16),
    14: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
FULL, DOUBLE, TF32 = 68, 70, 77
#: By compute type: that of the factors and of the result; alpha and beta have the compute type's.
SUPPORTED = {
    FULL: {(0, 0), (2, 2), (2, 0), (14, 14), (14, 0)},
    DOUBLE: {(1, 1)},
    TF32: {(0, 0)},
}
SCALARS = {FULL: ctypes.c_float, TF32: ctypes.c_float, DOUBLE: ctypes.c_double}


def rounded_to_tf32(x: Host) -> Host:
    """float32 with the 10 bits of a TF32."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def matrix(address: int, dtype: np.dtype[Any], rows: int, columns: int, ld: int) -> Host:
    """The matrix at an address, its columns ``ld`` elements apart."""
    size = ((columns - 1) * ld + rows) * dtype.itemsize
    flat = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype)
    item = dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (item, ld * item))


def multiplied(x: Host, y: Host, compute: int) -> Host:
    """Their product in the type of the arithmetic."""
    kind = np.float64 if compute == DOUBLE else np.float32
    x, y = x.astype(kind), y.astype(kind)
    if compute == TF32:
        x, y = rounded_to_tf32(x), rounded_to_tf32(y)
    with np.errstate(all="ignore"):
        return x @ y


def gemm(
    ta: int, tb: int, m: int, n: int, k: int, alpha: int,
    a: int, a_kind: int, lda: int, step_a: int,
    b: int, b_kind: int, ldb: int, step_b: int, beta: int,
    c: int, c_kind: int, ldc: int, step_c: int,
    count: int, compute: int, algorithm: int,
) -> int:  # fmt: skip
    """cublasGemmStridedBatchedEx, with addresses as numbers; its status."""
    if ta not in (0, 1, 2) or tb not in (0, 1, 2) or min(m, n, k, count) < 0:
        return INVALID_VALUE
    if lda < max(1, k if ta else m) or ldb < max(1, n if tb else k) or ldc < max(1, m):
        return INVALID_VALUE
    if not (alpha and beta) or algorithm not in range(-1, 24):
        return INVALID_VALUE
    kinds = a_kind, c_kind
    if a_kind != b_kind or compute not in SUPPORTED or kinds not in SUPPORTED[compute]:
        return NOT_SUPPORTED
    factor, result = TYPES[a_kind], TYPES[c_kind]
    for at, dtype in ((a, factor), (b, factor), (c, result)):
        assert at % dtype.itemsize == 0, "a misaligned address"
        assert at, "no address"
    assert count == 1 or abs(step_c) >= (n - 1) * ldc + m, "overlapping"
    scale = SCALARS[compute].from_address(alpha).value, SCALARS[compute].from_address(beta).value
    for i in range(count):
        at_a, at_b = a + i * step_a * factor.itemsize, b + i * step_b * factor.itemsize
        x = matrix(at_a, factor, *((k, m) if ta else (m, k)), lda)
        y = matrix(at_b, factor, *((n, k) if tb else (k, n)), ldb)
        z = matrix(c + i * step_c * result.itemsize, result, m, n, ldc)
        found = scale[0] * multiplied(x.T if ta else x, y.T if tb else y, compute)
        if scale[1]:  # what is there is not read otherwise: it may be NaN
            found += found.dtype.type(scale[1]) * z.astype(found.dtype)
        with np.errstate(all="ignore"):
            z[...] = found
    return SUCCESS


# --- as CuPy binds it -----------------------------------------------------------------------------


class CUBLASError(RuntimeError):
    """A status other than success."""


def _checked(status: int) -> None:
    if status:
        names = {INVALID_VALUE: "INVALID_VALUE", NOT_SUPPORTED: "NOT_SUPPORTED"}
        raise CUBLASError(f"CUBLAS_STATUS_{names[status]}")


def _queued(*given: Any) -> None:
    if cupy_standin.current_stream().graph is not None:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    for x in given:
        if type(x) is not int:
            raise TypeError(f"an integer is required, not {type(x).__name__}")
    handle, *rest = given
    assert handle == HANDLE
    cupy_standin.log.launched("gemm")
    _checked(gemm(*rest))


HANDLE = 1


def _gemm_ex(*given: Any) -> None:
    """cublasGemmEx: of one matrix."""
    (handle, ta, tb, m, n, k, alpha, a, a_kind, lda, b, b_kind, ldb, beta, c, c_kind, ldc, compute,
     algorithm) = given  # fmt: skip
    _queued(
        handle, ta, tb, m, n, k, alpha, a, a_kind, lda, 0, b, b_kind, ldb, 0, beta, c, c_kind, ldc,
        0, 1, compute, algorithm,
    )  # fmt: skip


def binding() -> ModuleType:
    """``cupy_backends.cuda.libs.cublas``."""
    made = ModuleType("cupy_backends.cuda.libs.cublas")
    made.__dict__.update(gemmEx=_gemm_ex, gemmStridedBatchedEx=_queued)
    return made


# --- as it is called through ctypes ---------------------------------------------------------------


class Library:
    """The shared library."""

    def __init__(self, name: str) -> None:
        assert name == "libcublas.so.0"
        #: sizes of the products, columns first
        self.computed: list[tuple[int, int, int, int]] = []
        self.precisions: set[int] = set()
        #: types of the factors and of the results
        self.kinds: set[tuple[int, int]] = set()
        #: which thread did what
        self.told: list[tuple[int, str, int]] = []
        #: seconds that each call takes at least
        self.slow = 0.0

    def _tell(self, what: str, value: int) -> int:
        self.told.append((threading.get_ident(), what, value))
        time.sleep(self.slow)
        return SUCCESS

    def cublasCreate_v2(self, handle: Any) -> int:
        return SUCCESS

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        return self._tell("stream", stream.value or 0)

    def cublasSetWorkspace_v2(self, handle: Any, room: Any, size: Any) -> int:
        assert room.value % 256 == 0, "a workspace must be aligned to 256 bytes"
        return self._tell("workspace", room.value)

    def cublasGemmStridedBatchedEx(self, handle: Any, *given: Any) -> int:
        self._tell("product", 0)
        plain = [_number(x) for x in given]
        if cupy_standin._queued(partial(self._gemm, given, plain)):
            return SUCCESS
        cupy_standin.log.launched("gemm")
        return self._gemm(given, plain)

    def _gemm(self, given: Any, plain: list[int]) -> int:
        """``given`` keeps the scalars alive whose addresses are in ``plain``."""
        m, n, k = plain[2:5]
        self.computed.append((m, n, k, plain[-3]))
        self.precisions.add(plain[-2])
        self.kinds.add((plain[7], plain[16]))
        status = gemm(*plain)
        assert status == SUCCESS
        return status


def _number(x: Any) -> int:
    """An argument of ctypes as a number; the address of what is passed by reference."""
    if hasattr(x, "_obj"):
        return ctypes.addressof(x._obj)
    return x if isinstance(x, int) else x.value or 0
