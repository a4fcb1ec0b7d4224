"""NumPy's ufuncs on tensors: called, with ``out=``, ``where=`` and ``dtype=``, and their methods.

A ufunc has a counterpart (``numpy_names.ufuncs``) that computes its values; its methods are made of
that: ``outer`` by broadcasting, ``reduce`` by a reduction of the table or one element after the
other, and so on. All of it is recorded, so gradients of every order follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.ops import elementwise, numpy_reductions, scans
from tensorgrad.ops.histograms import host
from tensorgrad.ops.indexing import beside, getitem, index_added, index_put
from tensorgrad.ops.numpy_forms import as_array, lined, placed, together
from tensorgrad.ops.shaping import (
    along,
    broadcast_to,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    sliced,
    stack,
)
from tensorgrad.tape import cast

Function = Callable[..., Any]

#: Options that change nothing of tensors, with the values that they may have.
_HARMLESS = {"casting": ("same_kind", "unsafe"), "order": ("K", "C", "A"), "subok": (True, False)}


def call(
    ufunc: np.ufunc, function: Function, inputs: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """``ufunc(*inputs, **options)`` by its counterpart ``function``.

    Raises TypeError for options that have no meaning for tensors.
    """
    name = f"np.{ufunc.__name__}"
    rest = _without_harmless(name, options)
    out, where, dtype = rest.pop("out", None), rest.pop("where", True), rest.pop("dtype", None)
    axis = {"axis": rest.pop("axis")} if "axis" in rest else {}
    if rest:
        raise TypeError(f"{name}: {', '.join(rest)} has no counterpart for tensors; leave it out")
    if dtype is not None:
        wanted = np.empty(0, dtypes.as_dtype(dtype))
        inputs = [cast(as_array(x, wanted), wanted.dtype) for x in inputs]
    outs = out if isinstance(out, tuple) else (out,) * ufunc.nout
    if where is not True:
        return _where_named(name, function, inputs, where, outs)
    found = function(*inputs, **axis)
    if ufunc.nout == 1:
        return placed(name, found, outs[0])
    return tuple(placed(name, y, o) for y, o in zip(found, outs, strict=True))


def _without_harmless(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(options)
    for key, known in _HARMLESS.items():
        if key in rest and rest.pop(key) not in known:
            raise TypeError(f"{name}: {key}={options[key]!r} has no counterpart for tensors")
    return rest


def _where_named(
    name: str, function: Function, inputs: Sequence[Any], where: Any, outs: Sequence[Any]
) -> Any:
    """The values at the places that ``where`` names; elsewhere ``out`` keeps its own.

    Elsewhere the function is given 1 in place of the inputs, so that what it would give there
    spoils no gradient.
    """
    if len(outs) != 1 or outs[0] is None:
        raise TypeError(
            f"{name}: with where= and no out= NumPy leaves elements as they happen to be; give "
            f"out=, or write np.where(condition, {name}(x), other)"
        )
    keep = as_array(where)
    safe = [elementwise.where(keep, x, 1) for x in together(*inputs)]
    y = elementwise.where(keep, function(*safe), as_array(outs[0]))
    return placed(name, y, outs[0])


# --- methods --------------------------------------------------------------------------------------


def method(
    ufunc: np.ufunc,
    function: Function,
    name: str,
    inputs: Sequence[Any],
    options: Mapping[str, Any],
) -> Any:
    """``ufunc.name(*inputs, **options)``, of the methods of ufuncs."""
    full = f"np.{ufunc.__name__}.{name}"
    if ufunc.nout != 1 or (ufunc.nin != 2 and name != "at"):
        raise TypeError(f"{full}: NumPy has it for functions of two arguments with one result")
    if name == "outer":
        return _outer(ufunc, function, *inputs, **options)
    of: dict[str, Function] = {
        "reduce": _reduce, "accumulate": _accumulate, "reduceat": _reduceat, "at": _at
    }  # fmt: skip
    if name not in of:
        raise TypeError(f"{full} has no counterpart for tensors")
    return of[name](ufunc, function, *inputs, **options)


def _outer(ufunc: np.ufunc, function: Function, a: Any, b: Any, **options: Any) -> Any:
    a, b = together(a, b)
    wide = reshape(a, shape_of(a) + (1,) * len(shape_of(b)))
    return call(ufunc, function, (wide, b), options)


#: What a ufunc reduces by; others go through the elements one after the other.
_REDUCTIONS: dict[np.ufunc, Function] = {
    np.add: numpy_reductions.sum,
    np.multiply: numpy_reductions.prod,
    np.maximum: numpy_reductions.max,
    np.minimum: numpy_reductions.min,
    np.logical_and: numpy_reductions.all,
    np.logical_or: numpy_reductions.any,
}


def _reduce(
    ufunc: np.ufunc, function: Function, a: Any, axis: Any = 0, dtype: Any = None, out: Any = None,
    keepdims: bool = False, initial: Any = None, where: Any = True,
) -> Any:  # fmt: skip
    a, initial = as_array(a), numpy_reductions.given(initial)
    if not len(shape_of(a)):
        axis = None
    if dtype is not None:
        a = cast(a, dtypes.as_dtype(dtype))
    known = _REDUCTIONS.get(ufunc)
    truth = ufunc in (np.logical_and, np.logical_or)
    if known is not None and not (truth and initial is not None):
        options = {} if truth or initial is None else {"initial": initial}
        y = known(a, axis=axis, keepdims=keepdims, where=where, **options)
        return placed(ufunc.__name__, y, out)
    if where is not True:
        if ufunc.identity is None:
            raise ValueError(f"np.{ufunc.__name__}.reduce: it has no identity, so where= has none")
        a = elementwise.where(as_array(where), a, ufunc.identity)
    rows, _, kept = lined(ufunc.__name__, a, axis)
    y = _folded(ufunc, function, rows, initial)[-1]
    return placed(ufunc.__name__, reshape(y, kept) if keepdims else y, out)


def _folded(ufunc: np.ufunc, function: Function, rows: Any, initial: Any) -> list[Any]:
    """What there is after each element of the last axis, from the first to the last."""
    axis = len(shape_of(rows)) - 1
    parts = [sliced(rows, along(axis, k)) for k in range(shape_of(rows)[-1])]
    if initial is not None or not parts:
        first = ufunc.identity if initial is None else initial
        if first is None:
            raise ValueError(f"np.{ufunc.__name__}.reduce: of no elements it has no value")
        parts.insert(0, broadcast_to(cast(as_array(first, rows), rows.dtype), shape_of(rows)[:-1]))
    found = [parts[0]]
    for part in parts[1:]:
        found.append(function(found[-1], part))
    return found


def _accumulate(
    ufunc: np.ufunc, function: Function, array: Any, axis: int = 0, dtype: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    array = as_array(array)
    name = f"{ufunc.__name__}.accumulate"
    place = normalize_axis(name, axis, array)
    if ufunc in (np.add, np.multiply):
        of = scans.cumulative_sum if ufunc is np.add else scans.cumulative_prod
        return placed(name, of(array, axis=place, dtype=dtype), out)
    if dtype is not None:
        array = cast(array, dtypes.as_dtype(dtype))
    if not array.size:
        return placed(name, cast(array, array.dtype), out)
    found = _folded(ufunc, function, moveaxis(array, place, -1), None)
    return placed(name, stack(found, axis=place), out)


def _reduceat(
    ufunc: np.ufunc, function: Function, array: Any, indices: Any, axis: int = 0, dtype: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    array = as_array(array)
    place = normalize_axis("reduceat", axis, array)
    n = shape_of(array)[place]
    starts = [int(i) for i in as_array(indices).tolist()]
    if any(not 0 <= i < n for i in starts):
        raise IndexError(f"np.{ufunc.__name__}.reduceat: indices must be in [0, {n}); got {starts}")
    parts = []
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        if start < stop:
            part = sliced(array, along(place, (start, stop, None)))
            parts.append(_reduce(ufunc, function, part, axis=place, dtype=dtype))
        else:
            part = sliced(array, along(place, start))
            parts.append(part if dtype is None else cast(part, dtypes.as_dtype(dtype)))
    return placed("reduceat", stack(parts, axis=place), out)


# --- at -------------------------------------------------------------------------------------------


def _at(ufunc: np.ufunc, function: Function, a: Any, indices: Any, *others: Any) -> None:
    """``a[indices] = function(a[indices], other)``, once for each time that a place is named."""
    if not hasattr(a, "node"):  # an array: numbers alone
        numbers = [x.numpy() if hasattr(x, "node") else x for x in others]
        parts = indices if isinstance(indices, tuple) else (indices,)
        index = tuple(p.numpy() if hasattr(p, "node") else p for p in parts)
        ufunc.at(a, index if isinstance(indices, tuple) else index[0], *numbers)
        return
    shape = shape_of(a)
    numbered = np.arange(math.prod(shape)).reshape(shape)
    parts = indices if isinstance(indices, tuple) else (indices,)
    index = tuple(host(f"{ufunc.__name__}.at", p) if hasattr(p, "node") else p for p in parts)
    places = np.asarray(numbered[index if isinstance(indices, tuple) else index[0]])
    flat = reshape(a, (-1,))
    values = [reshape(broadcast_to(as_array(x, a), places.shape), (-1,)) for x in others]
    at = places.reshape(-1)
    if ufunc in (np.add, np.subtract):
        total = index_added(values[0], [beside(a, at)], ("array", ...), (math.prod(shape),))
        flat = function(flat, total)
    else:
        for one in _apart(at):
            chosen = [getitem(x, one) for x in values]
            flat = index_put(flat, at[one], function(getitem(flat, at[one]), *chosen))
    if not np.can_cast(flat.dtype, a.dtype, "same_kind"):
        raise DtypeError(f"np.{ufunc.__name__}.at: the result is {flat.dtype}, and a is {a.dtype}")
    a[...] = reshape(flat, shape)


def _apart(at: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The numbers of the elements of ``at``, cut so that no part names a place twice: first those
    that name one for the first time, then for the second, ..."""
    order = np.argsort(at, kind="stable")
    sorted_at = at[order]
    first = np.flatnonzero(np.concatenate(([True], sorted_at[1:] != sorted_at[:-1])))[: at.size]
    counts = np.diff(first, append=at.size)
    rank = np.arange(at.size) - np.repeat(first, counts)
    return [np.sort(order[rank == k]) for k in range(int(rank.max(initial=-1)) + 1)]
