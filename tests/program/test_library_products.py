"""Linear layers in programs on a GPU with cublasLt, on its stand-in: products with epilogues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import host
from standin import cublaslt
from standin.cupy_standin import log

import tensorgrad as tg
from bench.gpu import rehearsal
from tensorgrad import nn, optim
from tensorgrad.backend.launch import epilogues

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with rehearsal.installed(cublaslt=True):
        yield


class ByHand(nn.Module):
    """Layers and functions of which nobody says that they belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 16), nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """The scores of four classes, in one row for each."""
        y = self.three(tg.relu(self.two(tg.relu(self.one(x)))))
        return y.reshape((-1, 4))


def sequence() -> Any:
    layers = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)]
    return nn.Sequential(*layers)


def ends(make: Any, shape: tuple[int, ...], compiled: bool, half: bool = False) -> Any:
    """Losses and parameters after some steps, what the last one counted, and the function."""
    draw = np.random.default_rng(3)
    tg.manual_seed(0)
    model = make().to("cuda")
    update = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rows = int(np.prod(shape))

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        update.zero_grad()
        with tg.autocast("bfloat16", enabled=half):
            loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        update.step()
        return loss

    run: Any = tg.compile(step) if compiled else step
    losses = []
    for _ in range(7):
        x = tg.Tensor(draw.normal(size=(*shape, 6)), dtype=tg.float32, device="cuda")
        t = tg.Tensor(draw.integers(0, 4, rows), device="cuda")
        log.clear()
        losses.append(run(x, t).item())
    counts = log.graphs, log.launches, log.allocations
    return losses, [host(p) for p in model.parameters()], counts, run


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("make", "shape"), [(ByHand, (5,)), (ByHand, (3, 4)), (sequence, (8,))])
def test_training(make: Any, shape: tuple[int, ...], half: bool) -> None:
    """Two launches for a layer with a ReLU and its gradients; in one graph; as in eager mode."""
    losses, parameters, _, _ = ends(make, shape, False, half)
    cublaslt.computed.clear()
    found, found_parameters, counts, run = ends(make, shape, True, half)
    executor = run._last().executor
    assert executor.name == "cuda", executor.reason
    assert counts == (1, 3, 0), run.report()
    used = {name for name, *_ in cublaslt.computed}
    wanted = {"RELU_AUX_BIAS", "DRELU_BGRAD"} | ({"BGRADB"} if len(shape) == 1 else set())
    assert wanted <= used
    assert "linear_relu_gradient, linear_relu_gradient" in run.report()
    np.testing.assert_allclose(found, losses, rtol=2e-2 if half else 1e-4)
    for a, b in zip(found_parameters, parameters, strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-2 if half else 2e-3, atol=2e-2 if half else 1e-5)


@pytest.mark.parametrize("missing", ["RELU_AUX_BIAS", "DRELU_BGRAD", "BGRADB"])
def test_where_the_library_has_no_algorithm(missing: str) -> None:
    """Without that of the ReLU nothing is asked of it; of others kernels of ours do the same."""
    losses, parameters, _, _ = ends(ByHand, (5,), False)
    cublaslt.MISSING.add(missing)
    epilogues.forget()  # what was planned before
    try:
        found, found_parameters, _, run = ends(ByHand, (5,), True)
    finally:
        cublaslt.MISSING.clear()
    assert run._last().executor.name == "cuda", run._last().executor.reason
    called = "its kernel does not take such arrays" in run.report()
    assert called == (missing != "RELU_AUX_BIAS"), run.report()
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for a, b in zip(found_parameters, parameters, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def test_what_others_read_stays_as_it_is() -> None:
    """The result before the ReLU, or the gradient behind it, is looked at; weights change."""
    tg.manual_seed(0)
    one: Any = nn.Linear(6, 8, device="cuda")
    two: Any = nn.Linear(8, 3, device="cuda")

    def seen(x: tg.Tensor) -> Any:
        z = one(x)
        y = tg.relu(z)
        loss = two(y).sum() + z.sum()
        return z.detach(), *tg.autograd.grad(loss, (one.weight, one.bias, two.weight))

    def kept(x: tg.Tensor) -> Any:
        y = tg.relu(one(x))
        return tg.autograd.grad((two(y) ** 2).sum(), (y, one.bias))

    x = tg.Tensor(np.linspace(-2, 2, 30).reshape(5, 6), dtype=tg.float32, device="cuda")
    for function in (seen, kept):
        call = tg.compile(function)
        for _ in range(3):
            for a, b in zip(call(x), function(x), strict=True):
                np.testing.assert_allclose(host(a), host(b), rtol=1e-5, atol=1e-6)
        executor = call._last().executor
        assert executor.name == "cuda", executor.reason
