"""Gradients of looked-up rows in programs: sums of equal rows, updates of these rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR, EXECUTORS
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.sparse import LazyGradient, SparseGradient

F = nn.functional
needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
Array = np.ndarray[Any, Any]

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD up": ("SGD", {"lr": 0.1, "maximize": True}),
    "Adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.01}),
    "SparseAdam": ("SparseAdam", {"lr": 0.01}),
}


def ends(
    run: Any, name: str, start: Array, batches: list[tuple[Array, Array]], **options: Any
) -> list[Array]:
    """The losses, the table, its gradient, and the optimizer's states after training on batches."""
    kind, given = OPTIMIZERS[name]
    x = Tensor(start, requires_grad=True)
    optimizer = getattr(optim, kind)([x], **given)

    def step(rows: Tensor, by: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (F.embedding(rows, x, sparse=True, **options) * by).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = run(step)
    losses = [host(step(Tensor(rows), Tensor(by))) for rows, by in batches]
    assert isinstance(x.grad, SparseGradient)
    indices = host(x.grad.indices)
    states = [host(s) for s in optimizer.state[x].values()]
    return [np.stack(losses), host(x.detach()), host(x.grad), indices, *states]


def as_it_is(function: Any) -> Any:
    return function


def batches_of(
    draw: np.random.Generator, n: int, length: int, dtype: str, shape: tuple[int, ...], top: int
) -> list[tuple[Array, Array]]:
    """Five batches of rows below ``top``, some counted from the end, and what is for each."""
    kinds = ("int64", "int32", "int16")
    kind = kinds[int(draw.integers(3))]
    return [
        (
            (draw.integers(0, top, shape) - n * draw.integers(0, 2, shape)).astype(kind),
            draw.standard_normal((*shape, length)).astype(dtype),
        )
        for _ in range(5)
    ]


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(4))
def test_programs_do_what_eager_mode_does(name: str, seed: int, executor: str) -> None:
    draw = np.random.default_rng(seed)
    n, length = int(draw.integers(1, 400)), int(draw.choice([1, 2, 3, 7, 16, 33, 64, 130]))
    dtype = ("float32", "float64")[seed % 2]
    shape = tuple(int(k) for k in draw.integers(1, 20, 1 + seed % 3))
    options = {"padding_idx": int(draw.integers(n))} if seed % 2 else {}
    start = draw.standard_normal((n, length)).astype(dtype)
    batches = batches_of(draw, n, length, dtype, shape, int(draw.integers(1, n + 1)))
    right = ends(as_it_is, name, start, batches, **options)
    found = ends(lambda f: tg.compile(f, executor=executor), name, start, batches, **options)
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (1e-11, 1e-12)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    untouched = (right[1] == start).all(axis=1)
    np.testing.assert_array_equal(found[1][untouched], start[untouched])


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_padding_names_no_row(name: str, executor: str) -> None:
    """Though the row has states from before; nor does a batch of nothing else change any."""
    start = np.random.default_rng(0).standard_normal((9, 3))
    kind, given = OPTIMIZERS[name]
    found: list[list[Any]] = []
    for run in (as_it_is, lambda f: tg.compile(f, executor=executor)):
        x = Tensor(start, requires_grad=True)
        optimizer = getattr(optim, kind)([x], **given)

        def step(
            rows: Tensor, by: Tensor, x: Any = x, optimizer: Any = optimizer, padding: int = 4
        ) -> None:
            optimizer.zero_grad()
            (F.embedding(rows, x, padding_idx=padding, sparse=True) * by).sum().backward()
            optimizer.step()

        first, then = run(step), run(lambda rows, by, step=step: step(rows, by, padding=0))
        draw, seen = np.random.default_rng(1), []
        for rows in ([0, 4, 4, 2], [4, 4, 4, 4], [8, 0, 0, 4], [4, 3, 4, 3], [1, 1, 4, -5]):
            for each in (then, first):
                each(Tensor(rows), Tensor(draw.standard_normal((4, 3))))
                assert isinstance(x.grad, SparseGradient)
                states = [host(s).copy() for s in optimizer.state[x].values()]
                seen += [host(x.detach()).copy(), host(x.grad.indices), host(x.grad), *states]
        found.append(seen)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@EVERY_EXECUTOR
def test_sums_of_many_rows_do_not_drift(executor: str) -> None:
    """Of 40,000 in one place, in float32, beside some that are alone."""
    draw = np.random.default_rng(0)
    rows = np.where(draw.random(50_000) < 0.8, 3, draw.integers(0, 2000, 50_000))
    by = draw.random((50_000, 5)).astype(np.float32)
    exact = np.zeros((2000, 5))
    np.add.at(exact, rows, by.astype(np.float64))
    start = np.zeros((2000, 5), np.float32)
    found = ends(lambda f: tg.compile(f, executor=executor), "SGD", start, [(rows, by)] * 2)
    np.testing.assert_allclose(found[1], -0.2 * exact, rtol=6e-7)


@EVERY_EXECUTOR
@pytest.mark.parametrize("count", [1, 2, 16_384, 16_385])
def test_equal_numbers_are_found_whatever_the_size_of_the_table(count: int, executor: str) -> None:
    """The hash table has four places for each number up to 16,384 of them, then two."""
    draw = np.random.default_rng(count)
    rows, by = draw.integers(0, 20_000, count), draw.standard_normal((count, 3))
    start = draw.standard_normal((20_000, 3))
    exact = start.copy()
    np.subtract.at(exact, rows, 0.2 * by)
    found = ends(lambda f: tg.compile(f, executor=executor), "SGD", start, [(rows, by)] * 2)
    np.testing.assert_allclose(found[1], exact, rtol=1e-12, atol=1e-13)


@EVERY_EXECUTOR
def test_what_is_not_finite_stays_where_it_is(executor: str) -> None:
    start = np.ones((40, 3), np.float32)
    start[7], start[9, 1], start[30] = np.nan, np.inf, -np.inf
    by = np.ones((8, 3), np.float32)
    by[2, 0], by[3, 0], by[5, 2] = np.inf, -np.inf, np.nan
    rows = np.array([1, 2, 3, 3, 4, 5, 9, 9])
    for name in OPTIMIZERS:
        with np.errstate(all="ignore"):
            right = ends(as_it_is, name, start, [(rows, by)] * 4)
        run = lambda f: tg.compile(f, executor=executor)  # noqa: E731
        with np.errstate(all="ignore"):
            found = ends(run, name, start, [(rows, by)] * 4)
        for a, b in zip(found, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bits_do_not_depend_on_the_number_of_threads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(1)
    start = draw.standard_normal((3000, 64)).astype(np.float32)
    batches = batches_of(draw, 3000, 64, "float32", (70, 60), 900)
    found = []
    for count in (1, 2, 5):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        found.append(ends(tg.compile, name, start, batches))
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


@EVERY_EXECUTOR
def test_one_table_looked_up_in_several_places(executor: str) -> None:
    """By embeddings and by indices; beside a table that shares the numbers."""
    draw = np.random.default_rng(2)
    starts = [draw.standard_normal((4100, 64)) for _ in range(2)]
    batches = [draw.integers(-4100, 4100, (3, 11)) for _ in range(6)]
    found = []
    for run in (as_it_is, lambda f: tg.compile(f, executor=executor)):
        x, z = (Tensor(s, requires_grad=True) for s in starts)
        optimizer = optim.Adagrad([x, z], lr=0.1)

        def step(
            rows: Tensor, x: Any = x, z: Any = z, optimizer: Any = optimizer
        ) -> tuple[Tensor, Tensor]:
            optimizer.zero_grad()
            y = F.embedding(rows[0], x) * x[rows[1]] + F.embedding(rows[0], z)
            loss = (y + tg.tanh(x[rows[2], :])).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach(), y.detach()

        step = run(step)
        seen = [host(part) for rows in batches for part in step(Tensor(rows))]
        assert isinstance(x.grad, LazyGradient)
        assert isinstance(z.grad, LazyGradient)
        found.append([*seen, *(host(t) for t in (x.detach(), z.detach(), x.grad, z.grad))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_a_number_out_of_range_changes_nothing() -> None:
    x = Tensor(np.ones((6, 2)), requires_grad=True)
    optimizer = optim.SGD([x], lr=0.5)

    @tg.compile
    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        F.embedding(rows, x, sparse=True).sum().backward()
        optimizer.step()

    for _ in range(3):
        step(Tensor([0, 1, 1]))
    before = host(x.detach()).copy()
    with pytest.raises(IndexError, match="index 6 is out of bounds"):
        step(Tensor([0, 6, 1]))
    np.testing.assert_array_equal(host(x.detach()), before)
    step(Tensor([5, 5, 5]))
    assert host(x.detach())[5].tolist() == [-0.5, -0.5]


@needs_compiler
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_left_to_a_call_nor_made_as_large_as_the_table(name: str) -> None:
    kind, given = OPTIMIZERS[name]
    table = nn.Embedding(20_000, 16, sparse=True)
    optimizer = getattr(optim, kind)(table.parameters(), **given)

    @tg.compile
    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        table(rows).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step(Tensor(np.arange(100)))
    report = step.report()
    assert "\ncall " not in report
    executor: Any = step._last().executor
    own = [s for s in executor.memory if s.role == "temporary"]
    assert max(s.size for s in own) < 20_000


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_tables_of_sums(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one axis and of more, many for one place, none for most; on any number of threads."""
    draw = np.random.default_rng(3)
    shapes = [(5, 3), (300, 7), (2500, 64), (40, 2, 9), (6, 1), (9,)]
    counts = [(4,), (33, 5), (700,), (1, 3), (20,), (50,)]
    xs = [Tensor(draw.standard_normal(s), dtype=dtype, requires_grad=True) for s in shapes]

    def step(*given: Tensor) -> None:
        for x, rows, by in zip(xs, given[::2], given[1::2], strict=True):
            x.grad = None
            x[rows].backward(by)

    def given(seed: int) -> list[Tensor]:
        draw, found = np.random.default_rng(seed), []
        for shape, count in zip(shapes, counts, strict=True):
            kind = "int64" if len(count) == 1 else "int32"
            rows = draw.integers(-shape[0], shape[0], count).astype(kind)
            rows[draw.random(count) < 0.5] = -1
            by = draw.standard_normal((*count, *shape[1:])).astype(dtype)
            by[..., 0][draw.random(by.shape[:-1]) < 0.02] = np.inf if by.ndim > 1 else 1.0
            found += [Tensor(rows), Tensor(by)]
        return found

    ends = []
    for count in (1, 2, 5):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        run = tg.compile(step, executor="native")
        for seed in (0, 1, 1):
            run(*given(seed))
        assert "scatter" not in run.report()
        ends.append([host(x.grad).copy() for x in xs])
    step(*given(1))
    for others in ends[1:]:
        for a, b in zip(ends[0], others, strict=True):
            np.testing.assert_array_equal(a, b)
    rtol, atol = (1e-5, 1e-5) if dtype == "float32" else (1e-12, 1e-13)
    for a, x in zip(ends[0], xs, strict=True):
        np.testing.assert_allclose(a, host(x.grad), rtol=rtol, atol=atol)


@needs_compiler
def test_rows_of_large_tables_are_asked_for_ahead() -> None:
    """Of small ones they are not, nor past the last number, which may lie at the end of memory."""
    for rows, asked in ((50, 0), (5000, 1)):
        table = Tensor(np.arange(rows * 16, dtype=np.float32).reshape(rows, 16))
        look = tg.compile(lambda k, t=table: tg.sin(t[k]))
        for count in (1, 2, 9, 700):
            numbers = np.random.default_rng(count).integers(-rows, rows, count)
            for _ in range(2):
                found = look(Tensor(numbers)).numpy()
            np.testing.assert_allclose(found, np.sin(host(table)[numbers]), rtol=1e-5, atol=1e-6)
            text = look._last().executor.text
            assert text.count("tg_ask(") == (asked if count > 1 else 0)
            if "tg_ask(" in text:
                ahead = text[text.index("const long ahead = ") :].partition(";")[0]
                assert ahead == "const long ahead = r + 8 < end ? r + 8 : r"
