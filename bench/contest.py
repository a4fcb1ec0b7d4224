"""A run of the benchmark: who takes part, at which pace, and the comparison itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from bench import onednn
from bench.measure import Pace, interleave, ratios, summary
from bench.report import Report, Row
from bench.workers import ContestantError, Job, LocalWorker, Prepared, ProcessWorker, Worker

#: Contestant -> the framework it uses. "numpy" is code written by hand, "naive" what
#: back-propagation replaces, "copy" copies memory.
CONTESTANTS = {
    "tensorgrad": "tensorgrad",
    "tensorgrad compiled": "tensorgrad",
    "tensorgrad native": "tensorgrad",
    "tensorgrad numpy": "tensorgrad",
    "torch": "torch",
    "torch channels last": "torch",
    "torch compiled": "torch",
    "torch fused": "torch",
    "jax": "jax",
    "onednn": "onednn",
    "autograd": "autograd",
    "numpy": "numpy",
    "naive": "numpy",
    "copy": "numpy",
}
REFERENCE = "torch"


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    quick: fewer rounds and shorter slots, and small cases only; to try the machinery out.
    large: also the cases that take minutes and gigabytes.
    together: all contestants in this process.
    case: leave out the cases whose names do not contain this.
    """

    quick: bool = False
    large: bool = False
    together: bool = False
    threads: int = 1
    rounds: int | None = None
    contestants: tuple[str, ...] = tuple(CONTESTANTS)
    case: str = ""


@dataclass
class Contest:
    """One section's run. Use it as a context manager: it ends the worker processes.

    environments: variables of the workers of some contestants.
    """

    settings: Settings
    report: Report
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def taking_part(self, *who: str) -> list[str]:
        """Those of ``who`` that were asked for and are installed; the others are noted once."""
        asked = [name for name in who if name in self.settings.contestants]
        for name in asked:
            framework = CONTESTANTS[name]
            if name not in self._missing and not _is_installed(framework):
                self._missing.add(name)
                self.report.skip(f"{name}: {framework} is not installed")
        return [name for name in asked if name not in self._missing]

    def pace(self, slot: float = 0.02, rest: float = 0.002) -> Pace:
        """The pace for cases of the given slot, as the settings have it."""
        pace = Pace(slot=slot, rest=rest)
        if self.settings.quick:
            pace = replace(pace, rounds=3, slot=slot / 10)
        return replace(pace, rounds=self.settings.rounds or pace.rounds)

    def worker(self, contestant: str) -> Worker:
        """The worker of a contestant, started on first use."""
        found = self._workers.get(contestant)
        if found is None:
            if self.settings.together:
                found = LocalWorker()
            else:
                found = ProcessWorker(self.settings.threads, self.environments.get(contestant, {}))
            self._workers[contestant] = found
        return found

    def compare(
        self,
        jobs: dict[tuple[str, str], Job],
        *,
        pace: Pace,
        scale: float = 1e6,
        scales: dict[str, float] | None = None,
        tolerance: float = 1e-3,
    ) -> dict[tuple[str, str], list[float]]:
        """Time the jobs, given by (case, contestant), in turn, and add their rows to the report.

        scale: what a second becomes in the section's unit; ``scales`` gives it by case.
        tolerance: the relative difference allowed between the figures to be checked.
        Returns the seconds, round by round.
        """
        jobs = {key: job for key, job in jobs.items() if self.settings.case in key[0]}
        if not jobs:
            return {}
        entries: dict[tuple[str, str], Prepared] = {}
        for (case, contestant), job in jobs.items():
            try:
                entries[case, contestant] = self.worker(contestant).prepare(job)
            except ContestantError as error:
                self.report.skip(f"{contestant}: {error}", case)
        self._check(entries, tolerance)
        times = interleave(entries, pace)
        for (case, contestant), seconds in times.items():
            factor = scale if scales is None else scales[case]
            reference = times.get((case, REFERENCE))
            compared = reference is not None and contestant != REFERENCE
            self.report.rows.append(
                Row(
                    case,
                    contestant,
                    summary(seconds).middle * factor,
                    min(seconds) * factor,
                    ratios(seconds, reference) if compared and reference else None,
                )
            )
        for contestant in {contestant for _, contestant in entries}:
            self.worker(contestant).forget()
        return times

    def _check(self, entries: dict[tuple[str, str], Prepared], tolerance: float) -> None:
        """Note contestants whose figures differ from those of the first in the same case."""
        right: dict[str, tuple[str, Sequence[float]]] = {}
        for (case, contestant), entry in entries.items():
            if not entry.check:
                continue
            who, figures = right.setdefault(case, (contestant, entry.check))
            if len(figures) != len(entry.check) or not all(
                math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-6)
                for a, b in zip(figures, entry.check, strict=True)
            ):
                self.report.wrong.append(
                    f"{case}: {contestant} gives {_short(entry.check)}, {who} {_short(figures)}"
                )

    def describe(self) -> dict[str, Any]:
        """Version, BLAS and threads of everyone who took part."""
        found: dict[str, Any] = {}
        for contestant, worker in self._workers.items():
            framework = CONTESTANTS[contestant]
            if framework not in found:
                try:
                    found[framework] = worker.describe(framework)
                except ContestantError as error:
                    found[framework] = {"error": str(error)}
        return found


def _is_installed(framework: str) -> bool:
    if framework == "onednn":  # a library alone
        return onednn.path() is not None
    return find_spec(framework) is not None


def _short(figures: Sequence[float]) -> str:
    return "(" + ", ".join(f"{figure:.6g}" for figure in figures) + ")"
