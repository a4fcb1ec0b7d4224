"""Factors of many products of few rows, as the weights of an unrolled loop: packed once.

BLAS packs the second factor anew in each product, and a loop over steps has the same one in all of
them. Here it is copied into panels before the first, and the products are routines that read these
(c/packed_product.h).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.program.loop_ir import (
    Map,
    Operation,
    Product,
    Reduce,
    Routine,
    Storage,
    View,
    outputs_of,
    strides_of,
)

# Products with one factor from which on it is packed.
_FEWEST = 4
# The columns of a panel, as in c/packed_product.h.
_PANEL = 32
# The fewest and the most rows; and sizes of a factor that is worth it, the longest sum among them.
_FEW, _ROWS = 4, 128
_LEAST, _MOST = 16, 1024
# Rows of a part of a product, and its multiplications from which on there are parts.
_PART = 8
_SHARED = 1_000_000

#: Makes a new value in memory of its own.
New = Callable[[Sequence[int], np.dtype[Any]], View]


def with_packed_factors(operations: Sequence[Operation], new: New) -> list[Operation]:
    """The operations; products with few rows that share their second factor are routines."""
    groups: list[list[Product]] = []
    open_groups: dict[View, list[Product]] = {}  # of factors that have not changed since
    for op in operations:
        if type(op) is Product and _is_fit(op):
            factor = _matrix(op.b)
            if factor not in open_groups:
                groups.append(open_groups.setdefault(factor, []))
            open_groups[factor].append(op)
        for out in _outputs(op):
            for factor in [f for f in open_groups if f.storage is out.storage]:
                del open_groups[factor]
    first = {group[0]: group for group in groups if len(group) >= _FEWEST}
    if not first:
        return list(operations)
    packed: dict[Product, View] = {}
    front: list[Operation] = []  # so that nothing lies between the steps of a loop
    found: list[Operation] = []
    written: set[Storage] = set()
    for op in operations:
        if type(op) is Product and op in first:
            place = found if op.b.storage in written else front
            panels = _panels(_matrix(op.b), new, place, op.where)
            packed.update(dict.fromkeys(first[op], panels))
        if type(op) is Product and op in packed:
            found.append(_routine(op, packed[op]))
        else:
            found.append(op)
        written.update(view.storage for view in _outputs(op))
    return front + found


def _outputs(op: Operation) -> Sequence[View]:
    return (op.out,) if isinstance(op, Map | Reduce) else outputs_of(op)


def _is_fit(op: Product) -> bool:
    *batch, m, n = op.out.shape
    k = op.a.shape[-1]
    return (
        op.out.dtype == np.float32
        and math.prod(batch) == 1
        and _FEW <= m <= _ROWS
        and n >= _LEAST
        and _LEAST <= k <= _MOST
    )


def _matrix(view: View) -> View:
    """A stack of one matrix as a matrix."""
    return View(view.storage, view.shape[-2:], view.strides[-2:], view.offset)


def _panels(b: View, new: New, found: list[Operation], where: str) -> View:
    """``b`` in panels, [panel, k, column], with zeros for the columns that the last one lacks."""
    (k, n), (r, c) = b.shape, b.strides
    whole, rest = divmod(n, _PANEL)
    panels = new((whole + bool(rest), k, _PANEL), b.dtype)
    panels.storage.in_parts = bool(rest)

    def put(first: int, shape: tuple[int, ...], x: Any) -> None:
        out = View(panels.storage, shape, strides_of((1, k, _PANEL)), first)
        found.append(Map(out, "copy", (x,), 1, where))

    if whole:
        shape = whole, k, _PANEL
        put(0, shape, View(b.storage, shape, (_PANEL * c, r, c), b.offset))
    if rest:
        shape, start = (1, k, rest), whole * k * _PANEL
        put(start, shape, View(b.storage, shape, (0, r, c), b.offset + whole * _PANEL * c))
        put(start + rest, (1, k, _PANEL - rest), b.dtype.type(0))
    return panels


def _routine(op: Product, panels: View) -> Routine:
    m, n = op.out.shape[-2:]
    k = op.a.shape[-1]
    row, step = op.a.strides[-2:]
    piece = _PART if m * n * k > _SHARED else m
    sizes = n, k, row, step
    inputs = _matrix(op.a), panels
    header = "packed_product"
    out = View(op.out.storage, (m, n), (n, 1), op.out.offset)
    return Routine(header, header, sizes, inputs, (out,), m, piece, m * n * k // 8, op.where, (0,))
