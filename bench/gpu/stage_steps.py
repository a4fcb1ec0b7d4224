"""Training steps on the GPU: eager and compiled, against PyTorch, eager and by CUDA graphs."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.gpu.checks import no_fallback
from bench.gpu.common import Say, Settings, first_line
from bench.training.networks import MODERN, NETWORKS
from tensorgrad import backend

_DEEP, _ATTENTION = "784-512-512-10", "attention"
#: Case -> network and optimizer. The last is with torch.compile, which takes half a minute.
_CASES: dict[str, tuple[str, str]] = {
    f"{_DEEP} momentum": (_DEEP, "momentum"),
    f"{_DEEP} Adam": (_DEEP, "Adam"),
    f"{_ATTENTION} momentum": (_ATTENTION, "momentum"),
    f"{_ATTENTION} Adam": (_ATTENTION, "Adam"),
    f"{_DEEP} momentum, torch.compile": (_DEEP, "momentum"),
}
#: Contestant, the one it is compared with, the case ("" for all), and the ratio aimed at.
BARS = (
    ("tensorgrad", "torch", f"{_DEEP} momentum", 1.0),
    ("tensorgrad compiled", "torch CUDA graph", "", 1.0),
    ("tensorgrad compiled", "torch.compile", "", 1.0),
)
ROUNDS = 15
STEPS = 50


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return tuple(_CASES)[: settings.sized(len(_CASES), -1)]


def graphed(step: Callable[[], Any]) -> tuple[Callable[[], Any], list[float]]:
    """A step of PyTorch's as a CUDA graph, and the losses of the three steps before it.

    As PyTorch's notes on CUDA graphs say: warmed up on another stream, then captured whole.
    """
    import torch

    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        losses = [float(step()) for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Any:
        graph.replay()
        return loss

    return replay, losses


def _made(
    name: str, network: Any, optimizer: str, settings: Settings
) -> tuple[Callable[[], Any], list[float]]:
    """A contestant's step, and the losses of the first three."""
    framework = "torch" if name.startswith("torch") else "tensorgrad"
    module = importlib.import_module(f"bench.training.with_{framework}")
    if framework == "tensorgrad":
        compiled = "auto" if name.endswith("compiled") else None
        step = module.training_step(network, optimizer, device="cuda", compiled=compiled)
    else:
        step = module.training_step(
            network, optimizer,
            # PyTorch has nothing to stand in for a GPU.
            device="cpu" if settings.rehearse else "cuda",
            compiled="reduce-overhead" if name == "torch.compile" else False,
            capturable=name == "torch CUDA graph",
        )  # fmt: skip
        if name == "torch CUDA graph":
            return graphed(step)
    return step, [float(step().item()) for _ in range(3)]


def _contestants(case: str, settings: Settings) -> list[str]:
    if case.endswith("torch.compile"):
        return ["tensorgrad compiled", "torch.compile"]
    graph = [] if settings.rehearse else ["torch CUDA graph"]
    return ["tensorgrad", "tensorgrad compiled", "torch", *graph]


def _waits(name: str, settings: Settings) -> Callable[[], None]:
    if not name.startswith("torch"):
        return backend.cuda_backend().synchronize
    import torch

    return (lambda: None) if settings.rehearse else torch.cuda.synchronize


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Microseconds a step and ratios, medians over interleaved rounds; losses must agree."""
    title, optimizer = _CASES[case]
    network = {**NETWORKS, **MODERN}[title]
    if settings.rehearse:
        small = (16, 8, 8, 10) if title == _DEEP else (8,) * 5
        network = type(network)(small, 4, network.hidden, 2, 4)
    runs: dict[str, Callable[[], Any]] = {}
    losses: dict[str, list[float]] = {}
    out: dict[str, str] = {}
    for name in _contestants(case, settings):
        try:
            runs[name], losses[name] = _made(name, network, optimizer, settings)
        except Exception as error:  # of a peer: it is left out, and named
            if name.startswith("tensorgrad"):
                raise
            out[name] = first_line(error)
            print(f"{name} is left out: {out[name]}")
    first = losses["tensorgrad compiled"]
    for name, others in losses.items():
        for a, b in zip(first, others):
            assert abs(a - b) <= 1e-3 * max(1.0, abs(b)), f"losses of {name} differ: {losses}"
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Any] = {}
    for _ in range(settings.turns(ROUNDS)):
        for name, step in runs.items():
            wait = _waits(name, settings)
            wait()
            begun = time.perf_counter()
            for _ in range(settings.sized(STEPS, 1)):
                step()
            wait()
            times[name].append((time.perf_counter() - begun) / settings.sized(STEPS, 1))
        found = {"microseconds": {name: median(t) * 1e6 for name, t in times.items()}}
        say(found)
    compiled: Any = runs["tensorgrad compiled"]
    found["report"] = no_fallback(compiled.func).splitlines()
    found["ratios"], found["left_out"] = {}, out
    figures = [f"{name} {us:.0f} us" for name, us in found["microseconds"].items()]
    for ours, theirs, where, limit in BARS:
        if where in ("", case) and ours in times and theirs in times:
            ratio = median(a / b for a, b in zip(times[ours], times[theirs]))
            found["ratios"][f"{ours} / {theirs}"] = ratio
            verdict = "" if ratio <= limit else f", above {limit:g}"
            figures.append(f"{ours} / {theirs} {ratio:.2f}{verdict}")
    found["figure"] = "; ".join(figures)
    return found
