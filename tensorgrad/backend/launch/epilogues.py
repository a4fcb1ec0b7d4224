"""Products with what follows them in one launch: cublasLt, through nvmath-python's binding.

Where that is not installed, or cublasLt has no algorithm for a case, products and kernels of ours
do the same one after the other. Descriptors and the algorithm are kept for each shape, layout and
alignment; stream and workspace are given with each call, so that it can be captured into a graph.

Source of names, sizes and rules: the cuBLAS library reference, cublasLtMatmul,
cublasLtMatmulDescAttributes_t and cublasLtEpilogue_t.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.gemm import CUDA_TYPES, ZERO_AND_ONE, compute_type, leading
from tensorgrad.backend.launch.queueing import WAY
from tensorgrad.dtypes import float32, float64

#: Bytes, what NVIDIA recommends for Hopper.
_WORKSPACE = 32 << 20
# For how many streams workspaces are kept at most, and how many plans.
_STREAMS, _PLANS = 4, 4096
# cublasLtMatmulHeuristicResult_t.
_RESULT = np.dtype(
    [
        ("algo", "u8", 8),
        ("workspace", "u8"),
        ("state", "i4"),
        ("waves", "f4"),
        ("reserved", "i4", 4),
    ]
)
#: What the numbers of a row of the auxiliary output must be a multiple of, by what it holds.
MASK, INPUT = 128, 8


class _Plan(NamedTuple):
    """A product that cublasLt knows: descriptors, algorithm, and where addresses are written.

    vector, aux: arrays of one address each, which the library copies when they are set. at: where
        these and the result of the heuristics lie.
    """

    desc: int
    layouts: tuple[int, int, int]
    result: np.ndarray[Any, Any]
    vector: np.ndarray[Any, Any]
    aux: np.ndarray[Any, Any]
    at: tuple[int, int, int]


class CublasLt:
    """cublasLt on one device."""

    def __init__(self, xp: Any, binding: Any) -> None:
        self._xp = xp
        self._lt = binding
        self._handle = binding.create()
        names = binding.MatmulDescAttribute
        self._pointers = names.BIAS_POINTER, names.EPILOGUE_AUX_POINTER
        self._lock = threading.Lock()
        self._plans: dict[Any, _Plan | None] = {}
        #: by address: a stream, so that its address stays its own, and its workspace
        self._workspaces: dict[int, tuple[Any, Any]] = {}

    def multiply(
        self,
        epilogue: str,
        a: Array,
        b: Array,
        vector: Array,
        aux: Array = None,
        row: int = 0,
        tf32: bool = False,
    ) -> Array | None:
        """``a @ b`` of two matrices with an epilogue, by one launch; ``None`` if there is none.

        epilogue: a name of cublasLtEpilogue_t. vector: the bias that is added, or what the sums of
            its gradient are written to. aux: the auxiliary matrix, with ``row`` numbers to a row.
        """
        dtype = a.dtype
        out = self._xp.empty((a.shape[0], b.shape[1]), dtype)
        pointers = (
            b.data.ptr, a.data.ptr, out.data.ptr, vector.data.ptr,
            0 if aux is None else aux.data.ptr,
        )  # fmt: skip
        aligned = tuple([min(256, at & -at) for at in pointers])
        key = epilogue, a.shape, a.strides, b.shape, b.strides, dtype, aligned, row, tf32
        with self._lock:
            plan = self._plans.get(key, self)
            if plan is self:
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                plan = self._plans[key] = self._planned(*key, *pointers[3:])
            if type(plan) is not _Plan:
                return None
            self._call(plan, pointers, dtype)
        return out

    def _call(self, plan: _Plan, pointers: Sequence[int], dtype: Any) -> None:
        lt = self._lt
        at_left, at_right, at, vector, aux = pointers
        bias_pointer, aux_pointer = self._pointers
        vector_at, aux_at, result_at = plan.at
        if plan.vector[0] != vector:
            plan.vector[0] = vector
            lt.matmul_desc_set_attribute(plan.desc, bias_pointer, vector_at, 8)
        if plan.aux[0] != aux:
            plan.aux[0] = aux
            lt.matmul_desc_set_attribute(plan.desc, aux_pointer, aux_at, 8)
        zero, one = ZERO_AND_ONE[dtype]
        left, right, result = plan.layouts
        stream = self._xp.cuda.get_current_stream()
        lt.matmul(
            self._handle, plan.desc, one, at_left, left, at_right, right, zero, at, result, at,
            result, result_at, self._workspace(stream), _WORKSPACE, stream.ptr,
        )  # fmt: skip

    def _workspace(self, stream: Any) -> int:
        if WAY.workspace:
            return WAY.workspace
        found = self._workspaces.get(stream.ptr)
        if found is None:
            while len(self._workspaces) >= _STREAMS:
                self._workspaces.pop(next(iter(self._workspaces)))
            found = stream, self._xp.empty(_WORKSPACE, np.uint8)
            self._workspaces[stream.ptr] = found
        return int(found[1].data.ptr)

    def _planned(
        self, epilogue: str, a: Any, a_bytes: Any, b: Any, b_bytes: Any, dtype: Any, aligned: Any,
        row: int, tf32: bool, vector: int, aux: int,
    ) -> _Plan | None:  # fmt: skip
        """The plan of a product; ``None`` where a factor would have to be copied, or where cublasLt
        has no algorithm."""
        lt, names = self._lt, self._lt.MatmulDescAttribute
        laid = [
            leading(x, [s // dtype.itemsize for s in s_]) for x, s_ in ((a, a_bytes), (b, b_bytes))
        ]
        if laid[0] is None or laid[1] is None:
            return None
        (ta, lda), (tb, ldb) = laid[0], laid[1]
        (m, k), n = a, b[1]
        kind = CUDA_TYPES[dtype]
        desc = lt.matmul_desc_create(compute_type(dtype, tf32), CUDA_TYPES[float32])
        kept = [np.array([address], np.int64) for address in (vector, aux)]
        settings: list[tuple[Any, np.ndarray[Any, Any]]] = [
            # By columns a row-major matrix is its own transpose: C' = B' A'.
            (names.TRANSA, np.array([tb], np.int32)),
            (names.TRANSB, np.array([ta], np.int32)),
            (names.EPILOGUE, np.array([int(lt.Epilogue[epilogue])], np.uint32)),
            (names.BIAS_POINTER, kept[0]),
            *([(names.EPILOGUE_AUX_POINTER, kept[1])] if aux else []),
            *([(names.EPILOGUE_AUX_LD, np.array([row], np.int64))] if aux else []),
        ]
        for name, value in settings:
            lt.matmul_desc_set_attribute(desc, name, value.ctypes.data, value.nbytes)
        layouts = (
            lt.matrix_layout_create(kind, *((k, n) if tb else (n, k)), ldb),
            lt.matrix_layout_create(kind, *((m, k) if ta else (k, m)), lda),
            lt.matrix_layout_create(kind, n, m, n),
        )
        result = self._chosen(desc, layouts, aligned)
        if result is None:
            return None
        at = kept[0].ctypes.data, kept[1].ctypes.data, result.ctypes.data
        return _Plan(desc, layouts, result, kept[0], kept[1], at)

    def _chosen(
        self, desc: int, layouts: tuple[int, int, int], aligned: Sequence[int]
    ) -> np.ndarray[Any, Any] | None:
        """The algorithm that the library's heuristics put first."""
        lt, names = self._lt, self._lt.MatmulPreferenceAttribute
        preference = lt.matmul_preference_create()
        left, right, at = aligned[:3]  # of the others it looks at the addresses
        settings: list[tuple[Any, np.ndarray[Any, Any]]] = [
            (names.MAX_WORKSPACE_BYTES, np.array([_WORKSPACE], np.uint64)),
            (names.MIN_ALIGNMENT_A_BYTES, np.array([left], np.uint32)),
            (names.MIN_ALIGNMENT_B_BYTES, np.array([right], np.uint32)),
            (names.MIN_ALIGNMENT_C_BYTES, np.array([at], np.uint32)),
            (names.MIN_ALIGNMENT_D_BYTES, np.array([at], np.uint32)),
        ]
        for name, value in settings:
            lt.matmul_preference_set_attribute(preference, name, value.ctypes.data, value.nbytes)
        result, count = np.zeros(1, _RESULT), np.zeros(1, np.int32)
        try:
            lt.matmul_algo_get_heuristic(
                self._handle, desc, layouts[0], layouts[1], layouts[2], layouts[2], preference, 1,
                result.ctypes.data, count.ctypes.data,
            )  # fmt: skip
        except lt.cuBLASLtError:  # it knows none
            return None
        finally:
            lt.matmul_preference_destroy(preference)
        return result if count[0] and not result["state"][0] else None


_MADE: dict[tuple[Any, int], CublasLt | None] = {}


@cache
def _binding(xp: Any) -> Any:
    try:
        return importlib.import_module("nvmath.bindings.cublasLt")
    except ImportError:
        return None


def available(xp: Any) -> bool:
    """Whether the binding is installed and finds the library, on the current device."""
    return _binding(xp) is not None and _on(xp, xp.cuda.runtime.getDevice()) is not None


def of(xp: Any, array: Array) -> CublasLt | None:
    """cublasLt for products of ``array``, on its device; ``None`` where it is not to be used."""
    if _binding(xp) is None or array.dtype == float64 or array.dtype not in CUDA_TYPES:
        return None
    device = array.data.device_id
    found = _MADE.get((xp, device))
    return _on(xp, device) if found is None else found


def _on(xp: Any, device: int) -> CublasLt | None:
    key = xp, device
    if key not in _MADE:
        try:
            _MADE[key] = CublasLt(xp, _binding(xp))
        except Exception:  # whatever the loader has to say about a library that is not found
            _MADE[key] = None
    return _MADE[key]


def forget() -> None:
    """Let go of all handles: the binding is another from now on."""
    _binding.cache_clear()
    _MADE.clear()
