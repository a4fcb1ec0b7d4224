"""How much the host does in a step on a GPU: upper bounds, counted as bench/host.py says.

Everything is the real CUDA path on the stand-in for CuPy, kernels run by the emulator. Whoever
makes a step do more has to raise a bound here; whoever makes it do less should lower it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from standin import cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from bench import host
from bench.gpu import rehearsal
from tensorgrad import nn, optim

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")


@pytest.mark.parametrize(
    ("optimizer", "cublaslt", "calls", "launches", "arrays"),
    [
        ("momentum", False, (1, 103, 21, 134, 21), (0, 6, 1, 11, 1), 21),
        ("Adam", True, (1, 103, 21, 145, 22), (0, 3, 1, 6, 1), 17),
    ],
)
def test_eager_steps(
    optimizer: str,
    cublaslt: bool,
    calls: tuple[int, ...],
    launches: tuple[int, ...],
    arrays: int,
) -> None:
    """In float32, by phase: without gradients, forward, loss, backward, update."""
    with cupy_standin.installed(cublaslt=cublaslt):
        counter = host.counted(optimizer, half=False, compiled=False)
    parts = counter.phases.values()
    assert all(p.python <= limit for p, limit in zip(parts, calls, strict=True)), counter.phases
    assert all(p.launches <= limit for p, limit in zip(parts, launches, strict=True))
    total = counter.total()
    assert total.python <= host.FIRST[optimizer] / 3
    assert not cublaslt or total.launches < host.LAUNCHES
    assert (total.waits, total.graphs) == (0, 0)
    assert total.allocations <= arrays
    assert total.uploads <= 1  # addresses of gradients, where they are others than before


@pytest.mark.parametrize(("optimizer", "half"), [("momentum", False), ("Adam", True)])
def test_compiled_steps(optimizer: str, half: bool) -> None:
    """One graph, copies of the two arguments and of the result, and no memory."""
    with rehearsal.installed():
        total = host.counted(optimizer, half, compiled=True).total()
    assert (total.graphs, total.launches) == (1, 3)
    assert (total.allocations, total.uploads, total.waits) == (0, 0, 0)
    assert total.within <= 25  # one makes 16 bits of the biases
    assert total.python <= 122


@pytest.mark.parametrize("half", [False, True])
def test_compiled_steps_with_cublaslt(half: bool) -> None:
    """Layers with a ReLU are one launch forward and two backward."""
    with rehearsal.installed(cublaslt=True):
        total = host.counted("momentum", half, compiled=True).total()
    assert (total.graphs, total.launches) == (1, 3)
    assert (total.allocations, total.uploads, total.waits) == (0, 0, 0)
    assert total.within <= (19 if half else 15)


@pytest.mark.parametrize(
    ("network", "half", "within"), [("ConvNet", False, 85), ("LSTM", False, 85), ("GPT", True, 140)]
)
def test_compiled_steps_of_other_networks(network: str, half: bool, within: int) -> None:
    """Kernels of convolutions, pools, recurrence, attention and sums by index are in the graph."""
    with rehearsal.installed():
        total = host.counted("Adam", half, compiled=True, network=network).total()
    assert (total.graphs, total.launches) == (1, 3)
    assert (total.allocations, total.uploads, total.waits) == (0, 0, 0)
    assert total.within <= within
    assert total.python <= 220


def test_hooks_are_called_and_the_current_device_is_left_as_it_was() -> None:
    """Beside the short ways of dispatch and of the backward pass."""
    with cupy_standin.installed() as xp:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to("cuda:1")
        x = tg.Tensor(np.ones((5, 3), np.float32), device="cuda:1")
        labels = tg.Tensor(np.arange(5) % 2, device="cuda:1")
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        seen = []
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.register_hook(lambda g: seen.append(float(g)))
        loss.backward()
        optimizer.step()
        assert seen == [1.0]
        assert xp.cuda.runtime.getDevice() == 0
        assert {p.device for p in model.parameters()} == {"cuda:1"}


def test_the_seed_is_shared_and_stays_1() -> None:
    """A loss begins with a 1 that nobody may write to: whoever could gets one of their own."""
    with cupy_standin.installed():
        w: Any = tg.Tensor(np.eye(2, dtype=np.float32), device="cuda", requires_grad=True)
        labels = tg.Tensor(np.arange(2), device="cuda")

        def loss() -> Any:
            return nn.functional.cross_entropy(w, labels)

        log.clear()
        loss().backward()
        before = w.grad.numpy()
        hooked = loss()
        hooked.register_hook(lambda g: g.copy_(g * 3.0))
        hooked.backward()
        w.grad = None
        kept = loss()
        kept.retain_grad()
        kept.backward()
        kept.grad.copy_(7.0)
        w.grad = None
        loss().backward()
        np.testing.assert_array_equal(w.grad.numpy(), before)


def test_results_of_programs_take_turns_where_nobody_keeps_them() -> None:
    with rehearsal.installed():
        x = tg.Tensor(np.arange(4.0), device="cuda")
        call = tg.compile(lambda x: ((x * 2.0).sum(), x + 1.0))
        for _ in range(10):
            found = call(x)
        log.clear()
        for _ in range(5):
            found = call(x)  # the 16th is checked
        assert log.allocations == 0
        kept = [call(x * float(k)) for k in range(9)]
        views = [y[1:] for _, y in kept]
        sums = [float(total) for total, _ in kept]
        assert sums == [12.0 * k for k in range(9)]
        del kept, found
        more = [call(x) for _ in range(4)]
        assert [v.numpy().tolist() for v in views] == [
            [k + 1, 2 * k + 1, 3 * k + 1] for k in range(9)
        ]
        assert all(float(total) == 12.0 for total, _ in more)
