"""The activation functions of neural networks. At a kink the gradient is PyTorch's."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend import BACKENDS
from tensorgrad.dtypes import HALVES, as_dtype, float32
from tensorgrad.observers import current_mode
from tensorgrad.ops import special
from tensorgrad.ops.elementwise import (
    ZEROS,
    clip,
    erf,
    exp,
    keep_where,
    minimum,
    sigmoid,
    sigmoid_reference,
    sigmoid_value,
    tanh,
    where,
)
from tensorgrad.ops.fast_paths import unary
from tensorgrad.ops.linear_algebra import (
    linear,
    linear_value,
    linear_weight,
    linear_x,
    product_flops,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import normalize_axis, reshape, shape_of
from tensorgrad.ops.sums import total
from tensorgrad.ops.table import OPERATIONS, elementwise, operation
from tensorgrad.tape import Primitive, apply, cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "bias_activation", "elu", "gelu", "hardtanh", "leaky_relu", "linear_activation", "log_softmax",
    "mish", "relu", "selu", "silu", "softmax", "softplus",
]  # fmt: skip


def _softplus_value(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


_SOFTPLUS = Primitive(
    "softplus",
    _softplus_value,
    {"x": lambda g, x: g * sigmoid(x)},
    promotion="float",
    half_in_float32=True,
    kernel="softplus",
    elementwise=True,
)
_softplus = unary(_SOFTPLUS)
_STEEP = Primitive(
    "steep_softplus",
    lambda xp, x, beta, threshold: xp.where(
        x * beta > threshold, x, _softplus_value(xp, x * beta) / beta
    ),
    {
        "x": lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4, avoid=0.5), 3.0, 1.5),
    ],
    reference=lambda x, beta=1.0, threshold=20.0: np.where(
        x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta
    ),
    torch="nn.functional.softplus",
    primitive=_SOFTPLUS,
)
def softplus(x: Any, /, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, without overflow at any ``x``.

    threshold: where ``beta * x`` is above it, ``x`` itself. At 20 that would be the same but for
        3e-9: with beta 1, and no other threshold, it is computed everywhere.

    Raises ValueError for ``beta`` 0.
    """
    if type(beta) is type(threshold) is float and beta == 1.0 and threshold == 20.0:
        return _softplus(x)
    options = _floats("softplus", {"beta": beta, "threshold": threshold})
    if options == {"beta": 1.0, "threshold": 20.0}:
        return _softplus(x)
    if not options["beta"]:
        raise ValueError("softplus: beta must not be 0, by which the result is divided")
    return apply(_STEEP, (x,), options)


def _pass_positive_value(xp: Any, g: Any, y: Any) -> Any:
    return keep_where(xp, y > (ZEROS[y.dtype] if xp is np else 0), g)


PASS_POSITIVE = Primitive(
    "pass_positive",
    _pass_positive_value,
    {"g": lambda g, y: _pass_positive(g, y), "y": None},
    promotion="same",
    half_in_float32=True,
    elementwise=True,
    fresh=True,
)


def _pass_positive(g: Any, y: Any) -> Any:
    """``g`` where ``y`` is positive, else 0; both of one shape."""
    if type(g) is np.ndarray:
        zero = ZEROS.get(g.dtype)
        if zero is not None:
            if g.size <= 512 and g.shape:  # what keep_where does, without the way there
                d = np.zeros(g.shape, g.dtype)
                np.copyto(d, g, where=y > zero)
                return d
            return keep_where(np, y > zero, g)
    return apply(PASS_POSITIVE, (g, y))


def _relu_value(xp: Any, x: Any) -> Any:
    if xp is np and x.dtype in ZEROS:
        return np.maximum(x, ZEROS[x.dtype])
    return xp.maximum(x, 0)


relu = elementwise(
    "relu",
    _relu_value,
    _pass_positive,
    "``max(x, 0)``; the gradient at 0 is 0.",
    promotion="same",
    avoid=0.0,
    reference=lambda x: np.maximum(x, 0),
    kernel="relu",
    fresh=True,
)


def _leaky_value(xp: Any, x: Any, negative_slope: float) -> Any:
    return xp.where(x > 0, x, x * negative_slope)


def _floats(function: str, options: dict[str, Any]) -> dict[str, float]:
    """The options of a function, which have to be numbers."""
    return {name: float(number(function, name, value)) for name, value in options.items()}


_LEAKY = Primitive(
    "leaky_relu",
    _leaky_value,
    {"x": lambda g, x, negative_slope: where(x > 0, g, g * negative_slope)},
    promotion="float",
    half_in_float32=True,
    kernel="leaky_relu",
    elementwise=True,
)


@operation(
    cases=[lambda s: s(s.real(3, 4, avoid=0.0)), lambda s: s(s.real(3, 4, avoid=0.0), 0.2)],
    reference=lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
    torch="nn.functional.leaky_relu",
    primitive=_LEAKY,
)
def leaky_relu(x: Any, /, negative_slope: float = 0.01) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``; at 0 the gradient is the slope."""
    return apply(_LEAKY, (x,), _floats("leaky_relu", {"negative_slope": negative_slope}))


def _elu_value(xp: Any, x: Any, alpha: float) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


_ELU = Primitive(
    "elu",
    _elu_value,
    # y + alpha would be shorter, but y rounded to 16 bits leaves a slope far below 0
    {"x": lambda g, x, alpha: where(x > 0, g, g * alpha * exp(minimum(x, 0.0)))},
    promotion="float",
    half_in_float32=True,
    kernel="elu",
    elementwise=True,
)


@operation(
    cases=[lambda s: s(s.real(3, 4, avoid=0.0)), lambda s: s(s.real(3, 4, avoid=0.0), 0.5)],
    reference=lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    torch="nn.functional.elu",
    primitive=_ELU,
)
def elu(x: Any, /, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2016)."""
    return apply(_ELU, (x,), _floats("elu", {"alpha": alpha}))


# Klambauer et al., 2017: the fixed point of mean 0 and variance 1
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@operation(
    cases=[lambda s: s(s.real(3, 4, avoid=0.0))],
    reference=lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x)),
    elementwise=True,
)
@in_float32
def selu(x: Any, /) -> Tensor:
    """The self-normalising ELU: ``1.0507 * elu(x, 1.6733)`` (Klambauer et al., 2017)."""
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


def _gelu_reference(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))


_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_FAR = 16.0  # from 8 on the tanh is 1 in float64


def _gelu_value(xp: Any, x: Any) -> Any:
    return 0.5 * x * (special.erf(xp, x * _ROOT_HALF) + 1.0)


def _gelu_rule(g: Any, x: Any) -> Any:
    z = x * _ROOT_HALF
    return g * ((erf(z) + 1.0) * 0.5 + x * exp(-(z * z)) * _DENSITY)


def _gelu_tanh_value(xp: Any, x: Any) -> Any:
    return 0.5 * x * (xp.tanh(x * (x * x * 0.044715 + 1.0) * _TANH_SCALE) + 1.0)


def _gelu_tanh_rule(g: Any, x: Any) -> Any:
    x = clip(x, -_FAR, _FAR)  # farther out the slope is the same, and the cube may be infinite
    square = x * x
    t = tanh(x * (square * 0.044715 + 1.0) * _TANH_SCALE)
    slope = (square * (3 * 0.044715) + 1.0) * _TANH_SCALE
    return g * ((t + 1.0) * 0.5 + x * (1.0 - t * t) * slope * 0.5)


_GELU = {
    "none": Primitive(
        "gelu",
        _gelu_value,
        {"x": _gelu_rule},
        promotion="float",
        half_in_float32=True,
        kernel="gelu",
        elementwise=True,
    ),
    "tanh": Primitive(
        "gelu",
        _gelu_tanh_value,
        {"x": _gelu_tanh_rule},
        promotion="float",
        half_in_float32=True,
        kernel="gelu_tanh",
        elementwise=True,
    ),
}


@operation(
    cases=[lambda s: s(s.real(3, 4)), lambda s: s(s.real(3, 4), approximate="tanh")],
    reference=_gelu_reference,
    torch="nn.functional.gelu",
    elementwise=True,
)
def gelu(x: Any, /, approximate: str = "none") -> Tensor:
    """``x * Phi(x)``, Phi being the normal distribution function (Hendrycks and Gimpel, 2016).

    approximate: "none" for the exact function, "tanh" for the paper's approximation of it.
    """
    if approximate not in _GELU:
        raise ValueError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    return apply(_GELU[approximate], (x,))


def _silu_value(xp: Any, x: Any) -> Any:
    return x * sigmoid_value(xp, x)


def _silu_rule(g: Any, x: Any) -> Any:
    s = sigmoid(x)
    return g * (s * (1.0 + x * (1.0 - s)))


silu = elementwise(
    "silu",
    _silu_value,
    _silu_rule,
    "``x * sigmoid(x)``, also called swish.",
    reference=lambda x: x * sigmoid_reference(x),
    torch="nn.functional.silu",
    kernel="silu",
    complex=True,
)


@operation(
    cases=[lambda s: s(s.real(3, 4))],
    reference=lambda x: x * np.tanh(np.log1p(np.exp(x))),
    torch="nn.functional.mish",
    elementwise=True,
)
@in_float32
def mish(x: Any, /) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra, 2019)."""
    return x * tanh(softplus(x))


def _hardtanh_value(xp: Any, x: Any, min_val: float, max_val: float) -> Any:
    return xp.minimum(xp.maximum(x, min_val), max_val)


_HARDTANH = Primitive(
    "hardtanh",
    _hardtanh_value,
    {"x": lambda g, x, min_val, max_val: where(x > min_val, where(x < max_val, g, 0.0), 0.0)},
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4, high=0.9, avoid=-1.0)),
        lambda s: s(s.real(3, 4, low=0.0, avoid=0.5), -3.0, 0.5),
    ],
    reference=lambda x, min_val=-1.0, max_val=1.0: np.clip(x, min_val, max_val),
    torch="nn.functional.hardtanh",
    primitive=_HARDTANH,
)
def hardtanh(x: Any, /, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """``x`` limited to [min_val, max_val]; on the limits the gradient is 0."""
    limits = {"min_val": min_val, "max_val": max_val}
    return apply(_HARDTANH, (x,), _floats("hardtanh", limits))


# --- with a bias --------------------------------------------------------------------------------


def _with_bias(name: str, op: Primitive | None) -> Primitive:
    """The row of ``name(z + bias)``, from the value and the rule of ``name`` itself.

    A kernel computes it in one pass over the data, and both gradients in another.
    """
    assert op is not None
    (inner,) = op.rules
    assert inner is not None
    f = inner.function

    def value(xp: Any, z: Any, bias: Any, **options: Any) -> Any:
        y = z + bias
        return getattr(xp, op.value)(y) if isinstance(op.value, str) else op.value(xp, y, **options)

    rule: Any
    bias_rule: Any = None
    if "y" in inner.names:
        rule = lambda g, y: f(g, y)  # noqa: E731
        bias_rule = lambda g, y, bias_shape: f(g, y)  # noqa: E731  (a kernel wants the shape)
    elif "negative_slope" in inner.names:
        rule = lambda g, z, bias, negative_slope: f(g, z + bias, negative_slope)  # noqa: E731
    elif "alpha" in inner.names:
        rule = lambda g, z, bias, alpha: f(g, z + bias, alpha)  # noqa: E731
    else:
        rule = lambda g, z, bias: f(g, z + bias)  # noqa: E731
    return Primitive(
        f"bias_{name}",
        value,
        {"z": rule, "bias": bias_rule or rule},
        promotion="float",
        half_in_float32=True,
        kernel=f"bias_{name}",
        elementwise=True,
    )


_WITH_BIAS = {
    name: _with_bias(name, row)
    for name, row in {
        "sigmoid": OPERATIONS["sigmoid"].primitive,
        "tanh": OPERATIONS["tanh"].primitive,
        "relu": OPERATIONS["relu"].primitive,
        "leaky_relu": _LEAKY,
        "elu": _ELU,
        "gelu": _GELU["none"],
        "gelu_tanh": _GELU["tanh"],
        "silu": OPERATIONS["silu"].primitive,
        "softplus": OPERATIONS["softplus"].primitive,
    }.items()
}
_OPTIONS = {"leaky_relu": {"negative_slope": 0.01}, "elu": {"alpha": 1.0}}


def _bias_reference(z: Any, bias: Any, activation: str, **options: Any) -> Any:
    if activation == "gelu_tanh":
        return _gelu_reference(z + bias, "tanh")
    reference: Any = OPERATIONS[activation].reference
    function = getattr(np, reference) if isinstance(reference, str) else reference
    return function(z + bias, **options)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(4), "sigmoid"),
        lambda s: s(s.real(3, 4), s.real(4), "tanh"),
        lambda s: s(s.real(2, 3, 4), s.real(4), "gelu"),
        lambda s: s(s.real(3, 4), s.real(4), "gelu_tanh"),
        lambda s: s(s.real(3, 4), s.real(4), "silu"),
        lambda s: s(s.real(3, 4), s.real(4), "softplus"),
        lambda s: s(s.real(4, low=1.0), s.real(4, low=-0.9, high=0.9), "relu"),
        lambda s: s(s.real(3, 4, high=-1.0), s.real(4, low=-0.9, high=0.9), "elu", alpha=0.5),
        lambda s: s(s.real(3, 4, high=-1.0), s.real(4, high=0.9), "leaky_relu"),
    ],
    reference=_bias_reference,
    torch=None,
    method=False,
)
def bias_activation(z: Any, bias: Any, /, activation: str, **options: float) -> Tensor:
    """``activation(z + bias)``: on a GPU one pass over the data, and one for both gradients.

    z: shape (..., n). bias: (n,), or whatever broadcasts with ``z``.
    activation: "sigmoid", "tanh", "relu", "leaky_relu" (option ``negative_slope``), "elu" (option
        ``alpha``), "gelu", "gelu_tanh", "silu" or "softplus".

    Raises ValueError for another activation or option.
    """
    op = _WITH_BIAS.get(activation)
    if op is None:
        raise ValueError(
            f"bias_activation: activation must be one of {', '.join(_WITH_BIAS)}; got "
            f"{activation!r}"
        )
    known = _OPTIONS.get(activation, {})
    unknown = set(options) - set(known)
    if unknown:
        raise ValueError(
            f"bias_activation: {activation} takes {', '.join(known) or 'no option'}; got "
            f"{', '.join(sorted(unknown))}"
        )
    return apply(op, (z, bias), _floats("bias_activation", {**known, **options}))


# --- with a product and a bias ------------------------------------------------------------------


def _linear_relu() -> Primitive:
    relu = _WITH_BIAS["relu"].rules[0]
    assert relu is not None
    f = relu.function

    def value(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        y = xp.maximum(linear_value(xp, x, weight, bias), 0.0)
        return y, y

    return _linear_with(
        "relu",
        value,
        {
            "x": lambda g, y, weight, r: linear_x(f(g, y), weight),
            "weight": lambda g, y, x, r: linear_weight(f(g, y), x),
            "bias": lambda g, y, r: f(g, y),
        },
        lambda y: y,
    )


def _linear_gelu() -> Primitive:
    f = _gelu_tanh_rule

    def value(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        z = linear_value(xp, x, weight, bias)
        return _gelu_tanh_value(xp, z), z

    return _linear_with(
        "gelu_tanh",
        value,
        {
            "x": lambda g, x, weight, bias, r: linear_x(f(g, r), weight),
            "weight": lambda g, x, weight, bias, r: linear_weight(f(g, r), x),
            "bias": lambda g, x, weight, bias, r: f(g, r),
        },
        lambda x, weight, bias: linear(x, weight, bias),
    )


def _linear_with(name: str, value: Any, rules: Any, residual: Any) -> Primitive:
    """What cublasLt computes in one launch, and its gradient along with the product before it."""
    return Primitive(
        f"linear_{name}",
        value,
        rules,
        promotion="same",
        half_in_float32=True,
        residual=residual,
        kernel=f"linear_{name}",
        fresh=True,
        autocast="half",
        flops=lambda x, weight, bias, out: product_flops(x, out) + 2 * out.size,
    )


_AFTER_LINEAR = {"relu": _linear_relu(), "gelu_tanh": _linear_gelu()}


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(2, 4), s.real(2), "relu"),
        lambda s: s(s.real(3, 4), s.real(8, 4), s.real(8), "gelu_tanh"),
        lambda s: s(s.real(2, 3, 4), s.real(2, 4), s.real(2), "gelu_tanh"),
        lambda s: s(s.real(4), s.real(2, 4), s.real(2), "sigmoid"),
    ],
    reference=lambda x, weight, bias, activation: _bias_reference(
        np.matmul(x, weight.T), bias, activation
    ),
    torch=None,
    method=False,
)
def linear_activation(
    x: Any, weight: Any, bias: Any, /, activation: str, **options: float
) -> Tensor:
    """``activation(x @ weight.T + bias)``.

    On a GPU with cublasLt (extra ``cublaslt``) ReLU and the approximate GELU are part of the
    product's launch, and so are their gradients of the one before it. cublasLt decides what a ReLU
    makes of NaN.

    x: shape (..., in). weight: (out, in). bias: (out,). activation, options: see
    ``bias_activation``. Returns (..., out).

    Raises ValueError for another activation or option.
    """
    op = _AFTER_LINEAR.get(activation)
    if op is not None and not options:
        # They are one operation, but on a GPU without cublasLt, and where somebody watches there:
        # programs have kernels of their own.
        kind = type(x if type(x) in BACKENDS else getattr(x, "data", x))
        device = None if kind is np.ndarray else BACKENDS.get(kind)
        if device is None or (device.epilogues and not current_mode().observers):
            return apply(op, (x, weight, bias))
    z = linear(x, weight)
    if z.dtype in HALVES and getattr(bias, "dtype", None) == float32:
        bias = cast(bias, z.dtype)  # as autocast does with that of a product
    return bias_activation(z, bias, activation, **options)


# --- over an axis -------------------------------------------------------------------------------


def _softmax_value(xp: Any, x: Any, axis: int) -> Any:
    if x.size == 0:
        return x.copy()
    if xp is np:
        e = x - np.maximum.reduce(x, axis=axis, keepdims=True)
        np.exp(e, out=e)
        e /= total(np, e, (axis,), True)
        return e
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


def _log_softmax_value(xp: Any, x: Any, axis: int) -> Any:
    if x.size == 0:
        return x.copy()
    if xp is np:  # what the methods call in the end
        z = x - np.maximum.reduce(x, axis=axis, keepdims=True)
        z -= np.log(total(np, np.exp(z), (axis,), True))
        return z
    z = x - x.max(axis=axis, keepdims=True)
    z -= xp.log(xp.exp(z).sum(axis=axis, keepdims=True))
    return z


_SOFTMAX = Primitive(
    "softmax",
    _softmax_value,
    {"x": lambda g, y, axis: y * (g - sum(g * y, axis=axis, keepdims=True))},
    promotion="float",
    half_in_float32=True,
    kernel="softmax",
    autocast="float32",
)
_LOG_SOFTMAX = Primitive(
    "log_softmax",
    _log_softmax_value,
    {"x": lambda g, y, axis: g - exp(y) * sum(g, axis=axis, keepdims=True)},
    promotion="float",
    half_in_float32=True,
    kernel="log_softmax",
    autocast="float32",
)


def _along(op: Primitive, x: Any, axis: int, dtype: Any) -> Tensor:
    if dtype is not None:
        x = cast(x, as_dtype(dtype))
    if not shape_of(x) and axis in (0, -1):
        return reshape(apply(op, (reshape(x, (1,)),), {"axis": 0}), ())
    return apply(op, (x,), {"axis": normalize_axis(op.name, axis, x)})


def _softmax_reference(x: Any, axis: int = -1) -> Any:
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


_ROWS = [
    lambda s: s(s.real(3, 4), axis=-1),
    lambda s: s(s.real(2, 3, 4), axis=1),
    lambda s: s(s.real(5), axis=0),
    lambda s: s(s.real(0, 4), axis=-1),
]


@operation(cases=_ROWS, reference=_softmax_reference, primitive=_SOFTMAX)
def softmax(x: Any, /, axis: int = -1, dtype: Any = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``axis``, without overflow; each slice sums to 1.

    dtype: what ``x`` is converted to first. A tensor without axes counts as a slice of one.
    """
    return _along(_SOFTMAX, x, axis, dtype)


@operation(
    cases=_ROWS,
    reference=lambda x, axis=-1: np.log(_softmax_reference(x, axis)),
    primitive=_LOG_SOFTMAX,
)
def log_softmax(x: Any, /, axis: int = -1, dtype: Any = None) -> Tensor:
    """``log(softmax(x))`` along ``axis``, without overflow and without cancellation.

    dtype: what ``x`` is converted to first. A tensor without axes counts as a slice of one.
    """
    return _along(_LOG_SOFTMAX, x, axis, dtype)
