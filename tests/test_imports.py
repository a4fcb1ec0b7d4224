"""Imports point one way, as ARCHITECTURE.md says, and what is not used is not loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tensorgrad as tg

ROOT = Path(__file__).parents[1]
#: What may import only from what stands before it, and from what stands beside it nothing.
LEVELS = [
    {"errors", "hints", "turns", "observers"}, {"dtypes", "files"}, {"backend"}, {"versions"},
    {"tape"}, {"ops"}, {"backward"}, {"tensor"}, {"sparse"},
    {"autograd", "einops_backend"},
    {"fft", "linalg", "nn", "optim", "data", "profiler", "signal", "special"},
    {"program", "amp"}, {"training"}, {"viz"}, {"playground", "examples"}, {"cli"},
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


PACKAGES = sorted(place.parent.name for place in (ROOT / "tensorgrad").glob("*/__init__.py"))
#: Circles of annotations alone: a module has methods that are written elsewhere and take modules;
#: code is followed by parts that are given one another.
CIRCLES_BY_TYPE = {
    "nn": [{"check", "evaluating", "hooks", "module", "summary"}],
    "program": [
        {"bytecode.callables", "bytecode.reads", "bytecode.surroundings", "trees"},
        {"bytecode.follower", "bytecode.instructions"},
    ],
}


def imports_inside(package: str, annotations: bool) -> dict[str, set[str]]:
    """Of each module of a package those of the same package that it imports, wherever it does so.

    annotations: count what is imported under ``TYPE_CHECKING``, too.
    """
    place = ROOT / "tensorgrad" / package
    paths = {
        str(file.relative_to(place).with_suffix("")).replace("/", "."): file
        for file in place.rglob("*.py")
        if file.name != "__init__.py"
    }

    def walk(node: ast.AST) -> Iterator[ast.ImportFrom]:
        if isinstance(node, ast.ImportFrom):
            yield node
        for child in ast.iter_child_nodes(node):
            if annotations or not _is_for_types(node, child):
                yield from walk(child)

    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = set()
        for node in walk(ast.parse(path.read_text())):
            whole = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            inside = {one.removeprefix(f"tensorgrad.{package}.") for one in whole}
            found[name] |= inside & set(paths) - {name}
    return found


def _is_for_types(node: ast.AST, child: ast.AST) -> bool:
    if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING":
        return False
    return child not in node.orelse


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules each of which leads to all others of its set."""

    def reached(start: str) -> set[str]:
        seen, waiting = set[str](), [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    ahead = {name: reached(name) for name in graph}
    found = [{other for other in ahead[name] if name in ahead[other]} for name in sorted(graph)]
    return [circle for k, circle in enumerate(found) if circle and circle not in found[:k]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_of_a_package_imports_in_a_circle(package: str) -> None:
    """Imports inside functions count."""
    assert circles(imports_inside(package, annotations=False)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_annotations_import_in_the_circles_that_are_known(package: str) -> None:
    """Two modules may name each other's classes only where it is said above."""
    known = CIRCLES_BY_TYPE.get(package, [])
    assert circles(imports_inside(package, annotations=True)) == known


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}
    assert circles(graph) == [{"b", "c"}, {"e", "f"}]
    assert "module" in imports_inside("nn", annotations=True)["hooks"]
    assert "module" not in imports_inside("nn", annotations=False)["hooks"]
    assert "lower" in imports_inside("program", annotations=False)["executors.native"]


@pytest.mark.parametrize(
    ("what", "absent"),
    [
        ("tensorgrad", ["tensorgrad.nn", "tensorgrad.data", "safetensors", "multiprocessing"]),
        ("tensorgrad", ["tensorgrad.special", "tensorgrad.ops.wide", "scipy"]),
        ("tensorgrad.special", ["tensorgrad.nn", "tensorgrad.program", "scipy"]),
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


def test_a_compiled_step_may_be_the_first_to_name_a_part_of_the_library() -> None:
    """That loads it, which is no change by the step."""
    program = (
        "import tensorgrad as tg; "
        "step = tg.compile(lambda x: tg.abs(tg.fft.fft(x)) + tg.linalg.norm(x)); "
        "print([step(tg.ones(2)).tolist() for _ in range(3)][-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("[3.414")


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
    names = tg.__dict__["__all__"]
    script = tmp_path / "script.py"
    lines = ["import tensorgrad as tg", *(f"reveal_type(tg.{name})" for name in names)]
    script.write_text("\n".join([*lines, "tg.assign_at", "tg.nonsense", ""]))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if "script.py" in line]
    assert len(told) == len(names) + 2, done.stdout
    assert not any('type is "Any"' in line for line in told), told
    assert 'no attribute "assign_at"' in told[-2]
    assert 'no attribute "nonsense"' in told[-1]
