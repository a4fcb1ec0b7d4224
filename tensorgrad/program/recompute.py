"""What a later nest computes again, rather than an earlier one keeping it in memory.

A nest over large arrays takes as long as its memory traffic. Where an earlier nest would store a
value for later nests alone, which can as well compute it from what they find in memory, it need not
be written: the standardized input of a batch norm, say, in its backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tensorgrad.program.loop_ir import POINT, Map, Reduce, Storage, View

# The most work of computing a value again, in additions.
_CHEAP = 6
# Bytes of values that are looked at: smaller ones stay in the caches.
_LARGE = 1 << 16
# How many times the bytes of a value those may be that are read in its place.
_MORE = 1.25
# Views with so many times fewer elements than the value cost nothing.
_FEWER = 8


class Nest(Protocol):
    """What is read and changed here of a nest; see ``schedule``."""

    dims: tuple[int, ...]
    members: list[Map | Reduce]
    cost: int
    level: dict[Map | Reduce, str]
    sources: dict[Map | Reduce, list[Map | Reduce | None]]

    def reads(self) -> list[View]:
        """What its members read from memory."""


class _Reader(NamedTuple):
    """Operand ``k`` of a member of nest number ``at``."""

    at: int
    member: Map | Reduce
    k: int


class Recomputation:
    """Changes nests such that they compute again what need not be kept.

    nests: the units in order; ``None`` for those that are none. reads, writes: what each unit reads
    and may write. kept: storages that somebody sees after a replay.
    """

    def __init__(
        self,
        nests: Sequence[Nest | None],
        reads: Sequence[Sequence[View]],
        writes: Sequence[set[Storage]],
        kept: set[Storage],
    ) -> None:
        self._nests = nests
        self._writes = writes
        self._readers: dict[Storage, list[_Reader]] = {}
        self._others = set(kept)  # that somebody else than nests reads
        self._writers: dict[Storage, int] = {}
        #: for each nest: members of others -> what computes the same there
        self._made: list[dict[Map, Map]] = [{} for _ in nests]
        for at, nest in enumerate(nests):
            for storage in writes[at]:
                self._writers[storage] = self._writers.get(storage, 0) + 1
            if nest is None:
                self._others.update(view.storage for view in reads[at])
                continue
            for m in nest.members:
                for k, source in enumerate(nest.sources[m]):
                    if source is None:
                        reader = _Reader(at, m, k)
                        self._readers.setdefault(m.views[k].storage, []).append(reader)
                if type(m) is Map:
                    self._others.update(view.storage for view in m.tables)

    def run(self) -> None:
        """Look at what each nest would store."""
        for at, nest in enumerate(self._nests):
            for m in [] if nest is None else list(nest.members):
                if type(m) is Map and self._is_candidate(m) and m.out.storage in self._readers:
                    self._consider(at, m)

    def _is_candidate(self, m: Map) -> bool:
        s = m.out.storage
        return (
            s.role == "temporary"
            and not s.in_parts
            and s.nbytes >= _LARGE
            and s not in self._others
            and self._writers[s] == 1
        )

    def _consider(self, at: int, m: Map) -> None:
        """Have those that read what member ``m`` computes compute it themselves, if all can."""
        nest = self._nest(at)
        chain: dict[Map, None] = {}
        if m.out.size != math.prod(nest.dims) or not _collect(nest, m, chain):
            return
        if sum(c.cost for c in chain) > _CHEAP:
            return
        readers = self._readers[m.out.storage]
        if all(self._can(at, reader, m, chain) for reader in readers):
            del self._readers[m.out.storage]
            for reader in readers:
                self._exchange(at, reader, m, chain)

    def _can(self, at: int, reader: _Reader, m: Map, chain: dict[Map, None]) -> bool:
        """Whether a reader can compute ``m`` itself, and has little more to read for it."""
        nest, other = self._nest(at), self._nest(reader.at)
        read, wanted = reader.member.views[reader.k], m.out.reshape(other.dims)
        if wanted is None or read.size != wanted.size or read.reshape(other.dims) != wanted:
            return False
        present = {v.storage for v in other.reads()}
        extra: dict[Storage, int] = {}
        for c in chain:
            if c.over(other.dims) is None:
                return False
            for view, source in zip(c.views, nest.sources[c]):
                if source in chain:
                    continue
                if self._is_overwritten(view.storage, at, reader.at):
                    return False
                if view.storage not in present and view.storage.number_held is None:
                    extra[view.storage] = _elements(view) * view.dtype.itemsize
        size = m.out.size * m.out.dtype.itemsize
        return sum(n for n in extra.values() if n * _FEWER > size) <= _MORE * size

    def _is_overwritten(self, storage: Storage, at: int, last: int) -> bool:
        """Whether what nest ``at`` reads, or makes, is written once more up to unit ``last``."""
        made = any(m.out.storage is storage for m in self._nest(at).members)
        if made and (storage.role != "temporary" or self._writers[storage] > 1):
            return True
        return any(storage in self._writes[k] for k in range(at + made, last + 1))

    def _exchange(self, at: int, reader: _Reader, m: Map, chain: dict[Map, None]) -> None:
        """Let a reader take what its own nest computes."""
        nest, other, made = self._nest(at), self._nest(reader.at), self._made[reader.at]
        place = other.members.index(reader.member)
        for c in chain:
            if c in made and other.members.index(made[c]) < place:
                continue
            again = c.over(other.dims)
            assert again is not None
            made[c] = again
            other.members.insert(place, again)
            other.level[again] = POINT
            other.sources[again] = [
                made[s] if type(s) is Map and s in chain else None for s in nest.sources[c]
            ]
            other.cost += again.cost
            place += 1
            for k, source in enumerate(other.sources[again]):
                if source is None:
                    found = _Reader(reader.at, again, k)
                    self._readers.setdefault(again.views[k].storage, []).append(found)
        other.sources[reader.member][reader.k] = made[m]

    def _nest(self, at: int) -> Nest:
        nest = self._nests[at]
        assert nest is not None
        return nest


def _elements(view: View) -> int:
    """How many different elements a view shows."""
    return math.prod(n for n, s in zip(view.shape, view.strides) if s)


def _collect(nest: Nest, m: Map, chain: dict[Map, None]) -> bool:
    """Put ``m`` and what it is computed of into ``chain``, in order; whether that can be done
    elsewhere, from memory alone."""
    if nest.level[m] != POINT or m.by_place or m.tables or len(chain) > _CHEAP:
        return False
    for source, view in zip(nest.sources[m], m.views):
        if source is None or source in chain:
            continue
        if type(source) is Map and nest.level[source] == POINT:
            if not _collect(nest, source, chain):
                return False
        elif _elements(view) * _FEWER > m.out.size:
            return False  # a number of the row, which would have to be stored
    chain[m] = None
    return True
