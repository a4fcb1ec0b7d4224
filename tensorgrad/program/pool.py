"""The threads that native programs share."""

from __future__ import annotations

import ctypes
import functools
import os

from tensorgrad.program.compiler import SOURCES, build


def threads() -> int:
    """How many threads programs run on: ``$TENSORGRAD_THREADS``, or all processors at hand."""
    chosen = os.environ.get("TENSORGRAD_THREADS") or os.environ.get("OMP_NUM_THREADS")
    if chosen and chosen.isdigit() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def library() -> ctypes.CDLL:
    """The library of c/pool.c."""
    text = (SOURCES / "pool.c").read_text()
    return build(text, ("tg_start", "tg_run", "tg_rows"))
