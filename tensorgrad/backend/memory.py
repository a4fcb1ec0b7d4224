"""Large arrays of the CPU in memory that is kept when they are gone.

The C library gives large pieces back to the system at once, and fresh pages cost more than most of
what is computed in them: a third of the time of an LSTM's training step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Arrays of fewer bytes are left to the C library, which keeps their memory itself.
_SMALLEST = 1 << 17
#: So many bytes are kept at most, in pieces of half of it or less.
ROOM = 1 << 26

_lock = threading.RLock()  # what is given back may be so while this very thread holds it
_kept: list[np.ndarray[Any, Any]] = []


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
    with _lock:
        for k, memory in enumerate(_kept):
            if size <= memory.size <= size + size // 4:
                return _kept.pop(k)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _keep(memory: np.ndarray[Any, Any]) -> None:
    """Keep a piece for later, and let go of those that have lain longest where it is too much."""
    with _lock:
        _kept.append(memory)
        while sum(m.size for m in _kept) > ROOM:
            _kept.pop(0)
