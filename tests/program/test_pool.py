"""Work shared out among threads: every piece is done once, however many there are."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from program.executors import EXECUTORS

from tensorgrad.program import pool
from tensorgrad.program.compiler import build

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

_TASK = """
void counted(void **table, long begin, long end) {
    uint8_t *times = table[0];
    int64_t *where = table[1];
    for (long i = begin; i < end; i++) {
        times[i]++;
        where[i] = end - begin;
    }
}
"""


@pytest.mark.parametrize("helpers", [1, 3])
@pytest.mark.parametrize(
    ("size", "piece"), [(1, 1), (2, 1), (7, 3), (65535, 1), (65536, 1), (200_001, 1), (400_000, 3)]
)
def test_each_piece_is_done_once(size: int, piece: int, helpers: int) -> None:
    task = build('#include "support.h"\n' + _TASK, ["counted"])
    threads = pool.library()
    threads.tg_start(helpers)
    times, where = np.zeros(size, np.uint8), np.zeros(size, np.int64)
    table = (ctypes.c_void_p * 2)(times.ctypes.data, where.ctypes.data)
    for k in range(1, 4):
        threads.tg_run(task.counted, table, ctypes.c_long(size), ctypes.c_long(piece))
        assert np.all(times == k)
    assert np.all(where[: size - size % piece] == piece)
    assert np.all(where[size - size % piece :] == size % piece)
