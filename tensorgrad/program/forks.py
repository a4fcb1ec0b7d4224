"""A fork waits until no other thread is inside of a program.

The child has one thread and a copy of all memory. What other threads held stays locked there, and
what they had half done stays half done. NumPy's OpenBLAS goes further: it ends its threads before a
fork, and whoever is computing a product with them waits for ever, in the parent too. So a fork is
put off until replays are through. (The fast call of a short program, c/fast_call.c, holds the
interpreter's lock, so that nobody can fork meanwhile.)
"""

from __future__ import annotations

# Both take a lock before a fork, which replays may need. What was registered last is called first:
# they have to be there before the gate is made.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
import time
from threading import get_ident

# Seconds that a fork waits for other threads, one of which may wait for this one.
LIMIT = 10.0


class Gate:
    """``with GATE:`` around what a fork has to wait for, if another thread forks meanwhile.

    A thread may enter again what it has entered, and may itself fork inside.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # how many times each thread has entered
        self._forking = 0
        self._open = threading.Event()
        self._open.set()
        os.register_at_fork(
            before=self._close, after_in_parent=self._reopen, after_in_child=self._renew
        )

    def __enter__(self) -> None:
        me = get_ident()
        inside = self._inside
        depth = inside.get(me, 0)
        # First inside, then the question: who closes the gate sees this thread, or is seen by it.
        inside[me] = depth + 1
        if self._forking and not depth:
            self._wait(me)

    def __exit__(self, *error: object) -> None:
        me = get_ident()
        inside = self._inside
        if inside[me] == 1:
            del inside[me]
        else:
            inside[me] -= 1

    def _wait(self, me: int) -> None:
        while self._forking:
            del self._inside[me]
            self._open.wait(LIMIT)
            self._inside[me] = 1

    def _close(self) -> None:
        self._open.clear()
        self._forking += 1
        end = time.monotonic() + LIMIT
        me = get_ident()
        while any(thread != me for thread in list(self._inside)) and time.monotonic() < end:
            time.sleep(0.0001)

    def _reopen(self) -> None:
        self._forking -= 1
        if not self._forking:
            self._open.set()

    def _renew(self) -> None:
        """In the child, where there is one thread."""
        me = get_ident()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._forking = 0
        self._open = threading.Event()
        self._open.set()


#: what replays are inside of
GATE = Gate()
