"""The CPU: NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend.base import Backend
from tensorgrad.errors import DeviceError


class CpuBackend(Backend):
    """NumPy arrays in the host's memory."""

    name = "cpu"
    xp = np
    array_type = np.ndarray

    def asarray(self, obj: Any, dtype: np.dtype[Any] | None, device: str, copy: bool | None) -> Any:
        if not isinstance(obj, np.ndarray) and hasattr(obj, "get") and hasattr(obj, "device"):
            obj = obj.get()  # a CuPy array: the transfer that was asked for
        return np.array(obj, dtype, copy=copy, order="K", subok=False)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        return array  # type: ignore[no-any-return]

    def device_of(self, array: Any) -> str:
        return "cpu"

    def current_device(self) -> str:
        return "cpu"

    def check_device(self, number: int) -> None:
        if number:
            raise DeviceError(f"there is one CPU device, not number {number}")

    def memory_owner(self, array: Any) -> Any:
        while type(array.base) is np.ndarray:
            array = array.base
        return array

    def synchronize(self) -> None:
        return


CPU = CpuBackend()
