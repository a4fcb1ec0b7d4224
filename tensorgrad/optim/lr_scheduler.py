"""Schedules: learning rates that change from step to step, or from epoch to epoch.

A scheduler counts its own calls of ``step()``; whether that is after every update or every epoch is
up to the caller, as in PyTorch. Rates are computed from the count and from where they began, not
from the rate before: nothing adds up, and a schedule can be set to any place. A compiled step looks
the rate up in every replay.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from tensorgrad.optim.optimizer import Optimizer

_next_number = count(1).__next__


class LRScheduler:
    """Base class: sets the rate of each group to its first rate times ``factor(count)``.

    optimizer: whose rates are set; those that its groups have now are where the schedule begins.
        A group added later goes along from the rate that it was given.

    Raises TypeError for what is no optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: an optimizer is needed, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        #: the rates of the groups at the start
        self.base_lrs: list[float] = [float(group["lr"]) for group in optimizer.param_groups]
        #: how often ``step`` was called
        self.count = 0
        # When it was made, and what the rates were then: whoever combines schedules begins with
        # those from before any of them had changed them.
        self._first = _next_number(), self.base_lrs
        self._apply()

    def factor(self, count: int) -> float:
        """What the first rates are multiplied by after ``count`` steps."""
        raise NotImplementedError

    def rate(self, base: float, count: int) -> float:
        """The rate after ``count`` steps of a group that began with ``base``."""
        return base * self.factor(count)

    def step(self) -> None:
        """Go on by one, and set the rates."""
        self._take_new_groups()
        self.count += 1
        self._apply()

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        for group, base in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.count)

    def _take_new_groups(self) -> None:
        """Find where groups added since would have begun, to have the rate that they have now."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            # Rates are base * factor + offset, of which only the sum is known here.
            offset = self.rate(0.0, self.count)
            factor = self.rate(1.0, self.count) - offset
            lr = float(group["lr"])
            self.base_lrs.append((lr - offset) / factor if factor else lr)

    def get_last_lr(self) -> list[float]:
        """The rates of the groups now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands: numbers and lists of numbers."""
        self._take_new_groups()
        return {"count": self.count, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state_dict()`` was taken; sets the rates.

        Raises ValueError if it is of an optimizer with another number of groups.
        """
        _check_groups(self, state["base_lrs"])
        self.count = int(state["count"])
        self.base_lrs = [float(lr) for lr in state["base_lrs"]]
        self._apply()

    def _check(self, name: str, value: float, low: float, reason: str) -> None:
        if value < low:
            raise ValueError(f"{type(self).__name__}: {name} must be {reason}, got {value!r}")


def _check_groups(scheduler: LRScheduler | ReduceLROnPlateau, rates: Sequence[float]) -> None:
    groups = scheduler.optimizer.param_groups
    if len(rates) != len(groups):
        raise ValueError(
            f"{type(scheduler).__name__}: the state is of {len(rates)} parameter groups, the "
            f"optimizer has {len(groups)}; add the groups that it had before loading the state"
        )


class LambdaLR(LRScheduler):
    """The rate times ``lr_lambda(count)``: any schedule at all.

    lr_lambda: a function of the number of steps so far.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """``lr_lambda(count)``."""
        return float(self.lr_lambda(count))


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self._check("step_size", step_size, 1, "at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """``gamma ** (count // step_size)``."""
        return float(self.gamma ** (count // self.step_size))


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the ``milestones``, numbers of steps."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """``gamma`` to the power of the milestones passed."""
        return float(self.gamma ** bisect_right(self.milestones, count))


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` at each step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """``gamma ** count``."""
        return float(self.gamma**count)


class PolynomialLR(LRScheduler):
    """Down to 0 within ``total_iters`` steps, as ``(1 - count / total_iters) ** power``."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self._check("total_iters", total_iters, 1, "at least 1")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """``(1 - count / total_iters) ** power``, and 0 from there on."""
        return float((1 - min(count, self.total_iters) / self.total_iters) ** self.power)


class LinearLR(LRScheduler):
    """In a straight line from one factor to another within ``total_iters`` steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self._check("total_iters", total_iters, 1, "at least 1")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """Between ``start_factor`` and ``end_factor``."""
        part = min(count, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * part


class ConstantLR(LRScheduler):
    """The rate times ``factor`` for ``total_iters`` steps."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self._factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        """The factor, and 1 from ``total_iters`` steps on."""
        return self._factor if count < self.total_iters else 1.0


class CosineAnnealingLR(LRScheduler):
    """Half a period of a cosine down to ``eta_min`` within ``T_max`` steps, and up again after.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self._check("T_max", T_max, 1, "at least 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, count: int) -> float:
        """``eta_min + (base - eta_min) * (1 + cos(pi * count / T_max)) / 2``."""
        cosine = math.cos(math.pi * count / self.T_max)
        return self.eta_min + (base - self.eta_min) * (1 + cosine) / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosines down to ``eta_min``, each ``T_mult`` times as long as the one before.

    T_0: the steps of the first one. Source: as of CosineAnnealingLR.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"CosineAnnealingWarmRestarts: {name} must be an integer of at least 1, got "
                    f"{value!r}"
                )
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, count: int) -> float:
        """The cosine at the place within the current period."""
        length = self.T_0
        while count >= length:
            if self.T_mult == 1:
                count %= length
                break
            count -= length
            length *= self.T_mult
        cosine = math.cos(math.pi * count / length)
        return self.eta_min + (base - self.eta_min) * (1 + cosine) / 2


class OneCycleLR(LRScheduler):
    """Up from ``max_lr / div_factor`` to ``max_lr``, and down to next to nothing.

    max_lr: the highest rate, for all groups. total_steps: the length of the cycle.
    pct_start: the part of it that goes up. anneal_strategy: "cos" or "linear".
    div_factor, final_div_factor: the first rate is ``max_lr / div_factor``, the last one that
        divided by ``final_div_factor``.

    Momentum is left alone. Source: Smith and Topin, "Super-convergence", 2018.
    Raises ValueError for a step beyond the cycle.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self._check("total_steps", total_steps, 1, "at least 1")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be from 0 to 1, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f'OneCycleLR: anneal_strategy must be "cos" or "linear", got {anneal_strategy!r}'
            )
        self.max_lr, self.total_steps, self.pct_start = max_lr, total_steps, pct_start
        self.anneal_strategy = anneal_strategy
        self.first = max_lr / div_factor
        self.final = self.first / final_div_factor
        super().__init__(optimizer)

    def rate(self, base: float, count: int) -> float:
        """The place on the way up or down."""
        if count > self.total_steps:
            raise ValueError(
                f"OneCycleLR: the cycle has {self.total_steps} steps, and this is number "
                f"{count}; give it more total_steps"
            )
        peak = self.pct_start * self.total_steps - 1
        last = self.total_steps - 1
        if count <= peak and peak > 0:
            return self._between(self.first, self.max_lr, count / peak)
        # After the last step the rate stays; nothing is trained with it.
        return self._between(self.max_lr, self.final, min((count - peak) / (last - peak), 1.0))

    def _between(self, start: float, end: float, part: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
        return start + (end - start) * part


class _Combined(LRScheduler):
    """A schedule made of others, which begin where the first of them that was made began."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"{type(self).__name__}: schedules that follow from the number of steps are "
                    f"needed, got {type(scheduler).__name__}; call its step() beside this one's"
                )
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError(f"{type(self).__name__}: the schedules must be of the same optimizer")
        self.schedulers = list(schedulers)
        first = min((s._first for s in schedulers), key=lambda made: made[0])
        for group, base in zip(optimizer.param_groups, first[1]):
            group["lr"] = base
        super().__init__(optimizer)
        self._first = first


class SequentialLR(_Combined):
    """One schedule after another: number i + 1 begins, at its own start, at ``milestones[i]``.

    schedulers: of the same optimizer; they may be combined ones. milestones: numbers of steps.

    Raises ValueError unless there is a milestone between two and they are in order, TypeError for
    a schedule that depends on more than the number of steps.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedules need {max(len(schedulers) - 1, 0)} "
                f"milestones, got {len(milestones)}"
            )
        self.milestones = list(milestones)
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"SequentialLR: the milestones must be in order, got {milestones}")
        super().__init__(optimizer, schedulers)

    def rate(self, base: float, count: int) -> float:
        """That of the schedule whose turn it is, which began at its milestone."""
        at = bisect_right(self.milestones, count)
        return self.schedulers[at].rate(base, count - (self.milestones[at - 1] if at else 0))


class ChainedScheduler(_Combined):
    """Several schedules at once: their factors are multiplied.

    schedulers: of the same optimizer; they may be combined ones.

    Raises ValueError for none, or schedules of different optimizers, TypeError for a schedule
    that depends on more than the number of steps.
    """

    def __init__(self, schedulers: Sequence[LRScheduler]) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler: at least one schedule is needed")
        super().__init__(schedulers[0].optimizer, schedulers)

    def rate(self, base: float, count: int) -> float:
        """``base`` times the factor of each, one after the other."""
        for scheduler in self.schedulers:
            base = scheduler.rate(base, count)
        return base


class ReduceLROnPlateau:
    """The rate times ``factor`` where a figure has not become better for ``patience`` steps.

    mode: "min" if less is better, "max" if more is. threshold: how much better counts, relative to
    the best so far, or absolute with ``threshold_mode="abs"``. cooldown: steps after a reduction in
    which nothing is counted. min_lr: below which no rate goes. eps: a change of less is left out.

    Raises ValueError for another mode, or a factor of 1 or more.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                'ReduceLROnPlateau: mode must be "min" or "max" and threshold_mode "rel" or "abs", '
                f"got {mode!r} and {threshold_mode!r}"
            )
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, got {factor!r}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        #: the best figure so far
        self.best = math.inf if mode == "min" else -math.inf
        #: steps since it became better, and those of the cooldown that are left
        self.bad_steps = self.waiting = 0

    def step(self, figure: float) -> None:
        """Take notice of a figure, such as the validation loss of an epoch."""
        figure = float(figure)
        if self._better(figure):
            self.best, self.bad_steps = figure, 0
        else:
            self.bad_steps += 1
        if self.waiting > 0:
            self.waiting -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            for group in self.optimizer.param_groups:
                rate = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.waiting, self.bad_steps = self.cooldown, 0

    def _better(self, figure: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if math.isinf(self.best):
            return sign * figure < sign * self.best
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return sign * figure < sign * self.best - margin

    def get_last_lr(self) -> list[float]:
        """The rates of the groups now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, and the rates."""
        return {
            "best": self.best,
            "bad_steps": self.bad_steps,
            "waiting": self.waiting,
            "lrs": self.get_last_lr(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state_dict()`` was taken; sets the rates. Raises as LRScheduler."""
        _check_groups(self, state["lrs"])
        self.best = float(state["best"])
        self.bad_steps, self.waiting = int(state["bad_steps"]), int(state["waiting"])
        for group, rate in zip(self.optimizer.param_groups, state["lrs"]):
            group["lr"] = float(rate)
