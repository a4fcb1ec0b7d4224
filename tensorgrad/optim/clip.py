"""Clipping gradients between ``backward()`` and ``step()``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tensorgrad.dtypes import HALVES, float32
from tensorgrad.errors import GradientError
from tensorgrad.ops.sums import length, total
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.sparse import in_memory
from tensorgrad.tape import Primitive, apply
from tensorgrad.tensor import Tensor


def _total_norm_value(xp: Any, *grads: Any, norm_type: float) -> Any:
    # In 16 bits the sum of the squares would soon be infinite.
    grads = tuple([g.astype(float32) if g.dtype in HALVES else g for g in grads if g.size])
    if not grads:
        return xp.zeros((), float32)
    if norm_type == math.inf:
        return xp.stack([xp.abs(g).max() for g in grads]).max()
    if norm_type == 2:
        return length(xp, *grads)
    top = xp.stack([xp.abs(g).max() for g in grads]).max()
    top = xp.where((top > 0) & xp.isfinite(top), top, top.dtype.type(1))
    # Powers of parts of the largest are in the range of the numbers.
    powers = sum(total(xp, (xp.abs(g) / top) ** norm_type) for g in grads)
    return top * powers ** (1.0 / norm_type)


_TOTAL_NORM = Primitive("total_norm", _total_norm_value, {"*grads": None}, kernel="total_norm")


def _scale_value(xp: Any, norm: Any, *grads: Any, max_norm: float) -> Any:
    factor = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    for g in grads:
        xp.multiply(g, factor, out=g)
    return grads[0]


_SCALE = Primitive(
    "clip_grad_norm_",
    _scale_value,
    {"norm": None, "*grads": None},
    mutates=lambda count: range(1, count),
    kernel="clip_grad_norm_",
)


def _limit_value(xp: Any, *grads: Any, clip_value: float) -> Any:
    for g in grads:
        xp.clip(g, -clip_value, clip_value, out=g)
    return grads[0]


_LIMIT = Primitive(
    "clip_grad_value_", _limit_value, {"*grads": None}, mutates=range, kernel="clip_grad_value_"
)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    return in_memory([p.grad for p in parameters if p.grad is not None])


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their common norm is at most ``max_norm``.

    The norm is that of all gradients taken as one vector; each is multiplied in place by
    ``min(1, max_norm / (norm + 1e-6))`` (Pascanu, Mikolov and Bengio, 2013).

    parameters: tensors; those without a gradient are passed over.
    norm_type: p of the p-norm; ``math.inf`` for the largest magnitude.
    error_if_nonfinite: raise an error if the norm is NaN or infinite, and change nothing.

    Returns the norm before clipping, a 0-d tensor, float32 for 16-bit gradients.
    Raises ValueError for a negative ``max_norm`` or a ``norm_type`` not above 0; GradientError as
    said above.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be a number >= 0, got {max_norm!r}")
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive, got {norm_type!r}")
    grads = _gradients(parameters)
    if not grads:
        return Tensor(0.0)
    norm: Tensor = apply(_TOTAL_NORM, grads, {"norm_type": float(norm_type)}).detach()
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise GradientError(
            f"clip_grad_norm_: the norm of the gradients is {norm.item()}, so they cannot be "
            "scaled; tg.autograd.detect_anomaly() finds where it came from"
        )
    apply(_SCALE, (norm, *grads), {"max_norm": float(max_norm)})
    return norm


def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """``clip_grad_norm_`` of all that ``optimizer`` updates."""
    clip_grad_norm_(optimizer._all_params(), max_norm)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place.

    Raises ValueError for a negative ``clip_value``.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be >= 0, got {clip_value!r}")
    grads = _gradients(parameters)
    if grads:
        apply(_LIMIT, grads, {"clip_value": float(clip_value)})
