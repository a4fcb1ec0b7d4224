"""The form in which an index travels: a template with places for its arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorgrad.backend.base import Array

#: Where an index array belongs in a template; see shaping.Part for the other parts.
ARRAY = "array"
#: A slice that takes all of an axis.
ALL = (None, None, None)


def filled(template: Sequence[Any], indices: Sequence[Any]) -> tuple[Any, ...]:
    """The template with its places taken by the index arrays: what NumPy and CuPy understand."""
    arrays = iter(indices)
    return tuple(
        [
            next(arrays) if part == ARRAY
            else slice(*part) if type(part) is tuple
            else part
            for part in template
        ]
    )  # fmt: skip


def along_axis(xp: Any, indices: Array, axis: int) -> tuple[Any, ...]:
    """The full index that selects ``indices`` along ``axis`` and itself on the others."""
    n = indices.ndim
    return tuple(
        [
            indices if i == axis
            else xp.arange(size).reshape((1,) * i + (size,) + (1,) * (n - 1 - i))
            for i, size in enumerate(indices.shape)
        ]
    )  # fmt: skip
