"""The cross-entropy of probabilities of a yes, where there are no logits to compute it from."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.ops.creation import asarray
from tensorgrad.ops.elementwise import log, log1p, maximum
from tensorgrad.ops.losses import by_weight, paired, reduced
from tensorgrad.ops.precision import loss_in_float32
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["binary_cross_entropy"]

#: the least logarithm that is computed with, so that no loss is infinite
_LEAST = -100.0


def _value(xp: Any, x: Any, t: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        yes, no = xp.log(x), xp.log1p(-x)
    return (t - 1) * xp.maximum(no, _LEAST) - t * xp.maximum(yes, _LEAST)


_BINARY: Primitive = Primitive(
    "binary_cross_entropy",
    _value,
    {
        # the slope of the logarithms, without their limit, but for the division
        "x": lambda g, x, t: g * (x - t) / maximum(x * (1.0 - x), 1e-12),
        "t": lambda g, x: g * (maximum(log1p(-x), _LEAST) - maximum(log(x), _LEAST)),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
    autocast="float32",
)


def _reference(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    each = -target * np.log(input) - (1 - target) * np.log(1 - input)
    each = each if weight is None else each * weight
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


@operation(
    cases=[
        lambda s: s(s.real(3, 4, low=0.1, high=0.9), s.real(3, 4, low=0.0, high=1.0)),
        lambda s: s(
            s.real(3, 4, low=0.1, high=0.9),
            s.real(3, 4, low=0.0, high=1.0),
            s.real(4, low=0.5),
            reduction="none",
        ),
        lambda s: s(s.real(0, 4), s.real(0, 4), reduction="sum"),
    ],
    reference=_reference,
    torch="nn.functional.binary_cross_entropy",
    method=False,
    namespace="nn.functional",
    elementwise=False,
    primitive=_BINARY,
)
@loss_in_float32
def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """The cross-entropy of probabilities: ``-t * log(x) - (1 - t) * log(1 - x)``.

    Logarithms below -100 count as -100, so that a certain and wrong answer has a finite loss, and
    the gradient's divisor ``x * (1 - x)`` is at least 1e-12; what is not in [0, 1] gives NaN.
    ``binary_cross_entropy_with_logits`` is exact where this is not.

    input, target: tensors of one shape. weight: of each element, in a shape that broadcasts.
    reduction: "mean" or "sum" over all elements, or "none".
    Raises ShapeError unless the shapes fit, ValueError for another reduction.
    """
    name = "binary_cross_entropy"
    paired(name, input, target)
    if not hasattr(input, "node"):
        input = asarray(input)
    return reduced(name, by_weight(name, apply(_BINARY, (input, target)), weight), reduction)
