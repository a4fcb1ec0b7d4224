"""Similarity and distance of vectors, and the losses of them.

They consist of operations, so that they have derivatives of any order, run on every device and
become a loop in a compiled step. Names and defaults are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import zeros_like
from tensorgrad.ops.elementwise import clip, maximum, sqrt, square, weighted, where
from tensorgrad.ops.losses import above_zero, paired, reduced
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import loss_in_float32
from tensorgrad.ops.reductions import norm
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import broadcast_to, expand_dims, normalize_axis, reshape, shape_of
from tensorgrad.tensor import Tensor

__all__ = [
    "cdist", "cosine_embedding_loss", "cosine_similarity", "hinge_embedding_loss",
    "pairwise_distance", "pdist", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


@loss_in_float32
def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Distances: ``x`` where the target is 1, ``max(0, margin - x)`` where it is -1.

    Where the target is neither it is the sum of both.
    input, target: tensors of one shape. reduction: "mean", "sum" or "none".
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("hinge_embedding_loss", input, target)
    near = where(target == -1, 0.0, input)
    each = near + where(target == 1, 0.0, clip(margin - input, 0.0))
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
    if not shape:  # two vectors of one number
        x1, x2, shape = reshape(x1, (1,)), reshape(x2, (1,)), (1,)
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
    each = where(target == 1, 1.0 - cosine, clip(cosine - margin, 0.0))
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
    above_zero("triplet_margin_loss", "p", p)

    def distance(x: Any, y: Any) -> Tensor:
        """Along the last axis."""
        return norm(x - y + eps, p, axis=-1)

    given = anchor, positive, negative
    return _triplets("triplet_margin_loss", given, distance, margin, swap, reduction)


def _triplets(
    name: str,
    given: tuple[Any, Any, Any],
    distance: Callable[[Any, Any], Any],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    anchor, positive, negative = given
    paired(name, anchor, positive)
    paired(name, anchor, negative)
    far = distance(anchor, negative)
    if swap:
        other = distance(positive, negative)
        far = where(other < far, other, far)
    return reduced(name, clip(distance(anchor, positive) - far + margin, 0.0), reduction)


@loss_in_float32
def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``triplet_margin_loss`` with another distance, ``pairwise_distance`` unless one is given.

    Arguments and errors as there.
    """
    distance = pairwise_distance if distance_function is None else distance_function
    given = anchor, positive, negative
    name = "triplet_margin_with_distance_loss"
    return _triplets(name, given, distance, margin, swap, reduction)


# --- distances ------------------------------------------------------------------------------------


@loss_in_float32
def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False
) -> Tensor:
    """The distance ``norm(x1 - x2 + eps, p)`` of vectors along the last axis.

    x1, x2: shapes (..., D) that broadcast. p: the kind of norm. eps: added to each difference, so
    that no distance is 0. keepdims: leave the last axis, with size 1.
    Raises ShapeError unless the shapes broadcast and have an axis.
    """
    _vectors("pairwise_distance", x1, x2)
    return norm(x1 - x2 + eps, number("pairwise_distance", "p", p), axis=-1, keepdims=keepdims)


def _vectors(name: str, x1: Any, x2: Any) -> None:
    """Raise ShapeError unless both have an axis and the shapes broadcast."""
    one, two = shape_of(x1), shape_of(x2)
    try:
        common = np.broadcast_shapes(one, two)
    except ValueError:
        common = ()
    if not common:
        raise ShapeError(f"{name}: vectors must have an axis and broadcast; got {one} and {two}")


def _order(name: str, p: Any) -> float:
    p = number(name, "p", p)
    if not p >= 0:
        raise ValueError(f"{name}: p must be 0 or more, got {p!r}")
    return float(p)


def _length(x: Any, p: float) -> Tensor:
    """The norm along the last axis, 0 where that is empty; of order 0 it has the gradient 0."""
    if not x.shape[-1]:
        return total(x, axis=-1)
    length = norm(x, p, axis=-1)
    return length if p else length + weighted(total(x, axis=-1), zeros_like(length))


#: ``compute_mode`` of ``cdist``: whether there is a product, for vectors given how many differences
_MODES: dict[str, Callable[[int], bool]] = {
    "use_mm_for_euclid_dist_if_necessary": lambda n: n > 2**24,
    "use_mm_for_euclid_dist": lambda n: True,
    "donot_use_mm_for_euclid_dist": lambda n: False,
}


@loss_in_float32
def cdist(
    x1: Any, x2: Any, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The distances ``norm(x1[i] - x2[j], p)`` of each vector of one set from each of another.

    x1, x2: shapes (..., N, D) and (..., M, D), of which the first axes broadcast; the result has
        shape (..., N, M). The gradient is 0 where a distance is. p: from 0 to infinity.
    compute_mode: whether lengths (p = 2) come from a matrix product, which needs no array of all
        differences but loses digits where vectors are long and close: "use_mm_for_euclid_dist",
        "donot_use_mm_for_euclid_dist", or "use_mm_for_euclid_dist_if_necessary": where there are
        more than 2**24 differences.

    Raises ShapeError unless the shapes fit, ValueError for another p or mode.
    """
    p = _order("cdist", p)
    one, two = shape_of(x1), shape_of(x2)
    try:
        batch = np.broadcast_shapes(one[:-2], two[:-2])
    except ValueError:
        batch = None
    if len(one) < 2 or len(two) < 2 or one[-1] != two[-1] or batch is None:
        raise ShapeError(
            "cdist: x1 and x2 must have shapes (..., N, D) and (..., M, D), of which the first "
            f"axes broadcast; got {one} and {two}"
        )
    if compute_mode not in _MODES:
        raise ValueError(f"cdist: compute_mode must be one of {[*_MODES]}, got {compute_mode!r}")
    if p == 2 and _MODES[compute_mode](math.prod((*batch, one[-2], two[-2], one[-1]))):
        lengths = total(square(x1), axis=-1, keepdims=True)
        others = expand_dims(total(square(x2), axis=-1), -2)
        squares = maximum(lengths + others - 2.0 * (x1 @ x2.mT), 0.0)
        apart = squares > 0
        return where(apart, sqrt(where(apart, squares, 1.0)), 0.0)
    return _length(expand_dims(x1, -2) - expand_dims(x2, -3), p)


@loss_in_float32
def pdist(input: Any, p: float = 2.0) -> Tensor:
    """The distances ``norm(input[i] - input[j], p)`` of all pairs i < j, row by row.

    input: vectors, shape (N, D); the result has shape (N * (N - 1) / 2,). The gradient is 0 where
    a distance is. p: from 0 to infinity.
    Raises ShapeError for another shape, ValueError for another p.
    """
    p = _order("pdist", p)
    shape = shape_of(input)
    if len(shape) != 2:
        raise ShapeError(f"pdist: the input must have shape (N, D); got {shape}")
    first, second = np.triu_indices(shape[0], 1)
    return _length(input[first] - input[second], p)
