"""Conditions of a replay: every place by every change of what is there; and what a step leaves."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import CompileError
from tensorgrad.program import compile, guards  # noqa: A004
from tensorgrad.program.bytecode.reads import Reads

X = Tensor(np.array([1.0, 2.0], np.float32))


class Plain:
    value: Any = None


class Slots:
    __slots__ = ("value",)


class Held(nn.Module):
    def __init__(self) -> None:
        self.value: Any = None


GLOBAL: Any = None


def _global() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def put(x: Any) -> None:
        global GLOBAL
        GLOBAL = x

    return (lambda: GLOBAL), put


def _cell() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    value: Any = None

    def put(x: Any) -> None:
        nonlocal value
        value = x

    return (lambda: value), put


def _attribute(o: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return (lambda: o.value), (lambda x: setattr(o, "value", x))


def _item(o: Any, key: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return (lambda: o[key]), (lambda x: o.__setitem__(key, x))


def _default() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def get(value: Any = None) -> Any:
        return value

    return get, lambda x: setattr(get, "__defaults__", (x,))


PLACES: dict[str, Callable[[], tuple[Callable[[], Any], Callable[[Any], None]]]] = {
    "global": _global,
    "cell": _cell,
    "attribute": lambda: _attribute(Plain()),
    "slot": lambda: _attribute(Slots()),
    "attribute of a module": lambda: _attribute(Held()),
    "attribute of a namespace": lambda: _attribute(types.SimpleNamespace(value=None)),
    "attribute of a class": lambda: _attribute(type("Made", (), {"value": None})),
    "item of a list": lambda: _item([None], 0),
    "last item of a list": lambda: _item([1, None], -1),
    "item of a dict": lambda: _item({"k": None}, "k"),
    "default": _default,
}
VALUES: dict[str, Any] = {
    "none": None,
    "tensor": Tensor(np.array([3.0, 5.0], np.float32)),
    "tensor of the same kind": Tensor(np.array([7.0, 1.0], np.float32)),
    "wider": Tensor(np.array([3.0, 5.0])),
    "longer": Tensor(np.array([[3.0, 5.0], [1.0, 1.0]], np.float32)),
    "leaf": Tensor(np.array([3.0, 5.0], np.float32), requires_grad=True),
    "number": 2.0,
    "integer": 2,
    "zero": 0.0,
    "minus zero": -0.0,
    "true": True,
    "false": False,
    "text": "two",
}


def _used(value: Any) -> Any:
    if value is None:
        return X + 1.0
    if isinstance(value, str):
        return X * len(value)
    if isinstance(value, Tensor):
        return X * value
    return X / value if value == 0 else X * value


@pytest.mark.parametrize("place", PLACES)
def test_every_place_by_every_change(place: str) -> None:
    """From each kind of value to each other one, and back."""
    get, put = PLACES[place]()
    for before, after in itertools.permutations(VALUES, 2):
        put(VALUES[before])
        call = compile(lambda: _used(get()), executor="numpy")
        with np.errstate(divide="ignore"):
            for name in (before, before, before, before, after, after, before):
                put(VALUES[name])
                found, right = call(), _used(get())
                assert found.dtype == right.dtype, f"{before} to {after}"
                np.testing.assert_array_equal(
                    found.numpy(), right.detach().numpy(), f"{before} to {after}"
                )


def test_a_state_that_is_reset() -> None:
    ends = []
    for compiled in (False, True):
        state = Plain()

        def step(state: Plain = state) -> Tensor:
            if state.value is None:
                state.value = tg.zeros((2,))
            state.value = state.value + X
            return state.value.sum()

        run: Any = compile(step) if compiled else step
        found = []
        for k in range(14):
            if k in (5, 9):
                state.value = None
            found.append(run().item())
        ends.append(found)
    assert ends[0] == ends[1]


def test_gradients_from_outside_that_the_step_takes_away() -> None:
    w = Tensor([2.0], requires_grad=True)
    update = optim.SGD([w], lr=0.1)

    def step() -> None:
        update.step()
        update.zero_grad()

    call = compile(step)
    for k in range(5):
        (w * w).sum().backward()
        call()
        assert w.grad is None
        np.testing.assert_allclose(w.item(), 2.0 * 0.8 ** (k + 1), rtol=1e-6)


CHANGES: dict[str, Callable[[optim.Optimizer, Tensor, Tensor], Any]] = {
    "a group more": lambda o, a, b: o.add_param_group({"params": [b]}),
    "a parameter more": lambda o, a, b: o.param_groups[0]["params"].append(b),
    "another parameter": lambda o, a, b: o.param_groups[0]["params"].__setitem__(0, b),
    "another list": lambda o, a, b: o.param_groups[0].update(params=[b]),
    "another group": lambda o, a, b: o.param_groups.__setitem__(
        0, {**o.param_groups[0], "params": [b]}
    ),
    "other groups": lambda o, a, b: setattr(
        o, "param_groups", [{**o.param_groups[0], "params": [a, b]}]
    ),
}


@EVERY_EXECUTOR
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whose_gradients_are_forgotten_by_a_program_without_the_update(
    executor: str, change: Callable[[optim.Optimizer, Tensor, Tensor], Any]
) -> None:
    """``step`` is called outside, and parameters come and go between the calls."""
    ends = []
    for compiled in (False, True):
        a, b = (Tensor([1.0, k], requires_grad=True) for k in (2.0, 3.0))
        optimizer = optim.SGD([a], lr=0.1)

        def gradients(
            x: Tensor, a: Tensor = a, b: Tensor = b, o: optim.Optimizer = optimizer
        ) -> Tensor:
            o.zero_grad()
            loss = ((a + b) * x).sum()
            loss.backward()
            return loss

        run: Any = compile(gradients, executor=executor) if compiled else gradients
        found = []
        for k in range(7):
            if k == 4:
                change(optimizer, a, b)
            found.append(run(X).item())
            optimizer.step()
            assert a.grad is not None
            assert b.grad is not None
            found += [*a.grad.tolist(), *b.grad.tolist()]
        ends.append(found)
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_super_within_forward() -> None:
    class Doubled(nn.Linear):
        factor = 2.0

        def forward(self, x: Tensor, activation: Any = None) -> Tensor:
            return super().forward(x) * self.factor

    model = Doubled(2, 2)
    call = compile(lambda x: model(x))
    for _ in range(3):
        np.testing.assert_allclose(call(X).numpy(), model(X).detach().numpy(), rtol=1e-6)
    Doubled.factor = 5.0
    np.testing.assert_allclose(call(X).numpy(), model(X).detach().numpy(), rtol=1e-6)
    assert call.captures == 2


def test_a_mistake_of_the_follower_breaks_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a refusal: an error where a program was asked for, else the step goes on as it is."""
    factors = [2.0]
    reads = Reads.item

    def failing(self: Reads, o: Any, key: Any) -> Any:
        if o is factors:
            raise ZeroDivisionError("planted")
        return reads(self, o, key)

    monkeypatch.setattr(Reads, "item", failing)
    call = compile(lambda x: x * factors[0])
    with pytest.raises(CompileError, match=r"could not be followed .*planted"):
        call(X)
    unasked = type(call)(lambda x: x * factors[0], asked=False)
    with pytest.warns(UserWarning, match="planted"):
        np.testing.assert_array_equal(unasked(X).numpy(), 2 * X.numpy())
    np.testing.assert_array_equal(unasked(X).numpy(), 2 * X.numpy())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring leaves settrace alone")
def test_under_a_debugger_functions_run_as_they_are() -> None:
    """In a process of its own: the warning comes once in each."""
    text = """if True:
        import sys, warnings
        import tensorgrad as tg
        lines = []
        def trace(frame, event, arg):
            if frame.f_code.co_name == "step":
                lines.append(event)
            return trace
        def step(x):
            return x * 2.0
        call = tg.compile(step)
        sys.settrace(trace)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            out = [call(tg.ones(2)), call(tg.ones(2))]
        assert sys.gettrace() is trace
        sys.settrace(None)
        assert len(said) == 1 and "debugger" in str(said[0].message), said
        assert lines.count("line") == 2, lines
        assert [x.tolist() for x in out] == [[2.0, 2.0]] * 2
        assert call(tg.ones(2)).tolist() == [2.0, 2.0] and "debugger" in call.report()
    """
    subprocess.run([sys.executable, "-c", text], check=True)


def test_compiled_functions_are_copied_and_pickled() -> None:
    model = nn.Linear(2, 2)
    call = compile(model)
    call(X)
    for other in (copy.copy(call), copy.deepcopy(call), pickle.loads(pickle.dumps(call))):
        np.testing.assert_array_equal(other(X).numpy(), call(X).numpy())
        assert other.captures == 1
    holder = Plain()
    holder.value = call
    twin = copy.deepcopy(holder)
    assert twin.value is not call
    with tg.no_grad():
        model.weight.copy_(model.weight * 2.0)
    assert not np.array_equal(twin.value(X).numpy(), call(X).numpy())


def test_tables_are_bounded() -> None:
    call = compile(lambda x, k: x * k, executor="numpy", limit=4)
    for k in range(300):
        call(X, float(k))
    assert sum(map(len, call._entries.values())) <= 4
    assert len(call._misses) <= 64


def test_what_is_kept_of_gradients_stays() -> None:
    """All of several, not only the first."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    update = optim.SGD(model.parameters(), lr=0.01)

    def step(x: Tensor) -> Tensor:
        update.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        update.step()
        return loss

    call, kept, copies = compile(step), [], []
    for k in range(12):
        call(Tensor(np.full((2, 3), k + 1.0, np.float32)))
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        kept.append([g.detach() if k % 2 else g for g in grads])
        copies.append([g.numpy().copy() for g in grads])
    for a, b in zip(itertools.chain(*kept), itertools.chain(*copies), strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


def test_arrays_that_may_change_in_place_are_compared() -> None:
    scale = np.array([2.0, 3.0])
    call = compile(lambda x: x * float(scale[1]))
    for value in (3.0, 3.0, 4.0, float("nan"), -0.0):
        scale[1] = value
        np.testing.assert_array_equal(call(X).numpy(), X.numpy() * np.float32(value))


def test_guards_say_what_they_read() -> None:
    settings = {"beta": 1.0}
    call = compile(lambda x: x * settings["beta"])
    call(X)
    texts = [str(g) for g in call._last().guards.reads]
    assert any("'beta' of a dict" in t and __file__ in t for t in texts)
    assert not guards.same(0.0, -0.0)
    assert guards.same(float("nan"), float("nan"))
    assert not guards.same(1, True)
