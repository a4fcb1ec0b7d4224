"""Order: sorting, ranking and searching along an axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.indexing import GATHER, gathered, take, take_along_axis
from tensorgrad.ops.shaping import along, normalize_axis, shape_of, sliced
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["argsort", "searchsorted", "sort", "topk", "unique_values"]


def _argsort_value(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    # Equal elements must keep their order, so the input is reversed before and the result after.
    order = xp.flip(xp.argsort(xp.flip(x, axis), axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - order


_ARGSORT = Primitive("argsort", _argsort_value, {"x": None}, half_in_float32=True)


@operation(
    cases=[
        lambda s: s(s.distinct(5)),
        lambda s: s(s.distinct(3, 4), axis=0),
        lambda s: s(s.distinct(3, 4), axis=-2),
        lambda s: s(s.ints(9, high=3)),
        lambda s: s(s.distinct(0, 3)),
    ],
    reference=lambda x, axis=-1: np.argsort(x, axis, kind="stable"),
    torch=None,
    gradient=False,
    primitive=_ARGSORT,
)
def argsort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """The integers that put ``x`` in order along ``axis``; NaN is the largest number.

    The sort is always stable: equal elements keep their order, descending too.
    """
    place = normalize_axis("argsort", axis, x)
    return apply(_ARGSORT, (x,), {"axis": place, "descending": descending})


@operation(
    cases=[
        lambda s: s(s.distinct(5)),
        lambda s: s(s.distinct(3, 4), axis=0),
        lambda s: s(s.distinct(3, 4), axis=-1, descending=True),
        lambda s: s(s.distinct(2, 0)),
    ],
    reference=lambda x, axis=-1, descending=False: (
        np.flip(np.sort(x, axis), axis) if descending else np.sort(x, axis)
    ),
    torch=None,
    primitive=GATHER,
    complex=False,
)
def sort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """``x`` in order along ``axis``; NaN is the largest number. Always stable."""
    place = normalize_axis("sort", axis, x)
    order = argsort(x, axis=place, descending=descending)
    return gathered(x, order, place, distinct=True)


def _topk_reference(x: Any, k: int, axis: int = -1, largest: bool = True) -> Any:
    order = np.argsort(-x if largest else x, axis, kind="stable")
    order = np.take(order, np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order


@operation(
    cases=[
        lambda s: s(s.distinct(5), 2),
        lambda s: s(s.distinct(3, 4), 3, axis=0),
        lambda s: s(s.distinct(3, 4), 1, axis=-1, largest=False),
        lambda s: s(s.distinct(3, 4), 0),
    ],
    reference=_topk_reference,
    torch=None,
    primitive=GATHER,
    complex=False,
)
def topk(x: Any, /, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The ``k`` largest (or smallest) elements along ``axis`` in order, and where they are.

    Of equal elements the first come first. Raises ValueError if the axis has fewer than ``k``.
    """
    place = normalize_axis("topk", axis, x)
    if not 0 <= k <= shape_of(x)[place]:
        raise ValueError(
            f"topk: k must be between 0 and the size of axis {place} of shape {shape_of(x)}; got "
            f"{k}"
        )
    order = argsort(x, axis=place, descending=largest)
    order = sliced(order, along(place, (None, k, None)))
    return gathered(x, order, place, distinct=True), order


def _searchsorted_value(xp: Any, x: Any, values: Any, side: str) -> Any:
    if x.ndim == 1:
        return xp.searchsorted(x, values, side)
    if isinstance(xp, Namespace):
        xp.refuse("rows are searched one after the other")
    rows = math.prod(x.shape[:-1])
    found = xp.zeros((rows, values.shape[-1]), np.int64)
    pairs = zip(x.reshape(rows, x.shape[-1]), values.reshape(found.shape), strict=True)
    for k, (row, some) in enumerate(pairs):
        found[k] = xp.searchsorted(row, some, side)
    return found.reshape(values.shape)


_SEARCHSORTED = Primitive(
    "searchsorted",
    _searchsorted_value,
    {"x": None, "values": None},
    promotion="same",
    half_in_float32=True,
)


def _searchsorted_reference(x: Any, values: Any, side: str = "left", sorter: Any = None) -> Any:
    if x.ndim == 1:
        return np.searchsorted(x, values, side, sorter)  # type: ignore[call-overload]
    return np.stack([_searchsorted_reference(*pair, side) for pair in zip(x, values, strict=True)])


_UNIQUE = Primitive(
    "unique_values",
    lambda xp, x, equal_nan: xp.unique(x, equal_nan=equal_nan),
    {"x": None},
    half_in_float32=True,
    data_dependent=True,
    complex=True,
)


@operation(
    cases=[
        lambda s: s(np.sort(s.distinct(5)), s.real(3)),
        lambda s: s(np.arange(5.0), np.array([[0.0, 2.0], [4.5, -1.0]]), side="right"),
        lambda s: s(np.array([2.0, 0.0, 1.0]), s.real(3), sorter=np.array([1, 2, 0])),
        lambda s: s(np.sort(s.distinct(2, 5)), s.real(2, 3), side="right"),
    ],
    reference=_searchsorted_reference,
    gradient=False,
    method=False,
    primitive=_SEARCHSORTED,
    numpy="a v side= sorter=",
)
def searchsorted(x: Any, values: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where ``values`` would go into the sorted vector ``x``: before ("left") or after equals.

    x: a vector, or many in the last axis; then ``values`` has the same axes before its last one.
    sorter: the integers that put ``x`` in order, as from ``argsort``, where it is not.

    Raises ValueError for another side, ShapeError if the axes before the last differ.
    """
    if side not in ("left", "right"):
        raise ValueError(f'searchsorted: side must be "left" or "right"; got {side!r}')
    if sorter is not None:
        x = take(x, sorter, axis=0) if len(shape_of(x)) == 1 else take_along_axis(x, sorter)
    rows = shape_of(x)[:-1]
    if not shape_of(x) or (rows and rows != shape_of(values)[:-1]):
        raise ShapeError(
            "searchsorted: x must be a vector, or have the axes of the values but for the last; "
            f"got shapes {shape_of(x)} and {shape_of(values)}"
        )
    return apply(_SEARCHSORTED, (x, values), {"side": side})


@operation(
    cases=[lambda s: s(s.ints(9, high=4)), lambda s: s(s.ints(2, 3, high=4))],
    reference="unique",
    torch="unique",
    gradient=False,
    method=False,
    primitive=_UNIQUE,
    numpy="x",
)
def unique_values(x: Any, /) -> Tensor:
    """The different elements of ``x``, in ascending order; every NaN is one of its own."""
    return different(x, equal_nan=False)


def different(x: Any, *, equal_nan: bool) -> Any:
    """The different elements of ``x``, in ascending order; all NaN are one if ``equal_nan``."""
    return apply(_UNIQUE, (x,), {"equal_nan": equal_nan})
