"""What the value function of a user's own operation reads, besides what it is given.

A call runs the function again in every replay. Where it is turned into loops instead, what it read
then is part of the program: globals, variables of functions around, defaults, helper functions and
attributes of modules. Each becomes a guard if it can be compared; else the operation stays a call.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad.program.bytecode.opcodes import words
from tensorgrad.program.engine import is_engine, ours
from tensorgrad.program.guards import MISSING, SCALARS, Guard
from tensorgrad.tape import Primitive

# Functions of Python's own that give the same for the same arguments, and do nothing else.
_PURE = frozenset(
    words(
        "abs bool complex divmod enumerate float int isinstance len list map max min pow range "
        "reversed round slice sorted sum tuple zip ValueError TypeError IndexError"
    )
)
_WRITES = frozenset(
    words(
        "STORE_GLOBAL DELETE_GLOBAL STORE_ATTR DELETE_ATTR STORE_NAME DELETE_NAME IMPORT_NAME "
        "LOAD_NAME LOAD_BUILD_CLASS LOAD_CLASSDEREF LOAD_FROM_DICT_OR_GLOBALS "
        "LOAD_FROM_DICT_OR_DEREF"
    )
)


# Modules of what is not followed whose functions give something else each time.
_CHANGING = frozenset({"numpy.random"})


class _UnknownError(Exception):
    """Says what of a value function cannot be compared."""


def reads_of(op: Primitive) -> list[Guard] | str | None:
    """What the user's part of a primitive's value reads; why that cannot be compared, if so.

    ``None`` where all of it is the engine's.
    """
    function = op.value if op.source is None else op.source
    if isinstance(function, str) or ours(function):
        return None
    try:
        reads = _Reads(f"the value of {op.name}")
        reads.value("value", function)
    except _UnknownError as error:
        return f"its value {error}"
    return reads.guards


class _Reads:
    """The guards of one value function, collected from its code and what that leads to."""

    def __init__(self, where: str) -> None:
        self.guards: list[Guard] = []
        self._where = where
        self._met: set[Any] = set()

    def _note(self, kind: str, holder: Any, key: Any, value: Any) -> None:
        self.guards.append(Guard(kind, holder, key, value, self._where))

    def value(self, name: str, x: Any, attributes: frozenset[str] = frozenset()) -> None:
        """Look at what ``name`` leads to. Raises _UnknownError unless it can be compared."""
        if type(x) in SCALARS or isinstance(x, np.generic | np.dtype) or _is_fixed(x):
            return
        if type(x) is tuple:
            for part in x:
                self.value(name, part)
        elif isinstance(x, types.ModuleType):
            self._module(x, attributes)
        elif isinstance(x, types.FunctionType):
            if attributes & vars(x).keys():
                raise _UnknownError(f"reads attributes of {name}")
            self._function(x)
        else:
            raise _UnknownError(f"reads {name!r}, which is a {type(x).__name__}")

    def _module(self, module: types.ModuleType, attributes: frozenset[str]) -> None:
        names = vars(module)
        computed = "__getattr__" in names and not is_engine(module.__name__)
        if computed or module.__name__ in _CHANGING:
            raise _UnknownError(f"reads {module.__name__!r}, whose attributes are computed")
        for name in sorted(attributes & names.keys()):
            if (id(module), name) not in self._met:
                self._met.add((id(module), name))
                self._note("key", names, name, names[name])
                self.value(f"{module.__name__}.{name}", names[name], attributes)

    def _function(self, f: types.FunctionType) -> None:
        if id(f) in self._met:
            return
        self._met.add(id(f))
        self._note("function", f, None, (f.__code__, f.__defaults__, f.__kwdefaults__))
        for default in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()):
            self.value(f"a default of {f.__name__}", default)
        for key, default in (f.__kwdefaults__ or {}).items():
            self._note("key", f.__kwdefaults__, key, default)
        codes = list(_codes(f.__code__))
        instructions = [i for code in codes for i in dis.get_instructions(code)]
        attributes = frozenset(name for code in codes for name in code.co_names)
        around = dict(zip(f.__code__.co_freevars, f.__closure__ or ()))
        for i in instructions:
            written = i.opname in ("STORE_DEREF", "DELETE_DEREF") and i.argval in around
            if i.opname in _WRITES or written:
                raise _UnknownError(f"in {f.__name__} has {i.opname} {i.argval}")
        for name, cell in around.items():
            try:
                held = cell.cell_contents
            except ValueError:
                raise _UnknownError(f"reads {name!r}, which is not set") from None
            self._note("cell", cell, None, held)
            self.value(name, held, attributes)
        for name in sorted({str(i.argval) for i in instructions if i.opname == "LOAD_GLOBAL"}):
            self._global(f, name, attributes)

    def _global(self, f: types.FunctionType, name: str, attributes: frozenset[str]) -> None:
        found = f.__globals__.get(name, MISSING)
        self._note("key", f.__globals__, name, found)
        if found is not MISSING:
            self.value(name, found, attributes)
            return
        own = vars(builtins)
        if name not in _PURE or getattr(f, "__builtins__", own) is not own:
            raise _UnknownError(f"reads {name!r}")
        self._note("key", own, name, own[name])


def _is_fixed(x: Any) -> bool:
    """Whether it is a function or a class of the engine's, of NumPy's or of Python's own."""
    if isinstance(x, types.BuiltinFunctionType):
        return x.__module__ == "math"
    if isinstance(x, type):
        return ours(x) or x.__module__ == "builtins"
    if isinstance(x, types.FunctionType):
        return ours(x)
    return isinstance(x, np.ufunc) or (type(x).__module__.partition(".")[0] == "numpy" and ours(x))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
