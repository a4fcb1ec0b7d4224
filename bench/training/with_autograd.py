"""HIPS autograd, with the optimizers in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd
import autograd.numpy as anp

from bench.training.networks import Network, start
from bench.training.updates import UPDATES


def _loss(network: Network, layers: Any, x: Any, target: Any) -> Any:
    for i, (weight, bias) in enumerate(layers):
        x = anp.dot(x, weight) + bias
        if network.hidden == "sigmoid":
            x = 1 / (1 + anp.exp(-x))
        elif i < len(layers) - 1:
            x = anp.maximum(x, 0)
    if network.hidden == "sigmoid":
        return anp.mean((x - target) ** 2)
    z = x - anp.max(x, axis=1, keepdims=True)
    logs = anp.log(anp.sum(anp.exp(z), axis=1))
    return anp.mean(logs - z[anp.arange(len(target)), target])


def training_step(network: Network, optimizer: str) -> Callable[[], Any]:
    """A call that makes one step and returns the loss."""
    layers, x, target = start(network)
    update = UPDATES[optimizer]([array for layer in layers for array in layer])
    module: Any = autograd  # whose names are not declared
    both = module.value_and_grad(lambda p: _loss(network, p, x, target))

    def step() -> Any:
        loss, gradients = both(layers)
        update([array for layer in gradients for array in layer])
        return loss

    return step
