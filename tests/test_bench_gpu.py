"""The GPU benchmark, rehearsed on the stand-in: what it would run on a GPU runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from emulator import emulator
from standin import cupy_standin

from bench.gpu import bandwidth, steps
from bench.training.networks import MODERN, NETWORKS

N = 1 << 12


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed():
        yield


@pytest.mark.parametrize("make", [bandwidth.cases, bandwidth.fused_cases])
def test_every_case_is_one_pass(make: Callable[[int], list[bandwidth.Case]]) -> None:
    """A case launches its kernel, and no more than small second stages besides."""
    for case in make(N):
        case.run()
        cupy_standin.log.clear()
        case.run()
        # rows to be added up are sorted first
        most = 6 if case.name == "take rows backward" else 4
        assert 1 <= cupy_standin.log.launches <= most, case.name
        assert not cupy_standin.log.syncs, case.name


def test_updates_are_one_launch() -> None:
    """Whatever the number of parameters."""
    for case in bandwidth.update_cases(N, 20):
        case.run()
        cupy_standin.log.clear()
        case.run()
        assert cupy_standin.log.launches <= (3 if "norm" in case.name else 1), case.name
        assert not cupy_standin.log.syncs, case.name


def test_steps_run_eager_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: how for name, how in steps.CONTESTANTS.items() if how[0] == "tensorgrad"}
    monkeypatch.setattr(steps, "CONTESTANTS", ours)
    monkeypatch.setattr(steps, "NETWORKS", {"2-8-1": NETWORKS["2-8-1"]})
    monkeypatch.setattr(steps, "MODERN", {name: MODERN[name] for name in list(MODERN)[:1]})
    found = steps.run(rounds=1, steps=1)
    assert len(found) == 4
    assert all(times.keys() >= ours.keys() for times in found.values())
