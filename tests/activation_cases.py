"""The activation functions with their values and derivatives in float64, written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorgrad as tg

Array = np.ndarray[Any, Any]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def phi(x: Array) -> Array:
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))


def tanh_part(x: Array) -> Array:
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def tanh_slope(x: Array) -> Array:
    t = tanh_part(x)
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


#: name -> the function, its options, its value and its derivative in float64
CASES: dict[str, tuple[Any, dict[str, Any], Callable[[Array], Array], Callable[[Array], Array]]] = {
    "sigmoid": (tg.sigmoid, {}, sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": (tg.tanh, {}, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": (tg.relu, {}, lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "leaky_relu": (
        tg.leaky_relu,
        {"negative_slope": 0.125},
        lambda x: np.where(x > 0, x, 0.125 * x),
        lambda x: np.where(x > 0, 1, 0.125),
    ),
    "elu": (
        tg.elu,
        {"alpha": 0.75},
        lambda x: np.where(x > 0, x, 0.75 * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, 0.75 * np.exp(np.minimum(x, 0))),
    ),
    "gelu": (
        tg.gelu,
        {},
        lambda x: x * phi(x),
        lambda x: phi(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    "gelu_tanh": (
        tg.gelu,
        {"approximate": "tanh"},
        lambda x: 0.5 * x * (1 + tanh_part(x)),
        tanh_slope,
    ),
    "silu": (
        tg.silu,
        {},
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
    ),
    "softplus": (tg.softplus, {}, lambda x: np.logaddexp(x, 0), sigmoid),
}
