"""Convolutions whose results are pooled over tiles of 2 x 2 positions, as programs have them.

What is stored is the largest of the four and which of them it was, a byte; the gradient before the
pool, zero at three of four positions, is stored nowhere. Their values here are those of the
operations that they stand for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.ops.activations import _pass_positive_value, _relu_value
from tensorgrad.ops.convolution import (
    _convolution_value,
    _input_value,
    _weight_value,
)
from tensorgrad.ops.convolution_loops import (
    convolution_input_loops,
    convolution_pooled_gradients_loops,
    convolution_pooled_loops,
    convolution_weight_pooled_loops,
    fits,
)
from tensorgrad.ops.correlation import Sizes
from tensorgrad.ops.sums import total
from tensorgrad.ops.tiled_pooling import _largest_value, _spread_value
from tensorgrad.ops.windows import Window, Windows
from tensorgrad.tape import Primitive


def windows_of(size: Sizes) -> Windows:
    """Windows of 2 x 2 positions that tile ``size``."""
    return tuple([Window(n, 2, 2, 0, 1, n // 2) for n in size])


def _pooled_value(
    xp: Any, x: Any, weight: Any, bias: Any, size: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, groups: int, positive: bool,
) -> Any:  # fmt: skip
    y = _convolution_value(xp, x, weight, bias, size, stride, padding, dilation, groups)
    largest, number = _largest_value(xp, y, windows_of(size))
    return _relu_value(xp, largest) if positive else largest, number


def _weight_pooled_value(
    xp: Any, y: Any, number: Any, x: Any, size: Sizes, before: Sizes, stride: Sizes,
    padding: Sizes, dilation: Sizes, groups: int,
) -> Any:  # fmt: skip
    g = _spread_value(xp, y, number, before, windows_of(before))
    return _weight_value(xp, g, x, size, stride, padding, dilation, groups)


def _gradients_value(
    xp: Any, g: Any, number: Any, x: Any, weight: Any, y: Any, size: Sizes, padding: Sizes,
    masked: bool,
) -> Any:  # fmt: skip
    g = g if y is None else _pass_positive_value(xp, g, y)
    whole, one, axes = _spread_value(xp, g, number, size, windows_of(size)), (1, 1), (0, 2, 3)
    dx = _input_value(xp, whole, weight, None, x.shape[2:], one, padding, one, 1)
    dx = _pass_positive_value(xp, dx, x) if masked else dx
    dw = _weight_value(xp, whole, x, weight.shape[2:], one, padding, one, 1)
    return dx, (dw, total(xp, g, axes), total(xp, dx, axes))


def _gradients_loops(
    xp: Any, g: Any, number: Any, x: Any, weight: Any, y: Any, size: Sizes, padding: Sizes,
    masked: bool,
) -> Any:  # fmt: skip
    if fits(weight.shape, size):
        return convolution_pooled_gradients_loops(
            xp, g, number, x, weight, y, size, padding, masked
        )
    one, kernel, axes = (1, 1), weight.shape[2:], (0, 2, 3)
    g = g if y is None else _pass_positive_value(xp, g, y)
    whole = _spread_value(xp, g, number, size, windows_of(size))
    dx = convolution_input_loops(xp, whole, weight, None, x.shape[2:], one, padding, one, 1)
    dx = _pass_positive_value(xp, dx, x) if masked else dx
    dw = convolution_weight_pooled_loops(xp, g, number, x, kernel, size, one, padding, one, 1)
    return dx, (dw, total(xp, g, axes), total(xp, dx, axes))


#: (largest, number) of each 2 x 2 positions of a convolution; there are ``size``. positive:
#: whether a ReLU follows.
CONVOLUTION_POOLED = Primitive(
    "convolution_pooled",
    _pooled_value,
    {"x": None, "weight": None, "bias": None},
    promotion="same",
    residual=lambda *given, **attrs: _pooled_value(np, *given, **attrs)[1],
    loops=convolution_pooled_loops,
)

#: The gradient for the weights of ``y``, a gradient after pooling; before: the size before that.
CONVOLUTION_WEIGHT_POOLED = Primitive(
    "convolution_weight_pooled",
    _weight_pooled_value,
    {"y": None, "number": None, "x": None},
    fresh=True,
    loops=convolution_weight_pooled_loops,
)

#: The gradients for input and weights, of windows that lie side by side, of ``g`` after pooling:
#: zero where the convolution's result ``y``, if given, is not positive. Then the sums of each
#: channel, of that and of the gradient for the input. masked: this is zero where ``x`` is not
#: positive.
CONVOLUTION_POOLED_GRADIENTS = Primitive(
    "convolution_pooled_gradients",
    _gradients_value,
    {"g": None, "number": None, "x": None, "weight": None, "y": None},
    residual=lambda *given, **attrs: _gradients_value(np, *given, **attrs)[1],
    loops=_gradients_loops,
)
