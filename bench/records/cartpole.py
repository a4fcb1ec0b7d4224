"""A pole is balanced on a cart, by deep Q-learning (Mnih and others, 2015).

The cart is that of Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve
difficult learning control problems", 1983, in steps of 0.02 s by Euler's method: an episode ends
when the pole leans by more than 12 degrees, the cart is more than 2.4 m from the middle, or after
500 steps; each step is worth 1. After each 256 steps 128 batches of 64 are drawn from the memory of
all steps; the network that says what the next state is worth is a copy that is renewed before every
tenth batch. Solved: 20 episodes without chance last 475 steps in the mean.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.clock import Clock
from bench.records.contestants import Array, Maker, Training

LONGEST, GOAL, EPISODES = 500, 475.0, 20
MOST = 100_000  # steps of the cart
BLOCK, BATCHES, BATCH, RENEWED, TESTED = 256, 128, 64, 10, 1024
RATE, DISCOUNT = 2.3e-3, 0.99
#: The share of random actions falls to the last over so many steps.
LAST_CHANCE, EXPLORED = 0.04, 8_000
SHAPES = {
    "w1": (128, 4), "b1": (128,), "w2": (128, 128), "b2": (128,), "w3": (2, 128), "b3": (2,),
}  # fmt: skip


def values_of(ops: Any, p: Any, x: Any) -> Any:
    """States (N, 4) -> what both actions are worth (N, 2)."""
    x = ops.relu(ops.linear(x, p["w1"], p["b1"]))
    return ops.linear(ops.relu(ops.linear(x, p["w2"], p["b2"])), p["w3"], p["b3"])


def loss(ops: Any, p: Any, x: Any, taken: Any, wanted: Any) -> Any:
    """taken: ones where the action was taken (N, 2). wanted: what it was worth, seen now (N,)."""
    return (((values_of(ops, p, x) * taken).sum(-1) - wanted) ** 2).mean()


def moved(states: Array, right: Array) -> Array:
    """Carts (N, 4), position, speed, angle and its speed, after a push of 10 N for 0.02 s.

    The cart has 1 kg, the pole 0.1 kg and half a length of 0.5 m.
    """
    _, dx, angle, turn = states.T
    cos, sin = np.cos(angle), np.sin(angle)
    pushed = (np.where(right, 10.0, -10.0) + 0.05 * turn * turn * sin) / 1.1
    turning = (9.8 * sin - cos * pushed) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1))
    pace = pushed - 0.05 * turning * cos / 1.1
    rates = np.stack([dx, pace, turn, turning], 1)
    return (states + 0.02 * rates).astype(np.float32)


def fallen(states: Array) -> Array:
    """Whether each is over."""
    return (abs(states[:, 0]) > 2.4) | (abs(states[:, 2]) > math.radians(12))


class Memory:
    """All steps that were made."""

    def __init__(self) -> None:
        self.before, self.after = (np.zeros((MOST, 4), np.float32) for _ in range(2))
        self.actions, self.ends = np.zeros(MOST, np.int64), np.zeros(MOST, np.float32)
        self.count = 0

    def add(self, before: Array, action: int, after: Array, ends: bool) -> None:
        """One more."""
        k = self.count
        self.before[k], self.actions[k], self.after[k], self.ends[k] = before, action, after, ends
        self.count += 1


def started(draw: np.random.Generator, n: int) -> Array:
    """Carts that nearly stand."""
    return draw.uniform(-0.05, 0.05, (n, 4)).astype(np.float32)


def lasting(training: Training, draw: np.random.Generator) -> float:
    """How long episodes last that follow the network, in the mean."""
    states, stand, steps = started(draw, EPISODES), np.ones(EPISODES, bool), 0
    for _ in range(LONGEST):
        states = moved(states, training.outputs(states).argmax(1) == 1)
        stand &= ~fallen(states)
        steps += int(stand.sum())
        if not stand.any():
            break
    return steps / EPISODES


def learn(training: Training, copy: Training, memory: Memory, draw: np.random.Generator) -> float:
    """The batches of one block. The first loss."""
    first = 0.0
    for k in range(BATCHES):
        if k % RENEWED == 0:
            copy.take(training.values())
        rows = draw.integers(0, memory.count, BATCH)
        following = copy.outputs(memory.after[rows]).max(1)
        wanted = 1 + DISCOUNT * (1 - memory.ends[rows]) * following
        taken = np.eye(2, dtype=np.float32)[memory.actions[rows]]
        value = training.step(RATE, memory.before[rows], taken, wanted.astype(np.float32))
        if not k:
            first = float(value)
    return first


def run(make: Maker, folder: Path, seed: int, clock: Clock) -> dict[str, Any]:
    """Learn until it is solved."""
    draw = np.random.default_rng(seed)
    start = {
        name: (draw.uniform(-1, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    training, copy = (make(start, loss, values_of) for _ in range(2))
    memory, state, lasted, score = Memory(), started(draw, 1), 0, 0.0
    first_loss = None
    while memory.count < MOST and score < GOAL:
        chance = max(LAST_CHANCE, 1 - memory.count / EXPLORED)
        if draw.random() < chance:
            action = int(draw.integers(2))
        else:
            action = int(training.outputs(state).argmax())
        after = moved(state, np.array([action == 1]))
        ends, lasted = bool(fallen(after)[0]), lasted + 1
        memory.add(state[0], action, after[0], ends)
        state = after
        if ends or lasted == LONGEST:
            state, lasted = started(draw, 1), 0
        if memory.count % BLOCK == 0 and memory.count >= 4 * BLOCK:
            found = learn(training, copy, memory, draw)
            first_loss = found if first_loss is None else first_loss
        if memory.count % TESTED == 0:
            score = lasting(training, np.random.default_rng(seed + 1000))
    return {
        "reached": clock.read() if score >= GOAL else None,
        "score": score,
        "first_loss": first_loss,
        "steps": memory.count,
        "parts": {},
    }
