"""Nests that share a launch on a GPU: which do, and that the others wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import host
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import optim
from tensorgrad.program.executors import cuda_source
from tensorgrad.program.schedule import Nest


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed() as module:
        yield module


def launches(call: Any) -> list[int]:
    """How many nests each launch of nests takes along."""
    executor = call._last().executor
    assert executor.name == "cuda", executor.reason
    return [len(group) for group in executor.source.groups if isinstance(group[0], Nest)]


SHAPES = [(3,), (7, 5), (40, 33), (3,), (128,), (7, 5), (2, 3, 4), (40, 33), (1,), (5000,)]


@pytest.mark.parametrize("schedule", [0, 4])
@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda params: optim.AdamW(params, lr=0.01),
    ],
    ids=["momentum", "AdamW"],
)
def test_parameters_share_launches(
    make: Callable[[Any], optim.Optimizer], schedule: int, rng: np.random.Generator
) -> None:
    """Of any shapes; those of equal shape are one function of the kernel."""
    starts = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    ends = []
    for device in ("cuda", "cpu"):
        params = [tg.Tensor(a, device=device, requires_grad=True) for a in starts]
        optimizer = make(params)

        def step(scale: tg.Tensor, params: Any = params, optimizer: Any = optimizer) -> None:
            for k, p in enumerate(params):
                p.grad = None
                (p * p * scale * (k + 1.0)).sum().backward()
            optimizer.step()

        run: Any = tg.compile(step) if device == "cuda" else step
        with emulator.scheduled(schedule):
            for k in range(4):
                run(tg.Tensor(np.float32(0.1 * (k + 1)), device=device))
        if device == "cuda":
            found = launches(run)
            assert max(found) >= 6
            assert sum(found) >= 3 * len(found)
        ends.append([host(p) for p in params])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def of_transposes(x: tg.Tensor, w: tg.Tensor) -> list[tg.Tensor]:
    """Nests over other axes, each of which reads what the one before wrote."""
    y = x * 2.0 + 1.0
    z = y.T * 3.0
    return [y, z, z.T.reshape(-1) + 1.0, w * 2.0]


def test_what_reads_comes_after_what_writes(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((9, 14)), rng.standard_normal((6,))
    call = tg.compile(of_transposes)
    given = [tg.Tensor(a, dtype=tg.float32, device="cuda") for a in (x, w)]
    found = call(*given)
    assert sum(launches(call)) > len(launches(call)) >= 3  # w * 2 shares one
    for a, b in zip(found, of_transposes(*[tg.Tensor(a) for a in (x, w)]), strict=True):
        np.testing.assert_allclose(host(a), host(b), rtol=1e-5)


def test_what_is_read_is_overwritten_afterwards(rng: np.random.Generator) -> None:
    """A parameter whose old numbers another nest reads, of other axes."""
    start = rng.standard_normal((8, 5)).astype(np.float32)
    ends: list[list[Any]] = []
    for device in ("cuda", "cpu"):
        w = tg.Tensor(start, device=device)
        v = tg.Tensor(np.zeros((5, 8), np.float32), device=device)
        u = tg.Tensor(start * 0.5, device=device)

        def step(x: tg.Tensor, u: Any = u, v: Any = v, w: Any = w) -> tg.Tensor:
            before = w.T * x
            w.copy_(u)
            v.copy_(v + before)
            return before + 1.0

        run: Any = tg.compile(step) if device == "cuda" else step
        ends.append([])
        for k in range(3):
            y = run(tg.Tensor(np.full((5, 1), k + 1.0, np.float32), device=device))
            ends[-1] += [host(a).copy() for a in (y, w, v)]
        if device == "cuda":  # nobody sees in which order the blocks of one launch run
            assert max(launches(run)) == 1
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_more_pointers_than_a_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_source, "_POINTERS", 10)
    params = [tg.Tensor(np.ones(k + 2, np.float32), device="cuda") for k in range(12)]

    def step() -> None:
        for p in params:
            p.copy_(p * 2.0)

    run = tg.compile(step)
    run()
    assert max(launches(run)) == 10
    assert len(launches(run)) == 2
    assert all(host(p).tolist() == [2.0] * p.size for p in params)
