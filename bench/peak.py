"""The most that this processor computes, and how much arithmetic a case cannot do without.

A step takes no less time than its products and convolutions at that rate, whoever computes them, as
long as they are computed as they are defined: what a bar can ask for ends there.
"""

from __future__ import annotations

import ctypes
import time

from bench.training.layered import CASES, CELL, GRU, LSTM, training_step

_TEXT = """
#include "support.h"
#include "vectors.h"
/* So many times 12 sums of products, of TG_L lanes, none of which waits for another. */
float multiply_add(long repetitions, float factor) {
    tg_vec sums[12], x = tg_splat(factor), y = tg_splat(1 - factor);
    TG_UNROLL for (int k = 0; k < 12; k++) sums[k] = tg_splat((float)k);
    for (long i = 0; i < repetitions; i++) {
        TG_UNROLL for (int k = 0; k < 12; k++) {
            sums[k] = sums[k] * y + x;
            TG_IN_REGISTER(sums[k]);
        }
    }
    TG_UNROLL for (int k = 1; k < 12; k++) sums[0] += sums[k];
    return sums[0][0];
}
long lanes(void) { return TG_L; }
"""
#: Multiplications and additions of one is two operations; and how long a trial is.
_OPERATIONS, _REPETITIONS, _TRIALS = 2 * 12, 1_000_000, 7
#: Gates, and the products that a step of the sequence has in them: the input has no gradient.
_GATES = {LSTM: 4, CELL: 4, GRU: 3}


def peak(threads: int) -> float:
    """Operations in float32 per second, multiplication and addition being two.

    It is the best of some trials of one thread's, as often as there are threads: processor time,
    so that other work does not count.
    """
    from tensorgrad.program.compiler import SOURCES, build

    text = _TEXT
    for header in ("support.h", "vectors.h"):
        text = text.replace(f'#include "{header}"', (SOURCES / header).read_text())
    library = build(text, ("multiply_add", "lanes"))
    library.multiply_add.argtypes = (ctypes.c_long, ctypes.c_float)
    library.multiply_add.restype = ctypes.c_float
    best = float("inf")
    for _ in range(_TRIALS):
        start = time.thread_time()
        library.multiply_add(_REPETITIONS, 0.5)
        best = min(best, time.thread_time() - start)
    return float(threads * _REPETITIONS * _OPERATIONS * library.lanes() / best)


def operations(name: str) -> int:
    """What the products and convolutions of a training step take, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    if name in _GATES:  # PyTorch does not look into these layers
        steps, batch, inputs, hidden = 50, 32, 64, 128
        return 2 * steps * batch * _GATES[name] * hidden * (2 * (inputs + hidden) + hidden)
    step = training_step("torch", name)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def notes(threads: int, case: str = "") -> list[str]:
    """Of each case whose name contains ``case`` a line: its operations, and their least time."""
    rate = peak(threads)
    made = [f"this processor's peak: {rate / 1e9:.0f} GFLOP/s on {threads} threads, float32"]
    for name in CASES:
        count = operations(name) if case in name else 0
        if count:
            made.append(
                f"{name}: {count / 1e9:.2f} GFLOP in products and convolutions, "
                f"{1e3 * count / rate:.2f} ms at the peak"
            )
    return made
