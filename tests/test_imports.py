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
    {"errors", "turns", "observers"}, {"dtypes", "files"}, {"backend"}, {"versions"}, {"tape"},
    {"replay", "ops"}, {"tensor"},
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


def test_names_are_seen_by_completion_and_given_when_asked_for() -> None:
    """Also those of what is loaded when it is first named."""
    program = (
        "import sys, tensorgrad as tg; "
        "known = set(dir(tg)); "
        "assert not any(m in sys.modules for m in ['tensorgrad.nn', 'tensorgrad.program']); "
        "assert len(tg.__all__) == len(set(tg.__all__)); "
        "print(sorted(set(tg.__all__) - known), [n for n in known if not hasattr(tg, n)], "
        "hasattr(tg, 'nonsense'), tg.compile is tg.program.compile)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] [] False True"


def test_static_tools_see_the_names_that_are_there(tmp_path: Path) -> None:
    """mypy knows the type of each, and refuses what is not there."""
    pytest.importorskip("mypy")
    names = "reshape exp cat absolute compile autocast profile nn float16 Tensor default_device"
    script = tmp_path / "script.py"
    lines = ["import tensorgrad as tg", *(f"reveal_type(tg.{name})" for name in names.split())]
    script.write_text("\n".join([*lines, "tg.nonsense", ""]))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if "script.py" in line]
    assert len(told) == len(names.split()) + 1, done.stdout
    assert not any('type is "Any"' in line for line in told), told
    assert 'no attribute "nonsense"' in told[-1]
