"""Whole training steps with the layers that people train: zero_grad, forward, backward, update.

Eager mode is judged here, against PyTorch as it comes; compiled steps in ``units``.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from bench.contest import Contest
from bench.measure import Timed, ratios, repeated
from bench.training.layered import (
    CONVNET,
    EMBEDDING,
    GRU,
    LSTM,
    SPARSE,
    training_step,
)
from bench.workers import Job

NAME = "layers"
TITLE = "one training step with convolutional, recurrent and embedding layers"
UNIT = "milliseconds"
WHO = ("tensorgrad", "tensorgrad compiled", "torch")
#: Case -> the largest ratio to PyTorch, of eager mode.
BARS = {CONVNET: 1.6, LSTM: 1.8, GRU: 1.8, EMBEDDING: 1.5, SPARSE: 1.5}
#: Steps of a loop over ``x[t]``, and how much longer the longer one may take.
SLICES = ("a loop over 50 slices", "a loop over 400 slices")
GROWTH = 9.0


def _loop(framework: Any, steps: int) -> Timed:
    """Forward and backward through a loop over the slices of a sequence."""
    values = np.random.default_rng(0).standard_normal((steps, 32, 64)).astype(np.float32)
    x = framework.tensor(values, requires_grad=True)

    def step() -> Any:
        x.grad = None
        y = x * 2.0
        loss = framework.tanh(y[0]).sum()
        for t in range(1, steps):
            loss = loss + framework.tanh(y[t]).sum()
        loss.backward()
        return loss

    return Timed(repeated(step), [float(step().item()), float(x.grad.sum().item())])


def build(contestant: str, name: str) -> Timed:
    """The step of a contestant. The check is the loss of the first three steps."""
    if name in SLICES:
        framework = importlib.import_module(contestant.partition(" ")[0])
        return _loop(framework, int(name.split()[3]))
    step = training_step(contestant, name)
    return Timed(repeated(step), [float(step().item()) for _ in range(3)])


def run(contest: Contest) -> None:
    """Every case; the rest between slots is longer than idle OpenBLAS threads spin."""
    who = contest.taking_part(*WHO)
    for case, bar in BARS.items():
        contest.compare(
            {(case, name): Job(__name__, name, (case,)) for name in who},
            pace=contest.pace(slot=0.1, rest=0.035),
            scale=1e3,
        )
        contest.report.judge_ratio(case, bar)
    eager = [name for name in who if "compiled" not in name]
    times = contest.compare(
        {(case, name): Job(__name__, name, (case,)) for case in SLICES for name in eager},
        pace=contest.pace(slot=0.1, rest=0.035),
        scale=1e3,
    )
    few, many = (times.get((case, "tensorgrad")) for case in SLICES)
    if few and many:
        growth = ratios(many, few)
        contest.report.judge(f"{SLICES[1]} over {SLICES[0]}", GROWTH, growth.middle, growth)
