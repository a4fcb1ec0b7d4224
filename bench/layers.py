"""Whole training steps with the layers that people train: zero_grad, forward, backward, update.

A model is written once: the layers have the same names everywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench.contest import Contest
from bench.measure import Timed, ratios, repeated
from bench.workers import Job

NAME = "layers"
TITLE = "one training step with convolutional, recurrent and embedding layers"
UNIT = "milliseconds"
WHO = ("tensorgrad", "tensorgrad compiled", "torch")


class Case(NamedTuple):
    """What is trained.

    model: from a framework's ``nn`` to a module, and to the function that makes the output of the
        input. batch: draws input and target; targets that are integers are classes.
    optimizer: its name in ``optim`` and the learning rate.
    bar: the largest ratio to PyTorch, of eager mode.
    """

    model: Callable[[Any], tuple[Any, Callable[[Any], Any]]]
    batch: Callable[[np.random.Generator], tuple[Any, Any]]
    optimizer: tuple[str, float]
    bar: float


def _recurrent(kind: str) -> Case:
    def model(nn: Any) -> tuple[Any, Callable[[Any], Any]]:
        layer = getattr(nn, kind)(64, 128)
        return layer, lambda x: layer(x)[0][-1]

    def batch(draw: np.random.Generator) -> tuple[Any, Any]:
        return _real(draw, 50, 32, 64), _real(draw, 32, 128)

    return Case(model, batch, ("SGD", 0.01), 1.8)


def _convolutional(nn: Any) -> tuple[Any, Callable[[Any], Any]]:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip
    return module, module


def _embedding(sparse: bool) -> Case:
    def model(nn: Any) -> tuple[Any, Callable[[Any], Any]]:
        module = nn.Embedding(50_000, 64, sparse=sparse)
        return module, module

    def batch(draw: np.random.Generator) -> tuple[Any, Any]:
        return draw.integers(0, 50_000, 4096), _real(draw, 4096, 64)

    return Case(model, batch, ("SGD", 0.01), 1.5)


def _real(draw: np.random.Generator, *shape: int) -> Any:
    return draw.standard_normal(shape).astype(np.float32)


CASES = {
    "ConvNet 1-16-32, 64 x 28 x 28, Adam": Case(
        _convolutional,
        lambda draw: (_real(draw, 64, 1, 28, 28), draw.integers(0, 10, 64)),
        ("Adam", 1e-3),
        1.6,
    ),
    "LSTM 64-128, batch 32, 50 steps, SGD": _recurrent("LSTM"),
    "GRU 64-128, batch 32, 50 steps, SGD": _recurrent("GRU"),
    "embedding 50,000 x 64, 4,096 look-ups, SGD": _embedding(False),
    "embedding 50,000 x 64, 4,096 look-ups, sparse, SGD": _embedding(True),
}
#: Steps of a loop over ``x[t]``, and how much longer the longer one may take.
SLICES = ("a loop over 50 slices", "a loop over 400 slices")
GROWTH = 9.0


def _loop(framework: Any, steps: int) -> Timed:
    """Forward and backward through a loop over the slices of a sequence."""
    x = framework.tensor(_real(np.random.default_rng(0), steps, 32, 64), requires_grad=True)

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
    framework_name, _, compiled = contestant.partition(" ")
    framework: Any = importlib.import_module(framework_name)
    if name in SLICES:
        return _loop(framework, int(name.split()[3]))
    case, draw = CASES[name], np.random.default_rng(0)
    nn = framework.nn
    module, output = case.model(nn)
    with framework.no_grad():
        for p in module.parameters():
            values = draw.uniform(-0.1, 0.1, tuple(p.shape)).astype(np.float32)
            p.copy_(framework.tensor(values))
    x, target = (framework.tensor(a) for a in case.batch(draw))
    labelled = "int" in str(target.dtype)
    criterion = nn.functional.cross_entropy if labelled else nn.functional.mse_loss
    optimizer = getattr(framework.optim, case.optimizer[0])(
        module.parameters(), lr=case.optimizer[1]
    )

    def step(x: Any, target: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(output(x), target)
        loss.backward()
        optimizer.step()
        return loss

    call = framework.compile(step) if compiled else step
    return Timed(
        repeated(lambda: call(x, target)), [float(call(x, target).item()) for _ in range(3)]
    )


def run(contest: Contest) -> None:
    """Every case; the rest between slots is longer than idle OpenBLAS threads spin."""
    who = contest.taking_part(*WHO)
    for case, (*_, bar) in CASES.items():
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
