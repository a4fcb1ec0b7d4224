"""Products with epilogues by cublasLt, on a stand-in that checks what the library checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sampler import host
from standin import cublaslt, cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backend.launch import epilogues

DTYPES = pytest.mark.parametrize("dtype", [tg.float32, tg.float16, tg.bfloat16], ids=str)
TOLERANCES = {"float32": 2e-6, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed(cublaslt=True) as module:
        yield module


def wide(x: Any) -> Any:
    return host(x).astype(np.float64)


def close(found: Any, wanted: Any, dtype: Any) -> None:
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(wide(found), wanted, rtol=0, atol=TOLERANCES[str(dtype)] * scale)


@DTYPES
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (4,)])
def test_linear_is_one_launch_and_two(shape: tuple[int, ...], dtype: Any) -> None:
    """The bias is part of the product, the sums of its gradient part of the weight's."""
    draw = np.random.default_rng(0)
    x, w, b = (
        tg.Tensor(draw.normal(size=size), dtype=dtype, device="cuda", requires_grad=True)
        for size in (shape, (5, 4), (5,))
    )
    log.clear()
    y = nn.functional.linear(x, w, b)
    assert log.names == ["matmul_BIAS"]
    close(y, wide(x) @ wide(w).T + wide(b), dtype)
    g = tg.Tensor(draw.normal(size=y.shape), dtype=dtype, device="cuda")
    log.clear()
    y.backward(g)
    assert sorted(name for name in log.names if name != "copy") == ["gemm", "matmul_BGRADB"]
    close(x.grad, wide(g) @ wide(w), dtype)
    rows, given = wide(g).reshape(-1, 5), wide(x).reshape(-1, 4)
    close(w.grad, rows.T @ given, dtype)
    close(b.grad, rows.sum(0), dtype)


def test_descriptors_are_kept_for_each_shape_and_alignment() -> None:
    layer = nn.Linear(4, 8, device="cuda")
    x = tg.ones((6, 4), device="cuda")
    layer(x)
    cublaslt.asked.clear()
    for _ in range(3):
        layer(x)
    assert not cublaslt.asked
    layer(tg.ones((7, 4), device="cuda"))
    shifted = tg.ones((25,), device="cuda")[1:].reshape(6, 4)
    close(layer(shifted), wide(layer(x)), tg.float32)
    assert cublaslt.asked == ["BIAS", "BIAS"]


def test_what_the_library_does_not_know_is_done_otherwise() -> None:
    layer = nn.Linear(4, 8, device="cuda")
    x = tg.Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), device="cuda")
    cublaslt.MISSING.update(["BIAS", "BGRADB"])
    epilogues._MADE.clear()
    try:
        y = layer(x)
        y.sum().backward()
    finally:
        cublaslt.MISSING.clear()
        epilogues._MADE.clear()
    assert layer.bias is not None
    close(y, wide(x) @ wide(layer.weight).T + wide(layer.bias), tg.float32)
    close(layer.bias.grad, np.full(8, 5.0), tg.float32)


def test_precision_is_that_of_all_products() -> None:
    """Factors are rounded to TF32 where that is allowed."""
    x = tg.Tensor(np.full((2, 4), 1 + 2.0**-12, np.float32), device="cuda")
    layer = nn.Linear(4, 3, device="cuda")
    try:
        tg.set_float32_matmul_precision("high")
        rounded = host(layer(x))
        tg.set_float32_matmul_precision("highest")
        assert not np.array_equal(rounded, host(layer(x)))
    finally:
        tg.set_float32_matmul_precision("highest")


def test_streams_have_workspaces_of_their_own() -> None:
    layer = nn.Linear(4, 3, device="cuda")
    x = tg.ones((2, 4), device="cuda")
    wanted = host(layer(x))
    for stream in [cupy_standin.Stream(non_blocking=True) for _ in range(6)]:
        with stream:
            np.testing.assert_array_equal(host(layer(x)), wanted)
    made = epilogues._MADE[cupy_standin.MODULE, 0]
    assert made is not None
    assert len(made._workspaces) == 4


def test_without_the_binding_there_is_none() -> None:
    with cupy_standin.installed():
        assert not epilogues.available(cupy_standin.MODULE)
        layer = nn.Linear(4, 3, device="cuda")
        log.clear()
        layer(tg.ones((2, 4), device="cuda"))
        assert "gemm" in log.names
