"""Native kernels for eager execution: ``tensorgrad.set_eager("native")``.

Elementwise and reducing rows of the table, and their gradient rules, get kernels in C. They are
made from what programs are made from: a value function or a rule is called with symbolic arrays.
All are built when native execution is asked for. Primitives and rules have a function ``eager`` for
bare arrays, and that one is exchanged. So dispatch asks nothing, and observers, captures and
programs go on using the definitions.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.backend import BACKENDS
from tensorgrad.backend.base import Backend
from tensorgrad.errors import CompileError
from tensorgrad.program import compiler, pool
from tensorgrad.program.executors.eager_source import (
    COLUMN,
    EACH,
    NONE,
    ROW,
    SCALAR,
    Way,
    followed,
)
from tensorgrad.program.symbolic import SymbolicArray
from tensorgrad.tape import PRIMITIVES, Primitive, Rule, parameters_of

#: Elements from which on kernels are used.
THRESHOLD = 1 << 14
_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
# Parameters of a function, as in c/eager.c.
_MOST = 6
_ARRAY, _NUMBER, _AXIS = "a", "n", "x"
_AXIS_NAME = "axis"
_ROLES = {_AXIS_NAME: _AXIS, "keepdims": "k"}
_LIMITS = frozenset({"min", "max"})  # numbers, or None
_TRUTH_VALUES = frozenset({"condition"})
_WHAT = "eager execution by native kernels"
_INSTEAD = "install it (apt install {})"


class _Symbolic(Backend):
    """Lets gradient rules, which are written with operations, run on symbolic arrays."""

    name = "symbolic"
    array_type = SymbolicArray

    def run(self, op: Any, arrays: Any, attrs: Any) -> Any:
        """See Backend."""
        xp = next(x.xp for x in arrays if isinstance(x, SymbolicArray))
        return _value_of(op)(xp, *arrays, **attrs)


@contextmanager
def _symbolic_arrays() -> Iterator[None]:
    """Lets operations take symbolic arrays for a while."""
    BACKENDS[SymbolicArray] = _Symbolic()
    try:
        yield
    finally:
        del BACKENDS[SymbolicArray]


def _value_of(op: Primitive) -> Callable[..., Any]:
    """The value as a function of an array namespace and arrays."""
    value = op.value if op.loops is None else op.loops
    if isinstance(value, str):
        return lambda xp, *arrays: getattr(xp, value)(*arrays)
    return value


@dataclass(eq=False, slots=True)
class _Function:
    """A value or a rule: whose it is, and what it takes.

    names, roles: the parameters, and what they are, as in c/eager.c.
    single: the primitive has one input. symbolic: takes an array namespace and the parameters.
    """

    owner: Primitive | Rule
    names: tuple[str, ...]
    roles: str
    single: bool
    symbolic: Callable[..., Any]

    def ways(self) -> Iterator[Way]:
        """How it may be called."""
        types = "".join("b" if name in _TRUTH_VALUES else "f" for name in self.names)
        for (kinds, by_rows), dtype in itertools.product(self._kinds(), _DTYPES):
            yield Way(self.roles, kinds, types, dtype, by_rows)

    def _kinds(self) -> Iterator[tuple[str, bool]]:
        """Kinds of all parameters that occur, and whether by rows."""
        arrays = [name for name, role in zip(self.names, self.roles) if role == _ARRAY]
        for by_rows in (False, True):
            for chosen in itertools.product(*[self._kinds_of(n, by_rows) for n in arrays]):
                others = len(arrays) - chosen.count(EACH)
                by_one_vector = others == 1 and len(arrays) == 2
                if others < len(arrays) and (not by_rows or by_one_vector or _AXIS in self.roles):
                    yield self._of_all(chosen), by_rows

    def _kinds_of(self, name: str, by_rows: bool) -> str:
        if name in _LIMITS:
            return SCALAR + NONE
        reduces = _AXIS in self.roles
        others = SCALAR
        if by_rows:
            others = COLUMN if name == "g" or reduces else ROW + COLUMN
        # What a rule saves has the shape of the gradient, unless an operand was broadcast.
        whole = self.names[0] == "g" != name and (name == "y" or self.single)
        return EACH if whole and not reduces else EACH + others

    def _of_all(self, chosen: Sequence[str]) -> str:
        """The kinds of all parameters, those of arrays being chosen."""
        following = iter(chosen)
        return "".join(next(following) if r == _ARRAY else SCALAR for r in self.roles)


def _functions() -> Iterator[_Function]:
    """The library's values and rules that may have kernels, in an order that is always the same."""
    for _, op in sorted(PRIMITIVES.items()):
        names = op.inputs
        if not isinstance(op.value, str):
            names += tuple(n for n in parameters_of(op.value)[1:] if n not in names)
        if op.mutates or op.random or op.data_dependent or op.variadic or not _is_ours(op):
            continue
        if not (op.elementwise or _AXIS_NAME in names) or "dtype" in names:
            continue
        if op.residual is None:
            yield from _function(op, op, names, _by_position(_value_of(op), len(op.inputs), names))
        for rule in op.rules:
            if rule is not None:
                yield from _function(rule, op, ("g", *rule.names), _rule_of(rule.function))


def _is_ours(op: Primitive) -> bool:
    """Whether a primitive is part of the library, whose kernels are kept under its version."""
    value: Any = op.value
    return isinstance(value, str) or str(value.__module__).startswith("tensorgrad.")


def _function(
    owner: Any, op: Primitive, names: tuple[str, ...], symbolic: Callable[..., Any]
) -> Iterator[_Function]:
    if len(names) <= _MOST and not any(n == "r" or n.endswith(("_shape", "_dtype")) for n in names):
        roles = "".join(
            _ARRAY if n in op.inputs or n in ("g", "y") else _ROLES.get(n, _NUMBER) for n in names
        )
        yield _Function(owner, names, roles, len(op.inputs) == 1, symbolic)


def _by_position(
    value: Callable[..., Any], inputs: int, names: tuple[str, ...]
) -> Callable[..., Any]:
    """A value function whose attributes are given by position."""
    return lambda xp, *given: value(
        xp, *given[:inputs], **dict(zip(names[inputs:], given[inputs:], strict=True))
    )


def _rule_of(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule with an array namespace in front, of which it knows nothing."""
    return lambda xp, *given: rule(*given)


# --- building -------------------------------------------------------------------------------------


@functools.cache
def _written() -> tuple[list[Any], str]:
    """A list of the kernels of all functions, and their text."""
    texts: dict[str, int] = {}
    kernels = []
    with _symbolic_arrays():
        for number, f in enumerate(_functions()):
            for way in f.ways():
                try:
                    found = followed(f.symbolic, way)
                except Exception:  # of a function that was not written for this: it is NumPy's
                    continue
                at = texts.setdefault(found.text, len(texts))
                dtypes = way.dtype.num, found.dtype.num
                about = [*dtypes, found.out, way.by_rows, way.kinds, way.types]
                kernels.append([number, at, found.cost, *about])
    units = [text.replace("@", f"k{k}") for text, k in texts.items()]
    parts = [f"k{k}_part" for k in texts.values()]
    lasts = [f"k{k}_last" if "@_last" in text else "0" for text, k in texts.items()]
    rest = [
        *[f"TG_UNIT void {name}(void **, long, long);" for name in parts],
        *[f"TG_UNIT void {name}(void **, long);" for name in lasts if name != "0"],
        f"void *const all_parts[] = {{{', '.join(parts)}}};",
        f"void *const all_lasts[] = {{{', '.join(lasts)}}};\n",
    ]
    return kernels, compiler.APART.join(['#include "support.h"\n', *units, "\n".join(rest)])


def _listed() -> str:
    """The list of the kernels, and the hash of their text, as C text of its own.

    Following all functions takes longer than loading, so it is done once for each version.
    """
    kernels, text = _written()
    known = json.dumps([hashlib.sha256(text.encode()).hexdigest(), kernels], separators=(",", ":"))
    return f"const char all_kernels[] = {json.dumps(known)};\n"


def _version() -> str:
    """What the kernels are made from: the library's sources, NumPy, and the primitives there are.

    Modules of operations that are loaded where they are used give functions other numbers.
    """
    place = Path(__file__).parents[1]
    found = hashlib.sha256(f"eager kernels, NumPy {np.__version__}".encode())
    ours = [op.name for _, op in sorted(PRIMITIVES.items()) if _is_ours(op)]
    found.update(" ".join(ours).encode())
    for part in ("*.py", "backend/*.py", "ops/*.py", "program/*.py", "program/executors/*.py"):
        for path in sorted(place.glob(part)):
            found.update(path.read_bytes())
    return found.hexdigest()


@functools.cache
def _kernels() -> list[Any]:
    """A callable for each function that has kernels, with its owner."""
    module = _module()
    listing = compiler.build(_listed, ("all_kernels",), _version())
    address = ctypes.addressof(ctypes.c_char.in_dll(listing, "all_kernels"))
    digest, listed = json.loads(ctypes.string_at(address))
    library = compiler.build(lambda: _written()[1], ("all_parts", "all_lasts"), digest)
    count = 1 + max(kernel[1] for kernel in listed)
    parts = (ctypes.c_size_t * count).in_dll(library, "all_parts")
    lasts = (ctypes.c_size_t * count).in_dll(library, "all_lasts")
    of: dict[int, list[Any]] = {}
    for number, at, *about in listed:
        of.setdefault(number, []).append((parts[at], lasts[at], *about))
    helpers = pool.library()
    helpers.tg_start(pool.threads() - 1)
    _set_threshold(THRESHOLD)
    found = []
    for number, f in enumerate(_functions()):
        if number in of:
            numpy = f.owner.cpu if isinstance(f.owner, Primitive) else f.owner.function
            found.append((f.owner, module.Function(numpy, f.names, f.roles, of[number])))
    return found


def _set_threshold(elements: int) -> None:
    """Use kernels from so many elements on."""
    run = ctypes.cast(pool.library().tg_run, ctypes.c_void_p).value
    _module().link(run, elements)


@functools.cache
def _module() -> Any:
    """The extension with the callable. Raises CompileError where it cannot be built."""
    headers = sysconfig.get_paths()["include"]
    if compiler.compiler() is None:
        raise CompileError(
            f"{_WHAT} needs a C compiler; {_INSTEAD.format('gcc')} or name one in CC"
        )
    if not os.path.exists(os.path.join(headers, "Python.h")):
        raise CompileError(
            f"{_WHAT} needs Python's headers, and {headers} has no Python.h; "
            f"{_INSTEAD.format('python3-dev')}"
        )
    text = (compiler.SOURCES / "eager.c").read_text()
    text += f"/* Python {sys.version}, NumPy {np.__version__} */\n"
    options = [f"-I{headers}", f"-I{np.get_include()}"]
    return compiler.extension("tensorgrad_eager", text, options)


# --- the switch -----------------------------------------------------------------------------------

_chosen = "numpy"


def set_eager(way: str) -> None:
    """Say what computes elementwise operations and reductions outside of compiled functions.

    way: "numpy", the default; or "native", by which such an operation, and such a gradient rule,
        runs as one loop in C on all cores where its arrays are float32 or float64, have 2**14
        elements or more and lie in row-major order. Everything else is left to NumPy. The first
        call on a machine compiles all kernels, which takes some seconds; later nothing is compiled.

    The numbers may differ from NumPy's by rounding, and do not depend on the number of threads.
    Native kernels do not warn of overflow or of division by zero. Results of native kernels lie in
    memory of which up to 64 MiB are kept for later ones. ``TENSORGRAD_EAGER=native`` in the
    environment says it from the start.

    Raises ValueError for another word, CompileError where kernels cannot be built, with the remedy.
    """
    global _chosen
    if way not in ("numpy", "native"):
        raise ValueError(f'eager execution is by "numpy" or "native", not by {way!r}')
    if way == "native" or _chosen == "native":
        for owner, function in _kernels():
            owner.eager = function if way == "native" else function.numpy
        if way == "numpy":
            _module().release()
    _chosen = way


def get_eager() -> str:
    """What computes outside of compiled functions: "numpy" or "native"."""
    return _chosen
