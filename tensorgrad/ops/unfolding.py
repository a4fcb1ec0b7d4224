"""``unfold`` and ``fold``: the windows of an image as columns, and the sum of such columns.

Each one's gradient is the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.shaping import reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.ops.windows import numbers, spatial
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["fold", "unfold"]

Pair = tuple[int, int]


def _windows(sizes: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """How many windows there are along each axis."""
    each = zip(sizes, kernel, stride, padding, dilation, strict=True)
    rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)
    return rows, columns


def _tap(tap: Pair, counts: Pair, stride: Pair, dilation: Pair) -> tuple[Any, ...]:
    """Where in the padded image a tap of all windows lies."""
    each = zip(tap, counts, stride, dilation, strict=True)
    places = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in each]
    return (slice(None), slice(None), *places)


def _unfold_value(
    xp: Any, x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    batch, channels, *sizes = x.shape
    counts = _windows((sizes[0], sizes[1]), kernel, stride, padding, dilation)
    (top, left), (height, width) = padding, sizes
    if top or left:
        whole = xp.zeros((batch, channels, height + 2 * top, width + 2 * left), x.dtype)
        whole[:, :, top : top + height, left : left + width] = x
        x = whole
    columns = xp.empty((batch, channels, *kernel, *counts), x.dtype)
    for i, j in np.ndindex(*kernel):
        columns[:, :, i, j] = x[_tap((i, j), counts, stride, dilation)]
    return columns.reshape(batch, channels * math.prod(kernel), math.prod(counts))


def _fold_value(
    xp: Any, x: Any, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    counts = _windows(size, kernel, stride, padding, dilation)
    channels = x.shape[1] // math.prod(kernel)
    columns = x.reshape(x.shape[0], channels, *kernel, *counts)
    (top, left), (height, width) = padding, size
    y = xp.zeros((x.shape[0], channels, height + 2 * top, width + 2 * left), x.dtype)
    for i, j in np.ndindex(*kernel):
        y[_tap((i, j), counts, stride, dilation)] += columns[:, :, i, j]
    return y[:, :, top : top + height, left : left + width].copy() if top or left else y


def _options(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, Any]:
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def _unfold_x(
    g: Any, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    options = _options(kernel, stride, padding, dilation)
    return apply(_FOLD, (g,), {"size": x_shape[2:], **options})


def _fold_x(g: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    return apply(_UNFOLD, (g,), _options(kernel, stride, padding, dilation))


_UNFOLD: Primitive = Primitive(
    "unfold",
    _unfold_value,
    {"x": _unfold_x},
    moves=True,
    fresh=True,
)
_FOLD: Primitive = Primitive(
    "fold",
    _fold_value,
    {"x": _fold_x},
    half_in_float32=True,
    fresh=True,
    complex=True,
    flops=lambda x, out: x.size,
)


def _pairs(
    name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Pair, Pair, Pair, Pair]:
    found = [
        numbers(name, what, given, 2, least)
        for what, given, least in (
            ("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0),
            ("dilation", dilation, 1),
        )
    ]  # fmt: skip
    kernel, strides, paddings, dilations = [(a, b) for a, b in found]
    return kernel, strides, paddings, dilations


def _places(size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """The padded size, and where in it, flattened, each tap of each window lies."""
    k, d, p, s, n = (
        np.broadcast_to(given, 2) for given in (kernel_size, dilation, padding, stride, size)
    )
    padded = n + 2 * p
    counts = (padded - d * (k - 1) - 1) // s + 1
    rows, columns = (d[i] * np.arange(k[i])[:, None] + s[i] * np.arange(counts[i]) for i in (0, 1))
    places = rows[:, None, :, None] * padded[1] + columns[None, :, None, :]
    return padded, p, places.reshape(int(k.prod()), int(counts.prod()))


def _unfold_reference(
    x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    padded, p, places = _places(x.shape[-2:], kernel_size, dilation, padding, stride)
    ends = [(0, 0)] * (x.ndim - 2) + [(p[0], p[0]), (p[1], p[1])]
    flat = np.pad(x, ends).reshape(*x.shape[:-2], int(padded.prod()))
    return flat[..., places].reshape(*x.shape[:-3], x.shape[-3] * len(places), places.shape[1])


def _fold_reference(
    x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    padded, p, places = _places(output_size, kernel_size, dilation, padding, stride)
    channels = x.shape[-2] // len(places)
    y = np.zeros((*x.shape[:-2], channels, int(padded.prod())), x.dtype)
    for tap, column in zip(places, np.moveaxis(x.reshape(*y.shape[:-1], *places.shape), -2, 0)):
        y[..., tap] += column
    image = y.reshape(*y.shape[:-1], *padded)
    return image[..., p[0] : padded[0] - p[0], p[1] : padded[1] - p[1]]


@operation(
    cases=[
        lambda s: s(s.real(1, 2, 3, 3), (2, 2), padding=1),
        lambda s: s(s.real(2, 5, 6), 2, (1, 2), (0, 1), (2, 1)),
        lambda s: s(s.real(0, 1, 3, 3), 2),
    ],
    reference=_unfold_reference,
    torch="nn.functional.unfold",
    method=False,
    namespace="nn.functional",
    primitive=_UNFOLD,
)
def unfold(
    input: Any,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """The windows of ``input`` (N, C, H, W) as columns: (N, C * kh * kw, windows).

    kernel_size, dilation, padding, stride: as in ``conv2d``, each for both axes or for each. One
    example (C, H, W) gives (C * kh * kw, windows).

    Raises ShapeError if no window fits, and ValueError for options that make no sense.
    """
    kernel, strides, paddings, dilations = _pairs("unfold", kernel_size, dilation, padding, stride)
    height, width = spatial("unfold", input, 2)
    shape = shape_of(input)
    counts = _windows((height, width), kernel, strides, paddings, dilations)
    if min(counts) < 1:
        raise ShapeError(
            f"unfold: a kernel of {kernel} with dilation {dilations} must fit into the padded "
            f"input; it has shape {shape}, and the padding is {paddings}"
        )
    x = input if len(shape) == 4 else reshape(input, (1, *shape))
    y: Any = apply(_UNFOLD, (x,), _options(kernel, strides, paddings, dilations))
    return y if x is input else reshape(y, shape_of(y)[1:])


@operation(
    cases=[
        lambda s: s(s.real(2, 8, 6), (3, 4), 2),
        lambda s: s(s.real(12, 6), (4, 5), (2, 3), (2, 1), (1, 0), (2, 1)),
        lambda s: s(s.real(0, 4, 4), 3, 2),
    ],
    reference=_fold_reference,
    torch="nn.functional.fold",
    method=False,
    namespace="nn.functional",
    primitive=_FOLD,
)
def fold(
    input: Any,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """An image (N, C, *output_size): each element is the sum of what ``unfold`` makes of it.

    input: (N, C * kh * kw, windows) or (C * kh * kw, windows), as ``unfold`` gives it with the
        same options for an image of ``output_size``.

    Raises ShapeError unless it is that, and ValueError for options that make no sense.
    """
    kernel, strides, paddings, dilations = _pairs("fold", kernel_size, dilation, padding, stride)
    height, width = numbers("fold", "output_size", output_size, 2, 1)
    shape = shape_of(input)
    rows, columns = _windows((height, width), kernel, strides, paddings, dilations)
    taps = math.prod(kernel)
    fits = len(shape) in (2, 3) and not shape[-2] % taps and shape[-1] == rows * columns
    if not fits or min(rows, columns) < 1:
        raise ShapeError(
            f"fold: the input must have shape (N, C * {taps}, {max(rows, 0) * max(columns, 0)}), "
            f"for kernels of {kernel} and the {max(rows, 0)} x {max(columns, 0)} windows of an "
            f"image of {height} x {width}; got {shape}"
        )
    x = input if len(shape) == 3 else reshape(input, (1, *shape))
    options = {"size": (height, width), **_options(kernel, strides, paddings, dilations)}
    y: Any = apply(_FOLD, (x,), options)
    return y if x is input else reshape(y, shape_of(y)[1:])
