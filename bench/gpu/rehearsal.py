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

from bench.machine import ROOT
from tensorgrad.backend import kernels
from tensorgrad.backend.launch import common
from tensorgrad.program.executors import cublas

#: puts a value in place of an attribute for as long as the rehearsal lasts
_Put = Callable[[Any, str, Any], None]

TESTS = ROOT / "tests"
#: what a wrong kernel is: a line of kernels/math.cuh, and what stands there instead
_WRONG = ("return R(0.5) * x * (erf(", "return R(0.505) * x * (erf(")

_STAYS = ExitStack()


@contextmanager
def installed(
    plants: Sequence[str] = (), cudnn: bool = False, cublaslt: bool = False
) -> Iterator[None]:
    """Make ``import cupy`` give the stand-in, broken as ``plants`` says; then all is as before.

    cudnn: whether cuDNN and its frontend are there. cublaslt: whether nvmath-python is.
    """
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    standin: Any = importlib.import_module("standin.cupy_standin")
    with ExitStack() as stack:
        module = stack.enter_context(standin.installed(cudnn=cudnn, cublaslt=cublaslt))

        def put(target: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(target, name, value, create=True))

        _complete(standin, module, put)
        put(cublas, "_loaded", importlib.import_module("standin.cublas").Library)
        stack.enter_context(patch.dict(cublas._CUBLAS, clear=True))
        for name in ("_expanded", "get", "_module"):  # nothing from before, nor for afterwards
            put(kernels, name, cache(inspect.unwrap(getattr(kernels, name))))
        common.forget_plans()
        stack.callback(common.forget_plans)
        if "kernel" in plants:
            _wrong_kernels(Path(stack.enter_context(tempfile.TemporaryDirectory())), put)
        if "capture" in plants:
            _no_capture(standin, put)
        if "symbol" in plants:
            _no_symbol(standin, put)
        yield


def install(plants: Sequence[str] = (), cudnn: bool = False) -> None:
    """The same until the process ends."""
    _STAYS.enter_context(installed(plants, cudnn))
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
