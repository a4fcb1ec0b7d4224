"""What a contestant is to a record: something that trains parameters by a loss.

Losses are written once, over ``ops``: functions that have the same names in all frameworks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
#: The name of a parameter -> its value.
Parameters = Mapping[str, Array]
#: ``ops``, parameters, arrays of a batch -> the loss, or what a network says of them.
Function = Callable[..., Any]

OURS = "tensorgrad"
CONTESTANTS = (OURS, "torch", "torch fused", "torch compiled", "jax")
#: Those who compile, and keep what they made.
COMPILERS = (OURS, "torch compiled", "jax")


class Adam(NamedTuple):
    """What Adam (Kingma and Ba, 2015) is told; the rate is told in each step."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class Training(Protocol):
    """Parameters, and the compiled or plain functions of them."""

    def step(self, rate: float, *batch: Array) -> Any:
        """One step of the optimizer. The loss before it, for ``float``."""

    def outputs(self, *inputs: Array) -> Array:
        """What the network says, without gradients."""

    def values(self) -> dict[str, Array]:
        """Copies of the parameters."""

    def take(self, values: Parameters) -> None:
        """Give the parameters these values."""


class Maker(Protocol):
    """Makes a ``Training``."""

    def __call__(
        self,
        parameters: Parameters,
        loss: Function,
        outputs: Function,
        adam: Adam | None = ...,
        programs: int = ...,
    ) -> Training:
        """adam: None for plain gradient descent.

        programs: for how many shapes of batches a compiler should keep what it made.
        """


def maker(contestant: str) -> Maker:
    """That of a contestant; imports its framework."""
    framework, _, how = contestant.partition(" ")
    module = importlib.import_module(f"bench.records.with_{framework}")
    found: Maker = getattr(module, how or "training")
    return found
