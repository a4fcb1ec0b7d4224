"""What executors have in common that give every value of a program a fixed place in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.backend.cpu import CPU
from tensorgrad.program.loops import Call, Product, Storage, View
from tensorgrad.program.nests import Nest, Schedule
from tensorgrad.program.program import Program, Value


def lifetimes(schedule: Schedule, seen: set[Storage]) -> dict[Storage, tuple[int, int, int]]:
    """Of each temporary storage in memory: its bytes, and the first and last unit that uses it.

    seen: storages that somebody sees after a replay, which are left out.
    """
    spans: dict[Storage, tuple[int, int, int]] = {}
    for at, unit in enumerate(schedule.units):
        touched = {v.storage for v in unit.reads()}
        if isinstance(unit, Nest):
            touched |= {m.out.storage for m in unit.stored}
        else:
            op = unit.operation
            if type(op) is Call:
                touched |= {v.storage for v in op.outputs}
            elif type(op) is Product:
                touched.add(op.out.storage)
        for s in touched:
            if s.role == "temporary" and s not in seen:
                _, first, _ = spans.get(s, (0, at, at))
                spans[s] = s.nbytes, first, at
    return spans


def arena_plan(
    spans: dict[Any, tuple[int, int, int]], alignment: int = 64
) -> tuple[dict[Any, int], int]:
    """Offsets for pieces of memory of which each is in use from one unit to another, and the sum.

    spans: key -> (bytes, first unit, last unit). The largest piece is placed first, each in the
    lowest gap among those in use at the same time.
    """
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[Any, int] = {}
    for key, (size, first, last) in sorted(spans.items(), key=lambda item: -item[1][0]):
        size = -(-max(size, 1) // alignment) * alignment
        start = 0
        for at, end, begins, ends in sorted(placed):
            if begins <= last and first <= ends:
                if start + size <= at:
                    break
                start = max(start, end)
        offsets[key] = start
        placed.append((start, start + size, first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


def traffic_of(schedule: Schedule) -> list[int]:
    """The bytes that each stretch between calls, and each call, reads and writes in memory.

    What a unit reads twice counts once; what stays in registers does not count; an update counts
    twice.
    """
    found: list[int] = []
    in_stretch = False
    for unit in schedule.units:
        read = {(v.storage, min(v.size, v.storage.size)) for v in unit.reads()}
        written: set[tuple[Storage, int]] = set()
        if isinstance(unit, Nest):
            written = {(m.out.storage, m.out.size) for m in unit.stored}
        elif type(unit.operation) is Call:
            written = {(v.storage, v.size) for v in unit.operation.outputs}
        elif type(unit.operation) is Product:
            written = {(unit.operation.out.storage, unit.operation.out.size)}
        is_call = not isinstance(unit, Nest) and type(unit.operation) is Call
        if is_call or not in_stretch:
            found.append(0)
        in_stretch = not is_call
        found[-1] += sum(size * s.dtype.itemsize for s, size in (*read, *written))
    return found


class Placed:
    """A program whose values lie where ``memory`` says."""

    name: str
    reason = ""
    #: how many references to a gradient's array there are while nobody else keeps it
    references = 3

    def __init__(self, program: Program, views: dict[Value, View], xp: Any) -> None:
        self.program = program
        self._views = views
        self._xp = xp
        self._seen = {views[v].storage for v in program.kept()}
        self.memory: dict[Storage, Any] = {}
        self._gradients: list[tuple[Value, Any] | None] = []
        #: of each external value: how to get its array, the array last seen, and its storage
        self._externals: list[list[Any]] = []

    def _fetched(self) -> bool:
        """Take the arrays that external values are now; whether one is another than before."""
        moved = False
        for entry in self._externals:
            array = entry[0]()
            if array is not entry[1]:
                moved = True
                entry[1] = self.memory[entry[2]] = array
        return moved

    def _array(self, view: View) -> Any:
        """The elements of ``view`` as they lie in memory now."""
        strided = self._xp.lib.stride_tricks.as_strided
        base = self.memory[view.storage]
        if base.ndim != 1 or not base.flags.c_contiguous:
            base = strided(base, (view.storage.size,), (base.itemsize,))
        step = view.dtype.itemsize
        return strided(base[view.offset :], view.shape, [s * step for s in view.strides])

    def _shown(self, v: Value) -> tuple[Value, Any]:
        """The value, and an array that shows it, unless it may lie elsewhere next time."""
        storage = self._views[v].storage
        return v, self._array(self._views[v]) if storage.role == "temporary" else None

    def _gradient(self, v: Value, array: Any) -> Any:
        return self._array(self._views[v]).copy() if array is None else array

    def _bind_outputs(self) -> None:
        """Make the arrays that show the gradients."""
        self._gradients = [None if v is None else self._shown(v) for _, v in self.program.gradients]

    def _move(self, storage: Storage) -> None:
        """Give a temporary value that is kept other memory."""
        raise NotImplementedError

    def renew(self, number: int) -> None:
        """Give a gradient other memory: somebody holds on to the one it has."""
        entry = self._gradients[number]
        assert entry is not None
        storage = self._views[entry[0]].storage
        if storage.role == "temporary":
            self._move(storage)
            self._bind_outputs()

    def _call(self, op: Call) -> Callable[[], int]:
        """A primitive called on arrays that show the program's memory."""
        i = op.instruction
        overwrites = bool(i.written)
        first = i.outputs[0]

        def call() -> int:
            arrays = [self._array(x) if isinstance(x, View) else x for x in op.inputs]
            options = i.attrs if i.live is None else {**i.attrs, **i.live()}
            place = next((backend.of(a) for a in arrays if is_array(a)), CPU)
            made = place.run(i.op, arrays, options)
            parts: list[Any] = [made]
            if i.residual:
                y, r = made
                parts = [y, *[a for a in (r if isinstance(r, tuple) else (r,)) if is_array(a)]]
            elif i.op.residual is not None:
                parts = [made[0]]
            if overwrites and first.before is not None:
                return 0
            for view, array in zip(op.outputs, parts):
                self._array(view)[...] = array
            return 0

        return call


def as_signed(value: Any) -> Any:
    """A number for a slot of 64 bits: a key without a sign becomes the same bits with one."""
    return value if value < 1 << 63 else value - (1 << 64)
