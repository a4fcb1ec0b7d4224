"""LayerNorm and RMSNorm as modules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        ("LayerNorm", {}),
        ("LayerNorm", {"bias": False, "eps": 0.1}),
        ("LayerNorm", {"elementwise_affine": False}),
        ("RMSNorm", {}),
        ("RMSNorm", {"eps": 0.1}),
        ("RMSNorm", {"elementwise_affine": False}),
    ],
)
def test_agrees_with_torch(make: str, arguments: dict[str, Any], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours = getattr(nn, make)((3, 5), **arguments)
    theirs = getattr(torch.nn, make)((3, 5), **arguments)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for name, parameter in ours.named_parameters():
        drawn = rng.normal(size=(3, 5)).astype(np.float32)
        with tg.no_grad():
            parameter.copy_(drawn)
        getattr(theirs, name).data = torch.tensor(drawn)
    x = rng.normal(size=(4, 3, 5)).astype(np.float32)
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-5, atol=1e-6)
    y.sin().sum().backward()
    z.sin().sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)
    for name, parameter in ours.named_parameters():
        expected = getattr(theirs, name).grad.numpy()
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_one_size_may_be_a_number() -> None:
    assert nn.LayerNorm(4).normalized_shape == nn.RMSNorm((4,)).normalized_shape == (4,)
    assert "normalized_shape=(4,)" in repr(nn.LayerNorm(4))


@pytest.mark.parametrize("sizes", [0, (), (3, -1), (2.5,)])
def test_refuses_sizes(sizes: Any) -> None:
    with pytest.raises(ValueError, match="positive integers"):
        nn.LayerNorm(sizes)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"must end in the axes to normalize over, \(4,\)"):
        functional.layer_norm(tg.ones((2, 3)), 4)
    with pytest.raises(ShapeError, match="weight must have the shape normalized over"):
        functional.rms_norm(tg.ones((2, 3)), (3,), tg.ones(2))


def test_local_response_and_unit_length_are_pytorchs(rng: np.random.Generator) -> None:
    """Windows wider than there are channels, tuples of axes, rows of zeros; both gradients."""
    torch: Any = pytest.importorskip("torch")
    values = rng.normal(size=(2, 5, 3, 2))
    zeros = values.copy()
    zeros[0, :, 0, 0] = 0.0
    calls: list[tuple[str, tuple[Any, ...]]] = [
        *(("local_response_norm", (n, 0.7, 0.6, 0.5)) for n in (1, 2, 5, 8, 12)),
        ("normalize", ()), ("normalize", (1.0, 3)), ("normalize", (3.0, (1, 2))),
        ("normalize", (2.0, 0, 1.5)),
    ]  # fmt: skip
    for (name, options), given in itertools.product(calls, (values, zeros)):
        x, z = tg.Tensor(given, requires_grad=True), torch.tensor(given, requires_grad=True)
        y = getattr(functional, name)(x, *options)
        w = getattr(torch.nn.functional, name)(z, *options)
        np.testing.assert_allclose(y.detach().numpy(), w.detach().numpy(), rtol=1e-10)
        weights = rng.normal(size=y.shape)
        first: Any = tg.autograd.grad(y * y, x, tg.Tensor(weights), create_graph=True)
        right = torch.autograd.grad(w * w, z, torch.tensor(weights), create_graph=True)
        a, b = first[0].detach().numpy(), right[0].detach().numpy()
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
        if given is zeros:
            continue  # there PyTorch's second gradients of a length are NaN
        (second,) = tg.autograd.grad((first[0] ** 2).sum(), x)
        (wanted,) = torch.autograd.grad((right[0] ** 2).sum(), z)
        np.testing.assert_allclose(second.numpy(), wanted.numpy(), rtol=1e-7, atol=1e-9)
    layer = nn.LocalResponseNorm(3, alpha=0.5)
    assert repr(layer) == "LocalResponseNorm(size=3, alpha=0.5, beta=0.75, k=1.0)"
    found = layer(tg.Tensor(values)).numpy()
    wanted = torch.nn.LocalResponseNorm(3, alpha=0.5)(torch.tensor(values)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    with pytest.raises(ShapeError, match=r"\(N, C, L, \.\.\.\), got \(2, 3\)"):
        layer(tg.ones((2, 3)))
    with pytest.raises(ValueError, match="size must be"):
        functional.local_response_norm(tg.ones((2, 3, 4)), 0)
    half = functional.normalize(tg.Tensor([[300.0, 400.0], [0.0, 0.0]], dtype="float16"))
    np.testing.assert_allclose(half.float().numpy(), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-3)
