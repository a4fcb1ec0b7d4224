"""Whole training steps of the layers of ``layers``, compiled: against the best that peers can do.

Of one network the loss alone is computed, besides, as in evaluation.

PyTorch runs with its fused optimizers, in both layouts of memory and compiled; all peers keep what
they free, so that no page of memory is asked for twice (see ``TUNED``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench import peak, resident
from bench.contest import Contest
from bench.costs import printed
from bench.measure import Timed, ratios, repeated
from bench.report import Row
from bench.training.layered import (
    BLOCK,
    CASES,
    CELL,
    CONVNET,
    EMBEDDING,
    GPT,
    GRU,
    INFERENCE,
    LSTM,
    RESNET,
    SPARSE,
    training_step,
)
from bench.workers import Job

NAME = "units"
TITLE = "one compiled training step with convolutional, recurrent, attention and embedding layers"
UNIT = "milliseconds"
OURS = "tensorgrad compiled"
PEERS = ("torch", "torch channels last", "torch compiled", "jax")
WHO = (OURS, "tensorgrad", *PEERS)
#: For the GNU C library's malloc: large blocks are neither mapped anew nor given back.
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # more is not taken
    "MALLOC_TRIM_THRESHOLD_": str(2**32 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
}
ENVIRONMENTS = dict.fromkeys(PEERS, TUNED)
#: Case -> the largest ratio to the best of some peers, and who they are.
BARS: dict[str, list[tuple[float, tuple[str, ...]]]] = {
    CONVNET: [(0.25, PEERS)],
    RESNET: [(0.6, PEERS)],
    INFERENCE: [(1.0, PEERS)],
    LSTM: [(0.6, PEERS)],
    GRU: [(0.6, PEERS)],
    CELL: [(1.0, ("torch",))],
    BLOCK: [(0.38, ("torch",)), (0.55, ("jax",))],
    GPT: [(0.7, PEERS)],
    EMBEDDING: [(0.5, ("torch",)), (0.9, ("jax",))],
    SPARSE: [(0.15, ("torch",))],
}
#: Those with images, which alone have channels.
IMAGES = (CONVNET, RESNET, INFERENCE)
#: Those of which JAX has no step, or which PyTorch does not compile.
WITHOUT = {INFERENCE: ("jax",), SPARSE: ("jax", "torch compiled")}
#: Whose memory is measured, ours first.
MEASURED = (OURS, "torch")

_MEMORY = """
import json
from bench.units import peak_of
print(json.dumps(peak_of({contestant!r}, {case!r})))
"""


def _step(contestant: str, name: str) -> Callable[[], Any]:
    if contestant == "jax":
        from bench.training import layered_jax

        return layered_jax.training_step(name)
    return training_step(contestant, name, fused=True)


def build(contestant: str, name: str) -> Timed:
    """The step of a contestant. The check is the loss of the first three steps.

    The time that compiling takes is not part of a step; it is printed once for each.
    """
    start = time.perf_counter()
    step = _step(contestant, name)
    first = float(step().item())
    taken = time.perf_counter() - start
    if contestant == "jax" or "compiled" in contestant:
        print(f"{contestant}, {name}: first call {taken:.2f} s", flush=True)
    return Timed(repeated(step), [first, float(step().item()), float(step().item())])


def peak_of(contestant: str, name: str) -> dict[str, float]:
    """``resident.peaks`` of a case, beyond what importing the framework took.

    Asked in a new process. The most MiB in the first steps, and in those after them.
    """
    __import__(contestant.partition(" ")[0])
    before = resident.resident("VmHWM")
    found = resident.peaks(_step(contestant, name))
    return {key: found[key] - before for key in ("first", "following")}


def _judge(contest: Contest, case: str, times: dict[tuple[str, str], list[float]]) -> None:
    """Hold the median against the least median of the peers."""
    ours = times.get((case, OURS))
    if ours is None:
        return
    for limit, names in BARS[case]:
        peers = {name: median(times[case, name]) for name in names if (case, name) in times}
        if peers:
            best = min(peers, key=lambda name: peers[name])
            what = f"{case}, ratio to {best}" + (", the best peer" if len(names) > 1 else "")
            theirs = times[case, best]
            least = min(ours) / min(theirs)
            value = median(ours) / peers[best]
            contest.report.judge(what, limit, value, ratios(ours, theirs), least)


def _memory(contest: Contest, who: list[str]) -> None:
    """The peaks of GPT, here and in PyTorch with malloc as it comes."""
    if contest.settings.case not in GPT:
        return
    peaks = {
        contestant: printed(_MEMORY.format(contestant=contestant, case=GPT))
        for contestant in who
        if contestant in MEASURED
    }
    for what, key in (("all steps", "first"), ("steps after the checks", "following")):
        case = f"{GPT}, peak MiB of {what}"
        for contestant, found in peaks.items():
            contest.report.rows.append(Row(case, contestant, found[key], found[key]))
        if len(peaks) == len(MEASURED):
            ours, theirs = (peaks[name][key] for name in MEASURED)
            contest.report.judge(f"{case}, ratio to PyTorch", 1.0, ours / theirs)


def run(contest: Contest) -> None:
    """Every case; the rest between slots is longer than idle OpenBLAS threads spin."""
    contest.environments = ENVIRONMENTS
    who = contest.taking_part(*WHO)
    for case in CASES:
        takes = [
            name
            for name in who
            if (name != "torch channels last" or case in IMAGES)
            and name not in WITHOUT.get(case, ())
        ]
        times = contest.compare(
            {(case, name): Job(__name__, name, (case,)) for name in takes},
            pace=contest.pace(slot=0.1, rest=0.035),
            scale=1e3,
        )
        _judge(contest, case, times)
    _memory(contest, who)
    if "torch" in who:  # which counts
        contest.report.notes += peak.notes(contest.settings.threads, contest.settings.case)
