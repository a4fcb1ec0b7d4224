"""The errors tensorgrad raises where a built-in exception would say too little.

Each one also derives from the built-in class a NumPy or PyTorch user would catch.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tensorgrad.tape import Primitive

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_COMMANDS = os.path.join(_PACKAGE, "cli", "main.py")


def user_line() -> str:
    """The line outside this package that led here: "file:12: z = log(x)".

    Where a command led here there is none, but the script that starts all commands.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code.co_filename == _COMMANDS:
            return "a line of tensorgrad itself"
        frame = frame.f_back
    name, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, number).strip()
    return f"{name}:{number}" + (f": {text}" if text else "")


class TensorgradError(Exception):
    """Base of all errors defined here."""


class ShapeError(TensorgradError, ValueError):
    """Shapes do not fit an operation. Inside a model the message ends with the module's path."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str] = []

    def add_module(self, name: str) -> None:
        """Prefix ``name`` to the path of the module in which the error arose."""
        self.path.insert(0, name)

    def __str__(self) -> str:
        return f"{self.message} [in module {'.'.join(self.path)}]" if self.path else self.message


class AxisError(ShapeError, IndexError):
    """An axis that a tensor does not have."""


class DtypeError(TensorgradError, TypeError):
    """A dtype is unsupported, or two dtypes have no common one."""


class DeviceError(TensorgradError, RuntimeError):
    """A device is missing, or arrays of different devices meet in one operation."""


class GradientError(TensorgradError, RuntimeError):
    """A backward pass is impossible: no graph, a freed graph, or an overwritten value."""


class AnomalyError(TensorgradError, ArithmeticError):
    """The first NaN or Inf, found by ``autograd.detect_anomaly``."""


class LinAlgError(TensorgradError, np.linalg.LinAlgError):
    """A matrix has no inverse, no factorization, or eigenvalues that were not found."""


class CompileError(TensorgradError, RuntimeError):
    """A function cannot become a program, or a program no longer does what the function does."""


def explained(
    op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any], error: Exception
) -> Exception:
    """The error that a user should see in place of ``error`` from NumPy or CuPy."""
    if isinstance(error, ShapeError | DtypeError | DeviceError):
        return error
    if isinstance(error, ValueError) and "read-only" in str(error):
        return ValueError(
            f"{op.name}: the memory of a tensor that is to be overwritten is read-only, since it "
            "shares that of a broadcast, mapped or protected array; overwrite x.clone() instead, "
            "or make the tensor with copy=True"
        )
    if isinstance(error, TypeError | AttributeError) and any(a is None for a in arrays):
        return DtypeError(f"{op.name}: a tensor or a number is needed; got None")
    if isinstance(error, AttributeError):
        return error
    if isinstance(error, OverflowError):
        return OverflowError(f"{op.name}: {error}; convert the tensor with .astype(...) first")
    if isinstance(error, ValueError) and "negative integer power" in str(error):
        return ValueError(
            f"{op.name}: integers to negative integer powers are not integers; make one of the two "
            "real with .astype(float) first"
        )
    shapes = [a.shape for a in arrays if hasattr(a, "shape")]
    got = " and ".join(str(s) for s in shapes)
    if isinstance(error, np.linalg.LinAlgError):
        return LinAlgError(f"{op.name}: {error}; got {got}")
    reason = ""
    if op.explain is not None:
        reason = op.explain(*shapes, **attrs)
    elif isinstance(error, ValueError) and op.promotion != "any" and len(shapes) > 1:
        reason = (
            "the shapes must broadcast: counted from the last axis, two sizes are equal or one "
            "of them is 1"
        )
    if isinstance(error, IndexError):
        return IndexError(f"{op.name}: {error}; got {got}")
    options = ", ".join(f"{k}={v!r}" for k, v in attrs.items())
    text = f"{op.name}: {reason or error}; got {got or 'no array'}"
    if options and not reason:
        text += f" with {options}"
    if isinstance(error, TypeError):
        kinds = ", ".join(str(a.dtype) for a in arrays if hasattr(a, "dtype"))
        return DtypeError(f"{text} of dtype {kinds}")
    return ShapeError(text)
