"""Activation functions: kernels/activation.cu."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    blocks_for,
    contiguous,
    fits,
    launch,
    per_pack,
)

#: Rows with a kernel, and the option that is the parameter of their function.
ACTIVATIONS = {
    "sigmoid": None,
    "tanh": None,
    "relu": None,
    "leaky_relu": "negative_slope",
    "elu": "alpha",
    "gelu": None,
    "gelu_tanh": None,
    "silu": None,
    "softplus": None,
}


def parameter(name: str, options: Mapping[str, Any], dtype: Any) -> Any:
    """The parameter of an activation as its kernel takes it; 0 where it has none."""
    option = ACTIVATIONS[name]
    return arithmetic(dtype).type(0.0 if option is None else options[option])


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, x: Array, **options: Any) -> Any:
        if not fits(xp, x):
            return NotImplemented
        x = contiguous(xp, x)
        y = xp.empty(x.shape, x.dtype)
        if x.size:
            grid = (blocks_for(x.size, per_pack(x.dtype)),)
            scalar = parameter(name, options, x.dtype)
            launch(xp, "activation", f"{name}_forward", x.dtype, grid, x, y, scalar, x.size)
        return y

    return launcher


def _gradient(name: str) -> Callable[..., Any]:
    def launcher(
        xp: Any,
        g: Array,
        needed: Sequence[bool],
        *,
        x: Array = None,
        y: Array = None,
        **options: Any,
    ) -> Any:
        saved = x if y is None else y  # whichever the rule names
        if not fits(xp, g, saved):
            return NotImplemented
        g, saved = contiguous(xp, g), contiguous(xp, saved)
        d = xp.empty(g.shape, g.dtype)
        if g.size:
            grid = (blocks_for(g.size, per_pack(g.dtype)),)
            scalar = parameter(name, options, g.dtype)
            launch(
                xp, "activation", f"{name}_backward", g.dtype, grid, g, saved, d, scalar, g.size
            )  # fmt: skip
        return (d,)

    return launcher


for _name in ACTIVATIONS:
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradient(_name)
