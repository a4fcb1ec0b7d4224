"""NumPy by hand: the floor. No engine over NumPy can do with fewer calls and less memory.

All parameters lie in one array and all gradients in another, so that an update is a few calls
however many layers there are; every result goes into memory that was allocated beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np

from bench.training.networks import Array, Network, start
from bench.training.updates import UPDATES


def _flat(layers: list[tuple[Array, Array]]) -> tuple[Array, list[tuple[Array, Array]]]:
    """One array for all parameters, and its parts as they are shaped in ``layers``."""
    arrays = [array for layer in layers for array in layer]
    ends = list(accumulate(a.size for a in arrays))
    flat = np.concatenate([a.ravel() for a in arrays])
    parts = [flat[end - a.size : end].reshape(a.shape) for a, end in zip(arrays, ends)]
    return flat, list(zip(parts[::2], parts[1::2]))


def training_step(network: Network, optimizer: str) -> Callable[[], Any]:
    """A call that makes one step and returns the loss."""
    begin = start(network)
    x, target = begin.x, begin.target
    flat, layers = _flat(begin.layers)
    flat_gradient, gradients = _flat(begin.layers)
    update = UPDATES[optimizer]([flat])
    batch = len(x)
    outputs = [np.empty((batch, n), np.float32) for n in network.sizes[1:]]
    deltas = [np.empty_like(y) for y in outputs]
    masks = [np.empty(y.shape, np.bool_) for y in outputs]
    ones = np.ones(batch, np.float32)
    rows = np.arange(batch)
    sigmoids = network.hidden == "sigmoid"

    def sigmoid_in_place(y: Array) -> None:
        np.negative(y, out=y)
        np.exp(y, out=y)
        np.add(y, 1, out=y)
        np.reciprocal(y, out=y)

    def mean_squared_error(y: Array, d: Array) -> Any:
        np.subtract(y, target, out=d)
        loss = np.dot(d.ravel(), d.ravel()) / d.size
        np.multiply(d, 2 / d.size, out=d)
        return loss

    def cross_entropy(y: Array, d: Array) -> Any:
        np.subtract(y, y.max(axis=1, keepdims=True), out=y)
        np.exp(y, out=d)
        sums = d.sum(axis=1, keepdims=True)
        loss = (np.log(sums).sum() - y[rows, target].sum()) / batch
        np.multiply(sums, batch, out=sums)
        np.divide(d, sums, out=d)
        d[rows, target] -= 1 / batch
        return loss

    def step() -> Any:
        value = x
        for i, ((weight, bias), y) in enumerate(zip(layers, outputs)):
            np.matmul(value, weight, out=y)
            np.add(y, bias, out=y)
            if sigmoids:
                sigmoid_in_place(y)
            elif i < len(layers) - 1:
                np.maximum(y, 0, out=y)
            value = y
        loss = (mean_squared_error if sigmoids else cross_entropy)(value, deltas[-1])
        for i in range(len(layers) - 1, -1, -1):
            y, d = outputs[i], deltas[i]
            if sigmoids:
                np.multiply(d, y, out=d)
                np.subtract(1, y, out=y)
                np.multiply(d, y, out=d)
            elif i < len(layers) - 1:
                np.greater(y, 0, out=masks[i])
                np.multiply(d, masks[i], out=d)
            np.matmul((outputs[i - 1] if i else x).T, d, out=gradients[i][0])
            np.dot(ones, d, out=gradients[i][1])
            if i:
                np.matmul(d, layers[i][0].T, out=deltas[i - 1])
        update([flat_gradient])
        return loss

    return step
