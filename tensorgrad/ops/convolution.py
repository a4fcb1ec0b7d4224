"""Convolutions in one, two and three dimensions, and their transposes.

Three primitives: the convolution, its gradient for the input and its gradient for the weights. Each
is linear in both of its arguments, and its own gradients are the other two. So any order exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.convolution_loops import (
    convolution_input_loops,
    convolution_loops,
    convolution_weight_loops,
)
from tensorgrad.ops.correlation import Sizes, correlate, correlate_input, correlate_weight
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.ops.windows import numbers, spatial
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

# --- the three primitives -------------------------------------------------------------------------
#
# All of them have ``stride``, ``padding`` (zeros before the first position of each axis),
# ``dilation`` and ``groups``. ``size`` says how long the spatial axes of the result are; so what is
# left over at the end of an axis, or padded there, needs no option of its own.


def _first(xp: Any, padding: Sizes) -> Sizes:
    """Where the first window begins."""
    if isinstance(xp, Namespace):
        xp.refuse("convolutions are computed in tiles")
    return tuple([-n for n in padding])


def _convolution_value(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    return correlate(xp, x, weight, bias, _first(xp, padding), size, stride, dilation, groups)


def _convolution_x(
    g: Any, x_shape: Sizes, weight: Any, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(x_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION_INPUT, (g, weight, None), options)


def _convolution_weight(
    g: Any, x: Any, weight_shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(weight_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION_WEIGHT, (g, x), options)


def _bias(g: Any) -> Any:
    return sum(g, axis=(0, *range(2, len(g.shape))))


def _input_value(
    xp: Any, g: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    return correlate_input(xp, g, weight, bias, _first(xp, padding), size, stride, dilation, groups)


def _input_g(
    g: Any, x_shape: Sizes, weight: Any, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(x_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION, (g, weight, None), options)


def _input_weight(
    g: Any, x: Any, weight_shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(weight_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION_WEIGHT, (x, g), options)


def _weight_value(
    xp: Any, y: Any, x: Any, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes,
    groups: int,
) -> Any:  # fmt: skip
    return correlate_weight(xp, y, x, _first(xp, padding), size, stride, dilation, groups)


def _weight_y(
    g: Any, x: Any, y_shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(y_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION, (x, g, None), options)


def _weight_x(
    g: Any, y: Any, x_shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Any:
    options = _options(x_shape[2:], stride, padding, dilation, groups)
    return apply(_CONVOLUTION_INPUT, (y, g, None), options)


def _options(
    size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> dict[str, Any]:
    return {
        "size": size, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
    }  # fmt: skip


_CONVOLUTION: Primitive = Primitive(
    "convolution",
    _convolution_value,
    {"x": _convolution_x, "weight": _convolution_weight, "bias": _bias},
    promotion="same",
    half_in_float32=True,
    fresh=True,
    autocast="half",
    flops=lambda x, weight, bias, out: (
        2 * out.size * math.prod(weight.shape[1:]) + (0 if bias is None else out.size)
    ),
    loops=convolution_loops,
    kernel="convolution",
)

# its input ``x`` is the gradient of a convolution's result, or what a transposed one is of
_CONVOLUTION_INPUT: Primitive = Primitive(
    "convolution_input",
    _input_value,
    {"x": _input_g, "weight": _input_weight, "bias": _bias},
    promotion="same",
    half_in_float32=True,
    fresh=True,
    autocast="half",
    flops=lambda x, weight, bias, out: (
        2 * x.size * math.prod(weight.shape[1:]) + (0 if bias is None else out.size)
    ),
    loops=convolution_input_loops,
    kernel="convolution_input",
)

_CONVOLUTION_WEIGHT: Primitive = Primitive(
    "convolution_weight",
    _weight_value,
    {"y": _weight_y, "x": _weight_x},
    promotion="same",
    half_in_float32=True,
    fresh=True,
    autocast="half",
    flops=lambda y, x, out: 2 * y.size * math.prod(out.shape[1:]),
    loops=convolution_weight_loops,
    kernel="convolution_weight",
)


# --- the rows -------------------------------------------------------------------------------------


def _direct(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    """The definition, in NumPy: a window at a time."""
    axes = weight.ndim - 2
    alone = x.ndim == axes + 1
    s, d = (np.broadcast_to(n, (axes,)) for n in (stride, dilation))
    spans = d * (np.array(weight.shape[2:]) - 1)
    if isinstance(padding, str):
        total = spans if padding == "same" else 0 * spans
        pairs = [(int(n) // 2, int(n) - int(n) // 2) for n in total]
    else:
        pairs = [(int(n), int(n)) for n in np.broadcast_to(padding, (axes,))]
    x = np.pad(x[None] if alone else x, [(0, 0), (0, 0), *pairs])
    size = (np.array(x.shape[2:]) - spans - 1) // s + 1
    y = np.zeros((x.shape[0], weight.shape[0], *size))
    inner, outer = weight.shape[1], weight.shape[0] // groups
    for o in range(weight.shape[0]):
        first = o // outer * inner
        for at in np.ndindex(*size):
            window = tuple(slice(p * a, p * a + n + 1, b) for p, a, n, b in zip(at, s, spans, d))
            part = x[(slice(None), slice(first, first + inner), *window)]
            y[(slice(None), o, *at)] = (part * weight[o]).sum(tuple(range(1, axes + 2)))
    if bias is not None:
        y += bias.reshape(-1, *(1,) * axes)
    return y[0] if alone else y


def _batch(name: str, x: Any, axes: int) -> tuple[Any, bool]:
    """The input with an axis for the batch, and whether it had none."""
    spatial(name, x, axes)
    shape = shape_of(x)
    return (x, False) if len(shape) == axes + 2 else (reshape(x, (1, *shape)), True)


def _check(name: str, x: Any, weight: Any, bias: Any, axes: int, groups: int, out: int) -> None:
    """Raise ShapeError unless the shapes fit; ``out`` is the axis of the weight with groups."""
    channels, shape = shape_of(x)[1], shape_of(weight)
    order = "(out, in / groups" if out == 0 else "(in, out / groups"
    if len(shape) != axes + 2:
        raise ShapeError(
            f"{name}: the weight must have shape {order}, *kernel) with {axes} axes of the kernel; "
            f"got {shape}"
        )
    if 0 in shape[2:]:
        raise ShapeError(f"{name}: no axis of the kernel may have size 0; got weight {shape}")
    if shape[0] % groups:
        raise ShapeError(
            f"{name}: axis 0 of the weight must be divisible by groups={groups}; got shape {shape}"
        )
    wanted = shape[1] * groups if out == 0 else shape[0]
    if channels != wanted:
        raise ShapeError(
            f"{name}: the input must have {wanted} channels in its shape {shape_of(x)}, since the "
            f"weight has shape {shape}, {order}, *kernel), and groups={groups}"
        )
    outputs = shape[0] if out == 0 else shape[1] * groups
    if bias is not None and shape_of(bias) != (outputs,):
        raise ShapeError(
            f"{name}: the bias must have shape ({outputs},), a number for each channel of the "
            f"result; got {shape_of(bias)}"
        )


def _padding(name: str, padding: Any, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Any:
    """How many zeros before and after each axis."""
    axes = len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError(f'{name}: padding="same" needs stride 1; got {stride}')
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple([n // 2 for n in spans]), tuple([n - n // 2 for n in spans])
    if isinstance(padding, str):
        if padding != "valid":
            raise ValueError(
                f'{name}: padding must be "same", "valid", or how many zeros; got {padding!r}'
            )
        padding = 0
    found = numbers(name, "padding", padding, axes, 0)
    return found, found


def _conv(
    name: str, axes: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: Any,
) -> Any:  # fmt: skip
    strides = numbers(name, "stride", stride, axes, 1)
    dilations = numbers(name, "dilation", dilation, axes, 1)
    (count,) = numbers(name, "groups", groups, 1, 1)
    x, alone = _batch(name, x, axes)
    _check(name, x, weight, bias, axes, count, 0)
    kernel, sizes = shape_of(weight)[2:], shape_of(x)[2:]
    before, after = _padding(name, padding, kernel, strides, dilations)
    wide = [a + n + b for a, n, b in zip(before, sizes, after, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if any(n < span for n, span in zip(wide, spans, strict=True)):
        raise ShapeError(
            f"{name}: the kernel must fit into the padded input; it spans {tuple(spans)}, and the "
            f"input of shape {shape_of(x)} is {tuple(wide)} with its padding"
        )
    size = [(n - span) // s + 1 for n, span, s in zip(wide, spans, strides, strict=True)]
    options = _options(tuple(size), strides, before, dilations, count)
    y: Any = apply(_CONVOLUTION, (x, weight, bias), options)
    return reshape(y, shape_of(y)[1:]) if alone else y


def _conv_transpose(
    name: str, axes: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    output_padding: Any, groups: Any, dilation: Any,
) -> Any:  # fmt: skip
    strides = numbers(name, "stride", stride, axes, 1)
    dilations = numbers(name, "dilation", dilation, axes, 1)
    before = numbers(name, "padding", padding, axes, 0)
    further = numbers(name, "output_padding", output_padding, axes, 0)
    (count,) = numbers(name, "groups", groups, 1, 1)
    if any(n >= max(s, d) for n, s, d in zip(further, strides, dilations, strict=True)):
        raise ValueError(
            f"{name}: output_padding must be smaller than the stride or the dilation of its axis; "
            f"got {further} with stride={strides}, dilation={dilations}"
        )
    x, alone = _batch(name, x, axes)
    _check(name, x, weight, bias, axes, count, 1)
    kernel, sizes = shape_of(weight)[2:], shape_of(x)[2:]
    size = [
        (n - 1) * s + d * (k - 1) + 1 - 2 * p + more
        for n, s, d, k, p, more in zip(
            sizes, strides, dilations, kernel, before, further, strict=True
        )
    ]
    if min(size) < 1:
        raise ShapeError(
            f"{name}: the padding must leave something of the result; of the input of shape "
            f"{shape_of(x)} it would have size {tuple(size)}"
        )
    options = _options(tuple(size), strides, before, dilations, count)
    y: Any = apply(_CONVOLUTION_INPUT, (x, weight, bias), options)
    return reshape(y, shape_of(y)[1:]) if alone else y


def _direct_transpose(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """The definition, in NumPy: a position of the input at a time."""
    axes = weight.ndim - 2
    alone = x.ndim == axes + 1
    x = x[None] if alone else x
    s, d, p, more = (
        np.broadcast_to(n, (axes,)) for n in (stride, dilation, padding, output_padding)
    )
    spans = d * (np.array(weight.shape[2:]) - 1)
    size = (np.array(x.shape[2:]) - 1) * s + spans + 1 + more
    outer, inner = weight.shape[1], weight.shape[0] // groups
    y = np.zeros((x.shape[0], outer * groups, *size))
    for c in range(weight.shape[0]):
        first = c // inner * outer
        for at in np.ndindex(*x.shape[2:]):
            window = tuple(slice(b * a, b * a + n + 1, e) for b, a, n, e in zip(at, s, spans, d))
            number = x[(slice(None), c, *at)].reshape(-1, *(1,) * (axes + 1))
            y[(slice(None), slice(first, first + outer), *window)] += number * weight[c]
    inside = (slice(None), slice(None), *(slice(a, n - a) for a, n in zip(p, size)))
    y = y[inside]
    if bias is not None:
        y = y + bias.reshape(-1, *(1,) * axes)
    return y[0] if alone else y


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 7), s.real(4, 3, 3), s.real(4), padding=1),
        lambda s: s(s.real(2, 4, 7), s.real(6, 2, 2), None, stride=2, padding="valid", groups=2),
        lambda s: s(s.real(3, 6), s.real(2, 3, 3), s.real(2), padding="same", dilation=2),
        lambda s: s(s.real(0, 2, 4), s.real(2, 2, 3), s.real(2)),
    ],
    reference=_direct,
    torch="nn.functional.conv1d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION,
)
def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution of ``input`` (N, C, L) with ``weight`` (O, C / groups, k).

    See ``conv2d``, which has the same options.
    """
    found: Tensor = _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)
    return found


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 5, 6), s.real(4, 3, 3, 3), s.real(4), padding=1),
        lambda s: s(s.real(2, 2, 6, 5), s.real(2, 1, 3, 2), None, (2, 1), (1, 0), (1, 2), 2),
        lambda s: s(s.real(2, 3, 3, 4), s.real(2, 3, 1, 1), s.real(2)),
    ],
    reference=_direct,
    torch="nn.functional.conv2d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION,
)
def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution of ``input`` (N, C, H, W) with ``weight`` (O, C / groups, kh, kw).

    As in all of PyTorch, the kernel is not turned around: each number of the result is the sum of a
    window of ``input`` times ``weight``, plus ``bias`` (O,).

    input: of a whole batch, or (C, H, W) of one example. stride: how far apart windows are.
    padding: zeros added on both sides of an axis; "valid" for none, "same" for as many as keep its
        size (one more behind than before, where they are odd).
    dilation: how far apart the taps of a window are. groups: into how many groups the channels
        fall; each group of the result sees one of the input.

    All but ``groups`` may be one number, or one for each axis.

    Raises ShapeError if the shapes do not fit, and ValueError for options that make no sense.
    """
    found: Tensor = _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)
    return found


@operation(
    cases=[
        lambda s: s(s.real(2, 2, 3, 4, 3), s.real(2, 2, 2, 3, 2), s.real(2), padding=(0, 1, 1)),
        lambda s: s(s.real(1, 2, 4, 3, 4), s.real(2, 1, 2, 1, 2), stride=2, groups=2),
    ],
    reference=_direct,
    torch="nn.functional.conv3d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION,
)
def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution of ``input`` (N, C, D, H, W) with ``weight`` (O, C / groups, kd, kh, kw).

    See ``conv2d``, which has the same options.
    """
    found: Tensor = _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)
    return found


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), s.real(3, 2, 3), s.real(2), stride=2, output_padding=1),
        lambda s: s(s.real(4, 3), s.real(4, 1, 3), None, padding=1, groups=2),
    ],
    reference=_direct_transpose,
    torch="nn.functional.conv_transpose1d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION_INPUT,
)
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:  # fmt: skip
    """The gradient of ``conv1d`` for its input: (N, C, L) to (N, O, L).

    See ``conv_transpose2d``, which has the same options.
    """
    found: Tensor = _conv_transpose(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip
    return found


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 3, 2), s.real(3, 2, 3, 2), s.real(2), (2, 1), (1, 0)),
        lambda s: s(
            s.real(2, 4, 3, 3), s.real(4, 2, 2, 2), s.real(4), stride=2, groups=2, dilation=(1, 3)
        ),
        lambda s: s(s.real(0, 2, 3, 3), s.real(2, 2, 2, 2)),
    ],
    reference=_direct_transpose,
    torch="nn.functional.conv_transpose2d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION_INPUT,
)
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:  # fmt: skip
    """The gradient of ``conv2d`` for its input: (N, C, H, W) to (N, O, H, W).

    weight: (C, O / groups, kh, kw). stride, dilation, groups: those of the convolution.
    padding: how much is cut off on both sides of what all windows cover.
    output_padding: how much is added behind, to tell apart the sizes that a convolution with a
        stride makes equal; smaller than the stride or the dilation.

    The result has size ``(n - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1``
    along an axis. Raises ShapeError if the shapes do not fit, and ValueError for options that make
    no sense.
    """
    found: Tensor = _conv_transpose(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip
    return found


@operation(
    cases=[
        lambda s: s(s.real(1, 2, 2, 3, 2), s.real(2, 2, 2, 2, 3), s.real(2), (1, 2, 3), (0, 1, 0)),
    ],
    reference=_direct_transpose,
    torch="nn.functional.conv_transpose3d",
    method=False,
    namespace="nn.functional",
    primitive=_CONVOLUTION_INPUT,
)
def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:  # fmt: skip
    """The gradient of ``conv3d`` for its input: (N, C, D, H, W) to (N, O, D, H, W).

    See ``conv_transpose2d``, which has the same options.
    """
    found: Tensor = _conv_transpose(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip
    return found
