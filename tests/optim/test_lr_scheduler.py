"""Schedules against PyTorch's, step by step, and what is particular to ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import optim
from tensorgrad.optim import lr_scheduler as ours

STEPS = 40
#: Schedules, made of the module of schedules and an optimizer.
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda m, o: m.StepLR(o, 7, 0.5),
    "multi-step": lambda m, o: m.MultiStepLR(o, [20, 5], 0.3),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.9),
    "polynomial": lambda m, o: m.PolynomialLR(o, 25, 2.0),
    "linear": lambda m, o: m.LinearLR(o, 0.2, 1.0, 10),
    "constant": lambda m, o: m.ConstantLR(o, 0.25, 6),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 30, 0.001),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4, 2, 0.001),
    "equal restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 6),
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.5, STEPS + 1),
    "one cycle, linear": lambda m, o: m.OneCycleLR(
        o, 0.5, STEPS + 1, pct_start=0.4, anneal_strategy="linear"
    ),
    "lambda": lambda m, o: m.LambdaLR(o, lambda k: 1 / (1 + k)),
    "warm-up, then cosine": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, 1.0, 5), m.CosineAnnealingLR(o, 40)], [5]
    ),
    "chained": lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.5, 4), m.ExponentialLR(o, 0.9)]),
}


def optimizer(*rates: float) -> optim.SGD:
    groups = [{"params": [tg.zeros(2, requires_grad=True)], "lr": lr} for lr in rates]
    return optim.SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_like_pytorch(name: str) -> None:
    torch: Any = pytest.importorskip("torch")
    mine = optimizer(0.1, 0.02)
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    theirs = torch.optim.SGD(
        [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 0.02))], lr=0.1, momentum=0.9
    )
    a = CASES[name](ours, mine)
    b = CASES[name](torch.optim.lr_scheduler, theirs)
    for _ in range(STEPS):
        wanted = [group["lr"] for group in theirs.param_groups]
        np.testing.assert_allclose(a.get_last_lr(), wanted, rtol=1e-6, atol=1e-12)
        theirs.step()
        a.step()
        b.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_like_pytorch(mode: str, threshold_mode: str, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    mine = optimizer(0.1)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    options: dict[str, Any] = {
        "mode": mode, "factor": 0.5, "patience": 2, "threshold": 0.05, "cooldown": 1,
        "min_lr": 1e-3, "threshold_mode": threshold_mode,
    }  # fmt: skip
    a = ours.ReduceLROnPlateau(mine, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for figure in rng.normal(size=60):
        a.step(figure)
        b.step(figure)
        assert a.get_last_lr() == pytest.approx([g["lr"] for g in theirs.param_groups])
    assert a.get_last_lr()[0] < 0.1


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_schedule_goes_on(name: str) -> None:
    first = optimizer(0.1, 0.02)
    whole = CASES[name](ours, first)
    for _ in range(11):
        whole.step()
    second = optimizer(0.1, 0.02)
    resumed = CASES[name](ours, second)
    resumed.load_state_dict(whole.state_dict())
    for _ in range(20):
        assert resumed.get_last_lr() == whole.get_last_lr()
        whole.step()
        resumed.step()


def nested(o: optim.Optimizer) -> Any:
    inner = ours.SequentialLR(o, [ours.ConstantLR(o, 0.5, 2), ours.ExponentialLR(o, 0.9)], [2])
    return ours.ChainedScheduler([inner, ours.StepLR(o, 1, 0.5)])


def sequence_of_chains(o: optim.Optimizer) -> Any:
    warm = ours.ChainedScheduler([ours.LinearLR(o, 0.25, 1.0, 3), ours.ExponentialLR(o, 0.5)])
    inner = ours.SequentialLR(o, [ours.ConstantLR(o, 0.5, 1), ours.ExponentialLR(o, 0.1)], [1])
    return ours.SequentialLR(o, [warm, inner], [3])


def made_in_another_order(o: optim.Optimizer) -> Any:
    late = ours.ConstantLR(o, 0.5, 9)
    early = ours.LinearLR(o, 0.25, 1.0, 3)  # made of rates that have changed already
    return ours.SequentialLR(o, [early, late], [3])


@pytest.mark.parametrize(
    ("make", "factors"),
    [
        (nested, [0.5, 0.25, 0.25, 0.1125, 0.050625]),
        (sequence_of_chains, [0.25, 0.25, 0.1875, 0.5, 1.0, 0.1, 0.01]),
        (made_in_another_order, [0.25, 0.5, 0.75, 0.5, 0.5]),
    ],
)
def test_schedules_within_one_another(make: Callable[[Any], Any], factors: list[float]) -> None:
    o = optimizer(0.1, 0.02)
    schedule = make(o)
    for factor in factors:
        assert schedule.get_last_lr() == pytest.approx([0.1 * factor, 0.02 * factor])
        twin = make(optimizer(0.1, 0.02))
        twin.load_state_dict(schedule.state_dict())
        assert twin.get_last_lr() == schedule.get_last_lr()
        schedule.step()


def test_what_depends_on_figures_is_not_combined() -> None:
    o = optimizer(0.1)
    plateau: Any = ours.ReduceLROnPlateau(o)
    for make in (
        lambda: ours.ChainedScheduler([ours.StepLR(o, 1), plateau]),
        lambda: ours.SequentialLR(o, [plateau, ours.StepLR(o, 1)], [1]),
    ):
        with pytest.raises(TypeError, match="got ReduceLROnPlateau; call its step"):
            make()
    with pytest.raises(ValueError, match=r"must be in order, got \[5, 2\]"):
        ours.SequentialLR(o, [ours.StepLR(o, 1) for _ in range(3)], [5, 2])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_group_added_later_goes_along(name: str, steps: int) -> None:
    """From the rate that it was given: as if it had been there from the start."""
    o = optimizer(0.1)
    schedule = CASES[name](ours, o)
    for _ in range(steps):
        schedule.step()
    o.add_param_group({"params": [tg.zeros(2, requires_grad=True)], "lr": o.param_groups[0]["lr"]})
    for _ in range(12):
        schedule.load_state_dict(schedule.state_dict())
        assert schedule.get_last_lr() == pytest.approx([schedule.get_last_lr()[0]] * 2)
        schedule.step()
    short = CASES[name](ours, optimizer(0.1))
    with pytest.raises(ValueError, match="of 2 parameter groups, the optimizer has 1; add"):
        short.load_state_dict(schedule.state_dict())


def test_a_group_added_later_keeps_its_rate_until_the_next_step() -> None:
    o = optimizer(0.1)
    schedule = ours.StepLR(o, 2, 0.5)
    for _ in range(3):
        schedule.step()
    o.add_param_group({"params": [tg.zeros(2, requires_grad=True)], "lr": 0.4})
    schedule.state_dict()
    assert schedule.get_last_lr() == [0.05, 0.4]
    schedule.step()
    assert schedule.get_last_lr() == [0.025, 0.2]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("start", [-2.0, 2.0])
@pytest.mark.parametrize(("threshold_mode", "margin"), [("rel", 0.2), ("abs", 0.1)])
def test_how_much_better_counts_below_zero(
    mode: str, start: float, threshold_mode: str, margin: float
) -> None:
    """A relative threshold is one of the size of the figure, whatever its sign."""
    sign = -1.0 if mode == "min" else 1.0
    for change, better in ((margin * 0.9, False), (margin * 1.1, True), (-margin, False)):
        plateau = ours.ReduceLROnPlateau(
            optimizer(0.1), mode=mode, threshold=0.1, threshold_mode=threshold_mode
        )
        plateau.step(start)
        plateau.step(start + sign * change)
        assert plateau.best == (start + sign * change if better else start)
        assert plateau.bad_steps == (not better)


def test_a_plateau_passes_over_nan() -> None:
    plateau = ours.ReduceLROnPlateau(optimizer(0.1), patience=5)
    for figure in (np.nan, 3.0, np.nan, 2.0):
        plateau.step(figure)
    assert (plateau.best, plateau.bad_steps) == (2.0, 0)


def test_a_plateau_of_other_groups_is_refused() -> None:
    saved = ours.ReduceLROnPlateau(optimizer(0.1, 0.2)).state_dict()
    plateau = ours.ReduceLROnPlateau(optimizer(0.3))
    plateau.step(1.0)
    with pytest.raises(ValueError, match="of 2 parameter groups"):
        plateau.load_state_dict(saved)
    assert (plateau.best, plateau.get_last_lr()) == (1.0, [0.3])


def test_a_resumed_plateau_goes_on() -> None:
    first, second = optimizer(0.1), optimizer(0.1)
    whole = ours.ReduceLROnPlateau(first, patience=1)
    for figure in (1.0, 2.0, 3.0, 4.0):
        whole.step(figure)
    resumed = ours.ReduceLROnPlateau(second, patience=1)
    resumed.load_state_dict(whole.state_dict())
    for figure in (3.0, 2.0, 5.0):
        assert resumed.get_last_lr() == whole.get_last_lr()
        whole.step(figure)
        resumed.step(figure)


def test_compiled_steps_take_the_rate_anew() -> None:
    w = tg.ones(3, requires_grad=True)
    update = optim.SGD([w], lr=1.0)
    schedule = ours.ExponentialLR(update, 0.5)

    @tg.compile
    def step() -> tg.Tensor:
        update.zero_grad()
        loss = w.sum()
        loss.backward()
        update.step()
        return loss

    for _ in range(4):
        step()
        schedule.step()
    np.testing.assert_allclose(w.detach().numpy(), 1 - (1 + 0.5 + 0.25 + 0.125))
    assert step.captures == 1


def test_errors() -> None:
    o = optimizer(0.1)
    with pytest.raises(TypeError, match="an optimizer is needed"):
        ours.StepLR(object(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step_size must be at least 1"):
        ours.StepLR(o, 0)
    with pytest.raises(ValueError, match="pct_start"):
        ours.OneCycleLR(o, 1.0, 10, pct_start=2.0)
    with pytest.raises(ValueError, match='"cos" or "linear"'):
        ours.OneCycleLR(o, 1.0, 10, anneal_strategy="cubic")
    for wrong in ((0, 1), (2.5, 1), (2, 0), (2, 1.5)):
        with pytest.raises(ValueError, match=r"T_\w+ must be an integer of at least 1, got"):
            ours.CosineAnnealingWarmRestarts(o, *wrong)
    short = ours.OneCycleLR(o, 1.0, 2)
    short.step()
    last = short.get_last_lr()
    short.step()  # after the last batch, as PyTorch allows it
    assert short.get_last_lr() == last
    with pytest.raises(ValueError, match="more total_steps"):
        short.step()
    with pytest.raises(ValueError, match="need 1 milestones, got 0"):
        ours.SequentialLR(o, [ours.StepLR(o, 3), ours.StepLR(o, 3)], [])
    with pytest.raises(ValueError, match="same optimizer"):
        ours.ChainedScheduler([ours.StepLR(o, 3), ours.StepLR(optimizer(0.1), 3)])
    with pytest.raises(ValueError, match="at least one"):
        ours.ChainedScheduler([])
    with pytest.raises(ValueError, match='"min" or "max"'):
        ours.ReduceLROnPlateau(o, mode="least")
    with pytest.raises(ValueError, match="below 1"):
        ours.ReduceLROnPlateau(o, factor=1.0)
    with pytest.raises(ValueError, match="of 1 parameter groups"):
        ours.StepLR(optimizer(0.1, 0.2), 3).load_state_dict(ours.StepLR(o, 3).state_dict())
