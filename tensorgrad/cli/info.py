"""``tensorgrad info``: the machine as tensorgrad sees it, and the table of operations."""

from __future__ import annotations

import os
import platform

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend.cuda import problem
from tensorgrad.errors import DeviceError
from tensorgrad.ops.table import OPERATIONS
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
            f"| `{name}` | {summary} | {'yes' if row.gradient else ''} "
            f"| {'yes' if row.method else ''} | {others} |"
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


def _gpu() -> str:
    """What is there of GPUs, or why none can be used and what would help."""
    reason = problem()
    if reason is not None:
        return f"not usable: {reason}"
    cuda = backend.cuda_backend()
    runtime = cuda.xp.cuda.runtime
    names = [
        f"cuda:{i} {runtime.getDeviceProperties(i)['name'].decode()}"
        for i in range(runtime.getDeviceCount())
    ]
    return f"usable: {', '.join(names)}"


def _default_device() -> str:
    """The default device, or what is wrong with the one that TENSORGRAD_DEVICE asks for."""
    try:
        return backend.default_device()
    except DeviceError as error:
        return f"none: {error}"
