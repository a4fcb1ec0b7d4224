"""What the value function of a user's own operation reads, besides what it is given.

A call runs the function again in every replay. Where it is turned into loops instead, what it read
then is part of the program: globals, variables of functions around, defaults, helper functions and
attributes of modules. Each becomes a guard if it can be compared; else the operation stays a call.

Closed by default: attributes and functions that are not named here, exceptions that are caught and
comparisons by identity leave a value function a call, for an array of numbers and one of symbols
may differ in them.
"""

from __future__ import annotations

import builtins
import dis
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tensorgrad.program.bytecode.opcodes import words
from tensorgrad.program.engine import ours
from tensorgrad.program.guards import MISSING, SCALARS, Guard
from tensorgrad.program.symbolic import SymbolicNamespace
from tensorgrad.tape import Primitive

# Functions of Python's own that give the same for the same arguments, and do nothing else.
_PURE = frozenset(
    words(
        "abs bool complex divmod enumerate float int len list map max min pow range "
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


_WRITES_CELL = ("STORE_DEREF", "DELETE_DEREF")
_READS_CELL = ("LOAD_DEREF", "LOAD_CLOSURE")
_READS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_CATCHES = ("PUSH_EXC_INFO", "BEFORE_WITH", "BEFORE_ASYNC_WITH")
# Between the instructions that are looked at.
_NOTHING = ("CACHE", "NOP", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "RESUME")

# Attributes that mean the same of an array of numbers and one of symbols, or of a dtype. What NumPy
# and ``xp`` are asked for has to be in ``SymbolicNamespace`` besides.
_ATTRIBUTES = frozenset(
    words(
        "T argmax argmin all any astype bits clip copy cumprod cumsum dot dtype eps fill itemsize "
        "kind max mean min mT name ndim prod ravel reduce reshape shape size smallest_normal "
        "squeeze std sum swapaxes tiny transpose type var"
    )
)
# Of NumPy besides: numbers, and what makes dtypes.
_OF_NUMPY = frozenset(words("dtype e euler_gamma finfo iinfo inf nan newaxis pi"))


@functools.cache
def _is_known(name: str) -> bool:
    """Whether ``xp.name`` is a function that can be followed, or a number or dtype."""
    found = getattr(np, name, None)
    if isinstance(found, np.ufunc) or name in _OF_NUMPY:
        return True
    if isinstance(found, type):
        return issubclass(found, np.number | np.bool_)
    return name[:1] != "_" and callable(getattr(SymbolicNamespace, name, None))


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

    def value(self, name: str, x: Any, following: Sequence[dis.Instruction] = ()) -> int:
        """Look at what ``name`` leads to. Raises _UnknownError unless it can be compared.

        following: the instructions after the one that reads it.
        Returns how many of these read attributes of modules, which have been looked at.
        """
        if is_immutable(x) or _is_fixed(x):
            return 0
        if type(x) is types.ModuleType:
            return self._module(x, following)
        if type(x) is tuple:
            for part in x:
                self.value(name, part)
        elif isinstance(x, types.FunctionType) and not ours(x):
            self._function(x)
        else:
            raise _UnknownError(f"reads {name!r}, which is a {type(x).__name__}")
        return 0

    def _module(self, module: types.ModuleType, following: Sequence[dis.Instruction]) -> int:
        names = vars(module)
        if not following or following[0].opname not in _READS_ATTRIBUTE:
            raise _UnknownError(f"has the module {module.__name__!r} as an object")
        name = str(following[0].argval)
        if name not in names:
            raise _UnknownError(f"reads {module.__name__}.{name}, which is computed")
        self._note("key", names, name, names[name])
        if module is np:
            if not _is_known(name):
                raise _UnknownError(f"reads numpy.{name}")
            return 1
        return 1 + self.value(f"{module.__name__}.{name}", names[name], following[1:])

    def _function(self, f: types.FunctionType) -> None:
        if id(f) in self._met:
            return
        self._met.add(id(f))
        self._note("function", f, None, (f.__code__, f.__defaults__, f.__kwdefaults__))
        for default in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()):
            self.value(f"a default of {f.__name__}", default)
        for key, default in (f.__kwdefaults__ or {}).items():
            self._note("key", f.__kwdefaults__, key, default)
        for code in _codes(f.__code__):
            self._code(f, code)

    def _code(self, f: types.FunctionType, code: types.CodeType) -> None:
        around = dict(zip(f.__code__.co_freevars, f.__closure__ or ()))
        instructions = [i for i in dis.get_instructions(code) if i.opname not in _NOTHING]
        looked_at = 0  # instructions before this one
        for k, i in enumerate(instructions):
            if k < looked_at:
                continue
            name, following = str(i.argval), instructions[k + 1 : k + 10]
            if i.opname in _WRITES or (i.opname in _WRITES_CELL and name in around):
                raise _UnknownError(f"in {f.__name__} has {i.opname} {name}")
            if i.opname in _CATCHES:
                raise _UnknownError(f"in {f.__name__} handles exceptions")
            if i.opname == "IS_OP" and instructions[k - 1].argval is not None:
                raise _UnknownError(f"in {f.__name__} compares by identity")
            if i.opname == "LOAD_GLOBAL":
                looked_at = k + 1 + self._global(f, name, following)
            elif i.opname in _READS_CELL and name in around:
                looked_at = k + 1 + self._cell(name, around[name], following)
            elif i.opname in _READS_ATTRIBUTE and name not in _ATTRIBUTES and not _is_known(name):
                raise _UnknownError(f"reads the attribute {name!r}")

    def _cell(self, name: str, cell: Any, following: Sequence[dis.Instruction]) -> int:
        try:
            held = cell.cell_contents
        except ValueError:
            raise _UnknownError(f"reads {name!r}, which is not set") from None
        self._note("cell", cell, None, held)
        return self.value(name, held, following)

    def _global(
        self, f: types.FunctionType, name: str, following: Sequence[dis.Instruction]
    ) -> int:
        found = f.__globals__.get(name, MISSING)
        self._note("key", f.__globals__, name, found)
        if found is not MISSING:
            return self.value(name, found, following)
        own = vars(builtins)
        if name not in _PURE or getattr(f, "__builtins__", own) is not own:
            raise _UnknownError(f"reads {name!r}")
        self._note("key", own, name, own[name])
        return 0


def is_immutable(x: Any) -> bool:
    """Whether it is a number, a text or the like, or a tuple of such: nobody can change it."""
    if type(x) is tuple:
        return all(map(is_immutable, x))
    number = isinstance(x, np.generic) and not isinstance(x, np.void | np.object_)
    return type(x) in SCALARS or number or isinstance(x, np.dtype)


def _is_fixed(x: Any) -> bool:
    """Whether it is a function or a class of NumPy's, of Python's own or of the engine's."""
    if isinstance(x, types.BuiltinFunctionType):
        return x.__module__ == "math"
    if isinstance(x, np.ufunc | type(np.sum)):
        name = str(getattr(x, "__name__", ""))
        return getattr(np, name, None) is x and _is_known(name)
    if isinstance(x, type):
        return x in (bool, int, float, complex) or issubclass(x, np.number | np.bool_)
    return isinstance(x, types.FunctionType) and ours(x) and not _of_numpy(x)


def _of_numpy(f: types.FunctionType) -> bool:
    return str(f.__module__).partition(".")[0] in ("numpy", "cupy")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
