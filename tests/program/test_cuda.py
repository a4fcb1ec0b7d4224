"""The CUDA executor, on the stand-in for CuPy and the emulator: nothing here ran on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from emulator import emulator
from ops.test_table import differentiable, every_case
from program.test_rows import check
from standin import cupy_standin

from tensorgrad import dtypes
from tensorgrad.ops.table import Operation


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed() as module:
        yield module


@every_case(differentiable)
def test_rows(row: Operation, number: int) -> None:
    compiled = check(row, number, dtypes.float32, "auto", True, "cuda")
    executor = compiled._last().executor
    assert executor.name == "cuda", executor.reason
