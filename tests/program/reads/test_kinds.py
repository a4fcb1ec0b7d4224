"""Each kind of read: a change of what was read is seen, or the step is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from program.reads.scenarios import EARLY, LATE, STEADY, Scenario, parsed, problem, tried

KINDS = parsed(Path(__file__).with_name("kinds.txt"))


def test_the_table_is_complete() -> None:
    assert len(KINDS) >= 250


@pytest.mark.parametrize("scenario", KINDS, ids=str)
def test_kind(scenario: Scenario) -> None:
    """After four calls, and after one; and no second capture where nothing changes."""
    for actions, executor in ((LATE, "auto"), (EARLY, "numpy"), (STEADY, "auto")):
        found = problem(scenario, tried(scenario, actions, executor), actions)
        assert not found, f"{found}\n{scenario.source()}\n{scenario.changes}"
