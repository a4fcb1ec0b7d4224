"""tensorgrad: the step is a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import tensorgrad as tg
from bench.records.contestants import Adam, Array, Function, Maker, Parameters
from bench.records.graphs import Graph
from tensorgrad import Tensor, nn, optim
from tensorgrad.nn import functional

OPS = SimpleNamespace(
    relu=functional.relu,
    tanh=functional.tanh,
    layer_norm=functional.layer_norm,
    linear=functional.linear,
    concat=tg.concat,
    conv2d=functional.conv2d,
    max_pool2d=functional.max_pool2d,
    attention=functional.scaled_dot_product_attention,
    cross_entropy=functional.cross_entropy,
    images=lambda x: x,
    flatten=lambda x: x.reshape(x.shape[0], -1),
    floats=lambda x: x.float(),
)


class _Training:
    """Compiled; ``programs`` is how many are kept."""

    def __init__(
        self,
        parameters: Parameters,
        loss: Function,
        outputs: Function,
        adam: Adam | None = Adam(),  # noqa: B008
        programs: int = 8,
    ) -> None:
        p = {name: nn.Parameter(tg.tensor(a)) for name, a in parameters.items()}
        optimizer: optim.Optimizer
        if adam is None:
            optimizer = optim.SGD(p.values())
        else:
            betas = adam.beta1, adam.beta2
            optimizer = optim.Adam(p.values(), betas=betas, eps=adam.epsilon)

        def step(*batch: Tensor) -> Tensor:
            optimizer.zero_grad()
            value = loss(OPS, p, *batch)
            value.backward()
            optimizer.step()
            return value

        self._parameters, self._group = p, optimizer.param_groups[0]
        self._step: Any = tg.compile(step, limit=programs)
        self._outputs: Any = tg.compile(lambda *x: outputs(OPS, p, *x), limit=programs)

    def step(self, rate: float, *batch: Array) -> Any:
        self._group["lr"] = rate
        return self._step(*[Tensor(a, copy=None) for a in batch])

    def outputs(self, *inputs: Array) -> Array:
        with tg.no_grad():
            return self._outputs(*[Tensor(a, copy=None) for a in inputs]).numpy()

    def values(self) -> dict[str, Array]:
        return {name: x.detach().numpy().copy() for name, x in self._parameters.items()}

    def take(self, values: Parameters) -> None:
        with tg.no_grad():
            for name, x in self._parameters.items():
                x.copy_(Tensor(values[name], copy=None))


training = _Training


def graph(make: Maker, of: Graph) -> Callable[[], Any]:
    """A call that computes the value and leaves the derivatives."""
    a, b = (tg.tensor(x, dtype=tg.float64, requires_grad=True) for x in (of.a, of.b))

    def value() -> Tensor:
        a.grad = b.grad = None
        y: Tensor = of.function(a, b, functional.relu)
        y.backward()
        return y

    call: Any = tg.compile(value)
    return lambda: (call(), a.grad, b.grad)
