"""Whole training steps: zero_grad, forward, loss, backward, update."""

from __future__ import annotations

import importlib

from bench.contest import Contest
from bench.measure import Timed, repeated
from bench.training.networks import NETWORKS
from bench.workers import Job

NAME = "steps"
TITLE = "one training step"
UNIT = "microseconds"
WHO = ("tensorgrad", "torch", "torch fused", "jax", "autograd", "numpy")
OPTIMIZERS = ("momentum", "Adam")
BARS = {
    "64-32-10 momentum": 0.4,
    "64-32-10 Adam": 0.3,
    "784-128-10 momentum": 0.95,
    "784-128-10 Adam": 0.75,
}
QUICK = ("2-8-1", "64-32-10")


def build(contestant: str, network: str, optimizer: str) -> Timed:
    """The step of a contestant. The check is the loss of the first three steps.

    It covers the gradients and the update as well: the third loss follows from two updates.
    """
    framework, _, fused = contestant.partition(" ")
    module = importlib.import_module(f"bench.training.with_{framework}")
    options = {"fused": True} if fused else {}
    step = module.training_step(NETWORKS[network], optimizer, **options)
    return Timed(repeated(step), [step().item() for _ in range(3)])


def run(contest: Contest) -> None:
    """Every network with every optimizer.

    The rest between slots is longer than the 26 ms for which idle OpenBLAS threads spin.
    """
    who = contest.taking_part(*WHO)
    for network in QUICK if contest.settings.quick else NETWORKS:
        for optimizer in OPTIMIZERS:
            case = f"{network} {optimizer}"
            contest.compare(
                {(case, name): Job(__name__, name, (network, optimizer)) for name in who},
                pace=contest.pace(slot=0.04, rest=0.035),
            )
            if case in BARS:
                contest.report.judge_ratio(case, BARS[case])
