"""Updates of those rows of a table that were looked up; the others are not even read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.dtypes import WIDE_FLOATS, float32
from tensorgrad.ops.parts import put_rows
from tensorgrad.optim.update import Rule, Scratch, SymbolicNumbers, watching
from tensorgrad.sparse import sums_of_equals
from tensorgrad.tape import Primitive

# Elements of a piece of work, as in program/executors/c_text.py; and bytes of a row that a thread
# has room for.
_PIECE, _ROOM = 1 << 15, 1 << 16
# A table of 2^16 places is 256 KB, which the second cache of most processors holds.
_CACHED_BITS = 16


#: ``in_place(xp, p, keys, rows, **options)`` writes down an update of rows whose numbers may
#: repeat, by a routine of its own; it gives False where it has none.
InPlace = Callable[..., bool]


def primitive_of_rows(
    name: str, states: int, rule: Rule, in_place: InPlace | None = None
) -> Primitive:
    """The primitive that applies ``rule`` to some rows of one parameter.

    Its inputs are the step count and the ``states`` flat arrays, as for ``update_primitive``, the
    parameter, the numbers of the rows, and the rows of the gradient. All but the last two are
    overwritten. Where numbers may repeat (``repeated``) rows of one number are added up first, and
    numbers below 0 name no row.

    in_place: how programs compute that, where this is another way than by reading the rows,
        applying the rule and writing them.
    """

    def value(
        xp: Any, step: Any, *arrays: Any, scratch: Scratch, repeated: bool, **options: Any
    ) -> Any:
        p, keys, g = arrays[states:]
        count = None
        if step is not None:
            count = int(step) + 1
            step[()] = count
        if scratch.options != options:
            scratch.update = rule(xp, scratch.numbers, **options)
            scratch.options = options
        if repeated:
            keep = keys >= 0
            keys, g = sums_of_equals(xp, keys[keep], g[keep])
        if not len(keys):
            return p
        whole = [None if s is None else s[: p.size].reshape(p.shape) for s in arrays[:states]]
        own = [None if s is None else s.take(keys, axis=0) for s in whole]
        rows = p.take(keys, axis=0)
        g = g.astype(scratch.dtype, copy=False)
        u, w = xp.empty(g.shape, g.dtype), xp.empty(g.shape, g.dtype)
        run = context.copy().run
        run(scratch.update, count, rows.astype(g.dtype, copy=False), g, u, w, *own)
        xp.subtract(rows, u, out=rows)
        put_rows(p, keys, rows)
        for s, part in zip(whole, own, strict=True):
            if s is not None:
                put_rows(s, keys, part)
        return p

    def loops(
        xp: Any, step: Any, *arrays: Any, scratch: Scratch, repeated: bool, **options: Any
    ) -> Any:
        """What ``value`` means. Equal rows are written with equal numbers."""
        p, keys, g = arrays[states:]
        if in_place is not None and in_place(xp, p, keys, g, **options):
            return p
        there: Any = True
        if repeated:
            keys, sums, there = _summed(xp, keys, g.astype(scratch.dtype, copy=False))
            g = sums.astype(g.dtype, copy=False)
        count = None
        if step is not None:
            step += 1
            count = xp.number(step)
        update = rule(xp, SymbolicNumbers(xp, scratch.dtype), **options)
        whole = [None if s is None else s[: p.size].reshape(p.shape) for s in arrays[:states]]
        before = [None if s is None else s[keys] for s in whole]
        own = [None if s is None else s.copy() for s in before]
        rows = p[keys]
        u, w = xp.empty(g.shape, scratch.dtype), xp.empty(g.shape, scratch.dtype)
        update(count, rows, g.astype(scratch.dtype, copy=False), u, w, *own)
        p[keys] = xp.where(there, xp.subtract(rows, u), rows)
        for s, part, old in zip(whole, own, before, strict=True):
            if s is not None:
                s[keys] = xp.where(there, part, old)
        return p

    context = watching(name)
    return Primitive(
        f"{name}_of_rows",
        value,
        {"step": None, "*arrays": None},
        mutates=lambda count: range(count - 2),
        loops=loops,
        source=rule,
        live=("lr",),
    )


# --- routines of programs (c/lookup.h) ------------------------------------------------------------


def _summed(xp: Any, keys: Any, rows: Any) -> tuple[Any, Any, Any]:
    """For each of the rows a number, and the sum of all that have it; whether any row is named.

    Where a number is below 0 another takes its place, with its sum.
    """
    keys, rows = _fitting(xp, keys, rows)
    count, length = rows.shape
    following, first, named, ends = _links(xp, keys)
    (sums,) = xp.routine(
        f"lookup.row_sums_{_ending(rows)}",
        (length,),
        (rows, keys, following, first, ends),
        [(rows.shape, rows.dtype)],
        **_shared_out(count, length),
    )
    return named, sums, ends[0] >= 0


def descend(xp: Any, p: Any, keys: Any, rows: Any, rate: Any) -> bool:
    """``p[keys] -= rate * rows``, rows of one number being added up first; whether that can be."""
    count, length = rows.shape
    if not p.flags.c_contiguous or rows.dtype != p.dtype or length * p.itemsize > _ROOM:
        return False
    keys, rows = _fitting(xp, keys, rows)
    rate = xp.asarray(rate, p.dtype)
    xp.routine(
        f"lookup.descend_rows_{_ending(rows)}",
        (length,),
        (keys, rows, *_links(xp, keys)[:2], rate, p),
        [p],
        **_shared_out(count, length),
    )
    return True


def _fitting(xp: Any, keys: Any, rows: Any) -> tuple[Any, Any]:
    """Both, in the order and of the types that the routines take."""
    if rows.dtype not in WIDE_FLOATS or keys.dtype != np.int64 or not 0 < keys.size < 1 << 30:
        xp.refuse(f"sums of rows of {rows.dtype} are left to NumPy")
    return (
        keys if keys.flags.c_contiguous else keys.copy(),
        rows if rows.flags.c_contiguous else rows.copy(),
    )


def _links(xp: Any, keys: Any) -> list[Any]:
    """For each number the next place that has it, whether it is the first one, and the number that
    stands for it; the first place that names a row, and the first that does not."""
    bits, shape = _table_bits(keys.size), keys.shape
    outputs = [
        (shape, np.int32), (shape, np.uint8), (shape, np.int64), ((2,), np.int32),
        ((1 << bits,), np.int32),
    ]  # fmt: skip
    found: list[Any] = xp.routine(
        "lookup.row_links", (keys.size, bits), (keys,), outputs, cost=16 * keys.size
    )
    return found[:-1]


def _table_bits(count: int) -> int:
    """Of how many bits a place in the hash table of ``count`` numbers is.

    Few places are taken twice where the table has four for each number: a collision costs a
    mispredicted branch. A table that the second cache does not hold has two for each.
    """
    bits = (2 * count - 1).bit_length()
    return min(bits + 1, max(bits, _CACHED_BITS))


def _shared_out(count: int, length: int) -> dict[str, int]:
    """How the work on rows is shared out among threads."""
    return {"size": count, "piece": max(1, _PIECE // length), "cost": 4 * count * length}


def _ending(rows: Any) -> str:
    return "f" if rows.dtype == float32 else "d"
