"""What all launchers share: their registry, checks of their arguments, the size of a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
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
#: Launchers of values that do more than launch: allocate through CuPy, and queue kernels, CuPy's
#: elementwise functions and products. So no stream can be captured meanwhile; and why that is.
BETWEEN: dict[str, str] = {}

#: Threads of a block, where nothing speaks for another number.
THREADS = 256
#: Blocks of a grid at most; a kernel steps through what is more than they hold. 2**26 elements of
#: float32, 16 bytes to a thread, just fit.
MOST_BLOCKS = 1 << 16


def forward(name: str, between: str = "") -> Callable[[Launcher], Launcher]:
    """Enter the decorated function as the launcher of the value of the row with this kernel.

    between: why programs call it between their graphs, where they have to; see BETWEEN.
    """
    if between:
        BETWEEN[name] = between
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


#: A kernel, and what it is called with for arrays of one shape and dtype: its grid and block, and
#: the arguments that are no arrays.
Plan = tuple[Any, tuple[int, ...], tuple[int, ...], tuple[Any, ...]]

_PLANNED: list[Any] = []


def planned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the plans that ``function(xp, *what decides)`` makes."""
    kept = lru_cache(maxsize=1024)(function)
    _PLANNED.append(kept)
    return kept


@planned
def newer_than_turing(xp: Any, device: int) -> bool:
    """Whether a device has tensor cores for bfloat16."""
    return int(xp.cuda.Device(device).compute_capability) >= 80


def forget_plans() -> None:
    """Let go of all plans: the kernels, or what decides about grids, are others from now on."""
    for kept in _PLANNED:
        kept.cache_clear()


def fits(xp: Any, *arrays: Array) -> bool:
    """Whether all are arrays of one floating dtype that the kernels are compiled for."""
    kind, dtype = xp.ndarray, None
    for a in arrays:
        if type(a) is not kind or (dtype is not None and a.dtype != dtype):
            return False
        dtype = a.dtype
    return dtype in FLOATS


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
