"""Every row of the table, forward and backward, as a program on the stand-in for CuPy or a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulator import emulator
from ops.test_table import differentiable, every_case
from program.test_rows import alone, check
from standin import cupy_standin

from tensorgrad import dtypes
from tensorgrad.backend import cuda_is_available
from tensorgrad.ops.table import Operation

GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if cuda_is_available() else []


@pytest.fixture(scope="module", autouse=True, params=["stand-in", *GPU])
def real(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether it is a GPU."""
    if request.param == "gpu":
        yield True
        return
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed():
        yield False


@every_case(lambda row: alone(row) and differentiable(row))
def test_rows(row: Operation, number: int, real: bool) -> None:
    compiled = check(row, number, dtypes.float32, "auto", True, "cuda")
    if not compiled.captures:
        return  # it was refused, as on the CPU
    executor = compiled._last().executor
    assert executor.name == "cuda", executor.reason
    if real:  # the stand-in has no cuBLAS, without which products are no part of a graph
        assert not executor.reason, executor.reason
