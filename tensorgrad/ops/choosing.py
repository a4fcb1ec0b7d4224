"""Choosing and overwriting elements, in NumPy's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.elementwise import clip, remainder, where
from tensorgrad.ops.histograms import host
from tensorgrad.ops.indexing import beside, gathered, getitem, index_put, nonzero, take
from tensorgrad.ops.numpy_forms import as_array, placed, together
from tensorgrad.ops.reductions import any as any_of
from tensorgrad.ops.shaping import (
    broadcast_arrays,
    broadcast_to,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    sliced,
    stack,
)
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "apply_along_axis", "apply_over_axes", "choose", "compress", "copyto", "extract",
    "fill_diagonal", "piecewise", "place", "put", "put_along_axis", "putmask", "select",
]  # fmt: skip


# --- choosing -------------------------------------------------------------------------------------


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    """Of several arrays the elements of the first whose condition is true, else ``default``."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"select: for each condition there must be a choice, and one at least; got "
            f"{len(condlist)} and {len(choicelist)}"
        )
    *choices, y = together(*choicelist, default)
    for condition, x in zip(reversed(condlist), reversed(choices), strict=True):
        condition = as_array(condition)
        if condition.dtype != dtypes.bool:
            raise TypeError(f"select: conditions must be truth values; got {condition.dtype}")
        y = where(condition, x, y)
    return y


def in_range(name: str, at: Any, n: int, mode: str, strict: bool = False) -> Any:
    """Integers as places among ``n``, by one of NumPy's ways with those that are out of range.

    strict: raise ValueError for these, negative ones too, if ``mode`` says "raise".
    """
    if mode == "wrap":
        return remainder(at, n)
    if mode == "clip":
        return clip(at, 0, max(n - 1, 0))
    if mode != "raise":
        raise ValueError(f'{name}: mode must be "raise", "wrap" or "clip"; got {mode!r}')
    if strict:
        numbers = host(name, at)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= n):
            raise ValueError(f"{name}: integers must be in [0, {n})")
    return at


def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Tensor:
    """For each integer of ``a`` the element of the choice with that number; all broadcast.

    mode: what becomes of integers that are no number of a choice: "raise" a ValueError,
    "wrap", or "clip".
    """
    a = as_array(a)
    at, *xs = broadcast_arrays(a, *together(*[choices[k] for k in range(len(choices))]))
    at = in_range("choose", at, len(xs), mode, strict=True)
    found = gathered(stack(xs), reshape(at, (1, *shape_of(at))), 0)
    return placed("choose", sliced(found, (0, ...)), out)


def compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Tensor:
    """The slices of ``a`` along ``axis`` where a vector of conditions, which may be shorter, is
    true; of the flattened ``a`` without an axis."""
    condition, a = as_array(condition), as_array(a)
    if len(shape_of(condition)) != 1:
        raise ShapeError(f"compress: the condition must be a vector; got {shape_of(condition)}")
    a, axis = (reshape(a, (-1,)), 0) if axis is None else (a, axis)
    (at,) = nonzero(condition)
    return placed("compress", take(a, at, axis=axis), out)


def extract(condition: Any, arr: Any) -> Tensor:
    """The elements of ``arr`` where the condition is true, in a row."""
    return compress(reshape(as_array(condition), (-1,)), arr)


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Tensor:
    """``x`` with each element replaced by what the function of its condition gives for it.

    A function is given the elements of its own alone; a number stands for itself. Of several
    conditions the last one that is true counts. One more function than conditions is for the rest,
    which else are 0.
    """
    x = as_array(x)
    single = not isinstance(condlist, list | tuple) or not any(
        len(shape_of(c)) for c in condlist if not isinstance(c, bool)
    )
    given = [condlist] if single and not _are_scalars(condlist, x) else list(condlist)
    conditions = [broadcast_to(as_array(c) != 0, shape_of(x)) for c in given]
    if len(funclist) == len(conditions) + 1:
        conditions.append(~any_of(stack(conditions), axis=0))
    elif len(funclist) != len(conditions):
        raise ValueError(f"piecewise: {len(conditions)} conditions, and {len(funclist)} functions")
    y = x * 0
    for condition, function in zip(conditions, funclist, strict=True):
        value = function(getitem(x, condition), *args, **kw) if callable(function) else function
        y = index_put(y, condition, value)
    return y


def _are_scalars(condlist: Any, x: Any) -> bool:
    return not len(shape_of(x)) and isinstance(condlist, list | tuple)


def apply_along_axis(
    func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any
) -> Tensor:
    """What a function gives of each vector of ``arr`` along ``axis``, in place of the vector."""
    arr = as_array(arr)
    place = normalize_axis("apply_along_axis", axis, arr)
    line = moveaxis(arr, place, -1)
    outer = shape_of(line)[:-1]
    if 0 in outer:
        raise ValueError(f"apply_along_axis: there is no vector in shape {shape_of(arr)}")
    found = [
        as_array(func1d(sliced(line, (*index, ...)), *args, **kwargs))
        for index in np.ndindex(outer)
    ]
    inner = shape_of(found[0])
    y = reshape(stack(found), outer + inner)
    n = len(outer)
    return moveaxis(y, tuple(range(n, n + len(inner))), tuple(range(place, place + len(inner))))


def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Tensor:
    """``func(a, axis)`` for one axis after the other, which it may leave out of the shape."""
    y = as_array(a)
    n = len(shape_of(y))
    for axis in axes if hasattr(axes, "__len__") else (axes,):
        place = normalize_axis("apply_over_axes", axis, a)
        y = as_array(func(y, place))
        if len(shape_of(y)) == n - 1:
            y = reshape(y, (*shape_of(y)[:place], 1, *shape_of(y)[place:]))
        elif len(shape_of(y)) != n:
            raise ValueError("apply_over_axes: the function must leave out one axis or none")
    return y


# --- overwriting ----------------------------------------------------------------------------------


def _overwrite(name: str, arr: Any, y: Any) -> None:
    """Put ``y`` into ``arr``: a tensor becomes a new value on the tape, an array gets numbers."""
    if hasattr(arr, "node"):
        arr[...] = y
        return
    if not isinstance(arr, np.ndarray):
        raise TypeError(f"{name}: a tensor or an array can be overwritten, no {type(arr).__name__}")
    if getattr(y, "node", None) is not None and current_mode().grad:
        raise GradientError(f"{name}: an array has no gradient; give a tensor in its place")
    arr[...] = y.numpy() if hasattr(y, "node") else y


def _repeated(values: Any, n: int, like: Any) -> Any:
    """A vector of ``n`` elements: ``values`` over and over."""
    values = reshape(as_array(values, like), (-1,))
    count = shape_of(values)[0]
    return values if count == n else take(values, np.arange(n) % max(count, 1), axis=0)


def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    """Overwrite the elements of the flattened ``a`` at ``ind`` by ``v``, repeated as needed."""
    at = reshape(as_array(ind), (-1,))
    n = int(np.prod(shape_of(a)))
    at = in_range("put", at, n, mode)
    if not shape_of(at)[0]:
        return
    flat = index_put(reshape(a, (-1,)), at, _repeated(v, shape_of(at)[0], a))
    _overwrite("put", a, reshape(flat, shape_of(a)))


def place(arr: Any, mask: Any, vals: Any) -> None:
    """Overwrite the elements where ``mask`` is true by ``vals`` in order, repeated as needed."""
    (at,) = nonzero(reshape(as_array(mask), (-1,)))
    put(arr, at, vals)


def putmask(a: Any, mask: Any, values: Any) -> None:
    """Overwrite the elements where ``mask`` is true by those of ``values`` at the same places.

    If ``values`` is smaller it is repeated first.
    """
    n = int(np.prod(shape_of(a)))
    values = reshape(_repeated(values, n, a), shape_of(a))
    mask = reshape(as_array(mask), shape_of(a))
    _overwrite("putmask", a, where(mask, cast(values, a.dtype), a))


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    """Overwrite ``dst`` by ``src``, which broadcasts, where the condition is true."""
    src = as_array(src, dst)
    if not np.can_cast(src.dtype, dst.dtype, casting):  # type: ignore[arg-type]
        raise TypeError(f"copyto: {src.dtype} is not cast to {dst.dtype} by casting={casting!r}")
    y = broadcast_to(cast(src, dst.dtype), shape_of(dst))
    if where is not True:
        y = _where(as_array(where) != 0, y, dst)
    _overwrite("copyto", dst, y)


_where = where


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None) -> None:
    """Overwrite the elements of ``arr`` at ``indices`` along ``axis`` by ``values``; both broadcast
    against ``arr`` on the other axes."""
    indices = as_array(indices)
    y = reshape(arr, (-1,)) if axis is None else arr
    place = normalize_axis("put_along_axis", 0 if axis is None else axis, y)
    shape = shape_of(y)
    if len(shape_of(indices)) != len(shape):
        raise ShapeError(
            f"put_along_axis: the indices must have {len(shape)} axes; got {shape_of(indices)}"
        )
    parts = [
        beside(y, np.arange(n).reshape([-1 if k == i else 1 for k in range(len(shape))]))
        for i, n in enumerate(shape)
    ]
    parts[place] = indices
    y = index_put(y, tuple(parts), values)
    _overwrite("put_along_axis", arr, reshape(y, shape_of(arr)))


def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Overwrite the diagonal of ``a``, all of whose axes are equal if there are more than two.

    wrap: go on behind the end of a matrix with more rows than columns.
    """
    shape = shape_of(a)
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise ValueError(f"fill_diagonal: a matrix, or equal axes, are needed; got shape {shape}")
    n = int(np.prod(shape))
    step = 1 + int(np.cumprod(shape[:0:-1]).sum())
    end = n if wrap or len(shape) > 2 else min(n, shape[1] * shape[1])
    at = np.arange(0, end, step)
    if at.size:
        put(a, beside(a, at), _repeated(val, at.size, a))
