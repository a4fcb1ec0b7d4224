"""What a reshaped tensor shares its memory with depends on how that lies in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import LAYOUTS, Array, Layout, draw

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import TensorgradError
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.ops.table import OPERATIONS


class _Shares(Observer):
    """For each primitive and place in a call: whether what it gave shares the input's memory."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, bool]] = []

    def computed(self, op: Any, inputs: Any, attrs: Any, out: Tensor) -> None:
        given = [x.data for x in inputs if isinstance(x, Tensor)]
        if given and out.size > 1:
            self.found.append((op, np.shares_memory(given[0], out.data)))


def test_which_operations_give_a_view_or_a_copy() -> None:
    by_layout: dict[Any, set[str]] = defaultdict(set)
    rows = OPERATIONS.values()
    for operation, call in [(row, draw(row, k)) for row in rows for k in range(len(row.cases))]:
        told = []
        for layout in [None, *LAYOUTS]:
            shares = _Shares()

            def convert(a: Array, layout: Layout | None = layout) -> Tensor:
                return Tensor(a) if layout is None else layout.tensor(a, "cpu")

            token = MODE.set(current_mode()._replace(observers=(shares,)))
            try:
                with tg.no_grad():
                    call.map(convert, floats=False).of(operation.function)
            except TensorgradError:
                pass  # it writes, and broadcast memory is read-only
            finally:
                MODE.reset(token)
            told.append(shares.found)
        for found in told[1:]:
            for (name, a), (other, b) in zip(told[0], found):
                if name == other and a != b:
                    by_layout[name].add(operation.name)
    ops = {operation.primitive for operation in rows} - {None}
    said = {op for op in (*ops, *by_layout) if op.view_or_copy}
    assert set(by_layout) == said, dict(by_layout)


def _reshaped_is_overwritten(x: Tensor) -> Any:
    with tg.no_grad():
        y = x.reshape(6)
        y[:] = y * 2 + 1
        return x * 1.0


def _what_was_reshaped_is_overwritten(x: Tensor) -> Any:
    with tg.no_grad():
        y = x.reshape(6)
        x[:] = x * 2 + 1
        return y * 1.0


def _a_part_is_overwritten(x: Tensor) -> Any:
    with tg.no_grad():
        y = x.reshape(-1)
        y[0] = 100.0
        return x.sum()


def _made_in_the_order_of_its_input(x: Tensor) -> Any:
    with tg.no_grad():
        y = x * 2.0
        z = y.reshape(6)
        z[1:] = 7.0
        return y * 1.0


def _flattened(x: Tensor) -> Any:
    return x.flatten()


def _both_handed_out(x: Tensor) -> Any:
    y = x * 2.0
    return y, y.reshape(6)


FUNCTIONS = [
    _reshaped_is_overwritten, _what_was_reshaped_is_overwritten, _a_part_is_overwritten,
    _made_in_the_order_of_its_input, _flattened, _both_handed_out,
]  # fmt: skip


def _lying(kind: str) -> Array:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    if kind == "by columns":
        return np.asfortranarray(a)
    if kind == "with gaps":
        return np.repeat(a, 2, axis=1)[:, ::2]
    if kind == "unaligned":
        memory = np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
        memory[...] = a
        return memory
    return a.copy()


KINDS = ["in order", "by columns", "with gaps", "unaligned"]


@pytest.mark.parametrize("executor", ["auto", "numpy"])
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__.strip("_"))
def test_what_is_overwritten(function: Callable[..., Any], first: str, executor: str) -> None:
    """Whatever lay how at capture: results, the argument, and who shares memory with it."""
    compiled = tg.compile(function, executor=executor)
    for kind in [first] * 3 + KINDS * 2 + [first] * 2:
        a, b = _lying(kind), _lying(kind)
        found, wanted = compiled(Tensor(a)), function(Tensor(b))
        found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
        for x, y in zip(found, wanted):
            np.testing.assert_array_equal(x.numpy(), y.numpy())
            assert np.shares_memory(x.data, a) == np.shares_memory(y.data, b)
        np.testing.assert_array_equal(a, b)
        among = [np.shares_memory(v[0].data, v[-1].data) for v in (found, wanted)]
        assert among[0] == among[1]
    assert not compiled.dropped
    assert compiled.captures <= 3


@pytest.mark.parametrize("executor", ["auto", "numpy"])
@pytest.mark.parametrize("part", ["[1:]", ".T", "[::-1]", "[:, 1]", ".T[1:]", ""])
@pytest.mark.parametrize(
    "loss", ["x @ w.T", "w @ x.T", "x.T.mT @ w.mT", "(w.T * 2.0).T * x[0]", "w * x[1]"]
)
def test_part_of_a_gradient_is_handed_out(loss: str, part: str, executor: str) -> None:
    """Eager gradients of a product with a transposed matrix lie by columns, others in order."""

    def made() -> tuple[Tensor, Callable[[Tensor], Any]]:
        w = Tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3), requires_grad=True)
        space = {"w": w}
        text = f"    w.grad = None\n    ({loss}).square().sum().backward()\n    return w.grad{part}"
        exec(f"def step(x):\n{text}", space)
        step: Any = space["step"]
        return w, step

    (w, plain), (v, step) = made(), made()
    compiled = tg.compile(step, executor=executor)
    for k in range(5):
        x = np.random.default_rng(k).normal(size=(4, 3)).astype(np.float32)
        found, wanted = compiled(Tensor(x)), plain(Tensor(x))
        assert v.grad is not None
        assert w.grad is not None
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5)
        np.testing.assert_allclose(v.grad.numpy(), w.grad.numpy(), rtol=1e-5)
        assert np.shares_memory(found.data, v.grad.data)
    assert not compiled.reasons
