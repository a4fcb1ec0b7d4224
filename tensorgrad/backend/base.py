"""What a device must be able to do. The two devices are cpu.py and cuda.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import HALVES, float32

if TYPE_CHECKING:
    from tensorgrad.tape import Primitive

#: An array of a device: numpy.ndarray or cupy.ndarray, of which the latter has no types.
Array = Any

#: How a primitive computes its value: the name of a function that NumPy and CuPy share, or a
#: function called as ``value(xp, *arrays, **attributes)``.
Value = str | Callable[..., Any]


class Postponed:
    """A gradient that is the product of ``factor`` and ``weight``, and is not computed yet.

    Whoever needs the numbers calls ``array()``; a kernel that knows what comes next computes both
    at once. product: what computes it.
    """

    __slots__ = ("dtype", "factor", "product", "shape", "weight")

    def __init__(self, factor: Array, weight: Array, product: Callable[..., Array]) -> None:
        self.factor, self.weight, self.product = factor, weight, product
        self.dtype = factor.dtype
        self.shape = (*factor.shape[:-1], weight.shape[1])

    @property
    def data(self) -> Any:
        """Where the factor lies, which says on what device."""
        return self.factor.data

    @property
    def device(self) -> Any:
        """The device of the factor."""
        return self.factor.device

    def array(self) -> Array:
        """The product."""
        return self.product(self.factor, self.weight)


class Backend:
    """One kind of device. ``xp`` is its array module and ``array_type`` its array class."""

    name: str
    xp: ModuleType
    array_type: type
    #: whether there is more than one such device, so that the current one may be another
    multi_gpu: bool = False
    #: whether float32 matrix products may be less exact than float32
    tf32: bool = False
    #: whether what follows a product may be part of its launch
    epilogues: bool = False

    def bind(self, value: Value) -> Callable[..., Any]:
        """``value`` as a function of this device's arrays."""
        if isinstance(value, str):
            function: Callable[..., Any] = getattr(self.xp, value)
            return function
        return partial(value, self.xp)

    def run(self, op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """The value of the primitive ``op``: a function of arrays of this device, and options.

        With ``op.half_in_float32``, 16-bit floats are computed in float32 and the result is rounded
        once: no hardware of interest adds in 16 bits, and NumPy's own 16-bit loops are neither
        faster nor as accurate.
        """
        function = op.on(self)
        if op.half_in_float32:
            half = None
            wide = []
            for a in arrays:
                dtype = getattr(a, "dtype", None)
                if dtype in HALVES:
                    half = dtype
                    a = a.astype(float32)
                wide.append(a)
            if half is not None:
                y = function(*wide, **attrs)
                if type(y) is tuple:  # with what the rules need besides, which stays as it is
                    return y[0].astype(half), *y[1:]
                return y.astype(half) if y.dtype == float32 else y
        return function(*arrays, **attrs)

    def gradients(
        self, op: Primitive, g: Array, needed: Sequence[bool], saved: Mapping[str, Any]
    ) -> Sequence[Array] | None:
        """The gradients of all inputs of ``op`` at once, where a kernel of this device gives them.

        g: the gradient of the result. needed: for each input, whether its gradient is wanted.
        saved: what the gradient rules name. Returns one gradient per input (anything where it is
        not needed), or ``None`` where there is no such kernel, so that the rules have to be used.
        """
        return None

    def asarray(
        self, obj: Any, dtype: np.dtype[Any] | None, device: str, copy: bool | None
    ) -> Array:
        """``obj`` (host data, or an array of this backend) as an array on ``device``."""
        raise NotImplementedError

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """The array as a NumPy array; shares memory on the CPU, copies from a GPU."""
        raise NotImplementedError

    def device_of(self, array: Array) -> str:
        """The name of the device that holds ``array``: "cpu" or "cuda:N"."""
        raise NotImplementedError

    def current_device(self) -> str:
        """The device that new arrays of this backend go to."""
        raise NotImplementedError

    def check_device(self, number: int) -> None:
        """Raise DeviceError unless there is a device with this number."""
        raise NotImplementedError

    def matmul(self, a: Array, b: Array) -> Array:
        """``a @ b``, as ``matmul`` of the array API standard has it."""
        return self.xp.matmul(a, b)

    def memory_owner(self, array: Array) -> Any:
        """The object that owns the memory of ``array``: the same one for all views of it."""
        raise NotImplementedError

    def at(self, device: str) -> AbstractContextManager[Any]:
        """A context in which new arrays of this backend, and kernels, go to ``device``."""
        return nullcontext()

    def raising(self) -> AbstractContextManager[Any]:
        """A context in which matrix functions raise LinAlgError where there is no result."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""
        raise NotImplementedError
