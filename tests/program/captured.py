"""Programs run by hand: captured once, replayed without the guards and checks of ``compile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad import Tensor
from tensorgrad.observers import MODE, RECORDING, current_mode
from tensorgrad.program import Program
from tensorgrad.program.capture import Recorder
from tensorgrad.program.executors.cuda import CudaExecutor
from tensorgrad.program.executors.native import NativeExecutor
from tensorgrad.program.executors.numpy import NumpyExecutor
from tensorgrad.program.passes import simplified

EXECUTORS: dict[str, Callable[[Program], Any]] = {
    "numpy": NumpyExecutor,
    "native": NativeExecutor,
    "cuda": CudaExecutor,
}


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors in nested lists and tuples, in order."""
    if isinstance(result, tuple | list):
        return [t for part in result for t in tensors_in(part)]
    return [result] if isinstance(result, Tensor) else []


def recorded(function: Callable[..., Any], tensors: Sequence[Tensor]) -> Program:
    """What ``function`` does with ``tensors``; what that did to the outside is rolled back."""
    recorder = Recorder(tensors)
    token = MODE.set(current_mode()._replace(observers=(recorder,)))
    RECORDING.append(recorder)
    try:
        result = function(*tensors)
    finally:
        RECORDING.remove(recorder)
        MODE.reset(token)
    results = tensors_in(result)
    program = recorder.finish(results, results)
    recorder.roll_back()
    return program


class Captured:
    """A function as a program on one executor.

    Raises CompileError where the executor does not take the program: nothing falls back on another
    one.
    """

    def __init__(
        self, function: Callable[..., Any], tensors: Sequence[Tensor], executor: str = "native"
    ) -> None:
        self.program = simplified(recorded(function, tensors))
        self.executor = EXECUTORS[executor](self.program)
        assert self.executor.name == executor
        assert not self.executor.reason

    def __call__(self, *tensors: Tensor) -> list[Any]:
        """The arrays that a replay returns; gradients are left to ``compile``."""
        results, _ = self.executor.run([t.data for t in tensors])
        return list(results)


def assert_alike(
    found: Any,
    wanted: Any,
    about: str,
    rtol: float,
    atol: float,
    *,
    sums: bool = False,
    signs: bool = False,
) -> None:
    """Equal up to rounding; NaN, infinities, and with ``signs`` the signs of zeros, exactly.

    sums: numbers were added up, so that all may be wrong by a rounding of the largest.
    """
    found, wanted = (a.astype(a.dtype.newbyteorder("="), copy=False) for a in (found, wanted))
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), about
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=about)
        return
    if sums:
        atol = max(atol, rtol * np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, err_msg=about)
    if signs:
        zero = (found == 0) & (wanted == 0)
        np.testing.assert_array_equal(
            np.signbit(found[zero]), np.signbit(wanted[zero]), err_msg=f"{about}: sign of zero"
        )
