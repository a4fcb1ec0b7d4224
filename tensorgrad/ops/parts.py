"""Parts of gradients: what the rule of a slice or of an index gives to the backward pass.

The gradient of ``x[i]`` is zero but at ``i``. Where many such gradients meet, in a loop over the
steps of a sequence, zeros around each would be made, and added, once for every step. On bare arrays
the rules therefore give parts: the array, and where it belongs; the backward pass adds them to the
one gradient that it has. Where rules are recorded, or somebody watches, the rules give whole
arrays, whose sum has the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend.templates import ALL, ARRAY, along_axis
from tensorgrad.dtypes import HALVES
from tensorgrad.ops.sums import IN_ORDER, add_at, many_at_one, total


class Part:
    """A gradient that is zero but in some places: ``array`` belongs at ``index`` of ``shape``."""

    __slots__ = ("array", "index", "shape")

    def __init__(self, array: Any, index: Any, shape: tuple[int, ...]) -> None:
        self.array = array
        self.index = index
        self.shape = shape

    def whole(self) -> Any:
        """The gradient with its zeros, in memory of its own."""
        xp = np if type(self.array) is np.ndarray else backend.of(self.array).xp
        y = xp.zeros(self.shape, self.array.dtype)
        y[self.index] = self.array
        return y

    def added_to(self, y: Any) -> Any:
        """``y`` with this added to it in place."""
        view = y[self.index]
        view += self.array
        return y

    def as_rows(self, count: int) -> Any:
        """It as the gradient of a leaf that is kept as rows, of which there are ``count`` already.

        ``None`` if a dense one is better.
        """
        return None


#: Gradients of so many bytes are kept as rows where these are a quarter of them at most: in less
#: than that the zeros cost no more than to find out which rows are named twice.
LARGE = 1 << 20


def few_rows(count: int, shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether the gradient of a matrix is kept as rows, if that many are looked up."""
    return count * 4 <= shape[0] and math.prod(shape) * dtype.itemsize >= LARGE


class IndexPart(Part):
    """A part at an index with arrays, on the CPU; ``index`` is the template and its arrays."""

    __slots__ = ()

    def whole(self) -> Any:
        """See Part."""
        y = np.zeros(self.shape, self.array.dtype)
        template, indices = self.index
        add_at_index(y, template, indices, self.array, fresh=True)
        return y

    def added_to(self, y: Any) -> Any:
        """See Part."""
        template, indices = self.index
        add_at_index(y, template, indices, self.array)
        return y

    def as_rows(self, count: int) -> Any:
        """See Part."""
        template, indices = self.index
        if len(self.shape) != 2 or template[0] != ARRAY or len(indices) != 1:
            return None
        if not few_rows(count + indices[0].size, self.shape, self.array.dtype):
            return None
        if any(part not in (ALL, Ellipsis) for part in template[1:]):
            return None
        keys = _keys(indices, self.shape[:1])
        return _gradient_of_rows(LazyGradient, self.shape, keys, self.array)


class RowsPart(Part):
    """Rows, (m, length), of a matrix; ``index`` holds their numbers, counted from the front.

    sparse: if the gradient of a leaf begins with it, it is to stay rows and numbers.
    """

    __slots__ = ("sparse",)

    def __init__(self, array: Any, index: Any, shape: tuple[int, ...], sparse: bool) -> None:
        super().__init__(array, index, shape)
        self.sparse = sparse

    def whole(self) -> Any:
        """See Part."""
        if type(self.array) is not np.ndarray:
            return _gradient_of_rows(SparseGradient, self.shape, self.index, self.array).data
        y = np.zeros(self.shape, self.array.dtype)
        add_at_index(y, (ARRAY, ...), [self.index], self.array, fresh=True)
        return y

    def added_to(self, y: Any) -> Any:
        """See Part."""
        if type(y) is not np.ndarray:
            y += self.whole()
            return y
        add_at_index(y, (ARRAY, ...), [self.index], self.array)
        return y

    def as_rows(self, count: int) -> Any:
        """See Part."""
        count += len(self.index)
        if not self.sparse and not few_rows(count, self.shape, self.array.dtype):
            return None
        kind = SparseGradient if self.sparse else LazyGradient
        return _gradient_of_rows(kind, self.shape, self.index, self.array)


class Rows:
    """What gradients that are kept as rows are known by; see sparse.py."""

    __slots__ = ()


LazyGradient: Any = None  # set by sparse.py, as SparseGradient: the classes need tensors
SparseGradient: Any = None


def _gradient_of_rows(kind: Any, shape: tuple[int, ...], keys: Any, rows: Any) -> Any:
    """Of a class of sparse.py, in memory of its own."""
    if kind is None:
        return None
    found = kind(shape, keys, rows.reshape(len(keys), shape[1]))
    found.coalesced()
    return found


def recorded_rows(shape: tuple[int, ...], keys: Any, rows: Any, sparse: bool) -> Any:
    """A gradient of a class of sparse.py, whose rows are values of a program."""
    kind = SparseGradient if sparse else LazyGradient
    return None if kind is None else kind(shape, keys, rows, recorded=True)


class GatherPart(Part):
    """A part at places along one axis, on the CPU; ``index`` is the integers and the axis."""

    __slots__ = ()

    def whole(self) -> Any:
        """See Part."""
        indices, axis = self.index
        y = np.zeros(self.shape, self.array.dtype)
        return add_at(y, gathered_places(indices, axis, self.shape), self.array)

    def added_to(self, y: Any) -> Any:
        """See Part."""
        y = np.ascontiguousarray(y)
        indices, axis = self.index
        _add_at_places(y, gathered_places(indices, axis, self.shape), self.array)
        return y


def gathered_places(indices: Any, axis: int, shape: tuple[int, ...], positive: bool = False) -> Any:
    """The numbers in row-major order of the elements of ``shape`` at ``indices`` along ``axis``.

    positive: whether it is known that no index is negative.
    """
    places = indices.astype(np.int64, copy=False)  # positions need more room
    if not positive:
        places = np.where(places < 0, places + shape[axis], places)
    step = math.prod(shape[axis + 1 :])
    places = places if step == 1 else places * step
    for i, part in enumerate(along_axis(np, indices, axis)):
        if i != axis and part.size > 1:
            places = places + part * math.prod(shape[i + 1 :])
    return places


def _add_at_places(y: Any, places: Any, values: Any) -> None:
    """``values`` added to elements of ``y``, which lies in order, in order of the values."""
    if places.size > 4 * y.size or many_at_one(places, y.dtype):
        y += add_at(np.zeros_like(y), places, values)  # where the sums are wider
    else:
        np.add.at(y.reshape(-1), places.reshape(-1), values.reshape(-1))


# Rows of so many elements and less are added element by element: that takes 2 ns for each, and to
# find out which rows are named more than once 30 ns for a row.
_NARROW = 16


def add_at_index(
    y: Any, template: Sequence[Any], indices: Sequence[Any], g: Any, fresh: bool = False
) -> None:
    """``y[index] += g`` for an index with arrays, where all that meets in one place is added up.

    What is for one place is summed in order, and then added to it. fresh: ``y`` holds zeros. Both
    are NumPy arrays; 16-bit floats are summed in float32. The time goes by the size of ``g``.
    """
    arrays, view, g = _arrays_first(y, template, indices, g)
    dims, rest = view.shape[: len(arrays)], view.shape[len(arrays) :]
    keys = _keys(arrays, dims)
    width = math.prod(rest)
    if not keys.size or not width:
        return
    g = g.reshape(keys.size, width)
    if width <= _NARROW and view.flags.c_contiguous and y.dtype not in HALVES:
        places = keys if width == 1 else keys[:, None] * width + np.arange(width)
        if fresh and places.size > 4 * y.size:
            view[...] = add_at(view, places, g)
        else:
            _add_at_places(view, places, g)
        return
    if y.dtype in HALVES:
        g = g.astype(np.float32)
    single, rows, sums = _sums_by_key(keys, math.prod(dims), g)
    if single is None:
        rows, sums = keys, g
    elif single.size:
        _add_rows(view, dims, keys[single], g.take(single, axis=0), fresh)
    _add_rows(view, dims, rows, sums, fresh)


def _add_rows(view: Any, dims: tuple[int, ...], rows: Any, values: Any, fresh: bool) -> None:
    """``values`` added to different ``rows``, numbered within ``dims``, the first axes."""
    at = rows if len(dims) == 1 else np.unravel_index(rows, dims)
    values = values.reshape(len(rows), *view.shape[len(dims) :]).astype(view.dtype, copy=False)
    if fresh and view.ndim == 2 and len(dims) == 1:
        put_rows(view, rows, values)
    elif fresh:
        view[at] = values
    else:
        view[at] += values


def _arrays_first(
    y: Any, template: Sequence[Any], indices: Sequence[Any], g: Any
) -> tuple[list[Any], Any, Any]:
    """The arrays of an index; ``y`` and ``g`` as views whose first axes are those they are for."""
    basic: list[Any] = []
    arrays: list[Any] = []
    places: list[int] = []  # in the template
    given = iter(indices)
    for k, part in enumerate(template):
        if type(part) is tuple:
            basic.append(slice(*part))
        elif part is None or part is Ellipsis:
            basic.append(part)
        else:  # beside arrays a number counts as one
            basic.append(slice(None))
            arrays.append(next(given) if part == ARRAY else np.asarray(part))
            places.append(k)
    view = y[tuple(basic)]
    late = template.index(Ellipsis) if Ellipsis in template else len(template)
    axes = [k if k < late else k - len(template) + view.ndim for k in places]
    together = places[-1] - places[0] == len(places) - 1
    where = axes[0] if together else 0  # in the result
    count = max(a.ndim for a in arrays)
    others = [k for k in range(view.ndim) if k not in axes]
    view = view.transpose(axes + others)
    own = np.broadcast_shapes(*[a.shape for a in arrays])
    shape = view.shape[len(axes) :]
    g = np.broadcast_to(g, shape[:where] + own + shape[where:])
    block = list(range(where, where + count))
    g = g.transpose(block + [k for k in range(g.ndim) if k not in block])
    return arrays, view, g


def _keys(arrays: Sequence[Any], dims: Sequence[int]) -> Any:
    """The number in row-major order of each place within ``dims`` that the arrays name."""
    keys: Any = 0
    for a, n in zip(arrays, dims, strict=True):
        a = a.astype(np.int64, copy=False)  # keys need more room
        keys = keys * n + np.where(a < 0, a + n, a)
    return keys.reshape(-1)


def _sums_by_key(keys: Any, n: int, g: Any) -> tuple[Any, Any, Any]:
    """What has a key of its own, the keys of the others, and their sums; ``None`` if all have."""
    single: Any = np.zeros(0, np.int64)
    rest = None
    if n <= 32 * keys.size:
        repeated = np.bincount(keys)[keys] > 1
        rest = np.flatnonzero(repeated)
        if not rest.size:
            return None, None, None
        single = np.flatnonzero(~repeated)
        keys = keys[rest]
    order = _in_order(keys)
    keys = keys[order]
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return single, keys[first], _group_sums(g, order if rest is None else rest[order], first)


def sums_by_sorted_key(keys: Any, g: Any) -> tuple[Any, Any]:
    """The different keys, sorted, and for each the sum of its rows of ``g``, in order."""
    if not len(keys):
        return keys, g
    order = _in_order(keys)
    keys = keys[order]
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[first], _group_sums(g, order, first)


def _in_order(keys: Any) -> Any:
    """``argsort(keys, kind="stable")`` of numbers from 0, 16 bits at a time: half the time."""
    if len(keys) < 256 or keys.max() >= 1 << 32:
        return np.argsort(keys, kind="stable")
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    high = (keys[order] >> 16).astype(np.uint16)
    return order[np.argsort(high, kind="stable")] if high.any() else order


def put_rows(y: Any, at: Any, rows: Any) -> None:
    """``y[at] = rows``, of a matrix; where all lies in order a row is copied as one."""
    alike = type(y) is np.ndarray and rows.dtype == y.dtype
    if alike and y.flags.c_contiguous and rows.flags.c_contiguous and rows.size:
        kind = np.dtype((np.void, rows.shape[1] * rows.itemsize))
        y.view(kind)[:, 0][at] = rows.view(kind)[:, 0]
    else:
        y[at] = rows


def _group_sums(g: Any, order: Any, first: Any) -> Any:
    """The sums of rows of ``g``: the rows ``order[first[0]:first[1]]``, and so on, in order."""
    counts = np.diff(first, append=len(order))
    sums = g.take(order[first], axis=0)
    # Long groups are added one by one; of all others the second rows at once, the third, and so on.
    limit = int(counts.max())
    if limit == 1:
        return sums
    if limit > 8:
        longest = np.append(np.sort(counts)[::-1], 0)
        alone = int(np.argmin(longest + np.arange(len(longest))))
        limit = min(int(longest[alone]), IN_ORDER)
    active = np.flatnonzero((counts > 1) & (counts <= limit))
    number = 1
    while active.size:
        sums[active] += g.take(order[first[active] + number], axis=0)
        number += 1
        active = active[counts[active] > number]
    for k in np.flatnonzero(counts > max(limit, 1)):
        rows = order[first[k] : first[k] + counts[k]]
        sums[k] = total(np, g.take(rows, axis=0), (0,))
    return sums
