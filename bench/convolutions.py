"""The convolutions of the networks in ``layered``, one by one, against oneDNN's own kernels.

What is timed here is the unit of a program: the input lies channels last, weights come as they are
and are packed. oneDNN gets everything in the layout that it asks for.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import repeat
from typing import Any

from bench import onednn
from bench.contest import Contest
from bench.measure import Timed, ratios, repeated
from bench.onednn import Convolution
from bench.workers import Job

NAME = "convolutions"
TITLE = "single convolutions, each a unit of a program"
UNIT = "microseconds"
OURS, THEIRS = "tensorgrad compiled", "onednn"
WHO = (OURS, THEIRS)
BAR = 1.15
LAYERS = (
    Convolution(64, 1, 16, 28, bias=True),
    Convolution(64, 16, 32, 14, bias=True),
    Convolution(32, 3, 16, 32),
    Convolution(32, 16, 16, 32),
    Convolution(32, 16, 32, 32, stride=2),
    Convolution(32, 32, 32, 16),
    Convolution(32, 32, 64, 16, stride=2),
    Convolution(32, 64, 64, 8),
)
KINDS = ("forward", "data", "weights")


def _named(what: Convolution, kind: str) -> str:
    stride = f", stride {what.stride}" if what.stride > 1 else ""
    return f"{what.inner}-{what.outer}, {what.images} x {what.size}²{stride}, {kind}"


def _program(what: Convolution, kind: str) -> Any:
    """A call of a program of one convolution, or of one of its gradients, and the program."""
    import numpy as np

    import tensorgrad as tg
    from tensorgrad.nn.functional import conv2d

    draw, n, size, out = np.random.default_rng(0), what.images, what.size, what.result_size

    def real(*shape: int) -> Any:
        return tg.tensor(draw.standard_normal(shape).astype(np.float32), requires_grad=True)

    x, g = real(n, size, size, what.inner), real(n, out, out, what.outer).detach()
    weights = real(what.outer, what.inner, 3, 3)
    bias = real(what.outer) if what.bias and kind == "forward" else None

    @tg.compile
    def compiled(x: Any, weights: Any, bias: Any, g: Any) -> Any:
        y = conv2d(x.permute(0, 3, 1, 2), weights, bias, what.stride, 1)
        if kind == "forward":
            return y.detach()
        wanted = x if kind == "data" else weights
        return tg.autograd.grad(y, [wanted], g.permute(0, 3, 1, 2))

    return lambda: compiled(x, weights, bias, g), compiled


def build(contestant: str, number: int, kind: str) -> Timed:
    """The units that are convolutions, of a program; or a primitive of oneDNN's."""
    what = LAYERS[number]
    if contestant == THEIRS:
        return Timed(repeated(onednn.convolution(what, kind)))
    from bench.unit_times import Clock

    call, compiled = _program(what, kind)
    call()
    clock = Clock(compiled)
    units = [k for k, about in enumerate(clock.about) if "convolution" in about]
    if not units:
        raise AssertionError(f"no unit is a convolution: {clock.about}")

    def run(repetitions: int) -> float:
        taken = 0.0
        for _ in repeat(None, repetitions):
            call()
            taken += float(clock.seconds()[units].sum())
        return taken

    return Timed(run)


def _compared(contest: Contest, who: list[str], threads: str) -> None:
    for number, what in enumerate(LAYERS):
        for kind in KINDS:
            if kind == "data" and number in (0, 2):  # which nobody asks for
                continue
            case = f"{_named(what, kind)}, {threads}"
            times = contest.compare(
                {(case, name): Job(__name__, name, (number, kind)) for name in who},
                pace=contest.pace(),
            )
            if len(times) == len(WHO):
                ours, theirs = (times[case, name] for name in WHO)
                found, least = ratios(ours, theirs), min(ours) / min(theirs)
                contest.report.judge(f"{case}, ratio to oneDNN", BAR, found.middle, found, least)


def _overhead(contest: Contest) -> None:
    """What calling oneDNN from here costs, which is part of its times: a convolution of nothing."""
    call = onednn.convolution(Convolution(1, 16, 16, 1), "forward")
    call()
    start = time.perf_counter()
    for _ in range(1000):
        call()
    taken = (time.perf_counter() - start) / 1000
    contest.report.notes.append(f"a call of oneDNN with next to no work takes {taken * 1e6:.1f} us")


def run(contest: Contest) -> None:
    """Every layer, with one thread and with all."""
    who = contest.taking_part(*WHO)
    threads = contest.settings.threads
    with Contest(replace(contest.settings, threads=1), contest.report) as single:
        _compared(single, who, "1 thread")
    if threads > 1:
        _compared(contest, who, f"{threads} threads")
    if THEIRS in who:
        _overhead(contest)
