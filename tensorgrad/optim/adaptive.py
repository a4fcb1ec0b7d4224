"""Adagrad and RMSprop: a learning rate of its own for every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.rows import primitive_of_rows
from tensorgrad.optim.update import Numbers, update_primitive


def _adagrad(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    initial_accumulator_value: float,
    eps: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of Adagrad; see the class."""
    multiply, add = xp.multiply, xp.add
    small = numbers.constant(eps)
    decay = numbers.constant(weight_decay) if weight_decay else None

    def update(step: int, p: Any, g: Any, u: Any, w: Any, total: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        rate = numbers.scalar(lr / (1 + (step - 1) * lr_decay))
        if maximize:
            g = xp.negative(g, out=u)
        if decay is not None:
            g = add(multiply(p, decay, out=w), g, out=u)
        add(total, multiply(g, g, out=w), out=total)
        add(xp.sqrt(total, out=w), small, out=w)
        multiply(xp.divide(g, w, out=u), rate, out=u)

    return update


_ADAGRAD = update_primitive("adagrad", 1, _adagrad)


class Adagrad(Optimizer):
    """Adagrad: steps divided by the root of the sum of all squares (Duchi, Hazan, Singer, 2011).

    With g the gradient, plus ``weight_decay * p`` where that is set, and t the number of the step::

        s <- s + g**2
        p <- p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    params: see Optimizer.
    lr: the learning rate.
    lr_decay: how fast the rate falls.
    weight_decay: the factor of an L2 penalty's gradient.
    initial_accumulator_value: where s begins.
    eps: keeps the divisor from 0.
    maximize: climb instead of descend.

    Without decay, of a gradient that is kept as rows (``SparseGradient``) only these are looked at.

    Raises ValueError for a negative number; and as Optimizer does.
    """

    primitive = _ADAGRAD
    primitive_of_rows = primitive_of_rows("adagrad", 1, _adagrad)
    states = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_at_least_0("initial_accumulator_value", group["initial_accumulator_value"])

    def _takes_rows(self, group: Group) -> bool:
        return not group["weight_decay"] and group["eps"] > 0

    def _used(self, group: Group) -> Sequence[str]:
        return ("step", "sum")

    def _initial(self, state: str, group: Group) -> float:
        return float(group["initial_accumulator_value"])


def _rmsprop(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of RMSprop; see the class."""
    multiply, add, sqrt = xp.multiply, xp.add, xp.sqrt
    number = numbers.constant
    keep, new, small, rate = number(alpha), number(1 - alpha), number(eps), number(lr)
    decay = number(weight_decay) if weight_decay else None
    memory = number(momentum) if momentum else None

    def update(
        step: int | None, p: Any, g: Any, u: Any, w: Any, v: Any, v_step: Any, mean: Any
    ) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        if maximize:
            g = xp.negative(g, out=u)
        if decay is not None:
            g = add(multiply(p, decay, out=w), g, out=u)
        multiply(v, keep, out=v)
        multiply(g, new, out=w)  # the square itself may be too large where this is not
        add(v, multiply(w, g, out=w), out=v)
        if centered:
            multiply(mean, keep, out=mean)
            add(mean, multiply(g, new, out=w), out=mean)
            multiply(mean, mean, out=w)
            # The variance of equal gradients is 0, which rounding may turn into less than 0.
            sqrt(xp.maximum(xp.subtract(v, w, out=w), 0, out=w), out=w)
        else:
            sqrt(v, out=w)
        add(w, small, out=w)
        g = xp.divide(g, w, out=u)
        if memory is not None:
            multiply(v_step, memory, out=v_step)
            g = add(v_step, g, out=v_step)
        multiply(g, rate, out=u)

    return update


_RMSPROP = update_primitive("rmsprop", 3, _rmsprop)


class RMSprop(Optimizer):
    """RMSprop: steps divided by the root of a running mean of the squares (Hinton, 2012).

    With g the gradient, plus ``weight_decay * p`` where that is set::

        v <- alpha * v + (1 - alpha) * g**2
        p <- p - lr * g / (sqrt(v) + eps)

    params: see Optimizer.
    lr: the learning rate.
    alpha: how much of the mean is kept.
    eps: keeps the divisor from 0.
    weight_decay: the factor of an L2 penalty's gradient.
    momentum: how much of the last step is kept: ``b <- momentum * b + g / (sqrt(v) + eps)``,
        ``p <- p - lr * b``.
    centered: divide by the standard deviation: subtract the square of a running mean of g from v
        (Graves, 2013).
    maximize: climb instead of descend.

    Raises ValueError for a negative number, or alpha outside [0, 1); and as Optimizer does.
    """

    primitive = _RMSPROP
    states = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_below_1("alpha", group["alpha"])

    def _used(self, group: Group) -> Sequence[str]:
        momentum = ("momentum_buffer",) if group["momentum"] else ()
        mean = ("grad_avg",) if group["centered"] else ()
        return ("square_avg", *momentum, *mean)
