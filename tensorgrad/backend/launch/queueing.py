"""How a thread's products are queued: as in eager mode, or as a program does it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Way(threading.local):
    """What products are queued by, if not by CuPy's binding, and the workspace that they have."""

    multiply: Callable[..., None] | None = None
    workspace: int = 0


WAY = Way()


@contextmanager
def queued_by(multiply: Callable[..., None], workspace: int) -> Iterator[None]:
    """Queue the products within by ``multiply(plan, a, b, out, tf32, add)``, or by cublasLt with
    the workspace at this address."""
    before = WAY.multiply, WAY.workspace
    WAY.multiply, WAY.workspace = multiply, workspace
    try:
        yield
    finally:
        WAY.multiply, WAY.workspace = before
