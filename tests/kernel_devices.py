"""For the tests of kernels: tensors on the device under test, and comparison within rounding."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

import tensorgrad as tg

FLOATS = ("float16", "bfloat16", "float32", "float64")
#: rounding of one number, relative
EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23, "float64": 2.0**-52}


class Cuda:
    """The device "cuda", and the kernels that were launched on it, counted by name."""

    def __init__(self, xp: Any, real: bool) -> None:
        self.xp = xp
        self.real = real
        self.launched: Counter[str] = Counter()

    def tensor(self, array: Any, dtype: str = "float32", offset: int = 0, **kw: Any) -> tg.Tensor:
        """A tensor on the device. With ``offset``, it begins so many elements behind an address
        that is a multiple of 256."""
        host = np.asarray(array)
        room = tg.zeros(host.size + offset, dtype=getattr(tg, dtype), device="cuda")
        room.data[offset:] = tg.tensor(
            host.reshape(-1), dtype=getattr(tg, dtype), device="cuda"
        ).data
        found = tg.Tensor(room.data[offset:].reshape(host.shape), copy=False)
        found.requires_grad = bool(kw.get("requires_grad", False))
        return found


def as_float64(x: Any) -> np.ndarray[Any, Any]:
    """A tensor's numbers in float64 on the host."""
    found: np.ndarray[Any, Any] = x.detach().cpu().numpy().astype(np.float64)
    return found


def assert_close(
    found: Any, expected: Any, dtype: str, *, rounding: float = 4.0, scale: float | None = None
) -> None:
    """``found`` is ``expected`` but for some roundings in ``dtype``.

    rounding: how many units of rounding, relative to each element or to ``scale``, if that is
        larger (what the terms of a sum amount to).
    """
    found, expected = as_float64(found), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    size = np.abs(expected) if scale is None else np.maximum(np.abs(expected), scale)
    # The kernels are compiled with -ftz=true: what is below 2**-126 in float32 counts as zero, and
    # bfloat16 is computed in float32.
    tiny = {"float16": 2.0**-24, "float64": 1e-38}.get(dtype, 2.0**-126)
    with np.errstate(invalid="ignore"):
        off = np.abs(found - expected) - (rounding * EPSILON[dtype] * size + tiny)
    wrong = ~((off <= 0) | (found == expected) | (np.isnan(found) & np.isnan(expected)))
    if wrong.any():
        place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements are off, first at {place}: "
            f"{found[place]!r}, expected {expected[place]!r}"
        )
