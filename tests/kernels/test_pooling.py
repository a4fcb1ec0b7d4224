"""kernels/pooling.cu against what the CPU gives, for all kinds of windows, layouts and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.backend.launch import common
from tensorgrad.nn import functional


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """Threads work alone in these kernels: two schedules tell what six would."""
    if not cuda.real and emulator.schedule not in (0, 3):
        pytest.skip("threads do not wait for each other")


#: options of windows, of which the first two lie apart
WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2}, {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
]  # fmt: skip
DILATED: list[dict[str, Any]] = [
    {"kernel_size": 2, "stride": 1, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2},
    {"kernel_size": 3, "stride": 1, "dilation": 2, "padding": 1},
]
COUNTS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": 2, "stride": 1, "divisor_override": 3},
]
SHAPES = [(2, 3, 9), (2, 3, 7, 9), (1, 2, 5, 6, 7)]


def laid(values: Any, dtype: str, device: str, last: bool) -> tg.Tensor:
    """A leaf [N, C, ...] that lies with its channels last or where they are."""
    n, kind = values.ndim - 2, getattr(tg, dtype)
    if not last:
        return tg.tensor(values, dtype=kind, device=device, requires_grad=True)
    turned = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    x = tg.tensor(turned, dtype=kind, device=device).permute_dims((0, n + 1, *range(1, n + 1)))
    x = x.detach()
    x.requires_grad = True
    return x


def check(
    name: str, values: Any, dtype: str, last: bool, exact: bool = False, **options: Any
) -> tg.Tensor:
    """Value and gradient on both devices; ``exact``: the same bits."""
    function = getattr(functional, f"{name}{values.ndim - 2}d")
    found = []
    for device in ("cuda", "cpu"):
        x = laid(values, dtype, device, last)
        y = function(x, **options)
        g = np.random.default_rng(1).normal(size=y.shape)
        y.backward(tg.tensor(g, dtype=getattr(tg, dtype), device=device))
        assert x.grad is not None
        found.append((y, x.grad))
    (y, d), (other_y, other_d) = found
    if exact:
        np.testing.assert_array_equal(as_float64(y), as_float64(other_y))
    else:
        assert_close(y, as_float64(other_y), dtype, rounding=4, scale=1.0)
    assert_close(d, as_float64(other_d), dtype, rounding=8, scale=2.0)
    assert y.dtype == other_y.dtype
    return found[0][0]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_windows(cuda: Cuda, shape: tuple[int, ...], last: bool, rng: np.random.Generator) -> None:
    values = rng.integers(-3, 4, shape).astype(float)  # of which many are equal
    for options in [*WINDOWS, *DILATED]:
        check("max_pool", values, "float32", last, exact=True, **options)
    assert cuda.launched == {"max_pool_forward": 8, "max_pool_backward": 8}
    cuda.launched.clear()
    counts = [o for o in COUNTS if len(shape) > 3 or "divisor_override" not in o]
    for options in [*WINDOWS, *counts]:
        check("avg_pool", values, "float32", last, **options)
    assert set(cuda.launched) == {"avg_pool_forward", "avg_pool_backward"}


@pytest.mark.parametrize("dtype", FLOATS)
def test_packs_of_channels(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    """Channels that fill 16 bytes, and such that do not."""
    for channels in (8, 16, 6):
        values = rng.integers(-2, 3, (2, channels, 5, 6)).astype(float)
        for options in (WINDOWS[0], WINDOWS[2]):
            check("max_pool", values, dtype, True, exact=True, **options)
            check("avg_pool", values, dtype, True, **options)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_adaptive_windows(cuda: Cuda, size: int, rng: np.random.Generator) -> None:
    for last in (False, True):
        check(
            "adaptive_max_pool", rng.normal(size=(2, 4, 7, 5)), "float32", last, exact=True,
            output_size=(size, min(size, 5)),
        )  # fmt: skip
    assert cuda.launched == {"max_pool_forward": 2, "max_pool_backward": 2}


@pytest.mark.parametrize("last", [False, True])
def test_places(cuda: Cuda, last: bool, rng: np.random.Generator) -> None:
    """Of equal numbers the first, of NaN the last; never one of the padding."""
    values = rng.integers(-1, 2, (2, 4, 6, 7)).astype(float)
    values[0, 0, :3, :4] = np.nan
    values[0, 1] = -np.inf
    values[1, 2, 2:4, 1:3] = np.inf, np.nan
    for options in (WINDOWS[0], WINDOWS[2], DILATED[2]):
        found = []
        for device in ("cuda", "cpu"):
            x = laid(values, "float32", device, last)
            y, places = functional.max_pool2d(x, **options, return_indices=True)
            y.sum().backward()
            assert x.grad is not None
            found.append([as_float64(a) for a in (y, places, x.grad)])
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert cuda.launched["max_pool_places"] == 3


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    values = rng.normal(size=(3, 4, 12, 13))
    for last in (False, True):
        check("max_pool", values, "float32", last, exact=True, **WINDOWS[2])
        check("avg_pool", values, "float32", last, **WINDOWS[2])


def test_views_and_second_order(cuda: Cuda, rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 3, 6, 8))
    found = []
    for device in ("cuda", "cpu"):
        x = tg.tensor(values, dtype=tg.float64, device=device, requires_grad=True)
        part = x[::2, :, 1:, ::2]
        y = functional.max_pool2d(part, 2) + functional.avg_pool2d(part, 2)
        (first,) = tg.autograd.grad((y**3).sum(), x, create_graph=True)
        (second,) = tg.autograd.grad((first**2).sum(), x)
        found.append((as_float64(y), as_float64(first), as_float64(second)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_empty_and_integers(cuda: Cuda) -> None:
    x = tg.zeros((0, 3, 4, 4), device="cuda", requires_grad=True)
    y = functional.max_pool2d(x, 2)
    y.sum().backward()
    assert y.shape == (0, 3, 2, 2)
    whole = tg.tensor(np.arange(16).reshape(1, 1, 4, 4), device="cuda")
    assert functional.max_pool2d(whole, 2).cpu().numpy().ravel().tolist() == [5, 7, 13, 15]
    assert not cuda.launched
