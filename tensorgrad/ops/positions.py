"""Positions in a sequence: waves of many lengths, added (sinusoidal) or turned by (rotary)."""

# The operators inside come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, float64, get_default_dtype
from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import arange, asarray
from tensorgrad.ops.elementwise import cos, sin
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import half_to_float32
from tensorgrad.ops.shaping import concat, reshape, stack
from tensorgrad.ops.table import operation
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["rotary_embedding"]


def angles(positions: Any, size: int, base: float) -> Any:
    """``position * base**(-2 i / size)`` for i below size / 2, in float64: (..., size / 2)."""
    waves = base ** (arange(0, size, 2, dtype=float64, device=positions.device) * (-1.0 / size))
    return reshape(cast(positions, float64), (*positions.shape, 1)) * waves


def _reference(x: Any, offset: int = 0, base: float = 10000.0, interleaved: bool = True) -> Any:
    length, size = x.shape[-2:]
    angle = np.outer(np.arange(offset, offset + length), base ** (-np.arange(0, size, 2) / size))
    turn = np.exp(1j * angle)
    if interleaved:
        y = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([y.real, y.imag], -1).reshape(x.shape)
    y = (x[..., : size // 2] + 1j * x[..., size // 2 :]) * turn
    return np.concatenate([y.real, y.imag], -1)


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), 5),
        lambda s: s(s.real(3, 6), base=100.0, interleaved=False),
        lambda s: s(s.real(0, 3, 4)),
    ],
    reference=_reference,
    torch=None,
    namespace="nn.functional",
    method=False,
    complex=False,
)
def rotary_embedding(
    x: Any, offset: int = 0, base: float = 10000.0, interleaved: bool = True
) -> Tensor:
    """Each pair of features turned by an angle that grows with the position (Su and others, 2021).

    x: queries or keys, shape (..., L, E), E even. Products of a query and a key then depend on the
    distance of their positions. Pair i at position p turns by ``p * base**(-2 i / E)``.
    offset: the position of the first, as after what a ``KeyValueCache`` holds.
    interleaved: a pair is two neighbours, as in the paper; False for one of each half, as LLaMA and
        GPT-NeoX have it.

    Returns the shape of ``x``. Raises ShapeError for an odd number of features, or no axis for L.
    """
    if not hasattr(x, "node"):
        x = asarray(x)
    shape = x.shape
    if len(shape) < 2 or shape[-1] % 2:
        raise ShapeError(
            "rotary_embedding: the input must have shape (..., length, features) with an even "
            f"number of features; got {shape}"
        )
    first = int(number("rotary_embedding", "offset", offset))
    base = float(number("rotary_embedding", "base", base))
    angle = angles(arange(first, first + shape[-2], device=x.device), shape[-1], base)
    wide = half_to_float32(x)
    dtype = wide.dtype if wide.dtype in FLOATS else get_default_dtype()
    y: Tensor = _turned(wide, cast(cos(angle), dtype), cast(sin(angle), dtype), interleaved)
    return y if wide is x else cast(y, x.dtype)


def _turned(x: Any, c: Any, s: Any, interleaved: bool) -> Any:
    half = x.shape[-1] // 2
    if interleaved:
        pairs = reshape(x, (*x.shape[:-1], half, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        return reshape(stack([a * c - b * s, a * s + b * c], axis=-1), x.shape)
    a, b = x[..., :half], x[..., half:]
    return concat([a * c - b * s, a * s + b * c], axis=-1)
