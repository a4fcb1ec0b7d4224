"""Where a long sequence is cut so that its parts repeat, as the steps of an unrolled loop do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import accumulate

import numpy as np

# Elements in a row by which a place is recognized, and how many periods are tried.
_GRAM = 12
_PERIODS = 24


def cuts(
    keys: Sequence[Hashable], costs: Sequence[int], prices: Sequence[int], limit: int
) -> list[int]:
    """The places at which a sequence is cut into parts of at most this cost, in order.

    keys: equal for elements that are alike. A stretch in which they repeat, one time after the
    other, is cut at the same places each time, or after the same number of times.
    prices: of a cut before each element; a cheap place is preferred.
    """
    ends = [0, *accumulate(costs)]
    found: list[int] = []
    at = 0  # the last cut
    for start, end, period in _repeats(keys, ends, limit):
        # Not at the edge, where prices may be others.
        start = min(range(start, start + period), key=lambda k: prices[k + period])
        at = _cut(found, ends, prices, at, start, limit)
        times = limit // max(1, ends[start + period] - ends[start])
        step = max(times, 1) * period
        while at + step <= end:
            at = _cut(found, ends, prices, at, at + step, limit)
    _cut(found, ends, prices, at, len(keys), limit)
    return found[:-1]


def _cut(
    found: list[int], ends: Sequence[int], prices: Sequence[int], at: int, end: int, limit: int
) -> int:
    """Cut between two places where the limit says so, and at the second one, which is returned."""
    for k in range(at + 1, end):
        while at < k and ends[k + 1] - ends[at] > limit:  # the cheapest place, the last of those
            least = (at + k + 1) // 2
            at = min(range(k, least - 1, -1), key=lambda k: prices[k])
            found.append(at)
    if at < end:
        found.append(end)
    return end


def _repeats(
    keys: Sequence[Hashable], ends: Sequence[int], limit: int
) -> list[tuple[int, int, int]]:
    """Stretches that repeat and cost more than the limit: from, to, and the period, in order.

    ends: the sums of the costs up to each place.
    """
    numbers: dict[Hashable, int] = {}
    ids = [numbers.setdefault(key, len(numbers)) for key in keys]
    last: dict[tuple[int, ...], int] = {}
    distances: Counter[int] = Counter()
    for k in range(len(ids) - _GRAM + 1):
        gram = tuple(ids[k : k + _GRAM])
        if gram in last:
            distances[k - last[gram]] += 1
        last[gram] = k
    row = np.array(ids)
    stretches = []
    for period, _ in distances.most_common(_PERIODS):
        alike = np.concatenate([[False], row[period:] == row[:-period], [False]])
        edges = np.flatnonzero(alike[1:] != alike[:-1]).tolist()
        stretches += [(a, b + period, period) for a, b in zip(edges[::2], edges[1::2])]
    free = np.ones(len(ids), bool)
    found = []
    for start, end, period in sorted(stretches, key=lambda s: s[2]):  # inner loops first
        taken = np.flatnonzero(~free[start:end])
        if taken.size:
            end = start + int(taken[0])
        if end - start >= 2 * period and ends[end] - ends[start] > limit:
            free[start:end] = False
            found.append((start, end, period))
    return sorted(found)
