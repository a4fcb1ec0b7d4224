"""Convolutions: which way each of them is computed, and matrix products of columns.

cuDNN is asked first, where it is (``backend/cudnn.py``); else ``way`` decides. By columns
(kernels/convolution.cu), a convolution is the product of the weights and the windows, its gradient
for the input the windows' gradients added up where they came from, that for the weights the product
of gradients and windows. The examples are taken in pieces whose columns fill at most ``WORKSPACE``
bytes, unless those of a single position (or, for the input, channel) are more; beside them there
are sums, and gradients in another order, for the same positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend import cudnn, kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import convolution_3x3
from tensorgrad.backend.launch.bias_activation import summed
from tensorgrad.backend.launch.common import (
    THREADS,
    Plan,
    blocks_for,
    contiguous,
    fits,
    forward,
    newer_than_turing,
    per_pack,
    planned,
)
from tensorgrad.backend.launch.products import product, tf32
from tensorgrad.dtypes import bfloat16, float32

#: Bytes that columns take at a time.
WORKSPACE = 1 << 27
#: Sizes of axes, and places in them, are 32-bit numbers in the kernels.
_LONGEST = 2**30
#: Elements of an example; eight of them are counted with 32 bits.
_LARGEST = 2**28
#: Positions of an example below which examples share a product: a product has tiles of about so
#: many columns.
_FEW = 128


class Axis(NamedTuple):
    """The windows along one axis, as ``ops.windows.Window`` has them."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    results: int


_ALONE = Axis(1, 1, 1, 0, 1, 1)


class Convolution(NamedTuple):
    """What decides how a convolution is computed. channels, outputs: of each group."""

    examples: int
    groups: int
    channels: int
    outputs: int
    axes: tuple[Axis, ...]

    @property
    def taps(self) -> int:
        """How many numbers of each channel are in a window."""
        return math.prod(a.kernel for a in self.axes)

    @property
    def positions(self) -> int:
        """How many windows there are."""
        return math.prod(a.results for a in self.axes)

    @property
    def size(self) -> tuple[int, ...]:
        """The sizes of the input's axes behind its channels."""
        return tuple([a.size for a in self.axes])

    @property
    def results(self) -> tuple[int, ...]:
        """Those of the result."""
        return tuple([a.results for a in self.axes])

    @property
    def pointwise(self) -> bool:
        """Whether each window is the element in its place."""
        return all(a[1:5] == (1, 1, 0, a.dilation) and a.size == a.results for a in self.axes)

    @property
    def side_by_side(self) -> bool:
        """Whether there are windows of 3 x 3, one at each element or fewer, and little padding."""
        each = all(a.kernel == 3 and a.stride == a.dilation == 1 and a.padding <= 2
                   for a in self.axes)  # fmt: skip
        return each and len(self.axes) == 2


@lru_cache(maxsize=1024)
def way(part: str, dtype: np.dtype[Any], c: Convolution, library: bool = False) -> str:
    """How a part of a convolution is computed: "columns", "pointwise" or "implicit".

    part: "value", or of which of the factors it is the gradient: "input" or "weight". library:
    whether cuBLAS multiplies on tensor cores what kernels do not, so that products are quicker.
    """
    if c.groups > 1:
        return "columns"
    if c.pointwise:
        return "pointwise"
    if not c.side_by_side or library:
        return "columns"
    if part == "weight":
        chosen = convolution_3x3.worthwhile_for_weights(dtype, c.channels, c.outputs, *c.results)
    elif part == "value":
        chosen = convolution_3x3.worthwhile(dtype, c.channels, *c.results)
    else:
        chosen = convolution_3x3.worthwhile(dtype, c.outputs, *c.size)
    return "implicit" if chosen else "columns"


def _library(xp: Any, x: Array) -> bool:
    """``library`` of ``way``: TF32, where that is allowed; bfloat16 on Turing, which has none."""
    if x.dtype == float32:
        return tf32(xp)
    return bool(x.dtype == bfloat16) and not newer_than_turing(xp, x.data.device_id)


def _served(
    xp: Any, arrays: tuple[Array, ...], shapes: tuple[tuple[int, ...], ...], stride: Any,
    padding: Any, dilation: Any, groups: int,
) -> Convolution | None:  # fmt: skip
    """That with input, weight and result of these shapes; ``None`` if it is not served here."""
    x, w, y = shapes
    if not fits(xp, *arrays) or len(x) > 5 or 0 in (*x, *w, *y):
        return None
    each = zip(x[2:], w[2:], stride, padding, dilation, y[2:], strict=True)
    axes = tuple([Axis(*numbers) for numbers in each])
    if any(a.size + a.padding + a.results * a.stride + a.kernel * a.dilation >= _LONGEST
           for a in axes):  # fmt: skip
        return None
    if max(math.prod(x[1:]), math.prod(y[1:])) >= _LARGEST:
        return None
    return Convolution(x[0], groups, w[1], w[0] // groups, axes)


def _by_cudnn(
    xp: Any, kind: str, arrays: tuple[Array, ...], shape: tuple[int, ...], stride: Any,
    padding: Any, dilation: Any,
) -> Array | None:  # fmt: skip
    """The result if cuDNN gives it; see ``cudnn.convolution``."""
    if not fits(xp, *arrays) or cudnn.of(arrays[0]) is None:
        return None
    a, b, bias = (*arrays, None)[:3]
    return cudnn.convolution(
        xp, kind, a, b, bias, shape, tuple(stride), tuple(padding), tuple(dilation), tf32(xp)
    )


@forward("convolution")
def _value(
    xp: Any, x: Array, weight: Array, bias: Array, size: Any, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Any:  # fmt: skip
    arrays = (x, weight) if bias is None else (x, weight, bias)
    shapes = x.shape, weight.shape, (x.shape[0], weight.shape[0], *size)
    found = _by_cudnn(xp, "fprop", arrays, shapes[2], stride, padding, dilation)
    if found is not None:
        return found
    c = _served(xp, arrays, shapes, stride, padding, dilation, groups)
    if c is None:
        return NotImplemented
    x, weight = contiguous(xp, x), contiguous(xp, weight)
    bias = None if bias is None else contiguous(xp, bias)
    chosen = way("value", x.dtype, c, _library(xp, x))
    if chosen == "implicit":
        return convolution_3x3.convolved(xp, x, weight, bias, c.results, tuple(padding), False)
    if chosen == "pointwise":
        return _mixed(xp, weight.reshape(c.outputs, c.channels), x, bias, c.results)
    return _value_by_columns(xp, c, x, weight, bias)


@forward("convolution_input")
def _input(
    xp: Any, g: Array, weight: Array, bias: Array, size: Any, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Any:  # fmt: skip
    arrays = (g, weight) if bias is None else (g, weight, bias)
    shapes = (g.shape[0], weight.shape[1] * groups, *size), weight.shape, g.shape
    found = _by_cudnn(xp, "dgrad", arrays[:2], shapes[0], stride, padding, dilation)
    if found is not None:
        return found if bias is None else _plus(xp, found, bias)
    c = _served(xp, arrays, shapes, stride, padding, dilation, groups)
    if c is None:
        return NotImplemented
    g, weight = contiguous(xp, g), contiguous(xp, weight)
    bias = None if bias is None else contiguous(xp, bias)
    chosen = way("input", g.dtype, c, _library(xp, g))
    if chosen == "implicit":
        above = tuple([2 - n for n in padding])
        return convolution_3x3.convolved(xp, g, weight, bias, c.size, above, True)
    if chosen == "pointwise":
        return _mixed(xp, weight.reshape(c.outputs, c.channels).T, g, bias, c.size)
    return _input_by_columns(xp, c, g, weight, bias)


@forward("convolution_weight")
def _weight(
    xp: Any, g: Array, x: Array, size: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    shapes = x.shape, (g.shape[1], x.shape[1] // groups, *size), g.shape
    found = _by_cudnn(xp, "wgrad", (g, x), shapes[1], stride, padding, dilation)
    if found is not None:
        return found
    c = _served(xp, (g, x), shapes, stride, padding, dilation, groups)
    if c is None:
        return NotImplemented
    g, x = contiguous(xp, g), contiguous(xp, x)
    chosen = way("weight", g.dtype, c, _library(xp, g))
    if chosen == "implicit":
        return convolution_3x3.weight_sums(xp, g, x, tuple(padding))
    if chosen == "pointwise" and _partial_sums_are_less(c, g.itemsize):
        return _mixed_weight(xp, c, g, x)
    return _weight_by_columns(xp, c, g, x)


def _plus(xp: Any, y: Array, bias: Array) -> Array:
    """``y``, [examples, channels, ...], with the bias added to it: cuDNN has no plan for both."""
    return xp.add(y, bias.reshape(-1, *(1,) * (y.ndim - 2)), out=y)


# --- one tap --------------------------------------------------------------------------------------


def _mixed(xp: Any, matrix: Array, x: Array, bias: Any, size: tuple[int, ...]) -> Array:
    """The product of a matrix and the channels of each example, plus ``bias``."""
    examples, channels = x.shape[:2]
    y = xp.empty((examples, matrix.shape[0], *size), x.dtype)
    rows = y.reshape(*y.shape[:2], -1)
    if bias is not None:
        spread_channels(xp, bias, rows)
    product(xp, matrix, x.reshape(examples, channels, -1), rows, add=bias is not None)
    return y


def _partial_sums_are_less(c: Convolution, item: int) -> bool:
    """Whether a gradient for each example, written and read in float32, is less than both factors
    in another order."""
    each = c.outputs * c.channels * 4
    whole = (c.outputs + c.channels) * c.positions * item
    return each <= whole and c.examples * each <= WORKSPACE


def _mixed_weight(xp: Any, c: Convolution, g: Array, x: Array) -> Array:
    """The gradient for the weights: the sum of that of each example."""
    shape = c.outputs, c.channels, *(1,) * len(c.axes)
    partial = xp.empty((c.examples, c.outputs, c.channels), arithmetic(g.dtype))
    rows = [a.reshape(c.examples, a.shape[1], c.positions) for a in (g, x)]
    product(xp, rows[0], rows[1].swapaxes(-1, -2), partial)
    out = xp.empty(shape, g.dtype)
    return summed(xp, partial.reshape(c.examples, -1), g.dtype, out)


# --- columns --------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A part of the batch and of the positions: where it begins, and how many there are."""

    example: int
    examples: int
    begin: int
    positions: int


def _pieces(c: Convolution, item: int) -> Iterator[Piece]:
    """Pieces whose columns, of ``item`` bytes each, fill the workspace at most."""
    most = WORKSPACE // (c.groups * c.channels * c.taps * item)  # positions
    step = -(-c.examples // -(-c.examples // max(1, most // c.positions)))
    count = c.positions if most >= c.positions else max(1, most)
    for example in range(0, c.examples, step):
        for begin in range(0, c.positions, count):
            yield Piece(
                example, min(step, c.examples - example), begin, min(count, c.positions - begin)
            )


def _shared(c: Convolution, piece: Piece) -> bool:
    """Whether the positions of all examples lie in one matrix (for each group)."""
    return (
        c.groups > 1 or piece.positions < c.positions or (c.positions < _FEW and piece.examples > 1)
    )


def _numbers(axes: tuple[Axis, ...]) -> list[int]:
    return [int(n) for axis in ((_ALONE,) * (3 - len(axes)) + axes) for n in axis]


@planned
def _columns_plan(
    xp: Any, dtype: np.dtype[Any], axes: tuple[Axis, ...], channels: int, outer: int, inner: int,
    begin: int, count: int, row: int, direct: bool,
) -> Plan:  # fmt: skip
    packs = -(-inner * count // per_pack(dtype))
    block = channels * math.prod(a.kernel for a in axes) * row
    kernel = kernels.get(xp, "convolution", "im2col", dtype)
    numbers = (*_numbers(axes), channels, outer, inner, begin, count, row, block)
    grid = (blocks_for(outer * channels * packs),)
    return kernel, grid, (THREADS,), (np.int32(direct), *numbers)


def to_columns(xp: Any, axes: tuple[Axis, ...], x: Array, piece: Piece, shared: bool) -> Array:
    """The columns of a piece of ``x``: [channels * taps, examples * count] if ``shared``, else
    [examples, channels * taps, count]. Rows begin at multiples of 16 bytes."""
    channels = x.shape[1]
    rows = channels * math.prod(a.kernel for a in axes)
    width = per_pack(x.dtype)
    outer, inner = (1, piece.examples) if shared else (piece.examples, 1)
    whole = inner * piece.positions
    row = -(-whole // width) * width
    columns = xp.empty((outer, rows, row), x.dtype)
    part = x[piece.example : piece.example + piece.examples]
    pointwise = all(a[1:5] == (1, 1, 0, a.dilation) and a.size == a.results for a in axes)
    positions = math.prod(a.results for a in axes)
    direct = pointwise and not any(n % width for n in (positions, piece.begin, piece.positions))
    direct = direct and not part.data.ptr % 16
    kernel, grid, block, tail = _columns_plan(
        xp, x.dtype, axes, channels, outer, inner, piece.begin, piece.positions, row, direct
    )
    kernel(grid, block, (part, columns, *tail))
    found = columns[:, :, :whole]
    return found[0] if shared else found


def _together(xp: Any, c: Convolution, g: Array, piece: Piece) -> Array:
    """A piece of ``g`` as [groups, outputs, examples * count]."""
    if piece.examples == 1 and g.shape[0] == 1:
        part = g.reshape(c.groups, c.outputs, c.positions)
        return part[:, :, piece.begin : piece.begin + piece.positions]
    axes = tuple([Axis(n, 1, 1, 0, 1, n) for n in c.results])
    return _grouped(c, to_columns(xp, axes, g, piece, True))


def _grouped(c: Convolution, matrix: Array) -> Array:
    """The rows of a matrix as those of its groups."""
    return matrix.reshape(c.groups, -1, matrix.shape[1]) if c.groups > 1 else matrix[None]


def _value_by_columns(xp: Any, c: Convolution, x: Array, w: Array, bias: Any) -> Array:
    outputs = c.groups * c.outputs
    y = xp.empty((c.examples, outputs, *c.results), x.dtype)
    flat = y.reshape(c.examples, outputs, c.positions)
    pieces = list(_pieces(c, x.itemsize))
    shared = _shared(c, pieces[0])
    matrix = w.reshape(c.groups, c.outputs, -1) if shared else w.reshape(outputs, -1)
    if bias is not None and not shared:
        spread_channels(xp, bias, flat)
    for piece in pieces:
        columns = to_columns(xp, c.axes, x, piece, shared)
        part = flat[piece.example : piece.example + piece.examples]
        if shared:
            whole = piece.examples * piece.positions
            sums = xp.empty((c.groups, c.outputs, whole), arithmetic(x.dtype))
            product(xp, matrix, _grouped(c, columns), sums)
            examples_apart(xp, sums, bias, part, piece)
        else:
            product(xp, matrix, columns, part, add=bias is not None)
    return y


def _weight_by_columns(xp: Any, c: Convolution, g: Array, x: Array) -> Array:
    shape = c.groups * c.outputs, c.channels, *[a.kernel for a in c.axes]
    pieces = list(_pieces(c, g.itemsize))
    kind = g.dtype if len(pieces) == 1 else arithmetic(g.dtype)
    total = xp.empty(shape, kind)
    rows = total.reshape(c.groups, c.outputs, -1)
    for piece in pieces:
        columns = _grouped(c, to_columns(xp, c.axes, x, piece, True))
        product(
            xp, _together(xp, c, g, piece), columns.swapaxes(-1, -2), rows,
            add=piece is not pieces[0],
        )  # fmt: skip
    if kind == g.dtype:
        return total
    whole = xp.empty(shape, g.dtype)
    whole[...] = total
    return whole


def _input_by_columns(xp: Any, c: Convolution, g: Array, w: Array, bias: Any) -> Array:
    channels, kind = c.groups * c.channels, arithmetic(g.dtype)
    x = xp.empty((c.examples, channels, *c.size), g.dtype)
    matrix = w.reshape(c.groups, c.outputs, -1).swapaxes(-1, -2)
    pieces = list(_pieces(c, kind.itemsize))
    if pieces[0].positions < c.positions:
        return _input_by_channels(xp, c, g, matrix, bias, x)
    shared = _shared(c, pieces[0])
    for piece in pieces:
        many = slice(piece.example, piece.example + piece.examples)
        if shared:
            factor = _together(xp, c, g, piece)
            columns = xp.empty((*matrix.shape[:2], piece.examples * c.positions), kind)
        else:
            factor = g[many].reshape(piece.examples, c.outputs, c.positions)
            columns = xp.empty((piece.examples, matrix.shape[1], c.positions), kind)
        product(xp, matrix if shared else matrix[0], factor, columns)
        from_columns(xp, c.axes, columns, bias, x[many], shared)
    return x


def _input_by_channels(
    xp: Any, c: Convolution, g: Array, matrix: Array, bias: Any, x: Array
) -> Array:
    """Where the columns of an example are more than the workspace: some channels at a time."""
    step = max(1, WORKSPACE // (c.taps * c.positions * x.itemsize))
    flat = g.reshape(c.examples, c.groups, c.outputs, c.positions)
    for n in range(c.examples):
        for group in range(c.groups):
            for first in range(0, c.channels, step):
                last = min(first + step, c.channels)
                rows = matrix[group, first * c.taps : last * c.taps]
                columns = xp.empty((rows.shape[0], c.positions), arithmetic(g.dtype))
                product(xp, rows, flat[n, group], columns)
                part = slice(group * c.channels + first, group * c.channels + last)
                more = None if bias is None else bias[part]
                from_columns(xp, c.axes, columns, more, x[n : n + 1, part], True)
    return x


@planned
def _back_plan(
    xp: Any, dtype: np.dtype[Any], axes: tuple[Axis, ...], examples: int, channels: int,
    shared: bool, bias: bool, packed: bool,
) -> Plan:  # fmt: skip
    outer, inner = (1, examples) if shared else (examples, 1)
    row = inner * math.prod(a.results for a in axes)
    block = channels * math.prod(a.kernel for a in axes) * row
    size = examples * channels * math.prod(a.size for a in axes)
    grid = (blocks_for(size, per_pack(dtype) if packed else 1),)
    kernel = kernels.get(xp, "convolution", "col2im", dtype)
    numbers = (*_numbers(axes), channels, outer, inner, row, block)
    return kernel, grid, (THREADS,), (np.int32(bias), np.int32(packed), *numbers)


def from_columns(
    xp: Any, axes: tuple[Axis, ...], columns: Array, bias: Any, x: Array, shared: bool
) -> None:
    """Write to ``x`` what the columns give it, plus ``bias``."""
    packed = not (x.size * x.itemsize | x.data.ptr) % 16
    kernel, grid, block, tail = _back_plan(
        xp, x.dtype, axes, x.shape[0], x.shape[1], shared, bias is not None, packed
    )
    kernel(grid, block, (columns, x if bias is None else bias, x, *tail))


# --- results --------------------------------------------------------------------------------------


@planned
def _spread_plan(xp: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Plan:
    kernel = kernels.get(xp, "convolution", "spread_channels", dtype)
    size = math.prod(shape)
    return kernel, (blocks_for(size, per_pack(dtype)),), (THREADS,), (size, *shape[1:])


def spread_channels(xp: Any, bias: Array, y: Array) -> None:
    """Write the bias to all positions of ``y``, [examples, channels, positions]."""
    kernel, grid, block, tail = _spread_plan(xp, y.dtype, y.shape)
    kernel(grid, block, (bias, y, *tail))


@planned
def _apart_plan(
    xp: Any, dtype: np.dtype[Any], channels: int, piece: Piece, positions: int, bias: bool,
    packed: bool,
) -> Plan:  # fmt: skip
    kernel = kernels.get(xp, "convolution", "examples_apart", dtype)
    size = piece.examples * channels * piece.positions
    grid = (blocks_for(size, per_pack(dtype) if packed else 1),)
    numbers = channels, piece.examples, piece.begin, piece.positions, positions
    return kernel, grid, (THREADS,), (np.int32(bias), np.int32(packed), *numbers)


def examples_apart(xp: Any, sums: Array, bias: Any, y: Array, piece: Piece) -> None:
    """Write the sums of a piece, plus ``bias``, to its positions of ``y``."""
    width = per_pack(y.dtype)
    positions = y.shape[2]
    packed = not any(n % width for n in (positions, piece.begin, piece.positions))
    packed = packed and not y.data.ptr % 16
    kernel, grid, block, tail = _apart_plan(
        xp, y.dtype, y.shape[1], piece, positions, bias is not None, packed
    )
    kernel(grid, block, (sums, y if bias is None else bias, y, *tail))
