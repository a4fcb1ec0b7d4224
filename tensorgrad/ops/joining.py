"""Stacks, splits and turns in NumPy's own form, made of the operations on shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.numpy_forms import as_array, integer, together
from tensorgrad.ops.shaping import (
    atleast_1d,
    atleast_2d,
    concat,
    flip,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    split,
    swapaxes,
    transpose,
)
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "array_split", "atleast_3d", "block", "c_", "column_stack", "dsplit", "dstack", "fliplr",
    "flipud", "hsplit", "hstack", "r_", "ravel", "rollaxis", "rot90", "vsplit", "vstack",
]  # fmt: skip


# --- stacks ---------------------------------------------------------------------------------------


def _joined(name: str, tup: Any, ready: Any, axis: int, dtype: Any, casting: str) -> Any:
    if casting != "same_kind":
        raise ValueError(f"{name}: casting must be 'same_kind'; got {casting!r}")
    xs = [ready(x) for x in together(*tup)]
    if not xs:
        raise ShapeError(f"{name}: at least one tensor is needed; got none")
    y = concat(xs, axis=min(axis, len(shape_of(xs[0])) - 1))
    return y if dtype is None else cast(y, dtypes.as_dtype(dtype))


def hstack(tup: Sequence[Any], *, dtype: Any = None, casting: str = "same_kind") -> Tensor:
    """The arrays joined along the second axis; vectors along the first."""
    return _joined("hstack", tup, atleast_1d, 1, dtype, casting)


def vstack(tup: Sequence[Any], *, dtype: Any = None, casting: str = "same_kind") -> Tensor:
    """The arrays joined along the first axis; vectors are rows."""
    return _joined("vstack", tup, atleast_2d, 0, dtype, casting)


def dstack(tup: Sequence[Any]) -> Tensor:
    """The arrays joined along the third axis, as ``atleast_3d`` gives them."""
    return _joined("dstack", tup, atleast_3d, 2, None, "same_kind")


def column_stack(tup: Sequence[Any]) -> Tensor:
    """The arrays joined along the second axis; vectors are columns."""

    def ready(x: Any) -> Any:
        return reshape(x, (-1, 1)) if len(shape_of(x)) < 2 else x

    return _joined("column_stack", tup, ready, 1, None, "same_kind")


def atleast_3d(*arys: Any) -> Any:
    """Arrays with three axes at least: a vector (n,) is (1, n, 1), a matrix (n, m) is (n, m, 1)."""
    found = []
    for x in arys:
        shape = shape_of(x)
        wanted = ((1, 1, 1), (1, *shape, 1), (*shape, 1))[len(shape)] if len(shape) < 3 else shape
        found.append(reshape(x, wanted))
    return found[0] if len(found) == 1 else tuple(found)


def block(arrays: Any) -> Tensor:
    """Nested lists of arrays joined: the innermost along the last axis, the next along the one
    before it, and so on."""

    def depth_of(x: Any) -> int:
        if not isinstance(x, list):
            return 0
        if not x:
            raise ValueError("block: a list is empty")
        depths = {depth_of(part) for part in x}
        if len(depths) > 1:
            raise ValueError("block: all lists must be nested equally deep")
        return 1 + depths.pop()

    def axes_of(x: Any) -> int:
        return max(map(axes_of, x)) if isinstance(x, list) else len(shape_of(x))

    depth = depth_of(arrays)
    n = max(depth, axes_of(arrays))

    def joined(x: Any, axis: int) -> Any:
        if isinstance(x, list):
            return concat([joined(part, axis + 1) for part in x], axis=axis)
        shape = shape_of(x)
        return reshape(as_array(x), (1,) * (n - len(shape)) + shape)

    return joined(arrays, n - depth)


# --- splits ---------------------------------------------------------------------------------------


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """``ary`` cut along ``axis`` before the given indices, or into parts whose sizes differ by one
    at most, the longer ones first."""
    if not hasattr(indices_or_sections, "__len__"):
        count = integer("array_split", "the number of parts", indices_or_sections)
        if count < 1:
            raise ValueError(f"array_split: at least one part is needed; got {count}")
        n = shape_of(ary)[normalize_axis("array_split", axis, ary)]
        indices_or_sections = [n // count * i + min(i, n % count) for i in range(1, count)]
    return list(split(ary, indices_or_sections, axis))


def _cut(name: str, ary: Any, indices_or_sections: Any, axis: int, least: int) -> list[Tensor]:
    if len(shape_of(ary)) < least:
        raise ValueError(
            f"{name}: at least {least} axes are needed to cut; got shape {shape_of(ary)}"
        )
    return list(split(ary, indices_or_sections, axis))


def hsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """``split`` along the second axis; of a vector along its only one."""
    return _cut("hsplit", ary, indices_or_sections, int(len(shape_of(ary)) > 1), 1)


def vsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """``split`` along the first axis of two or more."""
    return _cut("vsplit", ary, indices_or_sections, 0, 2)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """``split`` along the third axis."""
    return _cut("dsplit", ary, indices_or_sections, 2, 3)


# --- turns ----------------------------------------------------------------------------------------


def fliplr(m: Any) -> Tensor:
    """``m`` with the order along the second axis reversed; a view."""
    if len(shape_of(m)) < 2:
        raise ShapeError(f"fliplr: at least two axes are needed; got shape {shape_of(m)}")
    return flip(m, axis=1)


def flipud(m: Any) -> Tensor:
    """``m`` with the order along the first axis reversed; a view."""
    if not len(shape_of(m)):
        raise ShapeError("flipud: at least one axis is needed; got a single number")
    return flip(m, axis=0)


def rot90(m: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """``m`` turned by ``k`` right angles in the plane of two ``axes``, from the first to the
    second."""
    first, second = (normalize_axis("rot90", axis, m) for axis in axes)
    if first == second:
        raise ValueError(f"rot90: two different axes are needed; got {tuple(axes)}")
    k %= 4
    if k == 1:
        return swapaxes(flip(m, axis=second), first, second)
    if k == 3:
        return flip(swapaxes(m, first, second), axis=second)
    return flip(m, axis=(first, second)) if k else flip(m, axis=())


def rollaxis(a: Any, axis: int, start: int = 0) -> Tensor:
    """``a`` with ``axis`` moved to where the axis ``start`` is."""
    n = len(shape_of(a))
    place = normalize_axis("rollaxis", axis, a)
    if not -n <= start <= n:
        raise ShapeError(f"rollaxis: start must be between {-n} and {n}; got {start}")
    start += n if start < 0 else 0
    return moveaxis(a, place, start - (start > place))


def ravel(a: Any, order: str = "C") -> Tensor:
    """All elements in a row; with order "F" the first axis varies quickest."""
    if order == "F":
        a = transpose(as_array(a))
    elif order not in ("C", "K", "A"):
        raise ValueError(f'ravel: order must be "C" or "F"; got {order!r}')
    return reshape(a, (-1,))


# --- by brackets ----------------------------------------------------------------------------------


class _Joiner:
    """``tg.r_[...]`` and ``tg.c_[...]``: arrays, numbers and slices joined, as NumPy's do it.

    ``start:stop:step`` stands for ``arange``, and with an imaginary step ``nj`` for ``linspace`` of
    n numbers. A first string says, as NumPy's does, "axis", "axis,ndmin" or "axis,ndmin,start".
    """

    def __init__(self, axis: int, ndmin: int, start: int) -> None:
        self._defaults = axis, ndmin, start

    def __getitem__(self, key: Any) -> Tensor:
        parts = list(key) if isinstance(key, tuple) else [key]
        axis, ndmin, start = self._defaults
        if parts and isinstance(parts[0], str):
            numbers = [int(word) for word in parts.pop(0).split(",")]
            axis, ndmin, start = [*numbers, *(axis, ndmin, start)[len(numbers) :]]
        return concat([_of_ndim(x, ndmin, start) for x in together(*map(_range, parts))], axis=axis)


def _range(part: Any) -> Any:
    if not isinstance(part, slice):
        return part
    start = 0 if part.start is None else part.start
    step = 1 if part.step is None else part.step
    if isinstance(step, complex):
        return list(map(float, np.linspace(start, part.stop, int(abs(step)))))
    return np.arange(start, part.stop, step).tolist()


def _of_ndim(x: Any, ndmin: int, start: int) -> Any:
    """``x`` with axes of size 1 until there are ``ndmin``; its own first one is at ``start``."""
    shape = shape_of(x) or (1,)
    missing = ndmin - len(shape)
    if missing <= 0:
        return reshape(x, shape)
    before = missing if start < 0 else min(start, missing)
    if start < -1:
        before = max(0, ndmin + start + 1 - len(shape))
    return reshape(x, (1,) * before + shape + (1,) * (missing - before))


r_ = _Joiner(0, 1, -1)
c_ = _Joiner(-1, 2, 0)
