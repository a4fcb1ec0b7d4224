"""tensorgrad, eager."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorgrad as tg
from bench.training.networks import ADAM_RATE, MOMENTUM, MOMENTUM_RATE, Network, start
from tensorgrad import nn, optim


def training_step(
    network: Network, optimizer: str, device: str = "cpu", compiled: str | None = None
) -> Callable[[], Any]:
    """A call that makes one step and returns the loss. compiled: the executor, if it is."""
    layers, inputs, wanted = start(network)
    modules: list[Any] = []
    with tg.no_grad():
        for weight, bias in layers:
            linear: Any = nn.Linear(*weight.shape)
            linear.weight.copy_(tg.Tensor(weight.T))
            linear.bias.copy_(tg.Tensor(bias))
            modules += [linear, nn.ReLU() if network.hidden == "relu" else nn.Sigmoid()]
    if network.hidden == "relu":
        modules.pop()
    model = nn.Sequential(*modules).to(device)
    criterion = nn.CrossEntropyLoss() if network.hidden == "relu" else nn.MSELoss()
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
