"""kernels/convolution.cu: convolutions on a GPU against the CPU, in one to three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import FLOATS, Cuda, as_float64
from kernels.convolutions import check, leaf

import tensorgrad as tg
from tensorgrad.backend.launch import common, convolution
from tensorgrad.nn import functional


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """Threads work alone in these kernels: two schedules tell what six would."""
    if not cuda.real and emulator.schedule not in (0, 3):
        pytest.skip("threads do not wait for each other")


#: shapes of input and weights, and options
CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9), (4, 3, 3), {"padding": 1}),
    ((3, 4, 11), (6, 2, 4), {"stride": 3, "padding": 2, "dilation": 2, "groups": 2}),
    ((2, 3, 7, 9), (5, 3, 2, 3), {"padding": (0, 1)}),
    ((2, 4, 8, 7), (6, 2, 3, 2), {"stride": (2, 1), "padding": (3, 1), "groups": 2}),
    ((2, 2, 9, 8), (4, 2, 3, 3), {"dilation": (2, 3), "padding": 4, "stride": (1, 2)}),
    ((1, 4, 9, 9), (4, 1, 5, 5), {"groups": 4, "padding": "same"}),
    ((2, 2, 12, 12), (3, 2, 4, 4), {"stride": 2, "padding": 1}),
    ((2, 2, 14, 14), (3, 2, 2, 2), {}),
    ((2, 2, 4, 12), (3, 2, 2, 3), {"dilation": (1, 2), "padding": (0, 2)}),
    ((2, 2, 4, 5, 6), (4, 2, 2, 3, 2), {"padding": (1, 0, 1), "stride": (1, 2, 1)}),
    ((1, 4, 5, 4, 6), (4, 2, 3, 2, 1), {"padding": 1, "groups": 2, "dilation": (1, 2, 1)}),
]  # fmt: skip
TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5), (3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 4, 4, 5), (4, 3, 3, 2), {"stride": (2, 3), "groups": 2, "dilation": (1, 2)}),
    ((1, 2, 3, 2, 3), (2, 2, 2, 3, 2), {"stride": 2, "padding": (0, 1, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_columns(cuda: Cuda, case: Any, rng: np.random.Generator) -> None:
    x, w, options = case
    for bias in (True, False):
        check(rng, x, w, bias=bias, **options)
    assert {"im2col", "col2im"} <= set(cuda.launched)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed(cuda: Cuda, case: Any, rng: np.random.Generator) -> None:
    x, w, options = case
    for bias in (True, False):
        check(rng, x, w, bias=bias, transposed=True, **options)
    assert {"im2col", "col2im"} <= set(cuda.launched)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dtypes(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    check(rng, (2, 3, 12, 12), (4, 3, 3, 3), dtype, padding=1)
    check(rng, (3, 4, 5, 7), (4, 2, 3, 3), dtype, padding=1, groups=2, stride=2)
    check(rng, (2, 4, 4, 8), (4, 4, 1, 1), dtype)


def test_one_tap(cuda: Cuda, rng: np.random.Generator) -> None:
    """Is a product without columns; the gradient for the weights, where that moves less."""
    check(rng, (2, 3, 8, 8), (4, 3, 1, 1))
    assert not {"im2col", "col2im", "examples_apart"} & set(cuda.launched)
    check(rng, (2, 8, 1, 2), (9, 8, 1, 1), bias=False)
    assert set(cuda.launched) == {"spread_channels", "sum_strips", "im2col"}
    cuda.launched.clear()
    check(rng, (2, 4, 4, 4), (6, 2, 1, 1), groups=2)
    check(rng, (2, 3, 5, 6), (4, 3, 1, 1), stride=2)
    check(rng, (2, 3, 5, 6), (4, 3, 1, 1), padding=1)
    assert cuda.launched["im2col"] == 12


@pytest.mark.parametrize("columns", [60, 400, 3000])
def test_pieces(
    cuda: Cuda, columns: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Columns of some examples at a time, or of some positions, or channels."""
    monkeypatch.setattr(convolution, "WORKSPACE", columns * 4)
    check(rng, (5, 3, 7, 6), (4, 3, 3, 2), padding=1)
    check(rng, (3, 4, 6, 5), (4, 2, 3, 3), padding=1, groups=2)
    check(rng, (3, 2, 5), (2, 4, 3), stride=2, transposed=True)
    check(rng, (3, 2, 6, 6), (2, 2, 3, 3), "float16", padding=1)


def test_the_workspace_bounds_columns() -> None:
    """Of any number of examples, and of positions."""
    axis = convolution.Axis(400, 3, 1, 1, 1, 400)
    for examples, axes in ((1, (axis,) * 2), (512, (axis,)), (3, (axis,) * 3)):
        c = convolution.Convolution(examples, 2, 16, 64, axes)
        pieces = list(convolution._pieces(c, 4))
        each = c.groups * c.channels * c.taps * 4
        assert all(p.examples * p.positions * each <= convolution.WORKSPACE for p in pieces)
        assert sum(p.examples * p.positions for p in pieces) == examples * c.positions


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    check(rng, (3, 4, 12, 13), (4, 4, 3, 3), padding=1)
    check(rng, (3, 4, 12, 12), (4, 2, 3, 3), padding=1, groups=2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_bias_is_spread_to_any_address(cuda: Cuda, dtype: str) -> None:
    """As programs have results, within larger arrays; what lies around stays as it is."""
    for offset in (0, 1):
        room = cuda.tensor(np.zeros(60), dtype, offset=offset)
        y = room.data[:45].reshape(3, 3, 5)
        convolution.spread_channels(cuda.xp, cuda.tensor([1, 2, 3], dtype).data, y)
        wanted = np.zeros(60)
        wanted[:45] = np.tile(np.repeat([1, 2, 3], 5), 3)
        np.testing.assert_array_equal(as_float64(room), wanted)


def test_views_and_second_order(cuda: Cuda, rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 3, 6, 8)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    found = []
    for device in ("cuda", "cpu"):
        x, w, b = (leaf(v, "float64", device) for v in values)
        y = functional.conv2d(x[::2, :, 1:, ::2], w.swapaxes(2, 3), b, padding=1, stride=(1, 2))
        y = functional.conv_transpose2d(y, w, stride=2)
        first = tg.autograd.grad((y**3).sum(), (x, w, b), create_graph=True)
        second = tg.autograd.grad(sum((d**2).sum() for d in first), (x, w, b))
        found.append([as_float64(a) for a in (y, *first, *second)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_empty_and_integers(cuda: Cuda) -> None:
    x, w = tg.zeros((0, 3, 4, 4), device="cuda"), tg.ones((2, 3, 3, 3), device="cuda")
    assert functional.conv2d(x, w).shape == (0, 2, 2, 2)
    whole = functional.conv1d(
        tg.tensor(np.arange(6).reshape(1, 1, 6), device="cuda"),
        tg.tensor(np.ones((1, 1, 2), int), device="cuda"),
    )
    assert whole.cpu().numpy().ravel().tolist() == [1, 3, 5, 7, 9]
    assert not cuda.launched


def test_one_number_that_is_none_stays_alone(cuda: Cuda) -> None:
    """NaN and infinity reach the windows they are in, and no others."""
    values = np.ones((1, 2, 7, 8))
    values[0, 1, 3, 4], values[0, 0, 0, 7] = np.nan, np.inf
    w = np.random.default_rng(0).normal(size=(3, 2, 3, 3))
    found = []
    for device in ("cuda", "cpu"):
        x, weight = leaf(values, "float32", device), leaf(w, "float32", device)
        y = functional.conv2d(x, weight, padding=1)
        found.append(np.isfinite(as_float64(y)))
    np.testing.assert_array_equal(*found)
