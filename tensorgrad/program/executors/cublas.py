"""cuBLAS for programs on a GPU, called directly: CuPy refuses to while a graph is captured."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad.backend.gemm import (
    CUDA_TYPES,
    DEFAULT_ALGORITHM,
    ZERO_AND_ONE,
    Gemm,
    compute_type,
)
from tensorgrad.errors import CompileError

# Bytes, what NVIDIA recommends for Hopper; cuBLAS may not allocate in a graph.
_WORKSPACE = 32 << 20
# For how many streams workspaces are kept at most.
_STREAMS = 4


def _loaded(name: str) -> Any:
    return ctypes.CDLL(name)


class Cublas:
    """Matrix products by cuBLAS on one device.

    A handle has one stream and one workspace at a time, so it is locked while products are queued;
    the workspaces are the streams' own, as products on two streams may run at once.

    Source of names and numbers: the cuBLAS library reference, cublasGemmStridedBatchedEx.
    """

    def __init__(self, xp: Any) -> None:
        """Raises CompileError if the library is not found or has no handle to give."""
        one = xp.ones((1, 1), np.float32)
        xp.matmul(one, one)  # CuPy knows where the library is, and loads it
        version = xp.cuda.runtime.runtimeGetVersion() // 1000
        try:
            self._library = _loaded(f"libcublas.so.{version}")
        except OSError as error:
            raise CompileError(f"cuBLAS was not found: {error}") from error
        handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        self._xp = xp
        self._lock = threading.Lock()
        #: by address: a stream, so that its address stays its own, and its workspace
        self._workspaces: dict[int, tuple[Any, Any]] = {}

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CompileError(f"{name} failed with status {status}")

    @contextlib.contextmanager
    def on(self, queue: Any, stream: Any) -> Iterator[None]:
        """Products within are queued on ``queue``, with the workspace of ``stream``.

        The two differ while a graph is captured, which is to be launched on ``stream``.
        """
        room = ctypes.c_void_p(self._workspace(stream).data.ptr)
        with self._lock:
            self._check("cublasSetStream_v2", self._handle, ctypes.c_void_p(queue.ptr))
            # Setting the stream resets the workspace to the library's own.
            self._check("cublasSetWorkspace_v2", self._handle, room, ctypes.c_size_t(_WORKSPACE))
            yield

    def prepare(self, stream: Any) -> int:
        """Make the workspace of a stream: nothing may be allocated while a graph is captured.

        Its address.
        """
        return int(self._workspace(stream).data.ptr)

    def _workspace(self, stream: Any) -> Any:
        found = self._workspaces.get(stream.ptr)
        if found is None:
            # One that is dropped goes back to the pool, in the order of the stream it was made on.
            while len(self._workspaces) >= _STREAMS:
                self._workspaces.pop(next(iter(self._workspaces)))
            with stream:
                found = stream, self._xp.empty(_WORKSPACE, np.uint8)
            self._workspaces[stream.ptr] = found
        return found[1]

    def multiply(self, plan: Gemm, a: Any, b: Any, out: Any, tf32: bool, add: bool = False) -> None:
        """The products of a plan, from arrays that begin where its places are counted from.

        add: added to what is there.
        """
        kind, into = CUDA_TYPES[a.dtype], CUDA_TYPES[out.dtype]
        zero, one = map(ctypes.c_void_p, ZERO_AND_ONE[a.dtype])
        compute = compute_type(a.dtype, tf32)
        m, k, n = plan.sizes
        (ta, lda, step_a), (tb, ldb, step_b) = plan.a, plan.b
        for places in plan.places:
            at_a, at_b, at_c = (
                ctypes.c_void_p(x.data.ptr + first * x.itemsize)
                for x, first in zip((a, b, out), places)
            )
            # cuBLAS counts by columns, where a row-major matrix is its own transpose: C' = B' A'.
            self._check(
                "cublasGemmStridedBatchedEx", self._handle, tb, ta, n, m, k,
                one,
                at_b, kind, ldb, ctypes.c_longlong(step_b),
                at_a, kind, lda, ctypes.c_longlong(step_a),
                one if add else zero,
                at_c, into, n, ctypes.c_longlong(plan.c),
                plan.matrices, compute, DEFAULT_ALGORITHM,
            )  # fmt: skip


_CUBLAS: dict[str, Cublas] = {}  # one for each device


def cublas_on(device: str, xp: Any) -> Cublas:
    """cuBLAS on the current device, of this name. Raises CompileError where there is none."""
    try:
        if device not in _CUBLAS:
            _CUBLAS[device] = Cublas(xp)
    except AttributeError as error:
        raise CompileError(str(error)) from error
    return _CUBLAS[device]
