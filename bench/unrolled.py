"""Long steps, as Python loops write them: what compiling them costs is in ``costs``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.autograd import grad

Step = tuple[Callable[..., Any], tuple[Any, ...]]


def runge_kutta(steps: int) -> Step:
    """The gradient of a solution of Lotka and Volterra's equations; each step has four stages."""

    def change(u: Any, p: Any) -> Any:
        x, y = u[0], u[1]
        return tg.stack([p[0] * x - p[1] * x * y, -p[2] * y + p[3] * x * y])

    def gradient(p: Any) -> Any:
        u, h = tg.ones((2,)), 0.01
        for _ in range(steps):
            a = change(u, p)
            b = change(u + h / 2 * a, p)
            c = change(u + h / 2 * b, p)
            d = change(u + h * c, p)
            u = u + h / 6 * (a + 2 * b + 2 * c + d)
        return grad((u**2).sum(), p)[0]

    return gradient, (tg.tensor([1.5, 1.0, 3.0, 1.0], requires_grad=True),)


def chain(operations: int) -> Step:
    """So many elementwise operations on 64 elements."""

    def forward(x: Any) -> Any:
        y = x
        for _ in range(operations // 3):
            y = tg.sin(y) * 0.9 + x
        return y

    return forward, (tg.linspace(0.1, 1.0, 64),)


def lstm(steps: int) -> Step:
    """A training step of a cell of 64 units, written by hand, over a sequence of 32 inputs."""
    draw = np.random.default_rng(0)
    batch, inputs, units = 32, 32, 64

    def weights(*shape: int) -> Any:
        return tg.tensor(draw.normal(size=shape).astype(np.float32) / 8, requires_grad=True)

    w, u, b = weights(4 * units, inputs), weights(4 * units, units), weights(4 * units)
    optimizer = tg.optim.Adam([w, u, b], lr=1e-3)

    def train(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        h = c = tg.zeros((batch, units))
        for k in range(steps):
            z = x[k] @ w.T + h @ u.T + b
            i, f, o = (tg.sigmoid(z[:, n * units : (n + 1) * units]) for n in (0, 1, 3))
            c = f * c + i * tg.tanh(z[:, 2 * units : 3 * units])
            h = o * tg.tanh(c)
        loss = ((h - t) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x, t = draw.normal(size=(steps, batch, inputs)), draw.normal(size=(batch, units))
    return train, (tg.tensor(x.astype(np.float32)), tg.tensor(t.astype(np.float32)))


#: Case -> how its step is made.
CASES: dict[str, Callable[[], Step]] = {
    "100 Runge-Kutta stages": lambda: runge_kutta(25),
    "400 Runge-Kutta stages": lambda: runge_kutta(100),
    "5,000 operations in a row": lambda: chain(5_000),
    "20,000 operations in a row": lambda: chain(20_000),
    "LSTM cell over 50 steps": lambda: lstm(50),
}


def first_call(case: str) -> dict[str, float]:
    """Of a case: seconds of the first call and of a replay, instructions, characters of C."""
    step, given = CASES[case]()
    step(*given)  # without imports and the first products of the process
    compiled: Any = tg.compile(step)
    start = time.perf_counter()
    compiled(*given)
    first = time.perf_counter() - start
    replays = []
    for _ in range(20):
        start = time.perf_counter()
        compiled(*given)
        replays.append(time.perf_counter() - start)
    return {
        "first": first,
        "replay": min(replays),
        "instructions": len(compiled.program().instructions),
        "characters": len(compiled._last().executor.text),
    }
