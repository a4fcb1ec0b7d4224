"""The form of convolutions that programs turn into C: routines of ``program/c/convolution.h``.

Here is decided what the C is a template of: how many positions and channels of the result make a
tile, whose sums lie in registers, and into how many bands of rows an image is cut, so that what a
band needs of the input fits into the memory of a thread. Results lie channels last.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

Sizes = tuple[int, ...]

#: Lanes of a vector that the C may be compiled for, and registers for sums, weights and numbers.
_REGISTERS = {16: 32, 8: 16, 4: 16}
# Registers that are left for weights and numbers.
_SPARE = 4
#: Most taps of which gradients behind a pool keep sums in registers, as in c/convolution.h.
POOLED_TAPS = 9
# Floats of the memory of a thread, without those that are read, but not used, behind the end.
_ROOM = (1 << 16) - 16
# Multiplications and additions that are worth a piece of work of their own.
_PIECE = 1 << 17
# Positions whose products are added up in one sum of float32, bytes that the sums of all parts of a
# batch may take, and how many parts there are at most.
_POSITIONS = 1024
_SUMS = 1 << 25
_PARTS = 8
# Positions of a row whose ends are tiles of their own, as in c/convolution.h.
_SHORT = 32
# Phases of a gradient with a stride that are written out.
_PHASES = 16


class _Convolution(NamedTuple):
    """What all three routines are told, with two spatial axes; see ``tg_conv``."""

    images: int
    groups: int
    inner: int
    outer: int
    x_size: Sizes
    x_steps: Sizes
    y_size: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    transposed: bool = False
    depthwise: bool = False

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.outer if self.depthwise else self.groups * self.inner

    @property
    def blocks(self) -> int:
        """Blocks of 16 channels of the result, in all groups."""
        return self.groups * -(-self.outer // 16)

    @property
    def taps(self) -> int:
        """The taps of the kernel."""
        return math.prod(self.kernel)

    @property
    def keeps_weights(self) -> bool:
        """Whether the weights of all taps stay in registers; see ``tg_keeps_weights``."""
        plain = math.prod((*self.stride, *self.dilation, self.groups, self.inner)) == 1
        return plain and self.taps <= 9 and not (self.transposed or self.depthwise)

    @property
    def counts(self) -> Sizes:
        """Positions along each axis, of the phase that has most."""
        if not self.transposed:
            return self.y_size
        return tuple([-(-n // s) for n, s in zip(self.y_size, self.stride, strict=True)])

    @property
    def products(self) -> int:
        """Multiplications for one image."""
        positions = self.x_size if self.transposed else self.y_size
        return math.prod(positions) * self.taps * self.inner * self.outer * self.groups

    def extent(self, axis: int, count: int) -> int:
        """How many places of the input ``count`` positions need."""
        s, d, k, p = (n[axis] for n in (self.stride, self.dilation, self.kernel, self.padding))
        if not self.transposed:
            return (count - 1) * s + (k - 1) * d + 1
        return count + (s - 1 + p) // s - (p - (k - 1) * d) // s

    def bands(self, room: int, enough: int, unit: int = 1) -> int:
        """Into how many bands of rows an image is cut: so that a band needs no more than ``room``
        numbers of the input, and has not much more than ``enough`` products. 0 if none fits.

        unit: bands are cut after so many rows, or a multiple of that."""
        rows = self.counts[0] // unit
        width = self.extent(1, self.counts[1]) * self.channels
        heights = {n: self.extent(0, -(-rows // n) * unit) for n in range(1, rows + 1)}
        least = next((n for n, height in heights.items() if height * width <= room), 0)
        return max(least, min(self.products // enough, rows // 8)) if least else 0

    @property
    def span(self) -> int:
        """Rows of sums of a gradient for weights that lie one after the other."""
        if self.inner == 1:
            return self.kernel[1]
        merged = self.dilation[1] == 1 and self.groups == 1
        return self.kernel[1] * self.inner if merged else self.inner

    def sizes(self) -> Sizes:
        """All of it as the C takes it."""
        return (
            self.images, self.groups, self.inner, self.outer, *self.x_size, *self.x_steps,
            *self.y_size, *self.kernel, *self.stride, *self.padding, *self.dilation,
        )  # fmt: skip


@functools.cache
def _tile(lanes: int, rows: int, columns: int, outer: int, unit: int = 1) -> int:
    """The tile with which rows * columns positions take least time.

    unit: a position is really so many of them in each direction.

    A multiplication waits for its sum from before, so there are to be eight sums at least; and
    two numbers are loaded at a time, as two products are computed.
    """
    vectors, most = -(-outer // lanes), _REGISTERS[lanes] - _SPARE
    best = (math.inf, 0, 0, 0)
    most //= unit * unit
    for v in range(1, min(4, vectors) + 1):
        for p in range(1, min(most // v, columns) + 1):
            for r in range(1, min(most // (v * p), rows) + 1):
                sums = r * p * unit * unit
                each = max(sums * v, sums + v, 8) + 1
                times = -(-vectors // v) * -(-columns // p) * -(-rows // r)
                best = min(best, (times * each, r * unit, p * unit, v))
    return best[1] << 16 | best[2] << 8 | best[3]


def _within(place: int, step: int, count: int, size: int) -> int:
    """How many of ``count`` places, ``step`` apart from ``place`` on, are among ``size``."""
    return len(range(max(0, -(place // step)), min(count, -((place - size) // step))))


@functools.cache
def _plain_tile(lanes: int, c: _Convolution, bands: int) -> int:
    """The same for a convolution without a pool, or its gradient for the input.

    Left out are products with zeros above and below, by tiles of one row, and beside short rows;
    see ``tg_spares``. A loop over channels takes about 16 cycles besides, and a tile about 40 and
    two for each vector.
    """
    vectors, most = -(-c.outer // lanes), _REGISTERS[lanes] - _SPARE
    (rows, columns), (high, wide) = c.counts, c.kernel
    if c.keeps_weights and lanes == 16 and min(rows // bands, columns) >= 4:
        return 2 << 16 | 4 << 8 | 1  # the fewest sums of which none waits for itself
    stride = (1, 1) if c.transposed else c.stride
    spares = c.inner > 1 and 1 < wide <= 5 and columns <= _SHORT and max(c.stride) == stride[1]
    first = [
        (k - 1) * d - p if c.transposed else p
        for k, d, p in zip(c.kernel, c.dilation, c.padding, strict=True)
    ]  # places before the image
    used = sum(
        _within(r * stride[0] - first[0], c.dilation[0], high, c.x_size[0]) for r in range(rows)
    )

    def tile(r: int, p: int, v: int, at: int) -> float:
        """Cycles of a row of taps for each channel."""
        found = 0.0
        for tap in range(wide):
            place = at * stride[1] - first[1] + tap * c.dilation[1]
            n = r * (_within(place, stride[1], p, c.x_size[1]) if spares else p)
            found += max(n * v, n + v / 2, 8) + 0.3 if n else 0
        return found + 16 / c.inner

    best = (math.inf, 0, 0, 0)
    heights = [(k + 1) * rows // bands - k * rows // bands for k in range(bands)]
    lowest = rows // bands
    if c.transposed and bands > 1 and c.y_size[0] % c.stride[0]:
        lowest = max(1, lowest - 1)  # the last band of some phases has a row less
    for v in range(1, min(4, vectors) + 1):
        for p in range(1, min(most // v, columns) + 1):
            begins = [min(at, columns - p) for at in range(0, columns, p)]
            for r in range(1, min(most // (v * p), lowest) + 1):
                tiles = sum(-(-n // r) for n in heights)
                each = sum(tile(r, p, v, at) for at in begins)
                once = len(begins) * (40 + 2 * r * p * v) / c.inner
                times = -(-vectors // v)
                taps = used if r == 1 and c.inner > 1 else tiles * high
                cost = times * (taps * each + tiles * once)
                best = min(best, (cost, r, p, v))
    return best[1] << 16 | best[2] << 8 | best[3]


@functools.cache
def _weight_tile(lanes: int, c: _Convolution) -> int:
    """The tile with which the sums of a gradient for weights take least time; see ``_tile``."""
    span = c.span
    vectors, most = -(-c.outer // lanes), _REGISTERS[lanes] - _SPARE
    best = (math.inf, 0, 0, 0)
    for v in [n for n in range(1, 5) if vectors % n == 0]:
        for q in range(1, min(most // v, span) + 1):
            for a in [n for n in range(1, c.kernel[0] + 1) if c.kernel[0] % n == 0]:
                if a * q * v > most:
                    continue
                sizes = [q] * (span // q) + [n for n in [span % q] if n]
                each = sum(max(a * n * v, a * n + v, 8) + 2 for n in sizes)
                best = min(best, (each * (vectors // v) * (c.kernel[0] // a), a, q, v))
    return best[1] << 16 | best[2] << 8 | best[3]


def _planar(n: Sizes, first: int) -> Sizes:
    """Spatial sizes of two axes: one of a single row where there is but one."""
    return n if len(n) == 2 else (first, *n)


def _checked(xp: Any, arrays: tuple[Any, ...], size: Sizes) -> None:
    """Refuse what has no routine."""
    if len(size) > 2:
        xp.refuse("convolutions in three dimensions are computed in tiles")
    if any(a is not None and a.dtype != np.float32 for a in arrays):
        xp.refuse("convolutions of other types than float32 are computed in tiles")


def _packed(xp: Any, weight: Any, bias: Any, c: _Convolution, steps: Sizes) -> Any:
    """The weights in blocks, the bias, and what taps make of zeros.

    steps: of group, of channel of input and of result."""
    floats = c.blocks * (c.taps * (c.inner + 1) + 1) * 16
    cost = 2 * floats
    tap = -1 if c.transposed else 1
    sizes = (c.groups, c.inner, c.outer, c.taps, *steps, tap, int(bias is not None))
    given = [weight, weight if bias is None else bias]
    (found,) = xp.routine(
        "convolution.convolution_pack", sizes, given, [((floats,), np.float32)], c.blocks,
        max(1, c.blocks * _PIECE // cost), cost,
    )  # fmt: skip
    return found


def _in_order(x: Any) -> Any:
    """``x``, contiguous."""
    return x if x.flags.c_contiguous else x.copy()


class _After(NamedTuple):
    """What becomes of the sums of a convolution: see ``ops/convolution_scaling.py``."""

    center: Any
    scale: Any
    shift: Any
    added: Any
    positive: bool


def _convolved(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int, transposed: bool, after: _After | None = None,
) -> Any:  # fmt: skip
    """The convolution, or its gradient for the input, ``size`` positions of it."""
    _checked(xp, (x, weight, bias), size)
    if transposed and math.prod(stride) > _PHASES:
        xp.refuse("gradients of convolutions with long strides are computed in tiles")
    weight = _in_order(weight)
    bias = None if bias is None else _in_order(bias)
    taps, (rows, each) = math.prod(weight.shape[2:]), weight.shape[:2]
    within = rows // groups
    inner, outer = (within, each) if transposed else (each, within)
    steps = (within * each * taps, *((each * taps, taps) if transposed else (taps, each * taps)))
    depthwise = inner == outer == 1 < groups
    if depthwise:
        steps = (0, 0, taps)
    strides = x.elements.strides
    c = _Convolution(
        x.shape[0], 1 if depthwise else groups, inner, groups if depthwise else outer,
        _planar(x.shape[2:], 1), strides[:2] + _planar(strides[2:], 0), _planar(size, 1),
        _planar(weight.shape[2:], 1), _planar(stride, 1), _planar(padding, 0),
        _planar(dilation, 1), transposed, depthwise,
    )  # fmt: skip
    bands = c.bands(_ROOM, 1 << 24)
    if not bands:
        xp.refuse("convolutions of such long rows are computed in tiles")
    tiles = [_plain_tile(lanes, c, bands) for lanes in _REGISTERS]
    packed = _packed(xp, weight, bias, c, steps)
    items, products = c.images * bands, c.products
    name, how, given = "convolution", (int(transposed), int(depthwise), bands, *tiles), [x, packed]
    if after is not None:
        name, given = "convolution_scaled", [*given, *_scales(xp, after, c)]
        how = (*how[1:], int(after.positive), int(after.added is not None))
    (found,) = xp.routine(
        f"convolution.{name}", (*c.sizes(), *how), given,
        [((x.shape[0], *c.y_size, c.outer * c.groups), np.float32)], items,
        max(1, items * _PIECE // (products * c.images)), products * c.images // 8,
    )  # fmt: skip
    found = found.reshape(x.shape[0], *size, c.outer * c.groups)
    return found.transpose(0, len(size) + 1, *range(1, len(size) + 1))


def _scales(xp: Any, after: _After, c: _Convolution) -> list[Any]:
    """What results are scaled by, in blocks, and what is added to them, channels last."""
    given = [_in_order(a.reshape(-1)) for a in (after.center, after.scale)]
    given.append(given[0] if after.shift is None else _in_order(after.shift.reshape(-1)))
    (scales,) = xp.routine(
        "convolution.convolution_scales", (c.groups, c.outer, int(after.shift is not None)), given,
        [((3 * c.blocks * 16,), np.float32)], c.blocks, c.blocks, 3 * c.blocks * 16,
    )  # fmt: skip
    added = after.added
    if added is None:
        return [scales, scales]
    return [scales, _in_order(added.transpose(0, *range(2, len(added.shape)), 1))]


def convolution_loops(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    """The convolution; see ``ops/convolution.py``."""
    return _convolved(xp, x, weight, bias, size, stride, padding, dilation, groups, False)


def convolution_scaled_loops(
    xp: Any, x: Any, weight: Any, bias: Any, center: Any, scale: Any, shift: Any, added: Any,
    size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int, positive: bool,
) -> Any:  # fmt: skip
    """The convolution, scaled; see ``ops/convolution_scaling.py``."""
    after = _After(center, scale, shift, added, positive)
    return _convolved(xp, x, weight, bias, size, stride, padding, dilation, groups, False, after)


def convolution_input_loops(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    """The gradient of the convolution for its input."""
    return _convolved(xp, x, weight, bias, size, stride, padding, dilation, groups, True)


def convolution_weight_loops(
    xp: Any, y: Any, x: Any, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes,
    groups: int,
) -> Any:  # fmt: skip
    """The gradient of the convolution for its weights."""
    _checked(xp, (x, y), size)
    return _weight_sums(xp, y, None, y.shape[2:], x, size, stride, padding, dilation, groups)


def convolution_weight_pooled_loops(
    xp: Any, y: Any, number: Any, x: Any, size: Sizes, before: Sizes, stride: Sizes,
    padding: Sizes, dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    """The same where ``y`` is the gradient after pooling; before: the size before that."""
    _checked(xp, (x, y), size)
    number = _channels_last(number)
    return _weight_sums(xp, y, number, before, x, size, stride, padding, dilation, groups)


def _channels_last(x: Any) -> Any:
    """``x`` (N, C, H, W) as contiguous (N, H, W, C)."""
    return _in_order(x.transpose(0, 2, 3, 1))


def _weight_sums(
    xp: Any, y: Any, number: Any, before: Sizes, x: Any, size: Sizes, stride: Sizes,
    padding: Sizes, dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    inner, outer = x.shape[1] // groups, y.shape[1] // groups
    depthwise = inner == outer == 1 < groups
    strides, steps = x.elements.strides, y.elements.strides
    c = _Convolution(
        x.shape[0], 1 if depthwise else groups, inner, groups if depthwise else outer,
        _planar(x.shape[2:], 1), strides[:2] + _planar(strides[2:], 0), _planar(before, 1),
        _planar(size, 1), _planar(stride, 1), _planar(padding, 0), _planar(dilation, 1),
        False, depthwise,
    )  # fmt: skip
    rows, columns = c.y_size

    def room(n: int) -> int:
        """Numbers of input and gradient for ``n`` rows."""
        return c.extent(0, n) * c.extent(1, columns) * c.channels + n * columns * y.shape[1]

    least = max(1, rows * columns // _POSITIONS)
    cuts = [n for n in range(min(least, rows), rows + 1) if room(-(-rows // n)) <= _ROOM]
    if not cuts:
        xp.refuse("convolutions of such long rows are computed in tiles")
    bands, together = cuts[0], 1
    if bands == 1:
        together = max(1, min(c.images, _POSITIONS // (rows * columns), _ROOM // room(rows)))
    items = -(-c.images // together) * bands
    floats = c.blocks * c.taps * inner * 16
    parts = max(1, min(_PARTS, _SUMS // (4 * floats)))
    parts = min(
        items, 1 << (parts.bit_length() - 1)
    )  # so that two or four threads share them evenly
    tiles = [_weight_tile(lanes, c) for lanes in _REGISTERS]
    (sums,) = xp.routine(
        "convolution.convolution_weight",
        (
            *c.sizes(), int(depthwise), bands, *tiles, int(number is not None), *steps[:2],
            *_planar(steps[2:], 0), together, parts,
        ),
        [x, y, y if number is None else number], [((parts * floats,), np.float32)], parts, 1,
        c.products * c.images // 8,
    )  # fmt: skip
    return _summed(xp, sums, (y.shape[1], inner, *size), c, parts, (c.taps, c.taps * inner))


def _summed(xp: Any, sums: Any, shape: Sizes, c: _Convolution, parts: int, steps: Sizes) -> Any:
    """The sums of the parts of a batch as one gradient. steps: of channels of input and result."""
    (found,) = xp.routine(
        "convolution.convolution_weight_sum",
        (c.groups, c.inner, c.outer, c.taps, parts, sums.size // parts, *steps), [sums],
        [(shape, np.float32)],
        c.blocks, max(1, c.blocks * _PIECE // sums.size), sums.size // 4,
    )  # fmt: skip
    return found


# --- with a pool of 2 x 2 positions ---------------------------------------------------------------


def convolution_pooled_loops(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int, positive: bool,
) -> Any:  # fmt: skip
    """The largest of 2 x 2 positions of the convolution, and which it was; size: before that."""
    _checked(xp, (x, weight, bias), size)
    weight = _in_order(weight)
    bias = None if bias is None else _in_order(bias)
    outer, inner = weight.shape[:2]
    even = tuple([n // 2 * 2 for n in size])
    c = _Convolution(
        x.shape[0], 1, inner, outer, x.shape[2:], x.elements.strides, even, weight.shape[2:],
        stride, padding, dilation,
    )  # fmt: skip
    bands = c.bands(_ROOM, 1 << 24, 2)
    if not bands or groups != 1:
        xp.refuse("convolutions of such long rows are computed in tiles")
    counts = even[0] // 2 // bands, even[1] // 2
    tiles = [_tile(lanes, *counts, c.outer, 2) for lanes in _REGISTERS]
    packed = _packed(xp, weight, bias, c, (0, c.taps, c.taps * inner))
    items, products = c.images * bands, c.products
    shape = x.shape[0], size[0] // 2, size[1] // 2, outer
    found = xp.routine(
        "convolution.convolution_pooled", (*c.sizes(), bands, *tiles, int(positive)), [x, packed],
        [(shape, np.float32), (shape, np.uint8)], items,
        max(1, items * _PIECE // (products * c.images)), products * c.images // 8,
    )  # fmt: skip
    return tuple([a.transpose(0, 3, 1, 2) for a in found])


def fits(weight_shape: Sizes, size: Sizes) -> bool:
    """Whether an image and its gradient have room in the memory of a thread, and the taps' sums in
    its registers."""
    outer, inner, *kernel = weight_shape
    box = math.prod([n + k - 1 for n, k in zip(size, kernel, strict=True)]) * inner
    pools = math.prod([n // 2 for n in size]) * outer
    room = 2 * (box + pools) + inner + outer
    return inner % 16 == 0 and room <= _ROOM and math.prod(kernel) <= POOLED_TAPS


def convolution_pooled_gradients_loops(
    xp: Any, g: Any, number: Any, x: Any, weight: Any, y: Any, size: Sizes, padding: Sizes,
    masked: bool,
) -> Any:  # fmt: skip
    """The gradients for ``x`` and for the weights, and sums; see ``ops/convolution_pooling.py``."""
    _checked(xp, (g, x, weight, y), size)
    weight, number = _in_order(weight), _channels_last(number)
    outer, inner, *kernel = weight.shape
    c = _Convolution(
        x.shape[0], 1, outer, inner, x.shape[2:], x.elements.strides, size, tuple(kernel), (1, 1),
        padding, (1, 1),
    )  # fmt: skip
    packed = _packed(xp, weight, None, c, (0, inner * c.taps, c.taps))
    parts, floats = min(c.images, _PARTS), c.taps * inner * outer
    one = floats + outer + inner
    (dx, sums) = xp.routine(
        "convolution.convolution_pooled_gradients",
        (
            c.images, inner, outer, *c.x_size, *c.x_steps, *size, *kernel, *padding,
            *g.elements.strides, int(y is not None), int(masked), parts,
        ),
        [x, packed, g, number, g if y is None else _channels_last(y)],
        [((c.images, *c.x_size, inner), np.float32), ((parts * one,), np.float32)], parts, 1,
        c.products * c.images // 8,
    )  # fmt: skip
    total = sum(sums[k * one + floats : (k + 1) * one] for k in range(parts))
    dw = _summed(xp, sums, weight.shape, c, parts, (inner * c.taps, c.taps))
    return dx.transpose(0, 3, 1, 2), (dw, total[:outer], total[outer:])
