"""Two graphs of scalars from the tables of BurTorch: value and gradient, again and again.

K. Burlachenko and P. Richtárik, "BurTorch: revisiting training from first principles by coupling
autodiff, math optimization, and systems", arXiv 2503.13795, 2025: a tiny graph of ten nodes,
computed 100,000 times, and a small one of 32 nodes, computed 20,000 times, both of float64 and each
time from the same two numbers. Here each is a call from Python with these as arguments, which hands
out the value and leaves or hands out both derivatives.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.records.clock import Clock
from bench.records.contestants import Maker


def tiny(a: Any, b: Any, relu: Any) -> Any:
    """((a + b) - (a b + b**3))**2 / 2."""
    return (a + b - (a * b + b * b * b)) ** 2 * 0.5


def small(a: Any, b: Any, relu: Any) -> Any:
    """The example of A. Karpathy's micrograd (2020), without the last of its lines."""
    c, d = a + b, a * b + b * b * b
    c = c + c + 1.0
    c = c + 1.0 + c - a
    d = d + d * 2.0 + relu(b + a)
    d = d + 3.0 * d + relu(b - a)
    f = (c - d) ** 2
    return f / 2.0 + 10.0 / f


class Graph(NamedTuple):
    """What is computed of which numbers, how often."""

    function: Callable[..., Any]
    a: float
    b: float
    times: int


GRAPHS = {"tiny": Graph(tiny, -41.0, 2.0, 100_000), "small": Graph(small, -4.0, 2.0, 20_000)}


def run(make: Maker, folder: Path, seed: int, clock: Clock, name: str) -> dict[str, Any]:
    """All the calls; then, with all compiled, once more."""
    graph = GRAPHS[name]
    call: Callable[[], Any] = importlib.import_module(make.__module__).graph(make, graph)
    first = [float(x) for x in call()]
    for turn in range(2):
        before = clock.read()
        for _ in range(graph.times):
            call()
        if not turn:
            reached = clock.read()
    return {
        "reached": reached,
        "score": first[1],
        "first_loss": sum(first),
        "steps": graph.times,
        "parts": {f"{graph.times:,} further calls": clock.read().since(before)},
    }
