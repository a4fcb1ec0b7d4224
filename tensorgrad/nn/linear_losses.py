"""The cross-entropy of a linear layer, of a piece of the batch at a time."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.autograd.checkpoint import checkpoint
from tensorgrad.dtypes import FLOATS, HALVES, promote
from tensorgrad.errors import ShapeError
from tensorgrad.ops.creation import asarray, ones
from tensorgrad.ops.elementwise import equal, where
from tensorgrad.ops.indexing import take
from tensorgrad.ops.linear_algebra import linear
from tensorgrad.ops.losses import REDUCTIONS, cross_entropy
from tensorgrad.ops.precision import autocast_dtype, half_to_float32
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import concat, reshape, shape_of
from tensorgrad.tensor import Tensor

__all__ = ["linear_cross_entropy"]

#: Logits that are held at a time, unless the layer's weight has more numbers.
_LOGITS = 1 << 22


def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    rows: int | None = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``.

    The logits are computed for ``rows`` examples at a time, and once more in the backward pass,
    so that those of the whole batch are never held: with many classes they are most of the memory.

    input: shape (N, in_features) or (in_features,). linear_weight: (C, in_features), or
        (C, d1, ..., in_features) for logits (N, C, d1, ...). linear_bias: its shape without the
        last axis, or ``None``.
    target, weight, reduction, ignore_index, label_smoothing, errors: as in ``cross_entropy``.
    rows: by default so many that their logits are 2**22, or as many as ``linear_weight`` has.

    Raises ShapeError if the shapes do not fit, ValueError for rows below 1.
    """
    shape = shape_of(input)
    sizes = _check_shapes(shape, shape_of(linear_weight), linear_bias)
    if rows is not None and rows < 1:
        raise ValueError(f"linear_cross_entropy: rows must be at least 1; got {rows}")
    if not hasattr(target, "node"):
        target = asarray(target)
    flat = linear_weight, linear_bias
    if len(sizes) > 1:
        flat = (
            reshape(linear_weight, (-1, shape[-1])),
            None if linear_bias is None else reshape(linear_bias, (-1,)),
        )
    options: dict[str, Any] = {
        "weight": weight, "ignore_index": ignore_index, "label_smoothing": label_smoothing
    }  # fmt: skip

    def part(x: Any, target: Any, reduction: str) -> Tensor:
        logits = half_to_float32(linear(x, *flat))  # the sum of the parts is rounded, not each
        logits = reshape(logits, (*logits.shape[:-1], *sizes)) if len(sizes) > 1 else logits
        return cross_entropy(logits, target, reduction, **options)

    classes = math.prod(sizes)
    step = max(_LOGITS // max(classes, 1), shape[-1], 1) if rows is None else rows
    if len(shape) == 1 or shape[0] <= step or reduction not in REDUCTIONS:
        return _rounded(part(input, target, reduction), input, linear_weight, linear_bias)
    each = "none" if reduction == "none" else "sum"
    places = [slice(k, k + step) for k in range(0, shape[0], step)]
    found = [checkpoint(part, input[at], target[at], each) for at in places]
    loss: Tensor = concat(found) if each == "none" else sum(found[1:], found[0])
    if reduction == "mean" and target.dtype in FLOATS:
        loss = loss / (shape[0] * math.prod(sizes[1:]))
    elif reduction == "mean":
        count = _counted(target, weight, ignore_index, loss)
        none = equal(count, 0.0)
        loss = where(none, math.nan, loss / where(none, 1.0, count))
    return _rounded(loss, input, linear_weight, linear_bias)


def _check_shapes(
    shape: tuple[int, ...], weight: tuple[int, ...], linear_bias: Any
) -> tuple[int, ...]:
    """The sizes of the logits of an example."""
    sizes = weight[:-1]
    if len(shape) not in (1, 2) or not sizes or weight[-1] != shape[-1]:
        raise ShapeError(
            "linear_cross_entropy: input of shape (N, in_features) or (in_features,) needs a "
            f"linear_weight of shape (C, in_features); got {shape} and {weight}"
        )
    if linear_bias is not None and shape_of(linear_bias) != sizes:
        raise ShapeError(
            f"linear_cross_entropy: linear_bias must have shape {sizes}; got "
            f"{shape_of(linear_bias)}"
        )
    if len(sizes) > 1 and len(shape) == 1:
        raise ShapeError(
            f"linear_cross_entropy: linear_weight of shape {weight} needs input with a batch"
        )
    return sizes


def _counted(target: Tensor, weight: Any, ignored: int | None, like: Tensor) -> Tensor:
    """By how many labels, each with its weight, a mean is divided; of the dtype of ``like``."""
    valid = None if ignored is None else target != ignored
    if weight is None:
        counts: Any = ones(target.shape, dtype=like.dtype, device=like.device)
    else:
        if not hasattr(weight, "node"):
            weight = asarray(weight, dtype=like.dtype, device=like.device)
        counts = take(weight, target if valid is None else where(valid, target, 0), axis=0)
    return total(counts if valid is None else where(valid, counts, 0.0))


def _rounded(loss: Tensor, *given: Any) -> Tensor:
    """In what the inputs have in common; float32 inside ``autocast``."""
    common = promote([x.dtype for x in given if getattr(x, "dtype", None) in FLOATS], [])
    if common not in HALVES or autocast_dtype() is not None:
        return loss
    return loss.astype(common)
