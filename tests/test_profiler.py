"""The profiler: what took how long, where, and what held the memory; the ledger of graphs."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim, profiler
from tensorgrad.errors import TensorgradError

X = Tensor(np.ones((8, 6), np.float32))


def net() -> Any:
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def test_by_operation_module_and_line() -> None:
    """Every computation of a step, forward, backward and update."""
    model = net()
    optimizer = optim.Adam(model.parameters())
    with tg.profile(model) as found:
        for _ in range(3):
            optimizer.zero_grad()
            y = model(X)
            loss = (y * y).sum()
            loss.backward()
            optimizer.step()
    operations = found.totals("operation")
    assert operations["linear"][0] == 6
    assert operations["linear backward"][0] == 15  # the first has no input to differentiate by
    assert operations["tanh backward"][0] == 3
    assert operations["adam"][0] == 3
    modules = found.totals("module")
    assert {"0", "1", "2", ""} == set(modules)
    assert modules["1"][0] == 6
    lines = found.totals("line")
    assert all(Path(line.rpartition(":")[0]).name == "test_profiler.py" for line in lines)
    texts = found.table("line")
    assert "y = model(X)" in texts
    assert "loss = (y * y).sum()" in texts
    assert abs(sum(t[1] for t in operations.values()) - sum(t[1] for t in lines.values())) < 1e-9
    assert found.seconds >= sum(t[1] for t in operations.values())
    assert "linear backward" in str(found)
    with pytest.raises(TensorgradError, match="by operation, module, line; got 'day'"):
        found.table("day")


def test_values_are_those_without_a_profile() -> None:
    """Looking changes nothing, also in a compiled step; hooks and modes end with it."""
    model, twin = net(), net()
    compiled = tg.compile(lambda x: (twin(x) ** 2).sum())
    with tg.profile() as found:
        first = (model(X) ** 2).sum()
        second = compiled(X)
    assert first.item() == second.item()
    assert found.totals("module").keys() >= {"Linear", "Tanh"}
    count = len(found.events)
    model(X)
    assert len(found.events) == count
    with tg.profile(), pytest.raises(TensorgradError, match="running already"), tg.profile():
        pass
    with pytest.raises(ZeroDivisionError), tg.profile():
        raise ZeroDivisionError
    with tg.profile() as found:
        model(X)
    assert len(found.events) == 3


def test_peak_memory_is_attributed() -> None:
    """What was alive at the peak, and not what had been freed."""
    with tg.profile() as found:
        small = X * 2.0  # 192 bytes, kept
        big = Tensor(np.ones((1000, 8), np.float32)) * 1.0  # 32,000 bytes
        bigger = big * 1.0  # another 32,000, at the peak
        del bigger
        big = big[:1] * 1.0  # the large one is freed
        big = big + 1.0
    assert found.peak_bytes == 192 + 64000
    assert sum(found.at_peak.values()) == found.peak_bytes
    by_line = {int(k[2].rpartition(":")[2]): v for k, v in found.at_peak.items()}
    assert sorted(by_line.values()) == [192, 32000, 32000]
    text = found.peak_table("line")
    assert "bigger = big * 1.0" in text
    assert "at the peak of 64,192 bytes" in text
    assert "multiply" in found.peak_table("operation")
    assert small.shape == (8, 6)


def test_chrome_trace(tmp_path: Path) -> None:
    """Events in order, in microseconds, with what they are."""
    model = net()
    with tg.profile(model) as found:
        model(X).sum().backward()
    found.export_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["name"] for e in events[:3]] == ["linear", "tanh", "linear"]
    assert events[1]["cat"] == "1"
    assert all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)


kept: list[Any] = []


def test_ledger_names_who_keeps_a_graph() -> None:
    """Lists, variables, attributes, closures; parts of a larger graph are not listed."""

    class Holder:
        """Keeps something."""

    before = len(profiler.ledger())
    w = Tensor(np.ones(50, np.float32), requires_grad=True)
    kept.append((w * 2.0).sum())
    holder = Holder()
    holder.loss = (w * 3.0).exp().sum()  # type: ignore[attr-defined]
    inner = w.exp()
    outer = inner.sum()

    def later() -> Any:
        return outer

    found = profiler.ledger()
    assert len(found) == before + 3
    text = "\n".join(map(str, found))
    assert "item 0 of global kept of" in text
    assert "attribute loss of a Holder" in text
    assert "variable outer that test_ledger_names_who_keeps_a_graph.<locals>.later" in text
    assert "variable inner" not in text
    exponential = next(h for h in found if "Holder" in str(h))
    assert exponential.entries == 4
    assert exponential.bytes == 4 + 200  # the factor, and what exp gave
    kept.clear()
    outer.backward()
    del holder, inner, later
    gc.collect()
    assert len(profiler.ledger()) == before
