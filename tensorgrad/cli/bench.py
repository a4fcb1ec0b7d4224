"""``tensorgrad bench``: how fast training steps are on this machine."""

from __future__ import annotations

import itertools
import time
from statistics import median
from typing import Any

import numpy as np

from tensorgrad import backend, nn, optim, program
from tensorgrad.cli.info import info
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.tensor import Tensor

_NETWORKS = (((2, 8, 2), 4), ((64, 32, 10), 32), ((784, 128, 10), 64), ((784, 512, 512, 10), 128))


def bench(device: str | None = None, seconds: float = 1.0) -> None:
    """Print the median time of a training step with Adam, for each network.

    device: where. seconds: how long each is repeated. On a GPU each step is waited for.
    Raises TensorgradError for a time that is not above 0, DeviceError for a device not there.
    """
    if not seconds > 0:
        raise TensorgradError(f"--seconds must be above 0; got {seconds}")
    place = backend.normalize(device)
    info()
    print(f"\n{'step with Adam on ' + place:<34}{'eager':>12}{'compiled':>12}{'examples/s':>14}")
    for widths, batch in _NETWORKS:
        eager, compiled = (_timed(widths, batch, place, c, seconds) for c in (False, True))
        name = f"{'-'.join(map(str, widths))}, batch {batch}"
        print(
            f"{name:<34}{eager * 1e6:>9.1f} us{compiled * 1e6:>9.1f} us{batch / compiled:>14,.0f}"
        )


def _timed(
    widths: tuple[int, ...], batch: int, device: str, compiled: bool, seconds: float
) -> float:
    """The median time of a step, in seconds."""
    default_generator.seed(0)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).to(device)
    optimizer = optim.Adam(model.parameters())
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(batch, widths[0])).astype(np.float32), device=device)
    t = Tensor(rng.integers(0, widths[-1], batch), device=device)

    def step(x: Tensor, t: Tensor) -> Tensor:
        """One training step."""
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    run: Any = program.compile(step) if compiled else step
    of = backend.backend_for(device)

    def wait() -> None:
        """Until the device has done it."""
        with of.at(device):
            of.synchronize()

    times: list[float] = []
    for _ in range(5):
        run(x, t)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        wait()
        start = time.perf_counter()
        run(x, t)
        wait()
        times.append(time.perf_counter() - start)
    return median(times)
