"""Which arrays share memory: part of what a program was captured for.

A program takes arrays apart by identity, and writes to some of them. If two of them were the same
memory at capture and are not at a replay, or the other way round, it computes something else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import backend

#: (number of one array, of the other, how far apart they begin, the strides of both)
Relation = tuple[int, int, int, tuple[int, ...], tuple[int, ...]]


def extent(array: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array and of the byte after its last one."""
    if type(array) is np.ndarray:
        start = array.__array_interface__["data"][0]
    else:
        start = int(array.data.ptr)
    low = high = start
    if not array.size:
        return start, start
    for n, step in zip(array.shape, array.strides):
        if step > 0:
            high += (n - 1) * step
        else:
            low += (n - 1) * step
    return low, high + array.itemsize


def relations(arrays: Sequence[Any]) -> tuple[Relation, ...]:
    """How those arrays that share memory lie to each other."""
    extents = [extent(a) for a in arrays]
    order = sorted(range(len(arrays)), key=lambda k: extents[k])
    found = []
    open_: list[int] = []
    for k in order:
        low, high = extents[k]
        if low == high:
            continue
        open_ = [j for j in open_ if extents[j][1] > low]
        for j in open_:
            first, second = min(j, k), max(j, k)
            a, b = arrays[first], arrays[second]
            if type(a) is np.ndarray is type(b) and not np.may_share_memory(a, b):
                continue
            apart = _start(b) - _start(a)
            found.append((first, second, apart, tuple(a.strides), tuple(b.strides)))
        open_.append(k)
    return tuple(sorted(found))


def _start(array: Any) -> int:
    if type(array) is np.ndarray:
        return int(array.__array_interface__["data"][0])
    return int(array.data.ptr)


def layout(array: Any) -> tuple[int, ...] | None:
    """How an array lies in memory: its strides; ``None`` if its elements lie in order."""
    return None if array.flags.c_contiguous else tuple(array.strides)


class Sharing:
    """Which arguments share memory with each other and with arrays outside, at capture.

    ranges: the memory of the arrays outside, as addresses in order that begin and end it by turns.
    layouts: how the arguments lie in memory, if it depends on this what else shares memory.
    """

    def __init__(self, arguments: Sequence[Any], outside: Sequence[Any], by_layout: bool) -> None:
        """by_layout: whether it depends on how arrays lie in memory what else shares memory."""
        self._outside = self._between(outside)
        self.layouts = [layout(a) for a in arguments] if by_layout else None
        self._laid = [layout(a) for a in outside] if by_layout else None
        self.among = relations(arguments)
        found = relations([*arguments, *outside])
        n = len(arguments)
        self.across = tuple(r for r in found if r[0] < n <= r[1])
        self.ranges = merged(outside)

    @staticmethod
    def _between(outside: Sequence[Any]) -> tuple[Relation, ...]:
        return relations(outside)

    def outside_holds(self, outside: Sequence[Any]) -> bool:
        """Whether the arrays outside, some of which lie elsewhere now, share memory as before."""
        if self._between(outside) != self._outside:
            return False
        if self._laid is not None and self._laid != [layout(a) for a in outside]:
            return False
        self.ranges = merged(outside)
        return True

    def holds(self, arguments: Sequence[Any], outside: Sequence[Any]) -> bool:
        """Whether these arguments share memory as those at capture did, and lie in it so.

        How the arguments share it among themselves is part of the key of a call already.
        """
        if self.layouts is not None and self.layouts != [layout(a) for a in arguments]:
            return False
        if not self.across:
            for a in arguments:
                low, high = extent(a)
                k = bisect_right(self.ranges, low)
                if low < high and (k % 2 or (k < len(self.ranges) and self.ranges[k] < high)):
                    break  # their ranges meet; whether they share memory is to be seen
            else:
                return True
        n = len(arguments)
        return self.across == tuple(
            r for r in relations([*arguments, *outside]) if r[0] < n <= r[1]
        )


def merged(arrays: Sequence[Any]) -> list[int]:
    """The memory of arrays as one list of addresses, at which it begins and ends by turns."""
    found: list[int] = []
    for low, high in sorted(extent(a) for a in arrays):
        if low == high:
            continue
        if found and low <= found[-1]:
            found[-1] = max(found[-1], high)
        else:
            found += [low, high]
    return found


def device_of(array: Any) -> str:
    """Where an array lies."""
    return "cpu" if type(array) is np.ndarray else backend.of(array).device_of(array)
