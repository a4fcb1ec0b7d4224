"""Activation functions: kernels/activation.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.backend.launch.common import (
    BACKWARD,
    FORWARD,
    blocks_for,
    contiguous,
    fits,
    launch,
    per_pack,
)


def _value(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, x: Any) -> Any:
        if not fits(xp, x):
            return NotImplemented
        x = contiguous(xp, x)
        y = xp.empty(x.shape, x.dtype)
        if x.size:
            grid = (blocks_for(x.size, per_pack(x.dtype)),)
            launch(xp, "activation", f"{name}_forward", x.dtype, grid, x, y, x.size)
        return y

    return launcher


def _gradient(name: str) -> Callable[..., Any]:
    def launcher(xp: Any, g: Any, needed: Sequence[bool], **saved: Any) -> Any:
        (value,) = saved.values()  # the argument or the result, whichever the rule names
        if not fits(xp, g, value):
            return NotImplemented
        g, value = contiguous(xp, g), contiguous(xp, value)
        d = xp.empty(g.shape, g.dtype)
        if g.size:
            grid = (blocks_for(g.size, per_pack(g.dtype)),)
            launch(xp, "activation", f"{name}_backward", g.dtype, grid, g, value, d, g.size)
        return (d,)

    return launcher


for _name in ("sigmoid", "relu"):
    FORWARD[_name] = _value(_name)
    BACKWARD[_name] = _gradient(_name)
