"""SparseAdam: Adam for tables of which few rows are looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.observers import current_mode, is_captured
from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.rows import primitive_of_rows
from tensorgrad.optim.update import Numbers
from tensorgrad.sparse import LazyGradient, SparseGradient


def _sparse_adam(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of SparseAdam; see the class."""
    multiply, add = xp.multiply, xp.add
    number = numbers.constant
    (keep1, keep2), (new1, new2) = map(number, betas), (number(1 - beta) for beta in betas)
    small = number(eps)

    def update(step: int, p: Any, g: Any, u: Any, w: Any, m: Any, v: Any) -> None:
        """Some rows: leave their step in ``u``, and their states advanced."""
        beta1, beta2 = betas
        rate = numbers.scalar(lr * numbers.sqrt(1 - beta2**step) / (1 - beta1**step))
        if maximize:
            g = xp.negative(g, out=u)
        multiply(m, keep1, out=m)
        add(m, multiply(g, new1, out=w), out=m)
        multiply(v, keep2, out=v)
        multiply(g, new2, out=w)  # the square itself may be too large where this is not
        add(v, multiply(w, g, out=w), out=v)
        add(xp.sqrt(v, out=w), small, out=w)
        multiply(xp.divide(m, w, out=u), rate, out=u)

    return update


class SparseAdam(Optimizer):
    """Adam that leaves alone the rows that were not looked up, their means included.

    For the weights of ``nn.Embedding`` and ``nn.EmbeddingBag`` with ``sparse=True``. For each row
    that has a gradient g, with t the number of the step, of whichever rows::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + eps)

    Of a dense gradient it is the rows that are not zero; a program cannot have those.

    params: see Optimizer; each has two axes.
    lr: the learning rate, about the length of a step.
    betas: how much of the means is kept.
    eps: keeps the divisor from 0.
    maximize: climb instead of descend.

    Raises ValueError for a negative rate or eps, betas outside [0, 1), or a parameter that has not
    two axes; and as Optimizer does.
    """

    primitive_of_rows = primitive_of_rows("sparse_adam", 2, _sparse_adam)
    states = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_betas(group["betas"])

    def _check_parameter(self, p: Any, name: str) -> None:
        super()._check_parameter(p, name)
        if len(p.shape) != 2:
            raise ValueError(
                f"SparseAdam: a parameter must have two axes, as the weight of an embedding; "
                f"parameter {name} has shape {p.shape}. Give it to Adam"
            )

    def step(self) -> None:
        """Update the rows that have a gradient, of every parameter that has one."""
        captured = is_captured()
        for p in self._all_params():
            g = p.grad
            if captured and g is not None and not (isinstance(g, LazyGradient) and g.is_recorded):
                for observer in current_mode().observers:
                    observer.read(g, "SparseAdam.step(), which looks for rows that are not zero,")
            elif g is not None and not isinstance(g, LazyGradient):
                p.grad = SparseGradient.of(g)
        super().step()

    def _takes_rows(self, group: Group) -> bool:
        return True

    def _used(self, group: Group) -> Sequence[str]:
        return ("step", *self.states)
