"""Order among CUDA streams for memory that several of them use in turn.

CuPy queues everything on the current stream, and its pool hands memory out again in the order of
the stream that it was made on. Memory that the engine keeps from call to call, such as the arena
of a program, is used on whatever stream is current then: the next one has to wait for the last.
"""

from __future__ import annotations

from typing import Any


class StreamOrder:
    """Of some memory on the device: the stream that used it last."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Any = None

    def here(self, xp: Any) -> Any:
        """The current stream, which waits for whatever used this memory on another one."""
        stream = xp.cuda.get_current_stream()
        last = self._last
        if last is None:
            self._last = stream
        elif last.ptr != stream.ptr:
            stream.wait_event(last.record())
            self._last = stream
        return stream
