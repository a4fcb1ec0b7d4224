"""Kernels read and write little more than they must: counted, on the emulator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from emulator import emulator

from kernels import traffic

#: activations whose kernels are the same text as others'
ALIKE = ("tanh", "leaky_relu", "elu", "gelu_tanh", "silu", "softplus")
NAMES = [n for n in traffic.NAMES if not n.removeprefix("bias + ").startswith(tuple(ALIKE))]

SOURCE = """
extern "C" __global__ void {name}(const float* x, const float* few, float* y, int n) {{
  __shared__ float held[32];
  for (int i = threadIdx.x; i < n; i += 32) {{
    held[threadIdx.x] = x[i];
    {more}
    y[i] = held[threadIdx.x] + few[i % 4];
  }}
}}
"""


@pytest.fixture(scope="module")
def counting() -> Iterator[emulator.Traffic]:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with traffic.counting() as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_within_a_tenth_of_the_fewest_bytes(counting: emulator.Traffic, name: str) -> None:
    found = traffic.moved(counting, name, "float32")
    assert found.kernels
    assert 1.0 <= found.ratio <= 1.1, found


def test_bytes_are_counted() -> None:
    """Shared memory is not; small arrays count once; what is read twice counts twice."""
    if reason := emulator.available():
        pytest.skip(reason)
    x, few = np.ones(256, np.float32), np.arange(4, dtype=np.float32)
    again = "held[threadIdx.x] += ((volatile const float*)x)[i];"
    for name, more, expected in (("once", "", 2 * 1024 + 16), ("twice", again, 3 * 1024 + 16)):
        y = np.zeros_like(x)
        with emulator.counted() as found:
            kernel = emulator.load(SOURCE.format(name=name, more=more)).get_function(name)
            kernel((1,), (32,), (x, few, y, np.int32(256)))
        assert found.launches == [(name, expected)]
        assert y[1] == (2 if more == "" else 3)
    kernel((1,), (32,), (x, few, y, np.int32(256)))
    assert found.bytes == expected  # nobody counts any more


def test_the_table_names_what_it_found(counting: emulator.Traffic) -> None:
    found = traffic.moved(counting, "softmax 128 forward", "float32")
    assert found.kernels == ("softmax_forward_short",)
    text = traffic.table([found], 90)
    assert "softmax 128 forward" in text
    assert "8.00   8.00  1.00  softmax_forward_short" in text
