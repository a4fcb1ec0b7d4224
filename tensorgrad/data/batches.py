"""What a batch is made of: parts in a tuple, a named tuple or a dict, nested at will.

At the ends are arrays or tensors [n, ...], and lists of n texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with ``function(array)`` in place of every array; texts stay as they are."""
    if isinstance(batch, tuple):
        return like(batch, [mapped(function, part) for part in batch])
    if isinstance(batch, dict):
        return {name: mapped(function, part) for name, part in batch.items()}
    return batch if are_texts(batch) else function(batch)


def like(parts: tuple[Any, ...], new: Iterable[Any]) -> tuple[Any, ...]:
    """``new`` as a tuple of the kind of ``parts``: named, if that is."""
    kind: Any = type(parts)
    return kind(*new) if hasattr(kind, "_fields") else tuple(new)


def are_texts(values: Any) -> bool:
    """Whether this is a part of a batch that consists of texts."""
    return isinstance(values, list) and bool(values) and isinstance(values[0], str | bytes)
