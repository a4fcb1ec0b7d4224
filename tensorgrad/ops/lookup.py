"""Rows of a table, looked up by number: one by one, and combined in bags."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.backend.templates import ARRAY
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.creation import ones_like, zeros_like
from tensorgrad.ops.elementwise import maximum, where
from tensorgrad.ops.indexing import (
    RecordedRows,
    beside,
    from_the_front,
    gathered,
    index_added,
    indexed,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.parts import RowsPart
from tensorgrad.ops.reductions import argmax
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import expand_dims, shape_of, squeeze
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["embedding", "embedding_bag"]

_ROWS = (ARRAY, ...)


# --- the primitives -------------------------------------------------------------------------------


def _value(
    xp: Any, weight: Any, indices: Any, padding_idx: int | None, by_count: bool, sparse: bool
) -> Any:
    return weight[indices]


def _gradient(
    g: Any, indices: Any, weight_shape: tuple[int, ...], padding_idx: int | None, by_count: bool
) -> Any:
    """The rows of ``g`` added up by their numbers, without those of the padding."""
    rows = _counted(g, indices, weight_shape[0], padding_idx, by_count)
    return index_added(rows, [indices], _ROWS, weight_shape)


def _counted(g: Any, indices: Any, n: int, padding_idx: int | None, by_count: bool) -> Any:
    """The rows of ``g`` that are to be added up."""
    if by_count:
        counts = apply(_COUNTS, (indices,), {"n": n})
        g = g / expand_dims(cast(counts, g.dtype), -1)
    if padding_idx is not None:
        g = where(expand_dims(from_the_front(indices, n) != padding_idx, -1), g, 0.0)
    return g


def _part(
    g: Any,
    indices: Any,
    weight_shape: tuple[int, ...],
    padding_idx: int | None,
    by_count: bool,
    sparse: bool,
) -> Any:
    if hasattr(g, "node"):
        rows = _counted(g, indices, weight_shape[0], padding_idx, by_count)
        return RecordedRows(rows, indices, weight_shape, sparse, padding_idx)
    if by_count or not g.size:
        return _gradient(g, indices, weight_shape, padding_idx, by_count)
    keys = indices.reshape(-1).astype(np.int64, copy=False)  # which has room for all rows
    keys = keys + weight_shape[0] * (keys < 0)
    rows = g.reshape(keys.size, weight_shape[1])
    if padding_idx is not None:
        keep = keys != padding_idx
        keys, rows = keys[keep], rows[keep]
    if type(g) is not np.ndarray and not sparse:
        return index_added(rows, [keys], _ROWS, weight_shape)
    return RowsPart(rows, keys, weight_shape, sparse)


_EMBEDDING: Primitive = Primitive(
    "embedding",
    _value,
    {
        "weight": lambda g, indices, weight_shape, padding_idx, by_count, sparse: _gradient(
            g, indices, weight_shape, padding_idx, by_count
        ),
        "indices": None,
    },
    moves=True,
    part=_part,
)
# How often the number at each place is among all of them.
_COUNTS = Primitive(
    "occurrences",
    lambda xp, indices, n: xp.bincount(
        xp.where(indices < 0, indices.astype(np.int64) + n, indices).reshape(-1), minlength=n
    )[indices],
    {"indices": None},
)


def _limited_value(xp: Any, weight: Any, indices: Any, max_norm: float, norm_type: float) -> Any:
    rows = weight[indices]
    wide = rows.astype(dtypes.float32) if rows.dtype in dtypes.HALVES else rows
    size = xp.abs(wide)
    if norm_type == math.inf:
        norm = size.max(axis=-1, keepdims=True)
    else:
        norm = (size**norm_type).sum(axis=-1, keepdims=True) ** (1.0 / norm_type)
    wide = xp.where(norm > max_norm, wide * (max_norm / (norm + 1e-7)), wide)
    weight[indices] = wide.astype(weight.dtype)  # equal rows become equal
    return weight


_LIMIT_ROWS = Primitive(
    "embedding_renorm_", _limited_value, {"weight": None, "indices": None}, mutates=(0,)
)


# --- one by one -----------------------------------------------------------------------------------


def checked_padding(name: str, padding_idx: int | None, n: int) -> int | None:
    """``padding_idx`` counted from the front. Raises ValueError if there is no such row."""
    if padding_idx is None:
        return None
    if not -n <= padding_idx < n:
        raise ValueError(f"{name}: padding_idx must be one of {n} numbers, got {padding_idx}")
    return padding_idx % n


def limits(name: str, max_norm: Any, norm_type: Any) -> tuple[float | None, float]:
    """Both as numbers. Raises ValueError for a limit of norms below 0, or a norm that is none."""
    if max_norm is not None:
        max_norm = number(name, "max_norm", max_norm)
        if not max_norm >= 0:
            raise ValueError(f"{name}: max_norm must be a number >= 0, got {max_norm!r}")
    norm_type = number(name, "norm_type", norm_type)
    if not norm_type > 0:
        raise ValueError(f"{name}: norm_type must be positive, got {norm_type!r}")
    return max_norm, norm_type


def _check(name: str, input: Any, weight: Any) -> Any:
    """``input`` as an array or tensor of integers, and the weight a table of rows."""
    if not hasattr(input, "dtype"):
        input = np.asarray(input)
        input = input if input.size else input.astype(np.int64)
    if input.dtype not in dtypes.INTEGERS:
        raise DtypeError(
            f"{name}: the input must be a tensor of integers, numbers of vectors; got "
            f"{input.dtype}. Convert it with .astype(tg.int64)"
        )
    if len(shape_of(weight)) != 2:
        raise ShapeError(
            f"{name}: the weight must have two axes, a row for each number; got shape "
            f"{shape_of(weight)}"
        )
    return input


@operation(
    cases=[
        lambda s: s(s.ints(2, 3, high=4), s.real(4, 5)),
        lambda s: s(s.ints(5, high=3), s.real(4, 2), padding_idx=3),
        lambda s: s(np.zeros((0, 2), np.int64), s.real(3, 2)),
    ],
    reference=lambda input, weight, padding_idx=None: weight[input],
    torch="nn.functional.embedding",
    namespace="nn.functional",
    method=False,
    primitive=_EMBEDDING,
)
def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of ``weight`` (n, length) with the numbers ``input``: (*input.shape, length).

    padding_idx: a number whose row gets no gradient.
    max_norm: rows looked up whose norm is larger are scaled to it before, in ``weight`` itself.
    norm_type: p of that norm.
    scale_grad_by_freq: divide the gradient of a row by the number of times it was looked up.
    sparse: keep the ``.grad`` of a leaf ``weight`` as rows and their numbers (``SparseGradient``);
        in programs it is dense.

    A negative number counts from the end. The gradients of a row that is looked up several times
    are added in order. Raises DtypeError for an input of other numbers than integers, ShapeError
    for a weight that is no matrix, IndexError for a number out of range (on the CPU), ValueError
    for options out of their range, or for both ``scale_grad_by_freq`` and ``sparse``.
    """
    max_norm, norm_type = limits("embedding", max_norm, norm_type)
    input = _check("embedding", input, weight)
    n = shape_of(weight)[0]
    padding_idx = checked_padding("embedding", padding_idx, n)
    if sparse and scale_grad_by_freq:
        raise ValueError("embedding: scale_grad_by_freq needs dense gradients; leave sparse out")
    if max_norm is not None:
        _limit_rows(weight, input, max_norm, norm_type)
    try:
        if padding_idx is None and not scale_grad_by_freq and not sparse:
            return indexed(weight, [input], _ROWS)
        attrs = {"padding_idx": padding_idx, "by_count": scale_grad_by_freq, "sparse": sparse}
        return apply(_EMBEDDING, (weight, input), attrs)
    except IndexError as error:
        raise IndexError(
            f"embedding: numbers must be below {n}, the rows of the weight; {error}"
        ) from None


def _limit_rows(weight: Any, indices: Any, max_norm: float, norm_type: float) -> None:
    attrs = {"max_norm": float(max_norm), "norm_type": float(norm_type)}
    if indices.size:
        apply(_LIMIT_ROWS, (weight.detach(), indices), attrs)


# --- in bags --------------------------------------------------------------------------------------


def _first_largest_value(xp: Any, rows: Any, bag: Any, bags: int) -> Any:
    """For each bag and column the number of the first row with the largest element."""
    place = xp.arange(len(rows)).reshape(-1, 1)
    if xp is not np:
        top = xp.full((bags, rows.shape[1]), -math.inf, rows.dtype)
        xp.maximum.at(top, bag, rows)
        largest = (rows == top[bag]) | xp.isnan(rows)
        found = xp.full(top.shape, len(rows), np.int64)
        xp.minimum.at(found, bag, xp.where(largest, place, len(rows)))
        return xp.where(found < len(rows), found, 0)
    found = np.zeros((bags, rows.shape[1]), np.int64)
    if len(rows):
        order = np.argsort(bag, kind="stable")
        first = np.flatnonzero(np.diff(bag[order], prepend=-1))
        counts = np.diff(first, append=len(order))
        tops = np.maximum.reduceat(rows[order], first, axis=0)
        largest = (rows[order] == np.repeat(tops, counts, axis=0)) | np.isnan(rows[order])
        places = np.where(largest, place[order], len(rows))
        found[bag[order][first]] = np.minimum.reduceat(places, first, axis=0)
    return found


_FIRST_LARGEST = Primitive("first_largest", _first_largest_value, {"rows": None, "bag": None})


def _bag_value(xp: Any, offsets: Any, n: int) -> Any:
    if xp is np and len(offsets):
        steps = np.diff(offsets.astype(np.int64))
        if offsets[0] != 0 or offsets[-1] > n or (steps < 0).any():
            raise ValueError(
                f"offsets must begin with 0, never fall, and end at {n} or before, the length of "
                f"the input; they begin with {offsets[0]} and end with {offsets[-1]}"
            )
    return xp.searchsorted(offsets, xp.arange(n, dtype=offsets.dtype), side="right") - 1


# The number of the bag that each place of the input belongs to; -1 before the first.
_BAG = Primitive("bag", _bag_value, {"offsets": None})


def _bags(input: Any, offsets: Any, include_last_offset: bool) -> tuple[Any, int]:
    """The number of the bag of each of the flat input, and how many bags there are.

    What belongs to no bag is in one more.
    """
    if len(shape_of(input)) == 2:
        if offsets is not None:
            raise ShapeError(
                "embedding_bag: offsets are for an input of one axis; of two axes each row is a bag"
            )
        return None, shape_of(input)[0]
    if len(shape_of(input)) != 1 or offsets is None:
        raise ShapeError(
            "embedding_bag: the input must have two axes, a bag in each row, or one, with offsets "
            f"at which bags begin; got shape {shape_of(input)}"
            f"{'' if offsets is None else ' and offsets'}"
        )
    if not hasattr(offsets, "dtype"):
        offsets = np.asarray(offsets)
    if offsets.dtype not in dtypes.INTEGERS or len(offsets.shape) != 1:
        raise ShapeError(
            "embedding_bag: offsets must be a vector of integers; got "
            f"{offsets.dtype} of shape {offsets.shape}"
        )
    if include_last_offset and not len(offsets):
        raise ShapeError("embedding_bag: with include_last_offset at least one offset is needed")
    bag = apply(_BAG, (beside(input, offsets),), {"n": shape_of(input)[0]})
    return bag, len(offsets) - bool(include_last_offset)


def _bag_reference(
    input: Any, weight: Any, offsets: Any = None, mode: str = "mean",
    padding_idx: int | None = None, per_sample_weights: Any = None,
    include_last_offset: bool = False,
) -> Any:  # fmt: skip
    factors = np.ones(input.shape) if per_sample_weights is None else per_sample_weights
    if offsets is None:
        bags = list(zip(input, factors, strict=True))
    else:
        ends = offsets[1:] if include_last_offset else [*offsets[1:], len(input)]
        bags = [
            (input[a:b], factors[a:b])
            for a, b in zip(offsets, ends, strict=not include_last_offset)
        ]
    found = np.zeros((len(bags), weight.shape[1]))
    for y, (numbers, by) in zip(found, bags, strict=True):
        keep = numbers != padding_idx
        if keep.any():
            rows = weight[numbers[keep]] * by[keep, None]
            y[:] = getattr(rows, mode)(axis=0)
    return found


@operation(
    cases=[
        lambda s: s(s.ints(2, 3, high=4), s.real(4, 2), mode="sum", padding_idx=1),
        lambda s: s(s.ints(5, high=4), s.real(4, 2), np.array([0, 2, 2])),
        lambda s: s(s.ints(5, high=4), s.distinct(4, 2), np.array([0, 1, 4]), mode="max"),
        lambda s: s(
            s.ints(5, high=4), s.real(4, 2), np.array([0, 2, 5]), mode="sum",
            per_sample_weights=s.real(5), include_last_offset=True,
        ),
    ],
    reference=_bag_reference,
    torch="nn.functional.embedding_bag",
    namespace="nn.functional",
    method=False,
    primitive=_EMBEDDING, complex=False,
)  # fmt: skip
def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, the mean or the largest of rows of ``weight``, for each bag of numbers of rows.

    input: (bags, length), or all numbers in a row with ``offsets``, where each bag begins.
    mode: "sum", "mean" or "max"; an empty bag gives zeros. Of equal elements the first is the
        largest, and gets the gradient; NaN is the largest.
    per_sample_weights: factors of the rows, of the shape of ``input``, for "sum".
    include_last_offset: the last offset is where the last bag ends.
    padding_idx: a number that counts as absent, and whose row gets no gradient.
    max_norm, norm_type, scale_grad_by_freq, sparse: as in ``embedding``; the last two not
        for "max".

    Gives (bags, length of a row). Raises as ``embedding``; ShapeError for offsets that do not fit
    the input, ValueError for another mode, or options that it does not have.
    """
    max_norm, norm_type = limits("embedding_bag", max_norm, norm_type)
    check_mode("embedding_bag", mode, sparse, scale_grad_by_freq)
    if mode != "sum" and per_sample_weights is not None:
        raise ValueError(f'embedding_bag: per_sample_weights are for mode "sum", not {mode!r}')
    input = _check("embedding_bag", input, weight)
    n, length = shape_of(weight)
    padding_idx = checked_padding("embedding_bag", padding_idx, n)
    if per_sample_weights is not None and shape_of(per_sample_weights) != shape_of(input):
        raise ShapeError(
            "embedding_bag: per_sample_weights must have the shape of the input, "
            f"{shape_of(input)}; got {shape_of(per_sample_weights)}"
        )
    bag, bags = _bags(input, offsets, include_last_offset)
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    keep = None
    if padding_idx is not None:
        keep = from_the_front(input, n) != padding_idx
    if per_sample_weights is not None:
        rows = rows * expand_dims(per_sample_weights, -1)
    if bag is None:
        return _over_the_second_axis(rows, keep, mode)
    if keep is not None:
        bag = where(keep, bag, bags)
    if mode == "max":
        places = apply(_FIRST_LARGEST, (rows.detach(), bag), {"bags": bags + 1})
        found = (
            gathered(rows, places, 0)
            if shape_of(input)[0]
            else zeros_like(places, dtype=rows.dtype)
        )
    else:
        found = index_added(rows, [bag], _ROWS, (bags + 1, length))
    counts = index_added(ones_like(bag, dtype=found.dtype), [bag], _ROWS, (bags + 1,))[:bags]
    return _for_bags(found[:bags], expand_dims(counts, -1), mode)


def _for_bags(found: Any, counts: Any, mode: str) -> Any:
    """Sums or largest elements, and how many there were of each."""
    if mode == "sum":
        return found
    if mode == "mean":
        return found / maximum(counts, 1.0)
    return where(counts > 0, found, 0.0)


def _over_the_second_axis(rows: Any, keep: Any, mode: str) -> Any:
    """Bags of one length: the axis of rows (bags, length, columns) between the two others."""
    bags, length, columns = rows.shape
    if mode == "max":
        if not length or not bags or not columns:
            return total(rows, axis=1)
        shown = rows.detach()
        if keep is not None:
            shown = where(expand_dims(keep, -1), shown, -math.inf)
        places = argmax(shown, axis=1, keepdims=True)
        found = squeeze(gathered(rows, places, 1), axis=1)
    else:
        found = rows if keep is None else where(expand_dims(keep, -1), rows, 0.0)
        found = total(found, axis=1)
    if keep is None:
        return found / max(length, 1) if mode == "mean" else found
    return _for_bags(found, total(cast(keep, rows.dtype), axis=1, keepdims=True), mode)


def check_mode(name: str, mode: str, sparse: bool, by_count: bool) -> None:
    """Raise ValueError for what is no mode of bags, or has not these options."""
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f'{name}: mode must be "sum", "mean" or "max", got {mode!r}')
    if mode == "max" and (sparse or by_count):
        raise ValueError(f'{name}: mode "max" has no sparse gradients and no scale_grad_by_freq')
