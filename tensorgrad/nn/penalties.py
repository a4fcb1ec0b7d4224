"""Penalties on weights, to be added to a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tensorgrad.dtypes import HALVES, promote
from tensorgrad.ops.elementwise import abs as absolute
from tensorgrad.ops.elementwise import square
from tensorgrad.ops.precision import half_to_float32
from tensorgrad.ops.reductions import sum as total
from tensorgrad.tensor import Tensor

__all__ = ["l1_penalty", "l2_penalty"]


def _penalised(name: str, parameters: Any, biases: bool) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    chosen = [p for p in parameters if biases or p.ndim > 1]
    if not chosen:
        raise ValueError(
            f"{name}: there is nothing to penalise among {len(parameters)} parameters; those of "
            "one axis are taken for biases, and count only with biases=True"
        )
    return chosen


def l1_penalty(
    parameters: Tensor | Iterable[Tensor], strength: float, biases: bool = False
) -> Tensor:
    """``strength * sum |w|`` over the weights, to be added to a loss (Tibshirani, 1996).

    parameters: tensors, as from ``model.parameters()``; those with two axes or more are weights.
    biases: penalise the others as well.

    Raises ValueError if there is nothing to penalise.
    """
    return _penalty(absolute, _penalised("l1_penalty", parameters, biases), strength)


def l2_penalty(
    parameters: Tensor | Iterable[Tensor], strength: float, biases: bool = False
) -> Tensor:
    """``strength * sum w**2`` over the weights, to be added to a loss.

    Its gradient is ``2 * strength * w``: the weight decay of ``optim.SGD(weight_decay=d)`` is that
    of strength ``d / 2``. Arguments and errors as in ``l1_penalty``.
    """
    return _penalty(square, _penalised("l2_penalty", parameters, biases), strength)


def _penalty(of: Callable[[Any], Tensor], chosen: list[Tensor], strength: float) -> Tensor:
    parts = [total(of(half_to_float32(p))) for p in chosen]
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    found = found * strength
    common = promote([p.dtype for p in chosen], [])
    return found.astype(common) if common in HALVES else found
