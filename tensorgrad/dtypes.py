"""The element types, the default real type, and the promotion rules.

Floating point is contagious and never widens by accident: an integer tensor beside a float32
tensor gives float32 (NumPy would give float64), and a Python or NumPy *scalar* never changes the
precision of a floating tensor beside it. Complex numbers are contagious in the same way. Otherwise
the rules are those of the Python array API.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from tensorgrad.errors import DtypeError

__all__ = ["bfloat16", "bool", "complex64", "complex128", "float16", "float32", "float64"]
__all__ += ["get_default_dtype", "int8"]
__all__ += ["int16", "int32", "int64", "set_default_dtype", "uint8", "uint16", "uint32", "uint64"]

bool = np.dtype(np.bool_)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
uint16 = np.dtype(np.uint16)
uint32 = np.dtype(np.uint32)
uint64 = np.dtype(np.uint64)
float16 = np.dtype(np.float16)
bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
complex64 = np.dtype(np.complex64)
complex128 = np.dtype(np.complex128)

#: the real ones
FLOATS: frozenset[np.dtype[Any]] = frozenset({float16, bfloat16, float32, float64})
HALVES = frozenset({float16, bfloat16})
WIDE_FLOATS = frozenset({float32, float64})
INTEGERS: frozenset[np.dtype[Any]] = frozenset(
    {int8, int16, int32, int64, uint8, uint16, uint32, uint64}
)
COMPLEX: frozenset[np.dtype[Any]] = frozenset({complex64, complex128})
INEXACT = FLOATS | COMPLEX  # those that can have a gradient
WIDE = WIDE_FLOATS | COMPLEX  # those of them that NumPy computes with
ALL = INEXACT | INTEGERS | {bool}
_COMPLEX_OF: dict[np.dtype[Any], np.dtype[Any]] = {
    float16: complex64, bfloat16: complex64, float32: complex64, float64: complex128,
}  # fmt: skip
_REAL_OF: dict[np.dtype[Any], np.dtype[Any]] = {complex64: float32, complex128: float64}
_SINGLE: dict[np.dtype[Any], np.dtype[Any]] = {
    dtype: dtype for dtype in ALL
}  # NumPy makes equal dtypes that are other objects

_default = float32


def get_default_dtype() -> np.dtype[Any]:
    """The real dtype of tensors made from Python floats; float32 unless changed."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Make ``dtype`` (a floating dtype) the real dtype of tensors made from Python floats."""
    global _default
    wanted = as_dtype(dtype)
    if wanted not in FLOATS:
        raise DtypeError(f"the default dtype must be a floating one, not {wanted}")
    _default = wanted


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype that ``dtype`` (a dtype, a type, or a name such as "bfloat16") stands for.

    Raises DtypeError if tensorgrad has no such element type.
    """
    try:
        found = bfloat16 if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise DtypeError(f"{dtype!r} is not a dtype; known are {names()}") from None
    if found in _SINGLE:
        return _SINGLE[found]
    raise DtypeError(f"dtype {found} is not supported; known are {names()}")


def is_single(dtype: np.dtype[Any]) -> builtins.bool:
    """Whether this is what ``as_dtype`` gives: a dtype of tensorgrad, and the very object."""
    return _SINGLE.get(dtype) is dtype


def names() -> str:
    """The names of all supported dtypes, for messages."""
    return ", ".join(sorted(str(d) for d in ALL))


def complex_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The complex dtype whose parts hold numbers of ``dtype``; of integers the default one."""
    return dtype if dtype in COMPLEX else _COMPLEX_OF[dtype if dtype in FLOATS else _default]


def real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the parts of a complex one; any other itself."""
    return _REAL_OF.get(dtype, dtype)


def promote(dtypes: Iterable[np.dtype[Any]], scalars: Iterable[Any] = ()) -> np.dtype[Any]:
    """The common dtype of tensors with ``dtypes`` and of Python ``scalars`` beside them.

    Raises DtypeError where there is none (uint64 beside a signed integer).
    """
    common: np.dtype[Any] | None = None
    for dtype in dtypes:
        common = dtype if common is None or common == dtype else _pair(common, dtype)
    for scalar in scalars:
        kind = type(scalar)
        if kind is float and common not in INEXACT:
            common = _default
        elif kind is complex and common not in COMPLEX:
            common = complex_of(_default if common is None else common)
        elif kind is int and (common is None or common == bool):
            common = int64
        elif common is None:
            common = bool
    return _default if common is None else common


def _pair(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    if a in COMPLEX or b in COMPLEX:
        parts = [real_of(d) for d in (a, b) if d in INEXACT]
        return complex_of(parts[0] if len(parts) == 1 else _pair(*parts))
    if a in FLOATS or b in FLOATS:
        if a not in FLOATS:
            return b
        if b not in FLOATS:
            return a
        if a in HALVES and b in HALVES:
            return float32  # float16 and bfloat16: neither holds the other
        return a if a.itemsize > b.itemsize else b
    found = np.promote_types(a, b)
    if found not in ALL or found in FLOATS:
        raise DtypeError(
            f"{a} and {b} have no common integer dtype; cast one of them with .astype(...)"
        )
    return found
