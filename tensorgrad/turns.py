"""Turns: threads change the gradient of a leaf one after the other.

To add to a gradient is to read, to compute and to store; another thread that stores in between
would be forgotten. ``backward()`` has the turn of everybody while it adds to leaves, which is
short. A program has one of its own for as long as it runs, which may be long, and shares it with
the other programs that change the same leaves: programs of other models do not wait for it. A
capture, whose leaves are not known before, has all turns there are.

They are taken in the order of their numbers, everybody's first, so that no two threads wait for
each other. Who waits in vain for ``LIMIT`` seconds, for one or for many together, because the one
whose turn it is waits for this very thread, goes on without.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from itertools import count
from time import monotonic

# Seconds that a thread waits for its turn.
LIMIT = 10.0

_next_number = count().__next__


class Turns:
    """``with turns:`` around what other threads that take the same turns are not to do meanwhile.

    A thread may enter again what it has entered.
    """

    __slots__ = ("__weakref__", "inside", "lock", "number")

    def __init__(self) -> None:
        self.number = _next_number()
        self.lock = threading.RLock()
        #: more than 0 while it is somebody's turn
        self.inside = 0
        _ALL.add(self)

    @property
    def each(self) -> Sequence[Turns]:
        """Itself, as the one of several."""
        return (self,)

    def __enter__(self) -> None:
        self.lock.acquire(True, LIMIT)
        self.inside += 1

    def take(self, end: float) -> None:
        """Enter, and wait until ``end`` of the monotonic clock at most."""
        if not self.lock.acquire(False):
            self.lock.acquire(True, max(0.0, end - monotonic()))
        self.inside += 1

    def __exit__(self, *error: object) -> None:
        self.inside -= 1
        try:  # noqa: SIM105 (quicker)
            self.lock.release()
        except RuntimeError:  # it waited in vain, or is the child of a fork
            pass


class Several:
    """Some turns at once, perhaps none."""

    __slots__ = ("each", "inside")

    def __init__(self, turns: Iterable[Turns]) -> None:
        self.each: Sequence[Turns] = sorted(turns, key=lambda t: t.number)
        #: who does not want to wait takes several for taken
        self.inside = len(self.each)

    def __enter__(self) -> None:
        self.take(monotonic() + LIMIT)

    def take(self, end: float) -> None:
        """See Turns."""
        for turns in self.each:
            turns.take(end)

    def __exit__(self, *error: object) -> None:
        for turns in self.each:
            turns.__exit__()


class All:
    """The turns of everybody and of all programs, found once nobody else can make another."""

    __slots__ = ("_rest",)

    def __enter__(self) -> None:
        end = monotonic() + LIMIT
        EVERYBODY.take(end)
        self._rest = Several(turns for turns in list(_ALL) if turns is not EVERYBODY)
        self._rest.take(end)

    def __exit__(self, *error: object) -> None:
        self._rest.__exit__()
        EVERYBODY.__exit__()


_ALL: weakref.WeakSet[Turns] = weakref.WeakSet()
#: that of leaves that no program changes
EVERYBODY = Turns()


def _renew() -> None:
    """In the child after a fork: whose turn it was may not be here."""
    for turns in list(_ALL):
        turns.lock, turns.inside = threading.RLock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
