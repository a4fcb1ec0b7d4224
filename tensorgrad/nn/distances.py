"""Losses beyond the plain ones: robust, with margins, and between distributions.

They are compositions of operations, so that they have derivatives of any order, run on every device
and become a loop in a compiled step. Names and defaults are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.nn.reduction import paired, reduced
from tensorgrad.ops.elementwise import abs as absolute
from tensorgrad.ops.elementwise import clip, exp, log, maximum, square, weighted, where
from tensorgrad.ops.indexing import one_hot
from tensorgrad.ops.precision import in_float32, loss_in_float32
from tensorgrad.ops.reductions import norm
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import normalize_axis
from tensorgrad.tape import broadcast_to
from tensorgrad.tensor import Tensor

__all__ = [
    "cosine_embedding_loss",
    "cosine_similarity",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "multi_margin_loss",
    "smooth_l1_loss",
    "triplet_margin_loss",
]


def _positive(name: str, what: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name}: {what} must be above 0, got {value!r}")


@loss_in_float32
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Squares up to ``delta``, straight lines beyond (Huber, 1964).

    With d = |input - target|: ``d**2 / 2`` where d <= delta, else ``delta * (d - delta / 2)``.
    input, target: tensors of one shape. reduction: "mean", "sum" or "none".

    Raises ShapeError unless the shapes are equal, ValueError for another reduction or delta.
    """
    paired("huber_loss", input, target)
    _positive("huber_loss", "delta", delta)
    d = absolute(input - target)
    near = clip(d, None, delta)
    return reduced("huber_loss", near * (d - near * 0.5), reduction)


@loss_in_float32
def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``huber_loss`` with ``delta=beta``, divided by beta: the slope of the lines is 1.

    Arguments and errors as there.
    """
    paired("smooth_l1_loss", input, target)
    _positive("smooth_l1_loss", "beta", beta)
    d = absolute(input - target)
    near = clip(d, None, beta)
    return reduced("smooth_l1_loss", near / beta * (d - near * 0.5), reduction)


@loss_in_float32
def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """The divergence of Kullback and Leibler: ``target * (log(target) - input)``.

    input: logarithms of probabilities. target: probabilities, or with ``log_target`` their
        logarithms; both of one shape. A probability of 0 contributes 0.
    reduction: "mean" over all elements, "batchmean" (the sum, divided by the size of axis 0: the
        divergence itself), "sum" or "none".

    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("kl_div", input, target)
    if log_target:
        some = exp(target) > 0
        y, x = where(some, target, 0.0), where(some, input, 0.0)
        each = where(some, exp(y) * (y - x), 0.0)
    else:
        some = target > 0
        entropy = where(some, target * log(where(some, target, 1.0)), 0.0)
        each = entropy - weighted(input, target)
    if reduction == "batchmean":
        return total(each) * (1.0 / max(each.shape[0] if each.shape else 1, 1))
    return reduced("kl_div", each, reduction)


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
def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """The hinge of several classes: ``sum_j max(0, margin - x[y] + x[j])**p / C`` over j != y.

    input: scores, shape (N, C). target: the right classes y, integers of shape (N,). p: 1 or 2.
    reduction: "mean", "sum" or "none". Source: Crammer and Singer, 2001.

    Raises ShapeError for other shapes, ValueError for another p or reduction.
    """
    if len(input.shape) != 2 or tuple(target.shape) != input.shape[:1]:
        raise ShapeError(
            "multi_margin_loss: input must have shape (N, C) and target (N,); got "
            f"{tuple(input.shape)} and {tuple(target.shape)}"
        )
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, got {p!r}")
    classes = input.shape[1]
    right = one_hot(target, classes, dtype=input.dtype)
    score = total(weighted(input, right), axis=1, keepdims=True)
    hit = right > 0
    lack = maximum(where(hit, 0.0, where(hit, 0.0, input) - score + margin), 0.0)
    lack = square(lack) if p == 2 else lack
    return reduced("multi_margin_loss", total(lack, axis=1) / classes, reduction)


@in_float32
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
    _positive("triplet_margin_loss", "p", p)

    def distance(x: Any, y: Any) -> Tensor:
        return norm(x - y + eps, p, axis=-1)

    far = distance(anchor, negative)
    if swap:
        other = distance(positive, negative)
        far = where(other < far, other, far)
    each = maximum(distance(anchor, positive) - far + margin, 0.0)
    return reduced("triplet_margin_loss", each, reduction)
