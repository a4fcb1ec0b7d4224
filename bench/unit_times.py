"""How long each unit of a compiled step takes: ``python -m bench.unit_times TEXT``.

TEXT is in the name of a case of ``layered``. The program's own C is built once more, with a clock
around each call of a unit; what checks take is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench.training.layered import CASES, training_step
from tensorgrad.program import pool
from tensorgrad.program.compiler import APART, build

_CLOCK = """
#include <time.h>
static double tg_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
#define TG_TIMED(k, call) { const double t = tg_seconds(); call; tg_times[k] = tg_seconds() - t; }
"""
_UNIT = re.compile(r"^( +)(f\d+_unit\(P \+ \d+\));$", re.MULTILINE)
_UNITS = re.compile(r"^( +)tg_units\(all_units, all_counts, (order\d+), (\d+), (P \+ \d+)\);$",
                    re.MULTILINE)  # fmt: skip
_REGION = re.compile(r"^( +)(tg_parallel\(region(\d+), P \+ \d+, \d+, \d+\));$")
_SIZES = re.compile(
    r"tg_units_by_rows\(rows_units, rows_counts, rows(\d+), (\d+), P, begin, end\);"
)


class UnitTime(NamedTuple):
    """A unit of a program, or a call of a primitive: what it is, and the seconds that it took, at
    least and in the middle."""

    about: str
    least: float
    middle: float


def _timed(text: str, count: int) -> tuple[str, dict[int, int]]:
    """The C of a program that notes the seconds of each unit in ``tg_times``.

    Units that threads run through row by row count as the first of them: besides, the number of
    each such one, and how many they are.
    """
    sizes = {at: int(n) for at, n in _SIZES.findall(text)}
    regions: dict[int, int] = {}
    *units, last = text.split(APART)
    k = 0

    def one(match: re.Match[str]) -> str:
        nonlocal k
        k += 1
        return f"{match[1]}TG_TIMED({k - 1}, {match[2]});"

    def many(match: re.Match[str]) -> str:
        nonlocal k
        pad, order, n, table = match[1], match[2], int(match[3]), match[4]
        k += n
        return (
            f"{pad}{{ void **at = {table}; for (long i = 0; i < {n}; i++) {{ "
            f"TG_TIMED({k - n} + i, all_units[{order}[i]](at)); at += all_counts[{order}[i]]; }} }}"
        )

    def region(match: re.Match[str]) -> str:
        nonlocal k
        regions[k] = sizes[match[3]]
        k += regions[k]
        return f"{match[1]}TG_TIMED({k - sizes[match[3]]}, {match[2]});"

    lines = []
    for line in last.splitlines():
        line = _UNIT.sub(one, line) if "_unit(P" in line else _UNITS.sub(many, line)
        lines.append(_REGION.sub(region, line))
    if k != count:
        raise AssertionError(f"{k} of {count} units were found in the text")
    made = APART.join([*units, "\n".join([f"double tg_times[{count}];", _CLOCK, *lines, ""])])
    return made, regions


class Clock:
    """Times the units of the program that a compiled function ran last, from here on.

    about: what its units and calls are, in order. seconds: what each took in the last run.
    """

    def __init__(self, compiled: Any) -> None:
        entry = compiled._last()
        self._executor = executor = entry.executor
        executor.fast_run = lambda: None  # it would call the usual library
        entry._end_fast()
        source = executor.source
        self.about: list[str] = []
        self._calls: list[tuple[int, int]] = []  # places among all, and among the steps
        of_units: list[int] = []
        for number, step in enumerate(source.steps):
            if type(step) is int:
                of_units += range(len(self.about), len(self.about) + len(source.parts[step]))
                self.about += source.parts[step]
            else:
                self._calls.append((len(self.about), number))
                self.about.append(f"call {step.instruction.op.name}")
        self._of_units = np.array(of_units, np.intp)
        self._build(source, len(of_units))

    def _build(self, source: Any, count: int) -> None:
        executor = self._executor
        segments = [step for step in source.steps if type(step) is int]
        symbols = ["tg_link", *(f"segment{step}" for step in segments)]
        text, regions = _timed(source.text, count)
        for first, size in regions.items():
            for k in range(first, first + size):
                place = self._of_units[k]
                inside = f"in a region: {self.about[place]}"
                self.about[place] = inside if k > first else f"region of {size} units"
        library = build(text, symbols)
        helpers, blas = pool.library(), executor._blas
        link = [blas.sgemm, blas.dgemm] if blas else [None, None]
        library.tg_link(*link, helpers.tg_run, helpers.tg_rows)
        usual, executor._library = executor._calls, library
        executor._calls = [
            executor._segment(step) if type(step) is int else call
            for step, call in zip(source.steps, usual)
        ]
        self._times = np.ctypeslib.as_array((ctypes.c_double * count).in_dll(library, "tg_times"))

    def seconds(self) -> np.ndarray[Any, Any]:
        """What each unit took in the last run."""
        found = np.zeros(len(self.about))
        found[self._of_units] = self._times
        for place, step in self._calls:
            found[place] = self._executor._times[step]
        return found


def unit_times(compiled: Any, call: Callable[[], Any], rounds: int = 50) -> list[UnitTime]:
    """The units of what ``compiled`` ran last, in order.

    call: calls it with the same arguments as before.
    """
    clock = Clock(compiled)
    found = []
    for _ in range(rounds):
        call()
        found.append(clock.seconds())
    least, middle = np.min(found, 0), np.median(found, 0)
    return [UnitTime(*row) for row in zip(clock.about, least.tolist(), middle.tolist())]


def _printed(times: list[UnitTime], whole: float) -> None:
    kinds: dict[str, list[UnitTime]] = {}
    for unit in times:
        kinds.setdefault(unit.about, []).append(unit)
    total = sum(unit.least for unit in times)
    print(f"a step {whole * 1e6:,.0f} us; {len(times)} units {total * 1e6:,.0f} us; by kind:")
    order = sorted(kinds, key=lambda about: -sum(unit.least for unit in kinds[about]))
    for about in order[:40]:
        units = kinds[about]
        least = sum(unit.least for unit in units) * 1e6
        print(f"{least:10.1f} us  {least / total / 1e4:5.1f} %  {len(units):3} x  {about}")


def main() -> int:
    """Print the units of one case."""
    parser = argparse.ArgumentParser(prog="python -m bench.unit_times", description=__doc__)
    parser.add_argument("text", help="what is in the name of the case")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--each", action="store_true", help="also each unit, in order")
    options = parser.parse_args()
    name = next(case for case in CASES if options.text in case)
    step: Any = training_step("tensorgrad compiled", name)
    for _ in range(18):  # beyond the calls that are checked
        step()
    seconds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    times = unit_times(step.func, step, options.rounds)
    print(name)
    _printed(times, min(seconds))
    print(step.func.report())
    if options.each:
        for unit in times:
            print(f"{unit.least * 1e6:10.1f} {unit.middle * 1e6:10.1f} us  {unit.about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
