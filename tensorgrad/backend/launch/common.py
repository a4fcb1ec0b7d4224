"""What all launchers share: their registry, checks of their arguments, the size of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.base import Array
from tensorgrad.dtypes import FLOATS

Launcher = TypeVar("Launcher", bound=Callable[..., Any])

#: ``launcher(xp, *arrays, **attributes)`` -> the value (with its residual, if the row has one)
FORWARD: dict[str, Callable[..., Any]] = {}
#: ``launcher(xp, g, needed, **saved)`` -> a gradient for each input of the row
BACKWARD: dict[str, Callable[..., Any]] = {}

#: Threads of a block, where nothing speaks for another number.
THREADS = 256
#: Blocks of a grid at most; a kernel steps through what is more than they hold. 2**26 elements of
#: float32, 16 bytes to a thread, just fit.
MOST_BLOCKS = 1 << 16


def forward(name: str) -> Callable[[Launcher], Launcher]:
    """Enter the decorated function as the launcher of the value of the row with this kernel."""
    return _entered(FORWARD, name)


def backward(name: str) -> Callable[[Launcher], Launcher]:
    """Enter the decorated function as the launcher of the gradients of the row."""
    return _entered(BACKWARD, name)


def _entered(registry: dict[str, Callable[..., Any]], name: str) -> Callable[[Launcher], Launcher]:
    def enter(launcher: Launcher) -> Launcher:
        assert name not in registry, name
        registry[name] = launcher
        return launcher

    return enter


def fits(xp: Any, *arrays: Array) -> bool:
    """Whether all are arrays of one floating dtype that the kernels are compiled for."""
    first = arrays[0]
    if not all(isinstance(a, xp.ndarray) and a.dtype == first.dtype for a in arrays):
        return False
    return first.dtype in FLOATS


def contiguous(xp: Any, array: Array) -> Array:
    """``array``, copied to row-major order where it is not in it."""
    return array if array.flags.c_contiguous else xp.ascontiguousarray(array)


def blocks_for(n: int, per_thread: int = 1) -> int:
    """How many blocks of THREADS threads cover ``n`` elements; at least one."""
    return max(1, min(-(-n // (THREADS * per_thread)), MOST_BLOCKS))


def per_pack(dtype: np.dtype[Any]) -> int:
    """How many elements of ``dtype`` 16 bytes hold."""
    return 16 // dtype.itemsize


def launch(
    xp: Any,
    family: str,
    name: str,
    dtype: np.dtype[Any],
    grid: tuple[int, ...],
    *args: Any,
    block: tuple[int, ...] = (THREADS,),
) -> None:
    """Queue a kernel on the current stream.

    args: arrays; Python integers, which arrive as 64-bit ones; and real numbers as NumPy scalars
        of ``kernels.arithmetic(dtype)``.
    """
    kernels.get(xp, family, name, dtype)(grid, block, args)
