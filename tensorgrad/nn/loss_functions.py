"""Losses that consist of operations: of numbers, of classes with a margin, of distributions.

They have derivatives of any order, run on every device and become a loop in a compiled step. Names
and defaults are PyTorch's. The cross-entropies are rows of the table (``ops/losses.py``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.dtypes import INTEGERS, WIDE_FLOATS
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.activations import relu, softplus
from tensorgrad.ops.creation import asarray, zeros
from tensorgrad.ops.elementwise import abs as absolute
from tensorgrad.ops.elementwise import (
    clip,
    equal,
    exp,
    log,
    maximum,
    sigmoid,
    square,
    weighted,
    where,
)
from tensorgrad.ops.indexing import one_hot, scatter_add
from tensorgrad.ops.losses import (
    REDUCTIONS,
    above_zero,
    binary_cross_entropy_with_logits,
    by_weight,
    paired,
    reduced,
)
from tensorgrad.ops.numbers import number
from tensorgrad.ops.precision import loss_in_float32
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.scans import cumulative_prod
from tensorgrad.ops.shaping import expand_dims, reshape, shape_of
from tensorgrad.tensor import Tensor

__all__ = [
    "gaussian_nll_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "poisson_nll_loss", "sigmoid_focal_loss", "smooth_l1_loss", "soft_margin_loss",
]  # fmt: skip


@loss_in_float32
def mse_loss(input: Any, target: Any, reduction: str = "mean", *, weight: Any = None) -> Tensor:
    """The squared error of ``input`` (outputs o) and ``target`` (t), tensors of one shape.

    reduction, for N examples along axis 0 and c outputs each:
        "mean"           sum (t - o)**2 / (c N)     PyTorch's default
        "sum"            sum (t - o)**2
        "none"           each (t - o)**2, in the shape of the input
        "half_sum"       sum (t - o)**2 / 2         whose derivative by o is o - t
        "half_mean"      sum (t - o)**2 / (2 N)     the empirical risk of the former
        "half_mean_all"  sum (t - o)**2 / (2 c N)
    weight: of each element, in the shape of the input; the "mean" is over elements by their weight,
        the lectures' reductions are without weights.

    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("mse_loss", input, target)
    each = square(input - target)
    if weight is not None:
        return _weighted_mean("mse_loss", each, weight, reduction)
    if reduction == "half_sum":
        return total(each) * 0.5
    if reduction == "half_mean_all":
        return mean(each) * 0.5
    if reduction == "half_mean":
        n = shape_of(each)[0] if shape_of(each) else 1
        return total(each) * (0.5 / n)
    if reduction not in REDUCTIONS:
        raise ValueError(
            'mse_loss: reduction must be "mean", "sum", "none", "half_sum", "half_mean" or '
            f'"half_mean_all", got {reduction!r}'
        )
    return reduced("mse_loss", each, reduction)


def _weighted_mean(name: str, each: Tensor, weight: Any, reduction: str) -> Tensor:
    """``each`` times ``weight``, of its shape; the mean is over elements by their weight."""
    if not hasattr(weight, "node"):
        weight = asarray(weight, dtype=each.dtype, device=each.device)
    if weight.shape != each.shape:
        raise ShapeError(f"{name}: weight must have shape {each.shape}; got {weight.shape}")
    each = weighted(each, weight)
    if reduction == "mean":
        return total(each) / total(weight)
    return reduced(name, each, reduction)


@loss_in_float32
def l1_loss(input: Any, target: Any, reduction: str = "mean", *, weight: Any = None) -> Tensor:
    """The absolute error ``|input - target|`` of tensors of one shape.

    reduction: "mean" or "sum" over all elements, or "none". At 0 the gradient is 0.
    weight: as in ``mse_loss``.
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("l1_loss", input, target)
    each = absolute(input - target)
    if weight is not None:
        return _weighted_mean("l1_loss", each, weight, reduction)
    return reduced("l1_loss", each, reduction)


@loss_in_float32
def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """Squares up to ``delta``, straight lines beyond (Huber, 1964).

    With d = |input - target|: ``d**2 / 2`` where d <= delta, else ``delta * (d - delta / 2)``.
    input, target: tensors of one shape. reduction: "mean", "sum" or "none".
    weight: of each element, in a shape that broadcasts; the mean is over the number of elements.

    Raises ShapeError unless the shapes are equal, ValueError for another reduction or delta.
    """
    paired("huber_loss", input, target)
    above_zero("huber_loss", "delta", delta)
    d = absolute(input - target)
    near = clip(d, None, delta)
    each = by_weight("huber_loss", near * (d - near * 0.5), weight)
    return reduced("huber_loss", each, reduction)


@loss_in_float32
def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``huber_loss`` with ``delta=beta``, divided by beta: the slope of the lines is 1.

    Arguments and errors as there; with a beta of 0 it is ``l1_loss``.
    """
    if not hasattr(beta, "node") and beta == 0:
        return l1_loss(input, target, reduction)
    paired("smooth_l1_loss", input, target)
    above_zero("smooth_l1_loss", "beta", beta)
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
def sigmoid_focal_loss(
    input: Any, target: Any, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """The binary cross-entropy of logits, times ``(1 - p_t)**gamma``: what is hard counts more.

    p_t is the probability of the right answer. alpha: the weight of the positive class, 1 - alpha
    that of the other; negative for no weights. input, target: tensors of one shape, the target in
    [0, 1]. reduction: "mean", "sum" or "none".

    Source: Lin and others, "Focal loss for dense object detection", 2017.
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    each = binary_cross_entropy_with_logits(input, target, "none")
    wrong = sigmoid(input) * (1.0 - target) + sigmoid(-input) * target
    # A power below 1 has an infinite slope at 0, where the loss is 0.
    factor = maximum(wrong, _LEAST[each.dtype]) ** gamma
    # At infinity the factor has no slope, and the loss, which would be multiplied by it, no bound.
    factor = where(equal(absolute(input), math.inf), factor.detach(), factor)
    each = weighted(each, factor)
    if alpha >= 0:
        each = weighted(each, target * alpha + (1.0 - target) * (1 - alpha))
    return reduced("sigmoid_focal_loss", each, reduction)


_LEAST = {d: float(np.finfo(str(d)).tiny) for d in WIDE_FLOATS}


def _no_label(name: str, classes: int, error: IndexError) -> IndexError:
    """What to raise for labels that are none."""
    return IndexError(
        f"{name}: a label must lie between 0 and {classes - 1}, the number of classes being "
        f"{classes}; {error}"
    )


def _broadcasting(name: str, input: Any, target: Any) -> None:
    """Raise ShapeError unless the shapes of input and target broadcast."""
    try:
        np.broadcast_shapes(shape_of(input), shape_of(target))
    except ValueError:
        raise ShapeError(
            f"{name}: input and target must broadcast, counted from the last axis two sizes being "
            f"equal or one of them 1; got {shape_of(input)} and {shape_of(target)}"
        ) from None


@loss_in_float32
def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    reduction: str = "mean",
    *,
    weight: Any = None,
) -> Tensor:
    """The hinge of several classes: ``sum_j max(0, margin - x[y] + x[j])**p / C`` over j != y.

    input: scores, shape (N, C), or (C,). target: the right classes y, integers of shape (N,), or ()
        for one example. p: 1 or 2. reduction: "mean", "sum" or "none".
    weight: of each class, shape (C,): examples count by that of the right one.
    Source: Crammer and Singer, 2001.

    Raises ShapeError for other shapes, ValueError for another p or reduction.
    """
    name = "multi_margin_loss"
    shape, given = tuple(input.shape), tuple(target.shape)
    if len(shape) > 2 or given not in ([shape[:1]] if shape[1:] else [(), (1,)]):
        raise ShapeError(
            f"{name}: input must have shape (N, C) and target (N,), or (C,) and (); got {shape} "
            f"and {given}"
        )
    if p not in (1, 2):
        raise ValueError(f"{name}: p must be 1 or 2, got {p!r}")
    classes = shape[-1] if shape else 1
    rows = input if len(shape) == 2 else reshape(input, (1, classes))
    try:
        right = one_hot(reshape(target, (-1,)), classes, dtype=input.dtype)
    except IndexError as error:
        raise _no_label(name, classes, error) from None
    score = total(weighted(rows, right), axis=1, keepdims=True)
    hit = right > 0
    # On the edge of the margin there is no slope, as in PyTorch.
    lack = relu(where(hit, 0.0, where(hit, 0.0, rows) - score + margin))
    each = total(square(lack) if p == 2 else lack, axis=1) / classes
    if weight is not None:
        each = weighted(each, total(by_weight(name, right, weight), axis=1))
    return reduced(name, reshape(each, given), reduction)


@loss_in_float32
def multilabel_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """The hinge of several right classes: ``sum_ij max(0, 1 - x[y[i]] + x[j]) / C``.

    The sum is over all right classes y[i] and all j that are none of them.

    input: scores, shape (N, C) or (C,). target: integers of the same shape; the right classes of an
        example stand in front, and what follows the first negative number counts for nothing.
    reduction: "mean", "sum" or "none".

    Raises ShapeError unless the shapes are equal, DtypeError for labels that are not integers,
    IndexError for a label out of range (not looked for on a GPU), ValueError for another reduction.
    """
    name = "multilabel_margin_loss"
    paired(name, input, target)
    if target.dtype not in INTEGERS:
        raise DtypeError(f"{name}: target must hold labels, as integers; got {target.dtype}")
    shape = input.shape
    rows = reshape(input, (-1, shape[-1])) if len(shape) > 1 else reshape(input, (1, -1))
    labels = reshape(target, rows.shape)
    counts = cumulative_prod((labels >= 0).astype(input.dtype), axis=1)
    labels = where(counts > 0, labels, 0)
    # how often each class is named
    empty = zeros(rows.shape, dtype=input.dtype, device=input.device)
    try:
        named = scatter_add(empty, labels, counts, 1)
    except IndexError as error:
        raise _no_label(name, rows.shape[1], error) from None
    lack = relu(1.0 - expand_dims(rows, 2) + expand_dims(rows, 1))
    between = expand_dims(named, 2) * expand_dims((named == 0).astype(input.dtype), 1)
    each = total(weighted(lack, between), axis=(1, 2)) / rows.shape[1]
    return reduced(name, reshape(each, shape[:-1]), reduction)


@loss_in_float32
def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """The binary cross-entropy of logits, its mean over the classes in the last axis.

    input: logits, shape (N, C) or (C,). target: probabilities of the same shape. weight: of each
        class, in a shape that broadcasts. reduction: "mean", "sum" or "none", of the examples.

    Raises ShapeError unless the shapes fit, ValueError for another reduction.
    """
    name = "multilabel_soft_margin_loss"
    paired(name, input, target)
    if not shape_of(input):
        raise ShapeError(f"{name}: input must have an axis for the classes; got shape ()")
    each = binary_cross_entropy_with_logits(input, target, "none")
    return reduced(name, mean(by_weight(name, each, weight), axis=-1), reduction)


@loss_in_float32
def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """``log(1 + exp(-target * input))``, for targets of 1 and -1.

    input, target: tensors of one shape. reduction: "mean", "sum" or "none".
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("soft_margin_loss", input, target)
    return reduced("soft_margin_loss", softplus(-(input * target)), reduction)


@loss_in_float32
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``max(0, margin - target * (input1 - input2))``: 1 says that the first is the larger one.

    input1, input2, target: tensors of one shape. reduction: "mean", "sum" or "none".
    Raises ShapeError unless the shapes are equal, ValueError for another reduction.
    """
    paired("margin_ranking_loss", input1, input2)
    paired("margin_ranking_loss", input1, target)
    each = clip(margin - target * (input1 - input2), 0.0)
    return reduced("margin_ranking_loss", each, reduction)


@loss_in_float32
def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of counts, up to a constant: ``exp(x) - target * x``.

    input: the logarithm of the expected count; without ``log_input`` the count itself, of which it
        is ``x - target * log(x + eps)``. target: counts, in a shape that broadcasts with it.
    full: add the constant by Stirling's formula, ``t * log(t) - t + log(2 pi t) / 2`` where the
        count t is above 1. reduction: "mean", "sum" or "none".

    Raises ShapeError unless the shapes broadcast, ValueError for another reduction.
    """
    eps = number("poisson_nll_loss", "eps", eps)
    _broadcasting("poisson_nll_loss", input, target)
    slope = input if log_input else log(input + eps)
    each = (exp(input) if log_input else input) - weighted(slope, target)
    if full:
        some = target > 1
        t = where(some, target, 1.0)
        each = each + where(some, t * log(t) - t + 0.5 * log(2 * math.pi * t), 0.0)
    return reduced("poisson_nll_loss", each, reduction)


@loss_in_float32
def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of normal numbers: ``(log(var) + (x - target)**2 / var) / 2``.

    input: the expected values. target: in a shape that broadcasts with it. var: the variances, a
        number or a tensor: of the input's shape, or this without its last axis, or with one axis of
        size 1. A negative one makes NaN.
    eps: the least variance that is computed with; the gradient is as if it were the variance.
    full: add the constant, ``log(2 pi) / 2``. reduction: "mean", "sum" or "none".

    Source: Nix and Weigend, "Estimating the mean and variance of the target", 1994.
    Raises ShapeError for another shape of ``var``, ValueError for another reduction or eps.
    """
    name = "gaussian_nll_loss"
    eps = number(name, "eps", eps)
    above_zero(name, "eps", eps)
    if not hasattr(var, "node"):
        var = asarray(var, dtype=input.dtype, device=input.device)
    shape, given = tuple(input.shape), tuple(var.shape)
    if given and given != shape:
        if given == shape[:-1]:
            var = expand_dims(var, -1)
        elif len(given) != len(shape) or [n for n, m in zip(given, shape) if n != m] != [1]:
            raise ShapeError(
                f"{name}: var must have the shape of the input, {shape}, or this without its last "
                f"axis, or with one axis of size 1; got {given}"
            )
    low = (var >= 0) & (var < eps)
    var = where(low, eps + (var - var.detach()), var)
    each = 0.5 * (log(where(var < 0, math.nan, var)) + square(input - target) / var)
    if full:
        each = each + 0.5 * math.log(2 * math.pi)
    return reduced(name, each, reduction)
