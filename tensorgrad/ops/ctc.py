"""Connectionist temporal classification: the loss of all alignments of labels with time steps.

The labels with a blank before, between and behind them make a row of L = 2 S + 1 states. An
alignment goes through them from left to right; it may stay, go on by one, or leave out a blank
between two labels that differ. Sums over all alignments are made in one pass forwards and one
backwards, in logarithms.
"""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.creation import arange, asarray, full, zeros
from tensorgrad.ops.elementwise import equal, exp, logaddexp, maximum, minimum, weighted, where
from tensorgrad.ops.indexing import scatter_add, take, take_along_axis
from tensorgrad.ops.losses import reduced
from tensorgrad.ops.padding import pad
from tensorgrad.ops.reductions import logsumexp
from tensorgrad.ops.scans import cumsum
from tensorgrad.ops.shaping import broadcast_to, concat, expand_dims, reshape, stack
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["ctc_loss"]

# --- the value, on arrays -------------------------------------------------------------------------


def _check(targets: Any, input_lengths: Any, target_lengths: Any, steps: int, classes: int) -> None:
    """Raise IndexError for lengths and labels that cannot be. For NumPy alone."""
    if input_lengths.size and not 0 <= input_lengths.min() <= input_lengths.max() <= steps:
        raise IndexError(
            f"input_lengths must lie between 0 and {steps}, the number of time steps; "
            f"got {input_lengths.tolist()}"
        )
    if target_lengths.min(initial=0) < 0:
        raise IndexError(f"target_lengths must not be negative; got {target_lengths}")
    joined = targets.ndim == 1
    needed = target_lengths.sum() if joined else target_lengths.max(initial=0)
    if needed > targets.shape[-1]:
        raise IndexError(
            f"target_lengths {target_lengths.tolist()} ask for {needed} labels"
            f"{' in all' if joined else ''}; targets of shape {targets.shape} have fewer"
        )
    read = targets[:needed] if joined else targets
    wrong = (read < 0) | (read >= classes)
    if not joined:
        wrong &= np.arange(read.shape[1]) < target_lengths[:, None]
    if wrong.any():
        raise IndexError(
            f"a label must lie between 0 and {classes - 1}, the number of classes being "
            f"{classes}; one is {read[wrong][0]}"
        )


def _states(xp: Any, targets: Any, target_lengths: Any, blank: int) -> Any:
    """The labels of all states, shape (N, L); blank behind the end."""
    n = len(target_lengths)
    if targets.ndim == 1:
        # The most that a row may need. To read it from a GPU would wait for that.
        width = int(target_lengths.max(initial=0)) if xp is np else targets.size
        starts = xp.cumsum(target_lengths) - target_lengths
        at = starts[:, None] + xp.arange(width)
        targets = targets[xp.minimum(at, max(targets.size - 1, 0))] if width else at
    width = targets.shape[1]
    states = xp.full((n, 2 * width + 1), blank, np.int64)
    valid = xp.arange(width) < target_lengths[:, None]
    states[:, 1::2] = xp.where(valid, targets, blank)
    return states


def _forwards(xp: Any, emitted: Any, skips: Any) -> Any:
    """Of each step and state: the logarithm of the sum over all ways there, its own step in it."""
    found = xp.full(emitted.shape, -math.inf)
    found[:1, :, :2] = emitted[:1, :, :2]
    for t in range(1, len(found)):
        before, now = found[t - 1], found[t]
        now[:, :1] = before[:, :1]
        now[:, 1:] = xp.logaddexp(before[:, 1:], before[:, :-1])
        over = xp.where(skips, before[:, :-2], -math.inf)
        now[:, 2:] = xp.logaddexp(now[:, 2:], over)
        now += emitted[t]
    return found


def _backwards(xp: Any, emitted: Any, skips: Any, ends: Any, input_lengths: Any) -> Any:
    """Of each step and state: the logarithm of the sum over all ways from there to the end."""
    found = xp.full(emitted.shape, -math.inf)
    last = xp.where(ends, 0.0, -math.inf)
    for t in range(len(found) - 1, -1, -1):
        now = found[t]
        if t + 1 < len(found):
            after = found[t + 1] + emitted[t + 1]
            now[:, -1:] = after[:, -1:]
            now[:, :-1] = xp.logaddexp(after[:, :-1], after[:, 1:])
            over = xp.where(skips, after[:, 2:], -math.inf)
            now[:, :-2] = xp.logaddexp(now[:, :-2], over)
        now[...] = xp.where((input_lengths == t + 1)[:, None], last, now)
    return found


def _ctc_value(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int
) -> Any:
    """The losses, shape (N,), and what share of the alignments is in each class at each step."""
    if isinstance(xp, Namespace):
        xp.refuse("the time steps depend on one another")
    steps, n, classes = log_probs.shape
    if xp is np:
        _check(targets, input_lengths, target_lengths, steps, classes)
    states = _states(xp, targets, target_lengths, blank)
    rows, places = xp.arange(n), xp.arange(states.shape[1])
    # Sums of many steps lose digits: float64 inside.
    emitted = log_probs.astype(np.float64)[:, rows[:, None], states]
    skips = states[:, 2:] != states[:, :-2]
    ends = (places == 2 * target_lengths[:, None]) | (places == 2 * target_lengths[:, None] - 1)
    share = _forwards(xp, emitted, skips)
    share += _backwards(xp, emitted, skips, ends, input_lengths)
    if steps:
        found = -xp.logaddexp.reduce(share[0], axis=1) if xp is np else -_log_of_sum(xp, share[0])
    else:
        found = xp.full((n,), math.inf)
    found = xp.where((input_lengths == 0) & (target_lengths == 0), 0.0, found)
    inside = xp.arange(steps)[:, None] < input_lengths
    with np.errstate(invalid="ignore"):
        share = xp.where(inside[:, :, None], xp.exp(share + found[:, None]), 0.0)
    each = xp.zeros(log_probs.shape)
    each[:, :, blank] = share[:, :, ::2].sum(axis=2)
    for k in range(
        1, states.shape[1], 2
    ):  # each row has one label in a state, so none meets itself
        each[:, rows, states[:, k]] += share[:, :, k]
    each = xp.where((inside & xp.isinf(found))[:, :, None], math.nan, each)  # it has no gradient
    return found.astype(log_probs.dtype), each.astype(log_probs.dtype)


def _log_of_sum(xp: Any, x: Any) -> Any:
    """``log(sum(exp(x)))`` along the last axis, -inf for nothing but -inf."""
    top = x.max(axis=1, keepdims=True)
    top = xp.where(top == -math.inf, 0.0, top)
    return xp.log(xp.exp(x - top).sum(axis=1)) + top[:, 0]


# --- the share as operations, for higher orders ---------------------------------------------------

#: in place of the logarithm of 0, whose differences would have no value
_LOW = -1e30


def _shifted(x: Any, by: int) -> Any:
    """The states moved on by a few places, or back."""
    if by > 0:
        return pad(x, ((0, 0), (by, 0)), constant_values=_LOW)[:, :-by]
    return pad(x, ((0, 0), (0, -by)), constant_values=_LOW)[:, -by:]


def _sums(x: Any, skips: Any, way: int) -> Any:
    """Those of a state, of its neighbour, and of the next but one where that may be skipped."""
    x = logaddexp(x, _shifted(x, way)), where(skips, _shifted(x, 2 * way), _LOW)
    return logaddexp(*x)


def _share(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int
) -> Any:
    """The second result of ``_ctc_value`` by operations."""
    steps, n, classes = log_probs.shape
    device = log_probs.device
    if len(targets.shape) == 1:  # no length is read: this may be part of a program
        size = targets.shape[0]
        starts = cumsum(target_lengths) - target_lengths
        at = expand_dims(starts, 1) + arange(size, device=device)
        targets = take(targets, minimum(at, size - 1)) if size else at
    width = targets.shape[1]
    ends, last = expand_dims(target_lengths, 1), expand_dims(input_lengths, 1) - 1
    labels = where(arange(width, device=device) < ends, targets, blank)
    gap = full((n, width, 1), blank, dtype=labels.dtype, device=device)
    states = reshape(concat([gap, expand_dims(labels, 2)], axis=2), (n, 2 * width))
    states = concat([states, full((n, 1), blank, dtype=labels.dtype, device=device)], axis=1)
    places = arange(2 * width + 1, device=device)
    emitted = maximum(take_along_axis(log_probs, expand_dims(states, 0), axis=2), _LOW)
    differs = states[:, 2:] != states[:, :-2]
    some = full((n, min(2, 2 * width + 1)), False, device=device)
    into, out = concat([some, differs], axis=1), concat([differs, some], axis=1)
    ways = [where(places < 2, emitted[0], _LOW)]
    for t in range(1, steps):
        ways.append(_sums(ways[-1], into, 1) + emitted[t])
    at_end = where(equal(places, 2 * ends) | equal(places, 2 * ends - 1), 0.0, _LOW)
    at_end = at_end.astype(log_probs.dtype)
    after = where(equal(last, steps - 1), at_end, _LOW)
    for t in range(steps - 1, -1, -1):
        ways[t] = ways[t] + after
        if t:
            after = where(equal(last, t - 1), at_end, _sums(after + emitted[t], out, -1))
    total = expand_dims(logsumexp(ways[0], axis=1), 1)
    possible = total > _LOW / 2
    total = where(possible, total, 0.0)
    found = stack([where(last >= t, exp(way - total), 0.0) for t, way in enumerate(ways)])
    places = broadcast_to(expand_dims(states, 0), found.shape)
    none = zeros((steps, n, classes), dtype=found.dtype, device=device)
    outside = expand_dims(arange(steps, device=device), 1) > reshape(last, (n,))
    counted = expand_dims(outside | reshape(possible, (n,)), 2)
    return where(counted, scatter_add(none, places, found, 2), math.nan)


_CTC: Primitive = Primitive(
    "ctc_loss",
    _ctc_value,
    {
        "log_probs": lambda g, r, log_probs, targets, input_lengths, target_lengths, blank: (
            -weighted(r, expand_dims(g, 1))
        ),
        "targets": None,
        "input_lengths": None,
        "target_lengths": None,
    },
    promotion="float",
    promoted=frozenset({0}),
    half_in_float32=True,
    residual=_share,
    fresh=True,
    autocast="float32",
)


# --- the row --------------------------------------------------------------------------------------


def _reference(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """By the definition: the sum over all sequences that become the labels."""
    rows = log_probs[:, None] if log_probs.ndim == 2 else log_probs
    given = iter(targets.reshape(-1)) if targets.ndim == 1 else None
    found, sizes = [], np.reshape(target_lengths, -1)
    for k, (t, s) in enumerate(zip(np.reshape(input_lengths, -1), sizes)):
        labels = [next(given) for _ in range(s)] if given else list(targets[k, :s])
        likely = 0.0
        for path in itertools.product(range(rows.shape[2]), repeat=int(t)):
            if [c for c, _ in itertools.groupby(path) if c != blank] == labels:
                likely += math.exp(sum(rows[i, k, c] for i, c in enumerate(path)))
        found.append(-math.log(likely) if likely else 0.0 if zero_infinity else math.inf)
    each = np.array(found)
    if reduction == "mean":
        return (each / np.maximum(sizes, 1)).mean()
    return each.sum() if reduction == "sum" else each.reshape(log_probs.shape[1:-1])


@operation(
    cases=[
        lambda s: s(s.real(4, 2, 3), s.ints(2, 2, high=2) + 1, (4, 3), (1, 2)),
        lambda s: s(s.real(5, 3), np.array([0, 0]), 5, 2, blank=2, reduction="none"),
        lambda s: s(
            s.real(3, 3, 3), np.array([1, 1, 1, 2]), np.array([3, 2, 3]), np.array([1, 2, 1]),
            reduction="sum", zero_infinity=True,
        ),
    ],
    reference=_reference,
    torch="nn.functional.ctc_loss",
    method=False,
    namespace="nn.functional",
    primitive=_CTC,
)  # fmt: skip
def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """The negative log-likelihood of labels, over all their alignments with the time steps.

    A sequence of classes, one for each step, stands for what is left of it when repetitions are
    made one and blanks are left out.

    log_probs: logarithms of probabilities, shape (T, N, C), or (T, C) for one sequence.
    targets: integers: shape (N, S), or all one after another, shape (sum of target_lengths,); for
        one sequence shape (S,).
    input_lengths, target_lengths: how many steps and labels count, N integers each.
    blank: the class that stands for no label.
    reduction: "mean" of the losses by the number of their labels (at least 1), "sum", or "none".
    zero_infinity: make 0 of the loss, and of its gradient, where no alignment is possible. There
        the loss is infinite otherwise, and the gradient NaN.

    The gradient is that by ``log_probs`` as they are; behind ``log_softmax`` it is PyTorch's too.
    Source: Graves and others, "Connectionist temporal classification", 2006.
    Raises ShapeError, DtypeError for arguments that do not fit, IndexError for lengths and labels
    out of range (not looked for on a GPU), ValueError for another blank or reduction.
    """
    if not hasattr(log_probs, "node"):
        log_probs = asarray(log_probs)
    shape, device = tuple(log_probs.shape), log_probs.device
    given = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}
    integers = []
    for name, x in given.items():
        x = x if hasattr(x, "node") else asarray(x, device=device)
        if x.dtype not in INTEGERS and x.size:
            raise DtypeError(f"ctc_loss: {name} must be integers; got {x.dtype}")
        integers.append(x.astype(np.int64))
    if len(shape) not in (2, 3):
        raise ShapeError(f"ctc_loss: log_probs must have shape (T, N, C) or (T, C); got {shape}")
    if len(shape) == 2:
        integers = [reshape(x, (1, -1) if k == 0 else (-1,)) for k, x in enumerate(integers)]
    n, classes = (shape[1], shape[2]) if len(shape) == 3 else (1, shape[1])
    labels, *lengths = integers
    if len(labels.shape) not in (1, 2) or (len(labels.shape) == 2 and labels.shape[0] != n):
        raise ShapeError(
            f"ctc_loss: targets must have shape ({n}, S) or (sum of target_lengths,); "
            f"got {labels.shape}"
        )
    for name, x in zip([*given][1:], lengths):
        if x.shape != (n,):
            raise ShapeError(f"ctc_loss: {name} must have shape ({n},); got {x.shape}")
    if not 0 <= blank < classes:
        raise ValueError(f"ctc_loss: blank must lie between 0 and {classes - 1}; got {blank!r}")
    rows = log_probs if len(shape) == 3 else expand_dims(log_probs, 1)
    each: Any = apply(_CTC, (rows, labels, *lengths), {"blank": int(blank)})
    if zero_infinity:
        each = where(equal(each, math.inf), 0.0, each)
    if reduction == "mean":
        each = each / maximum(lengths[1], 1).astype(each.dtype)
    each = reduced("ctc_loss", each, reduction)
    return reshape(each, ()) if len(shape) == 2 else each
