"""Runs in turn: each in a process and a session of its own, with caches that were empty before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.machine import ROOT
from bench.records.contestants import COMPILERS
from bench.records.table import RECORDS, Record
from bench.workers import THREAD_VARIABLES

#: A run that takes longer is ended, in seconds.
LIMIT = 1800
FIRST, AGAIN = "first", "again"


class Run(NamedTuple):
    """phase: "first" with empty caches, "again" with what that run left in them.

    found: what the child reported; ``error`` in its place.
    """

    record: str
    contestant: str
    phase: str
    seed: int
    found: dict[str, Any]


def _environment(caches: str, threads: int) -> dict[str, str]:
    """That of a child: where compilers keep what they made, and how many threads there are."""
    found = dict(os.environ)
    for name in ("TENSORGRAD_CACHE", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"):
        folder = Path(caches) / name.lower()
        folder.mkdir(mode=0o700, exist_ok=True)
        found[name] = str(folder)
    # NumPy is there before a record says anything, and OpenBLAS makes its threads as it is loaded.
    found |= dict.fromkeys(("TENSORGRAD_THREADS", *THREAD_VARIABLES), str(threads))
    # All that JAX compiles is kept, however small it is.
    found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    found["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return found


def child(
    record: str, contestant: str, folder: Path, seed: int, caches: str, threads: int
) -> dict[str, Any]:
    """What a run reports, or ``{"error": why}``."""
    command = [sys.executable, "-m", "bench.records.child", record, contestant, str(folder)]
    process = subprocess.Popen(
        [*command, str(seed), str(threads), repr(time.monotonic())], cwd=ROOT,
        start_new_session=True, env=_environment(caches, threads), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"error": f"not there after {LIMIT} s"}
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        return {"error": (errors.strip().splitlines() or [f"exit {process.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def campaign(
    names: list[str],
    contestants: list[str],
    folder: Path,
    rounds: int,
    threads: int,
    tell: Callable[[Run], None],
) -> None:
    """All runs: each round in another order of the contestants, and with a seed of its own."""
    for seed in range(rounds):
        for name in names:
            who = [c for c in RECORDS[name].who if c in contestants]
            for contestant in who[seed % len(who) :] + who[: seed % len(who)]:
                with tempfile.TemporaryDirectory() as caches:
                    for phase in (FIRST, AGAIN) if contestant in COMPILERS else (FIRST,):
                        found = child(name, contestant, folder, seed, caches, threads)
                        tell(Run(name, contestant, phase, seed, found))


class Figure(NamedTuple):
    """Medians over the rounds, in seconds; all of them, for the file.

    score: the median of those with which the goal was reached; None for a part.
    """

    seconds: float
    processor: float
    all: list[list[float]]
    score: float | None


def figures(runs: list[Run], record: str) -> dict[str, dict[str, Figure]]:
    """What was measured ("first", "again", parts) -> contestant -> its times.

    Who missed the goal in a round has no figure for the way to it.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    scores: dict[tuple[str, str], list[float]] = {}
    missed = set()
    for run in runs:
        if run.record != record or "error" in run.found:
            continue
        if run.found["reached"] is None:
            missed.add((run.phase, run.contestant))
        else:
            of_phase = found.setdefault(run.phase, {})
            of_phase.setdefault(run.contestant, []).append(run.found["reached"])
            scores.setdefault((run.phase, run.contestant), []).append(run.found["score"])
        for part, times in run.found["parts"].items():
            found.setdefault(part, {}).setdefault(run.contestant, []).append(times)
    return {
        what: {
            who: Figure(
                median(t[0] for t in times), median(t[1] for t in times), times,
                median(scores[what, who]) if (what, who) in scores else None,
            )
            for who, times in those.items()
            if (what, who) not in missed
        }
        for what, those in found.items()
    }  # fmt: skip


def verdicts(record: Record, found: dict[str, dict[str, Figure]]) -> list[tuple[str, float, float]]:
    """Each bar: what it says, the figure, and the largest that it may be. By processor time."""
    judged = []
    for bar in record.bars:
        part = found.get(bar.part or FIRST, {})
        ours = part.get("tensorgrad")
        if ours is None:
            continue
        what = bar.part or "the goal, with empty caches"
        if bar.seconds is not None:
            judged.append((f"{what}, seconds of processors", ours.processor, bar.seconds))
        peers = {who: f.processor for who, f in part.items() if who != "tensorgrad"}
        if bar.best is not None and peers:
            best = min(peers, key=lambda who: peers[who])
            judged.append(
                (f"{what}, ratio to {best}, the best", ours.processor / peers[best], bar.best)
            )
        if bar.eager is not None and "torch" in peers:
            judged.append(
                (f"{what}, ratio to PyTorch eager", ours.processor / peers["torch"], bar.eager)
            )
    return judged


def disagreements(runs: list[Run], record: str) -> list[str]:
    """Who began with another loss than tensorgrad, from the same parameters and examples."""
    first = {
        (run.seed, run.contestant): run.found["first_loss"]
        for run in runs
        if run.record == record and "error" not in run.found
    }
    found = []
    for (seed, who), value in sorted(first.items()):
        ours = first.get((seed, "tensorgrad"), value)
        if abs(value - ours) > RECORDS[record].agree * abs(ours):
            found.append(f"{who}, seed {seed}: first loss {value}, of tensorgrad {ours}")
    return found
