"""Elements at places of one's own: ``grid_sample``, and the grids that ``affine_grid`` makes.

A sample is a weighted sum of the elements around a place, which are taken by index from a table
with a row for each element of all channels; so there are gradients of any order with respect to
both the input and the places.
"""

# The operators inside come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, float32, float64, int64
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.elementwise import abs, clip, floor, isnan, remainder, round, where
from tensorgrad.ops.indexing import beside, take
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.resampling import cubic_weights
from tensorgrad.ops.shaping import expand_dims, moveaxis, reshape, shape_of, unstack
from tensorgrad.ops.table import operation
from tensorgrad.ops.windows import numbers
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
#: Places are not looked for further away: each is a whole number that int64 has.
_FAR = 1e9
#: Along one axis: for each element of a sample its place, whether it is inside, and its weight.
Taps = list[tuple[Any, Any, Any]]


# --- places along one axis ------------------------------------------------------------------------


def _reflected(x: Any, low: float, high: float) -> Any:
    """``x`` reflected at both limits until it lies between them."""
    if low == high:
        return x * 0.0
    span = high - low
    rest = remainder(abs(x - low), 2 * span)
    return where(rest > span, 2 * span - rest, rest) + low


def _inside(x: Any, size: int, padding_mode: str, align: bool) -> Any:
    """``x`` brought among the elements, as the padding mode says."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "reflection":
        x = _reflected(x, *((0.0, size - 1.0) if align else (-0.5, size - 0.5)))
    return clip(x, 0.0, size - 1.0)


def _tap(x: Any, size: int, weight: Any) -> tuple[Any, Any, Any]:
    """The element at ``x``, a whole number, and whether there is one."""
    whole = cast(x, int64)
    valid = (whole >= 0) & (whole < size)
    return clip(whole, 0, size - 1), valid, weight


def _taps(x: Any, size: int, mode: str, padding_mode: str, align: bool) -> Taps:
    """What a sample at the places ``x``, from -1 to 1, is made of along an axis."""
    x = (x + 1.0) * ((size - 1) / 2) if align else ((x + 1.0) * size - 1.0) * 0.5
    x = clip(x, -_FAR, _FAR)
    if mode != "bicubic":
        x = _inside(x, size, padding_mode, align)
    known = x.detach()
    known = where(isnan(known), -4.0, known)
    if mode == "nearest":
        return [_tap(round(known), size, None)]
    first = floor(known)
    if mode == "bilinear":
        share = x - first
        return [_tap(first, size, 1.0 - share), _tap(first + 1.0, size, share)]
    found = []
    for k, weight in enumerate(cubic_weights(x - first, -0.75), -1):
        place = _inside(first + float(k), size, padding_mode, align)
        found.append(_tap(place, size, weight))
    return found


# --- samples --------------------------------------------------------------------------------------


def _check(input: Any, grid: Any, mode: str, padding_mode: str) -> int:
    """The number of axes to sample along. Raises an error for what does not fit."""
    name = "grid_sample"
    shape, places = shape_of(input), shape_of(grid)
    n = len(shape) - 2
    if n not in (2, 3) or len(places) != n + 2 or places[0] != shape[0] or places[-1] != n:
        raise ShapeError(
            f"{name}: the input must have shape (N, C, H, W) and the grid (N, H', W', 2), or "
            f"(N, C, D, H, W) and (N, D', H', W', 3); got {shape} and {places}"
        )
    if 0 in shape[1:]:
        raise ShapeError(f"{name}: there are no elements in an input of shape {shape}")
    if mode not in _MODES or (mode == "bicubic" and n == 3):
        raise ValueError(
            f'{name}: mode must be "bilinear", "nearest" or, for an input of 4 axes, "bicubic"; '
            f"got {mode!r}"
        )
    if padding_mode not in _PADDINGS:
        raise ValueError(f"{name}: padding_mode must be one of {_PADDINGS}; got {padding_mode!r}")
    return n


def _grid_sample_reference(
    x: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Any:
    """Sample by sample, and element by element: linear, with zeros or the border outside."""
    n = x.ndim - 2
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for b, *at in np.ndindex(*grid.shape[:-1]):
        place = []
        for g, m in zip(grid[(b, *at)][::-1], x.shape[2:]):
            p = (g + 1) / 2 * (m - 1) if align_corners else ((g + 1) * m - 1) / 2
            place.append(np.clip(p, 0, m - 1) if padding_mode == "border" else p)
        for element in np.ndindex(*x.shape[2:]):
            d = np.abs(np.subtract(place, element))
            if mode == "nearest":
                weight = float((np.round(place) == element).all())
            else:
                weight = math.prod(np.maximum(1 - d, 0))
            y[(b, slice(None), *at)] += weight * x[(b, slice(None), *element)]
    assert y.ndim == n + 2
    return y


@operation(
    cases=[
        lambda s: s(s.real(1, 2, 3, 4), s.distinct(1, 3, 2, 2) * 0.37, align_corners=False),
        lambda s: s(s.real(2, 1, 3, 2), s.distinct(2, 2, 1, 2) * 0.83, "bilinear", "border", False),
        lambda s: s(
            s.real(1, 1, 2, 3, 2), s.distinct(1, 2, 1, 1, 3) * 0.37, "bilinear", "zeros", True
        ),
    ],
    reference=_grid_sample_reference,
    torch="nn.functional.grid_sample",
    method=False,
    namespace="nn.functional",
)
@in_float32
def grid_sample(
    input: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Samples of ``input`` at the places ``grid`` (Jaderberg et al., 2015).

    input: shape (N, C, H, W), and grid (N, H', W', 2), which gives (N, C, H', W'); or one more axis
        in front of H in all of them, and 3 numbers for a place. A place is (x, y) or (x, y, z),
        x going along the last axis, from -1 to 1 across all of the input.
    mode: "bilinear" (in three axes, too), "nearest", or "bicubic" (two axes).
    padding_mode: what is outside: "zeros", the nearest element at the "border", or the
        "reflection" of what is inside.
    align_corners: whether -1 and 1 are the middles of the outermost elements, or their ends.

    Raises ShapeError where the shapes do not fit, ValueError for another mode.
    """
    n = _check(input, grid, mode, padding_mode)
    x = input if hasattr(input, "node") else asarray(input)
    places = grid if hasattr(grid, "node") else asarray(grid, device=x.device)
    if x.dtype not in FLOATS or places.dtype not in FLOATS:
        raise DtypeError(f"grid_sample: floats are needed; got {x.dtype} and {places.dtype}")
    sizes = x.shape[2:]
    parts = unstack(places, axis=-1)
    along = [
        _taps(part, size, mode, padding_mode, bool(align_corners))
        for part, size in zip(parts[::-1], sizes, strict=True)
    ]
    # The number of the first element of each example, beside its places.
    first = np.arange(x.shape[0]).reshape(-1, *[1] * n) * math.prod(sizes)
    table = reshape(moveaxis(x, 1, -1), (-1, x.shape[1]))
    y: Any = None
    for taps in itertools.product(*along):
        row, valid, weight = beside(x, first), None, None
        for k, (place, inside, share) in enumerate(taps):
            row = row + place * math.prod(sizes[k + 1 :])
            valid = inside if valid is None else valid & inside
            weight = share if weight is None else weight * share
        found = where(expand_dims(valid, -1), take(table, row, 0), 0.0)
        found = found if weight is None else found * expand_dims(weight, -1)
        y = found if y is None else y + found
    samples: Tensor = moveaxis(y, -1, 1)
    return samples


# --- grids ----------------------------------------------------------------------------------------


def _affine_grid_reference(theta: Any, size: Sequence[int], align_corners: bool = False) -> Any:
    axes = [np.linspace(-1, 1, m) * (1.0 if align_corners else (m - 1) / m) for m in size[2:]]
    places = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(tuple(size[2:]))], -1)
    return np.einsum("...k,njk->n...j", places, theta)


@operation(
    cases=[
        lambda s: s(s.real(2, 2, 3), (2, 1, 3, 4), False),
        lambda s: s(s.real(1, 3, 4), (1, 2, 2, 3, 2), True),
    ],
    reference=_affine_grid_reference,
    torch="nn.functional.affine_grid",
    method=False,
    namespace="nn.functional",
    complex=False,
)
@in_float32
def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The places for ``grid_sample`` to which an affine map takes a regular grid.

    theta: a matrix for each example, shape (N, 2, 3), or (N, 3, 4) for three axes. size: the shape
    of the result that is wanted, (N, C, H, W) or (N, C, D, H, W). The places have shape
    (N, H, W, 2) or (N, D, H, W, 3).

    Raises ShapeError where these do not fit.
    """
    name = "affine_grid"
    n = len(size) - 2
    if n not in (2, 3) or shape_of(theta) != (size[0], n, n + 1):
        raise ShapeError(
            f"{name}: theta must have shape (N, 2, 3) for a size (N, C, H, W), or (N, 3, 4) for "
            f"(N, C, D, H, W); got {shape_of(theta)} and {tuple(size)}"
        )
    sizes = numbers(name, "size", tuple(size[2:]), n, 1)
    x = theta if hasattr(theta, "node") else asarray(theta)
    axes = [_even(m, bool(align_corners)) for m in sizes]
    regular = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(sizes)], -1)
    kind = x.dtype if x.dtype == float64 else float32
    places = beside(x, regular[..., None, :].astype(kind))
    maps = reshape(x, (x.shape[0], *[1] * n, n, n + 1))
    found: Tensor = total(maps * places, axis=-1)
    return found


def _even(m: int, align: bool) -> Any:
    """``m`` places spread evenly from -1 to 1: elements' middles there, or their ends."""
    if align:
        return np.linspace(-1, 1, m) if m > 1 else np.zeros(1)
    return (2 * np.arange(m) + 1) / m - 1
