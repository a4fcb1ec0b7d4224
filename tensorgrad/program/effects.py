"""What a step changes in Python's world, carried out again by every replay.

A result appended to a list, put into an attribute, an item or a variable, and counters that are
raised by a constant. Everything else that the step changes outside makes it a refusal.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad.errors import CompileError
from tensorgrad.program.bytecode.shadow import Counted
from tensorgrad.program.guards import MISSING, read, same
from tensorgrad.program.trees import Found, flatten
from tensorgrad.tape import Leaf
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.program.bytecode.surroundings import Surroundings


class Put(NamedTuple):
    """``tree``, made of results, is put at a place. owner: the object as the user sees it."""

    kind: str
    holder: Any
    key: Any
    owner: Any
    tree: Any


class Count(NamedTuple):
    """A number at a place is changed by steps: pairs of a function and its second operand."""

    kind: str
    holder: Any
    key: Any
    type: type
    steps: tuple[tuple[Callable[[Any, Any], Any], Any], ...]

    def after(self, value: Any) -> Any:
        """What becomes of a number."""
        for function, operand in self.steps:
            value = function(value, operand)
        return value


class Append(NamedTuple):
    """Trees, made of results, are appended to a list or a deque."""

    to: Any
    trees: list[Any]


_BASES = (OrderedDict, dict, list, deque)


def put(kind: str, holder: Any, key: Any, owner: Any, value: Any) -> None:
    """Put a value at a place."""
    if kind == "cell":
        holder.cell_contents = value
    elif kind == "class attribute":
        type.__setattr__(holder, key, value)
    elif kind == "attribute":
        object.__setattr__(owner, key, value)
    else:  # past a ``__setitem__`` of the user's, whose own effects are others of these
        base: Any = next(t for t in _BASES if isinstance(holder, t))
        base.__setitem__(holder, key, value)


class Effects:
    """The effects of one program."""

    def __init__(
        self,
        puts: Sequence[Put],
        counts: Sequence[Count],
        appends: Sequence[Append],
    ) -> None:
        self.puts = list(puts)
        self.counts = list(counts)
        self.appends = list(appends)

    def __bool__(self) -> bool:
        return bool(self.puts or self.counts or self.appends)

    def ready(self) -> bool:
        """Whether the counters are numbers of the kind they were."""
        return all(type(read(c.kind, c.holder, c.key)) is c.type for c in self.counts)

    def carry_out(self, make: Callable[[Any], Any]) -> None:
        """Do what the step would have done. make: what becomes of a tree in this call."""
        for p in self.puts:
            put(p.kind, p.holder, p.key, p.owner, make(p.tree))
        for c in self.counts:
            put(c.kind, c.holder, c.key, c.holder, c.after(read(c.kind, c.holder, c.key)))
        for a in self.appends:
            for tree in a.trees:
                a.to.append(make(tree))

    def correct(self, make: Callable[[Any], Any]) -> None:
        """The step itself has just run: what it left gets the numbers of the program."""
        for p in self.puts:
            put(p.kind, p.holder, p.key, p.owner, make(p.tree))
        for a in self.appends:
            made = [make(tree) for tree in a.trees]
            for k in range(1, min(len(made), len(a.to)) + 1):
                a.to[-k] = made[-k]

    def before(self) -> list[Any]:
        """What ``problem`` needs of the time before the step."""
        return [
            [read(c.kind, c.holder, c.key) for c in self.counts],
            [len(a.to) for a in self.appends],
        ]

    def values(self) -> list[Any]:
        """What is at the places, and what was appended last: right after the step itself ran."""
        found = [read(p.kind, p.holder, p.key) for p in self.puts]
        for a in self.appends:
            found += list(a.to)[-len(a.trees) :]
        return found

    @property
    def trees(self) -> list[Any]:
        """The trees of ``values``."""
        return [p.tree for p in self.puts] + [t for a in self.appends for t in a.trees]

    def problem(self, before: list[Any]) -> str:
        """How what the step did just now differs in number; empty if it does not."""
        for c, then in zip(self.counts, before[0]):
            if not same(read(c.kind, c.holder, c.key), c.after(then)):
                return f"{c.key!r} was counted otherwise"
        for a, length in zip(self.appends, before[1]):
            limit = getattr(a.to, "maxlen", None)
            wanted = length + len(a.trees)
            if len(a.to) != (wanted if limit is None else min(wanted, limit)):
                return "another number of values was appended to a list"
        return ""


def effects_of(reads: Surroundings, found: Found) -> Effects:
    """The effects of a step that has just run; the tensors among them are added to ``found``.

    Raises CompileError for a value that a replay cannot make anew.
    """
    puts: list[Put] = []
    counts: list[Count] = []
    for put_ in reads.written.values():
        if isinstance(put_, Counted):
            kind, holder, key, then = put_.place
            count = Count(kind, holder, key, type(then), put_.steps)
            if not same(read(kind, holder, key), count.after(then)):
                raise CompileError(
                    f"this cannot be compiled: {key!r} is changed in a way that was not seen. "
                    "Remedy: "
                    "count outside the step"
                )
            counts.append(count)
            continue
        kind, holder, key, owner = put_
        value = read(kind, holder, key)
        if value is not MISSING:
            tree = _kept(value, found, reads, (kind, holder, key))
            puts.append(Put(kind, holder, key, owner, tree))
    appends = []
    for to, count_ in reads.appended.values():
        limit = getattr(to, "maxlen", None)
        if limit is not None and count_ > limit:
            raise CompileError(
                "this cannot be compiled: more is appended to a deque than it holds. Remedy: "
                "append "
                "outside the step"
            )
        trees = [_kept(x, found, reads, (None, to, None)) for x in list(to)[-count_:]]
        appends.append(Append(to, trees))
    return Effects(puts, counts, appends)


def _kept(value: Any, found: Found, reads: Surroundings, place: tuple[Any, Any, Any]) -> Any:
    """The tree of a value that the step leaves behind at a place.

    Raises CompileError for a parameter made by the step, and for a tensor with a history where the
    step reads what it left there the time before: what a replay leaves has no history.
    """
    before = len(found.tensors)
    tree = flatten(value, found, reads.is_outside)
    new = [t for t in found.tensors[before:] if not reads.is_outside(t)]
    if any(type(t) is not Tensor or type(t.node) is Leaf for t in new):
        raise CompileError(
            "this cannot be compiled: the step makes a parameter, or a tensor that requires a "
            "gradient, and "
            "keeps it. Remedy: make it before the first call"
        )
    if any(t.node is not None for t in new) and reads.has_read(*place):
        raise CompileError(
            "this cannot be compiled: a tensor with a history is kept for the next call. Remedy: "
            "keep "
            "x.detach()"
        )
    return tree
