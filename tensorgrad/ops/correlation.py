"""How convolutions are computed: the windows as columns of a matrix, and matrix products.

What is called convolution in neural networks is a correlation:
``y[n, o, p] = sum over c, k of w[o, c, k] * x[n, c, first + p * stride + k * dilation]``, with
``x`` zero outside. It is computed in tiles of so many positions that the columns of a tile stay in
the cache, and memory does not grow with batch or image.

Where windows lie next to each other (stride 1), the columns of a tap are one contiguous run of the
padded tile, with a few positions between the rows that belong to no window and are left out in the
end: a run is copied many times faster than single rows. With a stride there would be too many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product as every
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.ops.linear_algebra import product

Sizes = tuple[int, ...]

# Elements of the columns of a tile, and of what they are multiplied with: where these are few, they
# shall stay in the second cache of a processor, 512 KiB of float32; where they are many, products
# are bound by arithmetic and want long rows, within 2 MiB. A GPU has no use for small tiles.
_SMALL = 2**17
_COLUMNS = 2**19
_COLUMNS_OF_DEVICE = 2**26
# Positions of a tile: so many are enough, and so many there are.
_ENOUGH = 2048
_POSITIONS = 128
# By how much the columns may grow by positions that belong to no window.
_WASTE = 1.6


class _Tile(NamedTuple):
    """A part of the batch and a box of positions: where it begins, and its counts."""

    first: Sizes
    counts: Sizes

    @property
    def part(self) -> tuple[slice, ...]:
        """What it is of an array (N, channels, *positions)."""
        batch, *boxes = [slice(a, a + n) for a, n in zip(self.first, self.counts, strict=True)]
        return (batch, slice(None), *boxes)


def _tiles(xp: Any, batch: int, size: Sizes, rows: int, outputs: int) -> Iterator[_Tile]:
    """The tiles of ``batch`` times ``size`` positions.

    rows: how many numbers there are in a column. outputs: in that which it is multiplied to.
    """
    if xp is np:
        enough = min(_ENOUGH, _COLUMNS // rows)
        left = max(_POSITIONS, _SMALL // (rows + outputs), enough)
    else:
        left = max(_POSITIONS, _COLUMNS_OF_DEVICE // rows)
    ranges: list[range] = []
    for n in (*reversed(size), batch):
        pieces = -(-n // min(n, max(1, left)))
        ranges.insert(0, range(0, n, -(-n // pieces)))
        left //= ranges[0].step
    for begin in every(*ranges):
        each = zip(begin, ranges, strict=True)
        yield _Tile(begin, tuple([min(r.step, r.stop - a) for a, r in each]))


def _strided(xp: Any, x: Any, shape: Sequence[int], steps: Sequence[int]) -> Any:
    """A view of ``x``, contiguous, whose strides are given in elements."""
    strides = tuple([step * x.itemsize for step in steps])
    if xp is np:  # what ``as_strided`` does takes ten times as long
        return np.ndarray(tuple(shape), x.dtype, x, 0, strides)
    return xp.lib.stride_tricks.as_strided(x, tuple(shape), strides)


def _steps(shape: Sequence[int]) -> list[int]:
    """The strides of an array of ``shape``, in elements."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


class _Columns:
    """The windows of a tile as columns of a matrix, and the memory for them.

    A tile is copied with the zeros around it (``load``), as (C, length): the examples one after the
    other, each with its axes in order, and so many zeros behind that windows which begin anywhere
    may read on. Tiles of one form share the memory, and the zeros are written once.

    matrix: shape (C * taps, columns). With ``runs``, not every column is a window; ``windows``
    gives those that are. Then the zeros behind a row are those before the next one, as far as there
    are as many: the fewer columns, the less work.
    """

    def __init__(
        self, windows: _Windows, counts: Sizes, extent: Sizes, inside: tuple[slice, ...], runs: bool
    ) -> None:
        self.xp, self.counts, self.runs = windows.xp, counts, runs
        x, stride, kernel = windows.x, windows.stride, windows.kernel
        channels, rows = x.shape[1], list(extent)
        if runs:
            edges = zip(inside, extent, strict=True)
            rows = [n - (min(p.start, n - p.stop) if p.stop > p.start else 0) for p, n in edges]
        ahead = _steps(rows)
        whole = counts[0] * math.prod(rows)
        more = sum((n - k) * step for n, k, step in zip(extent, rows, ahead, strict=True))
        region = self.xp.zeros((channels, whole + more), x.dtype)
        self._place = region[:, :whole].reshape(channels, counts[0], *rows)[
            (slice(None), slice(None), *inside)
        ]
        self.steps = [math.prod(rows), *(s * n for s, n in zip(stride, ahead, strict=True))]
        taps = [d * n for d, n in zip(windows.dilation, ahead, strict=True)]
        places, steps = counts, self.steps
        if runs:
            places = (1 + sum((n - 1) * s for n, s in zip(counts, self.steps, strict=True)),)
            steps = [1]
        shape = (channels, *kernel, *places)
        self._windows = _strided(self.xp, region, shape, (whole + more, *taps, *steps))
        self._columns = windows.buffer(math.prod(shape)).reshape(shape)
        self.matrix = self._columns.reshape(channels * math.prod(kernel), math.prod(places))
        self._others: Any = None

    def load(self, part: Any) -> None:
        """Make the columns of a part of ``x``, (batch, C, ...)."""
        self._place[...] = part.swapaxes(0, 1)
        self._columns[...] = self._windows

    def windows(self, matrix: Any) -> Any:
        """Of a matrix (rows, columns) those columns that are windows: (rows, batch, *counts)."""
        shape = (matrix.shape[0], *self.counts)
        if not self.runs:
            return matrix.reshape(shape)
        return _strided(self.xp, matrix, shape, (matrix.shape[1], *self.steps))

    def others(self, part: Any) -> Any:
        """``part`` (batch, rows, *counts) as (rows, columns), with zeros where no window is."""
        if self._others is None:
            self._others = self.xp.zeros((part.shape[1], self.matrix.shape[1]), part.dtype)
        self.windows(self._others)[...] = part.swapaxes(0, 1)
        return self._others


class _Windows:
    """The windows of ``x``, tile by tile."""

    def __init__(
        self, xp: Any, x: Any, kernel: Sizes, first: Sizes, stride: Sizes, dilation: Sizes
    ) -> None:
        self.xp, self.x, self.kernel = xp, x, kernel
        self.first, self.stride, self.dilation = first, stride, dilation
        self._buffer: Any = None
        self._forms: dict[Any, _Columns] = {}

    def buffer(self, size: int) -> Any:
        """Memory for so many elements, the same at every call."""
        if self._buffer is None or self._buffer.size < size:
            self._buffer = self.xp.empty(size, self.x.dtype)
        return self._buffer[:size]

    def columns(self, tile: _Tile, runs: bool = True) -> _Columns:
        """The columns of a tile. They are overwritten by those of the next one.

        runs: False for columns that are windows, all of them.
        """
        stride, counts = self.stride, tile.counts[1:]
        extent = tuple([
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(counts, stride, self.kernel, self.dilation, strict=True)
        ])  # fmt: skip
        source, inside = [], []
        for f, at, s, n, size in zip(
            self.first, tile.first[1:], stride, extent, self.x.shape[2:], strict=True
        ):
            low = f + at * s
            begin, end = min(max(low, 0), size), max(min(low + n, size), 0)
            end = max(begin, end)
            source.append(slice(begin, end))
            inside.append(slice(begin - low, end - low) if begin < end else slice(0, 0))
        form = (tile.counts, tuple([(p.start, p.stop) for p in inside]))
        found = self._forms.get(form)
        if found is None:
            few = math.prod(extent) <= _WASTE * math.prod(counts)
            runs = runs and few and self.xp is np
            found = _Columns(self, tile.counts, extent, tuple(inside), runs)
            self._forms[form] = found
        found.load(self.x[(tile.part[0], slice(None), *source)])
        return found


def _rows_of(w: Any, groups: int) -> Any:
    """The weights as a matrix of (outputs, C * taps), or as one for each group."""
    outputs = w.shape[0] // groups
    inner = math.prod(w.shape[1:])
    return w.reshape((outputs, inner) if groups == 1 else (groups, outputs, inner))


def _grouped(matrix: Any, groups: int) -> Any:
    """The rows of a matrix as those of its groups."""
    if groups == 1:
        return matrix
    return matrix.reshape(groups, matrix.shape[0] // groups, matrix.shape[1])


def correlate(
    xp: Any, x: Any, w: Any, bias: Any, first: Sizes, size: Sizes, stride: Sizes,
    dilation: Sizes, groups: int, out: Any = None,
) -> Any:  # fmt: skip
    """The correlation of ``x`` (N, groups * C, ...) with ``w`` (groups * O, C, *kernel).

    first: where the first window begins, per axis. size: how many windows. bias: (groups * O,)
    or ``None``. out: where to write it. Returns (N, groups * O, *size).
    """
    kernel = w.shape[2:]
    shape = (x.shape[0], w.shape[0], *size)
    if not x.size or not w.size:
        out = xp.empty(shape, x.dtype) if out is None else out
        out[...] = 0 if bias is None else bias.reshape(-1, *(1,) * len(size))
        return out
    single = all(k == 1 for k in kernel) and all(s == 1 for s in stride)
    if single and size == x.shape[2:] and not any(first):
        return _mixed(xp, x, w, bias, groups, out)
    if out is None:
        out = xp.empty(shape, x.dtype)
    matrix = _rows_of(w, groups)
    windows = _Windows(xp, x, kernel, first, stride, dilation)
    for tile in _tiles(xp, x.shape[0], size, x.shape[1] * math.prod(kernel), w.shape[0]):
        columns = windows.columns(tile)
        found = product(xp, matrix, _grouped(columns.matrix, groups))
        found = found.reshape(w.shape[0], columns.matrix.shape[1])
        if bias is not None:
            found += bias[:, None]
        out[tile.part].swapaxes(0, 1)[...] = columns.windows(found)
    return out


def _mixed(xp: Any, x: Any, w: Any, bias: Any, groups: int, out: Any) -> Any:
    """The correlation with kernels of one tap: channels are mixed, and nothing is copied."""
    n, channels, *size = x.shape
    length = math.prod(size)
    if groups == 1:
        y = product(xp, _rows_of(w, 1), x.reshape(n, channels, length))
    else:
        y = product(xp, _rows_of(w, groups), x.reshape(n, groups, channels // groups, length))
    y = y.reshape(n, w.shape[0], length)
    if bias is not None:
        y += bias[:, None]
    y = y.reshape(n, w.shape[0], *size)
    if out is None:
        return y
    out[...] = y
    return out


def correlate_weight(
    xp: Any, g: Any, x: Any, first: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes,
    groups: int,
) -> Any:  # fmt: skip
    """The gradient of ``correlate`` for its weights, (groups * O, C, *kernel).

    g: the gradient of the result, (N, groups * O, ...).
    """
    channels = x.shape[1] // groups
    shape = (g.shape[1], channels, *kernel)
    if not g.size or not x.size:
        return xp.zeros(shape, g.dtype)
    found = _weight_sums(xp, g, x, first, kernel, stride, dilation, groups, True)
    if xp is np and found.dtype.kind == "f" and not np.isfinite(found).all():
        # Where columns are runs, what is no window is multiplied by 0, which inf and NaN survive.
        found = _weight_sums(xp, g, x, first, kernel, stride, dilation, groups, False)
    return xp.ascontiguousarray(found.reshape(shape))


def _weight_sums(
    xp: Any, g: Any, x: Any, first: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes,
    groups: int, runs: bool,
) -> Any:  # fmt: skip
    """The gradient as (groups, O, C * taps).

    runs: whether columns may be such that are no window. They are multiplied by 0.
    """
    total: Any = None
    inner, outputs = x.shape[1] * math.prod(kernel), g.shape[1]
    windows = _Windows(xp, x, kernel, first, stride, dilation)
    for tile in _tiles(xp, x.shape[0], g.shape[2:], inner, outputs):
        columns = windows.columns(tile, runs)
        rows = columns.others(g[tile.part])
        a, b = _grouped(rows, groups), _grouped(columns.matrix, groups)
        if outputs < inner:  # BLAS is quicker if the first matrix has more rows
            a, b = b, a
        part = product(xp, a, b.swapaxes(-1, -2))
        total = part if total is None else xp.add(total, part, out=total)
    return total.swapaxes(-1, -2) if outputs < inner else total


class _Phase(NamedTuple):
    """Along one axis, every ``stride``-th position of the input: what contributes to it.

    at: the positions. taps: the taps that meet them, the last one first. first, dilation: of the
    correlation of the gradient with these taps.
    """

    at: slice
    size: int
    taps: slice
    first: int
    dilation: int


def _phases(kernel: int, low: int, size: int, stride: int, dilation: int) -> Iterator[_Phase]:
    """The phases of an axis of ``size`` positions, where the first window begins at ``low``.

    Position i is tap k of window p if i = low + p * stride + k * dilation; so the taps that meet
    i are those whose k * dilation leaves the same remainder by ``stride`` as i - low.
    """
    for rest in range(stride):
        begin = (low + rest) % stride
        count = len(range(begin, size, stride))
        if not count:
            continue
        taps = [k for k in range(kernel) if k * dilation % stride == rest]
        step = taps[1] - taps[0] if len(taps) > 1 else 1
        at = slice(begin, None, stride)
        if not taps:
            yield _Phase(at, count, slice(0, 0), 0, 1)
            continue
        first = (begin - low - taps[-1] * dilation) // stride
        last = None if taps[0] < step else taps[0] - step
        yield _Phase(at, count, slice(taps[-1], last, -step), first,
                     max(1, step * dilation // stride))  # fmt: skip


def correlate_input(
    xp: Any, g: Any, w: Any, bias: Any, first: Sizes, size: Sizes, stride: Sizes,
    dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    """The gradient of ``correlate`` for its input of ``size`` positions, plus ``bias``.

    It is a correlation of ``g`` with the taps in the other direction: one for each phase, if
    windows do not lie next to each other. g: (N, groups * O, ...). Returns (N, groups * C, *size).
    """
    outputs, channels, *kernel = w.shape
    swapped = w.reshape(groups, outputs // groups, channels, *kernel).swapaxes(1, 2)
    shape = (g.shape[0], groups * channels, *size)
    out = xp.empty(shape, g.dtype) if any(s > 1 for s in stride) else None
    ones = (1,) * len(size)
    axes = [
        list(_phases(*axis)) for axis in zip(kernel, first, size, stride, dilation, strict=True)
    ]
    for phases in every(*axes):
        taps = xp.ascontiguousarray(swapped[(..., *(phase.taps for phase in phases))])
        found = correlate(
            xp, g, taps.reshape(groups * channels, outputs // groups, *taps.shape[3:]), bias,
            tuple([p.first for p in phases]), tuple([p.size for p in phases]), ones,
            tuple([p.dilation for p in phases]), groups,
            None if out is None else out[(..., *(p.at for p in phases))],
        )  # fmt: skip
        if out is None:
            return found
    return xp.empty(shape, g.dtype) if out is None else out
