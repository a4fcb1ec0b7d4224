"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.update import Numbers, update_primitive


def _adam(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> Callable[..., None]:
    """The update rule of Adam and AdamW; see the classes.

    Both corrections for the bias are drawn into two numbers, so that they cost no pass:
    m' / (sqrt(v') + eps) = (root / bias1) * m / (sqrt(v) + root * eps), root = sqrt(bias2).
    """
    multiply, add, sqrt = xp.multiply, xp.add, xp.sqrt
    beta1, beta2 = betas
    number, scalar = numbers.constant, numbers.scalar
    keep1, new1, keep2, new2 = number(beta1), number(1 - beta1), number(beta2), number(1 - beta2)
    penalty = number(weight_decay) if weight_decay and not decoupled else None
    shrink = number(lr * weight_decay) if weight_decay and decoupled else None

    def update(step: int, p: Any, g: Any, u: Any, w: Any, m: Any, v: Any, v_max: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        root = numbers.sqrt(1 - beta2**step)
        small, rate = scalar(eps * root), scalar(lr * root / (1 - beta1**step))
        if maximize:
            g = xp.negative(g, out=u)
        if penalty is not None:
            g = add(multiply(p, penalty, out=w), g, out=u)
        multiply(m, keep1, out=m)
        add(m, multiply(g, new1, out=w), out=m)
        multiply(v, keep2, out=v)
        multiply(g, new2, out=w)  # the square itself may be too large where this is not
        add(v, multiply(w, g, out=w), out=v)
        if amsgrad:
            v = xp.maximum(v_max, v, out=v_max)
        add(sqrt(v, out=w), small, out=w)
        multiply(xp.divide(m, w, out=u), rate, out=u)
        if shrink is not None:
            add(u, multiply(p, shrink, out=w), out=u)

    return update


_ADAM = update_primitive("adam", 3, _adam)


class AdamLike(Optimizer):
    """What Adam and its kin share: the count, two states, and these options, perhaps with more."""

    states: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        maximize: bool,
        **more: Any,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize, **more})

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_betas(group["betas"])

    def _used(self, group: Group) -> Sequence[str]:
        return ("step", *self.states)


class Adam(AdamLike):
    """Adam: steps scaled by running means of the gradient and its square (Kingma and Ba, 2015).

    With g the gradient, plus ``weight_decay * p`` where that is set, and t the number of the step::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    params: see Optimizer.
    lr: the learning rate, about the length of a step.
    betas: how much of the means is kept.
    eps: keeps the divisor from 0.
    weight_decay: the factor of an L2 penalty's gradient; see AdamW for decay proper.
    amsgrad: divide by the largest v so far (Reddi, Kale and Kumar, 2018).
    maximize: climb instead of descend.

    Raises ValueError for a negative rate, eps or decay, or betas outside [0, 1); and as Optimizer.
    """

    primitive = _ADAM
    states = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize, amsgrad=amsgrad)

    def _used(self, group: Group) -> Sequence[str]:
        return _WITH_MAXIMUM if group["amsgrad"] else _USUAL

    def _options(self, group: Group) -> dict[str, Any]:
        return {**super()._options(group), "decoupled": self._decoupled}


_USUAL = ("step", "exp_avg", "exp_avg_sq")
_WITH_MAXIMUM = (*_USUAL, "max_exp_avg_sq")


class AdamW(Adam):
    """Adam with weight decay apart from the means (Loshchilov and Hutter, 2019).

    As Adam without decay, and besides ``p <- p - lr * weight_decay * p`` (of the old p).
    The arguments are those of Adam; ``weight_decay`` is 0.01 by default.
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
