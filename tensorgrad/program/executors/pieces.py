"""Work of a native program that is done piece by piece under somebody's eyes.

A nest whose work is shared out among threads calls ``tg_run`` with a function that does a part of
it. While a program is shown another function takes the place of that one, in Python: for nests that
overwrite what lies outside it hands over each part, and somebody looks at what is there before and
after.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Container, Iterable, Mapping

from tensorgrad.program import pool
from tensorgrad.program.ir import Piece, Range, Value
from tensorgrad.program.loop_ir import (
    POINT,
    Call,
    Routine,
    Scatter,
    Storage,
    View,
    outputs_of,
    strides_of,
)
from tensorgrad.program.schedule import Nest, Schedule, Unit

_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)
_Run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)

#: What a nest overwrites outside: the value, where its elements begin there, and how many belong
#: to one step of the nest's loop.
Written = list[tuple[Value, int, int]]


def shown_nests(
    schedule: Schedule, shared: Mapping[int, tuple[Nest, int]], values: Mapping[Storage, Value]
) -> dict[int, Written]:
    """The nests that can be shown, by the number of their first place, and what they overwrite.

    shared: nests whose work is shared out, with the number of elements of one step. values: those
        from outside that may be looked at, whose elements lie in row-major order.

    The elements are overwritten by one nest only, and no later unit looks at them.
    """
    found: dict[int, Written] = {}
    uses = _uses(schedule, values) if shared else {}
    for at, (nest, step) in shared.items():
        outside = [m for m in nest.stored if m.out.storage.role != "temporary"]
        written: Written = []
        for m in outside:
            view, v = m.out, values.get(m.out.storage)
            in_order = nest.access(view, POINT)[2] == strides_of(nest.dims)
            if v is None or nest.level[m] != POINT or not in_order:
                break
            if not _is_alone(nest, view, uses[view.storage]):
                break
            written.append((v, view.offset, step))
        if written and len(written) == len(outside):
            found[at] = written
    return found


#: Who uses elements of a storage: the number of the unit, the unit, the first element and that
#: after the last, and whether it writes.
_Use = tuple[int, Unit, int, int, bool]


def _uses(schedule: Schedule, storages: Container[Storage]) -> dict[Storage, list[_Use]]:
    found: dict[Storage, list[_Use]] = {}
    for number, unit in enumerate(schedule.units):
        for views, writes in ((_read(unit), False), (_written(unit), True)):
            for view, first, last in views:
                if view.storage in storages:
                    use = (number, unit, first, last, writes)
                    found.setdefault(view.storage, []).append(use)
    return found


def _is_alone(nest: Nest, view: View, uses: list[_Use]) -> bool:
    """Whether nobody else writes what a nest writes through ``view``, or reads it afterwards."""
    begin, end = _span(view)
    own = next(number for number, unit, *_ in uses if unit is nest)
    writers = 0
    for number, unit, first, last, writes in uses:
        if last <= begin or end <= first:
            continue
        writers += writes
        if number > own:
            return False
        if unit is nest and not writes and (first, last) != (begin, end):
            return False
    return writers == 1


def _span(view: View) -> Range:
    steps = [(n - 1) * s for n, s in zip(view.shape, view.strides)]
    return (
        view.offset + sum(s for s in steps if s < 0),
        view.offset + sum(s for s in steps if s > 0) + 1,
    )


def _read(unit: Unit) -> Iterable[tuple[View, int, int]]:
    """What a unit reads, and where that lies; all of what it reads by number."""
    if isinstance(unit, Nest):
        tables = {view for m in unit.members for view in m.tables}
        for view in unit.reads():
            span = (0, view.storage.size) if view in tables else _span(view)
            yield view, *span
        return
    for view in unit.reads():
        anywhere = type(unit.operation) in (Scatter, Call, Routine)
        span = (0, view.storage.size) if anywhere else _span(view)
        yield view, *span


def _written(unit: Unit) -> Iterable[tuple[View, int, int]]:
    if isinstance(unit, Nest):
        for m in unit.stored:
            yield m.out, *_span(m.out)
        return
    for view in outputs_of(unit.operation):
        yield view, 0, view.storage.size


class Showing:
    """Hands over the pieces of nests.

    table: the address of the table of addresses.
    """

    def __init__(self, nests: Mapping[int, Written], table: int, piece: Piece) -> None:
        self._nests = nests
        self._table = table
        self._piece = piece

    def run(self, task: int, table: int, size: int, piece: int) -> bool:
        """Do the work of a unit whose operands are there in the table, if it is one of the nests.

        task: the address of a function that does a part of it.
        """
        written = self._nests.get((table - self._table) // ctypes.sizeof(ctypes.c_void_p))
        if written is None:
            return False
        part = _Task(task)
        for begin in range(0, size, piece):
            end = min(begin + piece, size)
            parts = [(v, at + begin * step, at + end * step) for v, at, step in written]
            self._piece(functools.partial(part, table, begin, end), parts)
        return True


_showing = threading.local()


def show(showing: Showing | None) -> None:
    """Let this thread's work go through it; ``None`` for as usual."""
    _showing.now = showing


@functools.cache
def _usual() -> Callable[..., None]:
    address = ctypes.cast(pool.library().tg_run, ctypes.c_void_p).value
    assert address is not None
    return _Run(address)


def _run(task: int, table: int, size: int, piece: int) -> None:
    showing: Showing | None = getattr(_showing, "now", None)
    if showing is None or not showing.run(task, table, size, piece):
        _usual()(task, table, size, piece)


#: What takes the place of ``tg_run``, also for other threads that run the same library.
RUN_SHOWN = _Run(_run)
