"""Normalization of channels: batch, instance and group norm, local response, unit length."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend import memory
from tensorgrad.dtypes import FLOATS, HALVES, WIDE_FLOATS, float32, promote
from tensorgrad.errors import ShapeError
from tensorgrad.observers import RECOMPUTING
from tensorgrad.ops.elementwise import clip, positive, pow, rsqrt, square
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import half_to_float32, in_float32
from tensorgrad.ops.reductions import mean, norm
from tensorgrad.ops.shaping import reshape, shape_of
from tensorgrad.ops.sums import total
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["batch_norm", "group_norm", "instance_norm", "local_response_norm", "normalize"]


# --- standardization over any axes ----------------------------------------------------------------
# The statistics of a batch are computed by a primitive of their own, as the running ones want them
# too, and given to the one that standardizes, whose rules count them in all the same.


# Fewer numbers side by side than this are too few for one of NumPy's inner loops.
_SHORT = 64


def _is_short(xp: Any, x: Any, axes: tuple[int, ...]) -> bool:
    """Whether each channel has few numbers in an example, and all examples count together."""
    return xp is np and x.ndim == 3 and axes == (0, 2) and x.shape[2] < _SHORT


def _total(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """The sums of ``x`` over ``axes``, which stay with size 1."""
    if _is_short(xp, x, axes):
        return total(np, total(np, x, (0,), True), (2,), True)
    return total(xp, x, axes, True)


def _products(xp: Any, a: Any, b: Any, axes: tuple[int, ...]) -> Any:
    """The sums of ``a * b`` over ``axes``, which stay with size 1."""
    last = a.ndim - 1
    if xp is np and last in axes and a.shape[-1] >= _SHORT:  # without an array of the products
        found = np.vecdot(a, b)[..., None]
        rest = tuple(k for k in axes if k != last)
        return total(np, found, rest, True) if rest else found
    return _total(xp, a * b, axes)


def _minus(xp: Any, x: Any, p: Any) -> Any:
    """``x - p``, of the shape of ``x``; on the CPU in memory that is kept for the next time."""
    if xp is np and x.flags.c_contiguous:
        return np.subtract(x, p, out=memory.empty(np, x.shape, x.dtype))
    return x - p


def _wide(xp: Any, p: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Numbers of channels, repeated for those of an example where these are few."""
    return np.repeat(p, x.shape[2], axis=-1) if _is_short(xp, x, axes) else p


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod([shape[k] for k in axes])


def _moments(xp: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The mean, what is left of ``x`` without it, and the mean square of that."""
    count = _count(x.shape, axes) or 1
    center = _total(xp, x, axes) / count
    rest = _minus(xp, x, _wide(xp, center, x, axes))
    return center, rest, _products(xp, rest, rest, axes) / count


def _statistics_value(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    if x.dtype in HALVES:  # not rounded
        x = x.astype(float32)
    center, _, var = _moments(xp, x, axes)
    return xp.stack([center, var])


# The means and variances (of all n numbers) over ``axes``, which stay with size 1.
_STATISTICS = Primitive("statistics", _statistics_value, {"x": None}, promotion="float")


def _standardize_value(
    xp: Any, x: Any, weight: Any, bias: Any, statistics: Any, axes: tuple[int, ...], eps: float
) -> Any:
    if statistics is None:
        center, y, scale = _moments(xp, x, axes)
    else:
        center = statistics[0]
        y, scale = _minus(xp, x, _wide(xp, center, x, axes)), statistics[1]
    scale = 1 / xp.sqrt(scale + eps)
    y *= _wide(xp, scale if weight is None else scale * weight, x, axes)
    if bias is not None:
        y += _wide(xp, bias, x, axes)
    return y, (center, scale)


def _standardize_residual(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any]:
    center = mean(x, axis=axes, keepdims=True)
    d = x - center
    return center, rsqrt(mean(d * d, axis=axes, keepdims=True) + eps)


def _standardize_x(g: Any, r: Any, x: Any, weight: Any, axes: tuple[int, ...], eps: float) -> Any:
    center, scale = r
    z = (x - center) * scale
    if weight is not None:
        sizes = (1,) * (len(x.shape) - len(weight.shape)) + tuple(weight.shape)
        if any(sizes[k] != 1 for k in axes) or not math.prod(x.shape):
            g = g * weight
        else:  # it is the same for all that are summed, whose sums are those of its own gradient
            scale = scale * weight
    along = mean(g * z, axis=axes, keepdims=True)
    return scale * (g - mean(g, axis=axes, keepdims=True) - z * along)


def _standardize_weight(g: Any, r: Any, x: Any, axes: tuple[int, ...], eps: float) -> Any:
    center, scale = r
    return g * ((x - center) * scale)


def _standardize_gradients(
    g: Any, needed: Sequence[bool], saved: Mapping[str, Any]
) -> Sequence[Any] | None:
    """The gradients of input, weight and bias from the same two sums; on the CPU."""
    if type(g) is not np.ndarray or g.dtype not in WIDE_FLOATS or not g.size:
        return None
    if not (needed[0] or needed[1]):
        return [None, None, g, None]
    axes, x, (center, scale) = saved["axes"], saved["x"], saved["r"]
    weight = saved["weight"] if needed[0] else None
    d = _minus(np, x, _wide(np, center, x, axes))
    inner = axes if axes[0] == 0 else axes[-1:]  # along which the parameters do not vary
    sums, products = _total(np, g, inner), _products(np, g, d, inner)
    d_weight = products * scale
    if not needed[0]:
        return [None, d_weight, sums, None]
    count = _count(g.shape, axes)
    along = d_weight if weight is None else d_weight * weight
    along = total(np, along, axes, True) * scale * scale / count
    level = total(np, sums if weight is None else sums * weight, axes, True) * scale / count
    d *= _wide(np, -along, x, axes)
    d -= _wide(np, level, x, axes)
    d_x = memory.empty(np, g.shape, g.dtype)
    np.multiply(g, _wide(np, scale if weight is None else scale * weight, x, axes), out=d_x)
    d_x += d
    return [d_x, d_weight, sums, None]


# r is the mean and 1 / standard deviation over the axes, which stay with size 1. Weight and bias
# broadcast with x, and do not vary along its first axis, nor along the last of the axes.
_STANDARDIZE = Primitive(
    "standardize",
    _standardize_value,
    {
        "x": _standardize_x,
        "weight": _standardize_weight,
        "bias": lambda g: g,
        "statistics": None,
    },
    promotion="float",
    promoted=frozenset({0, 1, 2}),
    half_in_float32=True,
    residual=_standardize_residual,
    together=_standardize_gradients,
)


def _scaled_value(xp: Any, x: Any, center: Any, scale: Any, shift: Any) -> Any:
    y = _minus(xp, x, center)
    y *= scale
    if shift is not None:
        y += shift
    return y


# By given statistics, which broadcast with ``x`` and get gradients of their own.
_SCALED = Primitive(
    "scaled",
    _scaled_value,
    {
        "x": lambda g, scale: g * scale,
        "center": lambda g, scale: -(g * scale),
        "scale": lambda g, x, center: g * (x - center),
        "shift": lambda g: g,
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
)


def _track_value(
    xp: Any,
    running_mean: Any,
    running_var: Any,
    statistics: Any,
    momentum: Any,
    correction: float,
) -> Any:
    for running, now in (
        (running_mean, statistics[0]),
        (running_var, statistics[1] * correction),
    ):
        each = now.reshape(-1, *running.shape)
        now = total(xp, each, (0,)) / each.shape[0]
        before = running.astype(now.dtype) if running.dtype in HALVES else running
        running[...] = (before + (now - before) * momentum).astype(running.dtype)
    return running_mean


# ``momentum`` is a number, or an array without axes; the variances are of all n numbers of each of
# the groups, over which the mean is taken, and times ``correction`` those of samples.
_TRACK = Primitive(
    "track_statistics",
    _track_value,
    {"running_mean": None, "running_var": None, "statistics": None, "momentum": None},
    mutates=(0, 1),
)


# --- the functions --------------------------------------------------------------------------------


def _dtype_of(*given: Any) -> Any:
    """What the tensors among ``given`` have in common."""
    return promote([x.dtype for x in given if getattr(x, "dtype", None) in FLOATS], [])


def _check_parameters(function: str, channels: int, **parameters: Any) -> None:
    for name, p in parameters.items():
        if p is not None and shape_of(p) != (channels,):
            raise ShapeError(
                f"{function}: {name} must have one number for each of the {channels} channels of "
                f"the input's axis 1, shape ({channels},); got {shape_of(p)}"
            )


def _as_columns(x: Any, *parameters: Any) -> tuple[Any, ...]:
    """``x`` of shape (N, C) or (N, C, L), and the parameters such that they broadcast with it."""
    if len(x.shape) == 2:
        return x, *parameters
    if len(x.shape) > 3:
        x = reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
    return x, *[None if p is None else reshape(p, (-1, 1)) for p in parameters]


def _by_running(
    x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, eps: float
) -> Tensor:
    """``x`` standardized by given statistics, in what all have in common."""
    given = (x, running_mean, running_var, weight, bias)
    scale = rsqrt(half_to_float32(running_var) + eps)
    if weight is not None:
        scale = scale * half_to_float32(weight)
    center = positive(half_to_float32(running_mean))  # a copy: the next batch overwrites it
    x, center, scale, shift = _as_columns(x, center, scale, bias)
    y = reshape(apply(_SCALED, (x, center, scale, shift)), shape_of(given[0]))
    common = _dtype_of(*given)
    found: Tensor = y if y.dtype == common else y.astype(common)
    return found


def standardized_batch(
    x: Any, running: Any, weight: Any, bias: Any, momentum: Any, eps: float
) -> Tensor:
    """``batch_norm`` in training. running: mean and variance, or ``None``."""
    shape = shape_of(x)
    columns, weight, bias = _as_columns(x, weight, bias)
    axes = (0,) if len(shape) == 2 else (0, 2)
    count = _count(columns.shape, axes)
    statistics = None
    if running is not None and count and not RECOMPUTING.get():
        statistics = apply(_STATISTICS, (columns,), {"axes": axes})
        correction = count / (count - 1)
        apply(_TRACK, (*running, statistics, momentum), {"correction": correction})
    attrs = {"axes": axes, "eps": eps}
    y: Tensor = apply(_STANDARDIZE, (columns, weight, bias, statistics), attrs)
    return reshape(y, shape) if len(shape) > 3 else y


def _standardized(x: Any, axes: tuple[int, ...]) -> Any:
    count = _count(x.shape, axes) or 1
    z = x - x.sum(axes, keepdims=True) / count
    return z, (z * z).sum(axes, keepdims=True) / count


def _batch_norm_reference(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    shape = (-1, *(1,) * (x.ndim - 2))
    if training:
        z, var = _standardized(x, (0, *range(2, x.ndim)))
    else:
        z, var = x - running_mean.reshape(shape), running_var.reshape(shape)
    z = z / np.sqrt(var + eps)
    z = z if weight is None else z * weight.reshape(shape)
    return z if bias is None else z + bias.reshape(shape)


def _check_statistics(
    function: str, channels: int, needed: bool, running_mean: Any, running_var: Any
) -> None:
    _check_parameters(function, channels, running_mean=running_mean, running_var=running_var)
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{function}: give both running_mean and running_var, or neither")
    if needed and running_mean is None:
        raise ValueError(
            f"{function}: running_mean and running_var are needed to standardize by them; give "
            "both, or take the statistics of the input"
        )


def check_batch(function: str, shape: tuple[int, ...]) -> None:
    """Raise ShapeError where each channel of a batch has one number alone."""
    if _count(shape, (0, *range(2, len(shape)))) == 1:
        raise ShapeError(
            f"{function}: in training a batch needs more than one number for each channel, "
            f"got shape {shape}; take larger batches, or call eval()"
        )


@operation(
    cases=[
        lambda s: s(s.real(4, 3, 2, 2), None, None, s.real(3), s.real(3), training=True),
        lambda s: s(s.real(5, 3), None, None, s.real(3), s.real(3), training=True, eps=0.1),
        lambda s: s(s.real(2, 3, 4), s.real(3), s.real(3, low=0.5), s.real(3), s.real(3)),
        lambda s: s(s.real(0, 3, 2), None, None, s.real(3), training=True),
    ],
    reference=_batch_norm_reference,
    torch=None,
    namespace="nn.functional",
    method=False,
)
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` for each channel.

    Mean and variance are those of the batch in training, else the running ones, which take in the
    part ``momentum`` of those of each batch in training (the variance as that of a sample).

    x: shape (N, C) or (N, C, ...). running_mean, running_var, weight, bias: shape (C,), or
    ``None``. Source: Ioffe and Szegedy, 2015.

    Raises ShapeError if the shapes do not fit, or in training for one number a channel; ValueError
    where the running statistics are needed and missing.
    """
    shape = given = shape_of(x)
    if shape == (0,):  # which PyTorch takes
        x, shape = reshape(x, (0, 0)), (0, 0)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: the input must have shape (N, C, ...), got {shape}")
    _check_statistics("batch_norm", shape[1], not training, running_mean, running_var)
    _check_parameters("batch_norm", shape[1], weight=weight, bias=bias)
    momentum, eps = (number("batch_norm", k, v) for k, v in (("momentum", momentum), ("eps", eps)))
    if training:
        check_batch("batch_norm", shape)
        running = None if running_mean is None else (running_mean, running_var)
        y = standardized_batch(x, running, weight, bias, momentum, eps)
    else:
        y = _by_running(x, running_mean, running_var, weight, bias, eps)
    return y if shape == given else reshape(y, given)


def _group_norm_reference(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    z, var = _standardized(
        x.reshape(len(x), num_groups, math.prod(x.shape[1:]) // num_groups), (2,)
    )
    z = (z / np.sqrt(var + eps)).reshape(x.shape)
    shape = (-1, *(1,) * (x.ndim - 2))
    z = z if weight is None else z * weight.reshape(shape)
    return z if bias is None else z + bias.reshape(shape)


@operation(
    cases=[
        lambda s: s(s.real(2, 4, 3), 2, s.real(4), s.real(4)),
        lambda s: s(s.real(3, 6), 2, s.real(6), eps=0.1),
        lambda s: s(s.real(2, 3, 2, 2), 3),
        lambda s: s(s.real(0, 4), 2, s.real(4), s.real(4)),
    ],
    reference=_group_norm_reference,
    torch="nn.functional.group_norm",
    namespace="nn.functional",
    method=False,
)
def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, by groups of channels.

    Mean and variance are those of each group of each example.

    x: shape (N, C, ...). num_groups: into how many groups the channels fall, one after the other.
    weight, bias: shape (C,), or ``None``. Source: Wu and He, 2018.

    Raises ShapeError if the shapes do not fit, ValueError unless the groups are equal.
    """
    shape = shape_of(x)
    if len(shape) < 2:
        raise ShapeError(f"group_norm: the input must have shape (N, C, ...), got {shape}")
    count, channels, size = shape[0], shape[1], math.prod(shape[2:])
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f"group_norm: {channels} channels do not fall into {num_groups} equal groups"
        )
    _check_parameters("group_norm", channels, weight=weight, bias=bias)
    sizes = (num_groups, channels // num_groups)
    parameters = [None if p is None else reshape(p, (*sizes, 1)) for p in (weight, bias)]
    attrs = {"axes": (2, 3), "eps": float(number("group_norm", "eps", eps))}
    groups = reshape(x, (count, *sizes, size))
    return reshape(apply(_STANDARDIZE, (groups, *parameters, None), attrs), shape)


def _instance_norm_reference(
    x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None
) -> Any:
    return _group_norm_reference(x, x.shape[1], weight, bias)


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), None, None, s.real(3), s.real(3)),
        lambda s: s(s.real(2, 2, 3, 2)),
    ],
    reference=_instance_norm_reference,
    torch="nn.functional.instance_norm",
    namespace="nn.functional",
    method=False,
)
def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` for each channel of each example.

    use_input_stats: mean and variance are those of the input, of whose means over the examples the
        running ones take in the part ``momentum``; if False, they are the running ones.

    x: shape (N, C, ...). running_mean, running_var, weight, bias: shape (C,), or ``None``.
    Source: Ulyanov, Vedaldi and Lempitsky, 2016.

    Raises ShapeError if the shapes do not fit, or where a channel of an example has one number;
    ValueError where the running statistics are needed and missing.
    """
    shape = shape_of(x)
    if len(shape) < 3:
        raise ShapeError(f"instance_norm: the input must have shape (N, C, L, ...), got {shape}")
    _check_statistics("instance_norm", shape[1], not use_input_stats, running_mean, running_var)
    _check_parameters("instance_norm", shape[1], weight=weight, bias=bias)
    limits = (("momentum", momentum), ("eps", eps))
    momentum, eps = (number("instance_norm", k, v) for k, v in limits)
    if not use_input_stats:
        return _by_running(x, running_mean, running_var, weight, bias, eps)
    size = math.prod(shape[2:])
    if size == 1:
        raise ShapeError(
            "instance_norm: each channel of an example needs more than one number, got shape "
            f"{shape}; take larger inputs, or use_input_stats=False"
        )
    columns, weight, bias = _as_columns(x, weight, bias)
    statistics = None
    if running_mean is not None and columns.size and not RECOMPUTING.get():
        statistics = apply(_STATISTICS, (columns,), {"axes": (2,)})
        given = (running_mean, running_var, statistics, momentum)
        apply(_TRACK, given, {"correction": size / (size - 1)})
    attrs = {"axes": (2,), "eps": eps}
    y: Tensor = apply(_STANDARDIZE, (columns, weight, bias, statistics), attrs)
    return reshape(y, shape) if len(shape) > 3 else y


# --- local response, unit length ------------------------------------------------------------------


def _window_sums_value(xp: Any, x: Any, before: int, after: int) -> Any:
    y, channels = x.copy(), x.shape[1]
    for k in range(1, min(before + 1, channels)):
        y[:, k:] += x[:, :-k]
    for k in range(1, min(after + 1, channels)):
        y[:, :-k] += x[:, k:]
    return y


def _window_sums(x: Any, before: int, after: int) -> Any:
    """The sums of each channel with so many before and after it."""
    return apply(_WINDOW_SUMS, (x,), {"before": before, "after": after})


_WINDOW_SUMS = Primitive(
    "window_sums",
    _window_sums_value,
    {"x": lambda g, before, after: _window_sums(g, after, before)},
    promotion="float",
    half_in_float32=True,
    flops=lambda x, out: x.size,
)


def _local_response_reference(
    x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    wide = np.pad(x * x, [(0, 0), (size // 2, (size - 1) // 2), *[(0, 0)] * (x.ndim - 2)])
    sums: Any = np.zeros_like(x)
    for place in range(size):
        sums = sums + wide[:, place : place + x.shape[1]]
    return x / (k + alpha / size * sums) ** beta


@operation(
    cases=[
        lambda s: s(s.real(2, 4, 3), 3, 0.5),
        lambda s: s(s.real(1, 3, 2, 2), 2, alpha=1.0, beta=2.0, k=0.5),
        lambda s: s(s.real(0, 3, 2), 5),
    ],
    reference=_local_response_reference,
    torch="nn.functional.local_response_norm",
    namespace="nn.functional",
    method=False,
)
@in_float32
def local_response_norm(
    x: Any, /, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """``x / (k + alpha * mean)**beta``, of the squares of ``size`` channels around each.

    x: shape (N, C, L, ...). Beyond the first and the last channel there are zeros, which count.
    Source: Krizhevsky, Sutskever and Hinton, 2012.

    Raises ShapeError for another shape, ValueError for a size below 1.
    """
    shape = shape_of(x)
    if len(shape) < 3:
        raise ShapeError(
            f"local_response_norm: the input must have shape (N, C, L, ...), got {shape}"
        )
    if size < 1:
        raise ValueError(f"local_response_norm: size must be at least 1; got {size}")
    given = (("alpha", alpha), ("beta", beta), ("k", k))
    alpha, beta, k = (float(number("local_response_norm", name, v)) for name, v in given)
    sums = _window_sums(square(x), size // 2, (size - 1) // 2)
    return x * pow(sums * (alpha / size) + k, -beta)


def _normalize_reference(x: Any, p: float = 2.0, axis: Any = 1, eps: float = 1e-12) -> Any:
    length = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
    return x / np.maximum(length, eps)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(2, 3, 2), 3.0, axis=-1),
        lambda s: s(s.real(2, 3), 1.0, axis=0, eps=50.0),
    ],
    reference=_normalize_reference,
    torch="nn.functional.normalize",
    namespace="nn.functional",
    method=False,
    complex=True,
)
@in_float32
def normalize(x: Any, /, p: float = 2.0, axis: Any = 1, eps: float = 1e-12) -> Tensor:
    """``x`` by its norm along ``axis``: vectors of length 1.

    p: the order of the norm; see ``norm``. axis: one or several. eps: the least divisor. A tensor
    without axes counts as a vector of one.
    """
    if not shape_of(x) and axis in (0, -1):
        axis = None
    eps = float(number("normalize", "eps", eps))
    return x / clip(norm(x, p, axis, keepdims=True), eps)
