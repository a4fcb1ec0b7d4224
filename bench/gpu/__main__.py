"""``python -m bench.gpu``: everything that only a GPU can show, in one command.

In this order: the whole test suite with the GPU as one of its devices; compute-sanitizer (memcheck
and racecheck) over the tests of the kernels, where it is installed; the bandwidth of each kernel
against a copy; training steps against PyTorch. Writes a text and a JSON file named after card and
date; they are to be committed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.gpu import bandwidth, steps
from bench.machine import ROOT, environment
from tensorgrad import backend
from tensorgrad.backend.cuda import problem

SECTIONS = ("tests", "sanitizer", "bandwidth", "steps")
#: compute-sanitizer is slow, so it gets the cases in float32 of modest size.
SANITIZED = ["-m", "gpu", "-k", "float32 and not 65537", "-x", "-q", "-p", "no:cacheprovider"]


def card() -> dict[str, Any]:
    """The GPU, its driver, and the versions of CuPy and CUDA."""
    cupy = backend.cuda_backend().xp
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def tests() -> dict[str, Any]:
    """The suite, and the last line of what pytest says."""
    return _pytest([sys.executable, "-m", "pytest", "-q", "-n", "4"])


def sanitizer() -> dict[str, Any]:
    """memcheck and racecheck over the tests of the kernels."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if tool is None:
        print("compute-sanitizer is not installed here")
        return {"skipped": "compute-sanitizer is not installed"}
    found = {}
    for kind in ("memcheck", "racecheck"):
        command = [tool, "--tool", kind, "--error-exitcode", "9", "--target-processes", "all"]
        found[kind] = _pytest(
            [*command, sys.executable, "-m", "pytest", str(ROOT / "tests/kernels"), *SANITIZED]
        )
    return found


def _pytest(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print("\n".join([*failed, *lines[-3:]]))
    return {"exit_code": done.returncode, "failed": failed, "summary": lines[-3:]}


def _went_wrong(result: Any) -> bool:
    """Whether some subprocess of a section ended with an error."""
    if not isinstance(result, dict):
        return False
    return result.get("exit_code", 0) != 0 or any(map(_went_wrong, result.values()))


def main() -> int:
    """Run the sections asked for. Returns 1 if a test or a sanitizer fails, or there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="FOLDER")
    options = parser.parse_args()
    reason = problem()
    if reason is not None:
        print(f"no GPU can be used: {reason}")
        return 1
    results: dict[str, Any] = {**environment(1), "card": card()}
    results["command"][2] = "bench.gpu"
    print(json.dumps(results["card"]))
    failed = False
    runs = {
        "tests": tests, "sanitizer": sanitizer, "bandwidth": bandwidth.run, "steps": steps.run
    }  # fmt: skip
    name = results["card"]["name"].lower().replace(" ", "-")
    file = options.out / f"gpu-{name}-{results['date'][:10]}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    for section in options.only or SECTIONS:
        print(f"\n== {section}", flush=True)
        results[section] = runs[section]()
        failed = failed or _went_wrong(results[section])
        file.write_text(json.dumps(results, indent=1) + "\n")  # what is done is not lost
    print(f"\nwritten to {file}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
