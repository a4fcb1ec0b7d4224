"""Stretches of a program in which rows know nothing of each other, as the steps of a recurrence.

Every unit of a region computes some rows of its results from the same rows of what the others made,
and from whatever was there before. So a thread takes its rows through all of them, without waiting
for others, and finds what it has just written in its own cache. Since threads are then at different
units at one time, memory is shared within a region only by values whose rows lie alike.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensorgrad.program.loop_ir import EPILOGUE, POINT, Map, Routine, Storage, View
from tensorgrad.program.schedule import Nest, Unit, level_read

# The fewest rows, how many of them one thread takes at a time, and the most such pieces.
_ROWS = 16
_PIECE = 8
_PIECES = 64
# The fewest units, and the least work in additions.
_UNITS = 3
_WORK = 1 << 18

#: What a unit reads or writes: a view's storage and offset, and (size, stride) of each axis, rows
#: first; no axes where it may read anywhere.
_Access = tuple[Storage, int, tuple[tuple[int, int], ...]]

#: The bytes of a piece of memory, and the first and the last unit that use it.
Span = tuple[int, int, int]


@dataclass(eq=False, slots=True)
class Region:
    """The units [start, end) of a schedule, all over ``rows`` rows, of which ``piece`` are a part.

    written: the storages that they write, and how far apart rows lie in each.
    """

    start: int
    end: int
    rows: int
    piece: int = 0
    work: int = 0
    written: dict[Storage, int] = field(default_factory=dict)
    #: what is read as rows so far apart; 0 where it is read otherwise
    read: dict[Storage, int] = field(default_factory=dict)


def regions_of(units: Sequence[Unit]) -> list[Region]:
    """The regions among these units, in order."""
    found: list[Region] = []
    region = Region(0, 0, 0)
    for at, unit in enumerate(units):
        rows = _rows_of(unit)
        if not rows or rows != region.rows or not _joins(region, unit):
            found.append(region)
            region = Region(at, at, rows)
            if rows and not _joins(region, unit):
                region.rows = 0
        region.end = at + 1
    found.append(region)
    found = [r for r in found if r.rows >= _ROWS and r.end - r.start >= _UNITS and r.work >= _WORK]
    for r in found:
        r.piece = max(_PIECE, -(-r.rows // (_PIECES * _PIECE)) * _PIECE)
    return found


def _rows_of(unit: Unit) -> int:
    """The rows of which a unit computes each on its own; 0 if it does not."""
    if isinstance(unit, Nest):
        return 0 if EPILOGUE in unit.level.values() else unit.dims[0]
    op = unit.operation
    return op.size if type(op) is Routine and op.by_rows is not None else 0


def _joins(region: Region, unit: Unit) -> bool:
    """Whether ``unit`` can be one of a region, and let it be."""
    reads, writes, work = _accesses(unit)
    read, written = dict(region.read), dict(region.written)
    for access in writes:
        storage, step = access[0], _row_step(access, region.rows)
        if not step or read.get(storage, step) != step:
            return False
        if written.setdefault(storage, step) != step:
            return False
    for access in reads:
        storage, step = access[0], _row_step(access, region.rows)
        if written.get(storage, step) != step:
            return False
        read[storage] = step if read.get(storage, step) == step else 0
    region.read, region.written = read, written
    region.work += work
    return True


def _accesses(unit: Unit) -> tuple[list[_Access], list[_Access], int]:
    """What a unit reads and writes, and about how many additions it takes."""
    if not isinstance(unit, Nest):
        op = unit.operation
        assert type(op) is Routine
        assert op.by_rows is not None
        own = {op.inputs[k] for k in op.by_rows}
        reads = [_whole(view) if view in own else _anywhere(view) for view in op.inputs]
        return reads, [_whole(view) for view in op.outputs], op.cost
    reads, writes, work = [], [], 0
    for m in unit.members:
        level = level_read(unit, m, unit.level[m])
        for view, source in zip(m.views, unit.sources[m], strict=True):
            if source is None:
                reads.append(_of_nest(unit, view, level))
        if type(m) is Map:
            reads += map(_anywhere, m.tables)
        if m in unit.stored:
            writes.append(_of_nest(unit, m.out, unit.level[m]))
        work += m.cost if type(m) is Map else 1
    return reads, writes, work * math.prod(unit.dims)


def _whole(view: View) -> _Access:
    return view.storage, view.offset, tuple(zip(view.shape, view.strides))


def _anywhere(view: View) -> _Access:
    return view.storage, 0, ()


def _of_nest(nest: Nest, view: View, level: str) -> _Access:
    _, offset, strides = nest.access(view, level)
    sizes = nest.dims if level == POINT else (*nest.dims[:-1], 1)
    return view.storage, offset, tuple(zip(sizes, strides, strict=True))


def _row_step(access: _Access, rows: int) -> int:
    """How far apart rows lie in the storage; 0 if it is not seen that a view's row r is part of
    the storage's: of what lies between r and r + 1 steps, and again after each ``rows`` steps.
    """
    _, offset, axes = access
    if not axes or axes[0][0] != rows:
        return 0
    step = axes[0][1]
    if step <= 0 or offset // step % rows:
        return 0
    reach = offset % step
    for n, s in axes[1:]:
        if n == 1 or not s % (rows * step):
            continue
        if s < 0:
            return 0
        reach += (n - 1) * s
    return step if reach < step else 0


def shared_pieces(
    regions: Sequence[Region], spans: Mapping[Storage, Span]
) -> tuple[dict[object, Span], dict[Storage, object]]:
    """The pieces of memory that are needed when regions run as one, and the piece of each storage.

    spans: of each storage when units run one after the other. Within a region storages of equal
    size and with equal rows share a piece one after the other: no thread sees other rows of it.
    """
    starts = [r.start for r in regions]
    found: dict[object, Span] = {}
    piece_of: dict[Storage, object] = {}
    taken: dict[tuple[int, int, int], list[tuple[int, object]]] = {}  # until when, and what

    def region_at(unit: int) -> int:
        k = bisect_right(starts, unit) - 1
        return k if k >= 0 and unit < regions[k].end else -1

    for storage, (size, first, last) in sorted(spans.items(), key=lambda item: item[1][1]):
        a, b = region_at(first), region_at(last)
        piece: object = storage
        if a == b >= 0 and storage in regions[a].written:
            key = a, size, regions[a].written[storage] * storage.dtype.itemsize
            pieces = taken.setdefault(key, [])
            k = next((k for k, (until, _) in enumerate(pieces) if until < first), None)
            if k is not None:
                _, piece = pieces.pop(k)
            pieces.append((last, piece))
        start = first if a < 0 else regions[a].start
        found[piece] = size, start, last if b < 0 else regions[b].end - 1
        piece_of[storage] = piece
    return found, piece_of
