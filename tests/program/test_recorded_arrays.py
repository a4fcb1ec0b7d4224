"""Arrays that a step lets go of while it is recorded: identities and memory come again."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import recorded

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import CompileError
from tensorgrad.program import Program
from tensorgrad.program.capture import Recorder
from tensorgrad.program.ir import Value
from tensorgrad.program.recorded_arrays import RecordedArrays

N = 6


def _value(number: int) -> Value:
    return Value(number, (N,), np.dtype(np.float32))


def test_what_comes_with_the_identity_of_a_dead_array_is_unknown() -> None:
    arrays = RecordedArrays()
    again = 0
    for k in range(200):
        array = np.empty(N, np.float32)
        known = id(array) in arrays._known
        again += known
        assert arrays.value(array) is None
        arrays.hold(array, _value(k))
        number = arrays.memory(array[1:])
        assert arrays.memory(array) == number == k
        assert arrays.value(array) is not None
    assert not arrays._known or len(arrays._known) == 1
    assert not again


def test_memory_keeps_its_number_as_long_as_a_view_lives() -> None:
    arrays = RecordedArrays()
    array = np.empty(N, np.float32)
    arrays.show(array, whole := _value(0))
    arrays.show(array[:2], first := _value(1))
    last = array[2:]
    arrays.show(last, rest := _value(2))
    number = arrays.memory(array)
    del array
    assert arrays.memory(last) == number
    assert arrays.overlapping(last) == [whole, rest]
    assert arrays.overlapping(last[:0]) == []
    assert first not in arrays.overlapping(last)


def _step(seed: int) -> Callable[..., Any]:
    """A function that makes arrays of one size, views of them, writes to few and forgets many."""

    draw = random.Random(seed)
    written = draw.choice([0.0, 0.2, 1.0])
    plan = [
        (draw.randrange(12), *(draw.randrange(1000) for _ in range(3)), draw.random() < written)
        for _ in range(30)
    ]

    def step(x: Any, w: Any) -> Any:
        held = [x, x * 2.0, w + 0.0]
        for kind, i, j, choice, writes in plan:
            a, b = held[i % len(held)], held[j % len(held)]
            number = (0.5, -1.0, 1.5, 0.25)[choice % 4]
            if kind == 0:
                made = a * b
            elif kind == 1:
                made = a + number
            elif kind == 2:
                made = a.T
            elif kind == 3:
                made = a.reshape(N * N)[::-1].reshape(N, N) if choice % 2 else a[::-1]
            elif kind == 4:
                made = tg.sin(a)
            elif kind == 5:
                made = a.clone()
            elif kind in (6, 7):
                made = a * tg.full((N, N), number)
            elif kind == 8 and writes:
                (b if choice % 2 else b[: N // 2]).copy_(tg.cos(a)[: N // 2].mean())
                continue
            else:
                if len(held) > 2:
                    del held[1 + i % (len(held) - 1)]
                continue
            held.append(made)
            if len(held) > 6:
                del held[1 + j % (len(held) - 1)]
        return [a + 1.0 for a in held] + [held[-1]]

    return step


def _text(program: Program) -> list[str]:
    """What is in a program, its values numbered in the order in which they come."""
    numbers: dict[Value, int] = {}

    def name(v: Any) -> str:
        if type(v) is not Value:
            return repr(v)
        before = "" if v.before is None else f" in place of {name(v.before)}"
        array = f" {v.array}" if v.role == "constant" else ""
        return f"%{numbers.setdefault(v, len(numbers))} {v.role} {v.shape}{before}{array}"

    lines = [
        f"{[name(v) for v in i.outputs]} = {i.op.name}{[name(v) for v in i.inputs]} {i.attrs}"
        for i in program.instructions
    ]
    return [*lines, f"{[name(v) for v in program.results]}", f"{program.aliased}",
            f"{[name(v) for v in program.touched]}"]  # fmt: skip


def _record(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    x, w = (Tensor(rng.standard_normal((N, N)).astype(np.float32)) for _ in range(2))
    with tg.no_grad():
        return _text(recorded(_step(seed), [x, w]))


class _Keeping(RecordedArrays):
    """Keeps every array alive, so that no identity comes again."""

    def hold(self, array: Any, value: Value) -> None:
        self.keep(array)
        super().hold(array, value)


class _Careless(RecordedArrays):
    """Does not notice that an array dies: a planted mistake."""

    def _of(self, array: Any) -> Any:
        known = super()._of(array)
        known.reference = None
        return known


def _differences(monkeypatch: pytest.MonkeyPatch, made: type[RecordedArrays]) -> int:
    """In how many random programs it matters that ``made`` is taken instead of ``_Keeping``."""
    count = 0
    for seed in range(60):
        texts = []
        for kind in (_Keeping, made):
            monkeypatch.setattr("tensorgrad.program.capture.RecordedArrays", kind)
            try:
                texts.append(_record(seed))
            except CompileError as error:
                texts.append([str(error)])
        count += texts[0] != texts[1]
    return count


def test_programs_do_not_depend_on_which_arrays_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _differences(monkeypatch, RecordedArrays) == 0


def test_an_array_whose_death_goes_unnoticed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _differences(monkeypatch, _Careless) > 20


def test_random_steps_replay_what_they_do() -> None:
    for seed in range(25):
        step = _step(seed)
        call = tg.compile(step)
        for k in range(4):
            rng = np.random.default_rng(k)
            numbers = [rng.standard_normal((N, N)).astype(np.float32) for _ in range(2)]
            x, w = map(Tensor, numbers)
            y, v = (Tensor(a.copy()) for a in numbers)
            with tg.no_grad():
                for found, wanted in zip(call(x, w), step(y, v), strict=True):
                    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=2e-5, atol=1e-6)
            np.testing.assert_allclose(w.numpy(), v.numpy(), rtol=2e-5, atol=1e-6)


def test_what_the_step_lets_go_of_takes_no_memory_while_it_is_recorded() -> None:
    size = 1 << 20
    x = Tensor(np.ones(size // 4, np.float32))

    def step(x: Any) -> Any:
        for _ in range(40):
            x = x + 1.0
        return x

    with tg.no_grad():
        recorded(step, [x])
        tracemalloc.start()
        try:
            recorded(step, [x])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * size
    assert Recorder([x]).known(x.data) is not None
