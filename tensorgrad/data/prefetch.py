"""Batches sent ahead to a GPU: through pinned memory, on a stream of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend.base import Backend
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor

Host = ndarray[Any, Any]


class _Batch(NamedTuple):
    """A batch under way. ``arrived`` comes after its copies on the copying stream."""

    arrays: list[Any]
    arrived: Any
    pinned: dict[int, Host]  # the buffers that must not be written to before that


def sent_ahead(
    batches: Iterable[Sequence[Any]], device: str, ahead: int
) -> Iterator[tuple[Tensor, ...]]:
    """The batches as tensors on the GPU ``device``, with ``ahead`` of them on their way meanwhile.

    batches: arrays of the host; arrays that lie on a GPU already are handed on.

    Nothing here waits for the device, except where pinned memory is to be filled again or given
    back while the copy from it, begun ``ahead + 1`` batches before, is not done yet.
    """
    cuda = backend.backend_for(device)
    xp = cuda.xp
    with cuda.at(device):
        copying = xp.cuda.Stream(non_blocking=True)
    free: deque[_Batch] = deque()  # handed out: their pinned buffers serve again

    def send(arrays: Sequence[Any]) -> _Batch:
        """Begin to copy the arrays of a batch."""
        with cuda.at(device):
            pinned: dict[int, Host] = {}
            if len(free) > ahead:
                oldest = free.popleft()
                if not oldest.arrived.done:
                    oldest.arrived.synchronize()
                pinned = oldest.pinned
            # The arrays belong to the stream that computes, where they are freed in its order.
            # The memory may have served that stream before: the copy waits for what is queued.
            sent = [_room(xp, a, device) for a in arrays]
            copying.wait_event(xp.cuda.get_current_stream().record())
            for i, (array, target) in enumerate(zip(arrays, sent)):
                if isinstance(array, ndarray):
                    held = pinned.get(i)
                    if held is None or held.shape != array.shape or held.dtype != array.dtype:
                        held = pinned[i] = _pinned(array.shape, array.dtype)
                    held[...] = array
                    target.set(held, stream=copying)
            return _Batch(sent, copying.record(), pinned)

    waiting = iter(batches)
    under_way: deque[_Batch] = deque()
    try:
        under_way.extend(map(send, islice(waiting, ahead)))
        for arrays in waiting:
            under_way.append(send(arrays))
            yield _handed_out(cuda, under_way.popleft(), device, free)
        while under_way:
            yield _handed_out(cuda, under_way.popleft(), device, free)
    finally:  # also if the epoch is broken off: pinned memory must outlive the copies from it
        for batch in (*free, *under_way):
            if not batch.arrived.done:
                batch.arrived.synchronize()


def _room(xp: Any, array: Any, device: str) -> Any:
    """Memory for a copy of an array of the host; an array on a GPU as it is."""
    if isinstance(array, ndarray):
        return xp.empty(array.shape, array.dtype)
    return Tensor(array, device=device, copy=None).data


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Host:
    """An array in memory of the host that a GPU reads directly."""
    from cupyx import empty_pinned

    found: Host = empty_pinned(shape, dtype)
    return found


def _handed_out(
    cuda: Backend, batch: _Batch, device: str, free: deque[_Batch]
) -> tuple[Tensor, ...]:
    """The tensors of a batch, for use on the current stream from now on."""
    with cuda.at(device):
        cuda.xp.cuda.get_current_stream().wait_event(batch.arrived)
    free.append(batch)
    return tuple([wrap(array, None) for array in batch.arrays])
