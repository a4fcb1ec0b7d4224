"""Dropout of channels, and the dropout that keeps mean 0 and variance 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.ops.random import Generator

#: The module, a shape, and how many axes count the channels.
CHANNELS = [
    ("Dropout1d", (40, 50, 3), 2), ("Dropout1d", (900, 3), 1), ("Dropout2d", (40, 50, 2, 3), 2),
    ("Dropout2d", (40, 50, 3), 2), ("Dropout3d", (40, 50, 1, 2, 2), 2),
    ("Dropout3d", (900, 2, 1, 3), 1), ("FeatureAlphaDropout", (40, 50, 4), 2),
    ("FeatureAlphaDropout", (40, 50), 2),
]  # fmt: skip
LOW = -1.7580993408473766


@pytest.mark.parametrize(("name", "shape", "axes"), CHANNELS)
def test_channels_are_dropped_as_a_whole(name: str, shape: tuple[int, ...], axes: int) -> None:
    layer = getattr(nn, name)(0.3, generator=Generator(7))
    x = tg.ones(shape, dtype="float64", requires_grad=True)
    y = layer(x)
    values = host(y).reshape(-1, int(np.prod(shape[axes:])))
    assert (values == values[:, :1]).all()
    if name != "FeatureAlphaDropout":
        assert np.unique(values).tolist() == pytest.approx([0.0, 1 / 0.7])
    dropped = values[:, 0] == values.min()
    assert dropped.mean() == pytest.approx(0.3, abs=0.04)
    y.sum().backward()
    assert x.grad is not None
    slopes = host(x.grad).reshape(values.shape)
    assert (slopes[dropped] == 0).all()
    assert np.unique(slopes[~dropped]).size == 1
    assert layer.eval()(x) is x
    assert repr(layer) == f"{name}(p=0.3)"
    again = getattr(nn, name)(0.3, generator=Generator(7))
    np.testing.assert_array_equal(host(again(x)), host(y))


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_mean_and_variance_stay(p: float, rng: np.random.Generator) -> None:
    """The two numbers are those of PyTorch: of what is dropped, and the scale of the rest."""
    x = rng.normal(size=200_000)
    y = host(F.alpha_dropout(Tensor(x), p, True, generator=Generator(2)))
    assert y.mean() == pytest.approx(0.0, abs=0.01)
    assert y.var() == pytest.approx(1.0, abs=0.02)
    scale = (p * (1 - p) * LOW**2 + (1 - p)) ** -0.5
    dropped = np.isclose(y, LOW * scale - p * LOW * scale, rtol=0, atol=1e-12)
    assert dropped.mean() == pytest.approx(p, abs=0.01)
    np.testing.assert_allclose(
        y[~dropped], (x * scale - p * LOW * scale)[~dropped], rtol=1e-10, atol=1e-14
    )


def test_the_two_numbers_are_those_of_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    for p in (0.2, 0.5):
        ours = F.alpha_dropout(tg.ones(500, dtype="float64"), p, True)
        theirs = torch.nn.functional.alpha_dropout(torch.ones(500).double(), p, True)
        np.testing.assert_allclose(np.unique(host(ours)), np.unique(theirs.numpy()), rtol=1e-9)


@pytest.mark.parametrize("name", ["dropout1d", "alpha_dropout", "feature_alpha_dropout"])
def test_a_compiled_step_draws_on(name: str) -> None:
    """New masks in each replay, those of eager mode; a generator's state resumes them."""
    x = Tensor(np.arange(1, 61, dtype=np.float32).reshape(3, 4, 5))
    own = Generator(3)
    step = tg.compile(lambda x: getattr(F, name)(x, 0.5, True, generator=own))
    other = Generator(3)
    seen = []
    for _ in range(4):
        state = own.state()
        seen.append(host(step(x)).copy())
        wanted = getattr(F, name)(x, 0.5, True, generator=other)
        np.testing.assert_allclose(seen[-1], host(wanted), rtol=1e-5, atol=1e-6)
    own.set_state(state)
    np.testing.assert_array_equal(host(step(x)), seen[-1])
    assert not all((a == seen[0]).all() for a in seen)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_once(dtype: str) -> None:
    x = Tensor(np.linspace(-3, 3, 60).reshape(3, 4, 5), dtype=dtype)
    for name in ("dropout1d", "alpha_dropout"):
        y = getattr(F, name)(x, 0.3, True, generator=Generator(1))
        z = getattr(F, name)(x.float(), 0.3, True, generator=Generator(1))
        assert y.dtype == dtypes.as_dtype(dtype)
        np.testing.assert_array_equal(host(y), host(z.astype(dtype)))


def test_errors() -> None:
    for name in ("Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"):
        with pytest.raises(ValueError, match=rf"{name}: p must lie in \[0, 1\], got 1\.5"):
            getattr(nn, name)(1.5)
    for name in ("dropout1d", "alpha_dropout", "feature_alpha_dropout"):
        with pytest.raises(ValueError, match=r"p must be between 0 and 1; got -0\.5"):
            getattr(F, name)(tg.ones((2, 3, 4)), -0.5)
    with pytest.raises(ShapeError, match=r"\(N, C, L\) or \(C, L\), got \(3,\)"):
        F.dropout1d(tg.ones(3))
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\) or \(N, C, L\), got \(2, 3\)"):
        F.dropout2d(tg.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"\(N, C, \.\.\.\), got \(3,\)"):
        F.feature_alpha_dropout(tg.ones(3), training=True)
