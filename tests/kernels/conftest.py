"""The devices that kernels are tested on: the emulator under each schedule, and a GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test runs under two of the six schedules, which depend on its name: so all of them are
    tried on each kernel. ``TENSORGRAD_ALL_SCHEDULES=1`` runs every test under all."""
    if os.environ.get("TENSORGRAD_ALL_SCHEDULES", "0") != "0":
        return
    here, dropped = Path(__file__).parent, []
    for item in items:
        found = re.search(r"schedule(\d)", item.name)
        if found and here in item.path.parents:
            rest = item.nodeid.replace(found[0], "")
            if (crc32(rest.encode()) + int(found[1])) % 3:
                dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]


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
