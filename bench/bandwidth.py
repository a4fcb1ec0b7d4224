"""Large arrays: an elementwise chain against the speed at which memory can be copied at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from bench.contest import Contest
from bench.frameworks import load
from bench.measure import Timed, ratios, repeated
from bench.workers import Job

NAME = "bandwidth"
TITLE = "sum(sigmoid(x*w + b) * relu(x - c)), forward and backward, on large float32 arrays"
UNIT = "milliseconds"
#: The compiled chain at 2^24 elements against a copy, which moves the bytes that it has to move.
BAR = 1.3
#: Eager execution by native kernels against PyTorch eager, where arrays are of medium size.
NATIVE_BAR = 1.0
MEDIUM = (16, 20)
WHO = (
    "tensorgrad compiled",
    "tensorgrad native",
    "tensorgrad numpy",
    "tensorgrad",
    "torch",
    "jax",
    "autograd",
    "numpy",
    "copy",
)
W, B, C = 1.5, -0.25, 0.125
#: 128 KiB: a few of these fit into the second-level cache.
TILE = 32 * 1024


def _chain(f: Any) -> Callable[[Any], Any]:
    return lambda x: (f.sigmoid(x * W + B) * f.relu(x - C)).sum()


def _tiled(x: np.ndarray[Any, Any]) -> Callable[[], tuple[float, np.ndarray[Any, Any]]]:
    """By hand: value and gradient in one pass, by tiles that stay in the cache."""
    gradient = np.empty_like(x)
    s, r, t = (np.empty(TILE, x.dtype) for _ in range(3))

    def call() -> tuple[float, np.ndarray[Any, Any]]:
        loss = 0.0
        for start in range(0, len(x), TILE):
            part, g = x[start : start + TILE], gradient[start : start + TILE]
            np.multiply(part, -W, out=s)
            np.subtract(s, B, out=s)
            np.exp(s, out=s)
            np.add(s, 1, out=s)
            np.reciprocal(s, out=s)
            np.subtract(part, C, out=r)
            np.maximum(r, 0, out=r)
            loss += float(s @ r)
            # w s (1 - s) r + s where r > 0, which is s (w (1 - s) r + (r > 0))
            np.subtract(1, s, out=t)
            np.multiply(t, W, out=t)
            np.multiply(t, r, out=t)
            np.sign(r, out=g)
            np.add(t, g, out=t)
            np.multiply(t, s, out=g)
        return loss, gradient

    return call


def _copy(x: np.ndarray[Any, Any], threads: int) -> Callable[[], Any]:
    """A copy of the whole array, each thread its share."""
    target = np.empty_like(x)
    pairs = list(zip(np.array_split(target, threads), np.array_split(x, threads), strict=True))
    if threads == 1:
        return partial(np.copyto, target, x)
    pool = ThreadPoolExecutor(threads)

    def call() -> Iterator[None]:
        done = pool.map(lambda pair: np.copyto(*pair), pairs)
        for _ in done:
            pass
        return done

    return call


def _natively(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` with eager execution by native kernels, which ends with it."""

    def call(*args: Any) -> Any:
        import tensorgrad as tg

        tg.set_eager("native")
        try:
            return f(*args)
        finally:
            tg.set_eager("numpy")

    return call


def build(contestant: str, size: int, threads: int) -> Timed:
    """The chain on that many elements; for ``copy`` a copy of them."""
    x = np.random.default_rng(0).standard_normal(size, np.float32)
    if contestant == "copy":
        return Timed(repeated(_copy(x, threads)))
    if contestant == "numpy":
        call: Callable[[], tuple[Any, Any]] = _tiled(x)
    else:
        loaded = load(contestant)
        call = loaded.differentiated(_chain(loaded.functions), x)
    first, run = call, repeated(call)
    if contestant == "tensorgrad native":
        first, run = _natively(first), _natively(run)
    loss, gradient = first()
    sample = np.asarray(gradient)[:100].astype(np.float64)
    return Timed(run, [float(loss), float(sample @ np.arange(1, 101))])


def run(contest: Contest) -> None:
    """Each size in turn, and what the least possible traffic would take."""
    who = contest.taking_part(*WHO)
    for power in (16,) if contest.settings.quick else (*MEDIUM, 24):
        case = f"2^{power}"
        times = contest.compare(
            {
                (case, name): Job(__name__, name, (2**power, contest.settings.threads))
                for name in who
            },
            pace=contest.pace(slot=0.05, rest=0.01),
            scale=1e3,
        )
        if power in MEDIUM:
            contest.report.judge_ratio(case, NATIVE_BAR, "tensorgrad native")
        copies = times.get((case, "copy"))
        if copies is None:
            continue
        ours = times.get((case, "tensorgrad compiled"))
        if ours and power == 24:
            found = ratios(ours, copies)
            contest.report.judge(f"{case}, compiled, ratio to a copy", BAR, found.middle, found)
        middle = sorted(copies)[len(copies) // 2]
        contest.report.notes.append(
            f"{case}: a copy moves {2**power * 8 / middle / 1e9:.1f} GB/s; as multiples of it, "
            + ", ".join(
                f"{name} {ratios(seconds, copies).middle:.1f}"
                for (_, name), seconds in times.items()
                if name != "copy"
            )
            + ". A forward and a backward pass that read x once each and write the gradient once "
            "would take 1.5."
        )
