"""Windows for signals, as NumPy has them: vectors of numbers that fall off to both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.numpy_forms import integer

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["bartlett", "blackman", "hamming", "hanning", "kaiser"]


def _made(name: str, M: int, *more: float, dtype: Any, device: str | None) -> Tensor:
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    found = getattr(np, name)(integer(name, "M", M), *more)
    return asarray(found.astype(wanted), device=device)


def bartlett(M: int, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``M`` numbers on a triangle, 0 at both ends."""
    return _made("bartlett", M, dtype=dtype, device=device)


def blackman(M: int, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``M`` numbers of the form ``0.42 - 0.5 cos(t) + 0.08 cos(2t)``, t from 0 to 2 pi."""
    return _made("blackman", M, dtype=dtype, device=device)


def hamming(M: int, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``M`` numbers of the form ``0.54 - 0.46 cos(t)``, t from 0 to 2 pi."""
    return _made("hamming", M, dtype=dtype, device=device)


def hanning(M: int, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``M`` numbers of the form ``0.5 - 0.5 cos(t)``, t from 0 to 2 pi."""
    return _made("hanning", M, dtype=dtype, device=device)


def kaiser(M: int, beta: float, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """``M`` numbers of Kaiser's window, the sharper the larger ``beta``; all 1 for 0."""
    return _made("kaiser", M, float(beta), dtype=dtype, device=device)
