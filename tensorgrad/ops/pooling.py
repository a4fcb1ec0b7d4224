"""Pooling: the largest, the mean or the norm of windows that move over the last axes.

The functions of one, two and three axes are made together. A maximum is the value; where it was
taken (``_PLACES``) is asked of the input when a gradient or the indices are wanted, and the
gradient is put there, so that gradients of any order are gathers and scatters.
"""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, get_default_dtype
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.elementwise import pow, where
from tensorgrad.ops.indexing import scattered
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.shaping import reshape
from tensorgrad.ops.sums import total
from tensorgrad.ops.table import operation
from tensorgrad.ops.weighted_take import Map, made_map, weighted_take
from tensorgrad.ops.windows import (
    Window,
    Windows,
    adaptive,
    along,
    bounds,
    element,
    extended,
    lowest,
    spread,
    strided,
    views,
)
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
]  # fmt: skip

Function = Callable[..., Any]


def named(name: str, doc: str, **row: Any) -> Callable[[Function], Any]:
    """Enter a function in the table under ``name``, with this documentation."""

    def enter(function: Function) -> Any:
        function.__name__ = function.__qualname__ = name
        function.__doc__ = doc
        row.setdefault("torch", f"nn.functional.{name}")
        return operation(method=False, namespace="nn.functional", **row)(function)

    return enter


# --- the largest ----------------------------------------------------------------------------------


def _max_value(xp: Any, x: Any, windows: Windows) -> Any:
    outside = lowest(x.dtype)
    for axis, w in enumerate(windows, x.ndim - len(windows)):
        first, *others = views(xp, x, axis, w, outside)
        x = xp.maximum(first, others[0]) if others else first + 0
        for part in others[1:]:
            xp.maximum(x, part, out=x)
    return x


def _places_value(xp: Any, x: Any, y: Any, windows: Windows) -> Any:
    """Where in the last axes, taken as one, the largest elements ``y`` of the windows are.

    The first of equal ones; of several NaN the last, as in PyTorch.
    """
    nan = x.dtype.kind not in "iu" and (xp is not np or np.isnan(np.max(y, initial=0)))
    if xp is np and not nan and _is_small(windows):
        return _flat_places(np, _first_equal(x, y, windows), windows)
    outside = lowest(x.dtype)
    found: list[Any] = []  # for each axis that is done, the last one first: which element it is
    for axis, w in reversed(list(enumerate(windows, x.ndim - len(windows)))):
        best, *others = views(xp, x, axis, w, outside)
        inner = [views(xp, which, axis, w, 0) for which in found]
        kind = np.dtype(np.uint8 if w.kernel <= 256 else np.int64).type
        which = xp.zeros(best.shape, kind)
        found = [first for first, *_ in inner]
        for t, part in enumerate(others, 1):
            better = part > best
            if nan:
                better |= part != part
            which = xp.maximum(which, better * kind(t))
            found = [_chosen(xp, better, row[t], old) for row, old in zip(inner, found)]
            if t < len(others) or len(found) + 1 < len(windows):
                best = xp.maximum(best, part)
        found.append(which)
        x = best
    return _flat_places(xp, found[::-1], windows)


# So many comparisons with the largest number are quicker than going axis by axis.
_FEW = 16


def _is_small(windows: Windows) -> bool:
    return math.prod(w.kernel for w in windows) <= _FEW and all(w.stride for w in windows)


def _first_equal(x: Any, y: Any, windows: Windows) -> list[Any]:
    """For each axis the number, in its window, of the first element that is equal to ``y``."""
    first = x.ndim - len(windows)
    for axis, w in enumerate(windows, first):
        x = extended(np, x, axis, w, lowest(x.dtype))
    kernels = [w.kernel for w in windows]
    *places, _ = np.ndindex(*kernels)  # what none before is equal to, the last one is
    missed, number = np.ones(y.shape, np.bool_), np.zeros(y.shape, np.uint8)
    for at in places:
        index = [element(w, t) for w, t in zip(windows, at, strict=True)]
        missed &= x[(..., *index)] != y
        number += missed
    found = []
    for kernel in reversed(kernels):
        rest = number // np.uint8(kernel)
        found.append(number - rest * np.uint8(kernel))
        number = rest
    return found[::-1]


def _chosen(xp: Any, condition: Any, new: Any, old: Any) -> Any:
    """``new`` where the condition holds, else ``old``; integers, of which differences wrap."""
    if xp is np:  # where() takes several times as long for what does not lie in order
        return old + condition * (new - old)
    return xp.where(condition, new, old)


def _flat_places(xp: Any, found: list[Any], windows: Windows) -> Any:
    """The number of an element from that of its place in the window, for each axis."""
    whole = first_of_all = None
    ndim = found[0].ndim
    step = math.prod(w.size for w in windows)
    for axis, (which, w) in enumerate(zip(found, windows), ndim - len(windows)):
        step //= w.size
        start, end = bounds(xp, w)
        if w.stride and not w.padding:
            place = which * np.int64(w.dilation * step)
            begin = along(start * step, axis, ndim)
            first_of_all = begin if first_of_all is None else first_of_all + begin
        else:
            place = which * np.int64(w.dilation) + along(start, axis, ndim)
            if w.padding:  # an element that is outside was not taken, but the first inside
                more = (xp.maximum(-start, 0) + (w.dilation - 1)) // w.dilation * w.dilation
                place = xp.maximum(place, along(start + more, axis, ndim))
            else:
                place = xp.minimum(place, along(end - 1, axis, ndim))
            place = place * step
        if whole is None:
            whole = place
        else:
            whole += place
    if first_of_all is not None:
        whole += first_of_all
    return whole


_PLACES = Primitive(
    "max_pool_places", _places_value, {"x": None, "y": None}, kernel="max_pool_places"
)


def _places(x: Any, y: Any, windows: Windows) -> Any:
    return apply(_PLACES, (x, y), {"windows": windows})


def _max_rule(g: Any, x: Any, y: Any, windows: Windows) -> Any:
    bare = type(g) is np.ndarray and g.dtype in _BITS
    if bare and all(w.tiles for w in windows) and not np.isnan(np.max(y, initial=0)):
        return _tap_by_tap(g, x, y, windows)
    planes = math.prod(x.shape[: -len(windows)])
    size = math.prod(w.size for w in windows)
    results = math.prod(w.results for w in windows)
    places = reshape(_places(x, y, windows), (planes, results))
    d = scattered(
        reshape(g, (planes, results)), places, 1, (planes, size), all(w.apart for w in windows)
    )
    return reshape(d, x.shape)


def _tap_by_tap(g: Any, x: Any, y: Any, windows: Windows) -> Any:
    """The gradient of a maximum of windows that lie apart and inside, without NaN among ``y``.

    Each tap of all windows is one view of ``x``. As with ``keep_where``, multiplying bits by 0 or 1
    is quicker than selecting numbers.
    """
    bits: Any = _BITS[g.dtype]
    d = np.zeros(x.shape, bits)
    numbers = np.ascontiguousarray(g).view(bits)
    free = np.ones(y.shape, np.bool_)  # the windows whose largest element is not found yet
    for taps in itertools.product(*[range(w.kernel) for w in windows]):
        each = zip(taps, windows, strict=True)
        at: Any = (..., *[slice(t, t + (w.results - 1) * w.stride + 1, w.stride) for t, w in each])
        found = x[at] == y
        found &= free
        free ^= found
        np.multiply(numbers, found, out=d[at])
    return d.view(g.dtype)


_BITS = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}
_MAX_POOL = Primitive(
    "max_pool", _max_value, {"x": _max_rule}, promotion="same", half_in_float32=True,
    kernel="max_pool",
)  # fmt: skip


def _max_pooled(input: Any, windows: Windows, return_indices: bool) -> Any:
    y = apply(_MAX_POOL, (input,), {"windows": windows})
    return (y, _places(input, y, windows)) if return_indices else y


def _brute_force(x: Any, windows: Windows, of: Function) -> Any:
    """``of`` the elements of each window, along the last axis, and of their numbers."""
    rows = [[_elements(w, o) for o in range(w.results)] for w in windows]
    flat = np.arange(math.prod(w.size for w in windows)).reshape([w.size for w in windows])
    kept = x.shape[: x.ndim - len(windows)]
    found = [
        of(x[(..., *np.ix_(*at))].reshape(*kept, -1), flat[np.ix_(*at)].reshape(-1))
        for at in itertools.product(*rows)
    ]
    return np.stack(found, -1).reshape(*kept, *[w.results for w in windows])


def _elements(w: Window, o: int) -> list[int]:
    """Which elements window number ``o`` has."""
    if not w.stride:
        return list(range(o * w.size // w.results, -(-(o + 1) * w.size // w.results)))
    places = [o * w.stride - w.padding + t * w.dilation for t in range(w.kernel)]
    return [i for i in places if 0 <= i < w.size]


def _largest(x: Any, windows: Windows, return_indices: bool) -> Any:
    y = _brute_force(x, windows, lambda values, _: values.max(-1))
    if not return_indices:
        return y
    return y, _brute_force(x, windows, lambda values, flat: flat[values.argmax(-1)])


SHAPES: dict[int, tuple[int, ...]] = {1: (2, 2, 7), 2: (2, 2, 5, 4), 3: (1, 2, 4, 3, 4)}
_MAX_DOC = """The largest element of each window that moves over the last {n} of the axes.

    kernel_size, stride, padding, dilation: one number, or one for each axis. stride: how far a
        window lies from the one before; ``kernel_size`` if ``None``. padding: how far windows
        reach beyond both ends, where nothing is that could be the largest; half of a window at
        most. dilation: the distance of the elements of a window.
    ceil_mode: with windows that end outside, if they begin inside.
    return_indices: give besides where the elements are, as int64: their numbers in the last axes
        of the input taken as one. ``max_unpool{n}d`` puts them back.

    The gradient goes to the first of equal elements; NaN counts as the largest. The input has
    shape (N, C, ...) or (C, ...). Raises ShapeError for another, or if no window fits, and
    ValueError for options out of range.
    """


def _max_pool(n: int) -> Function:
    name = f"max_pool{n}d"

    def reference(x: Any, k: Any, *options: Any, **named: Any) -> Any:
        return_indices = named.pop("return_indices", False)
        return _largest(x, _max_windows(x, k, *options, **named), return_indices)

    def _max_windows(
        x: Any, k: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> Windows:
        return strided(name, x, n, k, stride, padding, dilation, ceil)

    def pool(
        input: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        windows = _max_windows(input, kernel_size, stride, padding, dilation, ceil_mode)
        return _max_pooled(input, windows, return_indices)

    shape = SHAPES[n]
    cases = [
        lambda s: s(s.distinct(*shape), 2),
        lambda s: s(s.distinct(*shape[1:]), 3, 2, 1, return_indices=True),
        lambda s: s(s.distinct(*shape), 2, 1, 0, 2),
    ]
    return named(
        name, _MAX_DOC.replace("{n}", str(n)), cases=cases, reference=reference,
        primitive=_MAX_POOL,
    )(pool)  # fmt: skip


max_pool1d, max_pool2d, max_pool3d = _max_pool(1), _max_pool(2), _max_pool(3)

_ADAPTIVE_MAX_DOC = """The largest elements of ``output_size`` windows of nearly equal length.

    output_size: one number, or one for each of the last {n} axes; ``None`` among them keeps the
        size of the axis. Window i of n goes from ``i * size // n`` to the next one's beginning,
        rounded up.
    return_indices: give besides where the elements are, as ``max_pool{n}d`` does.

    The gradient goes to the first of equal elements; NaN counts as the largest. The input has
    shape (N, C, ...) or (C, ...). Raises ShapeError for another, ValueError for other sizes.
    """


def _adaptive_max_pool(n: int) -> Function:
    name = f"adaptive_max_pool{n}d"

    def pool(
        input: Any, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        return _max_pooled(input, adaptive(name, input, n, output_size), return_indices)

    shape = SHAPES[n]
    return named(
        name,
        _ADAPTIVE_MAX_DOC.replace("{n}", str(n)),
        cases=[
            lambda s: s(s.distinct(*shape), 2),
            lambda s: s(s.distinct(*shape[1:]), (3,) * n, return_indices=True),
        ],
        reference=lambda x, size, return_indices=False: _largest(
            x, adaptive(name, x, n, size), return_indices
        ),
        primitive=_MAX_POOL,
    )(pool)


adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _adaptive_max_pool(1), _adaptive_max_pool(2), _adaptive_max_pool(3),
)  # fmt: skip


# --- the mean -------------------------------------------------------------------------------------


def _divided(xp: Any, y: Any, windows: Windows, counted: bool, divisor: float) -> Any:
    """``y`` divided by ``divisor``, or if that is 0 by how many elements each window has.

    counted: whether padding counts among them.
    """
    if divisor:
        return y / divisor
    alike = 1
    for axis, w in enumerate(windows, y.ndim - len(windows)):
        if w.padded == w.size or (counted and w.padded <= w.size + 2 * w.padding):
            alike *= w.kernel
            continue
        start, end = bounds(xp, w)
        if counted:
            lengths = xp.minimum(end, w.size + w.padding) - start
        else:
            lengths = xp.minimum(end, w.size) - xp.maximum(start, 0)
        y = y / along(lengths, axis, y.ndim).astype(y.dtype)
    return y / alike


def _avg_value(xp: Any, x: Any, windows: Windows, counted: bool, divisor: float) -> Any:
    for axis, w in enumerate(windows, x.ndim - len(windows)):
        if w.whole:
            x = total(xp, x, (axis,), True)
            continue
        first, *others = views(xp, x, axis, w, 0)
        x = first + others[0] if others else first
        for part in others[1:]:
            xp.add(x, part, out=x)
    return _divided(xp, x, windows, counted, divisor)


def _avg_spread_value(xp: Any, g: Any, windows: Windows, counted: bool, divisor: float) -> Any:
    d = _divided(xp, g, windows, counted, divisor)
    for axis, w in enumerate(windows, g.ndim - len(windows)):
        d = spread(xp, d, axis, w)
    return d


# A mean is linear: each of the two is the gradient rule of the other.
_AVG_POOL: Primitive = Primitive(
    "avg_pool",
    _avg_value,
    {
        "x": lambda g, windows, counted, divisor: apply(
            _AVG_SPREAD, (g,), {"windows": windows, "counted": counted, "divisor": divisor}
        )
    },
    promotion="float",
    half_in_float32=True,
    kernel="avg_pool",
)
_AVG_SPREAD: Primitive = Primitive(
    "avg_pool_gradient",
    _avg_spread_value,
    {
        "g": lambda g, windows, counted, divisor: apply(
            _AVG_POOL, (g,), {"windows": windows, "counted": counted, "divisor": divisor}
        )
    },
    promotion="float",
    half_in_float32=True,
    kernel="avg_pool_gradient",
)


def _averaged(input: Any, windows: Windows, counted: bool = True, divisor: float = 0.0) -> Any:
    n = len(windows)
    if not divisor and all(w.whole for w in windows):
        return mean(input, axis=tuple(range(-n, 0)), keepdims=True)
    attrs = {"windows": windows, "counted": counted, "divisor": divisor}
    return apply(_AVG_POOL, (input,), attrs)


_AVG_DOC = """The mean of each window that moves over the last {n} of the axes.

    kernel_size, stride, padding, ceil_mode: as in ``max_pool{n}d``; outside are zeros.
    count_include_pad: whether these zeros count as elements in the mean.{divisor}

    The input has shape (N, C, ...) or (C, ...). Raises ShapeError for another, or if no window
    fits, and ValueError for options out of range.
    """
_DIVISOR_DOC = """
    divisor_override: divide the sum by this number in place of the number of elements."""


def _avg_windows(name: str, n: int) -> Function:
    def windows(x: Any, k: Any, stride: Any, padding: Any, ceil: bool) -> Windows:
        return strided(name, x, n, k, stride, padding, 1, ceil)

    return windows


def _avg_reference(windows: Function) -> Function:
    def reference(
        x: Any, k: Any, s: Any = None, p: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Any:  # fmt: skip
        found = windows(x, k, s, p, ceil_mode)
        if not count_include_pad:
            return _brute_force(x, found, lambda values, _: values.mean(-1))
        divisor = divisor_override or math.prod(w.kernel for w in found)
        return _brute_force(x, found, lambda values, _: values.sum(-1) / divisor)

    return reference


def _avg_row(n: int, divisors: bool, pool: Function, windows: Function) -> Any:
    shape = SHAPES[n]
    cases = [
        lambda s: s(s.real(*shape), 2),
        lambda s: s(s.real(*shape[1:]), 3, 2, 1),
        lambda s: s(s.real(*shape), 3, 2, 1, True, False),
    ]
    if divisors:
        cases.append(lambda s: s(s.real(*shape), 2, 1, divisor_override=3))
    doc = _AVG_DOC.replace("{divisor}", _DIVISOR_DOC if divisors else "")
    return named(
        f"avg_pool{n}d", doc.replace("{n}", str(n)), cases=cases,
        reference=_avg_reference(windows), primitive=_AVG_POOL,
    )(pool)  # fmt: skip


def _avg_pool1d() -> Function:
    windows = _avg_windows("avg_pool1d", 1)

    def pool(
        input: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Tensor:
        found = windows(input, kernel_size, stride, padding, ceil_mode)
        y: Tensor = _averaged(input, found, count_include_pad)
        return y

    return _avg_row(1, False, pool, windows)


def _avg_pool(n: int) -> Function:
    name = f"avg_pool{n}d"
    windows = _avg_windows(name, n)

    def pool(
        input: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        divisor = 0.0
        if divisor_override is not None:
            divisor = float(number(name, "divisor_override", divisor_override))
            if not divisor:
                raise ValueError(f"{name}: divisor_override must not be 0")
        found = windows(input, kernel_size, stride, padding, ceil_mode)
        y: Tensor = _averaged(input, found, count_include_pad, divisor)
        return y

    return _avg_row(n, True, pool, windows)


avg_pool1d, avg_pool2d, avg_pool3d = _avg_pool1d(), _avg_pool(2), _avg_pool(3)
_ADAPTIVE_AVG_DOC = """The means of ``output_size`` windows of nearly equal length.

    output_size: as in ``adaptive_max_pool{n}d``; 1 gives the mean over the last axes.

    The input has shape (N, C, ...) or (C, ...). Raises ShapeError for another, ValueError for
    other sizes.
    """


@lru_cache(maxsize=64)
def _mean_map(size: int, count: int) -> Map:
    """The means of ``count`` windows of nearly equal length over ``size`` elements."""
    start = np.arange(count) * size // count
    end = -(-np.arange(1, count + 1) * size // count)
    rows = np.repeat(np.arange(count), end - start)
    columns = np.concatenate([np.arange(a, b) for a, b in zip(start, end, strict=True)])
    return made_map(rows, columns, 1 / (end - start)[rows], count, size)


def adaptive_means(name: str, input: Any, n: int, output_size: Any) -> Any:
    """The means of ``adaptive_avg_pool`` over the last ``n`` axes."""
    windows = adaptive(name, input, n, output_size)
    if not hasattr(input, "dtype"):
        input = asarray(input)
    for k, w in enumerate(windows):
        if not w.stride:
            if input.dtype not in FLOATS:
                input = asarray(input, dtype=get_default_dtype())
            input = weighted_take(input, len(input.shape) - n + k, _mean_map(w.size, w.results))
    alike = [w if w.stride else Window(w.results, 1, 1, 0, 1, w.results) for w in windows]
    return _averaged(input, tuple(alike)) if any(w.kernel > 1 for w in alike) else input


def _adaptive_avg_pool(n: int) -> Function:
    name = f"adaptive_avg_pool{n}d"

    @in_float32
    def pool(input: Any, output_size: int | Sequence[int | None] | None) -> Tensor:
        y: Tensor = adaptive_means(name, input, n, output_size)
        return y

    shape = SHAPES[n]
    return named(
        name,
        _ADAPTIVE_AVG_DOC.replace("{n}", str(n)),
        cases=[
            lambda s: s(s.real(*shape), 1),
            lambda s: s(s.real(*shape[1:]), 3),
            lambda s: s(s.real(*shape), (2,) * n),
        ],
        reference=lambda x, size: _brute_force(
            x, adaptive(name, x, n, size), lambda values, _: values.mean(-1)
        ),
        complex=False,
    )(pool)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _adaptive_avg_pool(1), _adaptive_avg_pool(2), _adaptive_avg_pool(3),
)  # fmt: skip


# --- the norm -------------------------------------------------------------------------------------

_LP_DOC = """``(sum of x**p)**(1/p)`` of each window that moves over the last {n} of the axes.

    norm_type: p. kernel_size, stride, ceil_mode: as in ``max_pool{n}d``. As in PyTorch, the sum
        over a window that ends outside counts as the part that a whole one would have.

    The gradient is 0 where the sum is 0. The input has shape (N, C, ...) or (C, ...). Raises
    ShapeError for another, or if no window fits, and ValueError for options out of range.
    """


def _lp_pool(n: int) -> Function:
    name = f"lp_pool{n}d"

    @in_float32
    def pool(
        input: Any,
        norm_type: float,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        ceil_mode: bool = False,
    ) -> Tensor:
        p = number(name, "norm_type", norm_type)
        if not p:
            raise ValueError(f"{name}: norm_type must not be 0")
        windows = strided(name, input, n, kernel_size, stride, 0, 1, ceil_mode)
        sums = _averaged(pow(input, p), windows) * float(math.prod(w.kernel for w in windows))
        zero = sums == 0.0
        return where(zero, 0.0, pow(where(zero, 1.0, sums), 1 / p))

    shape = SHAPES[n]
    return named(
        name,
        _LP_DOC.replace("{n}", str(n)),
        cases=[
            lambda s: s(s.real(*shape), 2, 2),
            lambda s: s(s.real(*shape[1:], low=0.2), 3.0, 2, 1),
        ],
        reference=lambda x, p, k, s=None: _brute_force(
            x, strided(name, x, n, k, s, 0), lambda values, _: (values**p).sum(-1) ** (1 / p)
        ),
    )(pool)


lp_pool1d, lp_pool2d, lp_pool3d = _lp_pool(1), _lp_pool(2), _lp_pool(3)
