"""The fast call of long programs, during which other threads go on."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.program import Compiled, fast_call
from tensorgrad.program.executors import native
from tensorgrad.program.forks import GATE

pytestmark = pytest.mark.skipif(
    "native" not in EXECUTORS or fast_call._module() is None,
    reason="needs a C compiler and Python's headers",
)


@pytest.fixture(params=["short", "long"])
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What programs are taken for."""
    monkeypatch.setattr(native, "_SHORT", 0 if request.param == "long" else 1 << 40)
    return str(request.param)


def fast(function: Any) -> Any:
    """The fast call that is there; ``None`` if there is none."""
    assert isinstance(function, Compiled)
    assert function._last_used is not None
    return function._last_used.fast


def slowly(x: Tensor) -> Tensor:
    """Some milliseconds on one core, most of them in one unit."""
    return tg.sin(tg.sin(tg.sin(x.reshape(64, -1)))).sum(axis=1)


def made_fast(step: Callable[[Tensor], Any], x: Tensor) -> Any:
    """The step, compiled, after enough calls for many fast ones to follow."""
    compiled = tg.compile(step)
    for _ in range(34):
        compiled(x)
    assert fast(compiled) is not None
    return compiled


@pytest.fixture
def rare_switches() -> Iterator[None]:
    """Another thread goes on only where this one lets it, or waits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    yield
    sys.setswitchinterval(before)


def meanwhile(call: Callable[[], Any], look: Callable[[], Any]) -> list[Any]:
    """What another thread sees as soon as ``call`` lets it go on; nothing if that ends before."""
    begun, ended, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.wait()
        if not ended.is_set():
            seen.append(look())

    thread = threading.Thread(target=work)
    thread.start()
    begun.set()
    call()
    ended.set()
    thread.join()
    return seen


def until_there_is_one(attempt: Callable[[], Any]) -> Any:
    """What the first attempt gave that gave anything: on a busy machine threads may wake late."""
    for _ in range(100):
        if found := attempt():
            return found
    return None


@pytest.mark.usefixtures("rare_switches")
def test_other_threads_go_on_meanwhile() -> None:
    """And find the turn taken, for a fork to wait, and the array of the argument held."""
    x = Tensor(np.ones(1 << 18, np.float32))
    w = Tensor([1.0], requires_grad=True)

    def stepping(x: Tensor) -> None:
        w.grad = None
        (slowly(x).sum() * w).sum().backward()

    def attempt() -> set[Any]:
        step = made_fast(stepping, x)
        assert fast(step).is_long
        turns, references = step._last_used.turns, sys.getrefcount(x.data)

        def look() -> tuple[int, bool, bool, int]:
            free = step._lock.acquire(False)
            return turns.inside, bool(GATE._inside), free, sys.getrefcount(x.data) - references

        before = fast(step).count
        seen = [found for _ in range(5) for found in meanwhile(lambda: step(x), look)]
        assert fast(step).count == before + 5
        return set(seen)

    assert until_there_is_one(attempt) == {(1, True, False, 1)}


@pytest.mark.usefixtures("rare_switches")
def test_short_programs_keep_the_lock() -> None:
    x = Tensor(np.ones(100, np.float32))
    step = made_fast(lambda x: (x * 2).sum(), x)
    assert not fast(step).is_long
    assert not any(meanwhile(lambda: step(x), lambda: 1) for _ in range(5))


@pytest.mark.usefixtures("rare_switches")
def test_an_argument_that_gets_another_array_meanwhile() -> None:
    """The one that the program reads stays until the end: its memory is unmapped after that."""
    size = 1 << 18

    def mapped(k: float) -> Tensor:
        array = np.frombuffer(mmap.mmap(-1, 4 * size), np.float32)
        array[:] = k
        return Tensor(array, copy=False)

    def attempt() -> list[bool]:
        x = mapped(0.5)
        step = made_fast(slowly, x)
        right = step(x).numpy()
        results: list[np.ndarray[Any, Any]] = []

        def change() -> bool:
            x.data = mapped(0.5).data
            return True

        changed = []
        for _ in range(8):
            changed += meanwhile(lambda: results.append(step(x).numpy()), change)
        assert fast(step).count >= 8
        for result in results:
            np.testing.assert_array_equal(result, right)
        return changed

    assert until_there_is_one(attempt)


def trained(run: Callable[[Any], Any], steps: int) -> list[np.ndarray[Any, Any]]:
    """The losses, parameters and gradients of a network with dropout, whose loss is looked up."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 33), nn.Tanh(), nn.Dropout(0.3), nn.Linear(33, 5))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()

    def step(x: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = run(step)
    draw = np.random.default_rng(0)
    losses = []
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 / (k + 1)
        x, labels = draw.standard_normal((9, 6)), draw.integers(0, 5, 9)
        losses.append(step(Tensor(x, dtype=tg.float32), Tensor(labels)).numpy())
    if isinstance(step, Compiled):
        counted = step._last_used
        assert counted is not None
        assert counted.fast is not None
        before = [p.detach().numpy().copy() for p in model.parameters()]
        with pytest.raises(IndexError, match="label number 8 is 5"):
            step(Tensor(x, dtype=tg.float32), Tensor(np.array([0, 1, 2, 3, 4, 0, 1, 2, 5])))
        for p, was in zip(model.parameters(), before):
            np.testing.assert_array_equal(p.detach().numpy(), was)
    gradients = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
    return [*losses, *[p.detach().numpy() for p in model.parameters()], *gradients]


def test_a_step_is_what_it_was(length: str) -> None:
    """By the fast call of either kind, by Python, and in eager mode; errors are those of it."""
    found = trained(tg.compile, 40)
    for a, b in zip(found, trained(lambda f: f, 40)):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


def test_both_kinds_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for limit in (0, 1 << 40):
        monkeypatch.setattr(native, "_SHORT", limit)
        ends.append(trained(tg.compile, 40))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_add_to_one_gradient(length: str) -> None:
    """By one program and by two, and in eager mode: nothing is forgotten, and nobody waits."""
    w = tg.zeros(4, requires_grad=True)
    x = tg.ones(4)

    def step() -> None:
        (w * x).sum().backward()

    def alone() -> None:
        v.grad = None
        (v * x).sum().backward()

    v = tg.zeros(4, requires_grad=True)
    once = tg.compile(step)
    own = tg.compile(alone)
    steps: list[Callable[[], Any]] = [once, once, tg.compile(step), step, own, own]
    failed: list[BaseException] = []

    def work(step: Callable[[], Any]) -> None:
        try:
            for _ in range(150):
                step()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert w.grad is not None
    assert v.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), 600)
    np.testing.assert_array_equal(v.grad.numpy(), 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a process with threads is forked
def test_a_fork_waits_for_a_long_one() -> None:
    """A child finds no product half done: locks of a BLAS would stay locked in it."""
    draw = np.random.default_rng(0)
    a = Tensor(draw.random((300, 300)).astype(np.float32))
    step = made_fast(lambda a: ((a @ a) * 1e-3 @ a).sum(axis=0), a)
    assert fast(step).is_long
    right = step(a).numpy()
    ended = threading.Event()
    thread = threading.Thread(target=lambda: [step(a) for _ in iter(ended.is_set, True)])
    thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(int(not (step(a).numpy() == right).all()))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        ended.set()
        thread.join()


# --- one function, several shapes -----------------------------------------------------------------


def trained_on(lengths: list[int], compiled: bool) -> tuple[Any, list[float], Any]:
    """The step, its losses, and the parameter, after steps with arguments of these lengths."""
    w = nn.Parameter(Tensor([0.5, -1.0]))
    optimizer = optim.Adam([w], lr=0.1)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = ((x @ w) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run: Any = tg.compile(step, limit=3) if compiled else step
    losses = []
    for k, length in enumerate(lengths):
        optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        draw = np.random.default_rng(k)
        losses.append(float(run(Tensor(draw.random((length, 2)).astype(np.float32)))))
    return run, losses, w


def test_each_shape_keeps_its_fast_call() -> None:
    lengths = [3, 4, 5] * 50
    step, losses, w = trained_on(lengths, compiled=True)
    assert step.captures == 3
    for (entry,) in step._entries.values():
        assert entry.replays == 50
        assert entry.fast.count >= 10
    _, eager, v = trained_on(lengths, compiled=False)
    np.testing.assert_allclose(losses, eager, rtol=1e-4)
    np.testing.assert_allclose(w.detach().numpy(), v.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(w.grad.numpy(), v.grad.numpy(), rtol=1e-3)


def test_the_shape_that_was_used_least_lately_goes_first() -> None:
    """Also where calls find their program by its shapes alone."""
    step, _, _ = trained_on([3, 4, 5] + [4, 3] * 20 + [6, 3, 4], compiled=True)
    assert step.captures == 4
    assert len(step._by_shapes) == sum(map(len, step._entries.values())) == 3
    assert {shapes[0][0] for shapes in step._by_shapes} == {3, 4, 6}


def test_a_gradient_that_is_kept_is_not_overwritten_by_another_shape() -> None:
    w = nn.Parameter(Tensor([1.0, 2.0]))

    def step(x: Tensor) -> None:
        w.grad = None
        (x * w).sum().backward()

    run: Any = tg.compile(step)
    short, long = Tensor([[1.0, 2.0]]), Tensor([[1.0, 1.0], [3.0, 4.0]])
    for _ in range(20):
        run(short)
        run(long)
    run(short)
    kept = w.grad
    run(long)
    run(short)
    assert kept is not None
    assert kept is not w.grad
    run(long)
    assert kept.tolist() == [1.0, 2.0]
    assert w.grad is not None
    assert w.grad.tolist() == [4.0, 5.0]


def test_what_a_function_read_counts_for_all_its_shapes() -> None:
    settings = {"scale": 2.0}
    run: Any = tg.compile(lambda x: x * settings["scale"])
    short, long = Tensor([1.0]), Tensor([1.0, 1.0])
    for _ in range(20):
        run(short)
        run(long)
    settings["scale"] = 3.0
    assert run(short).tolist() == [3.0]
    assert run(long).tolist() == [3.0, 3.0]
    assert run(short).tolist() == [3.0]


def test_contents_of_containers_are_compared_without_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of dicts, lists and tuples whose entries have no content of their own; in their order."""
    asked: list[Any] = []
    monkeypatch.setattr(fast_call, "_all_hold", asked.append)
    options, factors = {"a": 2.0, "b": 3.0}, [1.5, 0.5]
    weights = {name: Tensor(np.full(3, k, np.float32)) for k, name in enumerate("uvw")}
    pair: Any = (2.0, 7.0)

    def step(x: Tensor) -> Tensor:
        for number in [*options.values(), *factors, *pair]:
            x = x * number + 1.0
        for w in weights.values():
            x = x * w + 1.0
        return x

    x = Tensor(np.arange(3, dtype=np.float32))
    call = made_fast(step, x)
    call(x)
    assert not asked

    def other_order() -> None:
        options["a"] = options.pop("a")

    def other_tuple() -> None:
        nonlocal pair
        pair = (7.0, 2.0)

    changes: list[Callable[[], Any]] = [
        lambda: options.update(b=4.0), other_order, lambda: options.update(c=1.0),
        lambda: factors.append(2.0), lambda: factors.reverse(), lambda: factors.pop(), other_tuple,
        lambda: weights.update(v=Tensor(np.full(3, 9, np.float32))), lambda: weights.pop("u"),
        lambda: weights.update(t=Tensor(np.full(3, 5, np.float32))),
    ]  # fmt: skip
    for change in changes:
        change()
        np.testing.assert_array_equal(call(x).numpy(), step(x).numpy())
        for _ in range(5):  # so that the next change meets a fast call
            call(x)
