"""PyTorch: eager as it comes; with its fused optimizer, one call for all parameters; and besides
with ``torch.compile`` for the loss and its gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from bench.records.contestants import Adam, Array, Function, Maker, Parameters
from bench.records.graphs import Graph

OPS = SimpleNamespace(
    relu=functional.relu,
    tanh=torch.tanh,
    layer_norm=functional.layer_norm,
    linear=functional.linear,
    concat=torch.cat,
    conv2d=functional.conv2d,
    max_pool2d=functional.max_pool2d,
    attention=functional.scaled_dot_product_attention,
    cross_entropy=functional.cross_entropy,
    images=lambda x: x,
    flatten=lambda x: x.flatten(1),
    floats=lambda x: x.float(),
)


class _Training:
    """programs: not asked for; ``torch.compile`` makes shapes that vary symbolic by itself."""

    def __init__(
        self,
        parameters: Parameters,
        loss: Function,
        outputs: Function,
        adam: Adam | None = Adam(),  # noqa: B008
        programs: int = 8,
        *,
        fused: bool | None = True,
        compiles: bool = False,
    ) -> None:
        p = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in parameters.items()}
        self._optimizer: torch.optim.Optimizer
        if adam is None:
            self._optimizer = torch.optim.SGD(p.values(), fused=fused)
        else:
            betas = adam.beta1, adam.beta2
            self._optimizer = torch.optim.Adam(
                p.values(), betas=betas, eps=adam.epsilon, fused=fused
            )
        self._parameters = p
        self._loss: Any = lambda *batch: loss(OPS, p, *batch)
        self._outputs: Any = lambda *inputs: outputs(OPS, p, *inputs)
        if compiles:
            self._loss, self._outputs = torch.compile(self._loss), torch.compile(self._outputs)

    def step(self, rate: float, *batch: Array) -> Any:
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.zero_grad()
        value = self._loss(*map(torch.from_numpy, batch))
        value.backward()
        self._optimizer.step()
        return value.detach()

    def outputs(self, *inputs: Array) -> Array:
        with torch.no_grad():
            found: Array = self._outputs(*map(torch.from_numpy, inputs)).numpy()
            return found

    def values(self) -> dict[str, Array]:
        return {name: x.detach().numpy().copy() for name, x in self._parameters.items()}

    def take(self, values: Parameters) -> None:
        with torch.no_grad():
            for name, x in self._parameters.items():
                x.copy_(torch.from_numpy(values[name]))


def training(*given: Any, **options: Any) -> _Training:
    """Eager, as it comes."""
    return _Training(*given, fused=None, **options)


fused = _Training  # eager, with the fused optimizer


def compiled(*given: Any, **options: Any) -> _Training:
    """With ``torch.compile``, and the fused optimizer."""
    return _Training(*given, compiles=True, **options)


def graph(make: Maker, of: Graph) -> Callable[[], Any]:
    """A call that computes the value and leaves the derivatives."""
    function: Any = of.function
    if make is compiled:
        function = torch.compile(function)
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (of.a, of.b))

    def call() -> Any:
        a.grad = b.grad = None
        y = function(a, b, torch.relu)
        y.backward()
        return y.detach(), a.grad, b.grad

    return call
