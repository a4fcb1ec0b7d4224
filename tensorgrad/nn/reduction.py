"""What losses share: shapes that must be equal, and reductions."""

from __future__ import annotations

from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import shape_of
from tensorgrad.tensor import Tensor


def paired(name: str, input: Any, target: Any) -> None:
    """Raise ShapeError unless both have one shape."""
    if shape_of(input) != shape_of(target):
        raise ShapeError(
            f"{name}: input and target must have the same shape; got {shape_of(input)} and "
            f"{shape_of(target)}. Bring one to the other's with reshape or broadcast_to"
        )


def reduced(name: str, each: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of ``each``, or itself. Raises ValueError for another reduction."""
    if reduction == "mean":
        return mean(each)
    if reduction == "sum":
        return total(each)
    if reduction == "none":
        return each
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')
