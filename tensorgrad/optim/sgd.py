"""Gradient descent, with momentum, Nesterov's momentum and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.rows import descend, primitive_of_rows
from tensorgrad.optim.update import Numbers, update_primitive


def _sgd(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of SGD; see the class."""
    multiply, add = xp.multiply, xp.add
    number = numbers.constant
    rate = number(lr)
    memory = number(momentum) if momentum else None
    decay = number(weight_decay) if weight_decay else None
    share = number(1 - dampening) if dampening else None

    def update(step: int | None, p: Any, g: Any, u: Any, w: Any, v: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        if maximize:
            g = xp.negative(g, out=u)
        if decay is not None:
            g = add(multiply(p, decay, out=w), g, out=u)
        if memory is not None:
            multiply(v, memory, out=v)
            part = g
            if share is not None:  # of all but the first gradient, which enters in full
                first = step == 1
                part = numbers.choice(first, lambda: g, lambda: multiply(g, share, out=w))
            add(v, part, out=v)
            g = add(multiply(v, memory, out=w), g, out=u) if nesterov else v
        multiply(g, rate, out=u)

    return update


def _in_place(
    xp: Any, p: Any, keys: Any, rows: Any, *, lr: Any, maximize: bool, **others: Any
) -> bool:
    """The update of rows, for which there is neither momentum nor decay."""
    return descend(xp, p, keys, rows, xp.negative(lr) if maximize else lr)


_SGD = update_primitive("sgd", 1, _sgd)


class SGD(Optimizer):
    """Gradient descent: stochastic, mini-batch or full-batch, depending on what it is fed.

    With g the gradient, plus ``weight_decay * p`` where that is set::

        v <- momentum * v + (1 - dampening) * g     (v <- g in the first step)
        p <- p - lr * v                             (with nesterov, - lr * (g + momentum * v))

    With a constant rate this is the lectures' ``dw(t) = lr * delta * x + momentum * dw(t-1)``.

    params: see Optimizer.
    lr: the learning rate.
    momentum: how much of the last step is kept (Polyak, 1964; Rumelhart et al., 1986).
    dampening: how much of each gradient is left out of the momentum.
    weight_decay: the factor of an L2 penalty's gradient.
    nesterov: look ahead along the momentum (Nesterov, 1983; Sutskever et al., 2013).
    maximize: climb instead of descend.

    Without momentum and decay, of a gradient that is kept as rows (``SparseGradient``) only these
    are looked at.

    Raises ValueError for a negative rate, momentum or decay, or Nesterov without momentum or with
    dampening; and as Optimizer does.
    """

    primitive = _SGD
    primitive_of_rows = primitive_of_rows("sgd", 1, _sgd, _in_place)
    states = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov=True needs momentum > 0 and dampening = 0; got "
                f"momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def _takes_rows(self, group: Group) -> bool:
        return not group["momentum"] and not group["weight_decay"]

    def _used(self, group: Group) -> Sequence[str]:
        if not group["momentum"]:
            return ()
        return ("momentum_buffer", "step") if group["dampening"] else ("momentum_buffer",)
