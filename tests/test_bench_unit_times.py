"""The clock around the units of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from bench.unit_times import unit_times
from tensorgrad.program.compiler import compiler
from tensorgrad.program.executors import c_source

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler was found")


@pytest.mark.parametrize("looped", [False, True])
def test_each_unit_is_timed_and_computes_what_it_did(
    looped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if looped:
        monkeypatch.setattr(c_source, "_DIRECT", 2)

    def step(x: Any) -> Any:
        y = x
        for _ in range(3):
            y = tg.softmax(y @ x, axis=1)
        return tg.sort(y, axis=0)

    x = tg.tensor(np.random.default_rng(0).random((300, 300)).astype(np.float32))
    compiled: Any = tg.compile(step)
    before = compiled(x).numpy().copy()
    times = unit_times(compiled, lambda: compiled(x), 2)
    kinds = [unit.about.split()[0] for unit in times]
    assert kinds.count("product") == 3
    assert kinds.count("nest") >= 3
    assert [unit.about for unit in times if unit.about.startswith("call")] == ["call argsort"]
    assert all(0 < unit.least <= unit.middle < 60 for unit in times)
    assert (compiled(x).numpy() == before).all()
