"""Convolutions whose results are scaled by numbers of their channel, as programs have them.

That is a batch norm in evaluation, with what is added to its result and a ReLU behind it: done on
the sums before they are stored. The value here is that of the operations that it stands for.
"""

from __future__ import annotations

from typing import Any

from tensorgrad.ops.activations import _relu_value
from tensorgrad.ops.channel_norms import _scaled_value
from tensorgrad.ops.convolution import _convolution_value
from tensorgrad.ops.convolution_loops import convolution_scaled_loops
from tensorgrad.ops.correlation import Sizes
from tensorgrad.tape import Primitive


def _value(
    xp: Any, x: Any, weight: Any, bias: Any, center: Any, scale: Any, shift: Any, added: Any,
    size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int, positive: bool,
) -> Any:  # fmt: skip
    y = _convolution_value(xp, x, weight, bias, size, stride, padding, dilation, groups)
    each = (-1, *(1,) * len(size))
    shift = None if shift is None else shift.reshape(each)
    y = _scaled_value(xp, y, center.reshape(each), scale.reshape(each), shift)
    if added is not None:
        y = y + added
    return _relu_value(xp, y) if positive else y


#: ``(convolution - center) * scale + shift + added``. center, scale, shift: a number for each
#: channel of the result; shift, added: ``None`` for nothing. positive: whether a ReLU follows.
CONVOLUTION_SCALED = Primitive(
    "convolution_scaled",
    _value,
    {
        "x": None, "weight": None, "bias": None, "center": None, "scale": None, "shift": None,
        "added": None,
    },
    promotion="same",
    loops=convolution_scaled_loops,
)  # fmt: skip
