"""Products that add or multiply as they write: a bias, or the derivative of an activation.

A nest behind a product reads all that this has written. Where it is one addition or multiplication
by what has a row for all rows, or a row for each, the product does it before it writes a tile, and
nobody else reads what there would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorgrad.program.executors.c_products import (
    blocks_of,
    is_small,
    is_tiled,
    layout,
    product_of,
)
from tensorgrad.program.loop_ir import (
    Map,
    Operation,
    Product,
    Reduce,
    Routine,
    Storage,
    View,
    outputs_of,
)

_HOW = {"add": 1, "multiply": 2}


def with_epilogues(operations: Sequence[Operation], kept: set[Storage]) -> list[Operation]:
    """The operations; products with an addition or multiplication behind them are routines.

    kept: storages that somebody sees after a replay.
    """
    uses = _Uses({}, {}, kept)
    for at, op in enumerate(operations):
        for view in op.reads if type(op) is Map else op.views:
            uses.readers.setdefault(view.storage, set()).add(at)
        for view in (op.out,) if isinstance(op, Map | Reduce) else outputs_of(op):
            uses.writers.setdefault(view.storage, []).append(at)
    found: list[Operation | None] = list(operations)
    for at, op in enumerate(operations):
        if type(op) is not Product or not uses.is_fit(op):
            continue
        (reader,) = uses.readers[op.out.storage]
        m = found[reader]  # a routine already, where it adds two products: one of them is read
        routine = uses.joined(at, op, reader, m) if type(m) is Map and m.name in _HOW else None
        if routine is not None:
            found[at], found[reader] = None, routine
    return [op for op in found if op is not None]


@dataclass(slots=True)
class _Uses:
    """The numbers of the operations that read and write each storage."""

    readers: dict[Storage, set[int]]
    writers: dict[Storage, list[int]]
    kept: set[Storage]

    def is_fit(self, op: Product) -> bool:
        """Whether it is made of tiles, and one operation alone reads it."""
        return (
            product_of(op)[0] == 1
            and is_tiled(op)
            and not is_small(op)
            and self._is_plain(op.out)
            and len(self.readers.get(op.out.storage, ())) == 1
            and op.out.storage not in self.kept
        )

    def _is_plain(self, view: View) -> bool:
        """Whether it is the whole of a temporary storage, written once."""
        storage = view.storage
        return (
            storage.role == "temporary"
            and not storage.in_parts
            and view.contiguous
            and (view.offset, view.size) == (0, storage.size)
            and len(self.writers[storage]) == 1
        )

    def joined(self, at: int, op: Product, reader: int, m: Map) -> Routine | None:
        """Both as one routine, if that can be; in place of ``m``."""
        _, rows, k, columns = product_of(op)
        if len(m.views) != 2 or len(m.inputs) != 2 or not self._is_plain(m.out):
            return None
        mine = [x.storage is op.out.storage for x in m.views]
        if sum(mine) != 1 or m.out.dtype != np.float32:
            return None
        x, other = m.views if mine[0] else m.views[::-1]
        more = other.reshape((rows, columns))
        if not x.contiguous or x.size != op.out.size or more is None:
            return None
        if more.strides[1] != 1 or more.storage.dtype != np.float32:
            return None
        factors = {op.a.storage, op.b.storage}
        if m.out.storage in factors or any(
            at < w < reader for s in factors for w in self.writers.get(s, ())
        ):
            return None
        (ta, lda), (tb, ldb) = layout(op.a), layout(op.b)
        high, wide = blocks_of(op)
        blocks = -(-rows // high) * -(-columns // wide)
        sizes = (
            rows, columns, k, ta, lda, tb, ldb, high, wide, _HOW[m.name], more.strides[0],
        )  # fmt: skip
        return Routine(
            "products", "product_with", sizes, (op.a, op.b, more), (m.out,), blocks, 1,
            rows * columns * k // 8, op.where,
        )  # fmt: skip
