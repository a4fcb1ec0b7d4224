"""Elements added, left out and found again, in NumPy's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.histograms import host
from tensorgrad.ops.indexing import beside, gathered, take
from tensorgrad.ops.numpy_forms import as_array, together
from tensorgrad.ops.shaping import (
    broadcast_to,
    concat,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    sliced,
)
from tensorgrad.ops.sorting import argsort, different, sort
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "append", "argpartition", "delete", "insert", "intersect1d", "lexsort", "partition", "resize",
    "setdiff1d", "setxor1d", "trim_zeros", "union1d", "unique",
]  # fmt: skip


# --- adding and leaving out -----------------------------------------------------------------------


def append(arr: Any, values: Any, axis: int | None = None) -> Tensor:
    """``values`` behind ``arr`` along ``axis``; both flattened if ``None``."""
    arr, values = together(arr, values)
    if axis is None:
        return concat([reshape(arr, (-1,)), reshape(values, (-1,))])
    return concat([arr, values], axis=axis)


def _index(obj: Any) -> Any:
    """What NumPy takes as an index for ``insert`` and ``delete``, with arrays for tensors."""
    return host("insert", obj) if hasattr(obj, "node") else obj


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Tensor:
    """``arr`` with ``values`` before the places ``obj`` along ``axis``; flattened if ``None``.

    obj: an integer, several, a slice, or truth values. values: cast to the dtype of ``arr``, and
    broadcast.
    """
    arr = as_array(arr)
    arr, axis = (reshape(arr, (-1,)), 0) if axis is None else (arr, axis)
    place = normalize_axis("insert", axis, arr)
    shape = shape_of(arr)
    n = shape[place]
    values = cast(as_array(values, arr), arr.dtype)
    values = reshape(values, (1,) * (len(shape) - len(shape_of(values))) + shape_of(values))
    obj = _index(obj)
    single = not isinstance(obj, slice) and np.ndim(obj) == 0
    if single:  # the values lie in front then
        values = moveaxis(values, 0, place)
        count = shape_of(values)[place]
    else:
        count = len(np.insert(np.arange(n), obj, -1)) - n
    values = broadcast_to(values, tuple(count if i == place else m for i, m in enumerate(shape)))
    order = np.insert(np.arange(n), obj, np.arange(n, n + count))
    return take(concat([arr, values], axis=place), order, axis=place)


def delete(arr: Any, obj: Any, axis: int | None = None) -> Tensor:
    """``arr`` without the places ``obj`` along ``axis``; of the flattened ``arr`` if ``None``."""
    arr = as_array(arr)
    arr, axis = (reshape(arr, (-1,)), 0) if axis is None else (arr, axis)
    place = normalize_axis("delete", axis, arr)
    return take(arr, np.delete(np.arange(shape_of(arr)[place]), _index(obj)), axis=place)


def resize(a: Any, new_shape: int | Sequence[int]) -> Tensor:
    """An array of another shape, filled with the elements of ``a`` over and over."""
    a = as_array(a)
    sizes = (new_shape,) if isinstance(new_shape, int) else tuple(new_shape)
    if any(n < 0 for n in sizes):
        raise ValueError(f"resize: sizes must not be negative; got {sizes}")
    n, count = math.prod(shape_of(a)), math.prod(sizes)
    flat = reshape(a, (-1,))
    if not n:
        return reshape(beside(a, np.zeros(count, a.dtype)), sizes)
    return reshape(take(flat, np.arange(count) % n, axis=0), sizes)


def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Tensor:
    """``filt`` without the zeros in front ("f" in ``trim``) and behind ("b"), along each axis or
    some; its size depends on the numbers."""
    filt = as_array(filt)
    trim = trim.lower()
    if not set(trim) <= {"f", "b"}:
        raise ValueError(f'trim_zeros: trim must be made of "f" and "b"; got {trim!r}')
    n = len(shape_of(filt))
    axes = range(n) if axis is None else axis if isinstance(axis, Sequence) else (axis,)
    chosen = {normalize_axis("trim_zeros", a, filt) for a in axes}
    full = np.nonzero(host("trim_zeros", filt))
    index: list[Any] = []
    for i, m in enumerate(shape_of(filt)):
        first, last = (int(full[i].min()), int(full[i].max()) + 1) if full[i].size else (m, m)
        first = first if "f" in trim and i in chosen else 0
        last = last if "b" in trim and i in chosen else m
        index.append((first, max(first, last) if full[i].size else first, None))
    return sliced(filt, (*index, ...))


# --- order ----------------------------------------------------------------------------------------


def _flat_or(a: Any, axis: int | None) -> tuple[Any, int]:
    a = as_array(a)
    return (reshape(a, (-1,)), 0) if axis is None else (a, axis)


def _check_kth(name: str, a: Any, kth: Any, axis: int) -> None:
    n = shape_of(a)[normalize_axis(name, axis, a)]
    for k in np.atleast_1d(_index(kth)).tolist():
        if not -n <= k < n:
            raise ValueError(f"{name}: kth must be in [{-n}, {n}); got {k}")


def partition(
    a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: None = None
) -> Tensor:
    """``a`` along ``axis`` with the ``kth`` element where sorting puts it, no larger ones before it
    and no smaller ones behind it: all of it is sorted."""
    a, axis = _flat_or(a, axis)
    _check_kth("partition", a, kth, axis)
    return sort(a, axis=axis)


def argpartition(
    a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: None = None
) -> Tensor:
    """The integers that do what ``partition`` does."""
    a, axis = _flat_or(a, axis)
    _check_kth("argpartition", a, kth, axis)
    return argsort(a, axis=axis)


def lexsort(keys: Any, axis: int = -1) -> Tensor:
    """The integers that put several keys in order, the last key first, along ``axis``."""
    if not hasattr(keys, "shape"):
        keys = [as_array(key) for key in keys]
        found = argsort(keys[0], axis=axis)
        if any(shape_of(key) != shape_of(keys[0]) for key in keys):
            raise ShapeError(f"lexsort: keys of one shape are needed; got {[*map(shape_of, keys)]}")
    else:
        keys = [sliced(keys, (k, ...)) for k in range(shape_of(keys)[0])]
        found = argsort(keys[0], axis=axis)
    place = normalize_axis("lexsort", axis, keys[0])
    for key in keys[1:]:
        found = _reordered(found, argsort(_reordered(key, found, place), axis=place), place)
    return found


def _reordered(x: Any, order: Any, axis: int) -> Any:
    return gathered(x, order, axis, distinct=True)


# --- sets -----------------------------------------------------------------------------------------


def _on_host(name: str, function: Callable[..., Any], of: Any, *args: Any, **options: Any) -> Any:
    """What a function of NumPy gives for the numbers of tensors, without gradient, beside ``of``.

    What it gives has a size that depends on the numbers, so no program can record it.
    """
    found = function(*[host(name, as_array(x)) for x in args], **options)
    if isinstance(found, tuple):
        return tuple(beside(of, np.asarray(x)) for x in found)
    return beside(of, np.asarray(found))


def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
    axis: int | None = None, *, equal_nan: bool = True, sorted: bool = True,
) -> Any:  # fmt: skip
    """The different elements in ascending order, or the different slices along ``axis``.

    return_index: where each is first. return_inverse: the number of each element among them.
    return_counts: how often each occurs.
    """
    ar = as_array(ar)
    if equal_nan and axis is None and not (return_index or return_inverse or return_counts):
        return different(ar, equal_nan=True)
    more = {} if equal_nan else {"equal_nan": False}
    return _on_host(
        "unique", np.unique, ar, ar, return_index=return_index, return_inverse=return_inverse,
        return_counts=return_counts, axis=axis, **more,
    )  # fmt: skip


def union1d(ar1: Any, ar2: Any) -> Tensor:
    """The different elements that are in one of both, in ascending order."""
    return _on_host("union1d", np.union1d, ar1, ar1, ar2)


def intersect1d(
    ar1: Any, ar2: Any, assume_unique: bool = False, return_indices: bool = False
) -> Any:
    """The different elements that are in both, in ascending order, and where they are in each."""
    return _on_host(
        "intersect1d", np.intersect1d, ar1, ar1, ar2, assume_unique=assume_unique,
        return_indices=return_indices,
    )  # fmt: skip


def setdiff1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Tensor:
    """The different elements that are in ``ar1`` and not in ``ar2``."""
    return _on_host("setdiff1d", np.setdiff1d, ar1, ar1, ar2, assume_unique=assume_unique)


def setxor1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Tensor:
    """The different elements that are in one of both and not in the other."""
    return _on_host("setxor1d", np.setxor1d, ar1, ar1, ar2, assume_unique=assume_unique)
