"""Calls of docs/singular-points.md as PyTorch and JAX compute them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Names:
    """Functions by name: those given, or else what the first of several modules has."""

    def __init__(self, *places: Any, **own: Any) -> None:
        self._places, self._own = places, own

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        for place in self._places:
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(name)


class Found(NamedTuple):
    """A value and the gradients."""

    value: float
    gradients: list[Any]


def torch_names() -> dict[str, Any]:
    """What ``tg`` and ``F`` stand for in PyTorch."""
    import torch

    functional = torch.nn.functional
    ours = Names(
        torch,
        norm=lambda v, ord=2: torch.linalg.vector_norm(v, ord),
        std=lambda v: torch.std(v, correction=0),
        asarray=torch.tensor,
        gelu=lambda x, approximate: functional.gelu(x, approximate=approximate),
        logsumexp=lambda v: torch.logsumexp(v, 0),
        special=Names(
            torch.special,
            torch,
            k0=torch.special.modified_bessel_k0,
            k1=torch.special.modified_bessel_k1,
        ),
    )
    layers = Names(
        functional,
        cosine_similarity=lambda v, w, axis: functional.cosine_similarity(v, w, dim=axis),
        kl_div=lambda x, t, reduction: functional.kl_div(x, t, reduction=reduction),
    )
    return {"tg": ours, "F": layers}


def jax_names() -> dict[str, Any]:
    """What ``tg`` stands for in JAX."""
    import jax

    special = importlib.import_module("jax.scipy.special")
    ours = Names(
        jax.numpy,
        norm=jax.numpy.linalg.norm,
        rsqrt=jax.lax.rsqrt,
        relu=jax.nn.relu,
        gelu=lambda x, approximate: jax.nn.gelu(x, approximate=approximate == "tanh"),
        logsumexp=special.logsumexp,
        special=Names(special, jax.numpy),
    )
    return {"tg": ours}


def by_torch(function: Any, at: Sequence[Any]) -> Found | None:
    """What PyTorch gives, in float32; None if it has no such function, or no such gradient."""
    import torch

    given = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in at]
    try:
        y = function(*given)
        y.backward()
    except (AttributeError, TypeError, RuntimeError):
        return None
    return Found(float(y), [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in given])


def by_jax(function: Any, at: Sequence[Any]) -> Found | None:
    """What JAX gives, in float32; None if it has no such function, or no such gradient."""
    import jax

    given = [jax.numpy.asarray(x, dtype="float32") for x in at]
    try:
        value, gradients = jax.value_and_grad(function, tuple(range(len(at))))(*given)
    except (AttributeError, NameError, TypeError, ValueError):
        return None
    return Found(float(value), [np.asarray(g) for g in gradients])
