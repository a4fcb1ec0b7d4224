"""Numbers between two ends, which may be tensors, and copies, in NumPy's form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.ops.creation import eye
from tensorgrad.ops.elementwise import abs as size_of
from tensorgrad.ops.elementwise import exp, floor, log, pow, sign
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.numpy_forms import as_array, at_hand, inexact, integer
from tensorgrad.ops.shaping import broadcast_arrays, concat, expand_dims, moveaxis, shape_of
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["copy", "geomspace", "identity", "logspace"]


def copy(a: Any) -> Tensor:
    """``a`` in memory of its own; gradients flow through."""
    a = as_array(a)
    return a.clone() if hasattr(a, "node") else a.copy()


def identity(n: int, dtype: Any = None) -> Tensor:
    """A square matrix with ones on its diagonal and zeros elsewhere."""
    return eye(n, dtype=dtype)


def between(name: str, start: Any, stop: Any, num: int, endpoint: bool) -> tuple[Any, float]:
    """Equally spaced numbers along a new first axis, and the part of the way that a step is."""
    start, stop = broadcast_arrays(*inexact(start, stop))
    count = integer(name, "num", num)
    if count < 0:
        raise ValueError(f"{name}: num must not be negative; got {count}")
    steps = count - 1 if endpoint else count
    first, last = expand_dims(start, 0), expand_dims(stop, 0)
    number = np.arange(count).reshape((-1,) + (1,) * len(shape_of(start)))
    y = first + beside(start, number) * ((last - first) / max(steps, 1))
    if endpoint and count > 1:  # the last one is exactly the end
        y = concat([y[:-1], last], axis=0)
    return y, 1.0 / steps if steps > 0 else math.nan


def _finished(y: Any, dtype: Any, axis: int) -> Any:
    if dtype is not None:
        wanted = dtypes.as_dtype(dtype)
        y = cast(floor(y) if wanted in dtypes.INTEGERS else y, wanted)
    return moveaxis(y, 0, axis) if axis else y


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False,
    dtype: Any = None, axis: int = 0, *, device: Any = None,
) -> Any:  # fmt: skip
    """``np.linspace`` of tensors, to which gradients flow; numbers lie along a new ``axis``."""
    y, step = between("linspace", start, stop, num, endpoint)
    y = _finished(y, dtype, axis)
    return (y, (as_array(stop) - start) * step) if retstep else y


def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0,
    dtype: Any = None, axis: int = 0,
) -> Tensor:  # fmt: skip
    """Powers of ``base`` whose exponents are equally spaced from ``start`` to ``stop``."""
    base, start, stop = inexact(base, start, stop)
    y, _ = between("logspace", start, stop, num, endpoint)
    return _finished(pow(base, y), dtype, axis)


def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Tensor:
    """Numbers from ``start`` to ``stop``, each the same multiple of the last.

    Those between real ends of different signs are NaN; complex ones lie on a spiral. Raises
    ValueError for an end that is 0, but not while a program is recorded.
    """
    start, stop = broadcast_arrays(*inexact(start, stop))
    for name, end in (("start", start), ("stop", stop)):
        numbers = at_hand(end)
        if numbers is not None and not numbers.all():
            raise ValueError(f"geomspace: {name} must not be 0, of which all multiples are 0")
    kind = dtypes.promote([start.dtype, stop.dtype])
    if dtype is not None and dtypes.as_dtype(dtype) in dtypes.COMPLEX:
        kind = dtypes.complex_of(kind)
    start, stop = cast(start, kind), cast(stop, kind)
    # Turned so that the first one is real and positive: the logarithms then go the short way round.
    turn = start / size_of(start) if kind in dtypes.COMPLEX else sign(start)
    y, _ = between("geomspace", log(size_of(start)), log(stop / turn), num, endpoint)
    y = turn * exp(y)
    count = shape_of(y)[0]
    if count:  # the ends are exactly those given
        last = endpoint and count > 1
        parts = [expand_dims(start, 0), y[1 : count - last]]
        y = concat([*parts, expand_dims(stop, 0)] if last else parts, axis=0)
    return _finished(y, dtype, axis)
