"""compute-sanitizer over small cases of every kernel and over a compiled step."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

from bench.gpu.common import Say, Settings, Skipped
from bench.machine import ROOT

KINDS = ("memcheck", "racecheck")
PARTS = ("kernels", "updates", "compiled")


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return tuple([f"{kind} {part}" for kind in KINDS[: settings.sized(2, 1)] for part in PARTS])


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """The exit status of the small cases under the tool, or in a rehearsal without it."""
    kind, part = case.split()
    command = [sys.executable, "-W", "default", "-m", "bench.gpu.small", part]
    if settings.rehearse:
        command += ["--rehearse", *settings.plants]
    else:
        found = shutil.which("compute-sanitizer") or shutil.which(
            "compute-sanitizer", path="/usr/local/cuda/bin"
        )
        if found is None:
            raise Skipped("compute-sanitizer is not installed")
        command = [
            found, "--tool", kind, "--error-exitcode", "9", "--target-processes", "all", *command
        ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        return {"reason": f"{' '.join(command[:3])} ... ended with {done.returncode}"}
    return {"figure": "in a rehearsal: without the tool" if settings.rehearse else "no error"}
