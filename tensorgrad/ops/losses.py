"""Losses with gradient rules of their own: the cross-entropies of classes and of probabilities."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import FLOATS, INTEGERS, int64
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.activations import log_softmax, softmax, softplus
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.elementwise import equal, keep_where, sigmoid, weighted, where
from tensorgrad.ops.fast_paths import unary_with_labels
from tensorgrad.ops.indexing import one_hot
from tensorgrad.ops.numbers import constant
from tensorgrad.ops.precision import loss_in_float32
from tensorgrad.ops.reductions import mean
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import expand_dims, moveaxis, reshape, shape_of
from tensorgrad.ops.sums import row_sums
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"]

# --- what losses share ----------------------------------------------------------------------------


def paired(name: str, input: Any, target: Any) -> None:
    """Raise ShapeError unless both have one shape."""
    if shape_of(input) != shape_of(target):
        raise ShapeError(
            f"{name}: input and target must have the same shape; got {shape_of(input)} and "
            f"{shape_of(target)}. Bring one to the other's with reshape or broadcast_to"
        )


def above_zero(name: str, what: str, value: float) -> None:
    """Raise ValueError unless an option is above 0."""
    if value <= 0:
        raise ValueError(f"{name}: {what} must be above 0, got {value!r}")


#: The reductions that every loss knows, each as the attributes of a primitive.
REDUCTIONS = {name: {"reduction": name} for name in ("mean", "sum", "none")}


def _known_reduction(name: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')


def reduced(name: str, each: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of ``each``, or itself. Raises ValueError for another reduction."""
    _known_reduction(name, reduction)
    return each if reduction == "none" else mean(each) if reduction == "mean" else total(each)


def by_weight(name: str, each: Any, weight: Any, what: str = "weight") -> Any:
    """``each`` times ``weight``, which must broadcast to it, and 0 where the weight is 0.

    Raises ShapeError for a weight of another shape. ``None`` stands for no weight.
    """
    if weight is None:
        return each
    if not hasattr(weight, "node"):
        weight = asarray(weight, dtype=each.dtype, device=each.device)
    shape, given = shape_of(each), shape_of(weight)
    padded = (1,) * (len(shape) - len(given)) + given
    if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape)):
        raise ShapeError(f"{name}: {what} must broadcast to shape {shape}; got {given}")
    return weighted(each, weight)


# --- classes --------------------------------------------------------------------------------------


def _nll_value(xp: Any, log_p: Any, labels: Any, reduction: str) -> Any:
    n, classes = log_p.shape
    if xp is np:  # reading the answer from a GPU would wait for it
        _check_labels(labels, classes)
    picked = log_p[xp.arange(n), labels]
    if reduction == "none":
        return -picked
    found = xp.add.reduce(picked)
    return -found / n if reduction == "mean" else -found


def _nll_gradient_value(
    xp: Any, g: Any, labels: Any, shape: tuple[int, int], reduction: str
) -> Any:
    n = shape[0]
    d = xp.zeros(shape, g.dtype)
    d[xp.arange(n), labels] = -g / n if reduction == "mean" else -g
    return d


def _hit(xp: Any, labels: Any, classes: int) -> Any:
    """Where each row's label is, as truth values [n, classes]: what loops have for an address."""
    xp.check_labels(labels, classes)
    return labels[:, None] == xp.arange(classes)


def _nll_loops(xp: Any, log_p: Any, labels: Any, reduction: str) -> Any:
    n, classes = log_p.shape
    picked = xp.where(_hit(xp, labels, classes), log_p, 0).sum(axis=1)
    if reduction == "none":
        return -picked
    return -picked.sum() / n if reduction == "mean" else -picked.sum()


def _nll_gradient_loops(
    xp: Any, g: Any, labels: Any, shape: tuple[int, int], reduction: str
) -> Any:
    d = -g / shape[0] if reduction == "mean" else -g
    return xp.where(_hit(xp, labels, shape[1]), d[:, None] if d.ndim else d, 0)


_UNSIGNED = {n: np.dtype(f"u{n}") for n in (1, 2, 4, 8)}


def _check_labels(labels: Any, classes: int) -> None:
    # Seen as unsigned, a negative number is a large one: one pass finds both kinds. To find where
    # the largest is takes less than to reduce to it.
    seen = labels.view(_UNSIGNED[labels.itemsize])
    if seen.size and seen.item(seen.argmax()) >= classes:
        place = int(np.argmax(seen >= classes))
        raise IndexError(
            f"a label must lie between 0 and {classes - 1}, the number of classes being "
            f"{classes}; label number {place} is {labels[place]}"
        )


# The pick is linear in log_p, so each of the two is the gradient rule of the other.
_NLL: Primitive = Primitive(
    "nll_loss",
    _nll_value,
    {
        "log_p": lambda g, labels, log_p_shape, reduction: apply(
            _NLL_GRADIENT, (g, labels), {"shape": log_p_shape, "reduction": reduction}
        ),
        "labels": None,
    },
    promotion="float",
    promoted=frozenset({0}),
    half_in_float32=True,
    loops=_nll_loops,
    autocast="float32",
)
_NLL_GRADIENT: Primitive = Primitive(
    "nll_loss_gradient",
    _nll_gradient_value,
    {
        "g": lambda g, labels, reduction: apply(_NLL, (g, labels), {"reduction": reduction}),
        "labels": None,
    },
    promotion="float",
    promoted=frozenset({0}),
    half_in_float32=True,
    loops=_nll_gradient_loops,
)


# Cross-entropy from logits. What its gradient is made of is computed on the way.


@lru_cache(maxsize=32)
def _row_starts(n: int, classes: int) -> Any:
    return np.arange(0, n * classes, classes)


def _cross_entropy_value(xp: Any, logits: Any, labels: Any, reduction: str) -> Any:
    n, classes = logits.shape
    if xp is np:
        _check_labels(labels, classes)
        # One index into the flat array is quicker than two, and finding where the largest numbers
        # are quicker than a maximum over an axis.
        starts = _row_starts(n, classes)
        z = np.ascontiguousarray(logits)
        p = z - z.take(starts + z.argmax(axis=1)).reshape(n, 1)
        places = starts + labels if labels.dtype is int64 else starts + labels.astype(int64)
        picked = p.take(places)
        np.exp(p, out=p)
        sums = row_sums(p)
        p /= sums.reshape(n, 1)
        p.put(places, p.take(places) - constant(1.0, p.dtype))
    else:
        p = logits - logits.max(axis=1, keepdims=True)
        at = xp.arange(n), labels
        picked = p[at]
        p = xp.exp(p)
        sums = p.sum(axis=1)
        p /= sums.reshape(n, 1)
        p[at] -= 1
    each = xp.log(sums) - picked
    if reduction == "none":
        return each, p
    found = row_sums(each.reshape(1, n))[0] if xp is np else xp.add.reduce(each)
    return (found / n if reduction == "mean" else found), p


def _cross_entropy_loops(xp: Any, logits: Any, labels: Any, reduction: str) -> Any:
    n, classes = logits.shape
    hit = _hit(xp, labels, classes)
    z = logits - logits.max(axis=1, keepdims=True)
    e = xp.exp(z)
    sums = e.sum(axis=1, keepdims=True)
    picked = xp.where(hit, z, 0).sum(axis=1, keepdims=True)
    if not xp.on_host:  # where nothing stops, a label that is none makes NaN, as in the kernel
        valid = (labels >= 0) & (labels < classes)
        sums = xp.where(valid[:, None], sums, math.nan)
    excess = e * (1 / sums) - hit
    each = xp.log(sums) - picked
    if reduction == "none":
        return each.reshape(n), excess
    found = each.sum()
    return (found / n if reduction == "mean" else found), excess


def _excess(logits: Any, labels: Any) -> Any:
    """What a row's probabilities have in excess of the certainty of its label."""
    return softmax(logits) - one_hot(labels, logits.shape[1], dtype=logits.dtype)


def _cross_entropy_gradient(g: Any, r: Any, logits: Any, labels: Any, reduction: str) -> Any:
    # The kernel's value leaves two numbers per row in r, for the kernel of the gradient.
    excess = r if r.ndim == 2 else _excess(logits, labels)
    if reduction == "none":
        return expand_dims(g, -1) * excess
    return (g / logits.shape[0] if reduction == "mean" else g) * excess


_CROSS_ENTROPY: Primitive = Primitive(
    "cross_entropy",
    _cross_entropy_value,
    {"logits": _cross_entropy_gradient, "labels": None},
    promotion="float",
    promoted=frozenset({0}),
    half_in_float32=True,
    residual=_excess,
    loops=_cross_entropy_loops,
    kernel="cross_entropy",
    fresh=True,
    autocast="float32",
)


_nll_of_logarithms, _cross_entropy = unary_with_labels(_NLL), unary_with_labels(_CROSS_ENTROPY)


def _reduced_array(each: Any, reduction: str) -> Any:
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def _nll_reference(input: Any, target: Any, reduction: str = "mean") -> Any:
    last = np.moveaxis(np.atleast_2d(input), 1, -1)
    each = -np.take_along_axis(last, target.reshape(*last.shape[:-1], 1), -1)
    return _reduced_array(each.reshape(target.shape), reduction)


def _cross_entropy_reference(
    input: Any,
    target: Any,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    last = np.moveaxis(np.atleast_2d(input), 1, -1)
    log_p = last - np.log(np.exp(last).sum(-1, keepdims=True))
    if target.dtype.kind == "f":
        wanted, counted = target, len(target)
    else:
        wanted = np.eye(last.shape[-1])[target] * (target != ignore_index)[..., None]
        counted = (target != ignore_index).sum()
    smooth = wanted.sum(-1, keepdims=True) / last.shape[-1]
    wanted = wanted * (1 - label_smoothing) + smooth * label_smoothing
    each = -(wanted * log_p).sum(-1)
    if reduction == "mean":
        return each.sum() / counted
    return _reduced_array(each.reshape(target.shape), reduction)


def _bce_reference(input: Any, target: Any, reduction: str = "mean") -> Any:
    each = np.logaddexp(0, input) - input * target
    return _reduced_array(each, reduction)


@operation(
    cases=[
        lambda s: s(s.real(5, 4), s.ints(5, high=4)),
        lambda s: s(s.real(5, 4), s.ints(5, high=4), reduction="sum"),
        lambda s: s(s.real(5, 4), s.ints(5, high=4), reduction="none"),
        lambda s: s(s.real(4), s.ints(high=4)),
        lambda s: s(s.real(2, 4, 3), s.ints(2, 3, high=4)),
        lambda s: s(s.real(0, 4), s.ints(0, high=4), reduction="sum"),
    ],
    reference=_nll_reference,
    torch="nn.functional.nll_loss",
    method=False,
    namespace="nn.functional",
    primitive=_NLL,
)
def nll_loss(
    input: Any,
    target: Any,
    reduction: str = "mean",
    *,
    weight: Any = None,
    ignore_index: int | None = None,
) -> Tensor:
    """The negative log-likelihood of the right classes: ``-input[i, target[i]]``.

    input: logarithms of probabilities, shape (N, C), (C,), or (N, C, d1, ...).
    target: integers from 0 to C - 1, the shape of ``input`` without the axis of the classes.
    reduction: "mean" or "sum" over all labels, giving shape (); "none" gives that of ``target``.
    weight, ignore_index: as in ``cross_entropy``.

    Raises DtypeError for labels that are not integers, ShapeError for shapes that do not fit (or
    no label to take the mean of), IndexError for a label out of range (not looked for on a GPU),
    ValueError for another reduction.
    """
    name = "nll_loss"
    if weight is None and ignore_index is None:
        return _nll(name, input, target, reduction)
    if getattr(target, "dtype", None) in FLOATS:
        raise DtypeError(f"{name}: target must hold labels, as integers; got {target.dtype}")
    return _general(name, input, target, reduction, weight, ignore_index)


@operation(
    cases=[
        lambda s: s(s.real(5, 4), s.ints(5, high=4)),
        lambda s: s(s.real(5, 4), s.ints(5, high=4), reduction="sum"),
        lambda s: s(s.real(5, 4), s.ints(5, high=4), reduction="none"),
        lambda s: s(s.real(4), s.ints(high=4)),
        lambda s: s(s.real(2, 4, 3), s.ints(2, 3, high=4), reduction="none"),
        lambda s: s(s.real(0, 4), s.ints(0, high=4), reduction="sum"),
        lambda s: s(s.real(5, 4), s.real(5, 4, low=0.0)),
        lambda s: s(s.real(2, 4, 3), s.ints(2, 3, high=4), ignore_index=1, label_smoothing=0.1),
    ],
    reference=_cross_entropy_reference,
    torch="nn.functional.cross_entropy",
    method=False,
    namespace="nn.functional",
    primitive=_CROSS_ENTROPY,
)
def cross_entropy(
    input: Any,
    target: Any,
    reduction: str = "mean",
    *,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of classes: ``nll_loss(log_softmax(input), target)``.

    input: logits, shape (N, C), (C,), or (N, C, d1, ...).
    target, reduction and errors: as in ``nll_loss``; or probabilities, in the shape of the input.
    weight: of each class, shape (C,). The mean is over labels by their weight; of probabilities it
        is over their number.
    ignore_index: a label that counts for nothing, whatever its logits are. If all labels are such
        ones, their mean is NaN and the gradient 0.
    label_smoothing: the part of each target, in [0, 1], that is spread evenly over all classes
        (Szegedy and others, 2016).

    There is no overflow at any logits; a class that is not wanted may have the logit -inf. On a GPU
    a label out of range makes its loss and its row of the gradient NaN.
    """
    name = "cross_entropy"
    plain = weight is None and ignore_index is None and not label_smoothing
    if plain and getattr(target, "dtype", None) not in FLOATS:
        return _nll(name, input, target, reduction, logits=True)
    return _general(name, input, target, reduction, weight, ignore_index, label_smoothing)


@loss_in_float32
def _general(
    name: str, input: Any, target: Any, reduction: str, weight: Any, ignored: int | None,
    smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """``cross_entropy`` or ``nll_loss`` by the distribution that is wanted, row by row."""
    if not hasattr(input, "node"):
        input = asarray(input)
    if not hasattr(target, "node"):
        target = asarray(target, device=input.device)
    if not input.shape:
        raise ShapeError(f"{name}: input must have an axis for the classes; got shape ()")
    _known_reduction(name, reduction)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must be from 0 to 1, got {smoothing!r}")
    given = input.shape
    classes = given[1] if len(given) > 1 else given[0]
    batch = given[:1] + given[2:] if len(given) > 1 else ()

    def rows(x: Tensor) -> Tensor:
        return reshape(moveaxis(x, 1, -1) if len(given) > 1 else x, (-1, classes))

    weight = _class_weights(name, weight, input, classes)
    _check_target(name, target, given, batch, ignored)
    logits, counted, valid = rows(input), None, None
    if target.dtype in FLOATS:
        wanted = rows(target)
    else:
        labels = reshape(target, (-1,))
        if ignored is not None:
            valid = labels != ignored
            labels = where(valid, labels, 0)
            logits = where(reshape(valid, (-1, 1)), logits, 0.0)
            if weight is None and not smoothing:
                compute = _nll_of_logarithms if name == "nll_loss" else _cross_entropy
                each = where(valid, compute(logits, labels, REDUCTIONS["none"]), 0.0)
                return _reduced(name, each, valid.astype(each.dtype), reduction, batch)
        wanted = one_hot(labels, classes, dtype=input.dtype)
        counted = total(wanted if weight is None else wanted * weight, axis=1)
        if valid is not None:
            counted = where(valid, counted, 0.0)
    if smoothing:
        wanted = wanted * (1.0 - smoothing) + smoothing / classes
    if weight is not None:
        wanted = wanted * weight
    log_p = logits if name == "nll_loss" else log_softmax(logits, axis=1)
    each = -total(weighted(log_p, wanted), axis=1)
    if valid is not None:
        each = where(valid, each, 0.0)
    return _reduced(name, each, counted, reduction, batch)


def _reduced(
    name: str, each: Tensor, counted: Tensor | None, reduction: str, batch: tuple[int, ...]
) -> Tensor:
    """The losses of the rows together; counted: how much each counts in a mean (None: one)."""
    if reduction == "none":
        return reshape(each, batch)
    if reduction == "sum":
        return total(each)
    if 0 in batch:
        raise ShapeError(f"{name}: the mean needs at least one label; target has shape {batch}")
    if counted is None:
        return mean(each)
    count = total(counted)
    none = equal(count, 0.0)
    return where(none, math.nan, total(each) / where(none, 1.0, count))


def _class_weights(name: str, weight: Any, input: Tensor, classes: int) -> Any:
    """``weight`` as a tensor, if there is one; raises ShapeError unless it fits."""
    if weight is None:
        return None
    if not hasattr(weight, "node"):
        weight = asarray(weight, dtype=input.dtype, device=input.device)
    if weight.shape != (classes,):
        raise ShapeError(
            f"{name}: weight must have a number for each class, shape ({classes},); got "
            f"{weight.shape}"
        )
    return weight


def _check_target(
    name: str, target: Tensor, given: tuple[int, ...], batch: tuple[int, ...], ignored: int | None
) -> None:
    """Raise an error unless a target has labels or probabilities for input of shape ``given``."""
    if target.dtype in FLOATS:
        if ignored is not None:
            raise ValueError(f"{name}: ignore_index is a label, but the target has probabilities")
        if target.shape != given:
            raise DtypeError(
                f"{name}: target must hold the numbers of the classes, as integers, or "
                f"probabilities in the shape of the input, {given}; got {target.dtype} of shape "
                f"{target.shape}. Convert labels with .astype(tg.int64)"
            )
    elif target.dtype not in INTEGERS or target.shape != batch:
        raise ShapeError(
            f"{name}: for input of shape {given}, (batch, classes, ...), target must hold "
            f"integers of shape {batch}, or probabilities of shape {given}; got {target.dtype} "
            f"of shape {target.shape}"
        )


def _nll(name: str, input: Any, target: Any, reduction: str, logits: bool = False) -> Tensor:
    if not hasattr(input, "node"):
        input = asarray(input)
    if not hasattr(target, "node"):
        target = asarray(target, device=input.device)
    shape, labels_shape = input.data.shape, target.data.shape
    if target.data.dtype not in INTEGERS:
        raise DtypeError(
            f"{name}: target must hold the numbers of the classes, as integers; got "
            f"{target.dtype} of shape {labels_shape}. Convert labels with .astype(tg.int64), "
            "and probabilities or one-hot rows with .argmax(axis=1)"
        )
    if len(shape) == 2:
        batch = shape[:1]
    elif shape:
        batch = shape[:1] + shape[2:] if len(shape) > 1 else ()
        rows = reshape(moveaxis(input, 1, -1), (-1, shape[1])) if batch else reshape(input, (1, -1))
        input, target = rows, reshape(target, (-1,))
    else:
        raise ShapeError(f"{name}: input must have an axis for the classes; got shape ()")
    if labels_shape != batch:
        raise ShapeError(
            f"{name}: for input of shape {shape}, (batch, classes, ...), target must have shape "
            f"{batch}; got {labels_shape}"
        )
    _known_reduction(name, reduction)
    if reduction == "mean" and 0 in batch:
        raise ShapeError(f"{name}: the mean needs at least one label; target has shape {batch}")
    compute = _cross_entropy if logits else _nll_of_logarithms
    loss: Tensor = compute(input, target, REDUCTIONS[reduction])
    return reshape(loss, batch) if reduction == "none" and len(shape) != 2 else loss


# --- probabilities --------------------------------------------------------------------------------


def _bce_value(xp: Any, x: Any, t: Any) -> Any:
    # Three terms none of which is negative: nothing cancels, and exp has no argument above 0.
    if xp is np and math.isfinite(np.vdot(x, x)):
        y = np.maximum(x, 0) * (1 - t)
        y += np.maximum(-x, 0) * t
    else:  # an infinite logit that is right makes no loss
        with np.errstate(invalid="ignore"):
            y = keep_where(xp, t != 1, xp.maximum(x, 0) * (1 - t))
            y += keep_where(xp, t != 0, xp.maximum(-x, 0) * t)
    y += xp.log1p(xp.exp(-xp.abs(x)))
    return y


# sigmoid(x) - t would cancel where the output is right, for t = 1.
_BCE = Primitive(
    "binary_cross_entropy_with_logits",
    _bce_value,
    {
        "x": lambda g, x, t: g * ((1.0 - t) * sigmoid(x) - t * sigmoid(-x)),
        "t": lambda g, x: -weighted(x, g),
    },
    promotion="float",
    half_in_float32=True,
    elementwise=True,
    autocast="float32",
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(3, 4, low=0.0, high=1.0)),
        lambda s: s(s.real(3, 4), s.real(3, 4, low=0.0, high=1.0), reduction="sum"),
        lambda s: s(s.real(3, 4), s.real(3, 4, low=0.0, high=1.0), reduction="none"),
        lambda s: s(s.real(), s.real(low=0.0, high=1.0)),
        lambda s: s(s.real(0, 4), s.real(0, 4), reduction="sum"),
    ],
    reference=_bce_reference,
    torch="nn.functional.binary_cross_entropy_with_logits",
    method=False,
    namespace="nn.functional",
    elementwise=False,
    primitive=_BCE,
)
@loss_in_float32
def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    reduction: str = "mean",
    *,
    weight: Any = None,
    pos_weight: Any = None,
) -> Tensor:
    """The cross-entropy of ``sigmoid(input)`` and ``target``, probabilities in [0, 1].

    ``-t * log(sigmoid(x)) - (1 - t) * log(1 - sigmoid(x))``, without overflow or cancellation in
    value and gradient.

    input, target: tensors of one shape. reduction: "mean" or "sum" over all elements, or "none".
    weight: of each element, in a shape that broadcasts; the mean is over the number of elements.
    pos_weight: of the first of the two terms, in a shape that broadcasts: above 1 where a yes is
        rare and is not to be missed.
    Raises ShapeError unless the shapes fit, ValueError for another reduction.
    """
    name = "binary_cross_entropy_with_logits"
    paired(name, input, target)
    if not hasattr(input, "node"):
        input = asarray(input)
    if pos_weight is None:
        each = apply(_BCE, (input, target))
    else:
        yes = by_weight(name, weighted(softplus(-input), target), pos_weight, "pos_weight")
        each = yes + weighted(softplus(input), 1.0 - target)
    return reduced(name, by_weight(name, each, weight), reduction)
