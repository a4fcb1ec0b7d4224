"""What rounding does, asked of large arrays at some places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.program import rounding, verify
from tensorgrad.program.ir import Value
from tensorgrad.program.rounding import _Doubt, _Trials, _values
from tensorgrad.program.verify import Difference


def numbers(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def step_of_products() -> tuple[Any, list[Tensor]]:
    """With products that are read as a whole, at places, by both, and by nobody but who asks."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 5, bias=False))
    update = optim.Adam(model.parameters(), lr=0.1)
    fixed = Tensor(numbers(13, 6))

    def step(x: Tensor, y: Tensor) -> Any:
        update.zero_grad()
        hidden = model[:2](x)
        loss = model[2](hidden).square().mean() + (hidden @ fixed).sin().mean()
        loss.backward()
        whole = next(model.parameters()).grad
        assert whole is not None
        norm = (whole * whole).sum()
        update.step()
        return loss.detach(), norm, x.reshape(-1, 7).T @ y, nn.functional.linear(y, y)

    x, y = Tensor(numbers(3, 2, 7)), Tensor(numbers(6, 9))
    compiled = tg.compile(step, executor="numpy")
    compiled(x, y)
    return compiled, [x, y]


def answers(compiled: Any, tensors: list[Tensor]) -> dict[str, Any]:
    """What a trial in float64 says at every place, or at some, of all that the step leaves."""
    state = compiled._last_used.state(tensors)
    values, doubts, found = {}, {}, {}
    draw = np.random.default_rng(0)
    for name, v in _values(state).items():
        assert isinstance(v, Value)
        if v.dtype != np.float32:
            continue
        made = np.ones(v.shape, np.float32)
        differs = made + 1
        differs.reshape(-1)[draw.random(made.size) < 0.5] = 1
        differs.reshape(-1)[-1] = 2
        difference = Difference(made)
        difference.compare(differs)
        values[name], doubts[name] = v, _Doubt(difference)
    trials = _Trials(state, values, doubts)
    for name, doubt in doubts.items():

        def take_in(kind: str, answer: Any, name: str = name) -> None:
            assert name not in found
            found[name] = np.array(answer, np.float64)

        doubt.take_in = take_in  # type: ignore[method-assign]
    trials.run("wide", 0)
    assert found.keys() == values.keys()
    return found


@pytest.mark.parametrize("part", [1, 200, 1 << 21])
def test_large_products_by_columns_say_what_whole_ones_do(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_LOOKED_AT", 6)  # so that few places of an array are asked for
    monkeypatch.setattr(verify, "_SPREAD", 5)
    compiled, tensors = step_of_products()
    right = answers(compiled, tensors)
    monkeypatch.setattr(rounding, "_LARGE", 0)
    monkeypatch.setattr(rounding, "_PART", part)
    called: list[str] = []
    usual = rounding._Run._compute_by_columns

    def compute(self: Any, i: Any) -> None:
        called.append(i.op.name)
        usual(self, i)

    monkeypatch.setattr(rounding._Run, "_compute_by_columns", compute)
    by_columns = answers(compiled, tensors)
    assert called.count("linear") >= 3
    assert called.count("matmul") >= 4
    for name, answer in right.items():
        np.testing.assert_allclose(by_columns[name], answer, rtol=1e-9, atol=1e-12, err_msg=name)
