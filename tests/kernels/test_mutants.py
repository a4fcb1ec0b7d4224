"""The bugs that mutate.py plants can all be planted."""

from __future__ import annotations

import pytest
from kernels.mutants import MUTANTS, TESTS_OF
from kernels.mutate import SOURCES, TESTS, part
from mutation import Mutant, planted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.kind}")
def test_there_is_one_place_for_it(mutant: Mutant) -> None:
    assert planted(mutant, SOURCES) != (SOURCES / mutant.file).read_text()


def test_all_files_and_many_kinds() -> None:
    assert (
        {path.name for path in SOURCES.glob("*.cu*")}
        == set(TESTS_OF)
        == {m.file for m in MUTANTS} | {"activation.cu"}
    )  # which is nothing but calls
    assert len(MUTANTS) >= 110
    assert all((TESTS / "kernels" / test).exists() for tests in TESTS_OF.values() for test in tests)


def test_parts_have_all_mutants_and_are_of_many_files() -> None:
    parts = [part(MUTANTS, k) for k in range(1, 21)]
    assert sorted(m for some in parts for m in some) == sorted(MUTANTS)
    assert all(len({m.file for m in some}) > len(some) // 2 for some in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
