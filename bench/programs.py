"""Whole training steps as programs: compiled here, by torch.compile and by jax.jit."""

from __future__ import annotations

import importlib
import time
from typing import Any

from bench import ops
from bench.contest import Contest
from bench.measure import Timed, ratios, repeated
from bench.training.networks import MODERN, NETWORKS
from bench.workers import Job

NAME = "programs"
TITLE = "one training step as a program"
UNIT = "microseconds"
WHO = ("tensorgrad compiled", "tensorgrad numpy", "tensorgrad", "torch", "torch compiled", "jax")
OPTIMIZERS = ("momentum", "Adam")
#: Network -> how many times faster than PyTorch in eager mode, and than jax.jit.
BARS = {
    "2-8-1": (80.0, 10.0),
    "64-32-10": (20.0, 4.0),
    "784-128-10": (2.5, 1.3),
    "layer norm, GELU 32-64-10": (30.0, 5.0),
}
#: Networks where no peer may be faster.
FASTEST = ("784-512-512-10", "1024-2048-2048-1000", "100 x 64", "attention")
ALL = {**NETWORKS, **MODERN}
QUICK = ("2-8-1", "64-32-10")
OPTIONS: dict[str, dict[str, Any]] = {
    "tensorgrad compiled": {"compiled": "auto"},
    "tensorgrad numpy": {"compiled": "numpy"},
    "torch compiled": {"compiled": True},
}


def build(contestant: str, network: str, optimizer: str) -> Timed:
    """The step of a contestant. The check is the loss of the first three steps.

    The time that compiling takes is not part of a step; it is printed once for each.
    """
    framework = contestant.partition(" ")[0]
    module = importlib.import_module(f"bench.training.with_{framework}")
    step = module.training_step(ALL[network], optimizer, **OPTIONS.get(contestant, {}))
    start = time.perf_counter()
    first = step().item()
    taken = time.perf_counter() - start
    if contestant != "tensorgrad" and contestant != "torch":
        print(f"{contestant}, {network} {optimizer}: first call {taken:.2f} s", flush=True)
    return Timed(repeated(step), [first, step().item(), step().item()])


def run(contest: Contest) -> None:
    """Every network with every optimizer, and a chain of small operations."""
    who = contest.taking_part(*WHO)
    _chain(contest, [name for name in who if name not in ("tensorgrad numpy", "torch compiled")])
    for network in QUICK if contest.settings.quick else ALL:
        for optimizer in OPTIMIZERS:
            case = f"{network} {optimizer}"
            times = contest.compare(
                {(case, name): Job(__name__, name, (network, optimizer)) for name in who},
                pace=contest.pace(slot=0.04, rest=0.035),
            )
            _judge(contest, case, network, times)


def _chain(contest: Contest, who: list[str]) -> None:
    """The mixture of the section ``ops``, forward and backward: 200 operations on 64 elements."""
    case = f"{ops.LENGTH} operations on {ops.ELEMENTS} elements"
    times = contest.compare(
        {(case, name): Job(ops.__name__, name, ("mixture",)) for name in who},
        pace=contest.pace(),
    )
    ours, theirs = times.get((case, "tensorgrad compiled")), times.get((case, "jax"))
    if ours and theirs:
        found = ratios(ours, theirs)
        contest.report.judge(f"{case}, ratio to jax", 1.0, found.middle, found)


def _judge(
    contest: Contest, case: str, network: str, times: dict[tuple[str, str], list[float]]
) -> None:
    ours = times.get((case, "tensorgrad compiled"))
    if ours is None:
        return
    against = {name: times[case, name] for name in WHO[3:] if (case, name) in times}
    limits: dict[str, float] = {}
    if network in BARS:
        limits = dict(zip(("torch", "jax"), (1 / b for b in BARS[network])))
    elif network in FASTEST:
        limits = dict.fromkeys(against, 1.0)
    for name, limit in limits.items():
        if name in against:
            found = ratios(ours, against[name])
            contest.report.judge(f"{case}, ratio to {name}", limit, found.middle, found)
    numpy = times.get((case, "tensorgrad numpy"))
    eager = times.get((case, "tensorgrad"))
    if network == "64-32-10" and numpy and eager:
        found = ratios(numpy, eager)
        contest.report.judge(f"{case}, NumPy executor to eager", 1 / 1.5, found.middle, found)
