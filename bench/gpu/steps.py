"""Eager training steps on the GPU, against PyTorch eager."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.training.networks import NETWORKS

BAR = ("784-512-512-10 momentum", 1.0)
ROUNDS = 15
STEPS = 50


def _waits(framework: str) -> Callable[[], None]:
    if framework == "torch":
        import torch

        return torch.cuda.synchronize
    from tensorgrad import backend

    return backend.cuda_backend().synchronize


def run(rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, Any]:
    """Microseconds a step and ratios, medians over interleaved rounds; losses must agree."""
    found: dict[str, Any] = {}
    for network in NETWORKS:
        for optimizer in ("momentum", "Adam"):
            runs: dict[str, Callable[[], Any]] = {}
            losses: dict[str, list[float]] = {}
            for framework in ("tensorgrad", "torch"):
                module = importlib.import_module(f"bench.training.with_{framework}")
                step = module.training_step(NETWORKS[network], optimizer, device="cuda")
                losses[framework] = [float(step().item()) for _ in range(3)]
                runs[framework] = step
            for ours, theirs in zip(losses["tensorgrad"], losses["torch"]):
                assert abs(ours - theirs) <= 1e-3 * max(1.0, abs(theirs)), losses
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, step in runs.items():
                    wait = _waits(name)
                    wait()
                    begun = time.perf_counter()
                    for _ in range(steps):
                        step()
                    wait()
                    times[name].append((time.perf_counter() - begun) / steps)
            ratio = median(a / b for a, b in zip(times["tensorgrad"], times["torch"]))
            case = f"{network} {optimizer}"
            found[case] = {
                **{name: median(t) * 1e6 for name, t in times.items()},
                "ratio": ratio,
            }
            verdict = ""
            if case == BAR[0]:
                verdict = "PASS" if ratio <= BAR[1] else "FAIL"
            print(
                f"{case:30} tensorgrad {found[case]['tensorgrad']:9.0f} us  torch "
                f"{found[case]['torch']:9.0f} us  ratio {ratio:.2f}  {verdict}"
            )
    return found
