"""Similarity and distance of vectors, and the losses of them.

They consist of operations, so that they have derivatives of any order, run on every device and
become a loop in a compiled step. Names and defaults are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.elementwise import maximum, where
from tensorgrad.ops.losses import above_zero, paired, reduced
from tensorgrad.ops.precision import loss_in_float32
from tensorgrad.ops.reductions import norm
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import broadcast_to, normalize_axis
from tensorgrad.tensor import Tensor

__all__ = [
    "cosine_embedding_loss",
    "cosine_similarity",
    "hinge_embedding_loss",
    "triplet_margin_loss",
]


@loss_in_float32
def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Distances: ``x`` where the target is 1, ``max(0, margin - x)`` where it is -1.

    input, target: tensors of one shape. reduction: "mean", "sum" or "none".
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("hinge_embedding_loss", input, target)
    each = where(target == 1, input, maximum(margin - input, 0.0))
    return reduced("hinge_embedding_loss", each, reduction)


@loss_in_float32
def cosine_similarity(x1: Any, x2: Any, axis: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along an axis.

    x1, x2: tensors that broadcast with each other. eps: the least length that is divided by.
    The result has the common shape without that axis.

    Raises ShapeError unless the shapes broadcast.
    """
    try:
        shape = np.broadcast_shapes(x1.shape, x2.shape)
    except ValueError:
        raise ShapeError(
            "cosine_similarity: the shapes must broadcast: counted from the last axis, two sizes "
            f"are equal or one of them is 1; got {tuple(x1.shape)} and {tuple(x2.shape)}"
        ) from None
    if not shape:
        raise ShapeError("cosine_similarity: the vectors must have an axis; got shapes () and ()")
    behind = normalize_axis("cosine_similarity", axis, np.empty(shape, bool)) - len(shape)
    directions = []
    for x in (x1, x2):
        if len(x.shape) < -behind or x.shape[behind] != shape[behind]:
            x = broadcast_to(x, shape)  # the vectors are those after broadcasting
        directions.append(x / maximum(norm(x, axis=behind, keepdims=True), eps))
    return total(directions[0] * directions[1], axis=behind)


@loss_in_float32
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1.

    input1, input2: vectors, shape (N, D) or (D,). target: shape (N,) or ().
    reduction: "mean", "sum" or "none".

    Raises ShapeError unless the shapes fit, ValueError for another reduction.
    """
    paired("cosine_embedding_loss", input1, input2)
    cosine = cosine_similarity(input1, input2, axis=-1)
    if tuple(target.shape) != cosine.shape:
        raise ShapeError(
            f"cosine_embedding_loss: for inputs of shape {tuple(input1.shape)} the target must "
            f"have shape {cosine.shape}, got {tuple(target.shape)}"
        )
    each = where(target == 1, 1.0 - cosine, maximum(cosine - margin, 0.0))
    return reduced("cosine_embedding_loss", each, reduction)


@loss_in_float32
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, |a - p| - |a - n| + margin)``: the positive is to be nearer than the negative.

    anchor, positive, negative: vectors, shape (N, D) or (D,). p: the kind of norm. eps: added to
        each difference, so that no distance is 0. swap: take the distance from positive to negative
        where that is less than that from the anchor. reduction: "mean", "sum" or "none".

    Source: Balntas and others, "Learning local feature descriptors with triplets", 2016.
    Raises ShapeError unless the shapes are equal, ValueError for another reduction or p.
    """
    paired("triplet_margin_loss", anchor, positive)
    paired("triplet_margin_loss", anchor, negative)
    above_zero("triplet_margin_loss", "p", p)

    def distance(x: Any, y: Any) -> Tensor:
        """Along the last axis."""
        return norm(x - y + eps, p, axis=-1)

    far = distance(anchor, negative)
    if swap:
        other = distance(positive, negative)
        far = where(other < far, other, far)
    each = maximum(distance(anchor, positive) - far + margin, 0.0)
    return reduced("triplet_margin_loss", each, reduction)
