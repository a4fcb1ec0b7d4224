"""Momentum and Adam on NumPy arrays in place, for those who bring no optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.training.networks import (
    ADAM_RATE,
    BETA1,
    BETA2,
    EPSILON,
    MOMENTUM,
    MOMENTUM_RATE,
    Array,
)

Update = Callable[[Sequence[Array]], None]


def momentum(parameters: Sequence[Array]) -> Update:
    """v = m v + g; p = p - rate v."""
    velocities = [np.zeros_like(p) for p in parameters]
    scratch = [np.empty_like(p) for p in parameters]

    def update(gradients: Sequence[Array]) -> None:
        for p, g, v, s in zip(parameters, gradients, velocities, scratch):
            np.multiply(v, MOMENTUM, out=v)
            np.add(v, g, out=v)
            np.multiply(v, MOMENTUM_RATE, out=s)
            np.subtract(p, s, out=p)

    return update


def adam(parameters: Sequence[Array]) -> Update:
    """Kingma and Ba (2015), with the bias corrections folded into the rate and epsilon."""
    firsts = [np.zeros_like(p) for p in parameters]
    seconds = [np.zeros_like(p) for p in parameters]
    scratch = [np.empty_like(p) for p in parameters]
    count = 0

    def update(gradients: Sequence[Array]) -> None:
        nonlocal count
        count += 1
        root = (1 - BETA2**count) ** 0.5
        rate = ADAM_RATE * root / (1 - BETA1**count)
        for p, g, m, v, s in zip(parameters, gradients, firsts, seconds, scratch):
            np.multiply(m, BETA1, out=m)
            np.multiply(g, 1 - BETA1, out=s)
            np.add(m, s, out=m)
            np.multiply(v, BETA2, out=v)
            np.multiply(g, g, out=s)
            np.multiply(s, 1 - BETA2, out=s)
            np.add(v, s, out=v)
            np.sqrt(v, out=s)
            np.add(s, EPSILON * root, out=s)
            np.divide(m, s, out=s)
            np.multiply(s, rate, out=s)
            np.subtract(p, s, out=p)

    return update


UPDATES: dict[str, Callable[[Sequence[Array]], Update]] = {"momentum": momentum, "Adam": adam}
