"""Every kernel by NVRTC, for every dtype and architecture: needs no GPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from bench.gpu.common import Say, Settings, Skipped
from bench.machine import ROOT
from tensorgrad.backend import kernels

_GENERATED = "generated kernels"


def cases(settings: Settings) -> tuple[str, ...]:
    """A case for each file of kernels, and one for the kernels of a compiled step."""
    return (*kernels.families(), _GENERATED)


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """A spill, a warning or an error fails."""
    # In other processes: a rehearsal has no CuPy in this one.
    ask = "from kernels.compile_all import *; print(missing() or ''); print(*ARCHITECTURES)"
    asked = subprocess.run(
        [sys.executable, "-c", ask], cwd=ROOT / "tests", capture_output=True, text=True,
        env=_environment(),
    )  # fmt: skip
    missing, _, architectures = asked.stdout.partition("\n")
    if asked.returncode or missing:
        raise Skipped(missing or asked.stderr.strip().splitlines()[-1])
    if case == _GENERATED:
        command = ["-m", "pytest", "-q", "tests/program/test_cuda.py", "-k", "test_kernels_compile"]
    else:
        command = ["tests/kernels/compile_all.py", "--family", case]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=_environment())
    found: dict[str, Any] = {
        "architectures": [int(text) for text in architectures.split()],
        "figure": f"sm_{', '.join(architectures.split())}",
    }
    if done.returncode:
        found["reason"] = f"{' '.join(command)} ended with {done.returncode}"
    return found


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
