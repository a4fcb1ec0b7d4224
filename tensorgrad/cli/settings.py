"""The settings of ``tensorgrad train``: what may be chosen, and what is taken if nothing is."""

from __future__ import annotations

from typing import Any

#: Option -> value if it is not given. None: not used, or decided by the data or the optimizer.
DEFAULTS: dict[str, Any] = {
    "data": None,
    "batch_size": 32,
    "hidden": [128],
    "activation": "relu",
    "init": "he",
    "dropout": 0.2,
    "epochs": 60,
    "optimizer": "adam",
    "lr": None,
    "momentum": None,
    "l1": 0.0,
    "l2": 0.0,
    "patience": 10,
    "seed": 0,
    "device": None,
    "out": None,
    "compile": True,
}

#: Name on the command line -> class in tensorgrad.nn.
ACTIVATIONS = {
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "gelu": "GELU",
    "leaky-relu": "LeakyReLU",
    "elu": "ELU",
    "silu": "SiLU",
}

#: Name on the command line -> class in tensorgrad.optim, and its learning rate if none is given.
OPTIMIZERS = {
    "sgd": ("SGD", 0.1),
    "adam": ("Adam", 2e-3),
    "adamw": ("AdamW", 2e-3),
    "rmsprop": ("RMSprop", 1e-3),
    "adagrad": ("Adagrad", 2e-2),
}

INITS = ("he", "xavier", "small-uniform")
