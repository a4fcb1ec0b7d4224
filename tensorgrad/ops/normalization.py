"""Layer norm and RMS norm."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, get_default_dtype
from tensorgrad.errors import ShapeError
from tensorgrad.ops.elementwise import rsqrt
from tensorgrad.ops.numbers import number
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.shaping import reshape, shape_of
from tensorgrad.ops.sums import total
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "layer_norm",
    "rms_norm",
]


def _scaled(y: Any, weight: Any, bias: Any) -> Any:
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y


def _row_means(xp: Any, x: Any) -> Any:
    return total(xp, x, (x.ndim - 1,), True) / x.shape[-1]


def _layer_norm_value(xp: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
    center = _row_means(xp, x)
    y = x - center
    scale = _row_means(xp, y * y)
    scale += eps
    scale = 1 / xp.sqrt(scale)
    y *= scale
    return _scaled(y, weight, bias), (center, scale)


def _layer_norm_residual(x: Any, eps: float) -> tuple[Any, Any]:
    center = mean(x, axis=-1, keepdims=True)
    d = x - center
    return center, rsqrt(mean(d * d, axis=-1, keepdims=True) + eps)


def _layer_norm_x(g: Any, r: Any, x: Any, weight: Any, eps: float) -> Any:
    center, scale = r
    h = g if weight is None else g * weight
    z = (x - center) * scale
    return scale * (h - mean(h, axis=-1, keepdims=True) - z * mean(h * z, axis=-1, keepdims=True))


def _layer_norm_weight(g: Any, r: Any, x: Any, eps: float) -> Any:
    center, scale = r
    return g * ((x - center) * scale)


# r is the mean and 1 / standard deviation of each row, of any shape (..., 1).
_LAYER_NORM = Primitive(
    "layer_norm",
    _layer_norm_value,
    {"x": _layer_norm_x, "weight": _layer_norm_weight, "bias": lambda g: g},
    promotion="float",
    half_in_float32=True,
    residual=_layer_norm_residual,
    kernel="layer_norm",
)


def _rms_norm_value(xp: Any, x: Any, weight: Any, eps: float) -> Any:
    scale = _row_means(xp, x * x)
    scale += eps
    scale = 1 / xp.sqrt(scale)
    return _scaled(x * scale, weight, None), scale


def _rms_norm_x(g: Any, r: Any, x: Any, weight: Any, eps: float) -> Any:
    h = g if weight is None else g * weight
    z = x * r
    return r * (h - z * mean(h * z, axis=-1, keepdims=True))


_RMS_NORM = Primitive(
    "rms_norm",
    _rms_norm_value,
    {"x": _rms_norm_x, "weight": lambda g, r, x, eps: g * (x * r)},
    promotion="float",
    half_in_float32=True,
    residual=lambda x, eps: rsqrt(mean(x * x, axis=-1, keepdims=True) + eps),
    kernel="rms_norm",
)


def _layer_norm_reference(
    x: Any, normalized_shape: Any, weight: Any = 1.0, bias: Any = 0.0, eps: float = 1e-5
) -> Any:
    axes = tuple(range(-len(normalized_shape), 0))
    z = x - x.mean(axes, keepdims=True)
    return z / np.sqrt((z * z).mean(axes, keepdims=True) + eps) * weight + bias


def _rms_norm_reference(
    x: Any, normalized_shape: Any, weight: Any = 1.0, eps: float = 2.0**-52
) -> Any:
    axes = tuple(range(-len(normalized_shape), 0))
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps) * weight


def _rows(name: str, x: Any, normalized_shape: Any, *parameters: Any) -> tuple[Any, ...]:
    """The axes to normalize over as one, in ``x`` and in the parameters."""
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    shape = shape_of(x)
    count = len(sizes)
    if not count or shape[-count:] != sizes:
        raise ShapeError(
            f"{name}: the input must end in the axes to normalize over, {sizes}; got {shape}"
        )
    for what, parameter in zip(("weight", "bias"), parameters):
        if parameter is not None and shape_of(parameter) != sizes:
            raise ShapeError(
                f"{name}: {what} must have the shape normalized over, {sizes}; got "
                f"{shape_of(parameter)}"
            )
    if count == 1:
        return x, *parameters
    flat = [None if p is None else reshape(p, (-1,)) for p in parameters]
    return reshape(x, (*shape[:-count], math.prod(sizes))), *flat


@operation(
    cases=[
        lambda s: s(s.real(3, 4), (4,), s.real(4), s.real(4)),
        lambda s: s(s.real(3, 4), (4,)),
        lambda s: s(s.real(2, 3, 4), (3, 4), s.real(3, 4), s.real(3, 4)),
        lambda s: s(s.real(2, 3, 5), (5,), s.real(5), eps=0.1),
        lambda s: s(s.real(0, 4), (4,), s.real(4), s.real(4)),
    ],
    reference=_layer_norm_reference,
    torch="nn.functional.layer_norm",
    method=False,
)
def layer_norm(
    x: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` (Ba, Kiros and Hinton, 2016).

    Mean and variance (of all n numbers, not n - 1) are taken over the last axes.

    x: shape (..., *normalized_shape). normalized_shape: the sizes of these axes.
    weight, bias: of ``normalized_shape``, or ``None`` for 1 and 0. eps: keeps the divisor from 0.

    Raises ShapeError if the shapes do not fit.
    """
    flat = _rows("layer_norm", x, normalized_shape, weight, bias)
    y: Tensor = apply(_LAYER_NORM, flat, {"eps": float(number("layer_norm", "eps", eps))})
    return reshape(y, shape_of(x)) if flat[0] is not x else y


@operation(
    cases=[
        lambda s: s(s.real(3, 4), (4,), s.real(4)),
        lambda s: s(s.real(3, 4), (4,)),
        lambda s: s(s.real(2, 3, 4), (3, 4), s.real(3, 4), eps=0.01),
        lambda s: s(s.real(0, 4), (4,), s.real(4)),
    ],
    reference=_rms_norm_reference,
    torch="nn.functional.rms_norm",
    method=False,
)
def rms_norm(
    x: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    eps: float | None = None,
) -> Tensor:
    """``x / sqrt(mean of x**2 + eps) * weight`` over the last axes (Zhang and Sennrich, 2019).

    x: shape (..., *normalized_shape). weight: of ``normalized_shape``, or ``None`` for 1.
    eps: keeps the divisor from 0; the spacing of 1 in the dtype of ``x`` if ``None``.

    Raises ShapeError if the shapes do not fit.
    """
    if eps is None:
        dtype = getattr(x, "dtype", None)
        eps = _SPACING[str(dtype if dtype in FLOATS else get_default_dtype())]
    flat = _rows("rms_norm", x, normalized_shape, weight)
    y: Tensor = apply(_RMS_NORM, flat, {"eps": float(number("rms_norm", "eps", eps))})
    return reshape(y, shape_of(x)) if flat[0] is not x else y


_SPACING = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
}
