"""Time on the device, by events."""

from __future__ import annotations

from collections.abc import Callable

from tensorgrad import backend

#: launches between two events: enough for the queue never to run dry
BATCH = 8


def seconds(work: Callable[[], object]) -> float:
    """The time of one call, by events on the device around a batch of them."""
    cuda = backend.cuda_backend().xp.cuda
    begin, end = cuda.Event(), cuda.Event()
    begin.record()
    for _ in range(BATCH):
        work()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(begin, end)) / 1e3 / BATCH
