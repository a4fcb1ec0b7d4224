"""Adadelta, and the variants of Adam: Adamax, NAdam, RAdam and Lion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tensorgrad.backend.namespace import Namespace
from tensorgrad.optim.adam import AdamLike
from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.update import Numbers, update_primitive


def _gradient(
    xp: Any, numbers: Numbers, maximize: bool, weight_decay: float
) -> Callable[[Any, Any, Any, Any], Any]:
    """How a rule begins: the gradient, its sign turned and with an L2 penalty's where asked for."""
    decay = numbers.constant(weight_decay) if weight_decay else None

    def gradient(p: Any, g: Any, u: Any, w: Any) -> Any:
        """``g``, or what it becomes, in ``u``; ``w`` is to work in."""
        if maximize:
            g = xp.negative(g, out=u)
        if decay is not None:
            g = xp.add(xp.multiply(p, decay, out=w), g, out=u)
        return g

    return gradient


def _mean(xp: Any, numbers: Numbers, beta: float) -> Callable[[Any, Any, Any], None]:
    """``mean <- beta * mean + (1 - beta) * x``, in place, with ``w`` to work in (may be ``x``)."""
    keep, new = numbers.constant(beta), numbers.constant(1 - beta)

    def advance(mean: Any, x: Any, w: Any) -> None:
        """Take ``x`` into the mean."""
        xp.multiply(mean, keep, out=mean)
        xp.add(mean, xp.multiply(x, new, out=w), out=mean)

    return advance


def _mean_square(xp: Any, numbers: Numbers, beta: float) -> Callable[[Any, Any, Any], None]:
    """``mean <- beta * mean + (1 - beta) * x**2``, in place, with ``w`` to work in (may be ``x``).

    The square itself may be too large where its part in the mean is not.
    """
    keep, new = numbers.constant(beta), numbers.constant(math.sqrt(1 - beta))

    def advance(mean: Any, x: Any, w: Any) -> None:
        """Take ``x`` into the mean."""
        xp.multiply(mean, keep, out=mean)
        xp.multiply(x, new, out=w)
        xp.add(mean, xp.multiply(w, w, out=w), out=mean)

    return advance


# --- Adadelta -------------------------------------------------------------------------------------


def _adadelta(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of Adadelta; see the class."""
    gradient = _gradient(xp, numbers, maximize, weight_decay)
    mean = _mean_square(xp, numbers, rho)
    small, rate = numbers.constant(eps), numbers.constant(lr)

    def update(step: int | None, p: Any, g: Any, u: Any, w: Any, v: Any, d: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        g = gradient(p, g, u, w)
        mean(v, g, w)
        xp.divide(xp.add(d, small, out=w), xp.add(v, small), out=w)
        xp.multiply(xp.sqrt(w, out=w), g, out=u)
        mean(d, u, w)
        xp.multiply(u, rate, out=u)

    return update


class Adadelta(Optimizer):
    """Adadelta: steps as long as those before have been, by their gradients (Zeiler, 2012).

    With g the gradient, plus ``weight_decay * p`` where that is set::

        v <- rho * v + (1 - rho) * g**2
        d = sqrt(a + eps) / sqrt(v + eps) * g
        a <- rho * a + (1 - rho) * d**2
        p <- p - lr * d

    params: see Optimizer. lr: the learning rate. rho: how much of the means is kept.
    eps: keeps roots and divisor from 0. weight_decay: the factor of an L2 penalty's gradient.
    maximize: climb instead of descend.

    Raises ValueError for a negative number, or rho outside [0, 1); and as Optimizer does.
    """

    primitive = update_primitive("adadelta", 2, _adadelta)
    states = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_below_1("rho", group["rho"])

    def _used(self, group: Group) -> Sequence[str]:
        return self.states


# --- kin of Adam ----------------------------------------------------------------------------------


def _adamax(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of Adamax; see the class."""
    gradient, mean = _gradient(xp, numbers, maximize, weight_decay), _mean(xp, numbers, betas[0])
    keep, small = numbers.constant(betas[1]), numbers.constant(eps)

    def update(step: int, p: Any, g: Any, u: Any, w: Any, m: Any, largest: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        rate = numbers.scalar(lr / (1 - betas[0] ** step))
        g = gradient(p, g, u, w)
        mean(m, g, w)
        xp.multiply(largest, keep, out=largest)
        xp.maximum(largest, xp.add(xp.abs(g, out=w), small, out=w), out=largest)
        xp.multiply(xp.divide(m, largest, out=u), rate, out=u)

    return update


class Adamax(AdamLike):
    """Adam with the largest gradient in place of the mean square (Kingma and Ba, 2015, 7.1).

    With g the gradient, plus ``weight_decay * p`` where that is set, and t the number of the step::

        m <- beta1 * m + (1 - beta1) * g
        n <- max(beta2 * n, |g| + eps)
        p <- p - lr / (1 - beta1**t) * m / n

    Arguments and errors as of Adam.
    """

    primitive = update_primitive("adamax", 2, _adamax)
    states = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize)


def _nadam(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    momentum_decay: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of NAdam; see the class."""
    gradient = _gradient(xp, numbers, maximize, weight_decay)
    first, second = _mean(xp, numbers, betas[0]), _mean_square(xp, numbers, betas[1])
    known = [0, 1.0]  # how many factors there are in the product, and the product

    def factor(step: Any) -> Any:
        """How much of the mean is kept in a step."""
        return betas[0] * (1 - 0.5 * 0.96 ** (step * momentum_decay))

    def product(step: Any) -> Any:
        """The product of the factors up to a step."""
        if isinstance(xp, Namespace):
            return _product_of_factors(xp, step, betas[0], math.log(0.96) * momentum_decay)
        if known[0] > step:  # another bundle, or an earlier state
            known[:] = [0, 1.0]
        while known[0] < step:
            known[0] += 1
            known[1] *= factor(int(known[0]))
        return known[1]

    def update(step: int, p: Any, g: Any, u: Any, w: Any, m: Any, v: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        so_far, following = product(step), factor(step + 1)
        root = numbers.sqrt(1 - betas[1] ** step)
        of_g = numbers.scalar(lr * root * (1 - factor(step)) / (1 - so_far))
        of_m = numbers.scalar(lr * root * following / (1 - so_far * following))
        small = numbers.scalar(eps * root)
        g = gradient(p, g, u, w)
        first(m, g, w)
        second(v, g, w)
        xp.add(xp.sqrt(v, out=w), small, out=w)
        xp.multiply(g, of_g, out=u)
        xp.add(u, xp.multiply(m, of_m), out=u)
        xp.divide(u, w, out=u)

    return update


def _product_of_factors(xp: Any, step: Any, beta: float, decay: float) -> Any:
    """The product of ``beta * (1 - exp(i * decay) / 2)`` for i from 1 to ``step``.

    Its logarithm is a sum over i of the series of ``log(1 - x / 2)``, each of whose powers of x is
    a geometric series over i; after as many terms as a float64 has bits nothing is left of a half.
    """
    if not decay:
        return (beta * 0.5) ** step
    first = -xp.expm1(step * decay)
    part, total = 0.0, 0.0
    for k in range(1, 56):
        part = part + first - part * first  # 1 - exp(k * step * decay)
        total = total + 0.5**k / k / math.expm1(-k * decay) * part
    return beta**step * xp.exp(-total)


class NAdam(AdamLike):
    """Adam with Nesterov's look ahead (Dozat, 2016).

    With g the gradient, plus ``weight_decay * p`` where that is set, t the number of the step,
    ``b(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2)`` and B the product of all b so far::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        s = (1 - b(t)) / (1 - B) * g + b(t + 1) / (1 - B * b(t + 1)) * m
        p <- p - lr * s / (sqrt(v / (1 - beta2**t)) + eps)

    Other arguments and errors as of Adam.
    """

    primitive = update_primitive("nadam", 2, _nadam)

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize, momentum_decay=momentum_decay
        )


def _radam(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of RAdam; see the class."""
    gradient = _gradient(xp, numbers, maximize, weight_decay)
    first, second = _mean(xp, numbers, betas[0]), _mean_square(xp, numbers, betas[1])
    small, one = numbers.constant(eps), numbers.constant(1.0)
    limit = 2 / (1 - betas[1]) - 1

    def update(step: int, p: Any, g: Any, u: Any, w: Any, m: Any, v: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        g = gradient(p, g, u, w)
        first(m, g, w)
        second(v, g, w)
        rate = lr / (1 - betas[0] ** step)
        left = 1 - betas[1] ** step
        length = limit - 2 * step * betas[1] ** step / left
        above, below = (length - 4) * (length - 2) * limit, (limit - 4) * (limit - 2) * length
        early = length <= 5  # then it is divided by 1
        root = numbers.choice(early, lambda: 1.0, lambda: numbers.sqrt(left * above / below))
        divisor = numbers.choice(
            early, lambda: one, lambda: xp.add(xp.sqrt(v, out=w), small, out=w)
        )
        xp.multiply(xp.divide(m, divisor, out=u), numbers.scalar(rate * root), out=u)

    return update


class RAdam(AdamLike):
    """Adam whose first steps, when the mean square says little, are plain (Liu and others, 2020).

    With g the gradient, plus ``weight_decay * p`` where that is set, t the number of the step,
    m and v as in Adam, ``n = 2 / (1 - beta2) - 1`` and ``k = n - 2 t beta2**t / (1 - beta2**t)``,
    about how many squares v is a mean of::

        p <- p - lr * m / (1 - beta1**t)                                        where k <= 5, else
        p <- p - lr * m / (1 - beta1**t) * r * sqrt(1 - beta2**t) / (sqrt(v) + eps)
        r = sqrt((k - 4) (k - 2) n / ((n - 4) (n - 2) k))

    Arguments and errors as of Adam.
    """

    primitive = update_primitive("radam", 2, _radam)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize)


# --- Lion -----------------------------------------------------------------------------------------


def _lion(
    xp: Any,
    numbers: Numbers,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    maximize: bool,
) -> Callable[..., None]:
    """The update rule of Lion; see the class."""
    gradient, mean = _gradient(xp, numbers, maximize, 0), _mean(xp, numbers, betas[1])
    keep, new = numbers.constant(betas[0]), numbers.constant(1 - betas[0])
    rate = numbers.constant(lr)
    shrink = numbers.constant(lr * weight_decay) if weight_decay else None

    def update(step: int | None, p: Any, g: Any, u: Any, w: Any, m: Any) -> None:
        """One parameter: leave its step in ``u``, and its states advanced."""
        g = gradient(p, g, u, w)
        ahead = xp.add(xp.multiply(m, keep), xp.multiply(g, new, out=w), out=w)
        xp.sign(ahead, out=ahead)
        mean(m, g, u)
        xp.multiply(ahead, rate, out=u)
        if shrink is not None:
            xp.add(u, xp.multiply(p, shrink, out=w), out=u)

    return update


class Lion(Optimizer):
    """Lion: steps of one length, in the direction of a mean gradient's signs (Chen et al., 2023).

    With g the gradient::

        p <- p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p)
        m <- beta2 * m + (1 - beta2) * g

    params: see Optimizer. lr: the length of a step. betas: how much of the mean counts, and how
    much of it is kept. weight_decay: decay apart from the gradient, as in AdamW.
    maximize: climb instead of descend.

    Raises ValueError for a negative number, or betas outside [0, 1); and as Optimizer does.
    """

    primitive = update_primitive("lion", 1, _lion)
    states = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize},
        )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_betas(group["betas"])

    def _used(self, group: Group) -> Sequence[str]:
        return self.states
