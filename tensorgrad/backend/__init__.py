"""The device switch: what the operations need from a device, and how a device is named.

A backend is a handful of functions: make an array, bring it here or there, run a primitive, wait.
Everything above it is the same for NumPy arrays on the CPU and CuPy arrays on a GPU.
"""

from __future__ import annotations

import os
from typing import Any

from tensorgrad.backend.base import Array, Backend
from tensorgrad.backend.cpu import CPU
from tensorgrad.errors import DeviceError

__all__ = [
    "cuda_is_available",
    "default_device",
    "get_float32_matmul_precision",
    "set_default_device",
    "set_float32_matmul_precision",
]

#: Array type -> backend. The CUDA backend enters itself when it is first used.
BACKENDS: dict[type, Backend] = {CPU.array_type: CPU}

_default: str | None = None
# TENSORGRAD_DEVICE, as the dict behind os.environ has it.
_VARIABLE = os.environ.encodekey("TENSORGRAD_DEVICE")


def of(array: Array) -> Backend:
    """The backend an array belongs to.

    Raises TypeError for what is no array, as the ``data`` of a tensor to which a tensor was
    assigned.
    """
    try:
        return BACKENDS[type(array)]
    except KeyError:
        raise TypeError(
            f"the data of a tensor is an array, and not a {type(array).__name__}; write x.copy_(y) "
            "under tg.no_grad() to overwrite the values of x, or x.data = y.data"
        ) from None


def is_array(obj: Any) -> bool:
    """Whether ``obj`` is an array of a backend in use (a NumPy or a CuPy array)."""
    return type(obj) in BACKENDS


def cuda_backend() -> Backend:
    """The CUDA backend, imported on first use.

    Raises DeviceError, naming what is missing and the command that installs it.
    """
    from tensorgrad.backend.cuda import load

    backend = load()
    BACKENDS[backend.array_type] = backend
    return backend


def cuda_is_available() -> bool:
    """Whether CuPy is installed and a tiny launch on the GPU works; the answer is cached."""
    from tensorgrad.backend.cuda import problem

    return problem() is None


def normalize(device: str | None) -> str:
    """``device`` in full: "cpu" or "cuda:N".

    ``None`` means the default device, "auto" the GPU if one works and else the CPU.
    Raises DeviceError for an unknown name, or for a GPU that is not there.
    """
    if device is None:
        device = default_device()
    if device == "cpu":
        return device
    if device == "auto":
        return cuda_backend().current_device() if cuda_is_available() else "cpu"
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or (number and not number.isdigit()) or str(device).endswith(":"):
        raise DeviceError(
            f'unknown device {device!r}; write "cpu", "cuda", "cuda:1" (a GPU by number) or "auto"'
        )
    backend = cuda_backend()
    if not number:
        return backend.current_device()
    backend.check_device(int(number))
    return f"cuda:{int(number)}"


def default_device() -> str:
    """The device of new tensors: set_default_device, else TENSORGRAD_DEVICE, else "cpu"."""
    if _default is not None:
        return _default
    # The dict that os.environ looks names up in: to be told by itself that a name is missing takes
    # a microsecond, and every tensor that is made asks.
    if _VARIABLE not in getattr(os.environ, "_data", (_VARIABLE,)):
        return "cpu"
    return normalize(os.environ.get("TENSORGRAD_DEVICE") or "cpu")


def set_default_device(device: str | None) -> None:
    """Make ``device`` the device of new tensors in this process; ``None`` undoes it.

    Raises DeviceError if the device is not there.
    """
    global _default
    _default = None if device is None else normalize(device)


def backend_for(device: str) -> Backend:
    """The backend of a device name as ``normalize`` returns it."""
    return CPU if device == "cpu" else cuda_backend()


def set_float32_matmul_precision(precision: str) -> None:
    """Say how exact matrix products of float32 are on a GPU.

    precision: "highest" for float32 throughout, the default; "high" lets the tensor cores round the
        factors to TF32, with 10 bits of fraction in place of 23, which is several times as fast.

    The setting is CuPy's, for the whole process and for products of two matrices; CUPY_TF32=1 in
    the environment makes "high" the default.

    Raises ValueError for another word, DeviceError where there is no GPU or it has no TF32.
    """
    if precision not in ("highest", "high"):
        raise ValueError(f'precision must be "highest" or "high", got {precision!r}')
    if precision == "high" or cuda_is_available():  # without a GPU it is "highest" anyway
        cuda_backend().tf32 = precision == "high"


def get_float32_matmul_precision() -> str:
    """How exact matrix products of float32 are on a GPU: "highest" or "high"."""
    return "high" if cuda_is_available() and cuda_backend().tf32 else "highest"


def copied(array: Array) -> Array:
    """A copy of ``array``, on the same device, with its axes in the same order in memory."""
    place = of(array)
    with place.at(place.device_of(array)):
        return array.copy("K")
