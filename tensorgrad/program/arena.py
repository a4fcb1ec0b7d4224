"""What executors have in common that give every value of a program a fixed place in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.backend.cpu import CPU
from tensorgrad.errors import CompileError
from tensorgrad.program.ir import Piece, Program, Range, Value
from tensorgrad.program.loop_ir import (
    Call,
    Routine,
    Storage,
    View,
    extent_of,
    is_plain,
    outputs_of,
)
from tensorgrad.program.schedule import Nest, Schedule, Unit
from tensorgrad.versions import increment_versions

# Pieces of memory that are few enough to be placed largest first.
_FEW = 256


def lifetimes(
    groups: Iterable[Sequence[Unit]], seen: set[Storage]
) -> dict[Storage, tuple[int, int, int]]:
    """Of each temporary storage in memory: its bytes, and the first and last group that uses it.

    groups: units that run at the same time, in order. seen: storages that somebody sees after a
    replay, which are left out.
    """
    spans: dict[Storage, tuple[int, int, int]] = {}
    for at, unit in ((at, unit) for at, group in enumerate(groups) for unit in group):
        touched = {v.storage for v in unit.reads()}
        if isinstance(unit, Nest):
            touched |= {m.out.storage for m in unit.stored}
        else:
            touched |= {v.storage for v in outputs_of(unit.operation)}
        for s in touched:
            if s.role == "temporary" and s not in seen:
                _, first, _ = spans.get(s, (0, at, at))
                spans[s] = s.nbytes, first, at
    return spans


def reuse(
    units: Sequence[Unit],
    pieces: dict[Any, tuple[int, int, int]],
    piece_of: dict[Storage, Any],
) -> None:
    """Let outputs of routines lie where inputs do that are read for the last time; see Routine.

    pieces: of memory, as in ``lifetimes``, and which of them each storage has; both are changed.
    """
    for at, unit in enumerate(units):
        if isinstance(unit, Nest) or type(unit.operation) is not Routine:
            continue
        op = unit.operation
        for k, j in op.reused:
            out, given = op.outputs[k], op.inputs[j]
            new, old = piece_of.get(out.storage), piece_of.get(given.storage)
            if new is None or old is None or new is old or out.offset or given.offset:
                continue
            if sum(piece_of.get(view.storage) is old for view in op.inputs) != 1:
                continue
            (size, first, last), (before, begun, ended) = pieces[new], pieces[old]
            if first != at or ended != at:
                continue
            pieces[new] = max(size, before), begun, last
            del pieces[old]
            for storage in [s for s, piece in piece_of.items() if piece is old]:
                piece_of[storage] = new


def arena_plan(
    spans: Mapping[Any, tuple[int, int, int]], alignment: int = 64
) -> tuple[dict[Any, int], int]:
    """Offsets for pieces of memory of which each is in use from one unit to another, and the sum.

    spans: key -> (bytes, first unit, last unit). A few are placed largest first, which packs best
    and takes time as their square; many in the order of their use.
    """
    rounded = {
        key: (-(-max(size, 1) // alignment) * alignment, first, last)
        for key, (size, first, last) in spans.items()
    }
    return _largest_first(rounded) if len(rounded) <= _FEW else _in_order_of_use(rounded)


def _largest_first(spans: Mapping[Any, tuple[int, int, int]]) -> tuple[dict[Any, int], int]:
    """The largest first, each in the lowest gap among those in use at the same time."""
    placed: list[tuple[int, int, int, int]] = []  # by address
    offsets: dict[Any, int] = {}
    for key, (size, first, last) in sorted(spans.items(), key=lambda item: -item[1][0]):
        start = 0
        for at, end, begins, ends in placed:
            if begins <= last and first <= ends:
                if start + size <= at:
                    break
                start = max(start, end)
        offsets[key] = start
        insort(placed, (start, start + size, first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


def _in_order_of_use(spans: Mapping[Any, tuple[int, int, int]]) -> tuple[dict[Any, int], int]:
    """Each in the smallest gap that is left when its use begins; gaps side by side are one."""
    offsets: dict[Any, int] = {}
    in_use: list[tuple[int, int, int]] = []  # last unit, start and end, the first to go on top
    gaps: list[tuple[int, int]] = []  # size and start, the smallest first
    ends: dict[int, int] = {}  # of the gaps, by their starts
    starts: dict[int, int] = {}  # and by their ends
    top = 0

    def remove(start: int) -> int:
        end = ends.pop(start)
        del starts[end]
        gaps.pop(bisect_left(gaps, (end - start, start)))
        return end

    def add(start: int, end: int) -> None:
        if end in ends:
            end = remove(end)
        if start in starts:
            start = starts[start]
            remove(start)
        ends[start], starts[end] = end, start
        insort(gaps, (end - start, start))

    for key, (size, first, last) in sorted(
        spans.items(), key=lambda item: (item[1][1], -item[1][0])
    ):
        while in_use and in_use[0][0] < first:
            _, start, end = heappop(in_use)
            add(start, end)
        at = bisect_left(gaps, (size, 0))
        if at < len(gaps):
            start = gaps[at][1]
            end = remove(start)
            if start + size < end:
                add(start + size, end)
        else:  # the last gap grows, if there is one at the top
            start = starts.get(top, top)
            if start != top:
                remove(start)
            top = start + size
        offsets[key] = start
        heappush(in_use, (last, start, start + size))
    return offsets, top


def traffic_of(schedule: Schedule, between: Callable[[Call], bool] | None = None) -> list[int]:
    """The bytes that each stretch between calls, and each call, reads and writes in memory.

    What a unit reads twice counts once; what stays in registers does not count; an update counts
    twice. between: whether a call is no part of a stretch; all are not if ``None``.
    """
    found: list[int] = []
    in_stretch = False
    for unit in schedule.units:
        read = {(v.storage, min(v.size, v.storage.size)) for v in unit.reads()}
        written: set[tuple[Storage, int]] = set()
        if isinstance(unit, Nest):
            written = {(m.out.storage, m.out.size) for m in unit.stored}
        else:
            written = {(v.storage, v.size) for v in outputs_of(unit.operation)}
        op = None if isinstance(unit, Nest) else unit.operation
        is_call = type(op) is Call and (between is None or between(op))
        if is_call or not in_stretch:
            found.append(0)
        in_stretch = not is_call
        found[-1] += sum(size * s.dtype.itemsize for s, size in (*read, *written))
    return found


@dataclass(eq=False, slots=True)
class External:
    """A value from outside the program, and the array that it is now.

    mirror: what the program works on in place of that array, if the array does not lie as the one
        of the capture did: it is filled before each replay.
    """

    value: Value
    array: Any = None
    mirror: Any = None


class ArenaExecutor:
    """A program whose values lie where ``memory`` says."""

    #: how many references to a gradient's array there are while nobody else keeps it
    references = 3

    def __init__(self, program: Program, views: dict[Value, View], xp: Any) -> None:
        self.program = program
        self.reason = ""
        self._views = views
        self._xp = xp
        self._seen = {views[v].storage for v in program.kept()}
        self.memory: dict[Storage, Any] = {}
        #: what each gradient is, and an array that shows it unless it may lie elsewhere next time
        self._gradients: list[tuple[Value, Any] | None] = []
        self._gradient_of: dict[int, int] = {}  # id of such an array -> its number
        #: memory that gradients had before, with the array that showed it
        self._spares: dict[Storage, tuple[Any, Any]] = {}
        self._externals = [External(v) for v in program.values() if v.role == "external"]
        self._mirrored: list[External] = []
        updated = program.updates()
        self._updated = [e for e in self._externals if e.value in updated]
        self._updated_arrays: list[Any] = []
        for e in self._externals:
            self._bind(e, e.value.array)
        self._note_places()

    # --- what lies outside ------------------------------------------------------------------------

    def _fetched(self) -> bool:
        """Take the arrays that external values are now; whether one is another than before."""
        moved = False
        added_to = []
        for e in self._externals:
            assert e.value.fetch is not None
            array = e.value.fetch()
            if array is not e.array:
                moved = True
                self._bind(e, array)
                if id(array) in self._gradient_of:
                    added_to.append(self._gradient_of[id(array)])
        if moved:
            self._note_places()
        if added_to:  # the old gradient is an input: the new one must lie elsewhere
            self._alternate(added_to)
        for e in self._mirrored:
            e.mirror[...] = e.array
        return moved

    def _bind(self, e: External, array: Any) -> None:
        v = e.value
        if array.shape != v.shape or not _same_kind(array.dtype, v.dtype):
            raise CompileError(
                f"a tensor from outside must keep its shape {v.shape} and dtype {v.dtype}; now it "
                f"has {array.shape} and {array.dtype}. Pass it as an argument, or compile the "
                "function anew"
            )
        view = self._views[v]
        e.array, e.mirror = array, None
        if (
            is_plain(array)
            and array.dtype == v.dtype
            and (not array.size or extent_of(array)[0] == view.strides)
        ):
            self.memory[view.storage] = _flat(self._xp, array)
        else:
            self.memory[view.storage] = self._xp.empty(view.storage.size, v.dtype)
            e.mirror = self._array(view)

    def _note_places(self) -> None:
        self._mirrored = [e for e in self._externals if e.mirror is not None]
        self._updated_arrays = [e.array for e in self._updated]

    def _finish(self, done: bool) -> None:
        """Tell of what was overwritten outside, and let go of gradients from before.

        done: whether the program came to its end; else nothing was overwritten.
        """
        if done:
            for e in self._mirrored:
                if e in self._updated:
                    e.array[...] = e.mirror
            if self._updated:
                increment_versions(self._updated_arrays)
        for e in self._externals:
            if e.value.label == "gradient":
                e.array = e.mirror = None
                self.memory.pop(self._views[e.value].storage, None)

    # --- what is seen -----------------------------------------------------------------------------

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
        self._number_gradients()

    def _number_gradients(self) -> None:
        self._gradient_of = {id(e[1]): k for k, e in enumerate(self._gradients) if e is not None}

    def _move(self, storages: set[Storage]) -> None:
        """Give temporary values that are kept other memory.

        The arrays of all others stay the same objects: whether somebody keeps one is asked of them.
        """
        for s in storages:
            self._put(s, self._new_memory(s))
        self._gradients = self._shown_anew(self._gradients, storages)
        self._number_gradients()

    def _shown_anew(self, entries: Sequence[Any], storages: set[Storage]) -> list[Any]:
        return [
            e if e is None or self._views[e[0]].storage not in storages else self._shown(e[0])
            for e in entries
        ]

    def _new_memory(self, storage: Storage) -> Any:
        raise NotImplementedError

    def _put(self, storage: Storage, memory: Any) -> None:
        """Let ``storage`` lie in ``memory`` from here on."""
        self.memory[storage] = memory

    def _alternate(self, numbers: Sequence[int]) -> None:
        """Let gradients change places with the memory that they had before, where that is free."""
        seen = [*self.program.results, *[v for _, v in self.program.gradients if v is not None]]
        count = Counter(self._views[v].storage for v in seen)
        others = set()
        for number in numbers:
            v, array = self._gradients[number]  # type: ignore[misc]
            storage = self._views[v].storage
            spare = self._spares.get(storage)
            self._spares[storage] = self.memory[storage], array
            # Nobody keeps the spare one, or there would have been a call of ``renew``.
            if spare is not None and count[storage] == 1:
                self._put(storage, spare[0])
                self._gradients[number] = v, spare[1]
            else:
                others.add(storage)
        self._move(others)

    def show(self, arrays: Mapping[Value, Any], piece: Piece) -> dict[Value, list[Range]]:
        """See Executor; it cannot show anything."""
        return {}

    def show_no_more(self) -> None:
        """See Executor."""

    def rest(self) -> None:
        """See Executor; it keeps its memory."""

    def renew(self, *numbers: int) -> None:
        """Give these gradients other memory: somebody holds on to the one they have."""
        entries = [e for k in numbers if (e := self._gradients[k]) is not None]
        storages = {self._views[v].storage for v, _ in entries}
        self._move({s for s in storages if s.role == "temporary"})

    def _call(self, op: Call) -> Callable[[], int]:
        """A primitive called on arrays that show the program's memory."""
        i = op.instruction
        overwrites = bool(i.written)
        first = i.outputs[0]
        # What it overwrites outside lies in place; of what the step made a new value is made.
        fresh = [
            (k, view)
            for k, view in zip(i.written, op.outputs[len(op.outputs) - len(i.written) :])
            if view.storage is not op.inputs[k].storage
        ]

        def call() -> int:
            arrays = [self._array(x) if isinstance(x, View) else x for x in op.inputs]
            for k, view in fresh:
                copied = self._array(view)
                copied[...] = arrays[k]
                arrays[k] = copied
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


def _same_kind(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    """Whether two element types differ in nothing but the order of the bytes."""
    return a == b or a.newbyteorder("=") == b.newbyteorder("=")


def _flat(xp: Any, array: Any) -> Any:
    """The memory that ``array`` spans, from its lowest address, as an array of one axis."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    corner = array[tuple(slice(-1, None) if s < 0 else slice(0, 1) for s in array.strides)]
    _, size, _ = extent_of(array)
    return xp.lib.stride_tricks.as_strided(corner, (size,), (array.itemsize,))


def packed(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """``array``, copied unless its elements lie side by side, aligned, in this machine's order."""
    if array.flags.c_contiguous and array.flags.aligned and array.dtype == dtype:
        return array
    return np.array(array, dtype, order="C")


def as_signed(value: Any) -> Any:
    """A number for a slot of 64 bits: a key without a sign becomes the same bits with one."""
    return value if value < 1 << 63 else value - (1 << 64)
