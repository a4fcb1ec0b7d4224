"""Resampling against PyTorch with random options: values, first and second gradients; edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn.test_pooling import like_torch

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

Array = np.ndarray[Any, Any]
MODES = {
    1: ["nearest", "nearest-exact", "linear", "area"],
    2: ["nearest", "nearest-exact", "bilinear", "bicubic", "area"],
    3: ["nearest", "nearest-exact", "trilinear", "area"],
}


def drawn(rng: np.random.Generator, n: int, mode: str) -> tuple[Array, dict[str, Any]]:
    """An input, and options that PyTorch takes."""
    sizes = [int(m) for m in rng.integers(2, 7, n)]
    options: dict[str, Any] = {"mode": mode}
    if rng.random() < 0.5:
        options["size"] = tuple(int(m) for m in rng.integers(2, 10, n))
    else:
        factors = tuple(float(f) for f in np.round(rng.uniform(0.5, 2.8, n), 2))
        options["scale_factor"] = factors if rng.random() < 0.7 else 2.0
        options["recompute_scale_factor"] = bool(rng.random() < 0.5)
    if "linear" in mode or "cubic" in mode:
        options["align_corners"] = bool(rng.random() < 0.5)
        # Where only one element is left across, PyTorch mixes up the axes.
        if n == 2 and "size" in options:
            options["antialias"] = bool(rng.random() < 0.5)
    return rng.normal(size=(2, 3, *sizes)), options


@pytest.mark.parametrize(("n", "mode"), [(n, mode) for n, modes in MODES.items() for mode in modes])
def test_random_options_like_torch(n: int, mode: str) -> None:
    torch: Any = pytest.importorskip("torch")
    rng = np.random.default_rng(n)
    for _ in range(6):
        a, options = drawn(rng, n, mode)
        like_torch(
            torch,
            a,
            lambda x: F.interpolate(x, **options),  # noqa: B023
            lambda x: torch.nn.functional.interpolate(x, **options),  # noqa: B023
        )


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (F.pixel_shuffle, "nn.functional.pixel_shuffle", (2, 18, 2, 3)),
        (F.pixel_unshuffle, "nn.functional.pixel_unshuffle", (2, 2, 3, 6)),
        (F.channel_shuffle, "channel_shuffle", (2, 6, 2, 2)),
        (nn.PixelShuffle, "nn.PixelShuffle", (18, 2, 3)),
        (nn.PixelUnshuffle, "nn.PixelUnshuffle", (2, 3, 6)),
        (nn.ChannelShuffle, "nn.ChannelShuffle", (2, 6, 3)),
    ],
)
def test_shuffles_like_torch(ours: Any, theirs: str, shape: tuple[int, ...]) -> None:
    torch: Any = pytest.importorskip("torch")
    there = torch
    for name in theirs.split("."):
        there = getattr(there, name)
    a = np.random.default_rng(0).normal(size=shape)
    if isinstance(ours, type):
        like_torch(torch, a, ours(3), there(3))
    else:
        like_torch(torch, a, lambda x: ours(x, 3), lambda x: there(x, 3))


def test_layers_like_torch() -> None:
    torch: Any = pytest.importorskip("torch")
    a = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    for name, args, options in (
        ("Upsample", (), {"scale_factor": 2.0, "mode": "bilinear", "align_corners": False}),
        ("Upsample", ((3, 7),), {"mode": "nearest"}),
        ("UpsamplingNearest2d", (), {"scale_factor": 2}),
        ("UpsamplingBilinear2d", ((5, 9),), {}),
    ):
        ours, theirs = (
            getattr(nn, name)(*args, **options),
            getattr(torch.nn, name)(*args, **options),
        )
        like_torch(torch, a, ours, theirs)
        assert repr(ours).replace("2.0", "2") == repr(theirs).replace("2.0", "2")
    x = Tensor(a)
    names: list[tuple[Any, str, Any]] = [
        (F.upsample_nearest, "nearest", None),
        (F.upsample_bilinear, "bilinear", True),
    ]
    for f, mode, align in names:
        wanted = F.interpolate(x, (3, 9), mode=mode, align_corners=align)
        assert f(x, (3, 9)).tolist() == wanted.tolist()
    assert F.upsample(x, scale_factor=2).tolist() == F.interpolate(x, scale_factor=2).tolist()


def test_an_infinity_stays_where_it_is() -> None:
    """No element makes NaN of one in which it has no part."""
    a = np.zeros((1, 1, 6))
    a[0, 0, 0] = np.inf
    for mode in ("linear", "area", "nearest"):
        for size in (3, 4, 6, 9, 12):
            y = F.interpolate(Tensor(a), size, mode=mode).numpy()[0, 0]
            assert not np.isnan(y[size // 2 :]).any()
            assert y[0] == np.inf
    x = Tensor(np.zeros((1, 1, 6)), requires_grad=True)
    F.interpolate(x, 3).backward(Tensor([[[np.inf, 1.0, 2.0]]], dtype=tg.float64))
    assert x.grad is not None
    assert x.grad.tolist() == [[[np.inf, 0, 1, 0, 2, 0]]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_rounded_once(dtype: str) -> None:
    a = Tensor(np.random.default_rng(0).normal(size=(2, 3, 5, 5)), dtype=dtype)
    for options in ({"size": (7, 3), "mode": "bilinear"}, {"scale_factor": 2.0, "mode": "bicubic"}):
        x = a.detach().clone()
        x.requires_grad = True
        y = F.interpolate(x, **options)
        assert y.dtype == x.dtype
        wanted = F.interpolate(a.float(), **options).astype(dtype)
        np.testing.assert_array_equal(y.detach().numpy(), wanted.numpy())
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == x.dtype


def test_layouts_empty_batches_and_integers() -> None:
    a = np.random.default_rng(0).normal(size=(4, 6, 5, 6))
    for view in (a.transpose(0, 3, 1, 2), a[::-2, ::2, ::-1]):
        x = Tensor(view, copy=None)
        z = Tensor(np.ascontiguousarray(view))
        for mode in MODES[2]:
            wanted = F.interpolate(z, (7, 4), mode=mode)
            np.testing.assert_array_equal(
                F.interpolate(x, (7, 4), mode=mode).numpy(), wanted.numpy()
            )
    x = Tensor(np.zeros((0, 3, 4, 4)), requires_grad=True)
    y = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    assert y.shape == (0, 3, 8, 8)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    whole = F.interpolate(Tensor([[[1, 2]]]), 4)
    assert whole.dtype == tg.float32
    assert whole.tolist() == [[[1, 1, 2, 2]]]


@pytest.mark.parametrize("executor", ["numpy", "auto"])
def test_in_programs(executor: str) -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3, 5, 5)), requires_grad=True)

    def step(x: Tensor) -> Tensor:
        x.grad = None
        y = F.interpolate(x, (9, 3), mode="bicubic")
        (y * y).sum().backward()
        return y.detach()

    wanted = step(x).numpy().copy()
    assert x.grad is not None
    gradient = x.grad.numpy().copy()
    compiled = tg.compile(step, executor=executor)
    for _ in range(3):
        np.testing.assert_allclose(compiled(x).numpy(), wanted, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.interpolate(x), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, 2.0), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, mode="cubic"), ValueError, "mode must be one of nearest"),
        (lambda x: F.interpolate(x, 3, mode="linear"), ShapeError, "3 axes"),
        (lambda x: F.interpolate(x[0, 0], 3), ShapeError, "3 or 4 or 5 axes"),
        (lambda x: F.interpolate(x, 3, align_corners=True), ValueError, "align_corners means"),
        (lambda x: F.interpolate(x, 3, antialias=True), ValueError, "antialias is for"),
        (lambda x: F.interpolate(x, 3, recompute_scale_factor=True), ValueError, "means nothing"),
        (lambda x: F.interpolate(x, scale_factor=0.1), ShapeError, "nothing is left"),
        (lambda x: F.interpolate(x, scale_factor=-1.0), ValueError, "above 0"),
        (lambda x: F.interpolate(x, (3, 0)), ValueError, "size must be an integer or 2"),
        (lambda x: F.pixel_shuffle(x, 2), ShapeError, "3 is no multiple of upscale_factor squared"),
        (lambda x: F.pixel_unshuffle(x, 4), ShapeError, "6 is no multiple of downscale_factor 4"),
        (lambda x: F.channel_shuffle(x, 2), ShapeError, "3 is no multiple of groups 2"),
        (lambda x: F.pixel_shuffle(x[0, 0], 2), ShapeError, r"\(\.\.\., C, H, W\)"),
        (lambda x: nn.Upsample(), ValueError, "Upsample: give either"),
        (lambda x: nn.PixelShuffle(0), ValueError, "positive integer"),
    ],
)
def test_errors(call: Callable[[Tensor], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Tensor(np.zeros((2, 3, 6, 6), np.float32)))
