"""The campaign without a GPU: on the stand-in for CuPy, with the kernels run by the emulator.

Shows that every stage runs and reports what is broken; nothing of its figures means anything.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import inspect
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.machine import ROOT
from tensorgrad import backend
from tensorgrad.backend import kernels
from tensorgrad.program.executors import cuda

#: puts a value in place of an attribute for as long as the rehearsal lasts
_Put = Callable[[Any, str, Any], None]

TESTS = ROOT / "tests"
#: what a wrong kernel is: a line of kernels/math.cuh, and what stands there instead
_WRONG = ("return R(0.5) * x * (erf(", "return R(0.505) * x * (erf(")

_STAYS = ExitStack()


@contextmanager
def installed(plants: Sequence[str] = ()) -> Iterator[None]:
    """Make ``import cupy`` give the stand-in, broken as ``plants`` says; then all is as before."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    standin: Any = importlib.import_module("standin.cupy_standin")
    with ExitStack() as stack:
        module = stack.enter_context(standin.installed())

        def put(target: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(target, name, value, create=True))

        _complete(standin, module, put)
        _products(module, put)
        stack.enter_context(patch.dict(cuda._CUBLAS, clear=True))
        for name in ("_expanded", "get", "_module"):  # nothing from before, nor for afterwards
            put(kernels, name, cache(inspect.unwrap(getattr(kernels, name))))
        if "kernel" in plants:
            _wrong_kernels(Path(stack.enter_context(tempfile.TemporaryDirectory())), put)
        if "capture" in plants:
            _no_capture(standin, put)
        if "symbol" in plants:
            _no_symbol(standin, put)
        yield


def install(plants: Sequence[str] = ()) -> None:
    """The same until the process ends."""
    _STAYS.enter_context(installed(plants))
    atexit.register(_STAYS.close)


def disturb(plants: Sequence[str], first: bool) -> None:
    """Hang, or die as a driver may, in the first case of a stage."""
    if first and "hang" in plants:
        while True:
            time.sleep(60)
    if first and "crash" in plants:
        os.kill(os.getpid(), signal.SIGSEGV)


def _complete(standin: Any, module: Any, put: _Put) -> None:
    """Add what the campaign alone asks of CuPy."""

    def record(event: Any, stream: Any = None) -> None:
        event.recorded = time.perf_counter()

    def elapsed(begin: Any, end: Any) -> float:
        return 1e3 * (end.recorded - begin.recorded) + 1e-6

    put(standin.Event, "record", record)
    put(module.cuda, "get_elapsed_time", elapsed)
    put(module.cuda, "nvrtc", SimpleNamespace(getVersion=lambda: (0, 0)))
    for name, value in {
        "driverGetVersion": lambda: 0,
        "memcpyDeviceToDevice": 3,
        "memcpyAsync": lambda target, source, size, kind, stream: ctypes.memmove(
            target, source, size
        ),
    }.items():
        put(module.cuda.runtime, name, value)


def _products(module: Any, put: _Put) -> None:
    """Products of compiled steps by the tests' cuBLAS; all round to TF32 where told to."""
    gpu: Any = backend.cuda_backend()
    tests: Any = importlib.import_module("program.test_cuda")

    class Library(tests.Library):  # type: ignore[misc]
        def _gemm(self, *given: Any) -> Any:
            *most, count, compute, algorithm = given
            if compute != cuda._TF32:
                return super()._gemm(*given)
            # (.., m, n, k, alpha, a, kind, ld, step, b, kind, ld, step, ..), columns first
            (ta, tb, m, n, k), a, b = most[:5], most[6:10], most[10:14]
            held = [
                _stretch(at, kind_ld_step, columns, count)
                for (at, *kind_ld_step), columns in ((a, m if ta else k), (b, k if tb else n))
            ]
            most[6], most[10] = (ctypes.c_void_p(x.ctypes.data) for x in held)
            return super()._gemm(*most, count, _FULL, algorithm)

    def product(name: str) -> Callable[..., Any]:
        right = getattr(module, name)

        def rounding(a: Any, b: Any, *given: Any, **options: Any) -> Any:
            if gpu.tf32 and a.dtype == b.dtype == np.float32:
                a, b = (module.array(_rounded(x.get())) for x in (a, b))
            return right(a, b, *given, **options)

        return rounding

    put(cuda, "_loaded", Library)
    for name in ("matmul", "dot"):
        put(module, name, product(name))


_FULL = 68  # CUBLAS_COMPUTE_32F


def _rounded(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 with the 10 bits of a TF32."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def _stretch(at: Any, layout: Sequence[Any], columns: int, count: int) -> np.ndarray[Any, Any]:
    """The memory in which some matrices lie, rounded; what lies between them too."""
    _, ld, step = layout
    size = (count - 1) * step.value + columns * ld
    flat = np.ctypeslib.as_array((ctypes.c_float * size).from_address(at.value))
    return _rounded(flat)


# --- faults ---------------------------------------------------------------------------------------


def _wrong_kernels(scratch: Path, put: _Put) -> None:
    """What GELU gives is one per cent too large."""
    folder = scratch / "kernels"
    shutil.copytree(kernels.folder(), folder)
    file = folder / "math.cuh"
    text = file.read_text(encoding="utf-8")
    assert _WRONG[0] in text, "kernels/math.cuh has changed: plant another fault"
    file.write_text(text.replace(*_WRONG), encoding="utf-8")
    put(kernels, "folder", lambda: folder)


def _no_capture(standin: Any, put: _Put) -> None:
    """The driver refuses to capture a stream."""

    def refuse(stream: Any, mode: Any = None) -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: planted")

    put(standin.Stream, "begin_capture", refuse)
    put(standin.Stream, "end_capture", lambda stream: None)


def _no_symbol(standin: Any, put: _Put) -> None:
    """Modules lack the functions whose names begin with gelu."""
    right = standin.RawModule.get_function

    def missing(module: Any, name: str) -> Any:
        if name.startswith("gelu"):
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}; planted")
        return right(module, name)

    put(standin.RawModule, "get_function", missing)
