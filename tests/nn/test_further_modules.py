"""Embedding, Bilinear, RBF, GroupNorm, BatchNorm1d, ModuleDict, Residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.autograd import gradcheck
from tensorgrad.errors import DtypeError, ShapeError

Array = np.ndarray[Any, Any]


def same_parameters(ours: Any, theirs: Any, rng: np.random.Generator) -> None:
    """Both get the same random parameters, under the same names."""
    torch: Any = pytest.importorskip("torch")
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for name, parameter in ours.named_parameters():
        drawn = rng.normal(size=parameter.shape).astype(np.float32)
        with tg.no_grad():
            parameter.copy_(drawn)
        getattr(theirs, name).data = torch.tensor(drawn)


def check_like_torch(ours: Any, theirs: Any, inputs: list[Array]) -> None:
    """Values, and the gradients of floating inputs and parameters."""
    torch: Any = pytest.importorskip("torch")
    mine = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    y, z = ours(*mine), theirs(*other)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-5, atol=1e-5)
    y.sin().sum().backward()
    z.sin().sum().backward()
    pairs = [(a.grad, b.grad) for a, b in zip(mine, other)]
    pairs += [(p.grad, getattr(theirs, name).grad) for name, p in ours.named_parameters()]
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


Make = Callable[[Any], Any]
CASES: dict[str, tuple[Make, list[tuple[int, ...]]]] = {
    "bilinear": (lambda m: m.Bilinear(3, 4, 5), [(6, 3), (6, 4)]),
    "bilinear without bias": (lambda m: m.Bilinear(3, 2, 4, bias=False), [(2, 6, 3), (2, 6, 2)]),
    "groups": (lambda m: m.GroupNorm(2, 6), [(3, 6, 4)]),
    "one group": (lambda m: m.GroupNorm(1, 4, eps=0.1), [(3, 4)]),
    "groups, no parameters": (lambda m: m.GroupNorm(3, 6, affine=False), [(2, 6, 2, 3)]),
    "batch": (lambda m: m.BatchNorm1d(4), [(7, 4)]),
    "batch of rows": (lambda m: m.BatchNorm1d(4, eps=0.01), [(3, 4, 5)]),
    "batch, no parameters": (lambda m: m.BatchNorm1d(4, affine=False), [(7, 4)]),
    "batch, no statistics": (lambda m: m.BatchNorm1d(4, track_running_stats=False), [(7, 4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_like_torch(name: str, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    make, shapes = CASES[name]
    ours, theirs = make(nn), make(torch.nn)
    same_parameters(ours, theirs, rng)
    check_like_torch(ours, theirs, [rng.normal(size=s).astype(np.float32) for s in shapes])


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_embedding_like_torch(padding: int | None, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    ours, theirs = nn.Embedding(5, 3, padding), torch.nn.Embedding(5, 3, padding_idx=padding)
    if padding is not None:
        assert not ours.weight.detach().numpy()[padding].any()
    same_parameters(ours, theirs, rng)
    check_like_torch(ours, theirs, [rng.integers(0, 5, (4, 2))])


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_like_torch(momentum: float | None, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm1d(3, momentum=momentum), torch.nn.BatchNorm1d(3, momentum=momentum)
    for _ in range(4):
        x = rng.normal(2.0, 3.0, (6, 3)).astype(np.float32)
        ours(Tensor(x))
        theirs(torch.tensor(x))
    for name, b in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), b.numpy(), rtol=1e-5)
    ours.eval()
    theirs.eval()
    x = rng.normal(size=(1, 3)).astype(np.float32)
    wanted = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(Tensor(x)).detach().numpy(), wanted, rtol=1e-5)
    assert ours.num_batches_tracked.item() == 4


def test_statistics_in_compiled_steps(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(8, 4)).astype(np.float32))
    ends = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
        update = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Tensor, model: Any = model, update: Any = update) -> Tensor:
            update.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            update.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        losses = [run(x).item() for _ in range(4)]
        ends.append((losses, model.state_dict()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4)
    for name, a in ends[0][1].items():
        np.testing.assert_allclose(a.numpy(), ends[1][1][name].numpy(), rtol=1e-3, atol=1e-5)


def test_rbf(rng: np.random.Generator) -> None:
    layer = nn.RBF(2, 3, beta=0.5, dtype=tg.float64)
    x = rng.normal(size=(4, 2))
    centers = layer.centers.detach().numpy()
    wanted = np.exp(-0.5 * ((x[:, None] - centers) ** 2).sum(-1))
    np.testing.assert_allclose(layer(Tensor(x)).detach().numpy(), wanted, rtol=1e-12)
    assert gradcheck(layer, Tensor(x, requires_grad=True))
    assert [p.shape for p in layer.parameters()] == [(3, 2), (3,)]


def test_radial_basis_functions_learn_xor() -> None:
    tg.manual_seed(1)
    model = nn.Sequential(nn.RBF(2, 8), nn.Linear(8, 1))
    x = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = Tensor([[0.0], [1.0], [1.0], [0.0]])
    update = optim.Adam(model.parameters(), lr=0.05)

    @tg.compile
    def step() -> Tensor:
        update.zero_grad()
        loss = nn.functional.mse_loss(model(x), t)
        loss.backward()
        update.step()
        return loss

    for _ in range(600):
        loss = step()
    assert loss.item() < 1e-3


def test_module_dict() -> None:
    parts = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ReLU()})
    assert list(parts) == ["a", "b"]
    assert "a" in parts
    assert "c" not in parts
    assert [name for name, _ in parts.named_parameters()] == ["a.weight", "a.bias"]
    parts["c"] = nn.Linear(3, 1, bias=False)
    parts["b"] = nn.Tanh()
    assert [type(m).__name__ for m in parts.values()] == ["Linear", "Tanh", "Linear"]
    del parts["a"]
    assert [name for name, _ in parts.items()] == ["b", "c"]
    assert len(parts) == 2
    with pytest.raises(KeyError, match="no module 'a'; there are b, c"):
        parts["a"]
    with pytest.raises(TypeError, match="must be a module"):
        parts["d"] = 3  # type: ignore[assignment]


def test_residual(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(2, 3)).astype(np.float32))
    layer = nn.Linear(3, 3)
    np.testing.assert_array_equal(
        nn.Residual(layer)(x).detach().numpy(), (layer(x) + x).detach().numpy()
    )
    wide, short = nn.Linear(3, 4), nn.Linear(3, 4)
    np.testing.assert_array_equal(
        nn.Residual(wide, short)(x).detach().numpy(), (short(x) + wide(x)).detach().numpy()
    )
    with pytest.raises(ShapeError, match="give a shortcut"):
        nn.Residual(wide)(x)


def test_deep_networks_of_residual_blocks_train() -> None:
    """E6: some 150 layers with skip connections."""
    tg.manual_seed(0)
    blocks = [
        nn.Residual(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU())) for _ in range(150)
    ]
    model = nn.Sequential(nn.Linear(2, 8), *blocks, nn.LayerNorm(8), nn.Linear(8, 1))
    x = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = Tensor([[0.0], [1.0], [1.0], [0.0]])
    update = optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        update.zero_grad()
        loss = nn.functional.mse_loss(model(x), t)
        loss.backward()
        update.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_errors() -> None:
    with pytest.raises(ValueError, match="num_groups must be a positive integer"):
        nn.GroupNorm(0, 4)
    with pytest.raises(ValueError, match="4 channels do not fall into 3 equal groups"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ShapeError, match=r"\(N, 4, \.\.\.\), got \(2, 3\)"):
        nn.GroupNorm(2, 4)(tg.zeros((2, 3)))
    with pytest.raises(ShapeError, match="more than one number"):
        nn.BatchNorm1d(4)(tg.zeros((1, 4)))
    with pytest.raises(ShapeError, match=r"\(N, 4\) or \(N, 4, L\)"):
        nn.BatchNorm1d(4)(tg.zeros((2, 3)))
    with pytest.raises(DtypeError, match="a tensor of integers"):
        nn.Embedding(3, 2)(tg.zeros(2))
    with pytest.raises(ValueError, match="one of 3 numbers, got 3"):
        nn.Embedding(3, 2, padding_idx=3)
    with pytest.raises(IndexError):
        nn.Embedding(3, 2)(Tensor([3]))
    with pytest.raises(ValueError, match="beta must be above 0"):
        nn.RBF(2, 3, beta=0.0)
    with pytest.raises(ShapeError, match="must have size 2"):
        nn.RBF(2, 3)(tg.zeros(3))
