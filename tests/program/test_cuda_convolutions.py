"""Convolutions in programs on a GPU, on the stand-in for CuPy: parts of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import host
from standin.cupy_standin import log

import tensorgrad as tg
from bench.gpu import rehearsal
from tensorgrad import nn, optim

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with rehearsal.installed():
        yield


def test_a_step_in_16_bits_is_one_graph() -> None:
    """By columns, with one tap and 3 x 3: no memory and no waits, and the losses of eager mode."""
    draw = np.random.default_rng(0)
    batches = [
        (tg.Tensor(draw.normal(size=(2, 8, 8, 16)), device="cuda", dtype=tg.bfloat16),
         tg.Tensor(draw.integers(0, 3, 2), device="cuda"))
        for _ in range(5)
    ]  # fmt: skip
    ends = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.ReLU(),
            nn.Conv2d(4, 2, 3, stride=4), nn.Flatten(), nn.Linear(16, 3),
        ).to(device="cuda", dtype=tg.bfloat16)  # fmt: skip
        update = optim.SGD(model.parameters(), lr=0.1)

        def step(x: tg.Tensor, t: tg.Tensor, m: Any = model, u: Any = update) -> tg.Tensor:
            u.zero_grad()
            loss = nn.functional.cross_entropy(m(x), t)
            loss.backward()
            u.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        losses: list[float] = []
        counts: Any = None
        for x, t in batches:
            log.clear()
            losses.append(float(host(run(x, t))))
            counts = log.graphs, log.launches, log.allocations
        ends.append(losses)
    assert counts == (1, 3, 0)
    np.testing.assert_allclose(ends[1], ends[0], rtol=2e-2)
