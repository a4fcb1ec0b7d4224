"""What a result depends on: the machine, the system, the libraries."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def processors() -> int:
    """The number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    family = ", ".join(
        f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields
    )
    model = fields.get("model name", platform.machine())
    return f"{model} ({family})" if family else model


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _commit() -> str | None:
    """The commit that is checked out, with ``+`` if files were changed since."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(threads: int) -> dict[str, Any]:
    """The machine, the system, Python, the date and the command line."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "cores_allowed": processors(),
            "memory_gib": _memory_gib(),
            "load_average_before": load,
        },
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "threads": threads,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", "bench", *sys.argv[1:]],
        "commit": _commit(),
    }


def _numpy_blas() -> str:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _torch_blas() -> str:
    import torch

    lines = torch.__config__.show().splitlines()
    names = ("Math Kernel Library", "OpenBLAS", "Accelerate")
    found = [line.strip(" -") for line in lines if any(name in line for name in names)]
    return found[0] if found else "unknown"


#: Frameworks whose wheels have other names.
_WHEELS = {"onednn": "onednn-cpu-gomp"}


def describe(framework: str) -> dict[str, Any]:
    """Version, BLAS and number of threads of a framework; imports it."""
    import numpy as np

    limit = os.environ.get("OPENBLAS_NUM_THREADS")
    about: dict[str, Any] = {"blas_threads": limit and int(limit)}
    if framework == "torch":
        import torch

        return {
            "version": torch.__version__,
            "blas": _torch_blas(),
            "blas_threads": torch.get_num_threads(),
        }
    if framework == "jax":
        import jax

        return {
            "version": jax.__version__,
            "jaxlib": metadata.version("jaxlib"),
            "blas": "XLA",
            "blas_threads": processors(),
        }
    about["blas"] = _numpy_blas()
    about["numpy"] = np.__version__
    if framework == "numpy":
        return {"version": np.__version__, **about}
    if framework == "tensorgrad":
        import tensorgrad

        return {"version": tensorgrad.__version__, **about}
    try:
        version: str | None = metadata.version(_WHEELS.get(framework, framework))
    except metadata.PackageNotFoundError:
        version = None  # a checkout that is not installed: the commit says what it is
    return {"version": version, **about}
