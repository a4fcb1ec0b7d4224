"""Guards with a hole, on purpose: the random programs have to show each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from tensorgrad.program import guards
from tensorgrad.program.bytecode.reads import Reads
from tensorgrad.program.guards import Guard, Guards, Place

Hole = Callable[[], AbstractContextManager[Any]]


def _without(forgotten: Callable[[Guard], bool]) -> Hole:
    """Programs that do not look again at some of what was read."""
    complete = Guards.complete

    def forgetful(self: Guards, *args: Any) -> None:
        complete(self, *args)
        self.reads = [g for g in self.reads if not forgotten(g)]

    return lambda: patch.object(Guards, "complete", forgetful)


def _of_kind(kind: str) -> Hole:
    return _without(lambda g: g.kind.removeprefix("weak ") == kind)


def _loose(same: Callable[[Any, Any], bool]) -> Hole:
    """Plain values that are not compared exactly."""
    return lambda: patch.object(guards, "same", lambda a, b: a is b or same(a, b))


_SAME, _MATCHES = guards.same, guards.matches


def _equal(a: Any, b: Any) -> bool:
    plain = type(a) in guards.SCALARS and type(b) in guards.SCALARS
    return bool(a == b) if plain else _SAME(a, b)


def _equal_but_for_nothing(a: Any, b: Any) -> bool:
    return _SAME(a, b) or (a is None and b is None) or type(a) is type(b) is bool


@contextmanager
def _shallow() -> Iterator[None]:
    """Containers are compared by their length alone."""

    def matches(o: Any, then: Any) -> bool:
        if type(then) is not guards.Frozen or not isinstance(o, guards.CONTAINERS):
            return _MATCHES(o, then)
        return type(o) is then.kind and len(guards.parts_of(o)) == len(then.parts)

    with patch.object(guards, "matches", matches):
        yield


@contextmanager
def _unordered() -> Iterator[None]:
    """Containers are compared, but not the order of what is in them."""

    def matches(o: Any, then: Any) -> bool:
        if type(then) is not guards.Frozen or not isinstance(o, guards.CONTAINERS):
            return _MATCHES(o, then)
        now, parts = guards.parts_of(o), list(then.parts)
        for a in now:
            at = next((k for k, b in enumerate(parts) if matches(a, b)), None)
            if at is None:
                return False
            del parts[at]
        return not parts

    with patch.object(guards, "matches", matches):
        yield


@contextmanager
def _arrays_of_one_content() -> Iterator[None]:
    """Arrays of NumPy are compared by shape alone."""

    def matches(o: Any, then: Any) -> bool:
        if type(then) is guards.Frozen and isinstance(o, np.ndarray):
            return (o.shape, o.dtype) == then.parts[:2]
        return _MATCHES(o, then)

    with patch.object(guards, "matches", matches):
        yield


@contextmanager
def _cells_unseen() -> Iterator[None]:
    """What the closures of functions hold is taken for the step's own."""
    reach = Reads.reach

    def blind(self: Reads, value: Any) -> None:
        reach(self, value)
        for cell in getattr(value, "__closure__", None) or ():
            self.met.pop(id(cell), None)

    with patch.object(Reads, "reach", blind):
        yield


def _patched(owner: Any, name: str, new: Any) -> Hole:
    return lambda: patch.object(owner, name, new)


def _broken_but(words: str) -> Hole:
    """Programs that go on where a condition does not hold, if its text has these words."""
    first = Guards._first_broken

    def broken(self: Guards, arguments: Any) -> Any:
        found = first(self, arguments)
        return None if isinstance(found, str) and words in found else found

    return lambda: patch.object(Guards, "_first_broken", broken)


class Planted(NamedTuple):
    """A hole, and an expression that is found in the programs that may show it."""

    hole: Hole
    shown_by: str = ""


_KINDS = {
    "key": "", "attribute": "Slots|__class__|__dict__", "class": "",
    "class attribute": r"type\('K'|Meta",
    "cell": "cell|put|closure", "item": r"\[", "variable": "variable",
    "subclass": "Kind", "function": "def|lambda", "content": "", "entries": r"\[:\] = ",
}  # fmt: skip

HOLES: dict[str, Planted] = {
    **{f"{k!r} is not looked at again": Planted(_of_kind(k), by) for k, by in _KINDS.items()},
    "what is missing may appear": Planted(_without(lambda g: g.value is guards.MISSING)),
    "numbers are constant": Planted(_without(lambda g: type(g.value) in (int, float))),
    "strings are constant": Planted(_without(lambda g: type(g.value) is str), "'ab'"),
    "functions are constant": Planted(_without(lambda g: callable(g.value))),
    "classes are constant": Planted(_without(lambda g: isinstance(g.value, type))),
    "globals are constant": Planted(
        _without(lambda g: g.kind == "key" and "__name__" in g.holder), "r0 = "
    ),
    "only globals change": Planted(
        _without(lambda g: g.kind == "key" and "__name__" not in g.holder)
    ),
    "1 is True is 1.0": Planted(_loose(_equal), r"-0\.0"),
    "all bools are alike": Planted(_loose(_equal_but_for_nothing), "False"),
    "containers by their length": Planted(_shallow),
    "containers in any order": Planted(_unordered, "reverse|update|pop|insert"),
    "arrays by their shape": Planted(_arrays_of_one_content, r"np\.array"),
    "closures unseen": Planted(_cells_unseen, "cell|put|closure"),
    "a tensor stays where it was": Planted(
        _patched(Place, "holds", lambda self: True), r"tensor\(\[2"
    ),
    "a tensor keeps its dtype and shape": Planted(_broken_but("shape, dtype or layout"), "data ="),
    "a tensor goes on requiring gradients": Planted(
        _broken_but("requires a gradient"), "requires_grad = True"
    ),
    "gradients are always there": Planted(_broken_but("whether a parameter has a gradient"), "w"),
}
