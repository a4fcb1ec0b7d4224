"""kernels/convolution_3x3.cu: windows of 3 x 3 without columns, against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import Cuda, as_float64
from kernels.convolutions import check, leaf

import tensorgrad as tg
from tensorgrad.backend.launch import common, convolution, convolution_3x3
from tensorgrad.dtypes import bfloat16, float16, float32, float64
from tensorgrad.nn import functional


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """One with warps by themselves and one with all threads by chance."""
    if not cuda.real and emulator.schedule not in (1, 4):
        pytest.skip("two schedules")


#: shapes of input and weights, and the padding. Lines are read four pixels at a time where they lie
#: so; there are one or more tiles of positions and of channels, and parts of them.
CASES: list[tuple[tuple[int, ...], tuple[int, ...], Any]] = [
    ((2, 8, 8, 16), (3, 8, 3, 3), 1),
    ((1, 18, 10, 16), (8, 18, 3, 3), (0, 1)),
    ((1, 8, 15, 27), (17, 8, 3, 3), (2, 2)),
    ((1, 9, 8, 34), (70, 9, 3, 3), (1, 0)),
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tiles(cuda: Cuda, case: Any, dtype: str, rng: np.random.Generator) -> None:
    x, w, padding = case
    check(rng, x, w, dtype, padding=padding)
    assert cuda.launched["convolution_3x3"] == 1 + (w[0] >= 8)
    assert cuda.launched["convolution_3x3_weight"] == (w[0] >= 16)


def test_no_bias_and_transposed(cuda: Cuda, rng: np.random.Generator) -> None:
    check(rng, (2, 8, 6, 14), (8, 8, 3, 3), bias=False, padding=1)
    check(rng, (1, 8, 6, 14), (8, 9, 3, 3), "float16", transposed=True)
    assert cuda.launched["convolution_3x3"] == 4


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    monkeypatch.setattr(convolution_3x3, "_ENOUGH_BLOCKS", 2)
    for dtype in ("float32", "bfloat16"):
        check(rng, (3, 8, 8, 28), (16, 8, 3, 3), dtype, padding=1)
    assert cuda.launched["convolution_3x3"] == 4
    assert cuda.launched["convolution_3x3_weight"] == 2


def test_second_order(cuda: Cuda, rng: np.random.Generator) -> None:
    """Gradients of gradients are such convolutions, too."""
    values = rng.normal(size=(1, 8, 8, 16)), rng.normal(size=(16, 8, 3, 3)) / 8
    found = []
    for device, dtype in (("cuda", "float32"), ("cpu", "float64")):
        x, w = (leaf(v, dtype, device) for v in values)
        y = functional.conv2d(x, w, padding=1)
        first = tg.autograd.grad((y**3).sum(), (x, w), create_graph=True)
        second = tg.autograd.grad(sum((d**2).sum() for d in first), (x, w))
        found.append([as_float64(a) for a in (y, *first, *second)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    assert min(cuda.launched[k] for k in ("convolution_3x3", "convolution_3x3_weight")) >= 2


def test_what_lies_at_odd_addresses(cuda: Cuda, rng: np.random.Generator) -> None:
    """Is read one by one."""
    w = rng.integers(-2, 3, (8, 8, 3, 3))
    values = rng.integers(-2, 3, (1, 8, 8, 16))
    wanted = as_float64(
        functional.conv2d(leaf(values, "float64", "cpu"), leaf(w, "float64", "cpu"), padding=1)
    )
    for dtype in ("float32", "float16"):
        x = cuda.tensor(values, dtype, offset=1)
        y = functional.conv2d(x, leaf(w, dtype, "cuda"), padding=1)
        np.testing.assert_array_equal(as_float64(y), wanted)


def test_nan_stays_in_its_windows(cuda: Cuda) -> None:
    values = np.ones((1, 9, 8, 16))
    values[0, 8, 3, 4], values[0, 0, 0, 15] = np.nan, np.inf
    w = np.random.default_rng(0).normal(size=(3, 9, 3, 3))
    found = []
    for device in ("cuda", "cpu"):
        y = functional.conv2d(
            leaf(values, "float32", device), leaf(w, "float32", device), padding=1
        )
        found.append(np.isfinite(as_float64(y)))
    np.testing.assert_array_equal(*found)
    assert cuda.launched["convolution_3x3"] == 1


def test_which_way_is_taken() -> None:
    def axes(kernel: int, size: int = 32, **options: int) -> tuple[convolution.Axis, ...]:
        axis = convolution.Axis(size, kernel, 1, kernel // 2, 1, size)._replace(**options)
        return axis, axis

    def way(part: str, dtype: Any, *numbers: Any) -> str:
        return convolution.way(part, dtype, convolution.Convolution(*numbers))

    for dtype in (float16, bfloat16, float32):
        assert way("value", dtype, 2, 1, 16, 16, axes(3)) == "implicit"
    left = convolution.Convolution(2, 1, 16, 16, axes(3))
    assert convolution.way("value", float32, left, True) == "columns"
    assert way("value", float64, 2, 1, 16, 16, axes(3)) == "columns"
    assert way("value", float64, 2, 1, 16, 16, axes(1)) == "pointwise"
    assert way("value", float32, 2, 2, 16, 16, axes(1)) == "columns"
    assert way("value", float32, 2, 2, 16, 16, axes(3)) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(3, 7)) == "columns"
    assert way("value", float32, 2, 1, 3, 16, axes(3)) == "columns"
    assert way("input", float32, 2, 1, 3, 16, axes(3)) == "implicit"
    assert way("input", float32, 2, 1, 16, 3, axes(3)) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(3, stride=2, results=16)) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(3, dilation=2, results=30)) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(3, padding=3, results=36)) == "columns"
    assert way("weight", float32, 2, 1, 8, 16, axes(3)) == "implicit"
    assert way("weight", float32, 2, 1, 16, 8, axes(3)) == "columns"
    assert way("weight", float32, 2, 1, 16, 16, axes(3, 7)) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(3)[:1]) == "columns"
    assert way("value", float32, 2, 1, 16, 16, axes(5)) == "columns"
