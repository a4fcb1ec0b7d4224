"""Imports point one way, as ARCHITECTURE.md says, and what is not used is not loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What may import only from what stands before it, and from what stands beside it nothing.
LEVELS = [
    {"errors", "turns"}, {"dtypes", "files"}, {"backend"}, {"tape"}, {"replay", "ops"}, {"tensor"},
    {"autograd"}, {"nn", "optim", "data", "profiler"}, {"program", "amp"}, {"training"}, {"viz"},
    {"cli"},
]  # fmt: skip
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports as it is loaded."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorgrad"):
            parts = str(node.module).split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("part", sorted(LEVEL))
def test_imports_point_one_way(part: str) -> None:
    """From a level to those before it."""
    place = ROOT / "tensorgrad" / part
    files = [place.with_suffix(".py")] if place.with_suffix(".py").exists() else place.rglob("*.py")
    for file in files:
        for other in imported(file) - {part}:
            assert LEVEL[other] < LEVEL[part], f"{file.relative_to(ROOT)} imports {other}"


@pytest.mark.parametrize(
    ("what", "absent"),
    [
        ("tensorgrad", ["tensorgrad.nn", "tensorgrad.data", "safetensors", "multiprocessing"]),
        ("tensorgrad.nn", ["tensorgrad.data", "tensorgrad.program", "multiprocessing"]),
        ("tensorgrad.training", ["matplotlib", "PIL", "tensorboardX"]),
        ("tensorgrad.cli.main", ["tensorgrad.nn", "tensorgrad.training"]),
    ],
)
def test_what_is_not_used_is_not_loaded(what: str, absent: list[str]) -> None:
    """Start-up stays short."""
    program = f"import sys, {what}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_first_call_of_a_compiled_step_does_not_ask_for_a_gpu() -> None:
    """Importing CuPy takes longer than all else in a first call."""
    program = (
        "import sys, tensorgrad as tg; "
        "tg.compile(lambda x: x * 2)(tg.ones(2)); "
        "print([m for m in ['cupy'] if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
