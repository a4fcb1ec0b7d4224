"""Kernels for eager execution: one loop nest each, for arrays of any size.

A function of arrays (a primitive's value, a gradient rule) is followed with symbolic operands whose
shape stands for any other. As seen from rows and columns an operand lies in one of a few ways, and
for each combination there is a kernel, whose text says nothing of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad.program.executors.c_nests import NestWriter
from tensorgrad.program.functions import BOOL
from tensorgrad.program.ir import Program
from tensorgrad.program.loop_ir import EPILOGUE, Map, Reduce, Storage, View, strides_of
from tensorgrad.program.lower import Lowering
from tensorgrad.program.schedule import Nest, Schedule
from tensorgrad.program.symbolic import (
    FLOAT64,
    NotFollowedError,
    SymbolicArray,
    SymbolicNamespace,
)

#: How an operand lies: an element for each point, one for all, for each column, for each row; or it
#: is ``None``. As in c/eager.c.
EACH, SCALAR, ROW, COLUMN, NONE = "e", "s", "r", "c", "n"
# Rows and columns that stand for any others: so many that nothing is written for small numbers. A
# kernel that is not the same for both is none.
_SIZES = (1 << 12, 1 << 14), (1 << 13, 1 << 15)
# What the compiler turns into vector instructions: whatever costs no more than so many additions,
# and in float32 the functions written out in c/support.h. The others NumPy computes faster, one by
# one; erf it does not have.
_SIMPLE = 6
# Arrays of partial results, as in c/eager.c.
_PARTIALS = 4
_WRITTEN_OUT = frozenset({"exp", "expm1", "log", "log1p", "sigmoid", "tanh"})


@dataclass(slots=True)
class KernelText:
    """A kernel, with ``@`` for its name.

    cost: of a point, in additions. out: how the result lies, with a capital letter if reduced axes
        stay whatever the call says; and its dtype.
    combines: whether there is ``@_last``, which makes the result of partial ones.
    """

    text: str
    cost: int
    out: str
    dtype: np.dtype[Any]
    combines: bool


class _KernelWriter(NestWriter):
    """Writes a nest for any number of rows and columns."""

    streams = False
    cheap = float("inf")
    limits = "long columns, long begin, long end"

    def _row_base(self, view: View, strides: tuple[int, ...]) -> str:
        step = 0 if self.flat or len(strides) == 1 else strides[0]
        return {0: "0", 1: "r", self.columns: "r * columns"}[step]

    def _row_length(self) -> str:
        return "columns"


@dataclass(frozen=True, slots=True)
class Way:
    """How a function is called.

    roles: what each parameter is, as in c/eager.c. kinds: how those lie that are arrays.
    types: "b" for truth values, "f" for ``dtype``. by_rows: or everything is one row.
    """

    roles: str
    kinds: str
    types: str
    dtype: np.dtype[Any]
    by_rows: bool


def followed(function: Callable[..., Any], way: Way) -> KernelText:
    """The kernel for a function of an array namespace and operands.

    Raises NotFollowedError where there is none, and whatever the function raises.
    """
    found = _followed(function, way, *_SIZES[0])
    if "x" in way.roles and _followed(function, way, *_SIZES[1]).text != found.text:
        raise NotFollowedError("it computes with a size")
    return found


def _followed(function: Callable[..., Any], way: Way, rows: int, columns: int) -> KernelText:
    lowering = Lowering(Program())
    xp = SymbolicNamespace(lowering)
    whole = (rows, columns) if way.by_rows else (columns,)
    shapes = {EACH: whole, SCALAR: (), ROW: (columns,), COLUMN: (rows, 1), NONE: ()}
    storages: list[Storage] = []
    given: list[Any] = []
    for role, kind, of in zip(way.roles, way.kinds, way.types):
        if role == "x":
            given.append((len(whole) - 1,))
        elif role == "k":
            given.append(True)
        else:
            wanted = FLOAT64 if role == "n" else BOOL if of == "b" else way.dtype
            shape = shapes[kind]
            storages.append(lowering.storage(math.prod(shape), wanted, "argument"))
            view = View(storages[-1], shape, strides_of(shape))
            if "x" not in way.roles:  # then every value is in the one loop
                view = view.broadcast(whole)
            given.append(None if kind == NONE else xp.input(view, weak=role == "n"))
    made = function(xp, *given)
    if xp.refusal:
        raise NotFollowedError(xp.refusal)
    if not isinstance(made, SymbolicArray):
        raise NotFollowedError("it gives no array")
    kinds = {math.prod(whole): EACH, rows if way.by_rows else 1: COLUMN if way.by_rows else SCALAR}
    out = made.elements
    if out.storage.role != "temporary" or not out.contiguous or out.size not in kinds:
        raise NotFollowedError("its result is no array of its own")
    if out.dtype not in (way.dtype, BOOL):
        raise NotFollowedError(f"it gives {out.dtype}")
    nest = _nest(lowering, out, way.by_rows)
    kind = kinds[out.size]
    if "k" not in way.roles and len(out.shape) == len(whole):  # reduced axes stay, unasked
        kind = kind.upper()
    return _text(nest, [*storages, out.storage], kind, out.dtype)


def _nest(lowering: Lowering, out: View, by_rows: bool) -> Nest:
    """The one nest that computes ``out``."""
    units = Schedule(lowering.operations, {out.storage}, recomputed=False).units
    if len(units) != 1 or not isinstance(units[0], Nest):
        raise NotFollowedError("it takes several loops")
    nest = units[0]
    if len(nest.dims) != 1 + by_rows or any(m.out.storage is not out.storage for m in nest.stored):
        raise NotFollowedError("it is stored in parts")
    for m in nest.members:
        if type(m) is Reduce and nest.level[m] == EPILOGUE and (by_rows or m.out.size != 1):
            raise NotFollowedError("it is reduced over the first axes")
        if type(m) is Map and (m.by_place or not _is_quick(m)):
            raise NotFollowedError(f"{m.name} is left to NumPy")
    return nest


def _is_quick(m: Map) -> bool:
    single = m.out.dtype == np.float32 and m.name in _WRITTEN_OUT
    return m.cost <= _SIMPLE or single or m.name == "erf"


def _text(nest: Nest, storages: Sequence[Storage], out: str, dtype: np.dtype[Any]) -> KernelText:
    """The text of a nest. storages: the operands and the result, as the table has them."""
    writer = _KernelWriter(nest)
    if len(nest.dims) > 1 and writer.flat:
        raise NotFollowedError("it does not know of rows")
    made = writer.write()
    if "tg_rows" in made.text or len(made.partial) > _PARTIALS:
        raise NotFollowedError("it needs memory of its own")
    n = len(storages)
    pointers = [f"P[{storages.index(s)}]" for s, _ in made.operands]
    partial = [f"({ctype} *)P[{n + 1 + k}]" for k, (ctype, _) in enumerate(made.partial)]
    given = ", ".join([*pointers, *(f"{p} + begin / S[1]" for p in partial)])
    text = (
        f"{made.text}TG_UNIT void @_part(void **P, long begin, long end) {{\n"
        f"    const long *S = P[{n}];\n    @({given}, S[0], begin, end);\n}}\n"
    )
    combines = "@_end" in made.text
    if combines:
        given = ", ".join([*pointers, *partial])
        text += f"TG_UNIT void @_last(void **P, long pieces) {{ @_end({given}, pieces); }}\n"
    cost = sum(m.cost if type(m) is Map else 1 for m in nest.members) + len(pointers)
    return KernelText(text, cost, out, dtype, combines)
