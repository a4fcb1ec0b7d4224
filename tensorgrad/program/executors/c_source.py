"""The third form of a program: C.

Every unit becomes a function of pointers. Names are given in the order of use, so that units that
do the same with other memory have the same text, which is compiled once, however often it runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tensorgrad.program.compiler import APART
from tensorgrad.program.executors.c_nests import write_nest
from tensorgrad.program.executors.c_products import product_of, product_text, stack_of_products_text
from tensorgrad.program.executors.c_text import (
    BY_ROWS,
    BYTES,
    PIECE,
    Operand,
    literal,
    part_text,
    type_of,
    unit_text,
)
from tensorgrad.program.loop_ir import Call, Check, Product, Routine, Scan, Scatter, Storage, View
from tensorgrad.program.regions import Region
from tensorgrad.program.schedule import Nest, Schedule, Unit

# Numbers that may be added up in one place in float32, as in ops/sums.py.
IN_ORDER = 128
# Columns that are scanned side by side.
_COLUMNS = 256
# Units that a segment calls one by one, at most.
_DIRECT = 256


@dataclass(slots=True)
class Source:
    """C text; steps are numbers of segments and calls; parts names the units of segments.

    places: what the table of addresses holds: a storage, or ``None`` for the room in which units
        leave partial results, and a distance from its beginning in bytes.
    room: the bytes of that.
    shared: nests of which any part can be done on its own, by the number of their first place, and
        how many elements belong to one step of their loop.
    """

    text: str
    steps: list[int | Call]
    checks: list[Check]
    parts: list[list[str]]
    places: list[tuple[Storage | None, int]]
    room: int
    shared: dict[int, tuple[Nest, int]]


#: Units that are called one after the other: names, and where the table has their operands.
Run = list[tuple[str, int]]


@dataclass(slots=True)
class Rows:
    """Units that are called for some rows at a time; see Region."""

    region: Region
    calls: Run


class SourceWriter:
    """Writes a program in C.

    A unit is a function of its operands' addresses, which lie side by side in the table, one unit's
    after the other's: so units that do the same with other memory are one function. A segment calls
    its units one by one; a long one is a loop over their numbers.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.steps: list[int | Call] = []
        self.checks: list[Check] = []
        self.parts: list[list[str]] = []
        self.places: list[tuple[Storage | None, int]] = []
        self.room = 0
        self.shared: dict[int, tuple[Nest, int]] = {}
        self._names: dict[str, str] = {}  # of functions, by the text of their units
        self._segments: list[list[str | Run | Rows]] = []  # statements, and units
        self._looped: dict[str, int] = {}  # the numbers of units that loops call
        self._by_rows: dict[str, int] = {}  # and of those that regions call
        self._counts: dict[str, int] = {}  # of the operands of units

    def write(self, schedule: Schedule, regions: Sequence[Region]) -> Source:
        """The program of a schedule."""
        region_of = {at: region for region in regions for at in range(region.start, region.end)}
        for at, unit in enumerate(schedule.units):
            if at in region_of:
                self._rows(unit, region_of[at])
                continue
            if isinstance(unit, Nest):
                self._nest(unit)
                continue
            op = unit.operation
            if type(op) is Call:
                self.steps.append(op)
            elif type(op) is Check:
                self._check(op)
            elif type(op) is Scatter:
                self._scatter(op)
            elif type(op) is Scan:
                self._scan(op)
            elif type(op) is Routine:
                self._routine(op)
            else:
                assert type(op) is Product
                self._product(op)
        segments = [self._segment(k, calls) for k, calls in enumerate(self._segments)]
        units = [text.replace("@", name) for text, name in self._names.items()]
        known = [
            f"TG_UNIT void {name}_unit({BY_ROWS if name in self._by_rows else 'void **P'});"
            for name in self._names.values()
        ]
        rest = "\n".join([*known, *self._units_of_loops(), *self._regions(), *segments]) + "\n"
        text = APART.join(['#include "support.h"\n', *units, rest])
        return Source(
            text, self.steps, self.checks, self.parts, self.places, self.room, self.shared
        )

    def _in_segment(self) -> list[str | Run | Rows]:
        """The segment that goes on, or begins, here."""
        if not self.steps or type(self.steps[-1]) is not int:
            self.steps.append(len(self._segments))
            self._segments.append([])
            self.parts.append([])
        return self._segments[-1]

    def _call(
        self,
        text: str,
        operands: Sequence[Operand],
        about: str,
        partial: Sequence[int] = (),
        region: Region | None = None,
    ) -> None:
        """Call the unit of this text. partial: where in the room its partial results lie."""
        name = self._names.setdefault(text, f"f{len(self._names)}")
        segment = self._in_segment()
        run = segment[-1] if segment else ""
        if region is not None:
            if not isinstance(run, Rows) or run.region is not region:
                segment.append(run := Rows(region, []))
            run = run.calls
            self._by_rows.setdefault(name, len(self._by_rows))
        elif not isinstance(run, list):
            segment.append(run := [])
        run.append((name, len(self.places)))
        self.places += [(s, first * s.dtype.itemsize) for s, first in operands]
        self.places += [(None, start) for start in partial]
        self._counts[name] = len(operands) + len(partial)
        self.parts[-1].append(about)

    # --- units ------------------------------------------------------------------------------------

    def _check(self, op: Check) -> None:
        self.checks.append(op)
        v = op.labels
        self._in_segment().append(
            f"if (tg_outside((const int64_t *)P[{len(self.places)}], {v.size}, {op.low}, "
            f"{op.high})) return {len(self.checks)};"
        )
        self.places.append((v.storage, v.offset * v.dtype.itemsize))

    def _scatter(self, op: Scatter) -> None:
        ctype = type_of(op.out)
        operands = [(v.storage, v.offset) for v in (op.out, op.places, op.x)]
        size, (count, step) = op.out.storage.size, _pattern(op.places)
        wide = op.adds and ctype == "float" and count > IN_ORDER
        text = _scattered(op, "@", ctype)
        call = "@(P[0], P[1], P[2]);"
        if wide:  # many numbers for one place are added in double precision
            text += _scattered(op, "@_wide", "double")
            first = f"(float *)P[0] - {op.out.offset}"
            call = (
                f"if (tg_crowded(P[1], {count}, {step})) {{ "
                f"double *w = P[3]; float *p = {first}; "
                f"for (long i = 0; i < {size}; i++) w[i] = p[i]; "
                f"@_wide(w + {op.out.offset}, P[1], P[2]); "
                f"for (long i = 0; i < {size}; i++) p[i] = (float)w[i]; "
                f"}} else {call}"
            )
            self.room = max(self.room, 8 * size)
        about = f"scatter of {list(op.x.shape)}"
        self._call(text + unit_text([call]), operands, about, [0] if wide else [])

    def _scan(self, op: Scan) -> None:
        shape = op.out.shape
        inner = math.prod(shape[op.axis + 1 :])
        block = min(inner, _COLUMNS)
        items = math.prod(shape[: op.axis]) * -(-inner // block)
        pieces = min(items, 2 * op.out.size // PIECE, 64) if self.threads > 1 else 1
        operands = [(v.storage, v.offset) for v in (op.out, *op.operands)]
        call = f"@({', '.join(f'P[{k}]' for k in range(len(operands)))}, "
        text = _scanned(op, block)
        if pieces < 2:
            text += unit_text([f"{call}0, {items});"])
        else:
            text += part_text(f"{call}begin, end);")
            text += unit_text([f"tg_parallel(@_part, P, {items}, {-(-items // pieces)});"])
        self._call(text, operands, f"scan of {list(shape)}")

    def _rows(self, unit: Unit, region: Region) -> None:
        """A unit that is called for some rows at a time."""
        if isinstance(unit, Nest):
            made = write_nest(unit)
            given = ", ".join(f"P[{k}]" for k in range(len(made.operands)))
            each = made.size // region.rows  # what its loop runs over
            limits = "begin, end" if each == 1 else f"begin * {each}, end * {each}"
            text = made.text + unit_text([f"@({given}, {limits});"], BY_ROWS)
            self._call(text, made.operands, _about_nest(unit), region=region)
            return
        op = unit.operation
        assert type(op) is Routine
        views = (*op.inputs, *op.outputs)
        text = _called(op) + unit_text(["@_part(P, begin, end);"], BY_ROWS)
        self._call(text, [(v.storage, v.offset) for v in views], _about_routine(op), region=region)

    def _routine(self, op: Routine) -> None:
        pieces = -(-op.size // op.piece)
        run = f"tg_parallel(@_part, P, {op.size}, {op.piece});"
        if pieces == 1:
            run = f"@_part(P, 0, {op.size});"
        views = (*op.inputs, *op.outputs)
        text = _called(op) + unit_text([run])
        self._call(text, [(v.storage, v.offset) for v in views], _about_routine(op))

    def _nest(self, nest: Nest) -> None:
        made = write_nest(nest)
        pieces = -(-made.size // made.piece)
        updates = any(m.out.storage.role != "temporary" for m in nest.stored)
        if self.threads == 1 and not made.partial and not updates:
            pieces = 1
        if pieces > 1 and updates and not made.partial:
            self.shared[len(self.places)] = nest, math.prod(nest.dims) // made.size
        count = len(made.operands)
        given = [f"P[{k}]" for k in range(count + len(made.partial))]
        text, calls = made.text, []
        if pieces == 1:
            calls.append(f"@({', '.join(given)}, 0, {made.size});")
        else:
            at = [
                f"({ctype} *)P[{count + k}] + begin / {made.piece} * {n}"
                for k, (ctype, n) in enumerate(made.partial)
            ]
            text += part_text(f"@({', '.join([*given[:count], *at])}, begin, end);")
            calls.append(f"tg_parallel(@_part, P, {made.size}, {made.piece});")
        if "@_end" in made.text:
            calls.append(f"@_end({', '.join(given)}, {pieces});")
        starts, end = [], 0
        for ctype, n in made.partial:
            starts.append(end)
            end += -(-pieces * n * BYTES[ctype] // 64) * 64
        self.room = max(self.room, end)
        self._call(text + unit_text(calls), made.operands, _about_nest(nest), starts)

    def _product(self, op: Product) -> None:
        batch = product_of(op)[0]
        text = stack_of_products_text(op) if batch != 1 else product_text(op)
        about = "product {} x {} x {} x {}".format(*product_of(op))
        self._call(text, [(v.storage, v.offset) for v in (op.a, op.b, op.out)], about)

    # --- segments ---------------------------------------------------------------------------------

    def _segment(self, number: int, calls: list[str | Run | Rows]) -> str:
        """The function of a segment."""
        lines: list[str] = []
        for run in calls:
            if isinstance(run, str):
                lines.append(run)
            elif isinstance(run, Rows):
                rows, piece, at = run.region.rows, run.region.piece, run.calls[0][1]
                lines.append(f"tg_parallel(region{at}, P + {at}, {rows}, {piece});")
            elif len(run) <= _DIRECT:
                lines += [f"{name}_unit(P + {at});" for name, at in run]
            else:
                lines += self._loop(run)
        body = "\n    ".join([*lines, "return 0;"])
        return f"int segment{number}(void **P) {{\n    {body}\n}}"

    def _loop(self, calls: Run) -> list[str]:
        """A loop over units whose operands follow each other in the table."""
        numbers = [self._looped.setdefault(name, len(self._looped)) for name, _ in calls]
        order = f"order{calls[0][1]}"
        return [
            f"static const uint16_t {order}[] = {{{','.join(map(str, numbers))}}};",
            f"tg_units(all_units, all_counts, {order}, {len(calls)}, P + {calls[0][1]});",
        ]

    def _regions(self) -> list[str]:
        """The functions of regions, which call their units in loops over numbers."""
        if not self._by_rows:
            return []
        units = ", ".join(f"{name}_unit" for name in self._by_rows)
        counts = ", ".join(str(self._counts[name]) for name in self._by_rows)
        lines = [
            f"static const tg_task rows_units[] = {{{units}}};",
            f"static const uint16_t rows_counts[] = {{{counts}}};",
        ]
        for run in [run for segment in self._segments for run in segment if type(run) is Rows]:
            at, count = run.calls[0][1], len(run.calls)
            order = ",".join(str(self._by_rows[name]) for name, _ in run.calls)
            lines += [
                f"static const uint16_t rows{at}[] = {{{order}}};",
                f"static void region{at}({BY_ROWS}) {{",
                f"    tg_units_by_rows(rows_units, rows_counts, rows{at}, {count}, P, begin, end);",
                "}",
            ]
        return lines

    def _units_of_loops(self) -> list[str]:
        """The units that loops call by number, and how many operands each has."""
        if not self._looped:
            return []
        units = ", ".join(f"{name}_unit" for name in self._looped)
        counts = ", ".join(str(self._counts[name]) for name in self._looped)
        return [
            f"static const tg_unit all_units[] = {{{units}}};",
            f"static const uint16_t all_counts[] = {{{counts}}};",
        ]


def write(schedule: Schedule, threads: int, regions: Sequence[Region] = ()) -> Source:
    """A program in C, for so many threads."""
    return SourceWriter(threads).write(schedule, regions)


def _about_nest(nest: Nest) -> str:
    return f"nest {list(nest.dims)} of {len(nest.members)}"


def _about_routine(op: Routine) -> str:
    return f"{op.header}.{op.function} to {list(op.outputs[0].shape)}"


def _called(op: Routine) -> str:
    """The function ``@_part`` that calls a routine: there the sizes are constants."""
    sizes = [literal(n, "float") if isinstance(n, float) else str(n) for n in op.sizes]
    given = [*sizes, *[f"P[{k}]" for k in range(len(op.inputs) + len(op.outputs))]]
    call = f"tg_{op.function}({', '.join(given)}, begin, end);"
    return f'#include "{op.header}.h"\n' + part_text(call)


def _scattered(op: Scatter, name: str, into: str) -> str:
    """The function ``name`` that does a scatter in memory of the C type ``into``."""
    shape = [n for n in op.out.shape if n != 1] or [1]
    terms: list[list[str]] = [[], [], []]
    for view, found in zip((op.out, op.places, op.x), terms):
        steps = [s for n, s in zip(view.shape, view.strides) if n != 1]
        found += [f"i{k} * {s}" for k, s in enumerate(steps) if s]
    to, at, x = (" + ".join(found) or "0" for found in terms)
    steps = [s for n, s in zip(op.places.shape, op.places.strides) if n != 1]
    own = [s for n, s in zip(op.out.shape, op.out.strides) if n != 1]
    apart = bool(steps) and not steps[-1] and own[-1]
    loops = [f"for (long i{k} = 0; i{k} < {n}; i{k}++)" for k, n in enumerate(shape)]
    if apart:  # the numbers of the inner loop go to places of their own
        loops.insert(len(loops) - 1, "\n#pragma omp simd\n   ")
    sign = "+=" if op.adds else "="
    return (
        f"static __attribute__((noinline)) void {name}({into} *restrict p, "
        f"const int64_t *restrict at, const {type_of(op.x)} *restrict x) {{\n    "
        + " ".join(loops)
        + f" p[{to} + at[{at}]] {sign} x[{x}];\n}}\n"
    )


def _scanned(op: Scan, block: int) -> str:
    """The function of a scan: over rows, and within a row over blocks of columns."""
    ctype, n = type_of(op.out), op.out.shape[op.axis]
    outer, inner = op.out.shape[: op.axis], math.prod(op.out.shape[op.axis + 1 :])
    blocks = -(-inner // block)
    views = dict(zip("yab" if op.kind == "linear" else "ya", (op.out, *op.operands)))
    params = [f"{'const ' if name != 'y' else ''}{ctype} *restrict {name}" for name in views]
    lines = [
        f"static __attribute__((noinline)) void @({', '.join(params)}, long begin, long end) {{",
        "for (long t = begin; t < end; t++) {",
        f"const long r = t / {blocks}, k = t % {blocks} * {block};",
        f"const long w = {inner} - k < {block} ? {inner} - k : {block};"
        if inner % block
        else f"const long w = {block};",
    ]
    at = {}
    for name, view in views.items():
        last = [s for m, s in zip(view.shape[op.axis + 1 :], view.strides[op.axis + 1 :]) if m != 1]
        step = last[-1] if last else 0
        terms = [f"k * {step}"]
        for axis, (m, s) in enumerate(zip(outer, view.strides)):
            if m != 1 and s:
                below = math.prod(outer[axis + 1 :])
                terms.append(f"r / {below} % {m} * {s}")
        start = f"({n - 1} - j)" if op.reverse else "j"
        lines.append(f"const long {name}_row = {' + '.join(terms)};")
        at[name] = f"{name}[{name}_row + {start} * {view.strides[op.axis]} + c * {step}]"
    wide = "double" if op.wide else ctype
    if op.kind == "linear":
        first, then = at["b"], f"({wide}){at['a']} * s[c] + {at['b']}"
    else:
        first, then = at["a"], f"s[c] {op.kind} {at['a']}"
    each = "for (long c = 0; c < w; c++) {"
    lines += [
        f"{wide} s[{block}];",
        "{ const long j = 0;",
        f"#pragma omp simd\n{each} s[c] = {first}; {at['y']} = s[c]; }} }}",
        f"for (long j = 1; j < {n}; j++) {{",
        f"#pragma omp simd\n{each} s[c] = {then}; {at['y']} = s[c]; }} }}",
    ]
    return "\n    ".join(lines) + "\n}\n}\n"


def _pattern(places: View) -> tuple[int, int]:
    """About how many places a view names, and at which distance they lie."""
    steps = [s for n, s in zip(places.shape, places.strides) if n != 1 and s]
    count = math.prod(n for n, s in zip(places.shape, places.strides) if n != 1 and s)
    return count, min((abs(s) for s in steps), default=1)
