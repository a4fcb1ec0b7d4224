"""What rounding does, asked of large arrays at some places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import CompileError
from tensorgrad.program import rounding, verify
from tensorgrad.program.executors import c_source
from tensorgrad.program.ir import Program, Value
from tensorgrad.program.rounding import _Doubt, _Trials, _values
from tensorgrad.program.verify import Difference, Snapshot, _of_rows
from tensorgrad.sparse import LazyGradient, SparseGradient


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


# --- gradients that are rows ----------------------------------------------------------------------


def after(gradient: Tensor) -> Snapshot:
    found = Snapshot()
    found.tensors, found.numbers = [gradient], [None]
    return found


def rows_of(places: list[int], rows: Any, lent: bool = False) -> LazyGradient:
    return SparseGradient((50, 3), np.array(places), np.array(rows, np.float32), lent=lent)


def test_rows_are_compared_as_rows() -> None:
    """In any order, some twice; those of the program that name no row are none."""
    draw = numbers(5, 3)
    right = rows_of([7, 3, 7, 40, 0], draw)
    order = [4, 2, 0, 1, 3]
    same = rows_of([0, 7, 7, 3, 40, -1], [*draw[order], [9, 9, 9]], lent=True)
    found = _of_rows(same, after(right), 0)
    assert found is not None
    assert found.by_rows
    assert found.wanted.shape == (4, 3)
    assert not found.text()
    assert not right.is_dense
    assert same.lent_rows is same._rows[0]
    wrong = draw.copy()
    wrong[3, 2] += 0.01
    differs = _of_rows(rows_of([7, 3, 7, 40, 0], wrong, lent=True), after(right), 0)
    assert differs is not None
    assert differs.is_rounding
    np.testing.assert_array_equal(differs.places()[0][differs.places()[1] > 1e-3], [11])


def test_other_rows_are_compared_as_a_whole() -> None:
    """One may be missing, being zero; or the gradient of the function is no longer rows."""
    draw = numbers(3, 3)
    right = rows_of([7, 3, 40], draw)
    for places in ([7, 3, 41], [7, 3, 40, 8], [7, 3]):
        rows = np.concatenate([draw, np.zeros((1, 3))])[: len(places)]
        assert _of_rows(rows_of(places, rows, lent=True), after(right), 0) is None
    saved = after(right)
    saved.numbers = [np.zeros((50, 3), np.float32)]
    assert _of_rows(rows_of([7, 3, 40], draw, lent=True), saved, 0) is None
    assert _of_rows(np.zeros((50, 3), np.float32), after(right), 0) is None
    right.make_dense()
    assert _of_rows(rows_of([7, 3, 40], draw, lent=True), after(right), 0) is None


@pytest.mark.parametrize("mistake", ["value", "number", "zero"])
def test_a_wrong_row_of_a_gradient_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its numbers are those of the function or not; zeros elsewhere are no mistake."""
    table = nn.Embedding(60, 3, sparse=True)
    optimizer = optim.SGD(table.parameters(), lr=0.1)

    @tg.compile(verify=True)
    def step(places: Tensor) -> None:
        optimizer.zero_grad()
        table(places).square().sum().backward()
        optimizer.step()

    usual = Program.gradient

    def gradient(self: Any, number: int, arrays: Any) -> Any:
        found = usual(self, number, arrays)
        places, rows = found._keys[0].copy(), found._rows[0].copy()
        if mistake == "value":
            rows[1, 2] += 0.1
        elif mistake == "number":
            places[1] = 59
        else:
            places, rows = np.append(places, 58), np.append(rows, [[0.0] * 3], axis=0)
        return SparseGradient((60, 3), places, rows.astype(np.float32), lent=True)

    step(Tensor([5, 9, 5, 30]))
    monkeypatch.setattr(Program, "gradient", gradient)
    if mistake == "zero":
        step(Tensor([5, 9, 5, 30]))
    else:
        with pytest.raises(CompileError, match="gradient 0 differs"):
            step(Tensor([5, 9, 5, 30]))


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
@pytest.mark.parametrize("wrong", [False, True])
def test_rows_that_are_nothing_but_rounding(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of the same numbers in two orders, and their difference made large; no mistake is."""
    write = c_source.write

    def planted(*given: Any) -> Any:
        made = write(*given)
        assert "0.0009765625f" in made.text
        made.text = made.text.replace("0.0009765625f", "0.00109765625f")
        return made

    if wrong:
        monkeypatch.setattr(c_source, "write", planted)
    tg.manual_seed(0)
    table = nn.Embedding(60, 531, sparse=True, padding_idx=59)
    optimizer = optim.SGD(table.parameters(), lr=1e-9)

    by = Tensor(np.arange(8) == 4, dtype=tg.float32)  # of the last row alone

    def step(places: Tensor) -> None:
        optimizer.zero_grad()
        rows = table(places)
        noise = rows.sum(axis=1) - tg.flip(rows, axis=1).sum(axis=1) + 2.0**-10
        (noise * 1e6 * by * rows.sum(axis=1)).sum().backward()
        optimizer.step()

    compiled = tg.compile(step)
    compiled(Tensor([5, 59, 9, 5, 30, -1, 7, 8]))
    assert compiled._last().executor.name == ("numpy" if wrong else "native"), compiled.report()
    if not wrong:
        for _ in range(7):
            compiled(Tensor([5, 59, 9, 5, 30, -1, 7, 8]))
        assert not compiled.dropped
