"""Version counters: when memory was last written to in place.

Tape positions are the clock. The version of some memory is the position of the last write to it, so
a saved value is stale if that write came after its node was made: a comparison of two numbers.
Saving costs nothing, only those who write pay, and views are covered since they share the owner of
the memory. What is written through NumPy behind the engine's back is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from itertools import count
from typing import Any

from tensorgrad import backend
from tensorgrad.backend.base import Array

#: The next tape position. They are counted downwards so that a heap yields the latest first.
next_position = count(0, -1).__next__

#: id of the owner of some memory -> [its version, a weak reference to the owner]
VERSIONS: dict[int, list[Any]] = {}

#: The latest of all versions. The saved values of nodes made since then cannot be stale: in
#: training, where every step ends with writing the parameters, that is all of them.
LATEST_VERSION = 0


def increment_versions(arrays: Iterable[Array | None]) -> None:
    """Note that the memory of ``arrays`` has just been written to; ``None`` is passed over."""
    global LATEST_VERSION
    LATEST_VERSION = now = next_position()
    for array in arrays:
        if array is None:
            continue
        owner = array
        if type(array) not in backend.BACKENDS or array.base is not None:
            owner = backend.of(array).memory_owner(array)
        key = id(owner)
        entry = VERSIONS.get(key)
        if entry is not None:
            entry[0] = now
        else:
            VERSIONS[key] = [now, weakref.ref(owner, partial(VERSIONS.pop, key))]


def changed_since(array: Array, position: int) -> bool:
    """Whether the memory of ``array`` was written to in place after ``position``."""
    entry = VERSIONS.get(id(backend.of(array).memory_owner(array)))
    return entry is not None and entry[0] < position
