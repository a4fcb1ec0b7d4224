"""Where values lie: what is only made to be joined with others is made at its place among them.

Joining copies each part into one storage. A part that lies there side by side, as a step of a
sequence does, can be written there at once: its own storage and the copy go. So does a joined
storage whose parts lie side by side already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorgrad.program.loop_ir import (
    Call,
    Check,
    Map,
    Operation,
    Product,
    Reduce,
    Routine,
    Scatter,
    Storage,
    View,
    outputs_of,
)

# Parts that lie in each other's reach: each is compared with all.
_COMPARED = 128

#: A storage, and the element of it at which another one now begins.
_Place = tuple[Storage, int]


def written_once(operations: Sequence[Operation]) -> set[Storage]:
    """The storages written in parts of which no two have an element in common."""
    parts: dict[Storage, list[View]] = {}
    other: set[Storage] = set()
    for op in operations:
        if isinstance(op, Map | Reduce | Product):
            if op.out.storage.in_parts:
                parts.setdefault(op.out.storage, []).append(op.out)
        else:
            other.update(view.storage for view in outputs_of(op))
    return {s for s, views in parts.items() if s not in other and _are_apart(views)}


def placed(operations: Sequence[Operation], kept: set[Storage]) -> list[Operation]:
    """The operations without copies into parts of storages, as far as these can be spared.

    The views of the operations are changed. kept: storages that somebody sees after a replay.
    """
    once = written_once(operations)
    if not once:
        return list(operations)
    return _Placement(operations, kept, once).operations


class _Placement:
    def __init__(
        self, operations: Sequence[Operation], kept: set[Storage], once: set[Storage]
    ) -> None:
        self._kept = kept
        self._once = once
        self._writers: dict[Storage, list[Operation]] = {}
        for op in operations:
            for view in _outputs(op):
                self._writers.setdefault(view.storage, []).append(op)
        self._places: dict[Storage, _Place] = {}
        gone: set[Operation] = set()
        for storage in once:
            gone |= self._joined(storage)
        for op in operations:
            if op not in gone and self._is_spared(op):
                gone.add(op)
        self.operations = [op for op in operations if op not in gone]
        for op in self.operations:
            _move(op, self._moved)

    def _joined(self, storage: Storage) -> set[Operation]:
        """The copies that make ``storage``, if it lies in another one like that already."""
        copies = [op for op in self._writers[storage] if type(op) is Map and _is_copy(op)]
        if storage in self._kept or sum(c.out.size for c in copies) != storage.size:
            return set()
        first: View = copies[0].inputs[0]
        start = first.offset - copies[0].out.offset
        for copy in copies:
            x = copy.inputs[0]
            if x.storage is not first.storage or x.offset - copy.out.offset != start:
                return set()
            if x.strides != copy.out.strides and not (x.contiguous and copy.out.contiguous):
                return set()
        if not self._stays(first.storage):
            return set()
        self._places[storage] = first.storage, start
        return set(copies)

    def _stays(self, storage: Storage) -> bool:
        """Whether what lies there once stays: from outside, or made by one routine."""
        writers = self._writers.get(storage, [])
        if storage.role != "temporary":
            return not writers
        return len(writers) == 1 and type(writers[0]) is Routine and storage not in self._kept

    def _is_spared(self, op: Operation) -> bool:
        """Whether ``op`` copies the whole of a storage that may lie where it is copied to."""
        if type(op) is not Map or not _is_copy(op):
            return False
        out, x = op.out, op.inputs[0]
        source = x.storage
        if out.storage not in self._once or out.storage in self._places or not out.contiguous:
            return False
        if source.role != "temporary" or source in self._kept or source in self._places:
            return False
        if x.offset or x.size != source.size or not x.contiguous or source is out.storage:
            return False
        writers = self._writers.get(source, [])
        if not all(isinstance(w, Map | Reduce | Product) for w in writers):
            return False
        if (source not in self._once) if source.in_parts else len(writers) != 1:
            return False
        if self._place(out.storage)[0] is source:
            return False
        self._places[source] = out.storage, out.offset
        return True

    def _place(self, storage: Storage) -> _Place:
        """Where a storage begins now."""
        at = 0
        while storage in self._places:
            storage, further = self._places[storage]
            at += further
        return storage, at

    def _moved(self, view: View) -> View:
        if view.storage not in self._places:
            return view
        storage, at = self._place(view.storage)
        return View(storage, view.shape, view.strides, view.offset + at)


def _is_copy(op: Operation) -> bool:
    """Whether it copies a view; types are the same then."""
    return type(op) is Map and op.name == "copy" and type(op.inputs[0]) is View


def _outputs(op: Operation) -> Sequence[View]:
    return (op.out,) if isinstance(op, Map | Reduce) else outputs_of(op)


def _move(op: Operation, moved: Callable[[View], View]) -> None:
    """Change the views of an operation."""
    if isinstance(op, Check):
        op.labels = moved(op.labels)
    elif isinstance(op, Call | Routine):
        op.inputs = tuple([moved(x) if isinstance(x, View) else x for x in op.inputs])
        op.outputs = tuple([moved(x) for x in op.outputs])
    else:
        op.out = moved(op.out)
        if isinstance(op, Map):
            op.inputs = tuple([moved(x) if type(x) is View else x for x in op.inputs])
            op.table = None if op.table is None else moved(op.table)
            op.__post_init__()
        elif isinstance(op, Reduce):
            op.x = moved(op.x)
        elif isinstance(op, Product):
            op.a, op.b = moved(op.a), moved(op.b)
        elif isinstance(op, Scatter):
            op.places, op.x = moved(op.places), moved(op.x)
        else:
            op.operands = tuple([moved(x) for x in op.operands])


def _are_apart(parts: Sequence[View]) -> bool:
    """Whether no two of these views of one storage have an element in common."""
    spans = sorted(((*_span(view), k) for k, view in enumerate(parts)))
    near: list[View] = []  # those whose spans meet that of the next, directly or by others
    reach = 0
    for start, end, k in spans:
        if start >= reach:
            near = []
        if len(near) >= _COMPARED or not all(disjoint(view, parts[k]) for view in near):
            return False
        near.append(parts[k])
        reach = max(reach, end)
    return True


def _span(view: View) -> tuple[int, int]:
    """From the lowest element of a view to behind the highest."""
    steps = [(n - 1) * s for n, s in zip(view.shape, view.strides)]
    start = view.offset + sum(step for step in steps if step < 0)
    return start, view.offset + sum(step for step in steps if step > 0) + 1


def disjoint(a: View, b: View) -> bool:
    """Whether two views of equal shape and strides, as those of a nest mostly are, lie apart."""
    axes = sorted([(abs(s), n) for n, s in zip(a.shape, a.strides) if n != 1], reverse=True)
    others = sorted([(abs(s), n) for n, s in zip(b.shape, b.strides) if n != 1], reverse=True)
    return axes == others and not _meet(abs(a.offset - b.offset), axes)


def _meet(distance: int, axes: list[tuple[int, int]]) -> bool:
    """Whether two sets of elements with these strides and sizes, so far apart, have one in common.

    axes: the largest stride first.
    """
    if not axes:
        return distance == 0
    (step, n), *rest = axes
    reach = sum(s * (m - 1) for s, m in rest)
    first = max(1 - n, -((reach - distance) // step))
    last = min(n - 1, (distance + reach) // step)
    return any(_meet(distance - k * step, rest) for k in range(first, last + 1))
