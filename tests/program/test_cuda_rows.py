"""Every row of the table, forward and backward, as a program on the stand-in for CuPy."""

from __future__ import annotations

from ops.test_table import differentiable, every_case
from program.test_cuda import installed  # noqa: F401
from program.test_rows import check

from tensorgrad import dtypes
from tensorgrad.ops.table import Operation


@every_case(differentiable)
def test_rows(row: Operation, number: int) -> None:
    compiled = check(row, number, dtypes.float32, "auto", True, "cuda")
    if not compiled.captures:
        return  # it was refused, as on the CPU
    executor = compiled._last().executor
    assert executor.name == "cuda", executor.reason
