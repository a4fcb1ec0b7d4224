"""Rows that are matrices, each transposed: how programs put channels last, or back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.tape import Primitive

# Numbers that are worth a piece of work of their own.
_PIECE = 1 << 16


def _value(xp: Any, x: Any, high: int) -> Any:
    rows, columns = x.shape
    turned = x.reshape(rows, high, columns // high).transpose(0, 2, 1)
    return turned.reshape(rows, columns)


def _loops(xp: Any, x: Any, high: int) -> Any:
    rows, columns = x.shape
    if x.dtype != np.float32:
        return _value(xp, x, high)
    x = x if x.flags.c_contiguous else x.copy()
    (found,) = xp.routine(
        "layout.transposed_rows", (high, columns // high), [x], [((rows, columns), np.float32)],
        rows, max(1, _PIECE // columns), x.size,
    )  # fmt: skip
    return found


#: Each row of ``x``, ``high`` times as many numbers, as the transpose of that matrix.
TRANSPOSED_ROWS = Primitive("transposed_rows", _value, {"x": None}, moves=True, loops=_loops)
