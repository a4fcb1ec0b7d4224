"""The networks that are trained, and their initial weights and data, the same for everyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron, or a block of attention, and its batch.

    hidden: "relu", or "gelu" after a layer normalization (both with cross-entropy at the end);
        "sigmoid" (with sigmoids throughout and the mean squared error at the end); "attention":
        queries, keys, values and the way out, each as wide as the input, and the mean squared
        error at the end.
    heads, positions: of attention.
    """

    sizes: tuple[int, ...]
    batch: int
    hidden: str = "relu"
    heads: int = 4
    positions: int = 64

    @property
    def labelled(self) -> bool:
        """Whether the target is a class for each example."""
        return self.hidden in ("relu", "gelu")


NETWORKS = {
    "2-8-1": Network((2, 8, 1), 4, "sigmoid"),
    "64-32-10": Network((64, 32, 10), 32),
    "784-128-10": Network((784, 128, 10), 64),
    "100 x 64": Network((64,) * 100 + (10,), 32),
    "784-512-512-10": Network((784, 512, 512, 10), 128),
    "1024-2048-2048-1000": Network((1024, 2048, 2048, 1000), 512),
}

#: Beside those, in the section of compiled steps.
MODERN = {
    "layer norm, GELU 32-64-10": Network((32, 64, 10), 16, "gelu"),
    "attention": Network((128,) * 5, 8, "attention"),
}


def built(framework: Any, nn: Any, attention: Any, network: Network, layers: list[Any]) -> Any:
    """The network as modules, for frameworks whose modules have PyTorch's names.

    framework: has ``no_grad`` and ``tensor``. attention: makes a block of four linears and the
        number of heads.
    """
    linears: list[Any] = []
    with framework.no_grad():
        for weight, bias in layers:
            linears.append(nn.Linear(*weight.shape))
            linears[-1].weight.copy_(framework.tensor(weight).T)
            linears[-1].bias.copy_(framework.tensor(bias))
    if network.hidden == "attention":
        return attention(linears, network.heads)
    modules: list[Any] = []
    for linear in linears:
        modules.append(linear)
        if network.hidden == "sigmoid":
            modules.append(nn.Sigmoid())
        elif linear is not linears[-1]:
            if network.hidden == "gelu":
                modules += [nn.LayerNorm(linear.weight.shape[0]), nn.GELU()]
            else:
                modules.append(nn.ReLU())
    return nn.Sequential(*modules)


#: Learning rates, small enough for all the networks above.
MOMENTUM_RATE, MOMENTUM = 0.01, 0.9
ADAM_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


class Start(NamedTuple):
    """Where training begins: layers of (weight with a row per input, bias), and one batch.

    ``target`` holds class numbers, or the values wanted.
    """

    layers: list[tuple[Array, Array]]
    x: Array
    target: Array


def start(network: Network) -> Start:
    """Fresh arrays, the same at every call."""
    draw = np.random.default_rng(0)
    gain = 2.0 if network.hidden == "relu" else 1.0
    layers = [
        (
            (draw.standard_normal((m, n)) * (gain / m) ** 0.5).astype(np.float32),
            np.zeros(n, np.float32),
        )
        for m, n in zip(network.sizes[:-1], network.sizes[1:], strict=True)
    ]
    if network.hidden == "sigmoid":
        x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        return Start(layers, x, np.array([[0], [1], [1], [0]], np.float32))
    if network.hidden == "attention":
        shape = (network.batch, network.positions, network.sizes[0])
        x, target = draw.standard_normal((2, *shape)).astype(np.float32)
        return Start(layers, x, target)
    x = draw.standard_normal((network.batch, network.sizes[0])).astype(np.float32)
    return Start(layers, x, draw.integers(0, network.sizes[-1], network.batch))
