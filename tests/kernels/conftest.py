"""The devices that kernels are tested on: the emulator under each schedule, and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import Cuda
from standin import cupy_standin

from tensorgrad.backend import cuda_is_available, kernels
from tensorgrad.backend.launch import common

WHERE = [pytest.param(n, id=f"schedule{n}") for n in emulator.SCHEDULES]
if cuda_is_available():
    WHERE.append(pytest.param("gpu", id="gpu", marks=pytest.mark.gpu))


@pytest.fixture(scope="module", params=WHERE)
def _cuda(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    if request.param == "gpu":
        import cupy

        yield Cuda(cupy, True)
        return
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed() as xp, emulator.scheduled(request.param):
        yield Cuda(xp, False)


@pytest.fixture
def cuda(_cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Each device that kernels can run on in turn, with nothing counted yet."""
    _cuda.launched.clear()
    before = kernels.get

    def counted(xp: Any, family: str, name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
        kernel = before(xp, family, name, dtype)

        def call(*args: Any, **kwargs: Any) -> None:
            _cuda.launched[name] += 1
            kernel(*args, **kwargs)

        return call

    monkeypatch.setattr(kernels, "get", counted)
    common.forget_plans()
    cupy_standin.MARGINS.watch()
    yield _cuda
    common.forget_plans()
    assert not cupy_standin.MARGINS.overrun(), "something was written beside arrays of these bytes"
