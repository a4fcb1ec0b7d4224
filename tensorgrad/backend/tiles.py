"""What kernels/attention.cu serves: its launcher asks, and whoever makes programs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tensorgrad.dtypes import HALVES, float32
from tensorgrad.dtypes import bool as boolean

#: Features of a head that the kernels are made for; those that a call has not are zeros.
FEATURES = (64, 128)
#: Axes of heads.
AXES = 3


def serves(q: Any, k: Any, v: Any, mask: Any) -> bool:
    """Whether these arrays, or what stands for them in a program, can go tile by tile.

    That is float32 and 16-bit floats, heads of up to 128 features and up to three axes of heads,
    with a mask of truth values or of their dtype; and not what is empty.
    """
    given = [(x.shape, x.dtype) for x in (q, k, v)]
    return _serves(*given, None if mask is None else (mask.shape, mask.dtype))


@lru_cache(maxsize=1024)
def _serves(q: Any, k: Any, v: Any, mask: Any) -> bool:
    shapes, dtypes = zip(q, k, v, strict=True)
    dtype = dtypes[0]
    if dtypes != (dtype,) * 3 or (dtype != float32 and dtype not in HALVES):
        return False
    if mask is not None and mask[1] not in (boolean, dtype):
        return False
    return (
        max(shapes[0][-1], shapes[2][-1]) <= FEATURES[-1]
        and 0 not in (*shapes[0], *shapes[1], *shapes[2])
        and len(heads(*shapes, None if mask is None else mask[0])) <= AXES
    )


@lru_cache(maxsize=1024)
def heads(*shapes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes before the last two of arrays of these shapes, broadcast."""
    return np.broadcast_shapes(*[shape[:-2] for shape in shapes if shape is not None])
