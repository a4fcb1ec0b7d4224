"""Which value an array holds while a step is recorded, and which arrays show the same memory.

Arrays and the owners of memory are told apart by identity, and an identity comes again when its
object has died. A recorder that kept them all alive would hold every array of the step at once; so
they are referred to weakly, and with an array goes what is known by its identity. What is known of
its memory stays: memory has a number of its own, which does not come again.
"""

from __future__ import annotations

import weakref
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import backend
from tensorgrad.program.aliases import extent
from tensorgrad.program.ir import Value


class Shown(NamedTuple):
    """A value that was in some memory: in which of its bytes, unless only the backend knows."""

    value: Value
    bytes: tuple[int, int] | None


class _Known:
    """What is known of a living array: its value, and the number of the memory that it owns."""

    __slots__ = ("memory", "reference", "value")

    def __init__(self) -> None:
        self.value: Value | None = None
        self.memory: int | None = None
        self.reference: weakref.ref[Any] | None = None


class RecordedArrays:
    """Values by array, and values by memory."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}  # by the id of the array
        self._kept: list[Any] = []
        self._count = count()
        #: by the number of the memory: the values that it has shown, and what was overwritten of it
        self.shown: dict[int, list[Shown]] = {}
        self.written: dict[int, list[tuple[int, int] | None]] = {}

    def value(self, array: Any) -> Value | None:
        """The value that ``array`` holds now, if it is known."""
        known = self._known.get(id(array))
        return None if known is None else known.value

    def hold(self, array: Any, value: Value) -> None:
        """Note that ``array`` holds ``value`` from here on."""
        self._of(array).value = value

    def show(self, array: Any, value: Value) -> None:
        """Note that ``value`` is seen in the memory of ``array``."""
        shown = self.shown.setdefault(self.memory(array), [])
        shown.append(Shown(value, bytes_of(array)))

    def write(self, array: Any) -> None:
        """Note that ``array`` is overwritten."""
        self.written.setdefault(self.memory(array), []).append(bytes_of(array))

    def keep(self, array: Any) -> None:
        """Keep an array, which was there before the step, even if the step lets go of it."""
        self._kept.append(array)

    def memory(self, array: Any) -> int:
        """The number of the memory of ``array``: the same one for all views of it."""
        known = self._of(backend.of(array).memory_owner(array))
        if known.memory is None:
            known.memory = next(self._count)
        return known.memory

    def overlapping(self, array: Any) -> list[Value]:
        """The values that are seen in the memory of ``array``, if in part."""
        place = bytes_of(array)
        shown = self.shown.get(self.memory(array), ())
        return [value for value, theirs in shown if overlap(place, theirs)]

    def is_overwritten(self, array: Any) -> bool:
        """Whether any of its memory has been overwritten."""
        place = bytes_of(array)
        return any(overlap(place, theirs) for theirs in self.written.get(self.memory(array), ()))

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._kept.clear()
        self.shown.clear()
        self.written.clear()

    def _of(self, array: Any) -> _Known:
        key = id(array)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            # It must be C that is called: a function of Python's would have a frame in the midst of
            # those of the step, which are followed.
            known.reference = weakref.ref(array, partial(self._known.pop, key))
        return known


def bytes_of(array: Any) -> tuple[int, int] | None:
    """The addresses between which an array of NumPy's lies; ``None`` of others."""
    return extent(array) if type(array) is np.ndarray else None


def overlap(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool:
    """Whether two arrays that lie between these addresses may have bytes in common."""
    if a is None or b is None:
        return True
    return max(a[0], b[0]) < min(a[1], b[1])
