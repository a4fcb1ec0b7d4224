"""Each pass on its own, views, memory, and what is kept on disk."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from program.captured import recorded
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.program import Program, blas
from tensorgrad.program.arena import arena_plan
from tensorgrad.program.executors import native
from tensorgrad.program.ir import exact
from tensorgrad.program.loop_ir import Storage, View, strides_of
from tensorgrad.program.passes import (
    eliminate_common_subexpressions,
    eliminate_dead_code,
    fold_constants,
    simplified,
)

needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")


def program_of(f: Any, *shapes: tuple[int, ...]) -> Program:
    return recorded(f, [Tensor(np.ones(shape, np.float32)) for shape in shapes])


def names(program: Program) -> list[str]:
    return [i.op.name for i in program]


def test_dead_code_goes() -> None:
    def f(x: Tensor) -> Tensor:
        tg.exp(x)
        return x + 1.0

    program = program_of(f, (3,))
    assert names(program) == ["exp", "add"]
    assert names(eliminate_dead_code(program)) == ["add"]


def test_equal_instructions_are_shared() -> None:
    program = program_of(lambda x: tg.exp(x * 2.0) + tg.exp(x * 2.0) + tg.exp(x * 3.0), (3,))
    assert names(eliminate_common_subexpressions(program)).count("exp") == 2
    assert names(program_of(lambda x: (x * 1).exp() + (x * 1.0).exp(), (3,))).count("exp") == 2


def test_equal_numbers_of_another_kind_are_not_shared() -> None:
    def f(x: Tensor) -> Tensor:
        signs = [x * 0.0, x * -0.0, tg.clip(x, 0.0, 1.0), tg.clip(x, -0.0, 1.0)]
        return tg.concat([*signs, x * 0.0, tg.clip(x, -0.0, 1.0)])

    program = eliminate_common_subexpressions(program_of(f, (3,)))
    assert names(program) == ["multiply", "multiply", "clip", "clip", "concat"]

    def draws(x: Tensor) -> Tensor:  # of no numbers at all, at one place in the stream
        return x + tg.random.normal((0, 3)).sum() + tg.random.normal((3, 0)).sum()

    assert (
        names(eliminate_common_subexpressions(program_of(draws, (3,)))).count("random.normal") == 2
    )


def test_keys_are_equal_for_what_computes_alike() -> None:
    nan = float("nan")
    kinds = [
        0, 0.0, -0.0, False, None, "", b"", (), [], (0,), (0.0,), (-0.0,), (False,), [0], 1, 1.0,
        True, 1 + 0j, complex(1.0, -0.0), np.float32(1.0), np.float64(1.0), np.int64(1), nan, ...,
        np.dtype(np.float32), np.dtype(">f4"), slice(0, 1), slice(False, 1), slice(0.0, 1),
        ((1, (0.0,)),), ((1, (-0.0,)),), object(), object(), int, {"a": 1},
    ]  # fmt: skip
    for (j, a), (k, b) in itertools.product(enumerate(kinds), repeat=2):
        assert (exact(a) == exact(b)) == (j == k), (a, b)
        hash(exact(a))
    for a, b in [(0.5, 1.0 / 2), ((1, "a"), (1, "a")), (nan, float("nan"))]:
        assert exact(a) == exact(b)


def test_constants_are_folded() -> None:
    program = program_of(lambda x: x + tg.sqrt(tg.full((3,), 4.0)) * 2.0, (3,))
    assert names(simplified(program)) == ["add"]
    assert names(fold_constants(program)) == ["add"]


def test_draws_are_not_shared() -> None:
    f = tg.nn.functional.dropout
    program = program_of(lambda x: f(x, 0.5) + f(x, 0.5), (3,))
    assert names(simplified(program)).count("dropout") == 2


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_views_are_numpys(shape: list[int], data: st.DataObject) -> None:
    """Permuted, cut, repeated and reshaped, a view shows the elements that NumPy's shows."""
    size = int(np.prod(shape))
    memory = np.arange(size)
    view = View(Storage(0, size, memory.dtype, "temporary"), tuple(shape), strides_of(shape))
    array = memory.reshape(shape)
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["permute", "slice", "broadcast", "reshape"]))
        if kind == "permute":
            axes = data.draw(st.permutations(range(array.ndim)))
            view, array = view.permute(axes), array.transpose(axes)
        elif kind == "slice" and array.ndim:
            index: Any = tuple(
                data.draw(st.sampled_from([slice(None), slice(1, None), slice(None, None, -1), 0]))
                if n > 1
                else slice(None)
                for n in array.shape
            )
            view, array = view.slice(index), array[index]
        elif kind == "broadcast" and array.ndim < 5:
            wanted = (2, *array.shape)
            view, array = view.broadcast(wanted), np.broadcast_to(array, wanted)
        elif kind == "reshape":
            wanted = data.draw(st.sampled_from([(-1,), (array.size, 1), (1, array.size)]))
            wanted = array.reshape(wanted).shape
            found = view.reshape(wanted)
            if found is not None:
                view, array = found, array.reshape(wanted)
    shown = np.lib.stride_tricks.as_strided(
        memory[view.offset :], view.shape, [s * memory.itemsize for s in view.strides]
    )
    np.testing.assert_array_equal(shown, array)


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(0, 20)), max_size=30)
)
def test_arena_keeps_apart_what_lives_together(pieces: list[tuple[int, int, int]]) -> None:
    spans = {k: (n, min(a, b), max(a, b)) for k, (n, a, b) in enumerate(pieces)}
    offsets, size = arena_plan(spans)
    for k, (n, first, last) in spans.items():
        assert offsets[k] % 64 == 0
        assert offsets[k] + n <= size
        for j, (m, begins, ends) in spans.items():
            if j < k and begins <= last and first <= ends:
                assert offsets[k] + n <= offsets[j] or offsets[j] + m <= offsets[k]


@pytest.mark.parametrize("seed", range(8))
def test_an_arena_of_many_pieces_keeps_them_apart_and_is_nearly_as_small_as_it_can_be(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    count, units = 600, 400
    first = draw.integers(0, units, count)
    length = np.where(draw.random(count) < 0.3, draw.integers(0, units, count), 2)
    spans = {
        k: (int(draw.choice([1, 64, 65, 500, 4096])), int(a), int(min(a + n, units)))
        for k, (a, n) in enumerate(zip(first, length))
    }
    offsets, size = arena_plan(spans)
    assert offsets.keys() == spans.keys()
    fullest = 0
    for unit in range(units + 1):
        used = sorted(
            (offsets[k], offsets[k] + -(-n // 64) * 64)
            for k, (n, a, b) in spans.items()
            if a <= unit <= b
        )
        assert all(start % 64 == 0 and end <= size for start, end in used)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(used))
        fullest = max(fullest, sum(end - start for start, end in used))
    assert size <= 1.15 * fullest


def test_an_arena_of_many_pieces_takes_no_more_steps_for_each() -> None:
    """Ten times as many take about ten times as many lines of Python, not a hundred."""

    def lines(count: int) -> int:
        draw = np.random.default_rng(count)
        spans = {
            k: (int(draw.integers(1, 5000)), k, k + int(draw.integers(0, 400)))
            for k in range(count)
        }
        executed = 0

        def step(frame: Any, event: str, arg: Any) -> Any:
            nonlocal executed
            executed += event == "line"
            return step

        before = sys.gettrace()
        sys.settrace(step)
        try:
            arena_plan(spans)
        finally:
            sys.settrace(before)
        return executed

    assert lines(5_000) < 20 * lines(500)


@needs_compiler
def test_memory_is_no_more_than_eager(rng: np.random.Generator) -> None:
    """A chain of 50 operations: two values alive at a time, where eager mode with a tape has 50."""

    def f(x: Tensor) -> Tensor:
        for _ in range(50):
            x = tg.tanh(x @ x)
        return x

    call = tg.compile(f, executor="native")
    call(Tensor(rng.standard_normal((64, 64)).astype(np.float32) * 0.1))
    executor = call._last().executor
    assert isinstance(executor, native.NativeExecutor)
    assert executor.arena_bytes <= 3 * 64 * 64 * 4


# --- BLAS -----------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("make", [blas._openblas, blas._mkl])
def test_products_by_each_blas(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make()
    if found is None:
        pytest.skip("it is not installed")
    monkeypatch.setattr(native, "blas", lambda: found)
    draw = np.random.default_rng(0)
    cases: list[tuple[Any, float]] = [(np.float32, 1e-4), (np.float64, 1e-12)]
    for dtype, rtol in cases:
        a: Any = draw.random((150, 90)).astype(dtype)
        b: Any = draw.random((90, 120)).astype(dtype)

        def products(a: Tensor, b: Tensor) -> list[Tensor]:
            return [a @ b, b.T @ a.T, a.T @ (a @ b)]

        call = tg.compile(products, executor="native")
        for y, wanted in zip(call(Tensor(a), Tensor(b)), [a @ b, b.T @ a.T, a.T @ (a @ b)]):
            np.testing.assert_allclose(y.numpy(), wanted, rtol=rtol)
        assert f"products by {found.title}" in call.report()


def test_the_quicker_blas_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, title: str) -> None:
            self.title = title

    times = {"one": 2.0, "other": 1.0}
    monkeypatch.setattr(blas.Blas, "seconds", lambda self: times[self.title])
    monkeypatch.setattr(blas, "_openblas", lambda: Fake("one"))
    monkeypatch.setattr(blas, "_mkl", lambda: Fake("other"))
    choose: Any = blas.blas.__wrapped__
    assert choose().title == "other"
    monkeypatch.setenv("TENSORGRAD_BLAS", "openblas")
    assert choose().title == "one"
    monkeypatch.setenv("TENSORGRAD_BLAS", "atlas")
    with pytest.raises(ValueError, match="'atlas'"):
        choose()


@needs_compiler
def test_programs_leave_the_threads_of_numpy_alone() -> None:
    """The instance of a program has one thread, whatever NumPy's has."""
    found = blas.blas()
    if found is None or found.set_threads is None:
        pytest.skip("there is no OpenBLAS")
    assert found.own
    assert found.get_threads() == 1
