"""Numbers: what may stand for one as an option, and how ufuncs take one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tensorgrad.errors import DtypeError, GradientError
from tensorgrad.observers import current_mode


def number(function: str, name: str, value: Any, complex_too: bool = False) -> Any:
    """The option ``name`` of ``function`` as a Python number: bool, int or float.

    value: a number of Python or NumPy, or a tensor or array of one element. complex_too: it may be
        a complex one.

    Raises GradientError for a tensor that requires a gradient, as none would reach it, and
    DtypeError for what is no number.
    """
    if type(value) in (float, int, bool):
        return value
    if hasattr(value, "node") and value.node is not None and current_mode().grad:
        raise GradientError(
            f"{function}: {name} is a plain number, which gets no gradient, but this tensor "
            f"requires one; give {name}=t.item(), or write the formula out with operations"
        )
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:
        value = value.item()
    if isinstance(value, bool | int | float) or (complex_too and isinstance(value, complex)):
        return value
    shape = getattr(value, "shape", None)
    if shape is None and hasattr(value, "__float__"):
        return float(value)  # a Fraction, a Decimal
    kind = "" if complex_too else "real "
    came = f"{type(value).__name__} {value!r}" if shape is None else f"shape {tuple(shape)}"
    raise DtypeError(f"{function}: {name} must be one {kind}number; got {came}")


@lru_cache(maxsize=1024)
def constant(value: float, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """``value`` as a 0-d NumPy array, which a ufunc takes in half the time of a Python number.

    Not for zeros: 0.0 and -0.0 would be one entry. The array is read-only, being shared.
    """
    found = np.asarray(value, dtype)
    found.flags.writeable = False
    return found
