"""Large arrays of the CPU in memory that is kept when they are gone.

The C library gives large pieces back to the system at once, and fresh pages cost more than most of
what is computed in them: a third of the time of an LSTM's training step.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Arrays of fewer bytes are left to the C library, which keeps their memory itself.
_SMALLEST = 1 << 17
#: So many bytes are kept at most, in pieces of half of it or less.
ROOM = 1 << 26

#: By identity, the longest kept first. No lock: memory is given back wherever the last view dies,
#: also in a thread that is just taking some, or in a fork; so each access is one atomic operation.
_kept: dict[int, np.ndarray[Any, Any]] = {}


class _Block:
    """The memory of one array: what owns it while any view of it lives, and then gives it back."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: np.ndarray[Any, Any], used: np.ndarray[Any, Any]) -> None:
        self.memory = memory
        self.__array_interface__ = used.__array_interface__

    def __del__(self) -> None:
        _keep(self.memory)


def empty(xp: Any, shape: Sequence[int], dtype: Any) -> Any:
    """``xp.empty(shape, dtype)``."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if xp is not np or not _SMALLEST <= size <= ROOM // 2:
        return xp.empty(shape, dtype)
    memory = _taken(size)
    return np.asarray(_Block(memory, memory[:size].view(dtype).reshape(shape)))


def _taken(size: int) -> np.ndarray[Any, Any]:
    """A piece of at least ``size`` bytes, and not many more, that begins at a cache line."""
    for key, memory in list(_kept.items()):
        if size <= memory.size <= size + size // 4 and _kept.pop(key, None) is not None:
            return memory
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def give_back() -> None:
    """Give memory that the C library keeps, and nobody uses, back to the system; where that can be
    asked for."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Any:
    """The function of glibc, which has it alone."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def _keep(memory: np.ndarray[Any, Any]) -> None:
    """Keep a piece for later, and let go of those that have lain longest where it is too much."""
    _kept[id(memory)] = memory
    for key in list(_kept):
        if sum(m.size for m in list(_kept.values())) <= ROOM:
            break
        _kept.pop(key, None)
