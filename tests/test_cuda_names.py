"""Without a GPU: every name that the operations ask of ``xp`` exists in CuPy, and is callable."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backend.namespace import Namespace
from tensorgrad.ops.table import OPERATIONS

PACKAGE = Path(tg.__file__).parent
#: Where programs and kernels are made out of value functions.
OF_PROGRAMS = ("program/symbolic.py", "program/lower.py", "program/executors/eager_source.py")


def names_asked_of_xp() -> set[str]:
    """``a.b`` for each ``xp.a.b`` in the sources, and the names that rows give as strings.

    Where ``xp`` is the namespace that programs are made with, or is asked to be it before, the name
    is one of its own.
    """
    found = set()
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / name for name in OF_PROGRAMS}:
        tree = ast.parse(path.read_text())
        inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or id(node) in inner:
                continue
            parts: list[str] = []
            here: ast.expr = node
            while isinstance(here, ast.Attribute):
                parts.insert(0, here.attr)
                here = here.value
            is_xp = isinstance(here, ast.Name) and here.id == "xp"
            if is_xp or parts[:1] == ["xp"]:  # self.xp.name, backend.of(x).xp.name
                found.add(".".join(parts if is_xp else parts[1:]))
    for row in OPERATIONS.values():
        if row.primitive is not None and isinstance(row.primitive.value, str):
            found.add(row.primitive.value)
    return {name for name in found if name} - {n for n in vars(Namespace) if not hasattr(np, n)}


NAMES = sorted(names_asked_of_xp())


# asked for in code that runs on a GPU only
CUPY_ALONE = {"RawModule", "get_default_memory_pool"}


def lookup(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module


def test_the_scan_finds_names() -> None:
    assert {"exp", "maximum", "where", "add.at"} <= set(NAMES)
    assert len(NAMES) > 60


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name: str) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    lookup(cupy, name)
    if not name.startswith("cuda") and name not in CUPY_ALONE:
        lookup(np, name)
