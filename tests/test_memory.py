"""Large memory that is kept: nobody shares it, all of it comes back, and it is bounded."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backend import memory

N = 1 << 17  # float32 numbers: half a MiB


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_kept", {})
    yield
    gc.collect()


def address(a: Any) -> int:
    return int(a.__array_interface__["data"][0])


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    a = memory.empty(np, (2, N // 2), np.float32)
    assert a.shape == (2, N // 2)
    assert a.dtype == np.float32
    assert a.flags.writeable
    assert address(a) % 64 == 0
    place, view = address(a), a[1, ::2]
    del a
    other = memory.empty(np, (N,), np.float32)
    assert not np.shares_memory(other, view)
    del view, other
    again = [memory.empty(np, (N,), np.float32) for _ in range(3)]
    assert place in map(address, again)
    assert len(set(map(address, again))) == 3


def test_what_is_kept_is_bounded_and_large_or_small_arrays_are_not() -> None:
    some = [memory.empty(np, (1 << k,), np.uint8) for k in range(8, 26)]
    some += [memory.empty(np, (1 << 24,), np.uint8) for _ in range(6)]
    del some
    assert 0 < sum(m.size for m in memory._kept.values()) <= memory.ROOM
    assert min(m.size for m in memory._kept.values()) >= 1 << 17
    before = len(memory._kept)
    memory.empty(np, (memory.ROOM,), np.uint8)
    memory.empty(np, (0, 5), np.float32)
    assert len(memory._kept) == before


def test_threads_never_hold_the_same_memory() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            a = memory.empty(np, (N // 2,), np.float32)
            a[::4096] = number
            if (a[::4096] != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_results_of_one_call_stay_what_they_are_during_the_next() -> None:
    net = tg.nn.LSTM(16, 64)
    x = tg.random.normal((40, 32, 16))
    first = net(x)[0].detach()
    copy = first.numpy().copy()
    for _ in range(3):
        y = net(x * 2.0)[0]
        y.sum().backward()
    np.testing.assert_array_equal(first.numpy(), copy)
