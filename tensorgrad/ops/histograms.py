"""Counts in bins, in NumPy's form: counts have no gradient, sums of weights have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.differences import diff
from tensorgrad.ops.elementwise import equal, greater, less, logical_or, where
from tensorgrad.ops.indexing import beside, index_added
from tensorgrad.ops.numpy_forms import as_array, as_inexact, at_hand, integer, plain, together
from tensorgrad.ops.ranges import between
from tensorgrad.ops.reductions import max as largest
from tensorgrad.ops.reductions import min as smallest
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import reshape, shape_of, sliced, stack, unstack
from tensorgrad.ops.sorting import searchsorted
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "bincount", "digitize", "histogram", "histogram2d", "histogram_bin_edges", "histogramdd",
]  # fmt: skip


def host(name: str, x: Any) -> Any:
    """The numbers of ``x`` as an array of the host, which ends what programs can record."""
    if not hasattr(x, "node"):
        return np.asarray(x)
    return x.detach()._host(f"{name}()")


def _edges(name: str, a: Any, bins: Any, range: Any, weights: Any = None) -> Any:
    """The ascending limits of the bins, without gradient, as a tensor beside ``a``."""
    if isinstance(bins, str):
        ws = None if weights is None else host(name, weights)
        found = np.histogram_bin_edges(host(name, a), bins, range, ws)
        return beside(a, found.astype(a.dtype if a.dtype in dtypes.FLOATS else np.float64))
    if hasattr(bins, "__index__") and not getattr(bins, "shape", ()):
        return _equal_bins(name, a, integer(name, "bins", bins), range)
    edges = as_array(bins, a)
    if len(shape_of(edges)) != 1:
        raise ValueError(f"{name}: bins must be a number or a vector; got shape {shape_of(edges)}")
    return edges.detach() if hasattr(edges, "node") else beside(a, np.asarray(edges))


def _equal_bins(name: str, a: Any, count: int, range: Any) -> Any:
    """The limits of bins of one width; those of a single number are half a unit from it."""
    if count < 1:
        raise ValueError(f"{name}: at least one bin is needed; got {count}")
    a = as_inexact(a.detach() if hasattr(a, "node") else a)
    if range is not None:
        low, high = float(range[0]), float(range[1])
        if not low <= high or math.isinf(high - low):
            raise ValueError(f"{name}: the range must be finite and rise; got {low} to {high}")
        ends: Any = beside(a, np.array([low, high], dtypes.real_of(a.dtype)))
    elif not a.size:
        ends = beside(a, np.array([0.0, 1.0], a.dtype))
    else:
        ends = stack([smallest(a), largest(a)])
        found = at_hand(ends)
        if found is not None and not np.isfinite(found).all():
            raise ValueError(
                f"{name}: bins between the least and the largest number need finite ones; they go "
                f"from {found[0]} to {found[1]}; give range=(low, high), or take x[isfinite(x)]"
            )
    low, high = sliced(ends, (0, ...)), sliced(ends, (1, ...))
    apart = where(equal(low, high), 0.5, 0.0)
    return between(name, low - apart, high + apart, count + 1, True)[0]


def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Tensor:
    """The limits of the bins that ``histogram`` counts in, ascending; without gradient."""
    return _edges("histogram_bin_edges", as_array(a), bins, range, weights)


def _bin_of(x: Any, edges: Any) -> Any:
    """For each of a vector the number of its bin, and how many there are where it is in none.

    The last bin holds its upper limit too.
    """
    n = shape_of(edges)[0] - 1
    edges = cast(edges, np.result_type(edges.dtype, x.dtype)) if x.dtype != edges.dtype else edges
    at = searchsorted(edges, x, side="right") - 1
    last = sliced(edges, (-1, ...))
    at = where(equal(x, last), n - 1, at)
    outside = logical_or(less(at, 0), greater(at, n - 1))
    return where(outside, n, at)


def _counted(at: Any, n: int, weights: Any, like: Any = None) -> Any:
    """How many of the numbers ``at`` are 0, 1, ..., n - 1; or the sums of their weights."""
    if weights is None:
        counts = plain("bincount", [at], minlength=n + 1)
    else:
        weights = reshape(as_array(weights, like), (-1,))
        if shape_of(weights) != shape_of(at):
            raise ShapeError(
                f"histogram: there must be a weight for each element; got {shape_of(weights)[0]} "
                f"for {shape_of(at)[0]}"
            )
        counts = index_added(weights, [at], ("array", ...), (n + 1,))
    return sliced(counts, ((None, n, None), ...))


def histogram(
    a: Any, bins: Any = 10, range: Any = None, density: bool | None = None, weights: Any = None
) -> tuple[Tensor, Tensor]:
    """How many elements lie in each bin, and the limits of the bins.

    bins: how many, between the ends of ``range`` or of the numbers; their limits; or the name of
    one of NumPy's rules. weights: count each by its weight, which gets a gradient. density: divide
    by the number of all that were counted and the widths of the bins.
    """
    a = reshape(as_array(a), (-1,))
    edges = _edges("histogram", a, bins, range, weights)
    counts = _counted(_bin_of(a, edges), shape_of(edges)[0] - 1, weights, edges)
    if density:
        counts = as_inexact(counts)
        counts = counts / (diff(edges) * total(counts))
    return counts, edges


def histogramdd(
    sample: Any, bins: Any = 10, range: Any = None, density: bool | None = None,
    weights: Any = None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """``histogram`` of points in d dimensions: counts with d axes, and d vectors of limits.

    sample: (n, d), or d vectors. bins, range: for all dimensions, or a sequence with one for each.
    """
    if not hasattr(sample, "shape"):
        sample = stack([as_array(x) for x in sample], axis=1)
    columns = unstack(reshape(sample, (-1, 1)) if len(shape_of(sample)) < 2 else sample, axis=1)
    d = len(columns)
    each = list(bins) if isinstance(bins, Sequence) and not isinstance(bins, str) else [bins] * d
    ranges = [None] * d if range is None else list(range)
    if len(each) != d or len(ranges) != d:
        raise ValueError(f"histogramdd: there are {d} dimensions, and bins or ranges for others")
    edges = [_edges("histogramdd", x, b, r) for x, b, r in zip(columns, each, ranges, strict=True)]
    sizes = [shape_of(e)[0] - 1 for e in edges]
    n = math.prod(sizes)
    flat: Any = 0
    outside: Any = False
    for x, e, size in zip(columns, edges, sizes, strict=True):
        at = _bin_of(x, e)
        flat, outside = flat * size + at, logical_or(equal(at, size), outside)
    counts = reshape(_counted(where(outside, n, flat), n, weights, edges[0]), sizes)
    if weights is None:
        counts = cast(counts, edges[0].dtype)
    if density:
        counts = counts / total(counts)
        for k, e in enumerate(edges):
            counts = counts / reshape(diff(e), [-1 if i == k else 1 for i in np.arange(d)])
    return counts, edges


def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, density: bool | None = None,
    weights: Any = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """``histogramdd`` of points given by two vectors."""
    single = not hasattr(bins, "__len__") or len(bins) not in (1, 2)
    both = [bins, bins] if single else list(bins) * (3 - len(bins))
    counts, edges = histogramdd([x, y], both, range, density, weights)
    return counts, edges[0], edges[1]


def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Tensor:
    """How often each of the integers 0, 1, ... occurs in a vector; or the sums of weights.

    minlength: of the result, which else goes to the largest of the integers.
    """
    x = as_array(x)
    if len(shape_of(x)) != 1 or x.dtype in dtypes.FLOATS:
        raise ShapeError(f"bincount: a vector of integers is needed; got {x.dtype} {shape_of(x)}")
    numbers = host("bincount", x)
    if numbers.size and numbers.min() < 0:
        raise ValueError(f"bincount: the integers must not be negative; one is {numbers.min()}")
    n = max(int(numbers.max(initial=-1)) + 1, minlength)
    return _counted(x, n, weights)


def digitize(x: Any, bins: Any, right: bool = False) -> Tensor:
    """The number of the bin that each element lies in, among limits that rise or fall.

    right: a bin holds its upper limit, and not its lower one.
    """
    x, bins = together(x, bins)
    if len(shape_of(bins)) != 1:
        raise ValueError(f"digitize: bins must be a vector; got shape {shape_of(bins)}")
    steps = np.diff(host("digitize", bins))
    if (steps >= 0).all():
        return searchsorted(bins, x, side="left" if right else "right")
    if not (steps <= 0).all():
        raise ValueError("digitize: bins must rise or fall from each to the next")
    n = shape_of(bins)[0]
    return n - searchsorted(bins[::-1], x, side="left" if right else "right")
