"""Captured and checked calls in little memory, and what they promise besides."""

from __future__ import annotations

import gc
import itertools
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import CompileError
from tensorgrad.program import verify
from tensorgrad.program.executors import EXECUTORS, c_source, native, pieces
from tensorgrad.program.guards import Guards
from tensorgrad.program.verify import Difference

needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
#: Elements of parameters that are compared in pieces, and of the last of these not a whole one.
LARGE = 5 * verify.PIECE + 777


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def host(t: Tensor) -> Any:
    return t.detach().numpy()


def network(compiled: bool) -> tuple[Any, list[Tensor]]:
    """A step of 512-1024-1024-256 with Adam, and its parameters."""
    tg.random.default_generator.seed(0)
    model = nn.Sequential(
        nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 256)
    )
    update = optim.Adam(model.parameters(), lr=1e-3)
    x, target = Tensor(numbers(32, 512)), Tensor(np.arange(32) * 7)

    def step() -> Tensor:
        update.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        update.step()
        return loss.detach()

    return (tg.compile(step) if compiled else step), list(model.parameters())


def peak(run: Callable[[], Any], times: int) -> int:
    """The most bytes that there are at once while it runs, beside those that were there before."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(times):
        run()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@needs_compiler
@pytest.mark.usefixtures("traced")
def test_captured_and_checked_calls_keep_one_copy_of_what_is_overwritten() -> None:
    step, params = network(False)
    overwritten = 3 * sum(p.nbytes for p in params)  # parameters and two states
    eager = peak(step, 2)
    del step, params
    compiled, _ = network(True)
    first = peak(compiled, 1)
    assert compiled._last().executor.name == "native"
    # Besides: the gradients and the memory of the program, and what is compared at a time.
    assert first < eager + 1.6 * overwritten
    gradients = overwritten // 3
    assert peak(compiled, 1) < 1.9 * overwritten  # checked; both gradients are new memory
    assert peak(compiled, 1) < 0.1 * gradients
    assert peak(compiled, 1) < 1.9 * overwritten
    for _ in range(3):
        assert peak(compiled, 1) < 0.1 * gradients
    assert not compiled.reasons


@needs_compiler
def test_what_is_large_is_shown_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    usual = native.NativeExecutor.show

    def show(self: Any, *given: Any) -> Any:
        shown.append(usual(self, *given))
        return shown[-1]

    monkeypatch.setattr(native.NativeExecutor, "show", show)
    step, params = network(True)
    for _ in range(2):
        step()
    large = {p.size for p in params if p.ndim == 2}
    for found in shown:
        sizes = [end - begin for ranges in found.values() for begin, end in ranges]
        assert sorted(sizes) == sorted(3 * list(large))
    assert len(shown) == 2


# --- what differs is found ------------------------------------------------------------------------


def descending(executor: str) -> tuple[Any, Tensor]:
    """A compiled step that overwrites one large parameter, and that."""
    w = Tensor(numbers(LARGE), requires_grad=True)
    update = optim.SGD([w], lr=0.1)
    x = Tensor(numbers(LARGE, seed=1))

    def step() -> None:  # without the loss: its sum would make one nest of it all
        update.zero_grad()
        tg.sin(w * x).sum().backward()
        update.step()

    return tg.compile(step, executor=executor), w


@needs_compiler
@pytest.mark.parametrize("place", [None, 0, verify.PIECE - 1, verify.PIECE, 2 * verify.PIECE + 5,
                                   LARGE - 778, LARGE - 777, LARGE - 1])  # fmt: skip
def test_a_single_wrong_element_is_found(
    place: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C that is wrong at one place of a large parameter is not used."""
    write = c_source.write

    def planted(*given: Any) -> Any:
        made = write(*given)
        outside = {k for k, (s, _) in enumerate(made.places) if s and s.role == "external"}
        (first,) = made.shared  # the nest that overwrites w, which it does not only read
        head = re.search(r"void \w+\(([^{]*), long begin, long end\) \{", made.text)
        assert head is not None
        (w,) = [
            k
            for k, pointer in enumerate(head[1].split(", "))
            if "const" not in pointer and first + k in outside
        ]
        wrong = f" if (begin <= {place} && {place} < end) p{w}[{place}] += 0.01f;"
        made.text = made.text.replace(head[0], head[0] + wrong)
        return made

    if place is not None:
        monkeypatch.setattr(c_source, "write", planted)
    step, w = descending("auto")
    before = host(w).copy()
    step()
    executor = step._last().executor
    assert executor.name == ("native" if place is None else "numpy"), executor.reason
    if place is not None:
        assert "did something else: the external" in executor.reason
    assert abs(host(w) - before).max() < 1


def pulled(w: Tensor, at: int, factors: list[float], update: Any) -> Callable[[], Tensor]:
    """A step with a gradient at one place that depends on a number."""

    def step() -> Tensor:
        update.zero_grad()
        loss = (w * w).sum() + w[at] * factors[0]
        loss.backward()
        update.step()
        return loss

    return step


@EVERY_EXECUTOR
@pytest.mark.parametrize("at", [0, verify.PIECE, LARGE - 1])
def test_where_one_element_differs_at_a_check_the_function_counts(
    executor: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, its gradient too."""
    w, factors = Tensor(numbers(LARGE), requires_grad=True), [1.0]
    step = tg.compile(pulled(w, at, factors, optim.SGD([w], lr=0.1)), executor=executor)
    step()
    plain = Tensor(host(w), requires_grad=True)
    monkeypatch.setattr(Guards, "hold", lambda self, arguments: True)  # a hole in them
    monkeypatch.setattr(step._last_used, "conditions", None)
    factors[0] = 3.0
    with pytest.warns(UserWarning, match="runs as it is"):
        loss = step()
    wanted = pulled(plain, at, factors, optim.SGD([plain], lr=0.1))()
    assert loss.item() == wanted.item()
    for a, b in ((w, plain), (w.grad, plain.grad)):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(host(a), host(b))


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", ["SGD", "Adam", "Lion"])
def test_where_verify_raises_all_is_what_it_was(
    executor: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, states, gradients (the very tensors) and generators, bit for bit."""
    w, factors = Tensor(numbers(LARGE), requires_grad=True), [1.0]
    options = {"momentum": 0.9} if name == "SGD" else {}
    update = getattr(optim, name)([w], lr=0.01, **options)
    inner = pulled(w, 77, factors, update)

    def step() -> Tensor:
        return inner() + tg.random.uniform((3,)).sum()

    compiled = tg.compile(step, executor=executor, verify=True)
    for _ in range(2):
        compiled()
    monkeypatch.setattr(Guards, "hold", lambda self, arguments: True)
    monkeypatch.setattr(compiled._last_used, "conditions", None)
    factors[0] = 3.0

    def state() -> list[Any]:
        assert w.grad is not None
        arrays = [w, w.grad, *update.state[w].values()]
        where = tg.random.default_generator.state()
        return [*(host(t).tobytes() for t in arrays), where, id(w.grad)]

    before = state()
    with pytest.raises(CompileError, match="put back"):
        compiled()
    assert state() == before


@EVERY_EXECUTOR
def test_gradients_that_are_added_to_are_checked_and_put_back(
    executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, factors = Tensor(numbers(LARGE), requires_grad=True), [1.0]

    def step() -> Tensor:
        loss = (w * w).sum() * factors[0]
        loss.backward()
        return loss

    plain = Tensor(host(w), requires_grad=True)
    compiled = tg.compile(step, executor=executor, verify=True)
    for k in range(1, 6):
        compiled()
        (plain * plain).sum().backward()
        assert w.grad is not None
        assert plain.grad is not None
        np.testing.assert_allclose(host(w.grad), k * 2 * host(w), rtol=1e-5)
    monkeypatch.setattr(Guards, "hold", lambda self, arguments: True)
    monkeypatch.setattr(compiled._last_used, "conditions", None)
    factors[0] = 3.0
    assert w.grad is not None
    kept, before = w.grad, host(w.grad).copy()
    with pytest.raises(CompileError, match="put back"):
        compiled()
    assert w.grad is kept
    np.testing.assert_array_equal(host(w.grad), before)


class Interruption(BaseException):
    """As Ctrl-C raises one."""


@needs_compiler
@pytest.mark.parametrize("calls", [0, 1])
def test_an_interruption_of_the_comparison_leaves_what_the_function_did(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of what C overwrites: no piece of the program's stays."""
    step, w = descending("native")
    for _ in range(calls):
        step()
    plain = Tensor(host(w), requires_grad=True)
    x = Tensor(numbers(LARGE, seed=1))
    count = 0

    def take_in(self: Difference, a: Any, begin: int) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise Interruption

    monkeypatch.setattr(Difference, "take_in", take_in)
    with pytest.raises(Interruption):
        step()
    assert count == 3
    tg.sin(plain * x).sum().backward()
    optim.SGD([plain], lr=0.1).step()
    np.testing.assert_array_equal(host(w), host(plain))
    assert w.grad is not None
    assert plain.grad is not None
    np.testing.assert_array_equal(host(w.grad), host(plain.grad))
    monkeypatch.undo()
    for _ in range(3):
        step()
    assert not step.reasons


@needs_compiler
def test_other_threads_run_the_same_code_meanwhile() -> None:
    """Two functions have one text and one library; who looks at pieces looks at its own alone."""
    steps = [descending("native") for _ in range(2)]
    for step, _ in steps:
        step()
    inside = threading.Event()
    usual = pieces.Showing.run

    def run(self: Any, *given: Any) -> bool:
        inside.set()
        return usual(self, *given)

    found: list[Any] = []

    def work() -> None:
        inside.wait(5)
        for _ in range(40):
            steps[1][0]()
        found.append(host(steps[1][1]).copy())

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces.Showing, "run", run)
        for _ in range(40):
            steps[0][0]()
    thread.join()
    np.testing.assert_array_equal(found[0], host(steps[0][1]))
    assert not steps[0][0].reasons
    assert not steps[1][0].reasons


# --- comparing ------------------------------------------------------------------------------------


def taken_in(a: Any, b: Any, draw: np.random.Generator) -> Difference:
    """Both compared, in pieces of any size in any order."""
    found = Difference(b)
    cuts = np.unique(np.append(draw.integers(0, a.size + 1, 4), [0, a.size]))
    ranges = list(itertools.pairwise(cuts.tolist()))
    draw.shuffle(ranges)
    for begin, end in ranges:
        found.take_in(a.reshape(-1)[begin:end], begin)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_pieces_find_what_the_whole_shows(dtype: str) -> None:
    draw = np.random.default_rng(0)
    wide = {"float64": 1e-9, "float32": 1e-4, "float16": 3e-2}.get(dtype, 0.0)
    for trial in range(60):
        size = int(draw.choice([1, 5, 1000, verify.PIECE, verify.PIECE + 1, 3 * verify.PIECE]))
        b = (draw.normal(size=size) * 10).astype(dtype)
        a = b.copy()
        place = int(draw.integers(size))
        if dtype == "int64":
            a[place] += trial % 2
            assert bool(taken_in(a, b, draw).text()) == (trial % 2 == 1)
            continue
        special = [None, 0.0, np.nan, np.inf, -np.inf]
        one, other = (special[int(k)] for k in draw.integers(0, 5, 2))
        for array, number in ((a, one), (b, other)):
            if number is not None:
                array[place] = number
        at = int(draw.integers(size))
        with np.errstate(all="ignore"):
            a[at] = a[at] * (1 + wide * draw.choice([0, 1, 5, 20, 100]))
            x, y = a.astype(np.float64), b.astype(np.float64)
            scale = np.max(np.abs(y[np.isfinite(y)]), initial=0.0)
            same = np.allclose(
                x, y, rtol=wide * 10, atol=wide * max(float(scale), 1e-6), equal_nan=True
            )
        difference = taken_in(a, b, draw)
        assert bool(difference.text()) == (not same)
        if not same:
            places, off = difference.places()
            assert {place, at} & set(places.tolist())
            assert len(places) == len(off) == len(np.unique(places))
        whole = Difference(b)
        whole.compare(a)
        assert whole.text() == difference.text()


@pytest.mark.parametrize("wrong", [0, verify.PIECE + 1, LARGE - 1])
def test_no_place_is_left_out_where_very_many_differ(wrong: int) -> None:
    """The largest difference is among those that are looked at."""
    b = numbers(LARGE)
    a = b * np.float32(1.01)
    a[wrong] += 100
    difference = Difference(b)
    difference.compare(a)
    places, off = difference.places()
    assert places[np.argmax(off)] == wrong
    assert off.max() > 99
    assert "differs by up to 100" in difference.text()


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_states_are_exchanged(order: str) -> None:
    a = numbers(7, verify.PIECE // 3)
    b = numbers(7, verify.PIECE // 3, seed=1)
    if order == "F":
        a = np.asfortranarray(a)
    if order == "strided":
        a = np.repeat(a, 2, axis=1)[:, ::2]
    old_a, old_b = a.copy(), b.copy()
    verify.exchange(a, b)
    np.testing.assert_array_equal(a, old_b)
    np.testing.assert_array_equal(b, old_a)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_infinite_or_no_number_in_both_is_no_difference(special: float) -> None:
    b = numbers(1000)
    b[7:900:3] = special
    a = b.copy()
    a[8] += 1e-6
    difference = Difference(b)
    difference.compare(a)
    assert not difference.text()


def test_a_tensor_that_is_given_twice_is_put_back_once() -> None:
    def step(x: Tensor, y: Tensor) -> Tensor:
        with tg.no_grad():
            x.copy_(x * 2.0 + 1.0)
        return (x * y).sum()

    x, plain = (Tensor(numbers(50)) for _ in range(2))
    run = tg.compile(step, executor="numpy")
    for _ in range(5):
        np.testing.assert_array_equal(run(x, x).numpy(), step(plain, plain).numpy())
        np.testing.assert_array_equal(x.numpy(), plain.numpy())
    assert not run.reasons
