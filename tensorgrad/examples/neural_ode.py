"""A law of motion learned from what was seen: ``tensorgrad demo neural-ode``.

R. Chen and others, "Neural ordinary differential equations", 2018: du/dt = f(u), where f is a
network. What is compared with the observations is the solution, by the method of Runge and Kutta,
through whose steps the gradients go back. Here an oscillator (B. van der Pol, 1926) was watched,
with noise, and the network has to go on by itself from other beginnings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import write_atomically
from tensorgrad.viz import draw_lines

Array = np.ndarray[Any, Any]

STEP = 0.05  # of time, between two observations
_AHEAD = 10  # steps that the network foretells while it learns


def van_der_pol(u: Any) -> Any:
    """The law: x' = v, v' = (1 - x^2) v - x, of points (N, 2)."""
    x, v = u[:, :1], u[:, 1:]
    join = np.concatenate if isinstance(u, np.ndarray) else tg.concat
    return join([v, (1 - x * x) * v - x], 1)


def runge_kutta(f: Callable[[Any], Any], u: Any, h: float) -> Any:
    """A step of the classical method of fourth order, on arrays or tensors."""
    first = f(u)
    second = f(u + h / 2 * first)
    third = f(u + h / 2 * second)
    fourth = f(u + h * third)
    return u + h / 6 * (first + 2 * second + 2 * third + fourth)


def path(f: Callable[[Any], Any], start: Any, steps: int) -> list[Any]:
    """The points (N, 2) at the beginning and after each step."""
    points = [start]
    for _ in range(steps):
        points.append(runge_kutta(f, points[-1], STEP))
    return points


def observed(paths: int, steps: int, seed: int) -> Array:
    """What was seen of motions from different beginnings, within 0.02: (steps + 1, paths, 2)."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(-2.5, 2.5, (paths, 2))
    truth = np.stack(path(van_der_pol, start, steps))
    return (truth + rng.normal(0, 0.02, truth.shape)).astype(np.float32)


def law(width: int = 64) -> nn.Sequential:
    """The network in the place of the law."""
    return nn.Sequential(
        nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
    )


def fit(model: nn.Module, seen: Array, steps: int, seed: int) -> float:
    """Train on pieces of what was seen; returns the loss of the last step."""
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    @tg.compile
    def step(start: tg.Tensor, after: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        foretold = tg.stack(path(model, start, _AHEAD)[1:])
        loss = nn.functional.mse_loss(foretold, after)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(seed)
    last = 0.0
    for _ in range(steps):
        time = rng.integers(0, len(seen) - _AHEAD, 64)
        which = rng.integers(0, seen.shape[1], 64)
        pieces = np.stack([seen[time + k, which] for k in range(_AHEAD + 1)])
        last = step(tg.tensor(pieces[0]), tg.tensor(pieces[1:])).item()
        schedule.step()
    return last


def foretold(model: nn.Module, start: Array, steps: int) -> tuple[Array, Array]:
    """By the network and by the law itself: (steps + 1, N, 2)."""
    with tg.no_grad():
        found = path(model, tg.tensor(start.astype(np.float32)), steps)
    return np.stack([u.numpy() for u in found]), np.stack(path(van_der_pol, start, steps))


def run(folder: Path, seed: int) -> None:
    """Learn the law; print how far motions from new beginnings are from the truth."""
    tg.manual_seed(seed)
    seen = observed(100, 40, seed)
    model = law()
    loss = fit(model, seen, 3000, seed)
    print(f"{seen.shape[1]} motions of {len(seen) - 1} steps seen; error of {_AHEAD} steps ahead: "
          f"{loss**0.5:.4f} (noise 0.02)")  # fmt: skip
    start = np.array([[0.5, 0.0], [2.2, -2.0], [-1.0, 2.4]])
    found, truth = foretold(model, start, 400)
    for steps in (50, 100, 200, 400):
        error = np.sqrt(np.mean((found[: steps + 1] - truth[: steps + 1]) ** 2))
        print(f"three new motions, {steps:>3} steps ({steps * STEP:>4.1f}): error {error:.4f}")
    lines = {}
    for k, point in enumerate(start):
        lines[f"from {point[0]:g}, {point[1]:g}"] = (found[:, k, 0], found[:, k, 1])
    dots = {"exact": (truth[::8, :, 0], truth[::8, :, 1])}
    picture = draw_lines(lines, "the learned law", "place (speed upwards)", dots)
    write_atomically(folder / "motions.svg", picture.encode())
    nn.save_safetensors(model, folder / "model.safetensors")
