"""Linear maps along one axis of which each result is made of few elements: resampling, averages.

A map is four arrays: places and weights, of shape (elements of a result, results), and the same of
its transpose. So the gradient is a map of the same kind, and there are gradients of any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.dtypes import float32, float64
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.windows import along, taken
from tensorgrad.tape import Primitive, apply

Array = np.ndarray[Any, Any]
#: places and weights of a map, and of its transpose
Map = tuple[Array, Array, Array, Array]


def made_map(rows: Array, columns: Array, weights: Array, results: int, size: int) -> Map:
    """The map that adds to result ``rows[i]`` element ``columns[i]`` times ``weights[i]``."""
    kept = weights != 0
    rows, columns, weights = rows[kept], columns[kept], weights[kept]
    return *_lined_up(rows, columns, weights, results), *_lined_up(columns, rows, weights, size)


def _lined_up(rows: Array, columns: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """For each row its columns and weights, one below the other, equally many for all rows.

    Where there are fewer, the last has its weight in several parts: a weight of 0 would make NaN
    of an infinite element.
    """
    order = np.lexsort((columns, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    counts = np.bincount(rows, minlength=count)
    most = max(1, int(counts.max()))
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    places = np.zeros((most, count), np.int64)
    found = np.zeros((most, count))
    places[rank, rows], found[rank, rows] = columns, weights
    last = np.maximum(counts - 1, 0)
    every = np.arange(count)
    beyond = np.arange(most)[:, None] >= last
    places = np.where(beyond, places[last, every], places)
    found = np.where(beyond, found[last, every] / (most - last), found)
    return places, found


def _value(
    xp: Any,
    x: Any,
    places: Any,
    weights: Any,
    back_places: Any,
    back_weights: Any,
    axis: int,
    sparse: bool,
) -> Any:
    y = None
    for at, weight in zip(places, weights):
        part = taken(xp, x, at, axis)
        weight = along(weight, axis, x.ndim)
        if sparse:  # what takes no part gives 0, whatever it meets
            part = xp.where(weight != 0, part, 0)
        part = part * weight
        y = part if y is None else xp.add(y, part, out=y)
    return y


_WEIGHTED_TAKE: Primitive = Primitive(
    "weighted_take",
    _value,
    {
        "x": lambda g, places, weights, back_places, back_weights, axis, sparse: apply(
            _WEIGHTED_TAKE,
            (g, back_places, back_weights, places, weights),
            {"axis": axis, "sparse": sparse},
        ),
        "places": None,
        "weights": None,
        "back_places": None,
        "back_weights": None,
    },
    half_in_float32=True,
)


def weighted_take(x: Any, axis: int, of: Map) -> Any:
    """``x``, a tensor of floats, mapped along ``axis``."""
    kind = float64 if x.dtype == float64 else float32
    sparse = not (of[1].all() and of[3].all())
    arrays = [beside(x, a.astype(kind) if a.dtype.kind == "f" else a) for a in of]
    return apply(_WEIGHTED_TAKE, (x, *arrays), {"axis": axis, "sparse": sparse})
