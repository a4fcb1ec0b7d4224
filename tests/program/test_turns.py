"""Threads that change the same gradients: none of them is forgotten, and none waits for ever."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim, turns
from tensorgrad.nn import functional
from tensorgrad.tape import Leaf
from tensorgrad.turns import EVERYBODY, All, Several, Turns

TIMES = 300

Step = Callable[[], None]


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """From one thread to another within an operation, where that can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*steps: Step, times: int = TIMES) -> None:
    """Each step so many times in a thread of its own."""
    ready = threading.Barrier(len(steps))
    failed: list[BaseException] = []

    def work(step: Step) -> None:
        ready.wait()
        try:
            for _ in range(times):
                step()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def eager(*leaves: Tensor) -> Step:
    x = tg.ones(leaves[0].shape)

    def step() -> None:
        loss: Any = 0.0
        for w in leaves:
            loss = loss + (w * x).sum()
        loss.backward()

    return step


def recorded(w: Tensor) -> Step:
    """A gradient that has a history, so that adding to it is an operation too."""
    return lambda: (w * 1.0).sum().backward(create_graph=True)


def compiled(executor: str, *leaves: Tensor) -> Step:
    return tg.compile(eager(*leaves), executor=executor)


def given(w: Tensor) -> Step:
    """A program whose leaf is that of an argument."""
    step = tg.compile(lambda a: (a * 1.0).sum().backward())
    return lambda: step(w)


@pytest.mark.parametrize("size", [4, 300_000])
@pytest.mark.parametrize("case", ["eager", "one program", "programs", "mixed", "numpy", "given"])
def test_no_contribution_is_lost(case: str, size: int) -> None:
    """Of programs that hold the interpreter's lock while they run, and of such that do not."""
    w = tg.zeros(size, requires_grad=True)
    once = compiled("auto", w)
    steps = {
        "eager": lambda: [eager(w) for _ in range(6)],
        "one program": lambda: [once] * 4,
        "programs": lambda: [compiled("auto", w) for _ in range(4)],
        "mixed": lambda: [once, eager(w), recorded(w), compiled("auto", w), given(w)],
        "numpy": lambda: [compiled("numpy", w), eager(w), compiled("numpy", w)],
        "given": lambda: [given(w), given(w), eager(w)],
    }[case]()
    times = TIMES if size < 100 else 40
    at_once(*steps, times=times)
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.detach().numpy(), len(steps) * times)


def test_programs_whose_leaves_overlap() -> None:
    """The third needs the turns of the first two, which were made apart."""
    a, b, c = (tg.zeros(4, requires_grad=True) for _ in range(3))
    steps = [compiled("auto", a), compiled("auto", b)]
    for step in steps:
        step()
    steps += [compiled("auto", a, b, c), compiled("auto", c), compiled("auto", b, c), eager(c, a)]
    at_once(*steps)
    found = [w.grad.tolist()[0] for w in (a, b, c) if w.grad is not None]
    assert found == [3 * TIMES + 1, 3 * TIMES + 1, 4 * TIMES]


def test_captures_and_checks_put_back_what_others_added() -> None:
    """A capture takes its step back, and a check does: in between nobody may add."""
    w = tg.zeros(4, requires_grad=True)
    number = iter(range(10**6))

    def anew() -> None:
        n = next(number) % 4 + 1
        step = tg.compile(lambda x: (w[:n] * x).sum().backward(), verify=2)
        for _ in range(3):
            step(tg.ones(n))

    at_once(eager(w), eager(w), anew, times=30)
    assert w.grad is not None
    assert w.grad.tolist()[0] == 2 * 30 + 3 * 30


def test_models_apart_do_not_wait_for_each_other() -> None:
    """A program has a turn of its own; validation has none."""
    a, b = (tg.zeros(4, requires_grad=True) for _ in range(2))
    one, other = compiled("auto", a), compiled("auto", b)
    look = tg.compile(lambda x: x * 2.0)
    for _ in range(5):  # the sixth call is no capture, and is not checked
        one(), other(), look(tg.ones(3))
    assert isinstance(a.node, Leaf)
    turn = a.node.turns
    assert isinstance(turn, Turns)
    done: list[str] = []

    def work() -> None:
        other()
        look(tg.ones(3))
        done.append("apart")
        one()
        done.append("the same")

    thread = threading.Thread(target=work)
    with turn:
        thread.start()
        for _ in range(400):
            if done:
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert done == ["apart"]
    thread.join()
    assert done == ["apart", "the same"]


def test_threads_train_models_of_their_own() -> None:
    """With the same numbers as one after the other."""
    x = Tensor(np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32))
    t = Tensor(np.arange(16) % 3)

    def trained(models: list[nn.Module]) -> list[Step]:
        def of(model: nn.Module) -> Step:
            optimizer = optim.Adam(model.parameters(), lr=0.01)

            def step() -> None:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), t).backward()
                optimizer.step()

            return tg.compile(step)

        return [of(model) for model in models]

    def models() -> list[nn.Module]:
        tg.manual_seed(0)
        return [nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(3)]

    alone, together = models(), models()
    for step in trained(alone):
        at_once(step, times=60)
    at_once(*trained(together), times=60)
    for p, q in zip(alone, together, strict=True):
        for a, b in zip(p.parameters(), q.parameters(), strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_who_waits_in_vain_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that waits for a thread that wants its turn ends all the same."""
    for place in (turns, tg.backward):
        monkeypatch.setattr(place, "LIMIT", 0.05)
    w = tg.zeros(2, requires_grad=True)
    step = compiled("auto", w)
    step()
    for held in (EVERYBODY, All()):
        with held:
            for work in (eager(w), step):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join(60)
                assert not thread.is_alive()
    assert w.grad is not None
    assert w.grad.tolist() == [5, 5]
    assert not any(turn.inside for turn in turns._ALL)


def test_who_waits_for_many_turns_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LIMIT", 0.05)
    many = [Turns() for _ in range(400)]
    ended = []

    def work() -> None:
        for all_of_them in (All(), Several(many)):
            with all_of_them:
                ended.append(all(t.inside == 2 for t in many))

    with All():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)  # one after the other they would take 40 s
        assert not thread.is_alive()
    assert ended == [True, True]
    assert not any(t.inside for t in many)


def test_turns_are_taken_in_order_and_end_with_their_leaves() -> None:
    first, second = Turns(), Turns()
    assert Several([second, first]).each == [first, second]
    assert Several(()).inside == 0
    with Several([second, first]), All():
        assert (EVERYBODY.inside, first.inside, second.inside) == (1, 2, 2)
    assert (EVERYBODY.inside, first.inside, second.inside) == (0, 0, 0)
    gc.collect()
    before = len(turns._ALL)
    del first, second
    gc.collect()
    assert len(turns._ALL) == before - 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_waits_for_nobody() -> None:
    w = tg.zeros(2, requires_grad=True)
    step = compiled("auto", w)
    step()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with All():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        try:
            began = time.monotonic()
            step()
            eager(w)()
            assert w.grad is not None
            os._exit(0 if w.grad.tolist() == [3, 3] and time.monotonic() - began < 5 else 1)
        finally:
            os._exit(2)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
