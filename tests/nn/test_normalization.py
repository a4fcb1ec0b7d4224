"""LayerNorm and RMSNorm as modules."""

from __future__ import annotations

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
