"""What CuPy's functions, methods and ufuncs accept, recorded in surface.txt.

The stand-in checks every call against this record, so CuPy need not be installed where it runs.
After a new release of CuPy, on a machine that has it (a GPU is not needed)::

    PYTHONPATH=tests python -m standin.record

writes the record anew. A line of it is

    function NAME PARAMETER...      "axis=" has a default; "*" begins those given by name only
    method NAME PARAMETER...        of cupy.ndarray, without self
    ufunc NAME METHOD... TYPES...   the methods that work (at, reduce, accumulate), the loops
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

RECORD = Path(__file__).with_name("surface.txt")

# The keyword arguments of every ufunc of CuPy. It takes them apart by hand, so that no signature
# shows them: ufunc.__call__ in cupy/_core/_kernel.pyx.
UFUNC_KEYWORDS = frozenset({"out", "dtype", "casting", "_where"})

# What ufunc.reduce and ufunc.accumulate there are written for; the others raise an error.
REDUCING = ("add", "multiply")

# ufuncs behind functions: their loops decide the dtype of the result.
INNER = {"where": "cupy._sorting.search._where_ufunc"}
# clip's is a part of compiled code that Python cannot see: _clip in _core/_routines_math.pyx.
CLIP = ("???->?", *(f"{c * 3}->{c}" for c in "bBhHiIlLqQefd"))


class Ufunc(NamedTuple):
    """The methods of a ufunc that work, and its loops, as "ff->f"."""

    methods: tuple[str, ...]
    types: tuple[str, ...]


class Surface(NamedTuple):
    """A record: the version of CuPy, and what it has by name."""

    version: str
    functions: dict[str, inspect.Signature]
    methods: dict[str, inspect.Signature]
    ufuncs: dict[str, Ufunc]


def read() -> Surface:
    """The record that is there."""
    version, *lines = RECORD.read_text().splitlines()
    surface = Surface(version, {}, {}, {})
    for line in lines:
        kind, name, *rest = line.split(" ")
        if kind == "ufunc":
            types = tuple(part for part in rest if "->" in part)
            surface.ufuncs[name] = Ufunc(tuple(p for p in rest if "->" not in p), types)
        else:
            found = surface.functions if kind == "function" else surface.methods
            found[name] = _signature(rest)
    return surface


def _signature(parts: list[str]) -> inspect.Signature:
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = []
    for part in parts:
        if part == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
        elif part.startswith("**"):
            parameters.append(inspect.Parameter(part[2:], inspect.Parameter.VAR_KEYWORD))
        elif part.startswith("*"):
            parameters.append(inspect.Parameter(part[1:], inspect.Parameter.VAR_POSITIONAL))
            kind = inspect.Parameter.KEYWORD_ONLY
        else:
            default = None if part.endswith("=") else inspect.Parameter.empty
            parameters.append(inspect.Parameter(part.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def written(cupy: ModuleType) -> str:
    """The record of the CuPy that is installed."""
    import numpy as np

    lines = [f"CuPy {cupy.__version__}"]
    for name in sorted(set(dir(cupy)) & set(dir(np))):
        found = getattr(cupy, name)
        if name.startswith("_") or isinstance(found, type) or not callable(found):
            continue
        if type(found).__name__ == "ufunc":
            lines.append(_ufunc_line(name, found, found._scatter_op is not None))
        elif found is not getattr(np, name):
            lines.append(" ".join(["function", name, *_function_parameters(found)]))
    for name, place in INNER.items():
        module, _, attribute = place.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        lines.append(_ufunc_line(f"inner.{name}", found, False))
    lines.append(" ".join(["ufunc", "inner.clip", *CLIP]))
    erf = importlib.import_module("cupyx.scipy.special").erf
    lines.append(_ufunc_line("special.erf", erf, False))
    for name in sorted(dir(cupy.ndarray)):
        method = getattr(cupy.ndarray, name)
        if not name.startswith("_") and callable(method):
            lines.append(" ".join(["method", name, *_method_parameters(method)]))
    return "\n".join(lines) + "\n"


def _ufunc_line(name: str, ufunc: Any, scatters: bool) -> str:
    methods = (["at"] if scatters else []) + (["reduce", "accumulate"] * (name in REDUCING))
    return " ".join(["ufunc", name, *methods, *ufunc.types])


def _function_parameters(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # compiled: its documentation begins with the signature
        return _parse((function.__doc__ or "").split("\n")[0])
    parts: list[str] = []
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and "*" not in "".join(parts):
            parts.append("*")
        mark = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        parts.append(mark + p.name + ("" if p.default is p.empty else "="))
    return parts


def _method_parameters(method: Any) -> list[str]:
    if inspect.isfunction(method) or type(method).__name__ == "cython_function_or_method":
        return _function_parameters(method)[1:]
    return _parse((method.__doc__ or "").split("\n")[0])[1:]


def _parse(line: str) -> list[str]:
    """The parameters in a line such as ``_ndarray_base.sort(self, int axis=-1, kind=None)``."""
    inside = line.partition("(")[2].rpartition(")")[0]
    parts = []
    for part in inside.split(", ") if inside else []:
        name, equals, _ = part.partition("=")
        parts.append(name.split()[-1] + equals)
    return parts


if __name__ == "__main__":
    RECORD.write_text(written(importlib.import_module("cupy")))
