"""Further activation functions, of ``nn.functional`` alone. At a kink the gradient is PyTorch's."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.activations import hardtanh, leaky_relu, softmax
from tensorgrad.ops.creation import arange
from tensorgrad.ops.elementwise import (
    abs,
    exp,
    keep_where,
    log,
    log1p,
    maximum,
    minimum,
    sigmoid,
    sigmoid_reference,
    sigmoid_value,
    tanh,
    where,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import in_float32, loss_in_float32
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.ops.reductions import argmax
from tensorgrad.ops.shaping import concat, normalize_axis, reshape, shape_of
from tensorgrad.ops.table import elementwise, operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "celu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "logsigmoid",
    "prelu", "relu6", "rrelu", "softmin", "softshrink", "softsign", "tanhshrink", "threshold",
]  # fmt: skip

_HERE: dict[str, Any] = {"namespace": "nn.functional", "method": False}
#: left of a kink at -3, between it and one at 3, and right of that
_THREE = [
    lambda s: s(s.real(3, 4)),
    lambda s: s(s.real(5, low=-5.0, high=-3.1)),
    lambda s: s(s.real(5, low=3.1, high=5.0)),
]


# --- of one number ------------------------------------------------------------------------------

hardsigmoid = elementwise(
    "hardsigmoid",
    lambda xp, x: xp.minimum(xp.maximum(x + 3.0, 0.0), 6.0) / 6.0,
    lambda g, x: where(x > -3.0, where(x < 3.0, g / 6.0, 0.0), 0.0),
    "``x / 6 + 1 / 2``, limited to [0, 1]; from the limits on the gradient is 0.",
    cases=_THREE,
    reference=lambda x: np.clip(x / 6 + 0.5, 0, 1),
    torch="nn.functional.hardsigmoid",
    **_HERE,
)


hardswish = elementwise(
    "hardswish",
    # the first factor is limited, too: minus infinity times 0 is NaN
    lambda xp, x: xp.maximum(x, -3.0) * (xp.minimum(xp.maximum(x + 3.0, 0.0), 6.0) / 6.0),
    lambda g, x: where(x > -3.0, where(x < 3.0, g * (x / 3.0 + 0.5), g), 0.0),
    "``x * hardsigmoid(x)`` (Howard et al., 2019).",
    cases=_THREE,
    reference=lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    torch="nn.functional.hardswish",
    **_HERE,
)

_FAR = 1e30  # from there on softsign is 1


def _softsign_value(xp: Any, x: Any) -> Any:
    x = xp.minimum(xp.maximum(x, -_FAR), _FAR)
    return x / (xp.abs(x) + 1.0)


def _softsign_rule(g: Any, x: Any) -> Any:
    part = 1.0 / (abs(x) + 1.0)
    return g * part * part


softsign = elementwise(
    "softsign",
    _softsign_value,
    _softsign_rule,
    "``x / (1 + |x|)``.",
    avoid=0.0,
    reference=lambda x: x / (1 + np.abs(x)),
    torch="nn.functional.softsign",
    **_HERE,
)

logsigmoid = elementwise(
    "logsigmoid",
    lambda xp, x: xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x))),
    lambda g, x: g * sigmoid(-x),
    "``log(sigmoid(x))``, without overflow at any ``x``.",
    reference=lambda x: np.log(sigmoid_reference(x)),
    torch="nn.functional.logsigmoid",
    **_HERE,
)


def _tanhshrink_rule(g: Any, x: Any) -> Any:
    y = tanh(x)
    return g * y * y


tanhshrink = elementwise(
    "tanhshrink",
    lambda xp, x: x - xp.tanh(x),
    _tanhshrink_rule,
    "``x - tanh(x)``.",
    reference=lambda x: x - np.tanh(x),
    torch="nn.functional.tanhshrink",
    **_HERE,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.0)),
        lambda s: s(s.real(5, low=6.1, high=9.0)),
    ],
    reference=lambda x: np.clip(x, 0, 6),
    torch="nn.functional.relu6",
    elementwise=True,
    **_HERE,
)
def relu6(x: Any, /) -> Tensor:
    """``x`` limited to [0, 6]; on the limits the gradient is 0."""
    return hardtanh(x, 0.0, 6.0)


# --- with an option -----------------------------------------------------------------------------


def _pointwise(name: str, value: Any, rule: Any) -> Primitive:
    return Primitive(
        name, value, {"x": rule}, promotion="float", half_in_float32=True, elementwise=True
    )


_HARDSHRINK = _pointwise(
    "hardshrink",
    lambda xp, x, lambd: keep_where(xp, xp.logical_not(xp.abs(x) <= lambd), x),
    lambda g, x, lambd: where(abs(x) <= lambd, 0.0, g),
)


@operation(
    cases=[lambda s: s(s.real(4, low=0.6)), lambda s: s(s.real(3, 4, low=-1.9, high=1.9), 2.0)],
    reference=lambda x, lambd=0.5: np.where(np.abs(x) <= lambd, 0, x),
    torch="nn.functional.hardshrink",
    primitive=_HARDSHRINK,
    **_HERE,
)
def hardshrink(x: Any, /, lambd: float = 0.5) -> Tensor:
    """``x``, and 0 within [-lambd, lambd]."""
    return apply(_HARDSHRINK, (x,), {"lambd": float(number("hardshrink", "lambd", lambd))})


_SOFTSHRINK = _pointwise(
    "softshrink",
    lambda xp, x, lambd: x - xp.minimum(xp.maximum(x, -lambd), lambd),
    lambda g, x, lambd: where(abs(x) <= lambd, 0.0, g),
)


def not_negative(function: str, name: str, value: Any) -> float:
    """The option as a number. Raises ValueError if it is below 0."""
    found = float(number(function, name, value))
    if not found >= 0:
        raise ValueError(f"{function}: {name} must not be negative; got {found}")
    return found


@operation(
    cases=[
        lambda s: s(s.real(4, high=-0.6)),
        lambda s: s(s.real(3, 4, avoid=0.0, low=-1.0, high=1.0), 0.02),
    ],
    reference=lambda x, lambd=0.5: x - np.clip(x, -lambd, lambd),
    torch="nn.functional.softshrink",
    primitive=_SOFTSHRINK,
    **_HERE,
)
def softshrink(x: Any, /, lambd: float = 0.5) -> Tensor:
    """``x`` nearer to 0 by ``lambd``, and 0 within [-lambd, lambd].

    Raises ValueError for a negative ``lambd``.
    """
    return apply(_SOFTSHRINK, (x,), {"lambd": not_negative("softshrink", "lambd", lambd)})


_THRESHOLD = _pointwise(
    "threshold",
    lambda xp, x, threshold, value: xp.where(x <= threshold, x.dtype.type(value), x),
    lambda g, x, threshold: where(x <= threshold, 0.0, g),
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.5), 0.5, 2.0),
        lambda s: s(s.real(3, 4, avoid=0.0), 0.0, -1.0),
    ],
    reference=lambda x, threshold, value: np.where(x <= threshold, value, x),
    torch="nn.functional.threshold",
    primitive=_THRESHOLD,
    **_HERE,
)
def threshold(x: Any, /, threshold: float, value: float) -> Tensor:
    """``x`` where it is above ``threshold``, else ``value``."""
    attrs = {
        "threshold": float(number("threshold", "threshold", threshold)),
        "value": float(number("threshold", "value", value)),
    }
    return apply(_THRESHOLD, (x,), attrs)


_CELU = _pointwise(
    "celu",
    lambda xp, x, alpha: xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0) / alpha)),
    lambda g, x, alpha: where(x > 0, g, g * exp(minimum(x, 0.0) / alpha)),
)


@operation(
    cases=[lambda s: s(s.real(3, 4, avoid=0.0)), lambda s: s(s.real(3, 4, avoid=0.0), 0.5)],
    reference=lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    torch="nn.functional.celu",
    primitive=_CELU,
    **_HERE,
)
def celu(x: Any, /, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)`` (Barron, 2017).

    Raises ValueError for ``alpha`` 0.
    """
    alpha = float(number("celu", "alpha", alpha))
    if not alpha:
        raise ValueError("celu: alpha must not be 0, by which x is divided")
    return apply(_CELU, (x,), {"alpha": alpha})


# --- with learned or random slopes --------------------------------------------------------------

_PRELU = Primitive(
    "prelu",
    lambda xp, x, weight: xp.where(x > 0, x, x * weight),
    {
        "x": lambda g, x, weight: where(x > 0, g, g * weight),
        "weight": lambda g, x: where(x > 0, 0.0, g * x),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


def _prelu_reference(x: Any, weight: Any) -> Any:
    shape = (-1, *(1,) * (x.ndim - 2)) if weight.size > 1 else ()
    return np.where(x > 0, x, x * weight.reshape(shape))


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4, avoid=0.0), s.real(3)),
        lambda s: s(s.real(4, avoid=0.0), s.real(1)),
    ],
    reference=_prelu_reference,
    torch="nn.functional.prelu",
    elementwise=False,
    primitive=_PRELU,
    **_HERE,
)
def prelu(x: Any, /, weight: Any) -> Tensor:
    """``x`` where positive, else ``weight * x`` (He et al., 2015).

    weight: shape (C,), a slope for each index of axis 1 of ``x``; or one slope, shape (1,) or ().

    Raises ShapeError for another shape.
    """
    shape, given = shape_of(x), shape_of(weight)
    channels = shape[1] if len(shape) > 1 else 1
    if len(given) > 1 or given not in ((), (1,), (channels,)):
        raise ShapeError(
            f"prelu: weight must have one number, or one for each of the {channels} channels in "
            f"axis 1 of the input, shape {shape}; got shape {given}"
        )
    if given == (1,) and len(shape) != 1:
        weight = reshape(weight, ())
    elif given and len(shape) > 2:
        weight = reshape(weight, (-1, *(1,) * (len(shape) - 2)))
    return apply(_PRELU, (x, weight))


@operation(
    cases=[
        lambda s: s(s.real(3, 4, avoid=0.0)),
        lambda s: s(s.real(3, 4, avoid=0.0), 0.25, 0.25, training=True),
    ],
    reference=lambda x, lower=1 / 8, upper=1 / 3, training=False: np.where(
        x > 0, x, x * (lower + upper) / 2
    ),
    torch="nn.functional.rrelu",
    elementwise=True,
    **_HERE,
)
@in_float32
def rrelu(
    x: Any,
    /,
    lower: float = 1.0 / 8.0,
    upper: float = 1.0 / 3.0,
    training: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``x`` where positive, else ``slope * x`` (Xu et al., 2015).

    The slope is drawn for each element from [lower, upper) in training, and the middle of these
    otherwise. generator: the source of the slopes; the default one if ``None``.

    Raises ValueError if ``lower`` is above ``upper``.
    """
    lower, upper = (float(number("rrelu", k, v)) for k, v in (("lower", lower), ("upper", upper)))
    check_limits("rrelu", lower, upper)
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    slopes = _drawn(x, generator) * (upper - lower) + lower
    return apply(_PRELU, (x, slopes))


def check_limits(function: str, lower: float, upper: float) -> None:
    """Raise ValueError if the first is above the second."""
    if not lower <= upper:
        raise ValueError(f"{function}: lower must not be above upper; got {lower} and {upper}")


def _drawn(x: Any, generator: Generator | None) -> Any:
    """Numbers from [0, 1) in the shape of ``x``, beside it."""
    source = default_generator if generator is None else generator
    dtype = getattr(x, "dtype", None)
    wanted = dtype if dtype in dtypes.FLOATS else None
    device = x.device if hasattr(x, "node") else None
    return source.uniform(shape_of(x), dtype=wanted, device=device)


# --- over an axis -------------------------------------------------------------------------------


def _two(x: Any, axis: int) -> tuple[Any, Any]:
    """The two halves of ``x`` along ``axis``."""
    every, half = (slice(None),) * axis, x.shape[axis] // 2
    return x[(*every, slice(0, half))], x[(*every, slice(half, None))]


def _glu_value(xp: Any, x: Any, axis: int) -> Any:
    a, b = _two(x, axis)
    return a * sigmoid_value(xp, b)


def _glu_rule(g: Any, x: Any, axis: int) -> Any:
    a, b = _two(x, axis)
    s = sigmoid(b)
    part = g * s
    return concat([part, part * (1.0 - s) * a], axis=axis)


_GLU = Primitive("glu", _glu_value, {"x": _glu_rule}, promotion="float", half_in_float32=True)


def _glu_reference(x: Any, axis: int = -1) -> Any:
    a, b = np.split(x, 2, axis)
    return a * sigmoid_reference(b)


@operation(
    cases=[lambda s: s(s.real(3, 4)), lambda s: s(s.real(2, 4, 3), axis=1)],
    reference=_glu_reference,
    torch="nn.functional.glu",
    primitive=_GLU,
    **_HERE,
)
def glu(x: Any, /, axis: int = -1) -> Tensor:
    """``a * sigmoid(b)``, a and b being the halves of ``x`` along ``axis`` (Dauphin et al., 2017).

    Raises ShapeError for an axis of odd size.
    """
    place = normalize_axis("glu", axis, x)
    shape = shape_of(x)
    if shape[place] % 2:
        raise ShapeError(
            f"glu: axis {axis} of the input is halved, so that its size must be even; got shape "
            f"{shape}"
        )
    return apply(_GLU, (x,), {"axis": place})


def _softmin_reference(x: Any, axis: int = -1) -> Any:
    e = np.exp(-x)
    return e / e.sum(axis, keepdims=True)


@operation(
    cases=[lambda s: s(s.real(3, 4), axis=-1), lambda s: s(s.real(2, 3, 4), axis=1)],
    reference=_softmin_reference,
    torch="nn.functional.softmin",
    **_HERE,
)
def softmin(x: Any, /, axis: int = -1, dtype: Any = None) -> Tensor:
    """``softmax(-x)`` along ``axis``. dtype: what ``x`` is converted to first."""
    return softmax(-x, axis, dtype)


@operation(
    cases=[  # where nothing is left to chance
        lambda s: s(s.real(3, 1)),
        lambda s: s(s.real(1, 4), hard=True, axis=0),
        lambda s: s(s.real(0, 4), 0.5),
    ],
    reference=lambda logits, tau=1.0, hard=False, axis=-1: np.ones_like(logits),
    torch="nn.functional.gumbel_softmax",
    **_HERE,
)
@loss_in_float32
def gumbel_softmax(
    logits: Any,
    tau: float = 1.0,
    hard: bool = False,
    axis: int = -1,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """A random choice along ``axis``, as nearly 0 and 1 as ``tau`` is near 0, with a gradient.

    It is ``softmax((logits + noise) / tau)``, the noise being of Gumbel's distribution.

    logits: logarithms of the probabilities, up to a constant. tau: above 0.
    hard: exactly 1 where that is largest and 0 elsewhere, with the gradient as it would be.
    generator: the source of the noise; the default one if ``None``.

    Sources: Jang, Gu and Poole, 2017; Maddison, Mnih and Teh, 2017. Raises ValueError for a tau
    that is not positive.
    """
    tau = float(number("gumbel_softmax", "tau", tau))
    if not tau > 0:
        raise ValueError(f"gumbel_softmax: tau must be above 0; got {tau}")
    # of 0 the logarithm is infinite; what is drawn is a multiple of 2**-24
    exponential = maximum(-log1p(-_drawn(logits, generator)), 2.0**-25)
    y = softmax((logits - log(exponential)) / tau, axis)
    if not hard:
        return y
    axis = normalize_axis("gumbel_softmax", axis, y)
    numbers = arange(y.shape[axis], device=y.device)
    numbers = reshape(numbers, (-1, *(1,) * (len(y.shape) - 1 - axis)))
    chosen = argmax(y, axis=axis, keepdims=True) == numbers
    return where(chosen, 1.0, 0.0) + (y - y.detach())
