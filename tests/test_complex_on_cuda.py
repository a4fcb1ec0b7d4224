"""Complex numbers and Fourier transforms on the stand-in for CuPy or a GPU: as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ops.test_complex import complex_call, inexact
from sampler import Call, draw, outputs
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.backend import cuda_is_available
from tensorgrad.errors import DtypeError
from tensorgrad.ops.table import OPERATIONS, Operation

GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if cuda_is_available() else []


@pytest.fixture(scope="module", autouse=True, params=["stand-in", *GPU])
def _device(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "gpu":
        yield
        return
    with cupy_standin.installed():
        yield


def placed(call: Call, device: str, dtype: Any) -> tuple[Call, list[Tensor]]:
    leaves: list[Tensor] = []

    def convert(a: Any) -> Tensor:
        if a.dtype.kind != "c":
            return Tensor(a, device=device)
        leaves.append(Tensor(a, dtype=dtype, device=device, requires_grad=True))
        return leaves[-1]

    return call.map(convert, floats=False), leaves


def values_and_gradients(row: Operation, call: Call, leaves: list[Tensor]) -> list[Any]:
    found = outputs(call.of(row.function))
    for y in inexact(found):
        loss = tg.sum(tg.real(y) * 1.5 - tg.imag(y))
        if loss.requires_grad:
            loss.backward()
    return [*found, *[tg.zeros_like(x) if x.grad is None else x.grad for x in leaves]]


#: CuPy has no form of these for complex numbers.
WITHOUT = {"logical_and", "logical_not", "logical_or", "logical_xor"}
ROWS = [
    row
    for row in OPERATIONS.values()
    if row.complex and draw(row, 0).arrays() and "dropout" not in row.name
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_give_what_the_cpu_gives(row: Operation) -> None:
    given = complex_call(row, 0)
    there, leaves = placed(given, "cuda", tg.complex64)
    if row.name in WITHOUT:
        with pytest.raises(DtypeError):
            there.of(row.function)
        return
    found = values_and_gradients(row, there, leaves)
    here, leaves = placed(given, "cpu", tg.complex64)
    with np.errstate(all="ignore"):
        wanted = values_and_gradients(row, here, leaves)
    for y, z in zip(found, wanted, strict=True):
        assert (y.shape, y.dtype) == (z.shape, z.dtype)
        assert y.device.startswith("cuda") or y.dtype.kind in "biu"
        np.testing.assert_allclose(
            y.detach().cpu().numpy(), z.detach().numpy(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["fft", "ifftn", "rfft", "irfftn", "hfft", "ihfft", "rfft2"])
def test_transforms(name: str) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 4, 5)).astype(np.float32)
    data: Any = a if name in ("rfft", "ihfft", "rfft2") else a + 1j * a[::-1]
    results = []
    for device in ("cuda", "cpu"):
        x = Tensor(data, device=device, requires_grad=True)
        y = getattr(tg.fft, name)(x, norm="ortho")
        tg.sum(tg.abs(y)).backward()
        assert x.grad is not None
        results.append([y.detach().cpu().numpy(), x.grad.cpu().numpy()])
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_files_random_numbers_and_printing() -> None:
    x = tg.random.normal((3,), dtype=tg.complex64, device="cuda")
    assert x.device.startswith("cuda")
    assert "device='cuda:0'" in repr(x)
    assert x.real.device == x.device
    assert (x.cpu() == x.cpu()).all()
