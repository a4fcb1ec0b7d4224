"""Timing: slots taken in turn, and medians of the ratios within a round."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles
from typing import Any, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)

#: Where it says "processor", the time of a step is what the process has had of processors, which
#: other work does not disturb as long as there is one thread.
CLOCK_VARIABLE = "TENSORGRAD_BENCH_CLOCK"
#: How many slots' time is spent before measuring begins.
WARM_UP = 3


@dataclass(frozen=True)
class Timed:
    """Something to be timed, as a section's ``build`` returns it.

    run: repeats the work that many times and returns the seconds it took; what is not to be
        measured (building a graph) is left out of them.
    check: figures on which all contestants must agree.
    """

    run: Callable[[int], float]
    check: Sequence[float] = ()


def repeated(call: Callable[[], Any]) -> Callable[[int], float]:
    """The ``run`` of a call that is measured as a whole.

    The garbage collector stays on: whoever trains a network pays for it too.
    """

    processor = os.environ.get(CLOCK_VARIABLE) == "processor"
    now = time.process_time if processor else time.perf_counter

    def run(repetitions: int) -> float:
        start = now()
        for _ in repeat(None, repetitions):
            call()
        return now() - start

    return run


class Entry(Protocol):
    """One contestant in one case, wherever it runs."""

    def seconds(self, repetitions: int) -> float:
        """The time that many repetitions take."""


@dataclass(frozen=True)
class Pace:
    """How long to measure: rounds, seconds of a slot, seconds of rest before each."""

    rounds: int = 15
    slot: float = 0.02
    rest: float = 0.002


def calibrate(entry: Entry, slot: float) -> int:
    """The number of repetitions that fill a slot, by the least time that one has taken so far.

    It warms up for ``WARM_UP`` slots, so that what is done at the first calls alone
    (compiling, checks that become rarer) is over, or rare, when measuring begins.
    """
    least, repetitions, done = entry.seconds(1), 1, 0
    while done * least < slot * WARM_UP:
        least = min(least, entry.seconds(repetitions) / repetitions)
        done += repetitions
        repetitions = min(2 * repetitions, max(1, math.ceil(slot / least)))
    return max(1, math.ceil(slot / least))


def interleave(entries: Mapping[Key, Entry], pace: Pace) -> dict[Key, list[float]]:
    """The seconds of one repetition of each entry, round by round.

    Every round begins with another entry, so that none always follows the same neighbour.
    """
    repetitions = {key: calibrate(entry, pace.slot) for key, entry in entries.items()}
    keys = list(entries)
    times: dict[Key, list[float]] = {key: [] for key in keys}
    for turn in range(pace.rounds):
        first = turn % len(keys)
        for key in keys[first:] + keys[:first]:
            n = repetitions[key]
            time.sleep(pace.rest)
            if n >= 8:  # a slot begins with the neighbour's data in the caches
                entries[key].seconds(n // 8)
            times[key].append(entries[key].seconds(n) / n)
    return times


@dataclass(frozen=True)
class Summary:
    """A median and the quartiles around it."""

    middle: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """The median and the quartiles of ``values``."""
    if len(values) < 2:
        return Summary(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Summary(median(values), low, high)


def ratios(times: Sequence[float], reference: Sequence[float]) -> Summary:
    """The median over the rounds of the ratio within each round.

    Load from elsewhere on the machine changes from second to second, and hits neighbouring slots
    alike: a ratio within a round is free of most of it, a ratio of medians is not.
    """
    return summary([a / b for a, b in zip(times, reference, strict=True)])
