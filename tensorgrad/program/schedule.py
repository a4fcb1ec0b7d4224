"""Scheduling: operations become units, each a loop nest, or one operation on its own.

Those are matrix products, scatters, scans, checks and calls.

A nest runs over a space of one or more axes, the last of which is its inner loop. What it computes
is of one of four levels: POINT (a number at every point), ROW (one for each row, such as a sum over
the last axis), or EPILOGUE (known only when the nest is done: sums over everything, or over all
axes but the last). An operation joins the first nest, at or after all it depends on, in which it
can read what was computed there from a register. Units never move, so no cycle can arise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from tensorgrad.program.ir import exact
from tensorgrad.program.loop_ir import (
    EPILOGUE,
    POINT,
    ROW,
    Alone,
    Call,
    Check,
    Map,
    Operation,
    Reduce,
    Scatter,
    Storage,
    View,
    outputs_of,
)
from tensorgrad.program.placement import disjoint, written_once
from tensorgrad.program.recompute import Recomputation
from tensorgrad.program.repeats import cuts

# Cost of the members of one nest, and how many: compilers take more than linear time for long
# functions.
LARGEST, _MEMBERS = 2048, 512
# How many operations are looked at to find out where what they compute is of use.
_AHEAD = 6
# Parts of one storage that one nest writes: each new one is compared with all.
_COMPARED = 128
# Cost of a part of a nest that is cut, each member counting as two more for reading and writing.
_PART = 768
# Members between two that count as being far from each other.
_FAR = 48

#: Where an operand lies as seen from a nest: its storage, offset, and a stride for each axis.
Access = tuple[int, int, tuple[int, ...]]


@dataclass(eq=False, slots=True)
class Nest:
    """A loop nest over ``dims`` (without axes of size 1, but at least one)."""

    dims: tuple[int, ...]
    members: list[Map | Reduce] = field(default_factory=list)
    cost: int = 0
    level: dict[Map | Reduce, str] = field(default_factory=dict)
    registers: dict[Access, Map | Reduce] = field(default_factory=dict)
    made: dict[Storage, Map | Reduce] = field(default_factory=dict)
    stored: set[Map | Reduce] = field(default_factory=set)
    #: of storages that are written in parts: the parts that members write, and whether any reads
    parts: dict[Storage, list[View]] = field(default_factory=dict)
    read_in_parts: set[Storage] = field(default_factory=set)
    #: for each operand of a member: the member that computes it, or ``None`` if it is in memory
    sources: dict[Map | Reduce, list[Map | Reduce | None]] = field(default_factory=dict)
    #: memory from outside that members overwrite: where the last of them does so
    written: dict[Storage, View] = field(default_factory=dict)
    #: the accesses with which they read memory from outside
    read: dict[Storage, set[Access]] = field(default_factory=dict)
    #: of memory from outside: the parts that members write, where parts are told apart
    outside: dict[Storage, list[View]] = field(default_factory=dict)
    #: whether something is known of rows; else it can be cut between any two members
    has_rows: bool = False

    @property
    def operations(self) -> list[Map | Reduce]:
        """Its members."""
        return self.members

    @property
    def is_full(self) -> bool:
        """Whether nothing may join; what can be cut has room."""
        return self.cost >= LARGEST and self.has_rows

    @property
    def is_long(self) -> bool:
        """Whether it has to be cut."""
        return self.cost > LARGEST or len(self.members) > _MEMBERS

    def access(self, view: View, level: str) -> Access:
        """Where ``view``, an operand or result of that level, lies as seen from the nest."""
        strides = [s for n, s in zip(view.shape, view.strides) if n != 1]
        if level == ROW:
            strides.append(0)
        elif level == EPILOGUE or not strides:
            strides = [0] * len(self.dims)
        return view.storage.number, view.offset, tuple(strides)

    def reads(self) -> list[View]:
        """What its members read from memory."""
        found = [
            view
            for m in self.members
            for view, source in zip(m.views, self.sources[m])
            if source is None
        ]
        found += [view for m in self.members if type(m) is Map for view in m.tables]
        return found

    @property
    def follows_checks(self) -> bool:
        """Whether it relies on checks that come before it."""
        return any(m.tables for m in self.members)


@dataclass(eq=False, slots=True)
class Single:
    """A product, check or call on its own."""

    operation: Alone

    @property
    def operations(self) -> list[Alone]:
        """The one operation."""
        return [self.operation]

    def reads(self) -> list[View]:
        """What it reads."""
        return self.operation.views

    @property
    def follows_checks(self) -> bool:
        """See Nest."""
        return type(self.operation) is Scatter


Unit = Nest | Single


def level_read(nest: Nest, op: Map | Reduce, level: str) -> str:
    """The level at which ``op`` reads its operands: for a reduction, where it is accumulated."""
    if type(op) is Map:
        return level
    return POINT if _wide(op.views[0]) == nest.dims else ROW


def _wide(view: View) -> tuple[int, ...]:
    """The shape without axes of size 1."""
    return tuple(n for n in view.shape if n != 1)


def _parts(unit: Unit) -> list[Unit]:
    """A unit, or a nest with more members than compilers like as several.

    The members of each read from memory what those of others compute. What repeats among them, as
    in a loop of the user's, is cut at the same places, so that the parts have the same text.
    """
    if isinstance(unit, Single) or unit.has_rows or not unit.is_long:
        return [unit]
    place = {m: k for k, m in enumerate(unit.members)}
    keys = [_likeness(unit, m, place) for m in unit.members]
    costs = [2 + _cost(m) for m in unit.members]
    # What would have to go through memory if it were cut before each member.
    last = {s: k for m, k in place.items() for s in unit.sources[m] if s is not None}
    through = [0] * (len(keys) + 1)
    for source, k in last.items():
        through[place[source] + 1] += 1
        through[k + 1] -= 1
    ends = [0, *cuts(keys, costs, list(accumulate(through)), _PART), len(keys)]
    found: list[Unit] = []
    for start, end in pairwise(ends):
        part = Nest(unit.dims, unit.members[start:end])
        for m in part.members:
            part.level[m] = unit.level[m]
            part.sources[m] = [
                s if s is not None and place[s] >= start else None for s in unit.sources[m]
            ]
        found.append(part)
    return found


def _cost(op: Map | Reduce) -> int:
    return op.cost if type(op) is Map else 1


def _likeness(nest: Nest, m: Map | Reduce, place: dict[Map | Reduce, int]) -> Hashable:
    """What members have in common that compute alike, from values that lie alike before them."""
    sources = iter(nest.sources[m])
    operands: list[Hashable] = []
    for x in m.inputs if type(m) is Map else m.views:
        if not isinstance(x, View):
            operands.append(exact(x))
            continue
        source = next(sources)
        distance = 0 if source is None else place[m] - place[source]
        held = exact(x.storage.number_held)
        operands.append((x.dtype, x.strides, held, min(distance, _FAR)))
    operands += [view.strides for view in m.tables]
    does = m.name if type(m) is Map else (m.kind, m.axes)  # type: ignore[union-attr]
    return does, m.out.dtype, m.out.strides, m.out.storage.role, *operands


class Schedule:
    """The units of a list of operations, in order.

    kept: storages that somebody sees after a replay.
    recomputed: whether nests compute again what is cheap, in place of reading it from memory.
    parted: whether parts of memory from outside that lie apart count as different memory. So the
        updates of parameters of one shape, whose states are parts of one array, are one nest; else
        each would begin in the last one's and wait for it.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        kept: set[Storage],
        recomputed: bool = True,
        parted: bool = False,
    ) -> None:
        self._parted = parted
        self.units: list[Unit] = []
        self._home: dict[Storage, int] = {}  # the unit that wrote a storage last
        self._last_read: dict[Storage, int] = {}
        self._barrier = 0  # nothing outside may be overwritten before this unit
        operations = list(operations)
        #: storages in parts of which no element is written twice: they need no order
        self._once = written_once(operations)
        self._maker: dict[Storage, Map] = {}  # of a temporary
        self._reader: dict[Map, Operation] = {}  # the first to read what a map computes
        self._look_ahead(operations)
        self._with_dims: dict[tuple[int, ...], list[int]] = {}  # nests that are not full
        for op in operations:
            if isinstance(op, Map | Reduce):
                self._place(op)
            else:
                self._append(op)
        self.units = [part for unit in self.units for part in _parts(unit)]
        if recomputed:
            self._recompute(kept)
        self._settle(kept)
        self._look_first(kept)
        #: what somebody sees and a unit overwrites before one that may stop the program
        self.at_risk = self._at_risk(kept)

    def _look_ahead(self, operations: list[Operation]) -> None:
        readers: dict[Storage, Operation] = {}
        for op in reversed(operations):
            if type(op) is Map:
                if op.out.storage in readers:
                    self._reader[op] = readers[op.out.storage]
                if op.out.storage.role == "temporary":
                    self._maker[op.out.storage] = op
            for view in _all_read(op):
                readers[view.storage] = op

    def _append(self, op: Alone) -> None:
        self.units.append(Single(op))
        at = len(self.units) - 1
        if type(op) is Check:
            self._barrier = at
        for view in op.views:
            self._last_read[view.storage] = at
        for view in outputs_of(op):
            self._home[view.storage] = at

    def _place(self, op: Map | Reduce) -> None:
        first = max((self._home.get(v.storage, 0) for v in _all_read(op)), default=0)
        target = op.out.storage
        if target.role != "temporary" or (target.in_parts and target not in self._once):
            first = max(first, self._last_read.get(target, 0), self._home.get(target, 0))
        if target.role != "temporary" or op.tables:
            first = max(first, self._barrier)
        if type(op) is Map:
            first = max(first, self._wanted_at(op))
        dims = _wide(op.x if isinstance(op, Reduce) else op.out) or (1,)
        for at in self._candidates(first, dims):
            unit = self.units[at]
            if isinstance(unit, Nest):
                level = self._fitting(unit, op)
                if level is None and at == first and unit.dims != dims:
                    seen = op.over(unit.dims)
                    if seen is not None and self._parted and not _continues(unit, seen):
                        seen = None  # a parameter that has as many elements as another one
                    level = None if seen is None else self._fitting(unit, seen)
                    op = op if level is None or seen is None else seen
                if level is not None:
                    self._join(at, unit, op, level)
                    return
        nest = Nest(dims)
        self.units.append(nest)
        self._with_dims.setdefault(dims, []).append(len(self.units) - 1)
        level = self._fitting(nest, op)
        assert level is not None, op
        self._join(len(self.units) - 1, nest, op, level)

    def _wanted_at(self, op: Map) -> int:
        """The first unit where it is of use to compute ``op``, all of whose operands are in memory.

        That is where the next operation can be, or what it computes would go to memory, too.
        """
        for view in op.views:
            unit = self.units[self._home[view.storage]] if view.storage in self._home else None
            if isinstance(unit, Nest) and view.storage in unit.made:
                return 0
        reader = self._reader.get(op)
        if type(reader) is not Map or _wide(reader.out) != _wide(op.out):
            return 0
        return max(self._home_of(view.storage, _AHEAD) for view in reader.views)

    def _home_of(self, storage: Storage, steps: int) -> int:
        """The unit that has written ``storage``, or before which it cannot be computed."""
        maker = self._maker.get(storage)
        if storage in self._home or maker is None or not steps:
            return self._home.get(storage, 0)
        return max((self._home_of(view.storage, steps - 1) for view in maker.views), default=0)

    def _candidates(self, first: int, dims: tuple[int, ...]) -> Iterator[int]:
        """The units, from this one on, that an operation over ``dims`` may join: another nest has
        to compute what it reads, which the first one does if any."""
        if first < len(self.units):
            yield first
        alike = self._with_dims.get(dims, [])
        k = bisect_left(alike, first)
        while k < len(alike):
            nest = self.units[alike[k]]
            if isinstance(nest, Nest) and nest.is_full:
                del alike[k]  # it will not have room again
                continue
            if alike[k] != first:
                yield alike[k]
            k += 1

    def _join(self, at: int, nest: Nest, op: Map | Reduce, level: str) -> None:
        reads = level_read(nest, op, level)
        nest.sources[op] = [nest.registers.get(nest.access(v, reads)) for v in op.views]
        nest.members.append(op)
        nest.cost += _cost(op)
        nest.level[op] = level
        nest.has_rows = nest.has_rows or level == ROW
        in_parts = op.out.storage.in_parts
        in_order = in_parts and op.out.storage not in self._once
        if in_order:
            nest.parts.setdefault(op.out.storage, []).append(op.out)
        if not (level == EPILOGUE and _wide(op.out)) and not in_order:
            key = nest.access(op.out, level)
            if op.out.storage in nest.made and not in_parts:  # an update: the old value is gone
                for k in [k for k in nest.registers if k[0] == op.out.storage.number]:
                    if not (self._parted and _lie_apart(nest, k, op.out)):
                        del nest.registers[k]
            nest.registers[key] = op
        nest.made[op.out.storage] = op
        if op.out.storage.role != "temporary":
            nest.written[op.out.storage] = op.out
            if self._parted:
                nest.outside.setdefault(op.out.storage, []).append(op.out)
        for view in op.views:
            if view.storage.role != "temporary":
                nest.read.setdefault(view.storage, set()).add(nest.access(view, POINT))
        for view in op.tables:  # anywhere
            nest.read.setdefault(view.storage, set()).add((view.storage.number, -1, ()))
        self._home[op.out.storage] = max(self._home.get(op.out.storage, 0), at)
        for view in _all_read(op):
            if view.storage.in_parts and view.storage not in self._once:
                nest.read_in_parts.add(view.storage)
            self._last_read[view.storage] = max(self._last_read.get(view.storage, 0), at)

    def _fitting(self, nest: Nest, op: Map | Reduce) -> str | None:
        """The level that ``op`` would have in the nest, or ``None`` if it cannot join."""
        in_order = op.out.storage.in_parts and op.out.storage not in self._once
        if nest.is_full or (in_order and not _apart(nest, op)):
            return None
        if isinstance(op, Reduce):
            return self._fitting_reduction(nest, op)
        shape = _wide(op.out)
        if shape == nest.dims or (not shape and nest.dims == (1,)):
            level = POINT
        elif op.by_place:
            return None
        elif len(nest.dims) > 1 and shape == nest.dims[:-1]:
            level = ROW
            if not any(nest.access(v, ROW) in nest.registers for v in op.views if _fits(v, nest)):
                return None
        elif not shape:
            level = EPILOGUE
            if not any(nest.access(v, EPILOGUE) in nest.registers for v in op.views):
                return None
        else:
            return None
        if not self._readable(nest, op, level):
            return None
        if level == ROW and nest.cost >= LARGEST:
            return None
        return level if self._safe(nest, op, level) else None

    def _fitting_reduction(self, nest: Nest, op: Reduce) -> str | None:
        x = op.x
        shape = _wide(x)
        wide = [k for k, n in enumerate(x.shape) if n != 1]
        if shape == nest.dims:
            level = ROW if list(op.axes) == wide[-1:] and len(wide) > 1 else EPILOGUE
            read = POINT
        elif len(nest.dims) > 1 and shape == nest.dims[:-1] and list(op.axes) == wide:
            level, read = EPILOGUE, ROW
            if nest.access(x, ROW) not in nest.registers:
                return None
        else:
            return None
        # A later phase may compute again what an earlier one read, which has to be there still.
        if (nest.written and ROW in (level, read)) or not self._readable(nest, op, read):
            return None
        return None if level == ROW and nest.cost >= LARGEST else level

    def _readable(self, nest: Nest, op: Map | Reduce, level: str) -> bool:
        """Whether each operand that the nest computes is at hand in a register of its level."""
        for view in op.views:
            if view.storage in nest.made:
                found = nest.registers.get(nest.access(view, level))
                if found is None and self._is_untouched(nest, view, level):
                    continue
                if found is None:
                    return False
                if (nest.level[found] == EPILOGUE) != (level == EPILOGUE):
                    return False
        return not op.tables or not any(view.storage in nest.made for view in op.tables)

    def _is_untouched(self, nest: Nest, view: View, level: str) -> bool:
        """Whether it is a part of memory from outside of which the nest has written others only."""
        parts = nest.outside.get(view.storage, [])
        access = nest.access(view, level)
        return 0 < len(parts) < _COMPARED and all(_lie_apart(nest, access, p) for p in parts)

    def _safe(self, nest: Nest, op: Map, level: str) -> bool:
        """Whether memory from outside is overwritten only where nobody reads the old value later.

        The readers in the same nest have to read the same element that is written at that point.
        """
        target = op.out.storage
        outside = target.role != "temporary"
        if not outside and not nest.written:
            return True
        if level in (EPILOGUE, ROW) or nest.has_rows:
            return False
        if any(v.storage is target or v.storage in nest.written for v in op.tables):
            return False
        own = nest.access(op.out, POINT)
        others = nest.read.get(target, set()) - {own} if outside else set()
        if self._parted:
            mine = [nest.access(v, POINT) for v in op.views if outside and v.storage is target]
            others |= {a for a in mine if a != own}
            return all(_lie_apart(nest, a, op.out) for a in others) and all(
                self._in_place(nest, v) for v in (*op.views, *[op.out] * outside)
            )
        if others:
            return False
        for view in op.views:
            of_own = outside and view.storage is target
            out = op.out if of_own else nest.written.get(view.storage)
            if out is not None and nest.access(view, POINT) != nest.access(out, POINT):
                return False
        return True

    def _in_place(self, nest: Nest, view: View) -> bool:
        """Whether what the nest has written of this memory lies at the same points or apart."""
        access = nest.access(view, POINT)
        parts = nest.outside.get(view.storage, [])
        return len(parts) < _COMPARED and all(
            access == nest.access(p, POINT) or _lie_apart(nest, access, p) for p in parts
        )

    def _recompute(self, kept: set[Storage]) -> None:
        """Let nests compute again what need not be kept for them."""
        nests = [unit if isinstance(unit, Nest) else None for unit in self.units]
        reads = [unit.reads() for unit in self.units]
        writes = [
            {m.out.storage for m in unit.members} if isinstance(unit, Nest) else _written(unit)
            for unit in self.units
        ]
        Recomputation(nests, reads, writes, kept).run()

    def _settle(self, kept: set[Storage]) -> None:
        """Say what each nest has to store, and drop what nobody needs."""
        needed = set(kept)
        for unit in reversed(self.units):
            if isinstance(unit, Nest):
                live: set[Map | Reduce] = set()
                overwritten: set[Access] = set()
                for m in reversed(unit.members):
                    storage = m.out.storage
                    if storage.role != "temporary" or storage in needed:
                        place = unit.access(m.out, unit.level[m])
                        if place not in overwritten:  # by a later member, at the same point
                            unit.stored.add(m)
                            live.add(m)
                        overwritten.add(place)
                    if m in live:
                        live.update(s for s in unit.sources[m] if s is not None)
                unit.members = [m for m in unit.members if m in live]
            needed.update(v.storage for v in unit.reads())
        self.units = [u for u in self.units if isinstance(u, Single) or u.members]

    def _look_first(self, kept: set[Storage]) -> None:
        """Let checks, and what makes their labels, come before what is seen outside is overwritten.

        That cannot be where the labels need a call, or what the step has overwritten.
        """
        front: set[int] = set()
        seen = False
        for at, unit in enumerate(self.units):
            if seen and isinstance(unit, Single) and type(unit.operation) is Check:
                needed = self._needed(at, front)
                if not any(
                    type(op) is Call or _is_seen(_written(self.units[k]), kept)
                    for k in needed
                    for op in self.units[k].operations
                ):
                    front |= needed
            seen = seen or _is_seen(_written(unit), kept)
        if front:
            first = [u for k, u in enumerate(self.units) if k in front]
            self.units = first + [u for k, u in enumerate(self.units) if k not in front]

    def _needed(self, at: int, front: set[int]) -> set[int]:
        """The units that have to come before unit ``at`` moves to the front, and it."""
        needed = {at}
        reads = {v.storage for v in self.units[at].reads()}
        writes: set[Storage] = set()
        for k in range(at - 1, -1, -1):
            unit = self.units[k]
            read, written = {v.storage for v in unit.reads()}, _written(unit)
            checks = type(unit) is Single and type(unit.operation) is Check
            checked = checks and any(self.units[n].follows_checks for n in needed)
            if k not in front and (written & (reads | writes) or read & writes or checked):
                needed.add(k)
                reads |= read
                writes |= written
        return needed

    def _at_risk(self, kept: set[Storage]) -> list[Storage]:
        found: dict[Storage, None] = {}
        written: dict[Storage, None] = {}
        for unit in self.units:
            if isinstance(unit, Single) and _may_stop(unit.operation):
                found.update(written)
            written.update({s: None for s in _written(unit) if _is_seen({s}, kept)})
        return list(found)


def _continues(nest: Nest, op: Map | Reduce) -> bool:
    """Whether an operation over all points reads what the nest computes."""
    return any(nest.access(view, POINT) in nest.registers for view in op.views)


def _lie_apart(nest: Nest, access: Access, view: View) -> bool:
    """Whether what is accessed in a nest and a view of the same storage have no element in common,
    as far as their ends tell."""
    _, offset, strides = access
    if len(strides) != len(nest.dims):  # anywhere
        return False
    reach = [(n - 1) * s for n, s in zip(nest.dims, strides)]
    low = offset + sum(r for r in reach if r < 0)
    high = offset + sum(r for r in reach if r > 0)
    reach = [(n - 1) * s for n, s in zip(view.shape, view.strides)]
    first = view.offset + sum(r for r in reach if r < 0)
    last = view.offset + sum(r for r in reach if r > 0)
    return high < first or last < low


def _apart(nest: Nest, op: Map | Reduce) -> bool:
    """Whether nobody in the nest reads or writes the part of a storage that ``op`` writes."""
    target = op.out.storage
    parts = nest.parts.get(target, [])
    if target in nest.read_in_parts or len(parts) >= _COMPARED:
        return False
    return all(disjoint(part, op.out) for part in parts)


def _written(unit: Unit) -> set[Storage]:
    """The memory that a unit writes."""
    if isinstance(unit, Nest):
        return {m.out.storage for m in unit.stored}
    return {v.storage for v in outputs_of(unit.operation)}


def _all_read(op: Operation) -> list[View]:
    """What an operation reads."""
    return op.reads if type(op) is Map else op.views


def _is_seen(storages: set[Storage], kept: set[Storage]) -> bool:
    return any(s.role != "temporary" or s in kept for s in storages)


def _may_stop(op: Alone) -> bool:
    return type(op) is Check or (type(op) is Call and op.instruction.may_fail)


def _fits(view: View, nest: Nest) -> bool:
    return len(_wide(view)) <= len(nest.dims)
