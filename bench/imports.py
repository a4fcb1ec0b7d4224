"""What ``import tensorgrad`` costs beyond ``import numpy``, and the size of the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import Any

from bench.contest import Contest
from bench.machine import ROOT
from bench.measure import summary
from bench.report import Row

NAME = "imports"
TITLE = "import in a fresh interpreter that has imported NumPy before"
UNIT = "milliseconds"
WHO = ("tensorgrad", "torch", "jax", "autograd")
BAR = 0.05
ROUNDS = 11

_PROGRAM = """
import json, sys, time
import numpy
before = set(sys.modules)
start = time.perf_counter()
import {package}
taken = time.perf_counter() - start
print(json.dumps([taken, sorted(set(sys.modules) - before)]))
"""


def _import(package: str) -> tuple[float, list[str]]:
    """The seconds that the import takes, and the modules that come with it."""
    # Byte code is written, as it is by an installer: compiling the sources takes 30 ms.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(package=package)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    taken, modules = json.loads(done.stdout)
    return taken, modules


def _grouped(package: str, modules: list[str]) -> str:
    """The modules besides the package's own, by the distribution they belong to."""
    tops: dict[str, int] = {}
    for module in modules:
        top = module.partition(".")[0]
        tops[top] = tops.get(top, 0) + 1
    own = tops.pop(package, 0)
    standard = sorted(top for top in tops if top in sys.stdlib_module_names)
    others = sorted(top for top in tops if top not in sys.stdlib_module_names)
    third = ", ".join(f"{top} ({tops[top]})" for top in others) or "none"
    return (
        f"{package} imports {own} modules of its own, of others {third}, and of the standard "
        f"library {len(standard)}: {', '.join(standard)}"
    )


def _wheel(contest: Contest) -> None:
    wheels = sorted((ROOT / "dist").glob("tensorgrad-*.whl"), key=lambda p: p.stat().st_mtime)
    if not wheels:
        contest.report.skip("size of the wheel: none in dist/; build one first")
        return
    with zipfile.ZipFile(wheels[-1]) as wheel:
        files: list[Any] = wheel.infolist()
    packed = wheels[-1].stat().st_size / 1024
    unpacked = sum(f.file_size for f in files) / 1024
    contest.report.notes.append(
        f"{wheels[-1].name}: {packed:.0f} KiB, unpacked {unpacked:.0f} KiB in {len(files)} files"
    )


def run(contest: Contest) -> None:
    """Import each in turn. The first import of each, which may write byte code, is not counted."""
    who = contest.taking_part(*WHO)
    rounds = contest.settings.rounds or (3 if contest.settings.quick else ROUNDS)
    times: dict[str, list[float]] = {name: [] for name in who}
    for turn in range(rounds + 1):
        for name in who:
            if name != "tensorgrad" and turn > 3:
                continue  # the others are here for scale, and take seconds
            taken, modules = _import(name)
            if turn:
                times[name].append(taken)
            elif name == "tensorgrad":
                contest.report.notes.append(_grouped(name, modules))
    for name, seconds in times.items():
        contest.report.rows.append(
            Row("import", name, summary(seconds).middle * 1e3, min(seconds) * 1e3)
        )
    if times.get("tensorgrad"):
        found = summary(times["tensorgrad"])
        contest.report.judge("import tensorgrad, seconds after numpy", BAR, found.middle, found)
    _wheel(contest)
