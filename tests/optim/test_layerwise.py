"""LAMB, Adafactor, Muon: closed forms, PyTorch, states of their own shapes, compiled steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import ShapeError

SHAPES: list[tuple[int, ...]] = [(3, 4), (3,), (5, 2), (2, 3, 2)]
MATRICES: list[tuple[int, ...]] = [(3, 4), (6, 2), (2, 2)]
OPTIMIZERS: dict[str, tuple[list[tuple[int, ...]], dict[str, Any]]] = {
    "LAMB": (SHAPES, {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.02}),
    "Adafactor": (SHAPES, {"lr": 0.1, "weight_decay": 0.02}),
    "Muon": (MATRICES, {"lr": 0.1, "weight_decay": 0.02}),
}


def started(name: str, dtype: str = "float64") -> tuple[list[Tensor], Any, np.random.Generator]:
    rng = np.random.default_rng(3)
    shapes, options = OPTIMIZERS[name]
    params = [Tensor(rng.standard_normal(s), dtype=dtype, requires_grad=True) for s in shapes]
    return params, getattr(optim, name)(params, **options), rng


def test_lamb_closed_form() -> None:
    """The paper's rule, written out."""
    params, optimizer, rng = started("LAMB")
    values = [p.detach().numpy().copy() for p in params]
    states = [(np.zeros_like(v), np.zeros_like(v)) for v in values]
    for t in range(1, 5):
        for i, p in enumerate(params):
            g = rng.standard_normal(p.shape)
            p.grad = Tensor(g)
            m, v = states[i]
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            states[i] = m, v
            r = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6) + 0.02 * values[i]
            ratio = np.linalg.norm(values[i]) / np.linalg.norm(r)
            values[i] = values[i] - 0.1 * ratio * r
        optimizer.step()
        for p, value in zip(params, values, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-12)


def test_lamb_where_a_norm_is_0() -> None:
    """The step is not scaled, and nothing is divided by 0."""
    p = Tensor(np.zeros(3), requires_grad=True)
    p.grad = Tensor(np.array([1.0, -2.0, 3.0]))
    optim.LAMB([p], lr=0.1).step()
    np.testing.assert_allclose(p.detach().numpy(), [-0.1, 0.1, -0.1], rtol=1e-5)
    q = Tensor(np.ones(3), requires_grad=True)
    q.grad = Tensor(np.zeros(3))
    optim.LAMB([q]).step()
    assert q.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_agrees_with_torch(name: str) -> None:
    """Over 20 steps; Muon to the accuracy of PyTorch's bfloat16 products."""
    torch = pytest.importorskip("torch")
    params, optimizer, rng = started(name)
    theirs = [torch.tensor(p.detach().numpy(), requires_grad=True) for p in params]
    peer = getattr(torch.optim, name)(theirs, **OPTIMIZERS[name][1])
    for _ in range(20):
        for p, q in zip(params, theirs, strict=True):
            g = rng.standard_normal(p.shape)
            p.grad, q.grad = Tensor(g), torch.tensor(g)
        optimizer.step()
        peer.step()
    tolerance = 1e-10 if name == "Adafactor" else 0.05
    for p, q in zip(params, theirs, strict=True):
        np.testing.assert_allclose(
            p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_makes_singular_values_equal(nesterov: bool) -> None:
    """Close to U Vᵀ, as far as five steps with these coefficients go (0.7 to 1.2)."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((8, 5))
    p = Tensor(start, requires_grad=True)
    g = rng.standard_normal((8, 5)) * np.array([10, 1, 1, 0.5, 0.2])
    p.grad = Tensor(g)
    optim.Muon([p], lr=1.0, weight_decay=0.0, nesterov=nesterov).step()
    step = (start - p.detach().numpy()) / np.sqrt(8 / 5)
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    found = np.diag(u.T @ step @ vt.T)
    assert (found > 0.65).all()
    assert (found < 1.25).all()
    np.testing.assert_allclose(u.T @ step @ vt.T - np.diag(found), 0, atol=1e-6)


def test_muon_takes_matrices_only() -> None:
    """And says what to do with the rest."""
    with pytest.raises(ValueError, match=r"parameter 1 has shape \(3,\).*AdamW"):
        optim.Muon([Tensor(np.ones((2, 2)), requires_grad=True),
                    Tensor(np.ones(3), requires_grad=True)])  # fmt: skip


def test_adafactor_remembers_rows_and_columns() -> None:
    """n + m numbers in place of n m."""
    params, optimizer, rng = started("Adafactor")
    for p in params:
        p.grad = Tensor(rng.standard_normal(p.shape))
    optimizer.step()
    shapes = [{k: v.shape for k, v in optimizer.state[p].items() if k != "step"} for p in params]
    assert shapes == [
        {"row_var": (3, 1), "col_var": (1, 4)},
        {"variance": (3,)},
        {"row_var": (5, 1), "col_var": (1, 2)},
        {"row_var": (2, 3, 1), "col_var": (2, 1, 2)},
    ]
    with pytest.raises(ValueError, match="beta2_decay must be at most 0"):
        optim.Adafactor(params, beta2_decay=0.5)
    state = optimizer.state_dict()
    state["state"][0]["row_var"] = Tensor(np.ones((4, 1)))
    with pytest.raises(ShapeError, match="row_var"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_after_saving(name: str) -> None:
    """A second optimizer with the first one's state makes the same steps, bit by bit."""
    params, optimizer, rng = started(name)
    others, second, _ = started(name)
    for t in range(6):
        gradients = [rng.standard_normal(p.shape) for p in params]
        for p, g in zip(params, gradients, strict=True):
            p.grad = Tensor(g)
        optimizer.step()
        if t < 3:
            for p, q in zip(params, others, strict=True):
                q.detach().copy_(p.detach())
            second.load_state_dict(optimizer.state_dict())
            continue
        for q, g in zip(others, gradients, strict=True):
            q.grad = Tensor(g)
        second.step()
        for p, q in zip(params, others, strict=True):
            assert p.data.tobytes() == q.data.tobytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits(name: str, dtype: str) -> None:
    """Computed in float32, with float32 states."""
    params, optimizer, rng = started(name, dtype)
    wide, second, _ = started(name, "float32")
    for p, q in zip(params, wide, strict=True):
        q.detach().copy_(p.detach())
        g = Tensor(rng.standard_normal(p.shape), dtype=dtype)
        p.grad, q.grad = g, g.float()
    optimizer.step()
    second.step()
    for p, q in zip(params, wide, strict=True):
        assert str(p.dtype) == dtype
        expected = q.detach().numpy()
        assert all(str(v.dtype) == "float32" for k, v in optimizer.state[p].items() if k != "step")
        np.testing.assert_allclose(p.detach().float().numpy(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_empty_parameters(name: str) -> None:
    """Are left alone."""
    p = Tensor(np.zeros((2, 0)), requires_grad=True)
    p.grad = Tensor(np.zeros((2, 0)))
    getattr(optim, name)([p]).step()
    assert p.shape == (2, 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_a_compiled_step(name: str) -> None:
    """The same weights as without compiling, with a rate that changes on the way."""

    def trained(compiled: bool) -> list[Any]:
        rng = np.random.default_rng(0)
        w1 = Tensor(rng.standard_normal((4, 6)), requires_grad=True)
        w2 = Tensor(rng.standard_normal((6, 2)), requires_grad=True)
        optimizer = getattr(optim, name)([w1, w2], **OPTIMIZERS[name][1])

        def step(x: Tensor, t: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss((x @ w1).tanh() @ w2, t)
            loss.backward()
            optimizer.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        for i in range(8):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + i // 3)
            run(Tensor(rng.standard_normal((5, 4))), Tensor(rng.standard_normal((5, 2))))
        if compiled and name == "LAMB":
            assert "call lamb" not in str(run.report())
        return [w1.detach().numpy(), w2.detach().numpy()]

    for a, b in zip(trained(False), trained(True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
