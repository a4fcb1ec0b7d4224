"""Walking over the tape: which nodes lead to a tensor, and what they keep."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.tape import Node


def nodes_of(roots: Iterable[Node], most: int | None = None) -> set[Node]:
    """The nodes from which ``roots`` were computed, these included.

    most: stop when there are more than so many.
    """
    found: set[Node] = set()
    waiting = list(roots)
    while waiting and (most is None or len(found) <= most):
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [parent for _, _, parent in node.edges or ()]
    return found


def saved_bytes(nodes: Iterable[Node], besides: Collection[int] = ()) -> int:
    """The bytes of the memory that ``nodes`` keep for the gradient rules, each once.

    besides: ids of memory owners that do not count, as those of parameters.
    """
    owners: dict[int, int] = {}
    for node in nodes:
        for _, saved, _ in node.edges or ():
            for value in saved:
                for array in value if isinstance(value, tuple) else (value,):
                    if is_array(array):
                        owner = backend.of(array).memory_owner(array)
                        if id(owner) not in besides:
                            owners[id(owner)] = int(owner.nbytes)
    return sum(owners.values())
