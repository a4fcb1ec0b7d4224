"""Derivatives by differences, independent of the product: the judge of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

STEP = 5e-4


def along(
    f: Callable[[Sequence[Array]], float],
    at: Sequence[Array],
    direction: Sequence[Array],
    step: float = STEP,
) -> float:
    """The derivative of ``f`` at ``at`` along ``direction``: five points, error O(step**4)."""

    def moved(by: float) -> float:
        return f([np.asarray(a + by * d) for a, d in zip(at, direction, strict=True)])

    return (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step)


def directions(rng: np.random.Generator, like: Sequence[Array]) -> list[Array]:
    """A random direction, no component of which is nearly zero."""
    signs = [rng.choice([-1.0, 1.0], a.shape) for a in like]
    return [np.asarray(s * rng.uniform(0.3, 1, s.shape)) for s in signs]


def assert_slope(
    f: Callable[[Sequence[Array]], float],
    at: Sequence[Array],
    gradients: Sequence[Array],
    rng: np.random.Generator,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    tries: int = 2,
    move: Callable[[Sequence[Array]], Sequence[Array]] = lambda d: d,
) -> None:
    """Assert that ``gradients`` say how ``f`` changes along random directions.

    The tolerance is relative to the sum of the absolute contributions, so that directions along
    which they cancel are no trouble. ``move`` restricts the directions.
    """
    for a, g in zip(at, gradients, strict=True):
        assert g.shape == a.shape, f"gradient of shape {g.shape} for a value of shape {a.shape}"
        assert np.isfinite(g).all(), f"gradient not finite: {g}"
    for _ in range(tries):
        direction = move(directions(rng, at))
        parts = [g * d for g, d in zip(gradients, direction, strict=True)]
        claimed = float(sum(p.sum() for p in parts))
        scale = float(sum(np.abs(p).sum() for p in parts))
        found = along(f, at, direction)
        assert abs(claimed - found) <= rtol * scale + atol, (
            f"the gradient says {claimed!r}, differences say {found!r}"
        )
