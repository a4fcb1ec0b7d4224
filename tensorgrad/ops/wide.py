"""How the special functions are computed: in float64, by cases, with polynomials.

A special function is written once, of float64 arrays and with one of the three array namespaces
(see ``backend.namespace``): there is no other code for narrower floats, CUDA or programs. A float32
number is converted, and the result rounded once, so of float32 all are right to 0.51 ulp where
the error in float64 is below 1e6 ulp.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.dtypes import FLOATS, float32, float64
from tensorgrad.ops.numbers import constant

__all__ = ["by_cases", "in_float64", "polynomial", "sine_of_pi"]

#: Elements per pass, so that what is made on the way stays in cache.
CHUNK = 8192
Value = Callable[..., Any]


def in_float64(function: Value) -> Value:
    """The value function of a row whose ``function`` is of float64 arrays of one shape.

    On NumPy it is given parts of the flattened arrays, and raises no floating-point flag. Elsewhere
    it is given whole arrays, which broadcast.
    """

    @functools.wraps(function)
    def value(xp: Any, *inputs: Any, **attrs: Any) -> Any:
        dtype = next(x.dtype for x in inputs if getattr(x, "dtype", None) in FLOATS)
        if xp is np:
            return _in_parts(function, inputs, attrs, dtype)
        wide = [xp.asarray(x).astype(float64, copy=False) for x in inputs]
        return function(xp, *wide, **attrs).astype(dtype, copy=False)

    return value


def _in_parts(function: Value, inputs: Sequence[Any], attrs: Any, dtype: Any) -> Any:
    arrays = [np.asarray(x) for x in inputs]
    if len(arrays) > 1:
        arrays = list(np.broadcast_arrays(*arrays))
    flat = [x.reshape(-1) for x in arrays]
    out = np.empty(flat[0].size, dtype)
    with np.errstate(all="ignore"):
        for start in range(0, out.size, CHUNK):
            part = slice(start, start + CHUNK)
            wide = [x[part].astype(float64, copy=False) for x in flat]
            out[part] = function(np, *wide, **attrs)
    return out.reshape(arrays[0].shape)


def by_cases(
    xp: Any, inputs: Sequence[Any], cases: Sequence[tuple[Any, Value]], otherwise: Value
) -> Any:
    """What the function of the first case whose condition holds gives, else ``otherwise``.

    The functions take ``inputs`` and nothing else that is an array. On NumPy each computes only the
    elements that are its own; elsewhere all compute all, so none may loop until something holds.
    """
    if xp is np:
        return _chosen(inputs, cases, otherwise)
    found = otherwise(*inputs)
    for condition, function in reversed(cases):
        found = xp.where(condition, function(*inputs), found)
    return found


def _chosen(inputs: Sequence[Any], cases: Sequence[tuple[Any, Value]], otherwise: Value) -> Any:
    out = np.empty(inputs[0].shape)
    left = np.ones(out.shape, bool)
    for condition, function in (*cases, (left, otherwise)):
        places = np.flatnonzero(condition & left)
        if places.size == out.size:
            return function(*inputs)
        if places.size:
            out[places] = function(*(x[places] for x in inputs))
        left = left & ~condition
    return out


def polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """The polynomial with these coefficients, lowest power first, at ``x``."""
    numbers: Sequence[Any] = coefficients
    if type(x) is np.ndarray:  # beside which a number costs more than an array
        numbers = [constant(c, float64) for c in coefficients]
    y = x * numbers[-1]
    for c in numbers[-2:0:-1]:
        y = (y + c) * x
    return y + numbers[0]


def sine_of_pi(xp: Any, x: Any) -> Any:
    """``sin(pi x)``: right to 1 ulp, as ``pi x`` is rounded only after whole numbers are left out.

    It is 0 where ``x`` is whole.
    """
    whole = xp.rint(x)
    odd = whole - 2.0 * xp.floor(whole * 0.5)
    return xp.sin((x - whole) * np.pi) * (1.0 - 2.0 * odd)


def cosine_of_pi(xp: Any, x: Any) -> Any:
    """``cos(pi x)``; see ``sine_of_pi``. It is 0 half-way between whole numbers."""
    whole = xp.rint(x)
    odd = whole - 2.0 * xp.floor(whole * 0.5)
    rest = xp.abs(x - whole)
    near = xp.where(rest > 0.25, xp.sin((0.5 - rest) * np.pi), xp.cos(rest * np.pi))
    return near * (1.0 - 2.0 * odd)


def in_two(xp: Any, x: Any) -> tuple[Any, Any]:
    """``x``, of which 24 bits come first: their square is exact in float64."""
    high = x.astype(float32).astype(float64)
    return high, x - high
