"""NVIDIA GPUs: CuPy arrays. CuPy is imported here, on first use, and nowhere else."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.base import Array, Backend
from tensorgrad.dtypes import HALVES
from tensorgrad.errors import DeviceError

if TYPE_CHECKING:
    from tensorgrad.tape import Primitive

INSTALL = 'pip install "cupy-cuda13x[ctk]" (CUDA 13) or "cupy-cuda12x[ctk]" (CUDA 12)'


@cache
def problem() -> str | None:
    """Why no GPU can be used, with the remedy; ``None`` if a tiny launch on one works.

    A GPU can be present and still unusable (driver too old, no memory, wrong architecture), so
    the answer comes from a launch, not from a count of devices.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy is not installed ({error}); install it with {INSTALL}"
    if not cupy.cuda.is_available():
        return (
            "CuPy is installed but finds no NVIDIA GPU and driver; check that `nvidia-smi` lists "
            f"one, install its driver, or use the CuPy for its CUDA version: {INSTALL}"
        )
    try:
        if int((cupy.arange(2, dtype=cupy.float32) + 1).sum()) != 3:
            return "a test launch on the GPU gave a wrong result; check it with `nvidia-smi`"
    except Exception as error:  # whatever the driver or the compiler has to say is the answer
        return f"a test launch on the GPU failed: {error}; {INSTALL}"
    return None


@cache
def load() -> CudaBackend:
    """The CUDA backend. Raises DeviceError, with the remedy, if no GPU can be used."""
    reason = problem()
    if reason is not None:
        raise DeviceError(
            f'device "cuda" cannot be used: {reason}. device="cpu" always works, and '
            'device="auto" takes the GPU only where there is one'
        )
    return CudaBackend()


class CudaBackend(Backend):
    """CuPy arrays in the memory of one of the GPUs."""

    name = "cuda"

    def __init__(self) -> None:
        self.xp: Any = importlib.import_module("cupy")
        self.array_type: Any = self.xp.ndarray
        self.multi_gpu = self.xp.cuda.runtime.getDeviceCount() > 1
        self._ones: dict[tuple[int, np.dtype[Any]], Array] = {}
        #: ``current_number()`` is the number of the current device, ``make_current(n)`` changes it
        self.current_number = self.xp.cuda.runtime.getDevice
        self.make_current = self.xp.cuda.runtime.setDevice
        from tensorgrad.backend import launch  # what launches kernels is of use only here

        self._forward, self._backward = launch.FORWARD, launch.BACKWARD
        self._product, self._tf32 = launch.FORWARD["matmul"], launch.products.tf32
        #: whether the hand-written kernels are used; without them CuPy's own functions compute
        #: everything, which tells a wrong kernel from a wrong formula
        self.kernels = os.environ.get("TENSORGRAD_KERNELS", "1") != "0"
        self.epilogues = self.kernels and launch.epilogues.available(self.xp)

    def asarray(
        self, obj: Any, dtype: np.dtype[Any] | None, device: str, copy: bool | None
    ) -> Array:
        """``obj`` as an array on ``device``; see Backend."""
        here = isinstance(obj, self.array_type) and self.device_of(obj) == device
        if copy is False and not here:
            raise ValueError(f"copy=False, but the data has to be copied to be on {device}")
        with self.at(device):
            return self.xp.array(obj, dtype, copy=copy if here else True)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """The array as a NumPy array; see Backend."""
        return array.get()

    def device_of(self, array: Array) -> str:
        """The name of the device that holds ``array``."""
        return f"cuda:{array.device.id}"

    def current_device(self) -> str:
        """The device that new arrays go to."""
        return f"cuda:{self.current_number()}"

    def check_device(self, number: int) -> None:
        """Raise DeviceError unless there is a device with this number."""
        count = self.xp.cuda.runtime.getDeviceCount()
        if number >= count:
            raise DeviceError(f'"cuda:{number}" does not exist: there are {count} GPUs, from 0')

    def memory_owner(self, array: Array) -> Any:
        """What owns the memory of ``array``; see Backend."""
        # Not array.data.mem: there are no weak references to CuPy's memory objects. The base of
        # any view is the array that the memory was allocated for.
        return array if array.base is None else array.base

    def run(self, op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """The value of ``op``, by its kernel if it has one that fits; see Backend."""
        if self.multi_gpu:  # a kernel runs on the current device, wherever its arrays are
            for a in arrays:
                if type(a) is self.array_type:
                    if a.data.device_id == self.current_number():
                        break
                    with self.at(self.device_of(a)):
                        return self.compute(op, arrays, attrs)
        return self.compute(op, arrays, attrs)

    def compute(self, op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """The same where the arrays are known to be on the current device."""
        if op.kernel is not None and self.kernels:
            launcher = self._forward.get(op.kernel)
            if launcher is not None:
                y = launcher(self.xp, *arrays, **attrs)
                if y is not NotImplemented:
                    return y
        if op.half_in_float32:
            for a in arrays:
                if type(a) is self.array_type and a.dtype in HALVES:
                    return super().run(op, arrays, attrs)
        function = op.cuda
        if function is None:
            function = op.on(self)
        return function(*arrays, **attrs)

    def gradients(
        self, op: Primitive, g: Array, needed: Sequence[bool], saved: Mapping[str, Any]
    ) -> Sequence[Array] | None:
        """The gradients of all inputs by one kernel, if there is one that fits; see Backend."""
        if op.kernel is None or not self.kernels:
            return None
        launcher = self._backward.get(op.kernel)
        if launcher is None:
            return None
        found = launcher(self.xp, g, needed, **saved)
        return None if found is NotImplemented else found

    def matmul(self, a: Array, b: Array) -> Array:
        """``a @ b``; see Backend."""
        y = self._product(self.xp, a, b)
        return self.xp.matmul(a, b) if y is NotImplemented else y

    def one(self, like: Array) -> Array:
        """A shared 1 without axes, for ``like``'s dtype and device; nobody may write to it.

        Made once, and waited for then, since it is used on any stream.
        """
        key = like.data.device_id, like.dtype
        found = self._ones.get(key)
        if found is None:
            with like.device:
                found = self._ones[key] = self.xp.ones((), like.dtype)
                self.synchronize()
        return found

    @property
    def tf32(self) -> bool:
        """Whether float32 matrix products may round their factors to TF32 (10 bits).

        CuPy's own setting, one for the process: off unless set here or by CUPY_TF32=1. Setting it
        raises DeviceError if the GPU has no TF32 (before compute capability 8.0).
        """
        return self._tf32(self.xp)

    @tf32.setter
    def tf32(self, allowed: bool) -> None:
        products = importlib.import_module("cupy._core._routines_linalg")
        if allowed and int(self.xp.cuda.Device().compute_capability) < 80:
            raise DeviceError(
                "TF32 needs a GPU of compute capability 8.0 or above; the current one has "
                f'{self.xp.cuda.Device().compute_capability}. Leave the precision at "highest"'
            )
        kind = products.COMPUTE_TYPE_TF32 if allowed else products.COMPUTE_TYPE_DEFAULT
        products.set_compute_type(np.dtype(np.float32), kind)

    def at(self, device: str) -> AbstractContextManager[Any]:
        """A context in which new arrays and kernels go to ``device``."""
        context: AbstractContextManager[Any] = self.xp.cuda.Device(int(device.partition(":")[2]))
        return context

    def raising(self) -> AbstractContextManager[Any]:
        """A context in which CuPy waits for what cuSOLVER says of matrices; see Backend."""
        context: AbstractContextManager[Any] = importlib.import_module("cupyx").errstate(
            linalg="raise"
        )
        return context

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self.xp.cuda.get_current_stream().synchronize()
