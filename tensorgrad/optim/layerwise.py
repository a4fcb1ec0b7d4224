"""LAMB, Adafactor and Muon: update rules that look at a parameter as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.ops.sums import length as _norm
from tensorgrad.ops.sums import total
from tensorgrad.optim.adam import AdamLike
from tensorgrad.optim.optimizer import Group, Optimizer, Params
from tensorgrad.optim.update import Scratch, watching
from tensorgrad.tape import Primitive
from tensorgrad.tensor import Tensor

#: ``rule(xp, step, p, g, *states, **options)`` overwrites the parameter and its states, which have
#: shapes of their own. ``step`` is a 0-d array that counts from 1, or None where there is no count.
#: All arithmetic is on arrays, so that a GPU is not waited for.
Rule = Callable[..., None]
Shapes = Callable[[int, tuple[int, ...]], tuple[int, ...] | None]


def _whole(state: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return shape


def _layer_primitive(name: str, states: int, rule: Rule, shapes: Shapes = _whole) -> Primitive:
    """The primitive that applies ``rule`` to each parameter of a bundle in turn.

    Inputs, attributes and result are those of ``update_primitive``. ``shapes(i, shape)`` is the
    shape of state i of a parameter, None if it has no such state.
    """

    def value(xp: Any, step: Any, *arrays: Any, scratch: Scratch, **options: Any) -> Any:
        """All parameters, one after the other."""
        n = (len(arrays) - states) // 2
        if step is not None:
            step += 1
        own = [_parts(arrays[i], i, scratch, shapes) for i in range(states)]
        run = context.copy().run
        for i, (p, g) in enumerate(zip(arrays[states : states + n], arrays[states + n :])):
            wide = p.astype(scratch.dtype, copy=False)  # a copy where p has 16 bits
            count = None if step is None else step.astype(scratch.dtype)
            run(rule, xp, count, wide, g.astype(scratch.dtype, copy=False), *[s[i] for s in own],
                **options)  # fmt: skip
            if wide is not p:
                p[...] = wide
        return arrays[states]

    context = watching(name)

    def overwritten(count: int) -> range:
        """The count, the states and the parameters."""
        return range(1 + states + (count - 1 - states) // 2)

    return Primitive(
        name, value, {"step": None, "*arrays": None}, mutates=overwritten, source=rule, live=("lr",)
    )


def _parts(flat: Any, state: int, scratch: Scratch, shapes: Shapes) -> list[Any]:
    """The parts of a flat state that belong to the parameters, in their shapes."""
    found: list[Any] = []
    at = 0
    own = [shapes(state, shape) for shape in scratch.shapes]
    apart = own != list(scratch.shapes)  # else there may be room between the parts
    for shape, start in zip(own, scratch.starts):
        if shape is None:
            found.append(None)
            continue
        first = at if apart else start
        size = math.prod(shape)
        found.append(flat[first : first + size].reshape(shape))
        at += size
    return found


def _means(xp: Any, x: Any, axis: int) -> Any:
    axis %= x.ndim
    return total(xp, x, (axis,), True) / x.shape[axis]


# --- LAMB -----------------------------------------------------------------------------------------


def _lamb(
    xp: Any,
    step: Any,
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """The update rule of LAMB; see the class."""
    if maximize:
        g = -g
    m += (1 - betas[0]) * (g - m)
    v *= betas[1]
    v += (1 - betas[1]) * g * g  # in this order: the square itself may be too large
    r = m / (1 - betas[0] ** step)
    r /= xp.sqrt(v) / xp.sqrt(1 - betas[1] ** step) + eps
    if weight_decay:
        r += weight_decay * p
    size, length = _norm(xp, p), _norm(xp, r)
    apart = (size > 0) & (length > 0)
    ratio = xp.where(apart, size / xp.where(apart, length, 1), 1).astype(p.dtype)
    p -= lr * ratio * r


class LAMB(AdamLike):
    """LAMB: Adam's step, as long for each layer as its weights are large (You and others, 2020).

    With m, v and their corrections as in Adam::

        r = m' / (sqrt(v') + eps) + weight_decay * p
        p <- p - lr * (|p| / |r|) * r          (the factor is 1 where one of the norms is 0)

    For training with very large batches. params: see Optimizer. lr, betas, eps, maximize: as for
    Adam. weight_decay: decay apart from the means.

    Raises ValueError for a negative rate, eps or decay, or betas outside [0, 1); and as Optimizer.
    """

    primitive = _layer_primitive("lamb", 2, _lamb)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize)


# --- Adafactor ------------------------------------------------------------------------------------


def _adafactor_shape(state: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Row means and column means, or, for a parameter of less than two axes, the whole."""
    if len(shape) < 2:
        return shape if state == 2 else None
    return ((*shape[:-1], 1), (*shape[:-2], 1, shape[-1]), None)[state]


def _adafactor(
    xp: Any,
    step: Any,
    p: Any,
    g: Any,
    rows: Any,
    columns: Any,
    whole: Any,
    *,
    lr: float,
    beta2_decay: float,
    eps: tuple[float | None, float],
    d: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """The update rule of Adafactor; see the class."""
    if not p.size:
        return
    if maximize:
        g = -g
    least = float(np.finfo(p.dtype).eps) if eps[0] is None else eps[0]
    new = step**beta2_decay  # 1 - beta2
    rms = _norm(xp, p) / math.sqrt(p.size)
    length = xp.minimum(step**-0.5, lr) * xp.maximum(rms, eps[1])
    if weight_decay:
        p *= 1 - lr * weight_decay
    squares = new * g * g  # in this order: the square itself may be too large
    if whole is None:
        rows += _means(xp, squares, -1) - new * rows
        columns += _means(xp, squares, -2) - new * columns
        variance = rows / xp.maximum(_means(xp, rows, -2), least) * columns
    else:
        whole += squares - new * whole
        variance = whole
    update = g / xp.sqrt(xp.maximum(variance, least * least))
    divisor = xp.maximum(_norm(xp, update) / (math.sqrt(p.size) * d), 1)
    p -= (length / divisor).astype(p.dtype) * update


class Adafactor(Optimizer):
    """Adafactor: Adam's scaling from row and column means (Shazeer and Stern, 2018).

    For a parameter of two axes or more the squares of the gradient are remembered as the means
    over its rows and over its columns, n + m numbers in place of n m; for t the step::

        beta2 = 1 - t ** beta2_decay
        v = rows * columns / max(mean(rows), eps1)
        u = g / sqrt(max(v, eps1 ** 2))
        p <- p - max(eps2, rms(p)) * min(lr, 1 / sqrt(t)) / max(1, rms(u) / d) * u

    params: see Optimizer. lr: the largest relative step. beta2_decay: how fast the means become
    longer. eps: (eps1, eps2); eps1 None stands for the spacing of 1 in the dtype. d: where updates
    are cut. weight_decay: ``p <- p * (1 - lr * weight_decay)`` before the step.
    maximize: climb instead of descend. The names are PyTorch's.

    Raises ValueError for a negative rate or decay, d below 1, or beta2_decay above 0; and as
    Optimizer.
    """

    primitive = _layer_primitive("adafactor", 3, _adafactor, _adafactor_shape)
    states = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d}
        super().__init__(params, {**options, "weight_decay": weight_decay, "maximize": maximize})

    def _check_options(self, group: Group) -> None:
        for name in ("lr", "weight_decay"):
            self._check_at_least_0(name, group[name])
        first, second = group["eps"]
        self._check_at_least_0("eps", 0.0 if first is None else first)
        self._check_at_least_0("eps", second)
        if group["beta2_decay"] > 0 or group["d"] < 1:
            raise ValueError(
                f"Adafactor: beta2_decay must be at most 0 and d at least 1, got "
                f"{group['beta2_decay']!r} and {group['d']!r}"
            )

    def _used(self, group: Group) -> Sequence[str]:
        return ("step", *self.states)

    def _state_shape(self, state: str, p: Tensor) -> tuple[int, ...] | None:
        return None if state == "step" else _adafactor_shape(self.states.index(state), p.shape)


# --- Muon -----------------------------------------------------------------------------------------


def _muon(
    xp: Any,
    step: None,
    p: Any,
    g: Any,
    buffer: Any,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    ns_coefficients: tuple[float, float, float],
    ns_steps: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """The update rule of Muon; see the class."""
    if not p.size:
        return
    if maximize:
        g = -g
    buffer += (1 - momentum) * (g - buffer)
    u = g + momentum * (buffer - g) if nesterov else buffer
    if weight_decay:
        p *= 1 - lr * weight_decay
    n, m = p.shape
    x = u.T if n > m else u
    x = x / xp.maximum(_norm(xp, x), eps)
    a, b, c = ns_coefficients
    for _ in range(ns_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    p -= lr * math.sqrt(max(1.0, n / m)) * (x.T if n > m else x)


class Muon(Optimizer):
    """Muon: momentum whose singular values are all brought to about 1 (Jordan and others, 2024).

    ::

        b <- momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g    (with nesterov; else u = b)
        o = newton_schulz(u)                     about U Vᵀ, where u = U S Vᵀ
        p <- p * (1 - lr * weight_decay) - lr * sqrt(max(1, rows / columns)) * o

    One step of ``newton_schulz`` is ``x <- a x + b (x xᵀ) x + c (x xᵀ)² x`` with
    ``ns_coefficients`` (a, b, c), ``ns_steps`` times, from ``u / max(|u|, eps)``. The products are
    computed in the dtype of the states, where PyTorch takes bfloat16.

    params: matrices, as the weights of hidden layers. Give biases, embeddings and the last layer
    to AdamW. The other arguments are PyTorch's.

    Raises ValueError for a parameter that is no matrix, a negative rate or decay, or momentum
    outside [0, 1); and as Optimizer.
    """

    primitive = _layer_primitive("muon", 1, _muon)
    states = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "eps": eps}
        newton = {"ns_coefficients": ns_coefficients, "ns_steps": ns_steps}
        rest = {"weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {**options, **newton, **rest})

    def _check_parameter(self, p: Any, name: str) -> None:
        super()._check_parameter(p, name)
        if p.ndim != 2:
            raise ValueError(
                f"Muon: parameters must be matrices; parameter {name} has shape {p.shape}. Give "
                "the others to a second optimizer, as AdamW([p for p in params if p.ndim != 2])"
            )

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        self._check_below_1("momentum", group["momentum"])
        if not isinstance(group["ns_steps"], int) or group["ns_steps"] < 0:
            raise ValueError(f"Muon: ns_steps must be a whole number, got {group['ns_steps']!r}")

    def _used(self, group: Group) -> Sequence[str]:
        return self.states
