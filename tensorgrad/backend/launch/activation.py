"""Activation functions: kernels/activation.cu."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    THREADS,
    Plan,
    blocks_for,
    contiguous,
    fits,
    per_pack,
    planned,
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


@planned
def _plan(xp: Any, kernel: str, size: int, dtype: np.dtype[Any]) -> Plan:
    """The plan for so many elements; its argument is the parameter of functions that have none."""
    grid = (blocks_for(size, per_pack(dtype)),)
    function = kernels.get(xp, "activation", kernel, dtype)
    return function, grid, (THREADS,), (arithmetic(dtype).type(0.0),)


def _value(name: str) -> Callable[..., Any]:
    kernel = f"{name}_forward"

    def launcher(xp: Any, x: Array, **options: Any) -> Any:
        if not fits(xp, x):
            return NotImplemented
        x = contiguous(xp, x)
        y = xp.empty(x.shape, x.dtype)
        if x.size:
            function, grid, block, (scalar,) = _plan(xp, kernel, x.size, x.dtype)
            if options:
                scalar = parameter(name, options, x.dtype)
            function(grid, block, (x, y, scalar, x.size))
        return y

    return launcher


def _gradient(name: str) -> Callable[..., Any]:
    kernel = f"{name}_backward"

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
            function, grid, block, (scalar,) = _plan(xp, kernel, g.size, g.dtype)
            if options:
                scalar = parameter(name, options, g.dtype)
            function(grid, block, (g, saved, d, scalar, g.size))
        return (d,)

    return launcher


for _name in ACTIVATIONS:
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradient(_name)
