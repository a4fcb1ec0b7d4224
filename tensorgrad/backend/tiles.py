"""What kernels/attention.cu serves: its launcher asks, and whoever makes programs."""

from __future__ import annotations

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
    with a mask of truth values, of their dtype or of float32; and not what is empty.
    """
    dtype = q.dtype
    given = [x.shape[:-2] for x in (q, k, v, mask) if x is not None]
    return bool(
        (dtype == float32 or dtype in HALVES)
        and dtype == k.dtype == v.dtype
        and max(q.shape[-1], v.shape[-1]) <= FEATURES[-1]
        and min(q.size, k.size, v.size) > 0
        and len(np.broadcast_shapes(*given)) <= AXES
        and (mask is None or mask.dtype in (boolean, float32, dtype))
    )
