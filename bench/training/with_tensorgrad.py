"""tensorgrad, eager."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorgrad as tg
from bench.training.networks import ADAM_RATE, MOMENTUM, MOMENTUM_RATE, Network, built, start
from tensorgrad import nn, optim


class Attention(nn.Module):
    """Softmax attention with several heads: (batch, positions, width) of the same shape."""

    def __init__(self, linears: list[Any], heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = linears
        self.heads = heads

    def forward(self, x: Any) -> Any:
        """``softmax(q k' / sqrt(d)) v`` for each head, put together again."""
        batch, positions, width = x.shape
        shape = (batch, positions, self.heads, width // self.heads)
        q = self.query(x).reshape(shape).transpose(0, 2, 1, 3)
        k = self.key(x).reshape(shape).transpose(0, 2, 3, 1)
        v = self.value(x).reshape(shape).transpose(0, 2, 1, 3)
        weights = tg.softmax((q @ k) * (1 / shape[-1] ** 0.5), axis=-1)
        return self.out((weights @ v).transpose(0, 2, 1, 3).reshape(x.shape))


def training_step(
    network: Network, optimizer: str, device: str = "cpu", compiled: str | None = None
) -> Callable[[], Any]:
    """A call that makes one step and returns the loss. compiled: the executor, if it is."""
    layers, inputs, wanted = start(network)
    model = built(tg, nn, Attention, network, layers).to(device)
    criterion = nn.CrossEntropyLoss() if network.labelled else nn.MSELoss()
    x, target = tg.Tensor(inputs, device=device), tg.Tensor(wanted, device=device)
    update: Any
    if optimizer == "momentum":
        update = optim.SGD(model.parameters(), lr=MOMENTUM_RATE, momentum=MOMENTUM)
    else:
        update = optim.Adam(model.parameters(), lr=ADAM_RATE)

    def step(x: Any, target: Any) -> Any:
        update.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        update.step()
        return loss

    if compiled is None:
        return partial(step, x, target)
    return partial(tg.compile(step, executor=compiled), x, target)
