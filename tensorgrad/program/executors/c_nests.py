"""Nests of loops in C.

A nest is written in phases: statements for the row, a loop over the columns, and again, since a
number that is known only at the end of a row (a sum) can be used on the same row in the next phase.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad.dtypes import HALVES
from tensorgrad.program.executors.c_text import BYTES, PIECE, Operand, has_axes, literal, type_of
from tensorgrad.program.functions import C_TYPES, number_type, printed
from tensorgrad.program.loop_ir import EPILOGUE, POINT, ROW, Column, Map, Reduce, Storage, View
from tensorgrad.program.schedule import Nest

# What is computed a second time in a later phase rather than kept, in additions.
_CHEAP = 6
_KEPT = 4096
# Bytes of the memory that each thread has for rows, as in c/pool.c. It is no part of the stack.
_ROWS = 1 << 17
# Bytes from which on a result goes to memory past the caches, which saves reading it first, and the
# elements of it that are collected before.
_STREAMED = 1 << 25
_BLOCK = 1024
# Bytes from which on rows of a table that are picked by number are asked for, so many rows ahead;
# and how many bytes of a row: the processor goes on itself.
_FAR, _AHEAD, _ASKED = 1 << 18, 8, 1 << 9
# Rows that are added in order, and elements of a row that are added as one sum: in float32 longer
# sums would drift. Their sums are added in double precision.
ROWS_IN_ORDER = 64
_SUMMED = 1024


@dataclass(slots=True)
class Function:
    """The text of a nest's functions, with ``@`` for its name, and what it is called with.

    operands: storages, and the element of each that it is given the address of.
    size, piece: how far its loop runs, and how much of it one piece of parallel work takes; one
        piece takes it all where that is not worth it.
    partial: elements that each piece needs for partial results, by C type.
    """

    text: str
    operands: list[Operand]
    size: int
    piece: int
    partial: list[tuple[str, int]]


class NestWriter:
    """Writes one nest."""

    #: elements of a row that can be kept for a later phase; a longer one is stored
    longest = _KEPT
    #: bytes of all that is kept
    room: float = _ROWS
    #: whether there are functions for exp(-x^2) and what goes with it
    has_bells = True
    #: whether large results are collected in blocks that go past the caches, and what is read is
    #: asked for before
    streams = True
    #: the cost up to which a value is computed again in a later phase rather than kept
    cheap: float = _CHEAP
    #: what the functions are given besides pointers
    limits = "long begin, long end"

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.dims = nest.dims
        self.columns = nest.dims[-1]
        self.rows = math.prod(nest.dims[:-1])
        self.phase: dict[Map | Reduce, int] = {}
        self.cost: dict[Map | Reduce, int] = {}  # of computing a value again, from memory
        for m in nest.members:
            self._set_phase(m)
            self.cost[m] = self._cost(m)
        self.last = max(self.phase.values())
        self.flat = self._is_flat()
        if self.flat:
            self.columns, self.rows = self.rows * self.columns, 1
        n = self.last + 1
        self.row: list[list[str]] = [[] for _ in range(n)]
        self.column: list[list[str]] = [[] for _ in range(n)]
        self.row_end: list[list[str]] = [[] for _ in range(n)]
        self.ahead: list[str] = []  # what is asked of memory for a later row
        self.clauses: list[list[str]] = [[] for _ in range(n)]
        self.block_begin: list[list[str]] = [[] for _ in range(n)]
        self.block_end: list[list[str]] = [[] for _ in range(n)]
        self.every_few_rows: list[str] = []
        self.head: list[str] = []
        self.before: list[str] = []
        self.late: list[str] = []
        self.names: dict[Any, str] = {}
        self.rounded: dict[str, str] = {}  # numbers of 16 bits as they lie in memory
        self.pointers: dict[Storage, str] = {}
        self.origins: dict[Storage, int] = {}  # the elements that the pointers point to
        self.kept: dict[Map | Reduce, str] = {}
        self.reserved = 0
        self.rows_memory: list[str] = []  # pointers into the thread's own memory
        self.partial: list[tuple[str, int]] = []
        self.begin: list[str] = []
        self.combine: list[str] = []
        self.accumulators: dict[Reduce, str] = {}
        self.indices: set[int] = set()

    # --- phases -----------------------------------------------------------------------------------

    def _set_phase(self, m: Map | Reduce) -> None:
        phase = 0
        for source in self.nest.sources[m]:
            if source is not None:
                later = type(source) is Reduce and self.nest.level[source] == ROW
                phase = max(phase, self.phase[source] + later)
        self.phase[m] = phase

    def _is_flat(self) -> bool:
        """Whether rows and columns can be one loop: nothing in the nest knows of rows."""
        for m in self.nest.members:
            if self.nest.level[m] == ROW:
                return False
            if type(m) is Map and m.by_column and len(self.dims) > 1:
                return False
            if type(m) is Reduce and (self.nest.level[m] != EPILOGUE or has_axes(m.out)):
                return False
            at_point = self.nest.level[m] == POINT
            if at_point or type(m) is Reduce:  # a sum over everything reads at every point, too
                for view in [*m.views, *m.tables, m.out] if at_point else m.views:
                    strides = self.nest.access(view, POINT)[2]
                    if any(strides) and not _linear(self.dims, strides, 1):
                        return False
        return True

    # --- operands ---------------------------------------------------------------------------------

    def _pointer(self, view: View) -> str:
        """The pointer into a storage: at the first element of the first of its views that is asked
        for, so that the same work on another part of it has the same text."""
        self.origins.setdefault(view.storage, view.offset)
        return self.pointers.setdefault(view.storage, f"p{len(self.pointers)}")

    def _first(self, view: View) -> int:
        """Where a view begins, from where the pointer points."""
        return view.offset - self.origins.setdefault(view.storage, view.offset)

    def _start(self, view: View) -> str:
        """A pointer to the first element of a view."""
        pointer, first = self._pointer(view), self._first(view)
        return f"({pointer} + {first})" if first else pointer

    def operands(self) -> list[Operand]:
        """What the pointers point to."""
        return [(s, self.origins[s]) for s in self.pointers]

    def _name(self, key: Any, prefix: str) -> str:
        return self.names.setdefault(key, f"{prefix}{len(self.names)}")

    def _row_base(self, view: View, strides: tuple[int, ...]) -> str:
        """The offset of a row's first element, in C."""
        rows = strides[:-1]
        first = self._first(view)
        text = str(first) if first else ""
        if self.flat or not any(rows):
            return text or "0"
        terms = [text] if text else []
        if _linear(self.dims[:-1], rows, None):
            step = next(s for n, s in zip(reversed(self.dims[:-1]), reversed(rows)) if n != 1)
            terms.append(f"r * {step}")
        else:
            for axis, step in enumerate(rows):
                if step:
                    self.indices.add(axis)
                    terms.append(f"i{axis} * {step}")
        return " + ".join(terms)

    def _element(self, view: View, level: str, phase: int, write: bool = False) -> str:
        """The element of ``view`` at the current point, as an expression that can be assigned."""
        pointer = self._pointer(view)
        strides = self.nest.access(view, level)[2]
        if level == EPILOGUE:
            return f"{pointer}[{self._first(view)}]"
        base = self._row_base(view, strides)
        step = strides[-1]
        if self.flat:
            step = 1 if any(strides) else 0
            if any(strides):
                step = next(s for n, s in zip(reversed(self.dims), reversed(strides)) if n != 1)
        if not step:
            return f"{pointer}[{base}]"
        key = (view.storage, base)
        name = self.names.get(key)
        if name is None:
            name = self._name(key, "q")
            const = "" if view.storage in self.written else "const "
            at = f"{pointer} + {base}" if base != "0" else pointer
            target = self.row[0] if not self.flat else self.head
            self.row_pointers.append(
                (target is self.head, f"{const}{type_of(view)} *const {name} = {at};")
            )
        return f"{name}[c]" if step == 1 else f"{name}[c * {step}]"

    def _operand(self, m: Map | Reduce, k: int, level: str, phase: int) -> str:
        """View number ``k`` of ``m`` at the current point."""
        source = self.nest.sources[m][k]
        if source is not None:
            return self._value(source, level, phase)
        view = m.views[k]
        number = view.storage.number_held
        if number is not None:
            return literal(number, number_type(view.dtype))
        strides = self.nest.access(view, level)[2]
        constant = level == EPILOGUE or not any(strides)
        by_row = not constant and not strides[-1] and not self.flat
        if constant:
            place = self.late if level == EPILOGUE else self.before
            key: Any = ("load", view.storage, view.offset, level == EPILOGUE)
        elif by_row or level == ROW:
            place, key = self.row[0], ("load", view.storage, view.offset, strides, "row")
            if view.storage in self.written:
                place, key = self.row[phase], (*key, phase)
        else:
            place, key = self.column[phase], ("load", view.storage, view.offset, strides, phase)
        if key not in self.names:
            text = _read(view, self._element(view, level, phase))
            name = self._name(key, "v")
            place.append(f"const {number_type(view.dtype)} {name} = {text};")
        return self.names[key]

    def _value(self, m: Map | Reduce, reader: str, phase: int) -> str:
        """What ``m`` computes, for a reader in ``phase``."""
        if type(m) is Reduce:
            return self.accumulators[m]
        assert type(m) is Map
        level = self.nest.level[m]
        if level == EPILOGUE:
            key: Any = (m, "late")
            if key not in self.names:
                text = self._text(m, EPILOGUE, 0)
                name = self._name(key, "v")
                self._define(self.late, m, name, text)
            return self.names[key]
        at = self.phase[m]
        if level == ROW:
            key = (m, "row")
            if key not in self.names:
                text = self._text(m, ROW, at)
                name = self._name(key, "v")
                self._define(self.row[at], m, name, text)
            return self.names[key]
        if at < phase and self.cost[m] > self.cheap:
            if m not in self.kept:
                name = f"k{len(self.kept)}"
                in_memory = m in self.nest.stored or self.columns > self.longest
                if in_memory or not self._reserve(name, number_type(m.out.dtype), self.columns):
                    self.nest.stored.add(m)
                    return self._loaded(m, phase)
                self.kept[m] = name
            return self._kept_at(m)
        key = (m, phase)
        if key not in self.names:
            text = self._text(m, POINT, phase)
            name = self._name(key, "v")
            self._define(self.column[phase], m, name, text)
        return self.names[key]

    def _define(self, place: list[str], m: Map, name: str, text: str) -> None:
        """Give the name to what ``m`` computes; of 16-bit floats also as it lies in memory."""
        if m.name == "cast" and m.out.dtype in HALVES:
            self.rounded[name] = f"{name}h"
            place.append(f"const {type_of(m.out)} {name}h = {text};")
            text = _read(m.out, f"{name}h")
        place.append(f"const {number_type(m.out.dtype)} {name} = {text};")

    def _as_stored(self, m: Map, name: str) -> str:
        """What ``m`` computes as it lies in memory."""
        if m.out.dtype not in HALVES:
            return name
        return self.rounded.get(name, f"{type_of(m.out)}_of({name})")

    def _reserve(self, name: str, ctype: str, count: int) -> bool:
        """Have so many elements in the thread's own memory, if there is room."""
        size = -(-count * BYTES[ctype] // 64) * 64
        if self.reserved + size > self.room:
            return False
        pointer = f"{ctype} *restrict const {name}"
        self.rows_memory.append(f"{pointer} = tg_rows({self.reserved});")
        self.reserved += size
        return True

    def _kept_at(self, m: Map | Reduce) -> str:
        """The current element of a value that is kept for a later phase."""
        return f"{self.kept[m]}[c]"

    def _loaded(self, m: Map, phase: int) -> str:
        """A value that an earlier phase stored, read back."""
        self.written.add(m.out.storage)
        key = ("again", m, phase)
        if key not in self.names:
            text = _read(m.out, self._element(m.out, POINT, phase))
            name = self._name(key, "v")
            self.column[phase].append(f"const {number_type(m.out.dtype)} {name} = {text};")
        return self.names[key]

    def _cost(self, m: Map | Reduce) -> int:
        if type(m) is Reduce:
            return 0
        assert type(m) is Map
        inner = [s for s in self.nest.sources[m] if s is not None and self.nest.level[s] == POINT]
        return m.cost + sum(self.cost[s] for s in inner) + (len(m.views) - len(inner))

    def _text(self, m: Map, level: str, phase: int) -> str:
        """The expression of ``m``."""
        given = []
        k = 0
        for x in m.inputs:
            if type(x) is View:
                given.append(self._operand(m, k, level, phase))
                k += 1
            else:
                given.append(
                    column(x) if type(x) is Column else literal(x.item(), number_type(x.dtype))
                )
        if m.table is not None:
            first = self._element(m.table, level, phase).removesuffix("]")
            if first.endswith("[c") and self.streams and not self.flat:
                self._ask_ahead(m, first.removesuffix("[c"))
            return _read(m.table, f"{first} + {given[0]}]")
        if self.has_bells and (bell := self._bell(m)):
            return f"{bell}({given[0]})"
        index = "c" if self.rows == 1 else f"(r * {self.columns} + c)"
        last = m.inputs[-1]
        limit = isinstance(last, np.generic) and bool(last == last)
        return printed(m.name, last.dtype, m.out.dtype, given, index, limit)

    def _ask_ahead(self, m: Map, row: str) -> None:
        """Of a large table ask for the part that a later row reads, if its number is in memory.

        row: where the part would begin if the number were 0.
        """
        places, table = m.inputs[0], m.table
        if type(places) is not View or table is None or self.nest.sources[m][0] is not None:
            return
        strides = self.nest.access(places, POINT)[2]
        if table.storage.nbytes < _FAR or strides[-1] or not any(strides):
            return
        if not _linear(self.dims[:-1], strides[:-1], None):
            return
        number = self._element(places, POINT, 0).replace("r * ", "ahead * ")
        size = min(self.columns * table.dtype.itemsize, _ASKED)
        self.ahead.append(f"tg_ask({row} + {number}, {size});")

    def _bell(self, m: Map) -> str:
        """A quicker function for exp(-x^2), and for erf(x) in the same nest: they share it."""
        if m.out.dtype != np.float32:
            return ""
        if m.name == "exp" and self._root(m) is not None:
            return "tg_exp_negative"
        if m.name == "erf" and (x := self.nest.sources[m][0]) is not None:
            others = (o for o in self.nest.members if type(o) is Map and o.name == "exp")
            return "tg_erf_beside_exp" if any(self._root(o) is x for o in others) else ""
        return ""

    def _root(self, m: Map) -> Map | Reduce | None:
        """The x of exp(-x * x), where all of it is computed in the nest."""
        square = m
        for name in ("negative", "multiply"):
            below = self.nest.sources[square][0] if square.views else None
            if type(below) is not Map or below.name != name:
                return None
            square = below
        found = self.nest.sources[square]
        return found[0] if len(found) == 2 and found[0] is found[1] else None

    # --- statements -------------------------------------------------------------------------------

    def _reduce(self, m: Reduce) -> None:
        level = POINT if m.x.size == math.prod(self.dims) and self._reads_full(m) else ROW
        phase = self.phase[m]
        ctype = type_of(m.out)
        x = self._operand(m, 0, level, phase)
        if self.nest.level[m] == ROW:
            acc = self.accumulators[m]
            self._accumulate(m, acc, x, phase)
            if m in self.nest.stored:
                target = self._element(m.out, ROW, phase)
                self.row_end[phase].append(f"{target} = {acc};")
            return
        if has_axes(m.out):  # over all axes but the last
            n = len(self.partial)
            many = self.rows > ROWS_IN_ORDER
            wide = wide_of(m) if many else ctype
            self.partial.append((wide, self.columns))
            part, start = f"a{n}", neutral_of(m)
            loop = f"for (long c = 0; c < {self.columns}; c++)"
            self.begin.append(f"{loop} {part}[c] = {start};")
            if many and m.kind == "+":
                self.partial.append((ctype, self.columns))
                part = f"a{n + 1}"
                self.begin.append(f"{loop} {part}[c] = 0;")
                self.every_few_rows.append(f"{loop} a{n}[c] += {part}[c], {part}[c] = 0;")
            self.column[phase].append(accumulated(m.kind, f"{part}[c]", x))
            if m in self.nest.stored:
                target = self._start(m.out)
                self.combine += [
                    f"for (long c = 0; c < {self.columns}; c++) {{",
                    f"    {wide} s = a{n}[c];",
                    f"    for (long k = 1; k < pieces; k++) "
                    f"{accumulated(m.kind, 's', f'a{n}[k * {self.columns} + c]')}",
                    f"    {target}[c] = s;",
                    "}",
                ]
            return
        n = len(self.partial)
        self.partial.append((ctype, 1))
        wide = wide_of(m)
        total = f"t{n}"
        self.begin.append(f"{wide} {total} = {neutral_of(m)};")
        if level == POINT:
            acc = self._name((m, "partial"), "s")
            self._accumulate(m, acc, x, phase)
            self.row_end[phase].append(accumulated(m.kind, total, acc))
        else:
            self.row[phase].append(accumulated(m.kind, total, x))
        self.row_last.append(f"a{n}[0] = ({ctype}){total};")
        acc = self.accumulators[m]
        self.combine += [
            f"{wide} {acc}w = a{n}[0];",
            f"for (long k = 1; k < pieces; k++) {accumulated(m.kind, acc + 'w', f'a{n}[k]')}",
            f"const {ctype} {acc} = ({ctype}){acc}w;",
        ]
        if m in self.nest.stored:
            self.late.append(f"{self._element(m.out, EPILOGUE, 0)} = {acc};")

    def _reads_full(self, m: Reduce) -> bool:
        return tuple(n for n in m.x.shape if n != 1) == self.dims

    def _accumulate(self, m: Reduce, acc: str, x: str, phase: int) -> None:
        """Into ``acc``, over the columns of one phase."""
        kind, ctype, wide = m.kind, type_of(m.out), wide_of(m)
        if kind in ("max", "min") and m.out.dtype.kind == "f":
            # The vector units drop NaN: they are counted apart, and put in at the end of the row.
            self.row[phase].append(f"{ctype} {acc}m = {neutral_of(m)}; int {acc}n = 0;")
            sign = ">" if kind == "max" else "<"
            self.column[phase].append(f"{acc}m = {x} {sign} {acc}m ? {x} : {acc}m;")
            self.column[phase].append(f"{acc}n |= {x} != {x};")
            self.clauses[phase] += [f"reduction({kind}:{acc}m)", f"reduction(|:{acc}n)"]
            self.row_end[phase].append(f"const {ctype} {acc} = {acc}n ? NAN : {acc}m;")
            return
        inner = acc
        if wide != ctype and self.columns > _SUMMED:
            self.row[phase].append(f"{wide} {acc}w = {neutral_of(m)};")
            inner = f"{acc}w"
            if kind == "+":
                self.block_begin[phase].append(f"{ctype} {acc}b = 0;")
                self.block_end[phase].append(f"{acc}w += {acc}b;")
                inner = f"{acc}b"
            self.row_end[phase].append(f"const {ctype} {acc} = ({ctype}){acc}w;")
        else:
            self.row[phase].append(f"{ctype} {acc} = {neutral_of(m)};")
        if kind in ("max", "min"):
            sign = ">" if kind == "max" else "<"
            self.column[phase].append(f"{inner} = {x} {sign} {inner} ? {x} : {inner};")
        else:
            self.column[phase].append(f"{inner} {kind}= {x};")
        self.clauses[phase].append(f"reduction({kind}:{inner})")

    def _store(self, m: Map) -> None:
        level = self.nest.level[m]
        phase = self.phase[m]
        if level == EPILOGUE:
            name = self._value(m, EPILOGUE, 0)
            stored = self._as_stored(m, name)
            self.late.append(f"{self._element(m.out, EPILOGUE, 0)} = {stored};")
            return
        name = self._value(m, level, phase)
        place = self.row[phase] if level == ROW else self.column_end[phase]
        target = self._element(m.out, level, phase)
        block = f"y{len(self.blocks)}"
        in_blocks = self.flat and m.out.storage in self.streamed and target.endswith("[c]")
        if in_blocks and self._reserve(block, type_of(m.out), _BLOCK):
            self.blocks.append((block, type_of(m.out), target.removesuffix("[c]")))
            target = f"{block}[c - b]"
        place.append(f"{target} = {self._as_stored(m, name)};")

    def write(self) -> Function:
        """The text."""
        self._fill()
        return self._assemble()

    def _fill(self) -> None:
        """Write the statements of every part."""
        nest = self.nest
        self.written = {m.out.storage for m in nest.stored}
        read = {view.storage for view in nest.reads()}
        self.streamed = {s for s in self.written - read if self.streams and s.nbytes >= _STREAMED}
        self.blocks: list[tuple[str, str, str]] = []  # name, type, and where it goes
        self.row_pointers: list[tuple[bool, str]] = []
        self.column_end: list[list[str]] = [[] for _ in range(self.last + 1)]
        self.row_last: list[str] = []
        for m in nest.members:
            if type(m) is Reduce:
                self.accumulators[m] = self._name((m, "sum"), "s")
        # What a later phase stores first may have to be kept by an earlier one: last to first.
        for phase in range(self.last, -1, -1):
            for m in nest.members:  # in order, so that no operand has to be looked for far back
                if self.phase[m] == phase and type(m) is Map and nest.level[m] != EPILOGUE:
                    self._value(m, nest.level[m], phase)
            for m in nest.members:
                if self.phase[m] == phase and type(m) is Reduce:
                    self._reduce(m)
            for m in nest.members:
                known = self.phase[m] == phase and nest.level[m] != EPILOGUE
                if known and type(m) is Map and m in nest.stored:
                    self._store(m)
            for m in list(self.kept):
                if self.phase[m] == phase:
                    target = self._kept_at(m)
                    self.column_end[phase].append(f"{target} = {self._value(m, POINT, phase)};")
        for m in nest.members:
            if type(m) is Map and nest.level[m] == EPILOGUE:
                self._store(m) if m in nest.stored else self._value(m, EPILOGUE, 0)

    def _assemble(self) -> Function:
        size = self.columns if self.flat else self.rows
        piece = self._piece(size)
        body = self.rows_memory + self.begin + self.before
        body += [text for head, text in self.row_pointers if head]
        if self.every_few_rows:
            n = ROWS_IN_ORDER
            body.append(f"for (long g = begin; g < end; g += {n}) {{")
            body.append(f"const long h = g + {n} < end ? g + {n} : end;")
            body.append("for (long r = g; r < h; r++) {")
        elif not self.flat:
            body.append("for (long r = begin; r < end; r++) {")
        if not self.flat:
            body += [f"    {text}" for text in self._row_indices()]
            body += [f"    {text}" for head, text in self.row_pointers if not head]
            if self.ahead:
                body.append(f"    const long ahead = r + {_AHEAD} < end ? r + {_AHEAD} : r;")
                body += [f"    {text}" for text in dict.fromkeys(self.ahead)]
        pad = "" if self.flat else "    "
        for phase in range(self.last + 1):
            body += [pad + text for text in self.row[phase]]
            inner = self.column[phase] + self.column_end[phase]
            if inner:
                clauses = " ".join(self.clauses[phase])
                limits = ("begin", "end") if self.flat else ("0", self._row_length())
                in_blocks = bool(self.blocks or self.block_begin[phase])
                if in_blocks:
                    body += [pad + text for text in self._block_head(*limits)]
                    body += [pad + text for text in self.block_begin[phase]]
                    limits = ("b", "e")
                body.append(f"#pragma omp simd {clauses}".rstrip())
                body.append(f"{pad}for (long c = {limits[0]}; c < {limits[1]}; c++) {{")
                body += [f"{pad}    {text}" for text in inner]
                body.append(f"{pad}}}")
                for block, ctype, target in self.blocks:
                    body.append(f"tg_stream({target} + b, {block}, (e - b) * sizeof({ctype}));")
                body += [pad + text for text in self.block_end[phase]]
                if in_blocks:
                    body.append(f"{pad}}}")
                if self.blocks:
                    body.append("tg_streamed();")
            body += [pad + text for text in self.row_end[phase]]
        if not self.flat:
            body.append("}")
        if self.every_few_rows:
            body += [*self.every_few_rows, "}"]
        body += self.row_last
        types = {s: C_TYPES[s.dtype] for s in self.pointers}
        pointers = [
            f"{'' if s in self.written else 'const '}{types[s]} *restrict {name}"
            for s, name in self.pointers.items()
        ]
        parts = [f"{ctype} *restrict a{k}" for k, (ctype, _) in enumerate(self.partial)]
        params = ", ".join([*pointers, *parts])
        text = (
            f"static __attribute__((noinline)) void @({params}, {self.limits}) {{\n    "
            + "\n    ".join(body)
            + "\n}\n"
        )
        end = self.combine + self.late
        if end:
            text += (
                f"static __attribute__((noinline)) void @_end({params}, long pieces) {{\n    "
                + "\n    ".join(end)
                + "\n}\n"
            )
        return Function(text, self.operands(), size, piece, self.partial)

    def _block_head(self, first: str, last: str) -> list[str]:
        """The beginning of a loop over blocks of columns."""
        size = _BLOCK if self.blocks else _SUMMED
        return [
            f"for (long b = {first}; b < {last}; b += {size}) {{",
            f"const long e = b + {size} < {last} ? b + {size} : {last};",
        ]

    def _row_length(self) -> str:
        """The number of columns, in C."""
        return str(self.columns)

    def _row_indices(self) -> list[str]:
        """The index along each leading axis that somebody asks for, from the number of the row."""
        found = []
        leading = self.dims[:-1]
        for axis in sorted(self.indices):
            below = math.prod(leading[axis + 1 :])
            text = f"r / {below}" if below != 1 else "r"
            if axis:
                text = f"{text} % {leading[axis]}" if below == 1 else f"({text}) % {leading[axis]}"
            found.append(f"const long i{axis} = {text};")
        return found

    def _piece(self, size: int) -> int:
        work = sum(m.cost if type(m) is Map else 1 for m in self.nest.members)
        work += len(self.pointers)
        total = work * self.rows * self.columns
        pieces = total // PIECE
        if pieces < 2 or size < 2:
            return size
        # Partial results are combined one after the other: few pieces, and the same ones always.
        widest = max((n for _, n in self.partial), default=0)
        pieces = min(pieces, 64 if not widest else max(2, min(16, (1 << 16) // widest)))
        if pieces > 2:  # two or four threads have equally many
            pieces = -(-pieces // 4) * 4
        pieces = min(pieces, size)
        piece = -(-size // pieces)
        return -(-piece // 16) * 16 if self.flat else piece


def column(x: Column) -> str:
    """The index of the inner loop as a number of the wanted type."""
    return "c" if x.dtype == np.int64 else f"({type_of(x)})c"


def _read(view: View, element: str) -> str:
    """The number that an element in memory is."""
    return f"{type_of(view)}_is({element})" if view.dtype in HALVES else element


def wide_of(m: Reduce) -> str:
    """The C type in which its partial results are taken together."""
    return "double" if m.kind in ("+", "*") and m.out.dtype.kind == "f" else type_of(m.out)


def _linear(dims: tuple[int, ...], strides: tuple[int, ...], last: int | None) -> bool:
    """Whether the elements along these axes lie at equal distances, one after the other."""
    axes = [(n, s) for n, s in zip(dims, strides) if n != 1]
    if last is not None and axes and axes[-1][1] != last:
        return False
    return all(s == n2 * s2 for (_, s), (n2, s2) in itertools.pairwise(axes))


def neutral_of(m: Reduce) -> str:
    """What a reduction begins with."""
    dtype = m.out.dtype
    if m.kind in ("+", "*") or dtype.kind == "f":
        return {"+": "0", "*": "1", "max": "(-INFINITY)", "min": "INFINITY"}[m.kind]
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    return literal(int(limits.min if m.kind == "max" else limits.max), C_TYPES[dtype])


def accumulated(kind: str, acc: str, x: str) -> str:
    """The statement that takes ``x`` into ``acc``; NaN stays."""
    if kind in ("+", "*"):
        return f"{acc} {kind}= {x};"
    sign = ">" if kind == "max" else "<"
    return f"{acc} = {x} {sign} {acc} || {x} != {x} ? {x} : {acc};"


def write_nest(nest: Nest) -> Function:
    """The functions of a nest."""
    return NestWriter(nest).write()
