"""Planted changes: each is seen or refused, wherever it is made and whenever it comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from program.reads.scenarios import SCHEDULES, Scenario, parsed, problem, tried

CHANGES = parsed(Path(__file__).with_name("changes.txt"))


def test_the_table_is_complete() -> None:
    assert len(CHANGES) >= 300


@pytest.mark.parametrize("scenario", CHANGES, ids=str)
def test_change(scenario: Scenario) -> None:
    """Between calls, early and late, in a thread, inside the step, before it raises; and as the
    programs of several shapes and modes stand side by side.
    """
    for schedule, actions in SCHEDULES.items():
        if schedule in ("inside", "raising") and "outside" in scenario.flags:
            continue
        found = problem(scenario, tried(scenario, actions), actions)
        assert not found, f"{schedule}: {found}\n{scenario.source()}\n{scenario.changes}"
    found = problem(scenario, tried(scenario, SCHEDULES["late"], "numpy"), SCHEDULES["late"])
    assert not found, f"NumPy: {found}\n{scenario.source()}\n{scenario.changes}"
