"""``tensorgrad info``: the machine as tensorgrad sees it, and the table of operations."""

from __future__ import annotations

import os
import platform

import numpy as np

from tensorgrad import (
    backend,
    dtypes,
    special,  # noqa: F401 (its rows enter the table)
)
from tensorgrad.backend import cudnn, kernels
from tensorgrad.backend.cuda import load as cuda_backend
from tensorgrad.backend.cuda import problem
from tensorgrad.errors import CompileError, DeviceError
from tensorgrad.nn import functional  # noqa: F401 (as these)
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program import pool
from tensorgrad.program.blas import blas
from tensorgrad.program.compiler import compiler
from tensorgrad.training.checkpoint import versions


def info(operations: bool = False) -> None:
    """Print versions, machine and devices; or, with ``operations``, the table as Markdown."""
    if operations:
        print(operations_table())
        return
    rows = [
        *versions().items(),
        ("platform", platform.platform()),
        ("cores", _cores()),
        ("BLAS of NumPy", _blas()),
        ("cpu", "usable"),
        ("cuda", _gpu()),
        *_gpu_details(),
        ("compiled steps", _programs()),
        ("default device", _default_device()),
        ("default dtype", str(dtypes.get_default_dtype())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def operations_table() -> str:
    """The table of operations as Markdown, one row for each, by name."""
    lines = [
        "| operation | what it gives | gradient | method | other names |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in sorted(OPERATIONS):
        row = OPERATIONS[name]
        summary = row.summary.replace("|", "\\|")
        others = ", ".join(f"`{alias}`" for alias in row.aliases)
        lines.append(
            f"| `{row.namespace and row.namespace + '.'}{name}` | {summary} "
            f"| {'yes' if row.gradient else ''} | {'yes' if row.method else ''} | {others} |"
        )
    return "\n".join(lines)


def _cores() -> str:
    """The cores of the machine, and those that this process may use."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return str(there) if usable == there else f"{there}, of which this process may use {usable}"


def _blas() -> str:
    """The library that computes NumPy's matrix products."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _programs() -> str:
    """Which executor ``compile`` takes by default, or why it is NumPy's."""
    try:
        pool.library()  # built by the compiler, or by an earlier run
    except CompileError as error:
        return f"run by NumPy: {str(error).partition(chr(10))[0]}"
    found = blas()
    products = found.title if found else "small ones only, no BLAS was found"
    return f"native: {compiler()}, {pool.threads()} threads, matrix products by {products}"


def _gpu() -> str:
    """What is there of GPUs, or why none can be used and what would help."""
    reason = problem()
    if reason is not None:
        return f"not usable: {reason}"
    runtime = cuda_backend().xp.cuda.runtime
    names = [
        f"cuda:{i} {runtime.getDeviceProperties(i)['name'].decode()}"
        for i in range(runtime.getDeviceCount())
    ]
    return f"usable: {', '.join(names)}"


def _gpu_details() -> list[tuple[str, str]]:
    """Memory, products and kernels of the current GPU; nothing where none can be used."""
    if problem() is not None:
        return []
    cuda = cuda_backend()
    free, total = cuda.xp.cuda.runtime.memGetInfo()
    pool = cuda.xp.get_default_memory_pool()
    limit = pool.get_limit()
    return [
        ("memory of the GPU", f"{_gib(free)} free of {_gib(total)}"),
        (
            "memory pool",
            f"CuPy's: {_gib(pool.used_bytes())} in use, {_gib(pool.total_bytes())} held, "
            + (f"at most {_gib(limit)}" if limit else "no limit; CUPY_GPU_MEMORY_LIMIT sets one"),
        ),
        ("float32 products", "TF32" if cuda.tf32 else "float32 throughout, no TF32"),
        (
            "kernels",
            f"{len(kernels.families())} families, compiled on first use"
            if cuda.kernels
            else "switched off by TENSORGRAD_KERNELS=0",
        ),
        ("cuDNN", cudnn.state(cuda.xp) if cuda.kernels else "not used: kernels are switched off"),
    ]


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _default_device() -> str:
    """The default device, or what is wrong with the one that TENSORGRAD_DEVICE asks for."""
    try:
        return backend.default_device()
    except DeviceError as error:
        return f"none: {error}"
