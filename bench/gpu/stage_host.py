"""What Python costs in an eager step: microseconds per operation, and where they go."""

from __future__ import annotations

import cProfile
import pstats
import time
from typing import Any

import tensorgrad as tg
from bench.gpu.common import Say, Settings
from bench.training import with_tensorgrad
from bench.training.networks import MODERN, NETWORKS
from tensorgrad import backend

STEPS = 200
_CASES = {
    "784-128-10 momentum": (NETWORKS["784-128-10"], "momentum"),
    "attention Adam": (MODERN["attention"], "Adam"),
}


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return tuple(_CASES)[: settings.sized(len(_CASES), 1)]


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """From 200 steps without a wait, and 200 under cProfile."""
    network, optimizer = _CASES[case]
    steps = settings.sized(STEPS, 2)
    step = with_tensorgrad.training_step(network, optimizer, device="cuda")
    gpu: Any = backend.cuda_backend()
    step()
    with tg.profile() as profile:
        step()
    operations = len(profile.events)
    step()
    gpu.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    queued = (time.perf_counter() - begun) / steps * 1e6
    gpu.synchronize()
    whole = (time.perf_counter() - begun) / steps * 1e6
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(steps):
        step()
    profiler.disable()
    gpu.synchronize()
    functions = []
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:25]
    for (file, line, name), (_, calls, own, _, _) in rows:
        place = f"{'/'.join(file.split('/')[-3:])}:{line} {name}" if line else name
        functions.append([place, calls / steps, own / steps * 1e6])
        print(f"{own / steps * 1e6:8.1f} us own, {calls / steps:7.1f} calls a step  {place}")
    return {
        "operations": operations, "queued_us": queued, "whole_us": whole, "functions": functions,
        "figure": f"{queued / operations:.1f} us for each of {operations} operations; a step is "
        f"queued in {queued:.0f} us and over in {whole:.0f} us",
    }  # fmt: skip
