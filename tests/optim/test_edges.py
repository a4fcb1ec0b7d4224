"""Optimizers, schedules and scales at their edges: used ones, odd sizes, negative figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, optim
from tensorgrad.amp import GradScaler
from tensorgrad.optim import ExponentialMovingAverage, lr_scheduler, update

Array = np.ndarray[Any, Any]

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.9, "centered": True},
    "Adam": {"lr": 0.1, "amsgrad": True},
    "AdamW": {"lr": 0.1},
    "Adadelta": {},
    "Adamax": {"lr": 0.1},
    "NAdam": {"lr": 0.1},
    "RAdam": {"lr": 0.1},
    "Lion": {"lr": 0.1},
    "LAMB": {"lr": 0.1},
    "Adafactor": {"lr": 0.1},
}


def gradients(seed: int, shapes: list[tuple[int, ...]]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def steps(optimizer: optim.Optimizer, params: list[Tensor], numbers: range) -> None:
    for k in numbers:
        for p, g in zip(params, gradients(k, [p.shape for p in params])):
            p.grad = Tensor(g)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_used_optimizer_takes_a_state_back(name: str) -> None:
    """Steps done after a state was taken are undone by loading it: what follows is the same."""
    shapes: list[tuple[int, ...]] = [(3, 4), (3,), (5, 2)]
    params = [Tensor(v, requires_grad=True) for v in gradients(100, shapes)]
    optimizer = getattr(optim, name)(params, **OPTIMIZERS[name])
    steps(optimizer, params, range(3))
    state, values = optimizer.state_dict(), [p.detach().numpy().copy() for p in params]
    steps(optimizer, params, range(3, 6))
    wanted = [p.detach().numpy().copy() for p in params]
    steps(optimizer, params, range(6, 9))
    for p, v in zip(params, values):
        p.detach().copy_(Tensor(v))
    optimizer.load_state_dict(state)
    steps(optimizer, params, range(3, 6))
    for p, w in zip(params, wanted):
        assert p.detach().numpy().tobytes() == w.tobytes()


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"Adafactor"}))
def test_a_parameter_that_pauses_goes_on_from_its_state(name: str) -> None:
    """Steps in which it has no gradient are none, whatever its neighbours do meanwhile."""
    starts = gradients(100, [(3, 4), (3,)])
    params = [Tensor(v, requires_grad=True) for v in starts]
    optimizer = getattr(optim, name)(params, **OPTIMIZERS[name])
    alone = Tensor(starts[1], requires_grad=True)
    other = getattr(optim, name)([alone], **OPTIMIZERS[name])
    for k in range(8):
        mine, its = gradients(k, [(3, 4), (3,)])
        params[0].grad = Tensor(mine)
        params[1].grad = None if k in (2, 3, 5) else Tensor(its)
        optimizer.step()
        if params[1].grad is not None:
            alone.grad = Tensor(its)
            other.step()
        np.testing.assert_allclose(params[1].detach().numpy(), alone.detach().numpy(), rtol=1e-6)


def test_the_variance_of_equal_gradients_is_not_negative() -> None:
    """Mean square less square of the mean: by rounding it may fall below 0."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(500).astype(np.float32)
    p = Tensor(start, requires_grad=True)
    p.grad = Tensor((rng.standard_normal(500) * 100).astype(np.float32))
    optimizer = optim.RMSprop([p], lr=1e-6, alpha=0.7, centered=True)
    for _ in range(60):
        optimizer.step()
    assert np.isfinite(p.detach().numpy()).all()


@pytest.mark.parametrize("size", [11, 13, 19, 23])
def test_every_number_of_a_large_parameter_is_updated(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size need not be a multiple of the size of a chunk."""
    monkeypatch.setattr(update, "CHUNK", 5)
    p = Tensor(np.zeros(size), requires_grad=True)
    p.grad = Tensor(np.arange(1.0, size + 1))
    optim.SGD([p], lr=0.5).step()
    np.testing.assert_array_equal(p.detach().numpy(), -0.5 * np.arange(1.0, size + 1))


@pytest.mark.parametrize("length", [6, 7, 8, 30])
def test_rectified_steps_written_out(length: int) -> None:
    """RAdam with the usual betas: plain for five steps, as the paper has it."""
    rng = np.random.default_rng(1)
    p = Tensor(np.array([0.5, -1.0]), requires_grad=True)
    optimizer = optim.RAdam([p], lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    x, m, v = p.detach().numpy().copy(), np.zeros(2), np.zeros(2)
    n = 2 / (1 - 0.999) - 1
    for t in range(1, length + 1):
        g = rng.standard_normal(2)
        p.grad = Tensor(g)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        k = n - 2 * t * 0.999**t / (1 - 0.999**t)
        step = m / (1 - 0.9**t)
        if k > 5:
            r = np.sqrt((k - 4) * (k - 2) * n / ((n - 4) * (n - 2) * k))
            step = step * r * np.sqrt(1 - 0.999**t) / (np.sqrt(v) + 1e-8)
        x = x - 0.1 * step
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-10)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("most", [0.5, 100.0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clipping_written_out(norm_type: float, most: float, dtype: str) -> None:
    """The norm of all gradients together, signs and sizes; nothing is ever scaled up."""
    values = [np.array([3.0, -40.0, 1.0]), np.array([[2.0], [-0.5]])]
    params = [Tensor(np.zeros(v.shape), dtype=dtype, requires_grad=True) for v in values]
    for p, v in zip(params, values):
        p.grad = Tensor(v, dtype=dtype)
    together = np.concatenate([v.ravel() for v in values])
    wanted = np.linalg.norm(together, norm_type)
    found = optim.clip_grad_norm_(params, most, norm_type)
    assert float(found.item()) == pytest.approx(wanted, rel=1e-3)
    factor = min(1.0, most / wanted)
    for p, v in zip(params, values):
        assert p.grad is not None
        np.testing.assert_allclose(p.grad.float().numpy(), v * factor, rtol=2e-3)


def test_squares_of_16_bit_gradients_do_not_overflow() -> None:
    p = Tensor(np.zeros(4), dtype="float16", requires_grad=True)
    p.grad = Tensor(np.full(4, 3000.0), dtype="float16")
    assert float(optim.clip_grad_norm_([p], 1.0).item()) == pytest.approx(6000)
    np.testing.assert_allclose(p.grad.float().numpy(), 0.5, rtol=1e-3)


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 3, 2)])
@pytest.mark.parametrize("d", [1.0, 1.5])
def test_factored_steps_written_out(shape: tuple[int, ...], d: float) -> None:
    """Adafactor: in proportion to the size of the weights, cut where updates are large."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * 5
    p = Tensor(x, requires_grad=True)
    optimizer = optim.Adafactor([p], lr=0.05, eps=(1e-30, 1e-3), d=d, weight_decay=0.1)
    rows = columns = whole = np.zeros(())
    for t in range(1, 6):
        g = rng.standard_normal(shape) * 10.0**-t
        p.grad = Tensor(g)
        optimizer.step()
        new = t**-0.8
        length = max(1e-3, np.sqrt((x**2).mean())) * min(0.05, t**-0.5)
        x = x * (1 - 0.05 * 0.1)
        if len(shape) > 1:
            rows = rows + new * ((g**2).mean(-1, keepdims=True) - rows)
            columns = columns + new * ((g**2).mean(-2, keepdims=True) - columns)
            v = rows * columns / rows.mean(-2, keepdims=True)
        else:
            whole = whole + new * (g**2 - whole)
            v = whole
        u = g / np.sqrt(v)
        x = x - length / max(1, np.sqrt((u**2).mean()) / d) * u
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-9)


# --- schedules ------------------------------------------------------------------------------------


def one(lr: float = 1.0) -> optim.SGD:
    return optim.SGD([Tensor(np.zeros(1), requires_grad=True)], lr=lr)


@pytest.mark.parametrize(
    ("mode", "figures", "better"),
    [
        ("min", (-10.0, -10.5), False),
        ("min", (-10.0, -11.5), True),
        ("max", (-10.0, -9.5), False),
        ("max", (-10.0, -8.5), True),
        ("min", (10.0, 9.5), False),
        ("min", (10.0, 8.5), True),
        ("max", (10.0, 10.5), False),
        ("max", (10.0, 11.5), True),
        ("min", (0.0, -1e-9), True),
    ],
)
def test_what_counts_as_better(mode: str, figures: tuple[float, float], better: bool) -> None:
    """A tenth of the size of the best figure, whatever its sign."""
    optimizer = one()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, mode, threshold=0.1, patience=0)
    for figure in figures:
        schedule.step(figure)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.0 if better else 0.1)


def test_a_plateau_step_by_step() -> None:
    """Patience 2 and cooldown 3: the rate falls after the third bad step that is counted."""
    optimizer = one()
    schedule = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, cooldown=3, min_lr=0.3
    )
    rates = []
    for _ in range(15):
        schedule.step(1.0)
        rates.append(optimizer.param_groups[0]["lr"])
    # The first is the best. After a fall three steps are waited for, then three are bad.
    assert rates == [1.0] * 3 + [0.5] * 6 + [0.3] * 6


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda o: lr_scheduler.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25, 0.25]),
        (lambda o: lr_scheduler.MultiStepLR(o, [4, 1], 0.5), [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        (lambda o: lr_scheduler.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o: lr_scheduler.PolynomialLR(o, 4, 2.0), [1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
        (lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 2), [0.5, 0.75, 1, 1]),
        (lambda o: lr_scheduler.ConstantLR(o, 0.5, 2), [0.5, 0.5, 1, 1]),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 2, 0.2), [1, 0.6, 0.2, 0.6, 1]),
        (
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
            [1, 0.5, 1, 0.853553, 0.5, 0.146447, 1, 0.961940],
        ),
        (
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, 10, 0.3, "linear", div_factor=10, final_div_factor=1
            ),
            [0.1, 0.55, 1, 0.871429, 0.742857, 0.614286, 0.485714, 0.357143, 0.228571, 0.1],
        ),
        (
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.ConstantLR(o, 0.5, 9), lr_scheduler.ExponentialLR(o, 0.5)], [2]
            ),
            [0.5, 0.5, 1, 0.5, 0.25],
        ),
        (
            lambda o: lr_scheduler.ChainedScheduler(
                [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.5)]
            ),
            [0.5, 0.25, 0.25, 0.125],
        ),
    ],
)
def test_schedules_written_out(make: Any, wanted: list[float]) -> None:
    """The first rates of each, by its formula, of a rate of 1."""
    optimizer = one()
    schedule = make(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in wanted[1:]:
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-12)


# --- scaled losses --------------------------------------------------------------------------------


def scaled(scaler: GradScaler, *gradients: float) -> bool:
    """A step of parameters whose gradients are these; says whether it was made."""
    params = [Tensor(np.ones(2, np.float32), requires_grad=True) for _ in gradients]
    for p, g in zip(params, gradients):
        p.grad = Tensor(np.full(2, g, np.float32))
    optimizer = optim.SGD(params, lr=0.1)
    done = scaler.step(optimizer)
    scaler.update()
    return done


def test_only_good_steps_in_a_row_count() -> None:
    """An infinity among them begins the count anew, and so does a change of the scale."""
    scaler = GradScaler(init_scale=8.0, growth_interval=3)
    scales = []
    for gradient in (1.0, 1.0, np.inf, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        scaled(scaler, gradient)
        scales.append(scaler.get_scale())
    assert scales == [8, 8, 4, 4, 4, 8, 8, 8, 16]


def test_the_count_of_good_steps_is_part_of_the_state() -> None:
    scaler = GradScaler(init_scale=8.0, growth_interval=3)
    scaled(scaler, 1.0)
    scaled(scaler, 1.0)
    other = GradScaler(init_scale=1.0, growth_interval=3)
    other.load_state_dict(scaler.state_dict())
    scaled(other, 1.0)
    assert other.get_scale() == 16


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_gradient_that_is_not_finite_is_enough(place: int, bad: float) -> None:
    """Wherever it stands."""
    scaler = GradScaler(init_scale=8.0)
    numbers = [1.0, 1.0, 1.0]
    numbers[place] = bad
    assert not scaled(scaler, *numbers)
    assert scaler.get_scale() == 4


# --- averages -------------------------------------------------------------------------------------


def test_the_warm_up_of_an_average_goes_on_after_loading() -> None:
    """The n-th mean keeps (1 + n) / (10 + n) at most."""
    from tensorgrad import nn

    model = nn.Linear(1, 1, bias=False)
    model.weight.detach().copy_(Tensor([[0.0]]))
    average = ExponentialMovingAverage(model, 0.999)
    mean = 0.0
    for n in range(1, 8):
        model.weight.detach().copy_(Tensor([[float(n)]]))
        average.update()
        mean += (1 - (1 + n) / (10 + n)) * (n - mean)
        if n == 4:
            again = ExponentialMovingAverage(model, 0.999)
            again.load_state_dict(average.state_dict())
            average = again
    assert float(average.state_dict()["means"]["weight"].item()) == pytest.approx(mean, rel=1e-6)
