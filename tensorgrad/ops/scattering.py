"""Writing and reducing at indices along one axis, as PyTorch's ``scatter`` and its kin do.

``scatter_add`` is in ``indexing``, where the gradients of ``gather`` need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.elementwise import where
from tensorgrad.ops.indexing import (
    beside,
    checked_places,
    gathered,
    index_put,
    integer_indices,
    own_indices,
    scatter_add,
    take,
)
from tensorgrad.ops.scans import linear_recurrence
from tensorgrad.ops.shaping import broadcast_to, concat, reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["index_add", "scatter", "scatter_reduce"]

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _flat_places(xp: Any, indices: Any, axis: int, shape: tuple[int, ...]) -> Any:
    """For each element of ``indices`` its place in the flattened target."""
    places = xp.where(indices < 0, indices + shape[axis], indices)
    stride = 1
    total: Any = 0
    for k in range(len(shape) - 1, -1, -1):
        if k == axis:
            part = places * stride
        else:
            own = [1] * len(shape)
            own[k] = indices.shape[k]
            part = (xp.arange(indices.shape[k]) * stride).reshape(own)
        total = total + part
        stride *= shape[k]
    return total.reshape(-1)


_FLAT_PLACES = Primitive("flat_places", _flat_places, {"indices": None})


def _places(name: str, x: Any, indices: Any, src: Any, axis: int) -> tuple[Any, Any]:
    """Checked: where in the flattened ``x`` each element goes, and the flattened elements."""
    place, indices = checked_places(name, x, indices, axis)
    if shape_of(src) not in ((), indices.shape):
        raise ShapeError(
            f"{name}: src must be a number or have the shape of the indices; got "
            f"{shape_of(src)} and {indices.shape}"
        )
    places = apply(_FLAT_PLACES, (indices,), {"axis": place, "shape": shape_of(x)})
    return places, src if shape_of(src) == () else reshape(src, (-1,))


def _scatter_reference(x: Any, indices: Any, src: Any, axis: int) -> Any:
    y = x.copy()
    np.put_along_axis(y[tuple(slice(n) for n in _limits(x, indices, axis))], indices, src, axis)
    return y


def _limits(x: Any, indices: Any, axis: int) -> list[int]:
    limits = list(indices.shape)
    limits[axis] = x.shape[axis]
    return limits


@operation(
    cases=[
        lambda s: s(s.real(3, 4), np.array([[0, 2], [3, 1], [1, 0]]), s.real(3, 2), 1),
        lambda s: s(s.real(3, 4), np.array([[2, 0, -1]]), s.real(1, 3), 0),
        lambda s: s(s.real(3, 4), np.array([[2, 0, 1]]), 0.5, 0),
        lambda s: s(s.real(3), np.zeros(0, np.int64), s.real(0), 0),
    ],
    reference=_scatter_reference,
    torch=None,
    complex=True,
)
def scatter(x: Any, indices: Any, src: Any, /, axis: int) -> Tensor:
    """A copy of ``x`` with ``out[i, indices[i, j]] = src[i, j]`` for axis 1, and so on.

    indices: with as many axes as ``x``, along all others no longer than it. src: of the shape of
    the indices, or a number. Where several meet the last counts, and gets the gradient.
    """
    places, values = _places("scatter", x, indices, src, axis)
    return reshape(index_put(reshape(x, (-1,)), places, values), shape_of(x))


def _add_reference(x: Any, indices: Any, src: Any, axis: int = 0) -> Any:
    y = np.moveaxis(x.copy(), axis, 0)
    np.add.at(y, indices, np.moveaxis(src, axis, 0))
    return np.moveaxis(y, 0, axis)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(5, high=3), s.real(5, 4)),
        lambda s: s(s.real(3, 4), s.ints(2, high=4), s.real(3, 2), axis=1),
        lambda s: s(s.real(3, 4), np.zeros(0, np.int64), s.real(0, 4)),
    ],
    reference=_add_reference,
    torch=None,
    complex=True,
)
def index_add(x: Any, indices: Any, src: Any, /, axis: int = 0) -> Tensor:
    """A copy of ``x`` to whose slices ``indices`` along ``axis`` those of ``src`` are added.

    indices: a vector of integers; a slice named twice gets both sums. src: of the shape of ``x``
    but along ``axis``, where it is as long as the indices.
    """
    shape, count = shape_of(x), shape_of(indices)
    wanted = None
    if len(count) == 1 and shape:
        wanted = list(shape)
        wanted[axis] = count[0]
    if wanted is None or shape_of(src) != tuple(wanted):
        raise ShapeError(
            "index_add: the indices must be a vector, and src of the shape of x but for as many "
            f"slices as there are indices; got {count} and {shape_of(src)} for {shape}"
        )
    along = [1] * len(shape)
    along[axis] = count[0]
    indices = reshape(integer_indices("index_add", x, own_indices(indices)), along)
    return scatter_add(x, broadcast_to(indices, wanted), src, axis)


# --- reductions -----------------------------------------------------------------------------------


def _extreme_value(xp: Any, items: Any, bins: Any, size: int, largest: bool) -> Any:
    y = xp.full((size,), items.dtype.type(-np.inf if largest else np.inf), items.dtype)
    (xp.maximum if largest else xp.minimum).at(y, bins, items)
    return y


def _shares_value(xp: Any, items: Any, bins: Any, y: Any) -> Any:
    """The part of a bin's gradient that each element gets: equal extremes share it."""
    met = (items == y[bins]) | (items != items)
    counts = xp.bincount(bins, met, y.size)
    return (met / counts[bins]).astype(items.dtype)


_SHARES = Primitive("shares_of_extremes", _shares_value, {"items": None, "bins": None, "y": None})
_EXTREME: Primitive = Primitive(
    "extreme_of_bins",
    _extreme_value,
    {
        "items": lambda g, items, bins, y: gathered(g, bins, 0) * apply(_SHARES, (items, bins, y)),
        "bins": None,
    },
    half_in_float32=True,
)


def _counted(bins: Any, size: int, like: Any) -> Any:
    ones = np.ones(shape_of(bins), like.dtype)
    return scatter_add(beside(like, np.zeros(size, like.dtype)), bins, beside(like, ones), 0)


_BY_BIN = Primitive("by_bin", lambda xp, bins: xp.argsort(bins, kind="stable"), {"bins": None})


def _ends(xp: Any, bins: Any) -> Any:
    """Where in sorted ``bins`` one begins, as truth values."""
    first = xp.ones(1, bool)
    return xp.concatenate([first, bins[1:] != bins[:-1]]) if bins.size else xp.zeros(0, bool)


_BEGINS = Primitive("begins_of_bins", _ends, {"bins": None})


def _product_of_bins(items: Any, bins: Any, size: int) -> Any:
    """Running products of sorted elements that begin anew with each bin: no division, so that
    zeros have their right gradients, of any order."""
    order = apply(_BY_BIN, (bins,))
    items, bins = take(items, order), take(bins, order)
    begins = apply(_BEGINS, (bins,))
    factors = where(begins, 0.0, items)
    running = linear_recurrence(factors, where(begins, items, 0.0))
    empty = beside(items, np.ones(size, items.dtype))
    return index_put(empty, bins, running)  # the last of a bin counts


def _reduced(items: Any, bins: Any, size: int, reduce: str) -> Any:
    if reduce in ("amax", "amin"):
        return apply(_EXTREME, (items, bins), {"size": size, "largest": reduce == "amax"})
    if reduce == "prod":
        return _product_of_bins(items, bins, size)
    return scatter_add(beside(items, np.zeros(size, items.dtype)), bins, items, 0)


def _reduce_reference(
    x: Any, indices: Any, src: Any, axis: int, reduce: str = "sum", include_self: bool = True
) -> Any:
    y = x.copy()
    found: dict[tuple[int, ...], list[float]] = {}
    for place in np.ndindex(*indices.shape):
        target = list(place)
        target[axis] = indices[place]
        found.setdefault(tuple(target), []).append(src[place])
    functions: dict[str, Any] = {
        "sum": np.sum,
        "prod": np.prod,
        "mean": np.mean,
        "amax": np.max,
        "amin": np.min,
    }
    for where_, values in found.items():
        y[where_] = functions[reduce]([x[where_], *values] if include_self else values)
    return y


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.real(3, 6), 1),
        lambda s: s(s.real(3, 4), s.ints(5, 2, high=3), s.real(5, 2), 0, "prod"),
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.real(3, 6), 1, "mean"),
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.distinct(3, 6), 1, "amax"),
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.real(3, 6), 1, "sum", False),
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.real(3, 6), 1, "mean", False),
        lambda s: s(s.real(3, 4), s.ints(3, 6, high=4), s.distinct(3, 6), 1, "amin", False),
    ],
    reference=_reduce_reference,
    torch=None,
    complex=False,
)
def scatter_reduce(
    x: Any, indices: Any, src: Any, /, axis: int, reduce: str = "sum", include_self: bool = True
) -> Tensor:
    """Each element of ``x`` and what ``src`` has for its place, reduced to one, as in PyTorch.

    indices, src: as for ``scatter_add``. reduce: "sum", "prod", "mean", "amax" or "amin"; equal
    extremes share the gradient. include_self: whether the element of ``x`` takes part; where
    nothing comes to a place it stays. Raises ValueError for another ``reduce``.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"scatter_reduce: reduce must be one of {REDUCTIONS}; got {reduce!r}")
    places, items = _places("scatter_reduce", x, indices, src, axis)
    flat = reshape(x, (-1,))
    size = flat.shape[0]
    bins = places
    if include_self:
        own = beside(x, np.arange(size))
        items, bins = concat([flat, items]), concat([own, places])
    found = _reduced(items, bins, size, reduce)
    counts = _counted(bins, size, found)
    if reduce == "mean":
        found = found / where(counts == 0, 1.0, counts)
    if not include_self:
        found = where(counts == 0, flat, found)
    return reshape(found, shape_of(x))
