"""Which hand-written kernels were launched in this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tensorgrad.backend import kernels
from tensorgrad.backend.launch import common

_names: set[str] = set()


def note() -> None:
    """Note every launch from here on as "family/kernel dtype"."""
    before: Callable[..., Any] = kernels.get

    @wraps(before)
    def get(xp: Any, family: str, name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
        kernel = before(xp, family, name, dtype)
        label = f"{family}/{name} {dtype}"

        def call(*args: Any, **kwargs: Any) -> None:
            _names.add(label)
            kernel(*args, **kwargs)

        return call

    kernels.get = get  # type: ignore[assignment]
    common.forget_plans()


def taken() -> list[str]:
    """The names since this was asked last."""
    found = sorted(_names)
    _names.clear()
    return found
