"""Programs made at random: never wrong, and not captured again and again; planted holes show."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import sys
from collections import Counter

import pytest
from program.reads.generator import (
    Finding,
    UnfitError,
    examined,
    planned,
    programs,
    rendered,
    shrunk,
    text_of,
)
from program.reads.holes import HOLES

#: Programs among which each planted hole has to show, and the blocks in which programs are tried.
COUNT, BLOCKS = 2200, 5
SEED = "tensorgrad"
#: The programs that a version of Python tries: each its own, so that more are tried in all.
TRIED = 1100
FIRST = TRIED * (sys.version_info.minor % 3)


def tried(seed: str, numbers: range, executor: str) -> list[Finding]:
    """What became of some programs; those that do not run are left out."""
    found = []
    for plan in itertools.islice(programs(seed), numbers.start, numbers.stop):
        try:
            found.append(examined(plan, executor))
        except UnfitError:
            continue
    return found


def assert_right(found: list[Finding], executor: str) -> None:
    for finding in found:
        assert not finding.kind, text_of(shrunk(finding, executor))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_programs(block: int) -> None:
    """A thousand programs, the same in every run on a version of Python; most of them replay."""
    size = TRIED // BLOCKS
    executor = "numpy" if block % 5 else "auto"
    first = FIRST + block * size
    found = tried(SEED, range(first, first + size), executor)
    assert_right(found, executor)
    assert len(found) > 0.9 * size
    outcomes = Counter(f.verdict.outcome for f in found)
    assert outcomes["replays"] > 0.5 * len(found), outcomes


def test_programs_are_the_same_in_every_run() -> None:
    """A seed and a number say which program it is: a failure can be repeated."""
    for k, plan in zip(range(20), programs("a")):
        assert planned(random.Random(f"a-{k}")) == plan
        assert rendered(plan) == rendered(plan)


@pytest.mark.parametrize("hole", HOLES)
def test_a_planted_hole_is_found(hole: str) -> None:
    """What the guards forget on purpose shows within the programs of continuous integration."""
    planted = HOLES[hole]
    with planted.hole():
        for plan in itertools.islice(programs(SEED), COUNT):
            text = "\n".join([rendered(plan).setup, *rendered(plan).changes])
            if not plan.changes or not re.search(planted.shown_by, text):
                continue
            with contextlib.suppress(UnfitError):
                if examined(plan, "numpy").kind in ("WRONG", "DROPPED"):
                    return
    pytest.fail(f"{COUNT} programs did not show the hole {hole!r}")


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("executor", ["auto", "numpy"])
def test_other_programs_each_time(executor: str) -> None:
    """A seed that nobody has tried; it is printed with what fails."""
    seed = str(random.SystemRandom().randrange(10**9))
    print(f"seed {seed}")
    assert_right(tried(seed, range(10_000), executor), executor)
