"""Batches fetched ahead by worker threads or processes, in the order in which they are wanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tensorgrad.errors import TensorgradError

Fetch = Callable[..., Sequence[Any]]

_fetch: Fetch  # in a worker process: what it was started with


def start(workers: int, processes: bool, fetch: Fetch) -> Executor:
    """Workers that call ``fetch``. Processes get a copy of it when they start."""
    if not processes:
        return ThreadPoolExecutor(workers, "tensorgrad-loader")
    # Not by fork: a copy of a process with BLAS threads may wait for locks nobody will release.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    return ProcessPoolExecutor(workers, context, _begin, (fetch,))


def fetched_ahead(
    pool: Executor, fetch: Fetch, tasks: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[Sequence[Any]]:
    """``fetch(*task)`` for each task in turn, with up to ``ahead`` of them under way.

    An error in a worker is raised where its batch would have come. Raises TensorgradError if a
    worker process dies.
    """
    call = _call if isinstance(pool, ProcessPoolExecutor) else fetch
    waiting = iter(tasks)
    under_way: deque[Future[Sequence[Any]]] = deque()
    try:
        for task in waiting:
            under_way.append(pool.submit(call, *task))
            if len(under_way) > ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise TensorgradError(
            "a worker process of the DataLoader ended unexpectedly. If it was killed, memory may "
            "have run out: take fewer workers or smaller batches. If it could not start, the data "
            "set may not be importable from another process: a script that starts processes needs "
            'if __name__ == "__main__":, or take processes=False'
        ) from error
    finally:  # also if the epoch is broken off
        for future in under_way:
            future.cancel()


def _begin(fetch: Fetch) -> None:
    """In a new worker process."""
    global _fetch
    _fetch = fetch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(*task: Any) -> Sequence[Any]:
    return _fetch(*task)
