"""What one operation costs: chains of elementwise operations on arrays too small to matter."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np

from bench.contest import Contest
from bench.frameworks import load
from bench.measure import Timed, repeated
from bench.workers import Job

NAME = "ops"
TITLE = "forward and backward of one operation, in chains of 200 on 64 float32 elements"
UNIT = "microseconds an operation"
#: Nothing here is large enough for two threads. On one core all contestants share its luck: cores
#: differ by a third when others use the machine.
THREADS = 1
WHO = ("tensorgrad", "torch", "jax", "autograd")
BAR = 0.5
ELEMENTS = 64
LENGTH = 200

Link = Callable[[Any, Any, Any], Any]

#: Name -> the operations that make a link of the chain, as ``link(f, y, w)``: ``f`` the framework's
#: functions, ``y`` the value so far, ``w`` a constant near 1. Operations that would leave their
#: domain, vanish or overflow when repeated come with their inverse; a link counts as many
#: operations as it has.
CASES: dict[str, tuple[Link, ...]] = {
    "multiply": (lambda f, y, w: y * w,),
    "add": (lambda f, y, w: y + w,),
    "subtract": (lambda f, y, w: y - w,),
    "divide": (lambda f, y, w: y / w,),
    "multiply by number": (lambda f, y, w: y * 1.01,),
    "multiply by itself, sqrt": (lambda f, y, w: y * y, lambda f, y, w: f.sqrt(y)),
    "negative": (lambda f, y, w: -y,),
    "abs": (lambda f, y, w: f.abs(y),),
    "exp, log": (lambda f, y, w: f.exp(y), lambda f, y, w: f.log(y)),
    "square, sqrt": (lambda f, y, w: f.square(y), lambda f, y, w: f.sqrt(y)),
    "reciprocal": (lambda f, y, w: f.reciprocal(y),),
    "sin": (lambda f, y, w: f.sin(y),),
    "tanh": (lambda f, y, w: f.tanh(y),),
    "sigmoid, log": (lambda f, y, w: f.sigmoid(y), lambda f, y, w: f.log(y)),
    "relu": (lambda f, y, w: f.relu(y),),
    "maximum": (lambda f, y, w: f.maximum(y, w),),
    "where": (lambda f, y, w: f.where(w > 1.0, y, w),),
    "mixture": (
        lambda f, y, w: y * w,
        lambda f, y, w: y + w,
        lambda f, y, w: f.tanh(y),
        lambda f, y, w: y / w,
        lambda f, y, w: f.exp(y),
        lambda f, y, w: f.relu(y),
        lambda f, y, w: y - w,
        lambda f, y, w: f.sigmoid(y),
        lambda f, y, w: y * 4.0,
        lambda f, y, w: f.sqrt(y),
    ),
}


def build(contestant: str, case: str) -> Timed:
    """The chain of a case. The check is a chain of at most 20 operations: value and gradient."""
    loaded = load(contestant)
    draw = np.random.default_rng(0)
    x = draw.uniform(0.5, 1.5, ELEMENTS).astype(np.float32)
    w = loaded.constant(draw.uniform(0.99, 1.01, ELEMENTS).astype(np.float32))
    links = CASES[case]

    def chain(repetitions: int) -> Callable[[Any], Any]:
        def f(y: Any) -> Any:
            for _ in range(repetitions):
                for link in links:
                    y = link(loaded.functions, y, w)
            return y.sum()

        return f

    loss, gradient = loaded.differentiated(chain(20 // len(links)), x)()
    weights = np.arange(1, ELEMENTS + 1)
    check = [float(loss), float(np.asarray(gradient) @ weights)]
    return Timed(repeated(loaded.differentiated(chain(LENGTH // len(links)), x)), check)


def run(contest: Contest) -> None:
    """Time every case; hold the mean of the ratios against the bar."""
    who = contest.taking_part(*WHO)
    for case in CASES:
        contest.compare(
            {(case, name): Job(__name__, name, (case,)) for name in who},
            pace=contest.pace(slot=0.015),
            scale=1e6 / LENGTH,
        )
    found = [contest.report.row(case, "tensorgrad") for case in CASES]
    ratios = [row.ratio.middle for row in found if row is not None and row.ratio is not None]
    if ratios:
        contest.report.judge(f"mean ratio of the {len(ratios)} cases", BAR, fmean(ratios))
