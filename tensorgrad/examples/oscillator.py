"""A network that obeys a law: ``tensorgrad demo oscillator``.

M. Raissi, P. Perdikaris and G. Karniadakis, "Physics-informed neural networks", 2019. A mass on a
spring in oil swings after u'' + 2 d u' + w^2 u = 0, and has been measured at a few moments, only at
the beginning. A network u(t) fitted to the measurements knows nothing of what comes later. Fitted
to the equation too, at moments at which nothing was measured, it goes on rightly, and finds
how much the oil damps. The derivatives u' and u'' are those of the network, by ``autograd.grad``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.autograd import grad
from tensorgrad.data import write_atomically
from tensorgrad.viz import draw_lines

Array = np.ndarray[Any, Any]

DAMPING, FREQUENCY = 2.0, 20.0


def exact(t: Array) -> Array:
    """The swing that begins at rest at 1."""
    w = np.sqrt(FREQUENCY**2 - DAMPING**2)
    swing: Array = np.exp(-DAMPING * t) * (np.cos(w * t) + DAMPING / w * np.sin(w * t))
    return swing


def measured(count: int, seed: int) -> tuple[Array, Array]:
    """Moments (count, 1) before 0.4, and where the mass was seen, within 0.02."""
    t = np.linspace(0, 0.4, count)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.02, t.shape)
    return t.astype(np.float32), (exact(t) + noise).astype(np.float32)


class Swing(nn.Module):
    """u(t) as a network of sines, and the damping as one more parameter."""

    def __init__(self, width: int = 32) -> None:
        self.first, self.second = nn.Linear(1, width), nn.Linear(width, width)
        self.output = nn.Linear(width, 1)
        nn.init.uniform_(self.first.weight, -FREQUENCY, FREQUENCY)
        self.damping = nn.Parameter(tg.tensor(0.5))

    def forward(self, t: tg.Tensor) -> tg.Tensor:
        """Moments (N, 1) -> places (N, 1)."""
        return self.output(tg.sin(self.second(tg.sin(self.first(t)))))

    def residual(self, t: tg.Tensor) -> tg.Tensor:
        """By how much the equation is missed at moments (N, 1), where u is about 1."""
        t = t.detach()
        t.requires_grad = True
        u = self(t)
        (speed,) = grad(u.sum(), t, create_graph=True)
        (force,) = grad(speed.sum(), t, create_graph=True)
        return force / FREQUENCY**2 + 2 * self.damping * speed / FREQUENCY**2 + u


def fit(model: Swing, t: Array, u: Array, physics: float, steps: int) -> None:
    """Fit the measurements, and at 100 moments in [0, 1] the equation, weighted by ``physics``."""
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    moments = tg.linspace(0, 1, 100)[:, None]
    seen, places = tg.tensor(t), tg.tensor(u)

    @tg.compile
    def step() -> tg.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(seen), places)
        if physics:
            loss = loss + physics * (model.residual(moments) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        step()
        schedule.step()


def run(folder: Path, seed: int) -> None:
    """Fit a network with the equation and one without; print how far each is from the truth."""
    t, u = measured(20, seed)
    late = np.linspace(0, 1, 401, dtype=np.float32)[:, None]
    curves = {"exact": (late, exact(late))}
    print(f"{'error, root of mean square':<30}{'until 0.4':>12}{'after it':>12}{'damping':>10}")
    for name, physics in (("measurements alone", 0.0), ("with the equation", 1.0)):
        tg.manual_seed(seed)
        model = Swing()
        fit(model, t, u, physics, 5000)
        with tg.no_grad():
            found = model(tg.tensor(late)).numpy()
        errors = (found - exact(late)) ** 2
        parts = [float(np.sqrt(part.mean())) for part in (errors[late <= 0.4], errors[late > 0.4])]
        damping = f"{model.damping.item():.3f}" if physics else "-"
        print(f"{name:<30}{parts[0]:>12.4f}{parts[1]:>12.4f}{damping:>10}")
        curves[name] = (late, found.clip(-1.2, 1.2))
    print(f"{'(exactly)':<54}{DAMPING:>10.3f}")
    picture = draw_lines(curves, "a swing in oil", "t", {"measured": (t, u)})
    write_atomically(folder / "swing.svg", picture.encode())
    nn.save_safetensors(model, folder / "model.safetensors")
