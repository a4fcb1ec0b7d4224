"""PyTorch, eager; with ``fused`` optimizers where asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim

from bench.training.networks import ADAM_RATE, MOMENTUM, MOMENTUM_RATE, Network, start


def training_step(
    network: Network,
    optimizer: str,
    fused: bool | None = None,
    device: str = "cpu",
    compiled: bool = False,
) -> Callable[[], Any]:
    """A call that makes one step and returns the loss. ``fused=None`` is PyTorch's default.

    compiled: forward and backward by torch.compile, and the optimizer's step by another.
    """
    layers, inputs, wanted = start(network)
    modules: list[Any] = []
    with torch.no_grad():
        for weight, bias in layers:
            linear: Any = nn.Linear(*weight.shape)
            linear.weight.copy_(torch.tensor(weight).T)
            linear.bias.copy_(torch.tensor(bias))
            modules += [linear, nn.ReLU() if network.hidden == "relu" else nn.Sigmoid()]
    if network.hidden == "relu":
        modules.pop()
    model = nn.Sequential(*modules).to(device)
    criterion = nn.CrossEntropyLoss() if network.hidden == "relu" else nn.MSELoss()
    x, target = torch.tensor(inputs, device=device), torch.tensor(wanted, device=device)
    update: Any
    if optimizer == "momentum":
        update = optim.SGD(model.parameters(), lr=MOMENTUM_RATE, momentum=MOMENTUM, fused=fused)
    else:
        update = optim.Adam(model.parameters(), lr=ADAM_RATE, fused=fused)

    def loss_of() -> Any:
        return criterion(model(x), target)

    make_step = update.step
    if compiled:
        loss_of, make_step = torch.compile(loss_of), torch.compile(update.step)

    def step() -> Any:
        update.zero_grad()
        loss = loss_of()
        loss.backward()
        make_step()
        return loss

    return step
