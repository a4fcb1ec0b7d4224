"""Training steps on the GPU: eager and compiled, against PyTorch, eager and by CUDA graphs."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.training.networks import MODERN, NETWORKS

#: Contestant -> its module, and how its step is made.
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tensorgrad": ("tensorgrad", {}),
    "tensorgrad compiled": ("tensorgrad", {"compiled": "auto"}),
    "torch": ("torch", {}),
    "torch compiled": ("torch", {"compiled": "reduce-overhead"}),
}
#: Contestant, the one it is compared with, the case ("" for all), and the ratio aimed at.
BARS = (
    ("tensorgrad", "torch", "784-512-512-10 momentum", 1.0),
    ("tensorgrad compiled", "torch compiled", "", 1.0),
)
ROUNDS = 15
STEPS = 50


def _waits(framework: str) -> Callable[[], None]:
    if framework == "torch":
        import torch

        return torch.cuda.synchronize
    from tensorgrad import backend

    return backend.cuda_backend().synchronize


def _made(case: str, network: Any, optimizer: str) -> dict[str, Callable[[], Any]]:
    """The step of everyone who can make it; their first losses agree."""
    found: dict[str, Callable[[], Any]] = {}
    losses: dict[str, list[float]] = {}
    for name, (framework, options) in CONTESTANTS.items():
        module = importlib.import_module(f"bench.training.with_{framework}")
        try:
            step = module.training_step(network, optimizer, device="cuda", **options)
            losses[name] = [float(step().item()) for _ in range(3)]
        except Exception as error:  # of a peer: it is left out, and named
            if framework == "tensorgrad":
                raise
            print(f"{case}: {name} is left out: {type(error).__name__}: {str(error)[:200]}")
            continue
        found[name] = step
    first = losses["tensorgrad"]
    for name, others in losses.items():
        for ours, theirs in zip(first, others):
            assert abs(ours - theirs) <= 1e-3 * max(1.0, abs(theirs)), (name, losses)
    return found


def run(rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, Any]:
    """Microseconds a step and ratios, medians over interleaved rounds; losses must agree."""
    found: dict[str, Any] = {}
    for title, network in {**NETWORKS, **MODERN}.items():
        for optimizer in ("momentum", "Adam"):
            case = f"{title} {optimizer}"
            runs = _made(case, network, optimizer)
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, step in runs.items():
                    wait = _waits(CONTESTANTS[name][0])
                    wait()
                    begun = time.perf_counter()
                    for _ in range(steps):
                        step()
                    wait()
                    times[name].append((time.perf_counter() - begun) / steps)
            found[case] = {name: median(t) * 1e6 for name, t in times.items()}
            figures = "  ".join(f"{name} {us:.0f} us" for name, us in found[case].items())
            print(f"{case:36} {figures}", flush=True)
            found[case]["ratios"] = {}
            for ours, theirs, where, limit in BARS:
                if where in ("", case) and ours in times and theirs in times:
                    ratio = median(a / b for a, b in zip(times[ours], times[theirs]))
                    found[case]["ratios"][f"{ours} / {theirs}"] = ratio
                    verdict = "PASS" if ratio <= limit else "FAIL"
                    print(f"    {ours} / {theirs}: {ratio:.2f}, bar {limit:g}  {verdict}")
    return found
