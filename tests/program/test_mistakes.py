"""Mistakes that executors, passes and keys invite, each with the smallest step that shows it.

A replay that differs from the function may be replaced by something slower that is right; so every
step is captured on harmless numbers, replayed on others, and the executor has to be the same still.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR, EXECUTORS
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, optim
from tensorgrad.errors import CompileError, GradientError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.program.arena import arena_plan
from tensorgrad.program.bytecode import reads

Array = np.ndarray[Any, Any]

native_only = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arrays_of(result: Any) -> list[Array]:
    parts = result if isinstance(result, tuple | list) else [result]
    return [host(t).copy() for t in parts]


def check(
    make: Callable[[], Callable[..., Any]],
    executor: str,
    calls: Sequence[Sequence[Any]],
    *,
    exact: bool = False,
    seed: int | None = None,
    rounds: int = 3,
) -> Any:
    """The compiled function, after calls that gave what those of the function itself give.

    make: a step in a state of its own. calls: the arrays of each call, which are made ``rounds``
        times over: the fast call is made after the fifth call.
    """

    def run(step: Callable[..., Any]) -> list[list[Array]]:
        if seed is not None:
            default_generator.seed(seed)
        with np.errstate(all="ignore"):
            return [
                arrays_of(step(*[_tensor(a) for a in arrays]))
                for _ in range(rounds)
                for arrays in calls
            ]

    wanted = run(make())
    call = tg.compile(make(), executor=executor)
    for found, right in zip(run(call), wanted, strict=True):
        for a, b in zip(found, right, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            if exact:
                np.testing.assert_array_equal(a, b)
                np.testing.assert_array_equal(np.signbit(a), np.signbit(b))
            else:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not call.reasons
    assert call._last().executor.name == executor, call.report()
    return call


def _tensor(array: Array) -> Tensor:
    found = Tensor(np.ascontiguousarray(array))
    found.data = array  # with its strides
    return found


def updating(w: Tensor) -> Callable[[Tensor], Tensor]:
    optimizer = optim.SGD([w], lr=0.1)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = tg.square(w - x).sum()
        loss.backward()
        optimizer.step()
        return loss

    return step


# --- keys -----------------------------------------------------------------------------------------


def test_signs_of_zero_in_eager_mode() -> None:
    x = Tensor([1.0, -1.0])
    for _ in range(2):
        for zero in (0.0, -0.0):
            for found in (x * zero, zero * x, x - zero, zero - x):
                assert found.dtype == x.dtype
            assert np.signbit(host(x * zero)).tolist() == np.signbit(host(x) * zero).tolist()
            assert np.signbit(host(zero * x)).tolist() == np.signbit(host(x) * zero).tolist()


@EVERY_EXECUTOR
def test_signs_of_zero(executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        plus, minus = x * 0.0, x * -0.0
        return [plus, minus, plus * 2.0 + minus * 2.0, x.clip(-0.0, 1.0), tg.maximum(x, -0.0)]

    check(lambda: step, executor, [[numbers(8, seed=k)] for k in range(3)], exact=True)


@EVERY_EXECUTOR
def test_numbers_that_are_equal_and_compute_otherwise(executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        half = tg.full((3,), 1, dtype=tg.int64) * 3
        return [x / 2, x * True + x * 1.0, half / 2, (half * 1).sum(), tg.full((3,), True).sum()]

    check(lambda: step, executor, [[numbers(3, seed=k)] for k in range(3)])


def assert_no_calls(call: Any) -> None:
    """What had the wrong shape or type would be left to a call, and be right nevertheless."""
    lines = str(call.report()).splitlines()
    assert not [line for line in lines if line.startswith("call ")], lines


@EVERY_EXECUTOR
def test_equal_expressions_of_two_dtypes(executor: str) -> None:
    """Zeros and ones are the same in both, but not their bytes, which a product reads."""

    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        y = (x > 0).astype(tg.int64)
        as_float = functional.one_hot(y, 2, dtype=tg.float32)
        as_double = functional.one_hot(y, 2, dtype=tg.float64)
        return [as_float @ w, as_double @ w.double(), as_double * 0.1]

    calls = [[numbers(5, seed=k), numbers(2, 3, seed=k + 5)] for k in range(3)]
    assert_no_calls(check(lambda: step, executor, calls))


@EVERY_EXECUTOR
def test_reductions_of_one_value(executor: str) -> None:
    """Of several kinds and over several axes, none of which is a result itself."""

    def step(x: Tensor) -> list[Tensor]:
        over = [(0,), (1,), (0, 1)]
        return [
            of(x, axis=axis, keepdims=True) * x
            for axis in over
            for of in (tg.sum, tg.max, tg.min, tg.mean, tg.prod)
        ]

    calls = [[numbers(5, 5, seed=k)] for k in range(3)]
    assert_no_calls(check(lambda: step, executor, calls))


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", ["momentum", "weight_decay", "dampening", "nesterov"])
def test_options_that_change(executor: str, name: str) -> None:
    found = []
    for compiled in (False, True):
        w = Tensor(numbers(4), requires_grad=True)
        optimizer = optim.SGD([w], lr=0.1, momentum=0.5, weight_decay=0.1)

        def step(x: Tensor, w: Tensor = w, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = tg.square(w - x).sum()
            loss.backward()
            optimizer.step()
            return loss

        run: Any = tg.compile(step, executor=executor) if compiled else step
        for k in range(6):
            if k == 3:
                value = True if name == "nesterov" else 0.25
                optimizer.param_groups[0][name] = value
            run(Tensor(numbers(4, seed=k)))
        found.append(host(w).copy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@EVERY_EXECUTOR
def test_two_draws_in_one_step(executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        first = functional.dropout(x, 0.5)
        second = functional.dropout(x, 0.5)
        return [first, second, functional.dropout(first + second, 0.25)]

    calls = [[numbers(64, seed=k) + 3.0] for k in range(4)]
    check(lambda: step, executor, calls, seed=5)


# --- overwriting ----------------------------------------------------------------------------------


@EVERY_EXECUTOR
def test_what_the_step_makes_and_adds_to_begins_anew(executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        with tg.no_grad():
            z = tg.zeros(3)
            z += x
            z += x * 2.0
            ones = tg.ones(3)
            before = ones * 2.0
            ones.copy_(x)
        return [z * 1.0, before + 0.0, ones * 2.0]

    check(lambda: step, executor, [[numbers(3, seed=k)] for k in range(4)])


@EVERY_EXECUTOR
def test_equal_values_of_which_one_is_overwritten(executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        with tg.no_grad():
            first, second = tg.exp(x), tg.exp(x)
            first += 1.0
            third = tg.exp(x)
            third *= 2.0
        return [first * 2.0, second * 3.0, third * 4.0]

    check(lambda: step, executor, [[numbers(5, seed=k)] for k in range(3)])


@EVERY_EXECUTOR
def test_an_expression_before_and_after_an_overwriting(executor: str) -> None:
    def make() -> Any:
        w = Tensor(numbers(5, seed=9))

        def step(x: Tensor) -> list[Tensor]:
            before = tg.sin(w * 2.0 + 1.0)
            total = (w * w).sum()
            w.copy_(x)
            return [before * 2.0, total, tg.sin(w * 2.0 + 1.0) * 3.0, (w * w).sum()]

        return step

    check(make, executor, [[numbers(5, seed=k)] for k in range(3)])


@EVERY_EXECUTOR
def test_an_expression_before_and_after_a_copy_that_stays_a_call_and_overwrites(
    executor: str,
) -> None:
    """16-bit floats are left to NumPy."""

    def make() -> Any:
        w = tg.tensor([1.0, 2.0, 3.0])

        def step(x: Tensor) -> list[Tensor]:
            before = w * 2
            w.copy_(x)
            return [before + 1, w * 2]

        return step

    check(make, executor, [[numbers(3, seed=k).astype(np.float16)] for k in range(3)])


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda w: optim.SGD([w], lr=0.1, momentum=0.9, dampening=0.3),
        lambda w: optim.RMSprop([w], lr=0.01),
    ],
)
def test_an_expression_before_and_after_an_update_that_overwrites(
    executor: str, optimizer: Callable[[Tensor], Any]
) -> None:

    def make() -> Any:
        w = Tensor(numbers(5, seed=9), requires_grad=True)
        update = optimizer(w)

        def step(x: Tensor) -> list[Tensor]:
            update.zero_grad()
            before = tg.square(w - x).sum()
            before.backward()
            update.step()
            with tg.no_grad():
                return [before, tg.square(w - x).sum() * 1.0, (w - x) * 2.0]

        return step

    check(make, executor, [[numbers(5, seed=k)] for k in range(4)])


@EVERY_EXECUTOR
def test_a_view_before_and_after_an_overwriting(executor: str) -> None:
    """The program has to run on that very memory, in that very order."""
    w = Tensor(numbers(3, 4, seed=9))
    plain = Tensor(numbers(3, 4, seed=9))

    def step_of(w: Tensor) -> Any:
        def step(x: Tensor) -> list[Tensor]:
            view = w[1]
            before = view * 2.0
            w.copy_(x)
            return [before + 1.0, view * 2.0 + 3.0]

        return step

    call = tg.compile(step_of(w), executor=executor)
    for k in range(4):
        x = Tensor(numbers(3, 4, seed=k))
        for a, b in zip(call(x), step_of(plain)(x), strict=True):
            np.testing.assert_allclose(host(a), host(b), rtol=1e-6)
    assert call.program().aliased


@EVERY_EXECUTOR
def test_another_view_met_after_an_overwriting(executor: str) -> None:
    base = Tensor(numbers(4, 4, seed=9))
    part = base.T

    def step(x: Tensor) -> list[Tensor]:
        double = x * 2.0
        part.copy_(double @ x)
        return [base * 3.0, double + 1.0]

    call = tg.compile(step, executor=executor)
    for k in range(4):
        x = numbers(4, 4, seed=k)
        found = call(Tensor(x))
        np.testing.assert_allclose(host(found[0]), (2 * x @ x).T * 3, rtol=1e-5, atol=1e-5)
    assert call.program().aliased


@EVERY_EXECUTOR
def test_read_by_a_product_and_overwritten_then(executor: str) -> None:
    def make() -> Any:
        w = Tensor(numbers(4, 4, seed=9))

        def step(x: Tensor) -> list[Tensor]:
            double = x * 2.0
            product = w @ x
            w.copy_(double)
            return [product, double + 1.0]

        return step

    check(make, executor, [[numbers(4, 4, seed=k)] for k in range(4)])


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "neighbours",
    [
        lambda w: w[::-1] * 1.5,
        lambda w: w.T * 1.5,
        lambda w: w - w.sum(axis=1, keepdims=True),
        lambda w: w - w.mean(axis=0),
        lambda w: w / w.sum(),
        lambda w: w + w[1],
    ],
)
def test_overwritten_with_what_is_made_of_its_neighbours(
    executor: str, neighbours: Callable[[Tensor], Tensor]
) -> None:
    def make() -> Any:
        w = Tensor(np.abs(numbers(6, 6, seed=9)) + 1.0)

        def step(x: Tensor) -> Tensor:
            w.copy_(neighbours(w) + x)
            return w * 1.0

        return step

    check(make, executor, [[np.abs(numbers(6, 6, seed=k)) + 1.0] for k in range(4)])


@EVERY_EXECUTOR
def test_nothing_is_overwritten_before_labels_are_checked(executor: str) -> None:
    """An update that depends on no label, in a shape for which there is a loop before the check."""
    w = Tensor(numbers(7, seed=9))

    def step(x: Tensor, y: Tensor, v: Tensor) -> list[Tensor]:
        scaled = v * 2.0
        loss = functional.cross_entropy(x, y)
        w.copy_(scaled)
        return [loss, scaled + 1.0]

    def arguments(labels: list[int], seed: int) -> list[Tensor]:
        x, v = numbers(4, 3, seed=seed), numbers(7, seed=seed)
        return [Tensor(x), Tensor(np.array(labels)), Tensor(v)]

    call = tg.compile(step, executor=executor)
    for k in range(1, 9):
        call(*arguments([0, 1, 2, 0], k))
        before = host(w).copy()
        for bad in (3, -1):  # the function runs itself where a check is due, and a replay elsewhere
            with pytest.raises(IndexError, match="label"):
                call(*arguments([0, bad, 2, 0], 20))
            np.testing.assert_array_equal(host(w), before)


@EVERY_EXECUTOR
def test_a_replay_notes_what_it_overwrites(executor: str) -> None:
    w = Tensor(numbers(3), requires_grad=True)
    call = tg.compile(updating(w), executor=executor)
    for k in range(9):
        y = (w * w).sum()
        call(Tensor(numbers(3, seed=k)))
        with pytest.raises(GradientError, match="overwritten"):
            y.backward()


# --- results --------------------------------------------------------------------------------------


@EVERY_EXECUTOR
def test_results_are_told_apart(executor: str) -> None:
    """Equal results, of which one is overwritten by whoever called; large ones lie as they are."""
    call = tg.compile(
        lambda x: (tg.exp(x), tg.exp(x), tg.square(x), x * x, tg.relu(x).T), executor=executor
    )
    for k in range(4):
        x = numbers(100, 60, seed=k)
        found = call(Tensor(x))
        wanted = [np.exp(x), np.exp(x), x * x, x * x, np.maximum(x, 0).T]
        for j, (result, right) in enumerate(zip(found, wanted, strict=True)):
            np.testing.assert_allclose(host(result), right, rtol=1e-5)
            result.data[...] = float(j)
    assert call._last().executor.name == executor, call.report()


@EVERY_EXECUTOR
def test_results_of_one_call_outlive_the_next(executor: str) -> None:
    call = tg.compile(
        lambda x: (tg.relu(x).T, tg.tanh(x)[1:], x * 2.0, (x + 1.0).reshape(-1)), executor=executor
    )
    for size in (3, 100):
        kept = []
        for k in range(4):
            x = numbers(size, size, seed=k)
            kept.append((x, call(Tensor(x))))
        for x, found in kept:
            wanted = [np.maximum(x, 0).T, np.tanh(x)[1:], x * 2, (x + 1).reshape(-1)]
            for result, right in zip(found, wanted, strict=True):
                np.testing.assert_allclose(host(result), right, rtol=1e-4, atol=1e-6)


@EVERY_EXECUTOR
def test_only_the_gradient_is_returned(executor: str) -> None:
    """Of the loss only what it leaves for its gradient is used."""

    def step(x: Tensor, y: Tensor) -> Any:
        x = x.detach().requires_grad_()
        functional.cross_entropy(x, y).backward()
        return x.grad

    labels = np.array([0, 2, 1, 0])
    check(lambda: step, executor, [[numbers(4, 3, seed=k), labels] for k in range(3)])


@EVERY_EXECUTOR
@pytest.mark.parametrize("held", [(0,), (1,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("how", ["tensors", "arrays", "parts"])
def test_gradients_that_somebody_keeps(executor: str, held: tuple[int, ...], how: str) -> None:
    """After every call but each third, so that the fast call is made in between."""
    params = [Tensor(numbers(3, seed=k), requires_grad=True) for k in range(3)]

    def step(x: Tensor) -> Tensor:
        for p in params:
            p.grad = None
        loss = sum((p * x * float(k + 1)).sum() for k, p in enumerate(params))
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss

    call = tg.compile(step, executor=executor)
    kept: list[tuple[Any, Array]] = []
    for k in range(24):
        x = numbers(3, seed=k)
        call(Tensor(x))
        if k % 8 < 6:
            continue
        for j in held:
            grad: Any = params[j].grad
            if how != "tensors":
                grad = grad.data if how == "arrays" else grad.data[1:]
            kept.append((grad, x[1:] * (j + 1) if how == "parts" else x * (j + 1)))
    del grad
    for tensor, wanted in kept:
        np.testing.assert_allclose(host(tensor) if how == "tensors" else tensor, wanted, rtol=1e-6)
    assert call.captures == 1
    assert not call.reasons


@EVERY_EXECUTOR
def test_gradients_that_are_there_or_not(executor: str) -> None:
    """Accumulated where the caller did not clear them, whichever was captured first."""
    found = []
    for compiled in (False, True):
        p = Tensor(numbers(3), requires_grad=True)

        def step(x: Tensor, p: Tensor = p) -> Tensor:
            loss = (p * x).sum()
            loss.backward()
            return loss

        run: Any = tg.compile(step, executor=executor) if compiled else step
        seen = []
        for k in range(30):
            if k < 10 or k > 20:
                p.grad = None
            run(Tensor(numbers(3, seed=k)))
            assert p.grad is not None
            seen.append(host(p.grad).copy())
        found.append(seen)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@EVERY_EXECUTOR
def test_gradients_of_two_parameters_are_told_apart(executor: str) -> None:
    """They are equal, and of the same sum; clipping one in place leaves the other alone."""
    p, q = (Tensor(numbers(1, 3, seed=k), requires_grad=True) for k in range(2))

    def step(x: Tensor) -> Tensor:
        p.grad = q.grad = None
        loss = (tg.tanh(x) * (p + q)).sum()
        loss.backward()
        return loss

    call = tg.compile(step, executor=executor)
    for k in range(9):
        x = numbers(4, 3, seed=k)
        call(Tensor(x))
        assert p.grad is not None
        assert q.grad is not None
        p.grad.data *= 0.0
        np.testing.assert_allclose(host(q.grad)[0], np.tanh(x).sum(axis=0), rtol=1e-5)
    assert call._last().executor.name == executor, call.report()


@EVERY_EXECUTOR
def test_hooks_that_come_later(executor: str) -> None:
    """A second hook goes into the list in which the first one is."""
    p = Tensor(numbers(3), requires_grad=True)
    p.register_hook(lambda g: g * 2.0)

    def step(x: Tensor) -> Tensor:
        p.grad = None
        loss = (p * x).sum()
        loss.backward()
        return loss

    call = tg.compile(step, executor=executor)
    x = numbers(3, seed=1)
    for k in range(16):
        if k == 6:
            p.register_hook(lambda g: g + 1.0)
        call(Tensor(x))
        assert p.grad is not None
        np.testing.assert_allclose(host(p.grad), x * 2.0 + (k >= 6), rtol=1e-6)


@EVERY_EXECUTOR
def test_views_of_arguments_that_lie_otherwise(executor: str) -> None:
    """They are views in a replay too, and of the same elements, whatever the strides are."""
    call = tg.compile(lambda x: (x.T, x[1:], x * 1.0), executor=executor)
    layouts: list[Callable[[Array], Array]] = [
        lambda a: a, np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[::-1]
    ]  # fmt: skip
    for k in range(9):
        for layout in layouts:
            x = _tensor(layout(numbers(4, 4, seed=k)))
            turned, part, _ = call(x)
            np.testing.assert_array_equal(host(turned), host(x).T)
            np.testing.assert_array_equal(host(part), host(x)[1:])
            assert np.shares_memory(part.data, x.data)


# --- C -----------------------------------------------------------------------------------------


@native_only
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 36])
def test_maxima_of_what_is_no_number(bad: float, place: int) -> None:
    """Captured where there is none, replayed where there is one."""

    def step(x: Tensor) -> list[Tensor]:
        return [
            x.max(axis=1), x.max(axis=0), x.max(), x.min(axis=1), x.min(axis=0), x.min(),
            tg.maximum(x, 0.5), tg.maximum(x[0], x[1]), tg.minimum(x[0], x[1]), x.clip(-1.0, 1.0),
            tg.relu(x), functional.hardtanh(x), tg.sign(x),
        ]  # fmt: skip

    x = numbers(40, 37)
    x[0, place] = x[7, place] = bad
    y = numbers(40, 37, seed=1)
    y[1, place] = bad
    check(lambda: step, "native", [[numbers(40, 37, seed=2)], [x], [y]], exact=True)


@native_only
@pytest.mark.parametrize("shape", [(100, 150), (3, 4)])
def test_arguments_with_gaps(shape: tuple[int, int]) -> None:
    def step(x: Tensor, y: Tensor) -> list[Tensor]:
        return [x * 2.0, (x * y).sum(axis=0), x @ y.T]

    m, n = shape
    wide, other = numbers(2 * m, 2 * n), numbers(2 * m, 2 * n, seed=3)
    calls = [
        [numbers(m, n, seed=1), numbers(m, n, seed=2)],
        [wide[::2, ::2], other[1::2, 1::2]],
        [wide[:m, n - 1 :: -1], numbers(n, m).T],
        [np.broadcast_to(wide[:1, :n], (m, n)), other[:m, :n]],
    ]
    check(lambda: step, "native", calls)
    check(lambda: lambda x, y: x * 2.0 - y, "native", calls)


@native_only
def test_products_of_transposed_factors() -> None:
    """Small ones are written out, larger ones are left to BLAS."""

    def step(a: Tensor, b: Tensor) -> list[Tensor]:
        return [a.T @ b, b.T @ a, a[:, ::2].T @ b[:, 1:], (a.T @ b).T @ a.T]

    for m, k, n in ((5, 7, 3), (7, 5, 9), (120, 90, 110)):
        # of so many that sums are about 1 in the end, as is what their rounding is held to
        scale = np.float32(1 if k < 10 else 0.25)
        calls = [
            [numbers(k, m, seed=j) * scale, numbers(k, n, seed=j + 5) * scale] for j in range(3)
        ]
        check(lambda: step, "native", calls)


@native_only
def test_values_repeated_along_any_axis() -> None:
    def step(x: Tensor, row: Tensor, column: Tensor) -> list[Tensor]:
        return [x * row + column, (x - column) * row, (x + row).sum(axis=1) * column[:, 0]]

    calls = [
        [numbers(4, 5, seed=k), numbers(5, seed=k + 1), numbers(4, 1, seed=k + 2)] for k in range(3)
    ]
    check(lambda: step, "native", calls)


@native_only
def test_memory_is_not_given_away_too_early() -> None:
    """Values that are read for the last time where another one of their size is written.

    Of a product with more columns than fit into registers the second part reads the rows anew.
    """

    def step(x: Tensor) -> list[Tensor]:
        y = x
        for _ in range(4):
            y = y @ y
        a = tg.sort(y @ x, axis=0) @ x
        return [(a + y) @ x, a @ y]

    calls = [[numbers(40, 40, seed=k) * 0.16] for k in range(3)]
    check(lambda: step, "native", calls)


@pytest.mark.parametrize("seed", range(40))
def test_pieces_in_use_at_one_time_lie_apart(seed: int) -> None:
    """Many pieces of few sizes, so that there are gaps of every width among them."""
    draw = np.random.default_rng(seed)
    spans = {}
    for k in range(30):
        first = int(draw.integers(0, 12))
        spans[k] = (
            int(draw.choice([40, 64, 100, 128, 400])),
            first,
            first + int(draw.integers(0, 4)),
        )
    offsets, size = arena_plan(spans)
    for k, (n, first, last) in spans.items():
        assert offsets[k] % 64 == 0
        assert offsets[k] + n <= size
        for j in range(k):
            m, begins, ends = spans[j]
            if begins <= last and first <= ends:
                assert offsets[k] + n <= offsets[j] or offsets[j] + m <= offsets[k]


@native_only
def test_numbers_that_are_known_in_the_end() -> None:
    """Sums over everything, used at every place: not in the loop that adds them up."""

    def step(x: Tensor) -> list[Tensor]:
        y = x / x.sum()
        z = (x - x.mean()) / x.max()
        return [y + 1.0, z * 2.0, (y - y.max()) * tg.sqrt(tg.square(z).sum())]

    calls = [[np.abs(numbers(6, 5, seed=k)) + 0.1] for k in range(3)]
    check(lambda: step, "native", calls)


@native_only
@pytest.mark.parametrize("shape", [(700, 900), (3, 200_000), (200_000,)])
def test_sums_of_many_parts(shape: tuple[int, ...]) -> None:
    """Work that is shared out among threads: every part counts once."""

    def step(x: Tensor) -> list[Tensor]:
        y = tg.tanh(x)
        return [y.sum(), y.max(), y.min(), y.sum(axis=0), tg.exp(x).mean(axis=-1), y.max(axis=0)]

    calls = [[np.abs(numbers(*shape, seed=k))] for k in range(2)]
    ramp = np.zeros(shape, np.float32)
    ramp[-1] = 5.0
    check(lambda: step, "native", [*calls, [ramp], [ramp[::-1].copy()]])


_BITS = """
import hashlib, numpy as np, tensorgrad as tg
def step(x):
    y = tg.tanh(x)
    return y.sum(), y.sum(axis=0), (y * y).mean(axis=1), x @ y.T
call = tg.compile(step, executor="native")
for rows in (60, 400):
    x = tg.Tensor(np.random.default_rng(0).standard_normal((rows, 500)).astype(np.float32))
    for _ in range(2):
        found = call(x)
    assert call._last().executor.name == "native", call.report()
    print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in found)).hexdigest())
"""


@native_only
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    bits = {
        subprocess.run(
            [sys.executable, "-c", _BITS],
            env={**os.environ, "TENSORGRAD_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in ("1", "2", "3", "7")
    }
    assert len(bits) == 1


# --- the check of a program against its function --------------------------------------------------


@EVERY_EXECUTOR
def test_calls_2_4_8_run_the_function_too(executor: str) -> None:
    call = tg.compile(lambda x: x * 2.0, executor=executor)
    calls = {3: 0, 4: 0}  # of each of two programs, by the length of the argument
    ran: dict[int, list[int]] = {3: [], 4: []}

    def called(n: int) -> None:
        calls[n] += 1
        call(Tensor(numbers(n)))

    called(3)
    called(4)
    inner = call.function

    def watched(x: Tensor) -> Tensor:
        ran[len(x)].append(calls[len(x)])
        return inner(x)

    call.function = watched
    for n in (3, 4, 4, 3, *[3] * 30, *[4] * 6):
        called(n)
    assert ran == {3: [2, 4, 8, 16, 32], 4: [2, 4, 8]}
    assert call.captures == 2


def wrong_from_now_on(call: Any, w: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program of ``call`` give another first result, and leave something else in ``w``."""
    executor = call._last().executor
    run = executor.run

    def otherwise(arguments: Any) -> Any:
        results, gradients = run(arguments)
        w.data += 1.0
        return [results[0] + 1.0, *results[1:]], gradients

    monkeypatch.setattr(executor, "run", otherwise)


@EVERY_EXECUTOR
def test_where_a_check_differs_the_function_counts(
    executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers that stay are the function's, and it runs as it is from then on."""
    w, plain = (Tensor(numbers(3), requires_grad=True) for _ in range(2))
    call, step = tg.compile(updating(w), executor=executor), updating(plain)
    x = Tensor(numbers(3, seed=1))
    assert call(x).item() == pytest.approx(step(x).item())
    wrong_from_now_on(call, w, monkeypatch)
    with pytest.warns(UserWarning, match="does not do what the function does"):
        found = call(x)
    assert found.item() == step(x).item()
    np.testing.assert_allclose(host(w), host(plain), rtol=1e-6)
    assert w.grad is not None
    assert plain.grad is not None
    np.testing.assert_allclose(host(w.grad), host(plain.grad), rtol=1e-6)
    assert len(call.reasons) == 1
    assert "result 0 differs" in call.reasons[0]
    for _ in range(3):
        assert call(x).item() == pytest.approx(step(x).item(), rel=1e-6)
    assert call.captures == 1


def test_what_the_function_does_in_python_happens_once_where_it_is_checked() -> None:
    class Log:
        count = 0

    log, losses, last = Log(), [], {"loss": Tensor(0.0)}

    def step(x: Tensor) -> Tensor:
        loss = tg.square(x).sum()
        losses.append(loss)
        log.count += 1
        last["loss"] = loss
        return loss

    call = tg.compile(step)
    for k in range(1, 12):
        out = call(Tensor(numbers(999, seed=k)))
        assert log.count == len(losses) == k
        assert losses[-1].item() == last["loss"].item() == out.item()  # the program's, to the bit
    assert [loss.item() for loss in losses] == pytest.approx(
        [float((numbers(999, seed=k) ** 2).sum()) for k in range(1, 12)]
    )
    assert not call.reasons
    log.count = 100
    call(Tensor(numbers(999)))
    assert log.count == 101


@EVERY_EXECUTOR
def test_bits_are_the_programs_at_every_call(executor: str) -> None:
    """Whether a call was checked makes no difference to what it gives and leaves behind."""
    w = Tensor(numbers(50), requires_grad=True)
    call = tg.compile(updating(w), executor=executor)
    x = Tensor(numbers(50, seed=1))
    seen = set()
    for _ in range(9):
        w.data[...] = numbers(50)
        loss = call(x)
        assert w.grad is not None
        seen.add(host(loss).tobytes() + host(w).tobytes() + host(w.grad).tobytes())
    assert len(seen) == 1
    assert call.captures == 1


# --- reads ----------------------------------------------------------------------------------------


def differs(call: Any) -> bool:
    """Whether a check has found that a program does something else than the function."""
    return any("does not do what the function does" in reason for reason in call.reasons)


class Plain:
    pass


class Other(Plain):
    pass


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    ("step", "change"),
    [
        (lambda x, o: x * (2.0 if o else 3.0), lambda c: setattr(c, "__bool__", lambda o: False)),
        (lambda x, o: x * (2.0 if o else 3.0), lambda c: setattr(c, "__len__", lambda o: 0)),
        (lambda x, o: x * (2.0 if o == 1 else 3.0), lambda c: setattr(c, "__eq__", lambda o, p: 1)),
    ],
)
def test_special_methods_that_appear(executor: str, step: Any, change: Any) -> None:
    class Silent:
        __hash__ = object.__hash__

    o = Silent()
    call = tg.compile(lambda x: step(x, o), executor=executor)
    x = Tensor(numbers(3))
    for k in range(16):
        if k == 6:
            change(Silent)
        np.testing.assert_array_equal(host(call(x)), host(step(x, o)))
    assert not differs(call)


@EVERY_EXECUTOR
def test_the_class_of_an_object_that_changes(executor: str) -> None:
    o = Plain()

    def step(x: Tensor) -> Tensor:
        return x * (2.0 if type(o) is Plain else 3.0)

    call = tg.compile(step, executor=executor)
    x = Tensor(numbers(3))
    for k in range(16):
        if k == 6:
            o.__class__ = Other
        np.testing.assert_array_equal(host(call(x)), host(step(x)))
    assert not differs(call)


def test_c_code_that_nobody_knows_is_refused() -> None:
    """Even where the step does not use what it gives: it may do something in every call."""

    def step(x: Tensor) -> Tensor:
        sys.setswitchinterval(0.005)
        return x * 2.0

    with pytest.raises(CompileError, match=r"setswitchinterval\(\) of sys is called.*Remedy"):
        tg.compile(step)(Tensor(numbers(3)))


@EVERY_EXECUTOR
def test_a_tensor_with_another_history(executor: str) -> None:
    """The gradients of what led to it are part of what the step changes."""
    found = []
    for compiled in (False, True):
        leaves = [Tensor(numbers(3, seed=k), requires_grad=True) for k in range(2)]
        state = {"w": leaves[0] * 2.0}

        def step(x: Tensor, state: dict[str, Tensor] = state) -> Tensor:
            loss = (state["w"] * x).sum()
            loss.backward(retain_graph=True)
            return loss

        run: Any = tg.compile(step, executor=executor) if compiled else step
        seen = []
        for k in range(9):
            if k == 5:
                state["w"] = leaves[1] * 3.0
            run(Tensor(numbers(3, seed=k)))
            seen += [None if leaf.grad is None else host(leaf.grad).copy() for leaf in leaves]
        found.append(seen)
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_hole_in_the_follower_is_found_after_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that nobody saw: what the step read is another thing when it is over."""
    monkeypatch.setattr(reads.Reads, "stores_item", lambda *given, **options: None)
    state = {"rate": 2.0}

    def step(x: Tensor) -> Tensor:
        y = x * state["rate"]
        state["rate"] = 3.0
        return y

    with pytest.raises(CompileError, match="changes what it reads"):
        tg.compile(step)(Tensor(numbers(3)))


# --- which memory is the same ---------------------------------------------------------------------


@EVERY_EXECUTOR
def test_memory_that_an_argument_shares_with_what_is_updated(executor: str) -> None:
    """Whole, in part, backwards, and not at all; captured in any order."""
    memory = numbers(12, seed=9)
    ways: list[Callable[[Array], Array]] = [
        lambda m: numbers(4, seed=1),
        lambda m: m[:4],
        lambda m: m[2:6],
        lambda m: m[3::-1],
        lambda m: m[4:8],
        lambda m: m[8:12],
    ]

    def run(compiled: bool) -> list[Array]:
        room = memory.copy()
        w = _tensor(room[:4])

        def step(x: Tensor) -> Tensor:
            w.copy_(w * 0.5 + 1.0)
            return x * 2.0 + w

        call: Any = tg.compile(step, executor=executor) if compiled else step
        found = []
        for way in (*ways, *ways, *[ways[0]] * 9, *ways):
            found += [host(call(_tensor(way(room)))).copy(), room.copy()]
        if compiled:
            assert not differs(call)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a dozen captures for calls that look alike are many
        for a, b in zip(run(True), run(False), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


@EVERY_EXECUTOR
def test_arguments_that_share_memory_with_each_other(executor: str) -> None:
    room = numbers(8)

    def step(x: Tensor, y: Tensor) -> list[Tensor]:
        y.copy_(x * 2.0)
        return [x * 2.0, y * 1.0]

    def run(call: Callable[..., Any]) -> list[Array]:
        found = []
        for _ in range(4):
            for at in (4, 2, 0, 1):
                m = room.copy()
                found += arrays_of(call(_tensor(m[:4]), _tensor(m[at : at + 4])))
                found.append(m)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = tg.compile(step, executor=executor)
        for a, b in zip(run(call), run(step), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert not differs(call)


@EVERY_EXECUTOR
def test_views_of_arguments_that_share_memory_at_another_distance(executor: str) -> None:
    """What is returned is a view of the second argument, which lies within the first."""
    call = tg.compile(lambda x, y: (y.T, x * 1.0), executor=executor)
    for k in range(9):
        room = numbers(4, 3, seed=k)
        for at in (0, 1, 2):
            turned, _ = call(_tensor(room), _tensor(room[at : at + 2]))
            np.testing.assert_array_equal(host(turned), room[at : at + 2].T)
            assert np.shares_memory(turned.data, room)


# --- arguments that are no tensors ----------------------------------------------------------------


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0, 0.0],
        [1, 1.0, True],
        [float("nan"), float("nan")],
        [(1, 2), [1, 2]],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [None, False, 0],
        [np.float32(1), np.float64(1), 1.0],
    ],
    ids=str,
)
def test_constants_that_look_alike(executor: str, values: list[Any]) -> None:
    def step(x: Tensor, c: Any) -> list[Tensor]:
        if isinstance(c, dict):
            return [x * float(next(iter(c.values())))]
        if isinstance(c, list | tuple):
            return [x * (2.0 if isinstance(c, list) else 3.0)]
        if c is None:
            return [x * 5.0]
        return [x * c, tg.full((2,), c)]

    call = tg.compile(step, executor=executor)
    x = Tensor(numbers(3))
    for _ in range(2):
        for c in values:
            for a, b in zip(arrays_of(call(x, c)), arrays_of(step(x, c)), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
                np.testing.assert_array_equal(np.signbit(a), np.signbit(b))
    assert call.captures <= len(values)


# --- fuse -----------------------------------------------------------------------------------------


def test_fused_gradients_of_several_seeds() -> None:
    """What the rules share belongs to one incoming gradient, and another one may follow it."""
    fused = tg.fuse(lambda x, y: tg.sin(x) * y)
    x, y = (Tensor(numbers(4, seed=k), requires_grad=True) for k in range(2))
    out = fused(x, y)
    seeds = [numbers(4, seed=k) for k in (5, 6, 5)]
    for seed in seeds:
        x.grad = y.grad = None
        out.backward(Tensor(seed), retain_graph=True)
        assert x.grad is not None
        assert y.grad is not None
        np.testing.assert_allclose(host(x.grad), seed * np.cos(host(x)) * host(y), rtol=1e-5)
        np.testing.assert_allclose(host(y.grad), seed * np.sin(host(x)), rtol=1e-5)


def test_a_fused_seed_changed_in_place() -> None:
    fused = tg.fuse(lambda x, y: tg.sin(x) * y)
    x, y = (Tensor(numbers(4, seed=k), requires_grad=True) for k in range(2))
    out = fused(x, y)
    seed = Tensor(numbers(4, seed=5))
    for factor in (1.0, 3.0):
        x.grad = None
        seed.data[...] = numbers(4, seed=5) * factor
        out.backward(seed, retain_graph=True)
        assert x.grad is not None
        wanted = host(seed) * np.cos(host(x)) * host(y)
        np.testing.assert_allclose(host(x.grad), wanted, rtol=1e-5)
