"""What the figures depend on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

import numpy as np

import tensorgrad as tg
from bench.gpu.common import Say, Settings, Skipped, first_line
from tensorgrad import backend

_PACKAGES = (
    "tensorgrad", "numpy", "cupy", "torch", "jax", "pytest", "pytest-xdist", "hypothesis",
    "ml_dtypes", "safetensors", "scipy",
)  # fmt: skip
_ASKED = (
    "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
    "power.limit", "temperature.gpu", "ecc.mode.current", "mig.mode.current", "utilization.gpu",
)  # fmt: skip


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return ("card", "software", "clocks", "launch")


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """The facts of one kind."""
    if case == "launch":
        return launch(settings)
    return {"card": card, "software": software, "clocks": clocks}[case]()


def card() -> dict[str, Any]:
    """The GPU, its driver, and the versions of CuPy and CUDA."""
    gpu: Any = backend.cuda_backend()
    cupy = gpu.xp
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    found = {
        "name": properties["name"].decode(),
        "compute_capability": cupy.cuda.Device().compute_capability,
        "memory_gib": round(runtime.memGetInfo()[1] / 2**30, 1),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }
    about = f"{found['memory_gib']} GiB, driver for CUDA {found['driver']}, CuPy {found['cupy']}"
    return {"card": found, "figure": about}


def software() -> dict[str, Any]:
    """Versions: what is not there is None."""
    found: dict[str, Any] = {"python": sys.version.partition(" ")[0]}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["numpy"] = np.__version__
    found["cupy"] = backend.cuda_backend().xp.__version__
    try:
        version = backend.cuda_backend().xp.cuda.nvrtc.getVersion()
        found["nvrtc"] = ".".join(map(str, version))
    except Exception as error:  # no reason to stop here; kernels will say more
        found["nvrtc"] = first_line(error)
    return {"versions": found, "figure": ", ".join(f"{k} {v}" for k, v in found.items() if v)}


def clocks() -> dict[str, Any]:
    """What nvidia-smi says: clocks, power, temperature, who else is at work."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        raise Skipped("nvidia-smi is not installed")
    command = [tool, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise Skipped(f"nvidia-smi: {(done.stdout + done.stderr).strip()}")
    values = done.stdout.splitlines()[0].split(", ")
    return {"clocks": dict(zip(_ASKED, values)), "figure": done.stdout.splitlines()[0]}


def launch(settings: Settings) -> dict[str, Any]:
    """Microseconds for a tiny kernel, from Python to its end in a full queue: ours and CuPy's."""
    gpu: Any = backend.cuda_backend()
    n = settings.sized(2000, 10)
    x = tg.ones((16,), device="cuda")
    found = {}
    works: dict[str, Any] = {"relu": lambda: tg.relu(x), "CuPy's add": lambda: x.data + x.data}
    for name, work in works.items():
        work()
        gpu.synchronize()
        begun = time.perf_counter()
        for _ in range(n):
            work()
        gpu.synchronize()
        found[name] = (time.perf_counter() - begun) / n * 1e6
    figure = ", ".join(f"{name} {us:.1f} us" for name, us in found.items())
    return {"microseconds": found, "figure": figure}
