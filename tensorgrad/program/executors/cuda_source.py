"""The third form of a program on a GPU: CUDA C++, a kernel or two for each nest.

A row of a nest belongs to a team of threads, a warp or a block, in which thread i has the columns
i, i + width, i + 2 width and so on. What a thread computed in one phase and needs in the next it
keeps in registers, since it meets the same columns again. A sum over the rows begins in the
registers of each team, goes to memory as one partial sum per team, and a second small kernel adds
these up: always in the same order, without atomic operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorgrad.program.executors.c_nests import (
    ROWS_IN_ORDER,
    NestWriter,
    accumulated,
    neutral_of,
    wide_of,
)
from tensorgrad.program.executors.c_text import Operand, has_axes, literal, type_of
from tensorgrad.program.executors.side_by_side import side_by_side
from tensorgrad.program.functions import number_type
from tensorgrad.program.ir import Program
from tensorgrad.program.loop_ir import EPILOGUE, POINT, ROW, Map, Reduce, View
from tensorgrad.program.lower import Lowering
from tensorgrad.program.schedule import Nest, Schedule, Unit

_WARP = 32
_THREADS = 128  # of a block, unless a row needs more
# Columns that one thread has at most while it keeps values of them in registers.
_STEPS = 16
# Blocks that are launched at most; they step through what is left.
_BLOCKS = 2048
# Blocks of a flat loop that leave partial results.
_PARTIAL_BLOCKS = 1024
# Threads that add up over rows: enough to keep the largest GPU busy with few rows; and with many,
# of which each team then has _PARTIAL_ROWS or more, so that partial sums are a small part of what
# is read.
_FEW_THREADS = 1 << 17
_MANY_THREADS = 1 << 18
_PARTIAL_ROWS = 32
# Threads of the kernels that add up partial results, and columns of a block there.
_END_THREADS = 1024
_END_COLUMNS = 32
# Pointers that a kernel of several nests is given at most: parameters may take 4 KiB; and blocks of
# a nest that shares a launch: of more, a launch of their own costs nothing.
_POINTERS, _BLOCKS_BESIDE = 480, 2 * _BLOCKS
_OPERATIONS = {"+": "Sum", "*": "Product", "max": "Max", "min": "Min"}


@dataclass(slots=True)
class KernelText:
    """The text of a nest's kernels, with ``@`` for the name, and how they are launched.

    partial: C type and number of elements of each array of partial results.
    end: the grid of the kernel ``@_end``, which follows; 0 if there is none. end_block: its block.
    """

    text: str
    operands: list[Operand]
    grid: tuple[int, int]
    block: int
    partial: list[tuple[str, int]]
    end: int
    end_block: int


class KernelWriter(NestWriter):
    """Writes one nest as a kernel."""

    streams = False
    has_bells = False

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
        #: arrays of random words, and the statements that draw them before a phase's columns
        self.words: list[str] = []
        self.drawn: list[list[str]] = [[] for _ in range(self.last + 1)]
        self.column_partial = any(
            type(m) is Reduce and nest.level[m] != ROW and has_axes(m.out) for m in nest.members
        )
        self.grid, self.teams = self._shared_out()
        self.scalar_end: list[str] = []

    def _shared_out(self) -> tuple[tuple[int, int], int]:
        """The grid, and how many teams share the rows."""
        block = max(self.width, _THREADS)
        if self.flat:
            most = _PARTIAL_BLOCKS if self._leaves_partial() else _BLOCKS
            blocks = min(most, -(-self.columns // (4 * block)))
            return (blocks, 1), blocks
        per_block = block // self.width
        limit = _BLOCKS * per_block
        if self.column_partial:
            across = self.width * self.chunks
            limit = max(
                min(1024, _FEW_THREADS // across),
                min(_MANY_THREADS // across, self.rows // _PARTIAL_ROWS),
            )
        blocks = -(-min(self.rows, limit) // per_block)
        return (blocks, self.chunks), blocks * per_block

    def _leaves_partial(self) -> bool:
        return any(type(m) is Reduce and self.nest.level[m] != ROW for m in self.nest.members)

    # --- where things are ---------------------------------------------------------------------

    def _kept_at(self, m: Map | Reduce) -> str:
        return f"{self.kept[m]}[k]"

    def _store(self, m: Map) -> None:
        if self.nest.level[m] == POINT:
            super()._store(m)
            return
        level, phase = self.nest.level[m], self.phase[m]
        name = self._value(m, level, 0 if level == EPILOGUE else phase)
        stored = self._as_stored(m, name)
        target = self._element(m.out, level, phase)
        if level == EPILOGUE:
            self.late.append(f"if (threadIdx.x == 0) {target} = {stored};")
        else:
            self.row[phase].append(f"if (lane == 0) {target} = {stored};")

    # --- random numbers -----------------------------------------------------------------------

    def _text(self, m: Map, level: str, phase: int) -> str:
        """The expression of ``m``; of random words one that four columns share."""
        steps = m.inputs[-1]
        single = isinstance(steps, np.generic) and steps == 1
        if m.name != "word" or level != POINT or not (single and (self.flat or self.in_registers)):
            return super()._text(m, level, phase)
        key, position = (self._scalar(m, k, phase) for k in range(2))
        name = f"w{len(self.words)}"
        first = "c" if self.rows == 1 else f"r * {self.columns} + c"
        step = "thread_count()" if self.flat else str(self.width)
        many = 4 if self.flat else -(-self.steps // 4) * 4
        self.words.append(name)
        self.drawn[phase] += [
            f"uint32 {name}[{many}];",
            "#pragma unroll",
            f"for (int k = 0; k < {many}; k += 4) {{",
            f"    const index_t c = {self._column('k')};",
            f"    tg_words({key}, {position} + {first}, {step}, {name} + k);",
            "}",
        ]
        return f"{name}[k]"

    def _scalar(self, m: Map, k: int, phase: int) -> str:
        """Input number ``k`` of ``m``, a number for all points."""
        x = m.inputs[k]
        if type(x) is View:
            return self._operand(m, [v for v in m.inputs if type(v) is View].index(x), POINT, phase)
        return literal(x.item(), number_type(x.dtype))

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
            # Equal factors are rounded alike, and a product would drift with the number of teams.
            own = wide_of(m) if m.kind == "*" else ctype
            self.partial.append((own, self.columns))
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
        start = neutral_of(m)
        mine = f"a{n}[team * {self.columns} + c]"
        if self.in_registers:
            own = wide_of(m) if m.kind == "*" else ctype
            self.begin.append(f"{own} c{n}[{self.steps}];")
            self.begin.append(f"for (int k = 0; k < {self.steps}; ++k) c{n}[k] = {start};")
            self.column[phase].append(accumulated(m.kind, f"c{n}[k]", x))
            if m.kind == "+" and self.rows > ROWS_IN_ORDER * self.teams:
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
            wide, here = wide_of(m), f"a{n}[k * {self.columns} + c]"
            self.combine += [
                f"{{ {wide} s = {start};",
                f"if (c < {self.columns})",
                "#pragma unroll 8",
                f"for (index_t k = warp; k < teams; k += {_END_THREADS // _WARP}) "
                f"{{ {accumulated(m.kind, 's', here)} }}",
                f"s = column_reduce<{_OPERATIONS[m.kind]}>(s);",
                f"if (warp == 0 && c < {self.columns}) {target}[c] = s; }}",
            ]

    # --- the whole ----------------------------------------------------------------------------

    def _column(self, step: str) -> str:
        """The column that a thread has in a step."""
        if self.flat:
            return f"base + {step} * thread_count()"
        first = f"(blockIdx.y * {self.steps} + {step})" if self.chunks > 1 else step
        return f"lane + index_t({first}) * {self.width}"

    def _over_columns(self, inner: list[str]) -> list[str]:
        return [
            *(["#pragma unroll"] if self.in_registers else []),
            f"for (int k = 0; k < {self.steps}; ++k) {{",
            f"    const index_t c = {self._column('k')};",
            f"    if (c < {self.columns}) {{",
            *[f"        {text}" for text in inner],
            "    }",
            "}",
        ]

    def _flat_loop(self, inner: list[str]) -> list[str]:
        if not self.words:
            head = f"for (index_t c = thread_number(); c < {self.columns}; c += thread_count()) {{"
            return [head, *[f"    {text}" for text in inner], "}"]
        # Whole warps go on together, as they exchange words.
        return [
            f"for (index_t base = thread_number(); base - (threadIdx.x & 31) < {self.columns}; "
            "base += 4 * thread_count()) {",
            *[f"    {text}" for text in self.drawn[0]],
            "#pragma unroll",
            "    for (int k = 0; k < 4; ++k) {",
            f"        const index_t c = {self._column('k')};",
            f"        if (c < {self.columns}) {{",
            *[f"            {text}" for text in inner],
            "        }",
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
            body += self.row[0] + self._flat_loop(inner) + self.row_end[0]
        else:
            body.append(f"for (index_t r = team; r < {self.rows}; r += teams) {{")
            body += [f"    {text}" for text in self._row_indices()]
            body += [f"    {text}" for head, text in self.row_pointers if not head]
            for m, name in self.kept.items():
                body.append(f"    {number_type(m.out.dtype)} {name}[{self.steps}];")
            for phase in range(self.last + 1):
                body += [f"    {text}" for text in self.row[phase] + self.drawn[phase]]
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
        grid, teams = self.grid, self.teams
        pieces = teams * self.chunks
        params = self._parameters()
        team = "blockIdx.x" if per_block == 1 else f"thread_number() / {self.width}"
        head = [
            f"const int lane = threadIdx.x % {self.width};",
            f"const index_t team = {team}, teams = {teams};",
            "(void)lane, (void)team, (void)teams;",
        ]
        text = _kernel_text("@", block, params, [*head, *body])
        end, end_block = 0, _THREADS
        if self.combine or self.scalar_end or self.late:
            end = -(-self.columns // _END_COLUMNS) if self.combine else 1
            if self.combine or pieces > _THREADS:
                end_block = _END_THREADS
            tail = [
                f"const index_t teams = {teams}, pieces = {pieces};",
                f"const index_t c = index_t(blockIdx.x) * {_END_COLUMNS} + threadIdx.x % {_WARP};",
                f"const int warp = threadIdx.x / {_WARP};",
                "(void)teams, (void)pieces, (void)c, (void)warp;",
                *self.combine,
                "if (blockIdx.x != 0) return;",
                *self.scalar_end,
                *self.late,
            ]
            text += _kernel_text("@_end", end_block, params, tail)
        partial = [(ctype, teams * n if n > 1 else pieces) for ctype, n in self.partial]
        return KernelText(text, self.operands(), grid, block, partial, end, end_block)

    def _parameters(self) -> str:
        pointers = [
            f"{'' if s in self.written else 'const '}{type_of(s)} *__restrict__ {name}"
            for s, name in self.pointers.items()
        ]
        parts = [f"{ctype} *__restrict__ a{k}" for k, (ctype, _) in enumerate(self.partial)]
        return ", ".join([*pointers, *parts])


@dataclass(slots=True)
class Source:
    """The kernels of a program: their text, and how they are launched.

    groups: the units, in order; nests side by side are one launch. nests: of the first nest of each
    group the launch and the kernel's name.
    """

    text: str
    groups: list[list[Unit]]
    nests: dict[Nest, tuple[KernelText, str]]


def write(schedule: Schedule) -> Source:
    """The kernels of all nests; nests that do the same share theirs."""
    made = {unit: KernelWriter(unit).kernel() for unit in schedule.units if isinstance(unit, Nest)}

    def joins(nest: Nest, group: Sequence[Unit]) -> bool:
        of_nest = made[nest]
        if of_nest.partial or of_nest.end or math.prod(of_nest.grid) > _BLOCKS_BESIDE:
            return False
        others = [made[other] for other in group if isinstance(other, Nest)]
        operands = {operand for one in (of_nest, *others) for operand in one.operands}
        return len(operands) <= _POINTERS and all(
            one.block == of_nest.block and not one.partial and not one.end for one in others
        )

    groups = side_by_side(schedule.units, joins)
    named: dict[str, str] = {}
    functions: dict[str, str] = {}
    nests = {}
    for group in groups:
        first = group[0]
        if not isinstance(first, Nest):
            continue
        kernels = [made[nest] for nest in group if isinstance(nest, Nest)]
        kernel = kernels[0] if len(kernels) == 1 else _together(kernels, functions)
        nests[first] = kernel, named.setdefault(kernel.text, f"f{len(named)}")
    texts = [*functions, *named]
    names = [*functions.values(), *named.values()]
    text = "\n".join(text.replace("@", name) for text, name in zip(texts, names))
    return Source(text, groups, nests)


def _together(kernels: Sequence[KernelText], functions: dict[str, str]) -> KernelText:
    """A kernel whose blocks do what those of several kernels do, of whose grids it has the sum.

    functions: the texts of what kernels do, with their names; those of these kernels are added.
    """
    alike: dict[str, list[KernelText]] = {}
    for kernel in kernels:
        alike.setdefault(_as_function(kernel), []).append(kernel)
    pointers: dict[Operand, tuple[str, str]] = {}
    body = ["unsigned int block = blockIdx.x;"]
    for function, members in alike.items():
        name = functions.setdefault(function, f"g{len(functions)}")
        body += _dispatched(name, members, pointers)
    params = ", ".join(f"{kind} *{name}" for kind, name in pointers.values())
    block = kernels[0].block
    blocks = sum(math.prod(kernel.grid) for kernel in kernels)
    text = _kernel_text("@", block, params, body)
    return KernelText(text, list(pointers), (blocks, 1), block, [], 0, _THREADS)


def _as_function(kernel: KernelText) -> str:
    """The text of a kernel as a function of a block's place in a grid, with ``@`` for its name."""
    head, body = kernel.text.split("@(", 1)
    assert head.startswith('extern "C" __global__ void')
    for old, new in (
        ("blockIdx.x", "block_x"),
        ("blockIdx.y", "block_y"),
        ("thread_number()", f"(index_t(block_x) * {kernel.block} + threadIdx.x)"),
        ("thread_count()", f"index_t({kernel.grid[0] * kernel.block})"),
    ):
        body = body.replace(old, new)
    return f"TG void @(unsigned int block_x, unsigned int block_y, {body}"


def _dispatched(
    name: str, members: Sequence[KernelText], pointers: dict[Operand, tuple[str, str]]
) -> list[str]:
    """Statements by which the next blocks of a grid call a function, each for its member.

    pointers: the parameters of the kernel, with their types; those of the members are added.
    """
    across, down = members[0].grid
    kinds = _types_of(members[0])
    each = []
    for member in members:
        for operand, kind in zip(member.operands, kinds):
            before, known = pointers.get(operand, (kind, f"p{len(pointers)}"))
            # What one member writes is not read by another, but what is read may be by several.
            pointers[operand] = before if "const" not in before else kind, known
        each.append([pointers[operand][1] for operand in member.operands])
    lines = [f"if (block < {len(members) * across * down}) {{"]
    lines += [f"    {kind} *q{k} = {p};" for k, (kind, p) in enumerate(zip(kinds, each[0]))]
    for number, mine in enumerate(each[1:], 1):
        chosen = " ".join(f"q{k} = {p};" for k, p in enumerate(mine))
        lines.append(f"    if (block / {across * down} == {number}) {{ {chosen} }}")
    given = ", ".join(f"q{k}" for k in range(len(kinds)))
    place = f"block % {across}, block / {across} % {down}"
    lines += [f"    {name}({place}, {given});", "    return;", "}"]
    return [*lines, f"block -= {len(members) * across * down};"]


def _types_of(kernel: KernelText) -> list[str]:
    """What the pointers that a kernel is given point to, in order."""
    params = kernel.text.split("@(", 1)[1].split(")", 1)[0]
    return [param.split(" *")[0] for param in params.split(", ")]


def source_of(program: Program) -> str:
    """The kernels that a program has on a GPU, wherever it was captured."""
    lowering = Lowering(program)
    seen = {lowering.views[v].storage for v in program.kept()}
    return write(Schedule(lowering.operations, seen, recomputed=False, parted=True)).text


def _kernel_text(name: str, block: int, params: str, body: list[str]) -> str:
    lines = "\n    ".join(body)
    return (
        f'extern "C" __global__ void __launch_bounds__({block}, 1) {name}({params}) {{\n'
        f"    {lines}\n}}\n"
    )
