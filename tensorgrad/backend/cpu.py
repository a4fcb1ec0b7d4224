"""The CPU: NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend.base import Array, Backend
from tensorgrad.errors import DeviceError


class CpuBackend(Backend):
    """NumPy arrays in the host's memory."""

    name = "cpu"
    xp = np
    array_type = np.ndarray

    def asarray(
        self, obj: Any, dtype: np.dtype[Any] | None, device: str, copy: bool | None
    ) -> Array:
        """``obj`` as an array on ``device``; see Backend."""
        if not isinstance(obj, np.ndarray) and hasattr(obj, "get") and hasattr(obj, "device"):
            obj = obj.get()  # a CuPy array: the transfer that was asked for
        return np.array(obj, dtype, copy=copy, order="K", subok=False)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """The array as a NumPy array; see Backend."""
        return array

    def device_of(self, array: Array) -> str:
        """The name of the device that holds ``array``."""
        return "cpu"

    def current_device(self) -> str:
        """The device that new arrays go to."""
        return "cpu"

    def check_device(self, number: int) -> None:
        """Raise DeviceError unless there is a device with this number."""
        if number:
            raise DeviceError(f"there is one CPU device, not number {number}")

    def memory_owner(self, array: Array) -> Any:
        """What owns the memory of ``array``; see Backend."""
        while type(array.base) is np.ndarray:
            array = array.base
        return array

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        return


CPU = CpuBackend()
