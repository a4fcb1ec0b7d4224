"""Dropout of whole channels, and the dropout that goes with SELU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorgrad.dtypes import FLOATS
from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import ones
from tensorgrad.ops.elementwise import where
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.random import Generator, dropout
from tensorgrad.ops.shaping import shape_of
from tensorgrad.ops.table import operation

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_HERE: dict[str, Any] = {"namespace": "nn.functional", "method": False}


def _all_or_nothing(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return x * 0.0 if training and p == 1 else x


def _probability(function: str, p: float) -> float:
    p = float(number(function, "p", p))
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{function}: p must be between 0 and 1; got {p}")
    return p


def _mask(x: Any, shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    """0 with probability ``p``, else 1 / (1 - p), beside ``x`` and of its dtype."""
    device = x.device if hasattr(x, "node") else None
    dtype = x.dtype if x.dtype in FLOATS else None
    return dropout(ones(shape, dtype=dtype, device=device), p, generator=generator)


def _channels(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """The first ``axes`` sizes, and 1 for the rest."""
    return (*shape[:axes], *(1,) * (len(shape) - axes))


@in_float32
def _without_channels(
    x: Any, shape: tuple[int, ...], p: float, generator: Generator | None
) -> Tensor:
    y: Tensor = x * _mask(x, shape, p, generator)
    return y


def _channelwise(
    function: str,
    form: str,
    axes: dict[int, int],
    x: Any,
    p: float,
    training: bool,
    generator: Generator | None,
) -> Tensor:
    """Dropout of channels. axes: by the number of axes, how many of them count the channels."""
    p = _probability(function, p)
    shape = shape_of(x)
    if len(shape) not in axes:
        raise ShapeError(f"{function}: the input must have shape {form}, got {shape}")
    if training and p:
        return _without_channels(x, _channels(shape, axes[len(shape)]), p, generator)
    same: Tensor = x
    return same


@operation(
    cases=[lambda s: s(s.real(2, 3, 4), 1.0), lambda s: s(s.real(3, 4), 0.5, training=False)],
    reference=_all_or_nothing,
    torch="nn.functional.dropout1d",
    **_HERE,
    complex=True,
)
def dropout1d(
    x: Any, /, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """``x`` with each channel set to 0 with probability ``p``, at random, and the others scaled.

    x: shape (N, C, L) or (C, L). The scale is ``1 / (1 - p)``. Returns ``x`` itself if not
    ``training`` or ``p`` is 0. Source: Tompson et al., 2015.

    Raises ShapeError for another shape, ValueError for p outside [0, 1].
    """
    form = "(N, C, L) or (C, L)"
    return _channelwise("dropout1d", form, {3: 2, 2: 1}, x, p, training, generator)


@operation(
    cases=[lambda s: s(s.real(2, 3, 2, 2), 1.0), lambda s: s(s.real(2, 3, 2, 2), 0.0)],
    reference=_all_or_nothing,
    torch="nn.functional.dropout2d",
    **_HERE,
    complex=True,
)
def dropout2d(
    x: Any, /, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """``dropout1d`` for images, shape (N, C, H, W); (N, C, L) is taken as it is there."""
    form = "(N, C, H, W) or (N, C, L)"
    return _channelwise("dropout2d", form, {4: 2, 3: 2}, x, p, training, generator)


@operation(
    cases=[lambda s: s(s.real(2, 3, 2, 1, 2), 1.0), lambda s: s(s.real(3, 1, 2, 2), 0.0)],
    reference=_all_or_nothing,
    torch="nn.functional.dropout3d",
    **_HERE,
    complex=True,
)
def dropout3d(
    x: Any, /, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """``dropout1d`` for volumes, shape (N, C, D, H, W) or (C, D, H, W)."""
    form = "(N, C, D, H, W) or (C, D, H, W)"
    return _channelwise("dropout3d", form, {5: 2, 4: 1}, x, p, training, generator)


# what SELU is far below 0
_LOW = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


@in_float32
def _to_low(x: Any, shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    """``x`` with numbers set to SELU's lowest, scaled and shifted to mean 0 and variance 1."""
    if p == 1.0:
        y: Tensor = x * 0.0
        return y
    scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _LOW * _LOW))
    kept = _mask(x, shape, p, generator) > 0.0
    return where(kept, x, _LOW) * scale - p * _LOW * scale


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1.0, True),
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(0, 4), 0.5, True),
    ],
    reference=lambda x, p=0.5, training=False: _all_or_nothing(x, p, training),
    torch="nn.functional.alpha_dropout",
    **_HERE,
    complex=False,
)
def alpha_dropout(
    x: Any, /, p: float = 0.5, training: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1, for networks of SELU.

    Each element is set to SELU's lowest number with probability ``p``, and all are scaled and
    shifted. Returns ``x`` itself if not ``training`` or ``p`` is 0; zeros for p = 1.

    Source: Klambauer et al., 2017. Raises ValueError for p outside [0, 1].
    """
    p = _probability("alpha_dropout", p)
    return _to_low(x, shape_of(x), p, generator) if training and p else x


@operation(
    cases=[lambda s: s(s.real(2, 3, 2), 1.0, True), lambda s: s(s.real(2, 3, 2))],
    reference=lambda x, p=0.5, training=False: _all_or_nothing(x, p, training),
    torch="nn.functional.feature_alpha_dropout",
    **_HERE,
    complex=False,
)
def feature_alpha_dropout(
    x: Any, /, p: float = 0.5, training: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """``alpha_dropout`` of whole channels, shape (N, C, ...).

    Raises ShapeError for an input without channels, ValueError for p outside [0, 1].
    """
    p = _probability("feature_alpha_dropout", p)
    shape = shape_of(x)
    if not training or p == 0.0:
        return x
    if len(shape) < 2:
        raise ShapeError(
            f"feature_alpha_dropout: the input must have shape (N, C, ...), got {shape}"
        )
    return _to_low(x, _channels(shape, 2), p, generator)
