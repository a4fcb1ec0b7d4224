"""Calls of hand-written kernels in programs on a GPU, on the stand-in for CuPy: parts of graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import host
from standin import cupy_standin
from standin.cupy_standin import CUDARuntimeError, log

import tensorgrad as tg
from bench.gpu import rehearsal
from tensorgrad import nn, optim
from tensorgrad.backend import launch
from tensorgrad.backend.launch.common import contiguous
from tensorgrad.tape import Primitive, apply

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with rehearsal.installed():
        yield


def executor_of(call: Any) -> Any:
    executor = call._last().executor
    assert executor.name == "cuda", executor.reason
    return executor


class Recurrent(nn.Module):
    """A recurrent layer and a linear one on its last state."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(8, 4)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """The scores of four classes."""
        return self.head(self.layer(x)[0][:, -1])


LAYERS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: nn.LSTM(6, 8, batch_first=True),
    "GRU, two layers, both ways": lambda: nn.GRU(
        6, 4, num_layers=2, bidirectional=True, batch_first=True
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_step_of_a_recurrent_network_is_one_graph(kind: str) -> None:
    """Without memory, waits and copies from the host; and it trains as eager mode does."""
    draw = np.random.default_rng(0)
    batches = [
        (tg.Tensor(draw.normal(size=(3, 5, 6)), device="cuda"),
         tg.Tensor(draw.integers(0, 4, 3), device="cuda"))
        for _ in range(7)
    ]  # fmt: skip
    ends = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = Recurrent(LAYERS[kind]()).to("cuda")
        update = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: tg.Tensor, t: tg.Tensor, m: Any = model, u: Any = update) -> tg.Tensor:
            u.zero_grad()
            loss = nn.functional.cross_entropy(m(x), t)
            loss.backward()
            u.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        losses: list[float] = []
        counts: Any = None
        for x, t in batches:
            log.clear()
            losses.append(run(x, t).item())
            counts = log.graphs, log.launches, log.allocations, log.uploads, dict(log.syncs)
        ends.append((losses, [host(p) for p in model.parameters()]))
    assert counts == (1, 3, 0, 0, {"item": 1})
    report = run.report()
    assert "_backward" in report
    assert "one graph" in report
    assert not executor_of(run).reason
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4)
    for a, b in zip(ends[1][1], ends[0][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


# --- launchers that do this and that --------------------------------------------------------------


def tripled(xp: Any, x: Any) -> Any:
    """A value that loops do not follow."""
    if xp is np or hasattr(xp, "cuda"):
        return x * 3.0
    raise NotImplementedError("no loops")


TRIPLED = Primitive("tripled", tripled, {"x": None}, kernel="tripled")


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Makes a function the launcher of TRIPLED, and gives a compiled function that calls it
    between other operations."""

    def entered(function: Any) -> Any:
        monkeypatch.setitem(launch.FORWARD, "tripled", function)
        return tg.compile(lambda x: tg.tanh(apply(TRIPLED, (x * 2.0,), {})) + 1.0)

    return entered


def check(call: Any, calls: int = 6) -> None:
    """Right each time, whatever came before."""
    for k in range(calls):
        x = np.linspace(-1, 1, 12).reshape(3, 4) / (k + 1)
        log.clear()
        np.testing.assert_allclose(
            host(call(tg.Tensor(x, device="cuda"))), np.tanh(x * 6.0) + 1.0, rtol=1e-5
        )


def test_results_lie_in_place_and_pieces_share_a_room(launcher: Any) -> None:
    """What was let go of is used again; what is given at last is not copied."""

    def by_detours(xp: Any, x: Any) -> Any:
        first = x * 1.0
        second = first + 0.0
        del first
        third = contiguous(xp, second.T)
        del second
        y = xp.empty(x.shape, x.dtype)
        y[...] = third.T
        y *= 3.0
        return y

    call = launcher(by_detours)
    check(call)
    executor = executor_of(call)
    (step,) = [s for s in executor._steps if type(s).__name__ == "KernelCall"]
    assert step.room == 2 * 256  # three pieces of 48 bytes, of which two are there at a time
    assert log.graphs == 1
    assert log.allocations == 1  # the argument's
    assert "1 calls (tripled)" in call.report()
    # in the graph: two nests, five operations of the launcher's, and no copy of the result
    assert log.in_graphs == 7


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {}


def refused(why: str) -> Callable[[Any], Any]:
    def enter(function: Any) -> Any:
        REFUSED[function.__name__] = function, why
        return function

    return enter


@refused("its kernel does not take such arrays")
def takes_nothing(xp: Any, x: Any) -> Any:
    return NotImplemented


@refused("its kernel does not take such arrays")
def takes_it_once(xp: Any, x: Any, known: list[Any] = []) -> Any:  # noqa: B006
    known.append(x)
    return x * 3.0 if len(known) % 2 else NotImplemented


@refused("item: operation not permitted when stream is capturing")
def waits(xp: Any, x: Any) -> Any:
    return x * 3.0 if x[0, 0].item() < 1e9 else x


@refused("copies from the host: operation not permitted when stream is capturing")
def sends(xp: Any, x: Any) -> Any:
    return x * xp.asarray(np.full(4, 3.0, np.float32))


@refused("argsort: operation not permitted when stream is capturing")
def sorts(xp: Any, x: Any) -> Any:
    xp.argsort(x)
    return x * 3.0


@refused("multiply on another stream: operation not permitted when stream is capturing")
def leaves_the_stream(xp: Any, x: Any) -> Any:
    with cupy_standin.DEFAULT_STREAM:
        return x * 3.0


@refused("its kernel keeps memory from call to call")
def keeps(xp: Any, x: Any, kept: list[Any] = []) -> Any:  # noqa: B006
    kept.append(xp.ones(4, np.float32))
    return x * 3.0


@refused("it asks for other memory than before")
def asks_for_more(xp: Any, x: Any, known: list[Any] = []) -> Any:  # noqa: B006
    known.append(None)
    xp.empty(len(known), np.float32)
    return x * 3.0


@refused("it asks for less memory than before")
def asks_for_less(xp: Any, x: Any, known: list[Any] = []) -> Any:  # noqa: B006
    known.append(None)
    y = x * 3.0
    if len(known) < 3:
        xp.empty(1, np.float32)
    return y


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_stays_between_with_its_reason(launcher: Any, name: str) -> None:
    function, why = REFUSED[name]
    call = launcher(function)
    check(call)
    assert why in call.report()
    assert "call tripled" in call.report()
    assert log.graphs == 2  # before and after
    assert executor_of(call)._graphing


def test_without_graphs_it_is_launched_with_the_same_memory(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, mode: Any = None) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cupy_standin.Stream, "begin_capture", refuse)
    call = launcher(lambda xp, x: x * 3.0)
    check(call)
    assert log.graphs == 0
    assert log.allocations == 1  # the argument's


def test_facts_of_launchers_and_of_calls_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch.FORWARD, "tripled", lambda xp, x: x * 3.0)
    monkeypatch.setitem(launch.BETWEEN, "tripled", "it reads the clock")
    call = tg.compile(lambda x: tg.tanh(apply(TRIPLED, (x * 2.0,), {})) + 1.0)
    check(call)
    assert "call tripled: it reads the clock" in call.report()
    assert set(launch.BETWEEN) <= set(launch.FORWARD)

    tg.manual_seed(0)
    draws = tg.compile(lambda x: x + tg.random.normal((3, 4), device="cuda"))
    x = tg.zeros((3, 4), device="cuda")
    assert not np.array_equal(host(draws(x)), host(draws(x)))
    assert "another number in every replay" in draws.report()


# --- what the driver refuses ----------------------------------------------------------------------


FORBIDDEN: dict[str, Callable[[Any, Any], Any]] = {
    "memory of the pool": lambda xp, x: xp.empty(3),
    "of a copy": lambda xp, x: x.copy(),
    "to the host": lambda xp, x: x.get(),
    "a truth": lambda xp, x: bool(x[0] > 0),
    "a stream": lambda xp, x: xp.cuda.get_current_stream().synchronize(),
    "the device": lambda xp, x: xp.cuda.Device().synchronize(),
    "events": lambda xp, x: xp.cuda.get_current_stream().record(),
    "from the host": lambda xp, x: x.set(np.zeros(3)),
    "indices": lambda xp, x: x.__setitem__(np.array([1, 0, 0]), x),
    "sorting": lambda xp, x: xp.argsort(x),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_stand_in_refuses_it_while_a_stream_is_captured(name: str) -> None:
    xp = cupy_standin.MODULE
    x = xp.zeros(3)
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="operation not permitted when stream is captur"):
            FORBIDDEN[name](xp, x)
        x += 1.0
        with pytest.raises(CUDARuntimeError), xp.cuda.Stream():
            x += 1.0
        graph = stream.end_capture()
    assert host_of(x) == [0.0] * 3
    graph.launch()
    graph.launch()
    assert host_of(x) == [2.0] * 3
    with pytest.raises(RuntimeError, match="legacy"):
        cupy_standin.DEFAULT_STREAM.begin_capture()


def host_of(x: Any) -> list[float]:
    return list(x.get().tolist())


def test_the_stand_in_sees_what_is_written_beside_memory() -> None:
    xp = cupy_standin.MODULE
    for k, found in ((0, []), (1, []), (2, [8]), (-1, [8])):
        cupy_standin.MARGINS.watch()
        x = xp.zeros(2, np.float32)
        memory = (ctypes.c_float * 1).from_address(x.data.ptr + 4 * k)
        memory[0] = 1.0
        assert found == cupy_standin.MARGINS.overrun()
    assert not cupy_standin.MARGINS.overrun()
