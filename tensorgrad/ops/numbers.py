"""Options that are numbers: what may stand for one, and that no gradient is lost in it."""

from __future__ import annotations

from typing import Any

from tensorgrad.errors import DtypeError, GradientError
from tensorgrad.observers import current_mode


def number(function: str, name: str, value: Any) -> Any:
    """The option ``name`` of ``function`` as a Python number: bool, int or float.

    value: a number of Python or NumPy, or a tensor or array of one element.

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
    if isinstance(value, bool | int | float):
        return value
    shape = getattr(value, "shape", None)
    if shape is None and hasattr(value, "__float__"):
        return float(value)  # a Fraction, a Decimal
    came = f"{type(value).__name__} {value!r}" if shape is None else f"shape {tuple(shape)}"
    raise DtypeError(f"{function}: {name} must be one real number; got {came}")
