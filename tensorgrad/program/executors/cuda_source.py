"""The third form of a program on a GPU: CUDA C++, a kernel or two for each nest.

A row of a nest belongs to a team of threads, a warp or a block, in which thread i has the columns
i, i + width, i + 2 width and so on. What a thread computed in one phase and needs in the next it
keeps in registers, since it meets the same columns again. A sum over the rows begins in the
registers of each team, goes to memory as one partial sum per team, and a second small kernel adds
these up: always in the same order, without atomic operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorgrad.program.executors.c_source import (
    ROWS_IN_ORDER,
    NestWriter,
    Operand,
    accumulated,
    has_axes,
    neutral_of,
    type_of,
    wide_of,
)
from tensorgrad.program.ir import Program
from tensorgrad.program.loop_ir import EPILOGUE, POINT, ROW, Map, Reduce
from tensorgrad.program.lower import Lowering
from tensorgrad.program.schedule import Nest, Schedule

_WARP = 32
_THREADS = 128  # of a block, unless a row needs more
# Columns that one thread has at most while it keeps values of them in registers.
_STEPS = 16
# Blocks that are launched at most; they step through what is left.
_BLOCKS = 2048
# Teams that leave partial sums over the rows: few enough to be added up quickly.
_PARTIAL_TEAMS = 256
_OPERATIONS = {"+": "Sum", "*": "Product", "max": "Max", "min": "Min"}


@dataclass(slots=True)
class KernelText:
    """The text of a nest's kernels, with ``@`` for the name, and how they are launched.

    partial: C type and number of elements of each array of partial results.
    end: the grid of the kernel ``@_end``, which follows; 0 if there is none.
    """

    text: str
    operands: list[Operand]
    grid: tuple[int, int]
    block: int
    partial: list[tuple[str, int]]
    end: int


class KernelWriter(NestWriter):
    """Writes one nest as a kernel."""

    streams = False

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.by_row = ROW in nest.level.values()
        columns = self.columns
        if self.flat or (not self.by_row and columns > 4 * _WARP):
            self.width = _THREADS
        elif columns <= _STEPS * _WARP:
            self.width = _WARP
        else:
            self.width = 256 if columns <= _STEPS * 256 else 1024
        #: columns of one thread, and how many blocks side by side share the columns
        self.steps = -(-columns // self.width)
        self.chunks = 1
        if not self.by_row and not self.flat:
            self.chunks = -(-self.steps // 4)
            self.steps = min(self.steps, 4)
        self.longest = _STEPS * 1024
        self.room = math.inf  # they lie in registers
        self.in_registers = self.steps <= _STEPS
        self.totals: list[str] = []  # statements after all rows
        self.column_partial = False
        self.scalar_end: list[str] = []

    # --- where things are ---------------------------------------------------------------------

    def _kept_at(self, m: Map | Reduce) -> str:
        return f"{self.kept[m]}[k]"

    def _store(self, m: Map) -> None:
        if self.nest.level[m] == POINT:
            super()._store(m)
            return
        level, phase = self.nest.level[m], self.phase[m]
        name = self._value(m, level, 0 if level == EPILOGUE else phase)
        target = self._element(m.out, level, phase)
        if level == EPILOGUE:
            self.late.append(f"if (threadIdx.x == 0) {target} = {name};")
        else:
            self.row[phase].append(f"if (lane == 0) {target} = {name};")

    # --- reductions ---------------------------------------------------------------------------

    def _reduce(self, m: Reduce) -> None:
        level = POINT if self._reads_full(m) and m.x.size == math.prod(self.dims) else ROW
        phase = self.phase[m]
        ctype = type_of(m.out)
        op = _OPERATIONS[m.kind]
        x = self._operand(m, 0, level, phase)
        acc = self.accumulators[m]
        if self.nest.level[m] == ROW:
            own = wide_of(m) if self.steps > ROWS_IN_ORDER else ctype
            self.row[phase].append(f"{own} {acc}t = {neutral_of(m)};")
            self.column[phase].append(accumulated(m.kind, f"{acc}t", x))
            reduced = f"team_reduce<{op}, {self.width}>({acc}t)"
            self.row_end[phase].append(f"const {ctype} {acc} = {reduced};")
            if m in self.nest.stored:
                target = self._element(m.out, ROW, phase)
                self.row_end[phase].append(f"if (lane == 0) {target} = {acc};")
            return
        n = len(self.partial)
        if has_axes(m.out):  # over all axes but the last
            self.partial.append((ctype, self.columns))
            self._add_up_columns(m, n, x, ctype, phase)
            return
        self.partial.append((ctype, 1))
        wide = wide_of(m)
        total = f"t{n}"
        self.begin.append(f"{wide} {total} = {neutral_of(m)};")
        if level == POINT:
            # A thread of a flat loop has more elements than it has rows otherwise.
            own = wide if self.flat or self.steps > ROWS_IN_ORDER else ctype
            self.row[phase].append(f"{own} {acc}t = {neutral_of(m)};")
            self.column[phase].append(accumulated(m.kind, f"{acc}t", x))
            self.row_end[phase].append(accumulated(m.kind, total, f"{acc}t"))
            total = f"team_reduce<{op}, {self.width}>({total})"
        else:
            self.row[phase].append(accumulated(m.kind, total, x))
        self.totals.append(f"const {wide} {acc}w = {total};")
        self.totals.append(f"if (lane == 0) a{n}[blockIdx.y * teams + team] = ({ctype}){acc}w;")
        self.scalar_end += [
            f"{wide} {acc}w = {neutral_of(m)};",
            f"for (index_t k = threadIdx.x; k < pieces; k += blockDim.x) "
            f"{accumulated(m.kind, acc + 'w', f'a{n}[k]')}",
            f"const {ctype} {acc} = ({ctype})block_reduce<{op}>({acc}w);",
        ]
        if m in self.nest.stored:
            target = self._element(m.out, EPILOGUE, 0)
            self.late.append(f"if (threadIdx.x == 0) {target} = {acc};")

    def _add_up_columns(self, m: Reduce, n: int, x: str, ctype: str, phase: int) -> None:
        self.column_partial = True
        start = neutral_of(m)
        mine = f"a{n}[team * {self.columns} + c]"
        if self.in_registers:
            own = wide_of(m) if m.kind == "*" else ctype
            self.begin.append(f"{own} c{n}[{self.steps}];")
            self.begin.append(f"for (int k = 0; k < {self.steps}; ++k) c{n}[k] = {start};")
            self.column[phase].append(accumulated(m.kind, f"c{n}[k]", x))
            if m.kind == "+" and self.rows > ROWS_IN_ORDER * _PARTIAL_TEAMS:
                self.begin.append(f"{ctype} d{n}[{self.steps}];")
                self.begin.append(f"for (int k = 0; k < {self.steps}; ++k) d{n}[k] = 0;")
                loop = f"for (int k = 0; k < {self.steps}; ++k)"
                self.every_few_rows.append(f"{loop} d{n}[k] += c{n}[k], c{n}[k] = 0;")
                self.totals += self._over_columns([f"{mine} = d{n}[k] + c{n}[k];"])
            else:
                self.totals += self._over_columns([f"{mine} = c{n}[k];"])
        else:
            self.begin += self._over_columns([f"{mine} = {start};"])
            self.column[phase].append(accumulated(m.kind, mine, x))
        if m in self.nest.stored:
            target = self._start(m.out)
            self.combine += [
                f"for (index_t c = thread_number(); c < {self.columns}; c += thread_count()) {{",
                f"    {wide_of(m)} s = a{n}[c];",
                f"    for (index_t k = 1; k < teams; ++k) "
                f"{accumulated(m.kind, 's', f'a{n}[k * {self.columns} + c]')}",
                f"    {target}[c] = s;",
                "}",
            ]

    # --- the whole ----------------------------------------------------------------------------

    def _over_columns(self, inner: list[str]) -> list[str]:
        first = f"(blockIdx.y * {self.steps} + k)" if self.chunks > 1 else "k"
        return [
            *(["#pragma unroll"] if self.in_registers else []),
            f"for (int k = 0; k < {self.steps}; ++k) {{",
            f"    const index_t c = lane + index_t({first}) * {self.width};",
            f"    if (c < {self.columns}) {{",
            *[f"        {text}" for text in inner],
            "    }",
            "}",
        ]

    def kernel(self) -> KernelText:
        """The kernels."""
        self._fill()
        body: list[str] = []
        body += self.begin + self.before
        body += [text for head, text in self.row_pointers if head]
        if self.flat:
            inner = self.column[0] + self.column_end[0]
            body += self.row[0]
            body.append(
                f"for (index_t c = thread_number(); c < {self.columns}; c += thread_count()) {{"
            )
            body += [f"    {text}" for text in inner] + ["}"] + self.row_end[0]
        else:
            body.append(f"for (index_t r = team; r < {self.rows}; r += teams) {{")
            body += [f"    {text}" for text in self._row_indices()]
            body += [f"    {text}" for head, text in self.row_pointers if not head]
            for m, name in self.kept.items():
                body.append(f"    {type_of(m.out)} {name}[{self.steps}];")
            for phase in range(self.last + 1):
                body += [f"    {text}" for text in self.row[phase]]
                inner = self.column[phase] + self.column_end[phase]
                if inner:
                    body += [f"    {text}" for text in self._over_columns(inner)]
                body += [f"    {text}" for text in self.row_end[phase]]
            if self.every_few_rows:
                n = ROWS_IN_ORDER
                body.append(f"    if (r / teams % {n} == {n - 1}) {{")
                body += [f"        {text}" for text in self.every_few_rows] + ["    }"]
            body.append("}")
        body += self.totals
        block = max(self.width, _THREADS)
        per_block = block // self.width
        if self.flat:
            grid = (min(_BLOCKS, -(-self.columns // (4 * block))), 1)
            if self.partial:
                grid = (min(4 * _PARTIAL_TEAMS, grid[0]), 1)
            teams = grid[0]
        else:
            limit = _PARTIAL_TEAMS if self.column_partial else _BLOCKS * per_block
            grid = (-(-min(self.rows, limit) // per_block), self.chunks)
            teams = grid[0] * per_block
        pieces = teams * self.chunks
        params = self._parameters()
        team = "blockIdx.x" if per_block == 1 else f"thread_number() / {self.width}"
        head = [
            f"const int lane = threadIdx.x % {self.width};",
            f"const index_t team = {team}, teams = {teams};",
            "(void)lane, (void)team, (void)teams;",
        ]
        text = _kernel_text("@", block, params, [*head, *body])
        end = 0
        if self.combine or self.scalar_end or self.late:
            end = -(-self.columns // _THREADS) if self.combine else 1
            tail = [
                f"const index_t teams = {teams}, pieces = {pieces};",
                "(void)teams, (void)pieces;",
                *self.combine,
                "if (blockIdx.x != 0) return;",
                *self.scalar_end,
                *self.late,
            ]
            text += _kernel_text("@_end", _THREADS, params, tail)
        partial = [(ctype, teams * n if n > 1 else pieces) for ctype, n in self.partial]
        return KernelText(text, self.operands(), grid, block, partial, end)

    def _parameters(self) -> str:
        pointers = [
            f"{'' if s in self.written else 'const '}{type_of(s)} *__restrict__ {name}"
            for s, name in self.pointers.items()
        ]
        parts = [f"{ctype} *__restrict__ a{k}" for k, (ctype, _) in enumerate(self.partial)]
        return ", ".join([*pointers, *parts])


@dataclass(slots=True)
class Source:
    """The kernels of a program: their text, and of each nest the launch and the kernel's name."""

    text: str
    nests: dict[Nest, tuple[KernelText, str]]


def write(schedule: Schedule) -> Source:
    """The kernels of all nests; nests that do the same share theirs."""
    named: dict[str, str] = {}
    nests = {}
    for unit in schedule.units:
        if isinstance(unit, Nest):
            made = KernelWriter(unit).kernel()
            nests[unit] = made, named.setdefault(made.text, f"f{len(named)}")
    return Source("\n".join(text.replace("@", name) for text, name in named.items()), nests)


def source_of(program: Program) -> str:
    """The kernels that a program has on a GPU, wherever it was captured."""
    lowering = Lowering(program)
    seen = {lowering.views[v].storage for v in program.kept()}
    return write(Schedule(lowering.operations, seen, recomputed=False)).text


def _kernel_text(name: str, block: int, params: str, body: list[str]) -> str:
    lines = "\n    ".join(body)
    return (
        f'extern "C" __global__ void __launch_bounds__({block}) {name}({params}) {{\n'
        f"    {lines}\n}}\n"
    )
