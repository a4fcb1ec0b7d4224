"""Mixed precision: what is computed in 16 bits, master weights, dynamic loss scaling."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.amp import GradScaler, autocast
from tensorgrad.errors import DtypeError, GradientError
from tensorgrad.nn import functional
from tensorgrad.optim import SGD, Adam

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5)).astype(np.float32)
T = (X[:, 0] > 0).astype(np.int64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_in_16_bits_and_the_rest_not(dtype: str) -> None:
    """As PyTorch's autocast has it; parameters and their gradients stay float32."""
    net = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    with autocast(dtype):
        hidden = net[0](Tensor(X))
        assert str(hidden.dtype) == dtype
        assert str((hidden @ Tensor(np.ones((4, 2), np.float32))).dtype) == dtype
        assert str(net[1](hidden).dtype) == "float32"
        output = net(Tensor(X))
        assert str(output.dtype) == dtype
        assert str(functional.softmax(output).dtype) == "float32"
        loss = functional.cross_entropy(output, Tensor(T))
    assert str(loss.dtype) == "float32"
    assert str(net(Tensor(X)).dtype) == "float32"
    loss.backward()
    for p in net.parameters():
        assert p.grad is not None
        assert str(p.grad.dtype) == "float32"


def test_values_are_rounded_as_torch_rounds_them() -> None:
    """A linear layer in bfloat16 on the CPU, with the master weights' gradients."""
    torch = pytest.importorskip("torch")
    w = RNG.normal(size=(3, 5)).astype(np.float32)
    ours, theirs = Tensor(w, requires_grad=True), torch.tensor(w, requires_grad=True)
    with autocast("bfloat16"):
        y = functional.linear(Tensor(X), ours)
    with torch.autocast("cpu", torch.bfloat16):
        z = torch.nn.functional.linear(torch.tensor(X), theirs)
    np.testing.assert_allclose(
        y.detach().float().numpy(), z.detach().float().numpy(), rtol=1e-2, atol=1e-2
    )
    y.float().sum().backward()
    z.float().sum().backward()
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=2e-2, atol=2e-2)


def test_switches_nest_and_belong_to_a_thread() -> None:
    """Another thread is not affected; float64 is left alone; other dtypes are refused."""
    a = Tensor(np.ones((2, 2), np.float32))
    seen: list[str] = []
    with autocast("float16"):
        with autocast(enabled=False):
            assert str((a @ a).dtype) == "float32"
        assert str((a @ a).dtype) == "float16"
        assert str((a.double() @ a.double()).dtype) == "float64"
        thread = threading.Thread(target=lambda: seen.append(str((a @ a).dtype)))
        thread.start()
        thread.join()
    assert seen == ["float32"]
    with pytest.raises(DtypeError, match="float16 or bfloat16"):
        autocast("float64")


def test_scaler_keeps_small_gradients() -> None:
    """1e-9 would be 0 in float16; scaled up, it arrives."""
    found = []
    for scaler in (GradScaler(init_scale=1.0), GradScaler(init_scale=2.0**14)):
        w = Tensor(np.array([[1.0]], np.float32), requires_grad=True)
        optimizer = SGD([w], lr=1.0)
        with autocast("float16"):
            loss = (Tensor(np.ones((1, 1), np.float32)) @ w).float().sum() * 1e-9
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert w.grad is not None
        found.append(float(w.grad.item()))
    assert found[0] == 0
    assert found[1] == pytest.approx(1e-9, rel=1e-2)


def test_scaler_leaves_out_steps_and_finds_its_scale() -> None:
    """Halved after a gradient that is not finite, doubled after so many that are."""
    w = Tensor(np.ones(2, np.float32), requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    scaler = GradScaler(init_scale=8.0, growth_interval=3)

    def step(value: float) -> bool:
        optimizer.zero_grad()
        scaler.scale((w * value).sum()).backward()
        done = scaler.step(optimizer)
        scaler.update()
        return done

    assert not step(np.inf)
    assert w.tolist() == [1, 1]
    assert scaler.get_scale() == 4
    assert scaler.skipped == 1
    assert [step(1.0) for _ in range(3)] == [True] * 3
    assert scaler.get_scale() == 8
    np.testing.assert_allclose(w.detach().numpy(), 0.7, rtol=1e-6)
    other = GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(ValueError, match="growth_factor above 1"):
        GradScaler(growth_factor=0.5)


def scaled(**options: Any) -> tuple[GradScaler, list[Tensor], list[SGD]]:
    """A scaler, and two parameters with an optimizer for each."""
    leaves = [Tensor(np.ones(2, np.float32), requires_grad=True) for _ in range(2)]
    return GradScaler(init_scale=1024.0, **options), leaves, [SGD([p], lr=1.0) for p in leaves]


@pytest.mark.parametrize("unscaled", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("infinite", [(), (0,), (1,), (0, 1)])
def test_a_scaler_of_two_optimizers(infinite: tuple[int, ...], unscaled: tuple[int, ...]) -> None:
    """Each is judged by its own gradients, and the scale by those of both."""
    scaler, (p, q), optimizers = scaled(growth_interval=1)
    factors = [float(np.inf) if i in infinite else c for i, c in enumerate((0.5, 0.25))]
    scaler.scale((p * factors[0] + q * factors[1]).sum()).backward()
    for i in unscaled:
        scaler.unscale_(optimizers[i])
    done = [scaler.step(optimizer) for optimizer in optimizers]
    scaler.update()
    assert done == [i not in infinite for i in range(2)]
    wanted = [1.0 if i in infinite else 1 - c for i, c in enumerate((0.5, 0.25))]
    assert [p.tolist(), q.tolist()] == [[value] * 2 for value in wanted]
    assert scaler.get_scale() == (512 if infinite else 2048)
    assert scaler.skipped == bool(infinite)


def test_gradients_are_divided_once_between_updates() -> None:
    scaler, (p, _), (one, two) = scaled()
    for _ in range(2):
        p.grad = Tensor(np.full(2, 512.0, np.float32))
        scaler.unscale_(one)
        with pytest.raises(GradientError, match="divided by the scale already"):
            scaler.unscale_(one)
        assert scaler.step(one)
        with pytest.raises(GradientError, match="stepped already"):
            scaler.step(one)
        with pytest.raises(GradientError, match="divided by the scale already"):
            scaler.unscale_(one)
        assert scaler.step(two)  # it has no gradients, which is no reason against a step
        scaler.update()
    assert p.tolist() == [0.0, 0.0]
    with pytest.raises(GradientError, match=r"call step\(optimizer\) first"):
        scaler.update()
    assert scaler.get_scale() == 1024


@pytest.mark.parametrize("divided", [False, True])
def test_a_compiled_pass_for_two_optimizers(divided: bool) -> None:
    """Forward and backward in a program, perhaps with the division; steps and update outside."""

    def trained(compiled: bool) -> tuple[list[Any], float, int]:
        scaler, leaves, optimizers = scaled(growth_interval=2)
        factors = Tensor(np.array([0.5, 0.25], np.float32))

        def passes(x: Tensor) -> Tensor:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = (leaves[0] * x * factors[0] + leaves[1] * factors[1]).sum()
            scaler.scale(loss).backward()
            if divided:
                for optimizer in optimizers:
                    scaler.unscale_(optimizer)
            return loss

        run: Any = tg.compile(passes) if compiled else passes
        for value in (1.0, np.inf, 2.0, 1.0, 0.0, np.nan, 1.0, 3.0, 1.0, 1.0):
            run(Tensor(np.array([1.0, value], np.float32)))
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
        if compiled:
            assert run.captures == 1
        return [p.tolist() for p in leaves], scaler.get_scale(), scaler.skipped

    assert trained(True) == trained(False)
    assert trained(False)[1:] == (2048.0, 2)


def test_what_a_program_divides_twice_is_found_by_the_step() -> None:
    scaler, (p, _), (one, _) = scaled()

    @tg.compile
    def passes() -> None:
        one.zero_grad()
        scaler.scale(p.sum()).backward()
        scaler.unscale_(one)
        scaler.unscale_(one)

    passes()
    with pytest.raises(GradientError, match="divided by the scale already"):
        scaler.step(one)


def test_a_parameter_of_two_optimizers_is_divided_once() -> None:
    scaler, (p, q), (one, _) = scaled()
    other = SGD([q, p], lr=1.0)
    scaler.scale((p + q).sum()).backward()
    scaler.unscale_(one)
    with pytest.raises(GradientError, match="belongs to two of the optimizers"):
        scaler.step(other)
    assert p.grad is not None
    assert q.grad is not None
    assert (p.grad.tolist(), q.grad.tolist()) == ([1, 1], [1024, 1024])


@pytest.mark.parametrize(("value", "bound"), [(1.0, 2.0**126), (np.nan, 2.0**-126)])
def test_the_scale_stays_finite(value: float, bound: float) -> None:
    """However long gradients are finite, or are not; and so does what they are multiplied by."""
    scaler, (p, _), (optimizer, _) = scaled(growth_factor=2.0**40, backoff_factor=2.0**-40)
    scaler.growth_interval = 1
    for _ in range(6):
        p.grad = Tensor(np.full(2, value, np.float32))
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == bound
    p.grad = Tensor(np.full(2, bound, np.float32))
    scaler.unscale_(optimizer)
    assert p.grad.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="the state has inf"):
        scaler.load_state_dict({"scale": np.inf, "steps": 0, "skipped": 0})


def test_growth_counts_steps_in_a_row() -> None:
    """One without finite gradients begins the count again, and so does growth itself."""
    scaler, (p, _), (optimizer, _) = scaled(growth_interval=3)
    scales = []
    for value in (1, 1, np.inf, 1, 1, 1, 1, 1, np.nan, 1, 1, 1):
        p.grad = Tensor(np.full(2, value, np.float32))
        scaler.step(optimizer)
        scaler.update()
        scales.append(int(scaler.get_scale()))
        resumed = GradScaler(growth_interval=3)  # what is left of the count goes along
        resumed.load_state_dict(scaler.state_dict())
        scaler = resumed
    wanted = [1024, 1024, 512, 512, 512, 1024, 1024, 1024, 512, 512, 512, 1024]
    assert scales == wanted
    scaler.growth_interval = 5
    scaler.load_state_dict({"scale": 8.0, "steps": 7, "skipped": 0})
    p.grad = Tensor(np.ones(2, np.float32))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_gradients_of_other_dtypes_are_divided_exactly(dtype: str) -> None:
    """1 / scale is 0 in float16 from 2**25 on."""
    p = Tensor(np.ones(2), dtype=dtype, requires_grad=True)
    scaler = GradScaler(init_scale=2.0**30)
    p.grad = Tensor([2.0**12, 2.0**15], dtype=dtype)
    scaler.unscale_(SGD([p], lr=1.0))
    assert p.grad.tolist() == [2.0**-18, 2.0**-15]


def test_float16_training_with_a_scaler_learns() -> None:
    """Against the same network in float32."""

    def trained(mixed: bool) -> float:
        tg.manual_seed(1)
        net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        optimizer = Adam(net.parameters(), lr=0.02)
        scaler = GradScaler()
        loss: Any = None
        for _ in range(60):
            optimizer.zero_grad()
            with autocast("float16", enabled=mixed):
                loss = functional.cross_entropy(net(Tensor(X)), Tensor(T))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return float(loss.item())

    assert trained(True) == pytest.approx(trained(False), abs=0.02)
    assert trained(True) < 0.1


def test_compiled_step_with_autocast() -> None:
    """Casts are recorded like everything else."""
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    twin = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    twin.load_state_dict(net.state_dict())

    def step_of(model: nn.Module) -> Any:
        optimizer = SGD(model.parameters(), lr=0.1)

        def step(x: Tensor, t: Tensor) -> Tensor:
            optimizer.zero_grad()
            with autocast("bfloat16"):
                loss = functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        return step

    plain, compiled = step_of(net), tg.compile(step_of(twin))
    for _ in range(5):
        plain(Tensor(X), Tensor(T))
        compiled(Tensor(X), Tensor(T))
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-2, atol=2e-3)
