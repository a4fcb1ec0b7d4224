"""The special functions in programs: all of one executor in one, forward and backward.

Natively, in both types and at special numbers, they are part of test_differential.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from ops.test_table import ROWS, weighted, weights_of
from sampler import draw, host, outputs
from standin import cupy_standin

from tensorgrad import Tensor, dtypes
from tensorgrad.program import compile  # noqa: A004

SPECIAL = [row for row in ROWS if row.namespace == "special"]
#: Rows that stay calls: what they do depends on numbers, or takes too many operations.
CALLS = {"beta", "gammainc", "gammainc_slope_1", "gammaincc", "zeta"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def stand_in() -> Iterator[None]:
    if emulator.available() is not None:
        pytest.skip(str(emulator.available()))
    with cupy_standin.installed():
        yield


#: Those that are tried on the stand-in for a GPU, where the compiler takes long.
ON_CUDA = {"digamma", "erfcx", "gammaln", "log_ndtr", "polygamma", "sinc", "xlogy", "zeta"}


def step_and_inputs(device: str) -> tuple[Any, list[Tensor]]:
    """A function that gives values and gradients of all rows, and its arguments."""
    given: list[Tensor] = []
    parts = []
    for row in SPECIAL:
        if device == "cuda" and row.name not in ON_CUDA:
            continue
        call = draw(row, 0)
        _, leaves = call.tensors(device, dtypes.float32, row.gradient)
        weights = weights_of(row, call, np.random.default_rng(0), device) if row.gradient else []
        drawn = [Tensor(w, dtype=dtypes.float32, device=device) for w in weights]
        parts.append((row, call, len(leaves), drawn))
        given += leaves

    def step(*tensors: Tensor) -> list[Tensor]:
        following, found = iter(tensors), []
        for row, call, count, weights in parts:
            mine = [next(following) for _ in range(count)]
            inner = iter(mine)
            result = call.map(lambda _: next(inner)).of(row.function)  # noqa: B023
            found += [y.detach() for y in outputs(result)]
            if row.gradient:
                weighted(result, weights).backward()
                for x in mine:
                    if x.grad is not None:
                        found.append(x.grad)
                        x.grad = None
        return found

    return step, given


def check(executor: str, device: str) -> Any:
    step, given = step_and_inputs(device)
    compiled = compile(step, executor=executor)
    wanted = step(*given)
    for _ in range(2):
        for a, b in zip(compiled(*given), wanted, strict=True):
            np.testing.assert_allclose(host(a), host(b), rtol=2e-5, atol=1e-6)
    assert compiled.captures == 1
    return compiled


def test_numpy() -> None:
    check("numpy", "cpu")


def test_cuda(stand_in: None) -> None:
    executor = check("auto", "cuda")._last().executor
    assert executor.name == "cuda", executor.reason


def test_those_that_stay_calls_are_named() -> None:
    step, given = step_and_inputs("cpu")
    compiled = compile(step, executor="native")
    compiled(*given)
    assert set(re.findall(r"call (\w+):", compiled.report())) == CALLS


def test_the_first_to_name_them_may_be_a_compiled_step() -> None:
    """The module is loaded on use, and a step must not change what it reads."""
    program = (
        "import tensorgrad as tg; f = tg.compile(lambda x: tg.special.gamma(x)); "
        "print(f(tg.tensor(4.0)).item(), f(tg.tensor(5.0)).item(), f.captures)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6.0", "24.0", "1"]
