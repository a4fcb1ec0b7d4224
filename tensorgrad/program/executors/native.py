"""The native executor: a whole program as C, built by the system's compiler and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from time import perf_counter
from typing import Any

import numpy as np

from tensorgrad.errors import CompileError
from tensorgrad.program import pool
from tensorgrad.program.arena import (
    ArenaExecutor,
    arena_plan,
    as_signed,
    lifetimes,
    packed,
    reuse,
    traffic_of,
)
from tensorgrad.program.blas import blas
from tensorgrad.program.compiler import NONE_FOUND, build, compiler
from tensorgrad.program.epilogues import with_epilogues
from tensorgrad.program.executors import c_products, c_source, pieces
from tensorgrad.program.executors.base import FastRun, UnavailableError
from tensorgrad.program.forks import GATE
from tensorgrad.program.ir import Piece, Program, Range, Value
from tensorgrad.program.loop_ir import Call, Map, Product, Routine, Scan, Scatter, Storage
from tensorgrad.program.lower import Lowering
from tensorgrad.program.packing import with_packed_factors
from tensorgrad.program.placement import placed
from tensorgrad.program.regions import regions_of, shared_pieces
from tensorgrad.program.schedule import Nest, Schedule, Single

# Bytes up to which copying an argument is quicker than asking NumPy for its address.
_COPIED = 1 << 14


# --- memory ---------------------------------------------------------------------------------------


def aligned(size: int) -> np.ndarray[Any, Any]:
    """Bytes that begin at a multiple of 64."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class AddressTable:
    """The addresses that C takes: a place for each operand of each unit.

    places: for each the storage, and the distance from its beginning in bytes.
    """

    def __init__(self, places: Sequence[tuple[Storage | None, int]]) -> None:
        self._numbers: dict[Storage | None, int] = {}
        of = [self._numbers.setdefault(s, len(self._numbers)) for s, _ in places]
        self._of = np.array(of, np.intp)
        self._distances = np.array([distance for _, distance in places], np.intp)
        self._addresses = np.zeros(len(places), np.intp)
        #: where they lie
        self.address = self._addresses.ctypes.data
        self._by_storage = np.argsort(self._of, kind="stable")
        ends = np.cumsum(np.bincount(self._of, minlength=len(self._numbers)))
        self._ends = [0, *ends.tolist()]

    def fill(
        self, memory: Mapping[Storage, np.ndarray[Any, Any]], room: np.ndarray[Any, Any]
    ) -> None:
        """Let all storages that are there lie in this memory, and partial results in ``room``."""
        arrays = [room if s is None else memory.get(s) for s in self._numbers]
        first = [0 if array is None else array.ctypes.data for array in arrays]
        np.add(np.array(first, np.intp)[self._of], self._distances, out=self._addresses)

    def put(self, storage: Storage, memory: np.ndarray[Any, Any]) -> None:
        """Let ``storage`` lie in ``memory`` from here on."""
        if storage in self._numbers:
            at = self._places(storage)
            self._addresses[at] = self._distances[at] + memory.ctypes.data

    def places_of(self, storage: Storage) -> list[tuple[int, int]]:
        """The addresses of its places, and the distances that are added there."""
        if storage not in self._numbers:
            return []
        places, size = self._places(storage).tolist(), self._addresses.itemsize
        return [(self.address + k * size, int(self._distances[k])) for k in places]

    def _places(self, storage: Storage) -> np.ndarray[Any, Any]:
        number = self._numbers[storage]
        return self._by_storage[self._ends[number] : self._ends[number + 1]]


# --- the executor ---------------------------------------------------------------------------------


# A program of less work than this, in additions, holds the interpreter's lock in the fast call: it
# is over before much else could be done, and waits for no turn.
_SHORT = 2_000_000


class NativeExecutor(ArenaExecutor):
    """Runs a program as one C call for each stretch between calls of primitives."""

    name = "native"
    language = "c"
    failures: tuple[type[Exception], ...] = (CompileError,)

    def __init__(self, program: Program) -> None:
        if compiler() is None:
            raise UnavailableError(NONE_FOUND)
        if program.aliased:
            raise CompileError("memory that is seen through several views is overwritten")
        lowering = Lowering(program)
        super().__init__(program, lowering.views, np)
        operations = placed(lowering.operations, self._seen)
        operations = with_packed_factors(operations, lowering.new)
        operations = with_epilogues(operations, self._seen)
        self.schedule = Schedule(operations, self._seen)
        self._blas = blas()
        if self._blas is None and any(
            type(u) is Single
            and type(u.operation) is Product
            and not c_products.is_small(u.operation)
            for u in self.schedule.units
        ):
            raise CompileError(
                "no BLAS was found (neither the OpenBLAS of NumPy's wheels nor MKL's wheel), and "
                "products are too large without one"
            )
        self.threads = pool.threads()
        self.regions = regions_of(self.schedule.units) if self.threads > 1 else []
        self.source = c_source.write(self.schedule, self.threads, self.regions)
        segments = [f"segment{step}" for step in self.source.steps if type(step) is int]
        library = build(self.source.text, ["tg_link", *segments])
        helpers = pool.library()
        helpers.tg_start(self.threads - 1)
        products = [self._blas.sgemm, self._blas.dgemm] if self._blas else [None, None]
        self._library = library
        self._link = functools.partial(library.tg_link, *products)
        self._link(helpers.tg_run, helpers.tg_rows)
        self._scalars = [
            (s.instruction.live, s.name, np.zeros((), s.out.dtype), s.out.storage)
            for s in lowering.scalars
            if s.instruction.live is not None
        ]
        self._prepare()
        self._lay_out()
        self._calls = [
            self._segment(step) if type(step) is int else self._call(step)  # type: ignore[arg-type]
            for step in self.source.steps
        ]
        #: seconds that each took the last time that the program did not take the fast call
        self._times = [0.0] * len(self._calls)
        # NumPy's own instance has threads, which must not wait for each other inside of ours.
        shared = self._blas is not None and not self._blas.own
        has_products = "gemm" in self.source.text
        self._quiet = self._blas if shared and has_products else None
        #: whether a fork in the middle could leave locks of a BLAS locked in the child
        self._leaves_locks = has_products or any(type(s) is not int for s in self.source.steps)

    def _prepare(self) -> None:
        """Find places for temporary values in one arena, and memory for what is always the same."""
        spans = lifetimes([[unit] for unit in self.schedule.units], self._seen)
        parts, part_of = shared_pieces(self.regions, spans)
        reuse(self.schedule.units, parts, part_of)
        offsets, self.arena_bytes = arena_plan(parts)
        self._offsets = {s: offsets[part_of[s]] for s in spans}
        for _, _, buffer, s in self._scalars:
            self.memory[s] = buffer
        for v in self.program.values():
            view = self._views[v]
            if v.role == "constant":
                self.memory[view.storage] = np.ascontiguousarray(v.array)
        self._small: list[tuple[int, np.ndarray[Any, Any]]] = []
        self._large: list[tuple[int, Storage]] = []
        for k, v in enumerate(self.program.arguments):
            storage = self._views[v].storage
            if storage.nbytes <= _COPIED:
                buffer = np.zeros(v.shape, v.dtype)
                self.memory[storage] = buffer
                self._small.append((k, buffer))
            else:
                self._large.append((k, storage))
        self._room = aligned(self.source.room)
        self._table = AddressTable(self.source.places)
        if any(v.role == "argument" for v in self.program.updates()):
            raise CompileError("an argument is overwritten")

    def _lay_out(self) -> None:
        """Take memory for what is computed, and fill the table of addresses."""
        arena = aligned(self.arena_bytes)
        for s, start in self._offsets.items():
            self.memory[s] = arena[start : start + s.nbytes].view(s.dtype)
        for s in self._seen:
            if s.role == "temporary":
                self.memory[s] = aligned(s.nbytes).view(s.dtype)
        self._table.fill(self.memory, self._room)
        self._bind_outputs()
        self._rests = False

    def rest(self) -> None:
        """See Executor."""
        for s in [*self._offsets, *(s for s in self._seen if s.role == "temporary")]:
            self.memory.pop(s, None)
        self._results: list[Any] = []
        self._gradients, self._spares = [], {}
        self._number_gradients()
        self._rests = True

    def _bind_outputs(self) -> None:
        """Arrays that show results and gradients; ``None`` for what may lie elsewhere next time."""
        self._results = [self._shown(v) for v in self.program.results]
        super()._bind_outputs()
        shown = [*self._results, *[e for e in self._gradients if e is not None]]
        storages = [self._views[v].storage for v, _ in shown]
        #: results that are handed out as they lie, being large and nobody else's
        self.direct = [
            array is not None
            and array.nbytes > _COPIED
            and array.flags.c_contiguous
            and storages.count(self._views[v].storage) == 1
            for v, array in self._results
        ]

    def _move(self, storages: set[Storage]) -> None:
        """See ArenaExecutor."""
        super()._move(storages)
        self._results = self._shown_anew(self._results, storages)

    def _new_memory(self, storage: Storage) -> np.ndarray[Any, Any]:
        return aligned(storage.nbytes).view(storage.dtype)

    def _put(self, storage: Storage, memory: np.ndarray[Any, Any]) -> None:
        super()._put(storage, memory)
        self._table.put(storage, memory)

    def _segment(self, number: int) -> Callable[[], int]:
        function = getattr(self._library, f"segment{number}")
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_void_p]
        return functools.partial(function, self._table.address)

    def show(self, arrays: Mapping[Value, Any], piece: Piece) -> dict[Value, list[Range]]:
        """See Executor."""
        alike = {self._views[v].storage: v for v, a in arrays.items() if self._lies_as_before(v, a)}
        nests = pieces.shown_nests(self.schedule, self.source.shared, alike)
        if not nests:
            return {}
        pieces.show(pieces.Showing(nests, self._table.address, piece))
        self._link(pieces.RUN_SHOWN, pool.library().tg_rows)
        found: dict[Value, list[Range]] = {}
        for at, written in nests.items():
            size = math.prod(self.source.shared[at][0].dims)
            for v, begin, _ in written:
                found.setdefault(v, []).append((begin, begin + size))
        return found

    def _lies_as_before(self, v: Value, array: Any) -> bool:
        """Whether the program works on the very array, and not on a copy."""
        strides = tuple(s // array.itemsize for s in array.strides)
        return array.dtype == v.dtype and strides == self._views[v].strides

    def show_no_more(self) -> None:
        """See Executor."""
        pieces.show(None)
        self._link(pool.library().tg_run, pool.library().tg_rows)

    @staticmethod
    def fits(on_host: bool) -> bool:
        """See Executor."""
        return on_host

    @property
    def text(self) -> str:
        """See Executor."""
        return self.source.text

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, which are the caller's, and the gradients, which the next replay overwrites.

        Whoever keeps a gradient calls ``renew`` before the next replay. Where it fails, nothing
        that somebody sees has changed.
        """
        if not self._leaves_locks:
            return self._run(arguments)
        with GATE:
            return self._run(arguments)

    def _run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        if self._rests:
            self._lay_out()
        if self._fetched():
            for e in self._externals:
                storage = self._views[e.value].storage
                self._table.put(storage, self.memory[storage])
        # The array is referred to by the list of results, and by the question. Whoever else refers
        # to it keeps what the last replay put there.
        kept = {
            self._views[self._results[k][0]].storage
            for k, direct in enumerate(self.direct)
            if direct and getrefcount(self._results[k][1]) > 2
        }
        if kept:
            self._move(kept)
        for k, buffer in self._small:
            buffer[...] = arguments[k]
        for k, storage in self._large:
            array = self.memory[storage] = packed(arguments[k], storage.dtype)
            self._table.put(storage, array)
        for live, name, buffer, _ in self._scalars:
            buffer[()] = as_signed(live()[name])
        saved = [(s, self.memory[s].copy()) for s in self.schedule.at_risk if s in self.memory]
        done = False
        quiet = self._quiet
        if quiet is not None:
            before = quiet.get_threads()
            if before != 1:
                quiet.set_threads(1)
        try:
            for k, call in enumerate(self._calls):
                start = perf_counter()
                failed = call()
                self._times[k] = perf_counter() - start
                if failed:
                    self._complain(failed)
            done = True
            results = [
                self._array(self._views[v]).copy()
                if array is None
                else array
                if direct
                else array.copy()
                for (v, array), direct in zip(self._results, self.direct)
            ]
            return results, [None if e is None else self._gradient(*e) for e in self._gradients]
        finally:
            if quiet is not None and before != 1:
                quiet.set_threads(before)
            if not done:
                for s, numbers in saved:
                    self.memory[s][...] = numbers
            self._finish(done)
            for _, storage in self._large:  # arguments are the caller's
                del self.memory[storage]

    def _complain(self, number: int) -> None:
        check = self.source.checks[number - 1]
        labels = self._array(check.labels).reshape(-1)
        bad = (labels < check.low) | (labels >= check.high)
        place = int(np.argmax(bad))
        if check.axis is not None:
            raise IndexError(
                f"index {labels[place]} is out of bounds for axis {check.axis} with size "
                f"{check.high}"
            )
        raise IndexError(
            f"a label must lie between 0 and {check.high - 1}, the number of classes being "
            f"{check.high}; label number {place} is {labels[place]}"
        )

    def fast_run(self) -> FastRun | None:
        """See Executor; for programs that run without calls."""
        if self._mirrored or self.schedule.at_risk:  # they have to be filled, or saved
            return None
        if any(self.direct):  # they would have to be watched
            return None
        if not all(type(step) is int for step in self.source.steps):
            return None
        if any(v.label == "gradient" for v in self.program.values()):
            return None  # gradients are added to, which then lie elsewhere every time
        results = [array for _, array in self._results]
        if any(array is None for array in results):
            return None
        quiet = self._quiet
        segments = [getattr(self._library, f"segment{number}") for number in self.source.steps]
        return FastRun(
            scalars=[(live, name, buffer) for live, name, buffer, _ in self._scalars],
            copied=dict(self._small),
            placed={k: self._table.places_of(storage) for k, storage in self._large},
            results=results,
            overwritten=self._updated_arrays,
            segments=[_address(function) for function in segments],
            table=self._table.address,
            threads=(_address(quiet.set_threads), _address(quiet.get_threads)) if quiet else (0, 0),
            long=self._work() >= _SHORT,
        )

    def _work(self) -> int:
        """About how many additions a replay takes."""
        work = 0
        for unit in self.schedule.units:
            if isinstance(unit, Nest):
                costs = (m.cost if type(m) is Map else 1 for m in unit.members)
                work += math.prod(unit.dims) * sum(costs)
            elif isinstance(unit.operation, Product):
                work += math.prod(c_products.product_of(unit.operation)) // 8
            elif isinstance(unit.operation, Scatter | Scan):
                work += 4 * unit.operation.views[-1].size
            elif isinstance(unit.operation, Routine):
                work += unit.operation.cost
        return work

    def lines(self) -> list[str]:
        """What ran where, for the report."""
        found = []
        traffic = iter(traffic_of(self.schedule))
        for step, seconds in zip(self.source.steps, self._times):
            took = f"{next(traffic):,} bytes, {seconds * 1e6:,.1f} us"
            if type(step) is int:
                parts = "; ".join(self.source.parts[step])
                found.append(f"segment {step}: {parts}; {took}")
            else:
                assert isinstance(step, Call)
                op = step.instruction.op.name
                found.append(f"call {op}: {step.reason} ({step.where}); {took}")
        found.append(f"arena {self.arena_bytes} bytes, {self.threads} threads")
        if self._blas is not None:
            found.append(f"products by {self._blas.title}")
        return found


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
