"""The tape: is the time that ``backward`` takes per node the same for every size of graph?"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contest import Contest
from bench.measure import Timed, ratios
from bench.workers import Job

NAME = "tape"
TITLE = "backward alone per node, for graphs of growing size on 16 float32 elements"
UNIT = "microseconds a node"
#: Nothing here is large enough for two threads. On one core all contestants share its luck: cores
#: differ by a third when others use the machine.
THREADS = 1
#: HIPS autograd takes the weights as one list, and time that grows with the square of its length.
WHO = ("tensorgrad", "torch", "naive")
BAR = 1.5
ELEMENTS = 16
SMALLEST, LARGEST = 100, 100_000
#: The naive method takes time that grows with the square of the size.
NAIVE_UP_TO = 1_000
GRAPHS = ("chain", "fan-out")


def _chain(x: Any, weights: list[Any]) -> Any:
    """A weight of its own for each node: y = y * w."""
    for w in weights:
        x = x * w
    return x.sum()


def _fan_out(x: Any, weights: list[Any]) -> Any:
    """Each sum is used twice, and each node has one weight: y, z = (y + z) * w, y."""
    y, z = x, x
    for w in weights:
        y, z = (y + z) * w, y
    return y.sum()


def _graph(kind: str, nodes: int) -> tuple[Callable[[Any, list[Any]], Any], list[Any]]:
    """The function of a graph with that many operations, and its input followed by its weights."""
    draw = np.random.default_rng(0)
    # Near 1 and 1/2 neither values nor gradients grow or vanish, whatever the size.
    count, near = (nodes, 1.0) if kind == "chain" else (nodes // 2, 0.5)
    w = draw.uniform(near - 1e-4, near + 1e-4, (count + 1, ELEMENTS)).astype(np.float32)
    return _chain if kind == "chain" else _fan_out, list(w)


def _timed(step: Callable[[], tuple[float, float]]) -> Timed:
    """``step`` gives the seconds that backward took, and the sum of a gradient."""

    def run(repetitions: int) -> float:
        return sum(step()[0] for _ in range(repetitions))

    return Timed(run, [step()[1]])


def _eager(module: Any, kind: str, nodes: int) -> Timed:
    """tensorgrad and PyTorch, which are used alike."""
    f, arrays = _graph(kind, nodes)
    make = module.tensor
    x, *weights = [make(a, requires_grad=True) for a in arrays]

    def step() -> tuple[float, float]:
        for leaf in (x, *weights):
            leaf.grad = None
        loss = f(x, weights)
        start = time.perf_counter()
        loss.backward()
        del loss  # the tape goes with it, and that is part of the price
        taken = time.perf_counter() - start
        return taken, float(x.grad.sum())

    return _timed(step)


def _naive(kind: str, nodes: int) -> Timed:
    """One expansion of the chain rule per weight: forward through all nodes after it.

    This is what back-propagation replaces (Werbos, 1974): the derivatives of the later nodes are
    multiplied again for every weight, so that n weights cost n * n.
    """
    _, arrays = _graph(kind, nodes)
    x, *weights = arrays
    # Local derivatives, node by node: pairs of the earlier value and the factor. Value 0 is x.
    factors: list[list[tuple[int, Any]]] = [[]]
    of_weight: list[tuple[int, Any]] = []
    y = z = 0
    values = [x]
    for w in weights:
        if kind == "chain":
            factors.append([(y, w)])
            of_weight.append((len(factors) - 1, values[y]))
            values.append(values[y] * w)
            y = len(values) - 1
        else:
            factors.append([(y, 1.0), (z, 1.0)])
            values.append(values[y] + values[z])
            total = len(values) - 1
            factors.append([(total, w)])
            of_weight.append((len(factors) - 1, values[total]))
            values.append(values[total] * w)
            y, z = len(values) - 1, y

    def expand(start: int, seed: Any) -> Any:
        found: dict[int, Any] = {start: seed}
        for i in range(start + 1, len(factors)):
            terms = [found[j] * factor for j, factor in factors[i] if j in found]
            if terms:
                found[i] = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        return found[len(factors) - 1]

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        for node, derivative in of_weight:
            expand(node, derivative)
        gradient = expand(0, np.ones_like(x))
        taken = time.perf_counter() - start
        return taken, float(gradient.sum())

    return _timed(step)


def build(contestant: str, kind: str, nodes: int) -> Timed:
    """A graph, and how a contestant differentiates it."""
    if contestant == "naive":
        return _naive(kind, nodes)
    return _eager(importlib.import_module(contestant), kind, nodes)


def run(contest: Contest) -> None:
    """All sizes of a graph in turn; the largest against the smallest, round by round."""
    who = contest.taking_part(*WHO)
    largest = 1000 if contest.settings.quick else LARGEST
    sizes = [10**k for k in range(2, 7) if 10**k <= largest or contest.settings.large]
    for kind in GRAPHS:
        scales = {f"{kind} {size}": 1e6 / size for size in sizes}
        jobs = {
            (f"{kind} {size}", name): Job(__name__, name, (kind, size))
            for size in sizes
            for name in who
            if name != "naive" or size <= (100 if contest.settings.quick else NAIVE_UP_TO)
        }
        times = contest.compare(jobs, pace=contest.pace(), scales=scales)
        few = times.get((f"{kind} {SMALLEST}", "tensorgrad"))
        many = times.get((f"{kind} {largest}", "tensorgrad"))
        if few and many:
            growth = ratios(many, few)
            contest.report.judge(
                f"{kind}: time per node at {largest:,} over that at {SMALLEST}",
                BAR,
                growth.middle * SMALLEST / largest,
                growth,
            )
    if "naive" in who:
        contest.report.notes.append("naive: one expansion of the chain rule per weight")
