"""Layers, containers and activation modules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.autograd import gradcheck
from tensorgrad.ops.random import Generator


def test_linear_agrees_with_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layer = nn.Linear(4, 3)
    peer = torch.nn.Linear(4, 3)
    state = {k: torch.tensor(v.numpy()) for k, v in layer.state_dict().items()}
    peer.load_state_dict(state)
    x = rng.standard_normal((2, 5, 4)).astype(np.float32)
    y = layer(Tensor(x))
    other = peer(torch.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)
    y.sum().backward()
    other.sum().backward()
    for ours, theirs in zip(layer.parameters(), peer.parameters(), strict=True):
        assert ours.grad is not None
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5)
    assert repr(layer) == repr(peer)


def test_linear_begins_as_in_torch() -> None:
    layer = nn.Linear(100, 200, generator=Generator(1))
    limit = 1 / math.sqrt(100)
    for p in layer.parameters():
        values = p.detach().numpy()
        assert np.abs(values).max() <= limit
        assert np.abs(values).max() > 0.97 * limit
        assert abs(values.std() - limit / math.sqrt(3)) < 0.1 * limit
    before = layer.weight.tolist()
    layer.reset_parameters(Generator(2))
    assert layer.weight.tolist() != before
    layer.reset_parameters(Generator(1))
    assert layer.weight.tolist() == before


def test_linear_arguments() -> None:
    layer = nn.Linear(2, 3, bias=False, dtype="float64", device="cpu")
    assert layer.bias is None
    assert layer.weight.dtype == "float64"
    assert [n for n, _ in layer.named_parameters()] == ["weight"]
    assert repr(layer) == "Linear(in_features=2, out_features=3, bias=False)"
    with pytest.raises(ValueError, match="in_features must be a positive integer, got 0"):
        nn.Linear(0, 3)
    wrong: Any = 2.0
    with pytest.raises(ValueError, match=r"out_features must be a positive integer, got 2\.0"):
        nn.Linear(2, wrong)


def test_gradient_through_a_network(rng: np.random.Generator) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Softmax()).double()
    x = Tensor(rng.standard_normal((5, 3)), requires_grad=True)
    assert gradcheck(lambda x, *ps: net(x), (x, *net.parameters()))


# --- containers -----------------------------------------------------------------------------------


def test_sequential() -> None:
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    net = nn.Sequential(a, b, c)
    assert len(net) == 3
    assert list(net) == [a, b, c]
    assert net[0] is a
    assert net[-1] is c
    assert list(net[1:]) == [b, c]
    assert [n for n, _ in net[1:].named_parameters()] == ["1.weight", "1.bias"]
    assert isinstance(net[:2], nn.Sequential)
    assert net.append(nn.Sigmoid()) is net
    assert net[3](Tensor([0.0])).item() == 0.5
    net.extend([nn.Identity()])
    assert len(net) == 5
    with pytest.raises(IndexError, match="holds 5 modules; there is no number 5"):
        net[5]
    x = Tensor(np.ones((1, 2), np.float32))
    assert net(x).tolist() == nn.Sigmoid()(c(b(a(x)))).tolist()
    assert nn.Sequential()(x) is x


def test_sequential_calls_a_shared_module_each_time() -> None:
    double = nn.Linear(1, 1, bias=False)
    double.load_state_dict({"weight": [[2.0]]})
    net = nn.Sequential(double, double)
    assert net(Tensor([[1.0]])).tolist() == [[4.0]]
    assert len(net) == 2
    assert len(list(net.parameters())) == 1


def test_sequential_from_a_dict() -> None:
    net = nn.Sequential({"fc": nn.Linear(2, 3), "act": nn.ReLU()})
    assert [n for n, _ in net.named_parameters()] == ["fc.weight", "fc.bias"]
    assert [n for n, _ in net[:1].named_children()] == ["fc"]
    with pytest.raises(ValueError, match="already has an attribute 'forward'"):
        nn.Sequential({"forward": nn.ReLU()})
    wrong: Any = nn.ReLU
    with pytest.raises(TypeError, match="1 must be a module, not type"):
        nn.Sequential(nn.ReLU(), wrong)


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_modules_are_replaced_and_taken_out_by_their_places(kind: str) -> None:
    parts = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Tanh()]
    model = nn.Sequential(*parts) if kind == "Sequential" else nn.ModuleList(parts)
    last = nn.Linear(3, 5)
    model[2] = last
    model[-1] = parts[1]
    assert list(model) == [parts[0], parts[1], last, parts[1]]
    del model[1]
    assert list(model) == [parts[0], last, parts[1]]
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight", "0.bias", "1.weight", "1.bias",
    ]  # fmt: skip
    model.append(parts[3])
    del model[1:]
    assert list(model) == [parts[0]]
    with pytest.raises(IndexError, match="holds 1 modules; there is no number 1"):
        model[1] = last
    with pytest.raises(TypeError, match="0 must be a module, not int"):
        model[0] = 3  # type: ignore[assignment]


def test_named_modules_keep_their_names() -> None:
    model = nn.Sequential({"first": nn.Linear(2, 2), "act": nn.ReLU(), "last": nn.Linear(2, 1)})
    model[-1] = nn.Linear(2, 3)
    del model[1]
    assert [name for name, _ in model.named_children()] == ["first", "last"]
    assert model(Tensor([[1.0, 2.0]])).shape == (1, 3)


def test_module_list() -> None:
    layers = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    layers.append(nn.Linear(1, 1))
    assert len(layers) == 3
    assert len(list(layers.parameters())) == 6
    assert isinstance(layers[1:], nn.ModuleList)
    with pytest.raises(NotImplementedError):
        layers(Tensor([1.0]))


# --- the others -----------------------------------------------------------------------------------


def test_identity_and_flatten() -> None:
    x = Tensor(np.zeros((2, 3, 4)))
    assert nn.Identity(3, whatever=True)(x) is x
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0, 1)(x).shape == (6, 4)


def test_dropout() -> None:
    layer = nn.Dropout(0.25, generator=Generator(3))
    x = Tensor(np.ones((100, 100)), requires_grad=True)
    y = layer(x)
    values = y.detach().numpy()
    np.testing.assert_allclose(np.unique(values), [0, 4 / 3])
    assert abs((values == 0).mean() - 0.25) < 0.02
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), values)
    assert layer.eval()(x) is x
    again = nn.Dropout(0.25, generator=Generator(3))(x)
    np.testing.assert_array_equal(again.detach().numpy(), values)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\], got 1.5"):
        nn.Dropout(1.5)


ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Sigmoid", {}), ("Tanh", {}), ("ReLU", {}), ("SELU", {}), ("SiLU", {}), ("Softplus", {}),
    ("Mish", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.2}), ("ELU", {}),
    ("ELU", {"alpha": 0.5}), ("GELU", {}), ("GELU", {"approximate": "tanh"}), ("Hardtanh", {}),
    ("Hardtanh", {"min_val": -0.5, "max_val": 2.0}), ("Softmax", {"axis": 1}),
    ("LogSoftmax", {"axis": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activation_agrees_with_torch(
    name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    values = rng.standard_normal((4, 5)) * 2
    module = getattr(nn, name)(**options)
    peer = getattr(torch.nn, name)(**{"dim" if k == "axis" else k: v for k, v in options.items()})
    x, z = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, w = module(x), peer(z)
    np.testing.assert_allclose(y.detach().numpy(), w.detach().numpy(), rtol=1e-12, atol=1e-13)
    weights = rng.standard_normal((4, 5))
    (y * Tensor(weights)).sum().backward()
    (w * torch.tensor(weights)).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted({name for name, _ in ACTIVATIONS}))
def test_activation_classes_describe_themselves(name: str) -> None:
    kind = getattr(nn, name)
    assert kind.__name__ == name
    assert kind.__doc__
    assert kind.forward.__doc__
    assert issubclass(kind, nn.Module)
    assert repr(kind()).startswith(f"{name}(")


def test_activation_arguments() -> None:
    with pytest.raises(ValueError, match='approximate must be "none" or "tanh"'):
        nn.GELU("erf")
    with pytest.raises(ValueError, match="min_val must be below max_val"):
        nn.Hardtanh(1.0, -1.0)
