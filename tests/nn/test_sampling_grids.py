"""Samples at places of one's own against PyTorch: values, gradients, what is no place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

MODES = [(2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest")]
PADDINGS = ["zeros", "border", "reflection"]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("n", "mode"), MODES)
def test_random_places_like_torch(n: int, mode: str, padding: str) -> None:
    torch: Any = pytest.importorskip("torch")
    rng = np.random.default_rng(n)
    for align in (False, True) * 3:
        a = rng.normal(size=(2, 3, *rng.integers(1, 6, n)))
        places = rng.normal(size=(2, *rng.integers(1, 5, n), n)) * 1.2
        ours = [Tensor(v, requires_grad=True) for v in (a, places)]
        theirs = [torch.tensor(v, requires_grad=True) for v in (a, places)]
        y = F.grid_sample(ours[0], ours[1], mode, padding, align)
        wanted = torch.nn.functional.grid_sample(*theirs, mode, padding, align)
        np.testing.assert_allclose(
            y.detach().numpy(), wanted.detach().numpy(), rtol=1e-9, atol=1e-11
        )
        weights = rng.normal(size=y.shape)
        found = grad(y, ours, Tensor(weights))
        there = torch.autograd.grad(wanted, theirs, torch.tensor(weights))
        for g, h in zip(found, there, strict=True):
            np.testing.assert_allclose(g.numpy(), h.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_second_gradients(mode: str, rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(1, 2, 3, 4)), requires_grad=True)
    places = Tensor(rng.uniform(-0.9, 0.9, (1, 2, 2, 2)), requires_grad=True)
    for padding in PADDINGS:
        f: Callable[..., Tensor] = lambda a, g: F.grid_sample(a, g, mode, padding)  # noqa: B023, E731
        assert gradgradcheck(f, (x, places))


def test_what_is_no_place() -> None:
    """NaN gives NaN; what is far away is outside, or the end of what is inside."""
    x = Tensor(np.arange(1.0, 5.0).reshape(1, 1, 2, 2), requires_grad=True)
    values = [[[[np.nan, 0.0], [1e30, -1.0], [np.inf, -1.0], [-np.inf, 1.0]]]]
    places = Tensor(np.array(values), requires_grad=True)
    for mode in ("bilinear", "bicubic"):
        assert np.isnan(F.grid_sample(x, places, mode).detach().numpy()[0, 0, 0, 0])
        y = F.grid_sample(x, places, mode, align_corners=True)
        assert y.tolist()[0][0][0][1:] == [0.0, 0.0, 0.0]
        y = F.grid_sample(x, places, mode, "border", True)
        assert y.tolist()[0][0][0][1:] == [2.0, 2.0, 3.0]
    a = Tensor(np.array([[[[np.inf, 1.0, 2.0]]]]))
    middle = Tensor(np.array([[[[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]]]]))
    assert F.grid_sample(a, middle, align_corners=True).tolist() == [[[[2.0, 1.0, 0.0]]]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_types(dtype: str, rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(1, 2, 4, 4)), dtype=dtype, requires_grad=True)
    places = Tensor(rng.uniform(-1, 1, (1, 3, 3, 2)), dtype=dtype, requires_grad=True)
    y = F.grid_sample(x, places)
    assert y.dtype == x.dtype
    wanted = F.grid_sample(x.detach().double(), places.detach().double())
    np.testing.assert_allclose(y.detach().double().numpy(), wanted.numpy(), atol=0.02)
    y.sum().backward()
    for t in (x, places):
        assert t.grad is not None
        assert t.grad.dtype == t.dtype
    empty = F.grid_sample(x.detach()[:0], places.detach()[:0])
    assert empty.shape == (0, 2, 3, 3)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (1, 3, 2, 3, 5)])
def test_affine_grids_like_torch(size: tuple[int, ...], align: bool) -> None:
    torch: Any = pytest.importorskip("torch")
    n = len(size) - 2
    a = np.random.default_rng(0).normal(size=(size[0], n, n + 1))
    x, z = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    y, wanted = F.affine_grid(x, size, align), torch.nn.functional.affine_grid(z, size, align)
    np.testing.assert_allclose(y.detach().numpy(), wanted.detach().numpy(), rtol=1e-12, atol=1e-14)
    (y * y).sum().backward()
    (wanted * wanted).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_the_identity_map_gives_the_input_back(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(2, 3, 4, 5)))
    theta = Tensor([[[1.0, 0, 0], [0, 1, 0]]] * 2, dtype=tg.float64)
    for align in (False, True):
        y = F.grid_sample(x, F.affine_grid(theta, x.shape, align), align_corners=align)
        np.testing.assert_allclose(y.numpy(), x.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, g: F.grid_sample(x[0], g), ShapeError, r"the grid \(N, H', W', 2\)"),
        (lambda x, g: F.grid_sample(x, g[..., :1]), ShapeError, "got"),
        (lambda x, g: F.grid_sample(x[:0], g), ShapeError, "got"),
        (lambda x, g: F.grid_sample(x, g, "linear"), ValueError, "mode must be"),
        (lambda x, g: F.grid_sample(x, g, padding_mode="zero"), ValueError, "padding_mode must"),
        (lambda x, g: F.grid_sample(x[:, :, :0], g), ShapeError, "no elements"),
        (lambda x, g: F.grid_sample(x.astype("int64"), g), DtypeError, "floats are needed"),
        (lambda x, g: F.affine_grid(x, (2, 3, 4, 4)), ShapeError, r"shape \(N, 2, 3\)"),
        (lambda x, g: F.affine_grid(tg.zeros((2, 2, 3)), (2, 3, 0, 4)), ValueError, "size must"),
    ],
)
def test_errors(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Tensor(np.zeros((2, 3, 4, 4))), Tensor(np.zeros((2, 3, 3, 2))))
