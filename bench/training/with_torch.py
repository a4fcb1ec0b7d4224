"""PyTorch, eager; with ``fused`` optimizers where asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim

from bench.training.networks import ADAM_RATE, MOMENTUM, MOMENTUM_RATE, Network, built, start


class Attention(nn.Module):
    """Softmax attention with several heads, by PyTorch's own function for it."""

    def __init__(self, linears: list[Any], heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = linears
        self.heads = heads

    def forward(self, x: Any) -> Any:
        """(batch, positions, width) -> the same shape."""
        batch, positions, width = x.shape
        shape = (batch, positions, self.heads, width // self.heads)
        q, k, v = (
            layer(x).reshape(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(x.shape))


def training_step(
    network: Network,
    optimizer: str,
    fused: bool | None = None,
    device: str = "cpu",
    compiled: bool | str = False,
    capturable: bool = False,
) -> Callable[[], Any]:
    """A call that makes one step and returns the loss. ``fused=None`` is PyTorch's default.

    compiled: forward and backward by torch.compile, and the optimizer's step by another; a name is
        torch.compile's mode. capturable: Adam as a CUDA graph needs it.
    """
    layers, inputs, wanted = start(network)
    model = built(torch, nn, Attention, network, layers).to(device)
    criterion = nn.CrossEntropyLoss() if network.labelled else nn.MSELoss()
    x, target = torch.tensor(inputs, device=device), torch.tensor(wanted, device=device)
    update: Any
    if optimizer == "momentum":
        update = optim.SGD(model.parameters(), lr=MOMENTUM_RATE, momentum=MOMENTUM, fused=fused)
    else:
        update = optim.Adam(model.parameters(), lr=ADAM_RATE, fused=fused, capturable=capturable)

    def loss_of() -> Any:
        return criterion(model(x), target)

    make_step = update.step
    if compiled:
        mode = compiled if isinstance(compiled, str) else None
        loss_of, make_step = (torch.compile(f, mode=mode) for f in (loss_of, update.step))

    def step() -> Any:
        update.zero_grad()
        loss = loss_of()
        loss.backward()
        make_step()
        return loss

    return step
