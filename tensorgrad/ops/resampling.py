"""Resampling: more or fewer elements along the last axes, elements at places of one's own, and
elements moved from channels into space.

Resampling to a regular grid goes axis by axis, each time as a linear map (``weighted_take``).
"""

# The operators inside come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, get_default_dtype
from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.numbers import number
from tensorgrad.ops.pooling import adaptive_means
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.shaping import permute_dims, reshape, shape_of
from tensorgrad.ops.table import operation
from tensorgrad.ops.weighted_take import Map, made_map, weighted_take
from tensorgrad.ops.windows import numbers

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "channel_shuffle", "interpolate", "pixel_shuffle",
    "pixel_unshuffle", "upsample", "upsample_bilinear", "upsample_nearest",
]  # fmt: skip

Array = np.ndarray[Any, Any]


# --- to a regular grid ----------------------------------------------------------------------------

#: For each mode how it goes along an axis, and the numbers of axes that it is for.
_MODES = {
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
    "area": ("area", (1, 2, 3)),
}


def cubic_weights(t: Any, a: float) -> list[Any]:
    """The weights of the elements at -1, 0, 1 and 2 for a point at ``t`` in [0, 1] (Keys, 1981)."""

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


@lru_cache(maxsize=256)
def _axis_map(
    size: int, results: int, kind: str, align: bool, factor: float | None, antialias: bool
) -> Map | None:
    """How ``results`` elements are made of ``size``; ``None`` if they are the same ones.

    factor: how many times as many there are, where it is not ``results / size``.
    """
    if align:
        spacing = (size - 1) / (results - 1) if results > 1 else 0.0
    else:
        spacing = 1 / factor if factor else size / results
    rows = np.arange(results)
    if antialias:
        rows, columns, weights = _filtered(size, results, kind, spacing)
        return made_map(rows, columns, weights, results, size)
    if kind.startswith("nearest"):
        shift = 0.5 if kind == "nearest-exact" else 0.0
        taps = [(np.floor((rows + shift) * spacing), np.ones(results))]
    else:
        at = rows * spacing if align else (rows + 0.5) * spacing - 0.5
        if kind == "linear":
            at = np.clip(at, 0, size - 1)
            first = np.floor(at)
            taps = [(first, 1 - (at - first)), (first + 1, at - first)]
        else:
            first = np.floor(at)
            taps = [(first + k, w) for k, w in enumerate(cubic_weights(at - first, -0.75), -1)]
    columns = np.concatenate([np.clip(c, 0, size - 1).astype(np.int64) for c, _ in taps])
    weights = np.concatenate([w for _, w in taps])
    found = made_map(np.tile(rows, len(taps)), columns, weights, results, size)
    same = size == results and len(found[0]) == 1 and (found[0] == rows).all()
    return None if same else found


def _filtered(size: int, results: int, kind: str, spacing: float) -> tuple[Array, Array, Array]:
    """Rows, columns and weights of a filter that is as wide as the results lie apart."""
    wide = max(spacing, 1.0)
    reach = (2 if kind == "cubic" else 1) * wide
    rows, columns, weights = [], [], []
    for o in range(results):
        center = spacing * (o + 0.5)
        first = max(int(center - reach + 0.5), 0)
        last = min(int(center + reach + 0.5), size)
        found = np.arange(first, max(last, first + 1))
        d = np.abs(found - center + 0.5) / wide
        if kind == "cubic":
            near, far = cubic_weights(np.minimum(d, 1), -0.5), cubic_weights(d - 1, -0.5)
            weight = np.where(d < 1, near[1], np.where(d < 2, far[0], 0.0))
        else:
            weight = np.maximum(1 - d, 0)
        rows.append(np.full(len(found), o))
        columns.append(found)
        weights.append(weight / weight.sum())
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(weights)


def _sizes_and_factors(
    input: Any, n: int, size: Any, scale_factor: Any, recompute: bool
) -> tuple[tuple[int, ...], list[float | None]]:
    """The sizes of the result, and the factors where these decide where its elements lie."""
    name = "interpolate"
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"{name}: give either size or scale_factor; got {size!r} and {scale_factor!r}"
        )
    if size is not None:
        if recompute:
            raise ValueError(f"{name}: recompute_scale_factor means nothing without scale_factor")
        return numbers(name, "size", size, n, 1), [None] * n
    given = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * n
    factors = [float(number(name, "scale_factor", f)) for f in given]
    if len(factors) != n or not all(0 < f < math.inf for f in factors):
        raise ValueError(
            f"{name}: scale_factor must be a number above 0, or {n} of them; got {scale_factor!r}"
        )
    sizes = tuple([math.floor(m * f) for m, f in zip(input.shape[-n:], factors, strict=True)])
    if 0 in sizes:
        raise ShapeError(f"{name}: nothing is left of shape {input.shape} by {scale_factor}")
    return sizes, [None] * n if recompute else list(factors)


def _check_mode(mode: str, shape: tuple[int, ...], align_corners: Any, antialias: bool) -> None:
    if mode not in _MODES:
        raise ValueError(f"interpolate: mode must be one of {', '.join(_MODES)}; got {mode!r}")
    kind, axes = _MODES[mode]
    if len(shape) - 2 not in axes:
        wanted = " or ".join(str(n + 2) for n in axes)
        raise ShapeError(
            f"interpolate: for mode {mode!r} the input must have {wanted} axes, (N, C, ...); got "
            f"shape {shape}"
        )
    if 0 in shape[2:]:
        raise ShapeError(f"interpolate: there are no elements in an input of shape {shape}")
    if align_corners is not None and kind not in ("linear", "cubic"):
        raise ValueError(f"interpolate: align_corners means nothing for mode {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError('interpolate: antialias is for the modes "bilinear" and "bicubic"')


def _interpolate_reference(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool = False, antialias: bool = False,
) -> Any:  # fmt: skip
    """By matrices of the filter's values at all distances, for enlarging without clamped ends."""
    n = x.ndim - 2
    given = (size,) * n if isinstance(size, int) else size
    sizes = given or [int(m * scale_factor) for m in x.shape[2:]]
    for axis, results in enumerate(sizes, 2):
        m = x.shape[axis]
        o, i = np.arange(results)[:, None], np.arange(m)
        if mode == "nearest":
            matrix = (o * m // results == i).astype(float)
        elif mode == "area":
            matrix = ((i + 1) * results > o * m) & (i * results < (o + 1) * m)
        else:
            at = o * (m - 1) / (results - 1) if align_corners else (o + 0.5) * m / results - 0.5
            wide = max(m / results, 1.0) if antialias else 1.0
            matrix = np.maximum(1 - abs((at if antialias else np.clip(at, 0, m - 1)) - i) / wide, 0)
        matrix = matrix / matrix.sum(1, keepdims=True)
        x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
    return x


@operation(
    cases=[
        lambda s: s(s.real(2, 2, 3), 5),
        lambda s: s(s.real(1, 2, 3, 2), scale_factor=2.0, mode="bilinear"),
        lambda s: s(s.real(1, 1, 2, 3, 2), (3, 4, 3), mode="trilinear", align_corners=True),
        lambda s: s(s.real(1, 2, 5, 4), (3, 2), mode="bilinear", antialias=True),
        lambda s: s(s.real(2, 2, 5), 3, mode="area"),
    ],
    reference=_interpolate_reference,
    torch="nn.functional.interpolate",
    method=False,
    namespace="nn.functional",
)
@in_float32
def interpolate(
    input: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``input``, shape (N, C, ...), with more or fewer elements along its last axes.

    size: how many, one number or one for each axis; or scale_factor: how many times as many.
    mode: "nearest", "nearest-exact" (the middles of elements are compared), "area" (means), for
        one to three axes; "linear", "bilinear" or "trilinear", and "bicubic" (Keys, 1981).
    align_corners: for linear and cubic modes, whether the middles of the first and last elements
        stay where they are, and not the ends.
    recompute_scale_factor: whether elements are spread evenly where ``scale_factor`` gives no whole
        number of them.
    antialias: with "bilinear" and "bicubic", average over as much as an element of the result
        covers; for fewer elements.

    All as in PyTorch. Raises ShapeError where the number of axes does not fit the mode, ValueError
    for options that are none or do not go together.
    """
    x = input if hasattr(input, "dtype") else asarray(input)
    shape = shape_of(x)
    _check_mode(mode, shape, align_corners, antialias)
    n = len(shape) - 2
    sizes, factors = _sizes_and_factors(x, n, size, scale_factor, bool(recompute_scale_factor))
    if x.dtype not in FLOATS:
        x = asarray(x, dtype=get_default_dtype())
    if mode == "area":
        found: Tensor = adaptive_means("interpolate", x, n, sizes)
        return found
    # What makes fewer elements comes first.
    for k in sorted(range(n), key=lambda k: sizes[k] / shape[2 + k]):
        m, results, factor = shape[2 + k], sizes[k], factors[k]
        if (mode == "nearest" and n == 2 and results in (m, 2 * m)) or (
            _MODES[mode][0] == "linear" and results == m
        ):
            factor = None  # which PyTorch does not look at here
        of = _axis_map(m, results, _MODES[mode][0], bool(align_corners), factor, antialias)
        if of is not None:
            x = weighted_take(x, 2 + k, of)
    return x


def upsample(
    input: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """``interpolate`` under its former name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """``interpolate`` with mode "nearest"."""
    return interpolate(input, size, scale_factor)


def upsample_bilinear(
    input: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """``interpolate`` with mode "bilinear" and aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)


# --- from channels into space ---------------------------------------------------------------------


def _divides(name: str, what: str, factor: Any, size: int, shape: tuple[int, ...]) -> int:
    """``factor`` as a number. Raises ShapeError unless it divides ``size``."""
    (by,) = numbers(name, what, factor, 1, 1)
    if size % by:
        raise ShapeError(f"{name}: {size} is no multiple of {what} {by}; got shape {shape}")
    return by


def _planes(name: str, input: Any) -> tuple[tuple[int, ...], int, int, int]:
    shape = shape_of(input)
    if len(shape) < 3:
        raise ShapeError(f"{name}: the input must have shape (..., C, H, W); got shape {shape}")
    return shape[:-3], shape[-3], shape[-2], shape[-1]


def _moved(x: Any, shape: tuple[int, ...], order: Sequence[int], result: tuple[int, ...]) -> Any:
    """``x`` in ``shape``, its last axes in another order, in the shape of the result."""
    first = len(shape) - len(order)
    axes = (*range(first), *[first + k for k in order])
    return reshape(permute_dims(reshape(x, shape), axes), result)


def _pixel_shuffle_reference(x: Any, r: int) -> Any:
    *_, c, h, w = x.shape
    y = np.empty((*x.shape[:-3], c // r**2, h * r, w * r), x.dtype)
    for i, j in np.ndindex(r, r):
        y[..., i::r, j::r] = x[..., i * r + j :: r**2, :, :]
    return y


@operation(
    cases=[
        lambda s: s(s.real(2, 8, 2, 3), 2),
        lambda s: s(s.real(9, 1, 2), 3),
    ],
    reference=_pixel_shuffle_reference,
    torch="nn.functional.pixel_shuffle",
    method=False,
    namespace="nn.functional",
    complex=True,
)
def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """(..., C * r**2, H, W) as (..., C, H * r, W * r), r being ``upscale_factor``.

    The channels of a group become a square of elements (Shi et al., 2016). Raises ShapeError unless
    the number of channels is a multiple of r**2.
    """
    name = "pixel_shuffle"
    before, c, h, w = _planes(name, input)
    (r,) = numbers(name, "upscale_factor", upscale_factor, 1, 1)
    _divides(name, "upscale_factor squared,", r * r, c, shape_of(input))
    y: Tensor = _moved(
        input, (*before, c // r**2, r, r, h, w), (0, 3, 1, 4, 2),
        (*before, c // r**2, h * r, w * r),
    )  # fmt: skip
    return y


@operation(
    cases=[
        lambda s: s(s.real(2, 2, 4, 6), 2),
        lambda s: s(s.real(1, 3, 6), 3),
    ],
    reference=lambda x, r: np.concatenate(
        [x[..., c : c + 1, i::r, j::r] for c, i, j in np.ndindex(x.shape[-3], r, r)], -3
    ),
    torch="nn.functional.pixel_unshuffle",
    method=False,
    namespace="nn.functional",
    complex=True,
)
def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) as (..., C * r**2, H, W): ``pixel_shuffle`` undone.

    Raises ShapeError unless height and width are multiples of r.
    """
    name = "pixel_unshuffle"
    before, c, h, w = _planes(name, input)
    r = _divides(name, "downscale_factor", downscale_factor, h, shape_of(input))
    _divides(name, "downscale_factor", downscale_factor, w, shape_of(input))
    y: Tensor = _moved(
        input, (*before, c, h // r, r, w // r, r), (0, 2, 4, 1, 3),
        (*before, c * r**2, h // r, w // r),
    )  # fmt: skip
    return y


@operation(
    cases=[
        lambda s: s(s.real(2, 6, 2), 3),
        lambda s: s(s.real(1, 4, 2, 2), 2),
    ],
    reference=lambda x, groups: np.concatenate(
        [x[:, k :: x.shape[1] // groups] for k in range(x.shape[1] // groups)], 1
    ),
    torch=None,
    method=False,
    namespace="nn.functional",
    complex=True,
)
def channel_shuffle(input: Any, groups: int) -> Tensor:
    """``input`` with the first channel of each group first, then the second ones, and so on.

    input: shape (N, C, ...) (Zhang et al., 2018, "ShuffleNet").
    Raises ShapeError unless the number of channels is a multiple of ``groups``.
    """
    name = "channel_shuffle"
    shape = shape_of(input)
    if len(shape) < 3:
        raise ShapeError(f"{name}: the input must have shape (N, C, ...); got shape {shape}")
    g = _divides(name, "groups", groups, shape[1], shape)
    rest = len(shape) - 2
    y: Tensor = _moved(
        input, (shape[0], g, shape[1] // g, *shape[2:]), (1, 0, *range(2, 2 + rest)), shape
    )
    return y
