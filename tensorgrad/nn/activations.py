"""Activation functions as modules, for use in Sequential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.nn.module import Module
from tensorgrad.ops import activations as functions
from tensorgrad.ops import elementwise
from tensorgrad.tensor import Tensor

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Hardtanh",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]  # fmt: skip


def _module(name: str, function: Callable[[Any], Any]) -> type[Module]:
    """A module class that applies ``function``, which takes nothing but the input."""
    doc = (function.__doc__ or "").strip()

    def forward(self: Module, x: Tensor) -> Tensor:
        out: Tensor = function(x)
        return out

    forward.__doc__ = f"``{function.__name__}(x)``, of the shape of ``x``."
    body = {"forward": forward, "__doc__": doc, "__module__": __name__}
    return type(name, (Module,), body)


Sigmoid = _module("Sigmoid", elementwise.sigmoid)
Tanh = _module("Tanh", elementwise.tanh)
ReLU = _module("ReLU", functions.relu)
SELU = _module("SELU", functions.selu)
SiLU = _module("SiLU", functions.silu)
Softplus = _module("Softplus", functions.softplus)
Mish = _module("Mish", functions.mish)


class LeakyReLU(Module):
    """``x`` where positive, else ``negative_slope * x``."""

    _shown = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """``leaky_relu(x, negative_slope)``, of the shape of ``x``."""
        return functions.leaky_relu(x, self.negative_slope)


class ELU(Module):
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2016)."""

    _shown = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """``elu(x, alpha)``, of the shape of ``x``."""
        return functions.elu(x, self.alpha)


class GELU(Module):
    """``x * Phi(x)``, Phi being the normal distribution function (Hendrycks and Gimpel, 2016).

    approximate: "none", or "tanh" for the paper's approximation.
    """

    _shown = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f'GELU: approximate must be "none" or "tanh", got {approximate!r}')
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """``gelu(x, approximate)``, of the shape of ``x``."""
        return functions.gelu(x, self.approximate)


class Hardtanh(Module):
    """``x`` limited to [min_val, max_val]. Raises ValueError unless min_val < max_val."""

    _shown = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val must be below max_val, got {min_val}, {max_val}")
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, x: Tensor) -> Tensor:
        """``hardtanh(x, min_val, max_val)``, of the shape of ``x``."""
        return functions.hardtanh(x, self.min_val, self.max_val)


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along ``axis``, without overflow; each slice sums to 1."""

    _shown = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """``softmax(x, axis)``, of the shape of ``x``."""
        return functions.softmax(x, self.axis)


class LogSoftmax(Module):
    """``log(softmax(x))`` along ``axis``, without overflow."""

    _shown = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """``log_softmax(x, axis)``, of the shape of ``x``."""
        return functions.log_softmax(x, self.axis)


#: The name of an activation for ``bias_activation``, and its options.
FusedActivation = tuple[str, dict[str, float]]

_FUSED: dict[type[Module], str] = {
    Sigmoid: "sigmoid",
    Tanh: "tanh",
    ReLU: "relu",
    SiLU: "silu",
    Softplus: "softplus",
}


def fused(module: Module | None) -> FusedActivation | None:
    """What computes ``module`` together with the bias before it; ``None`` if nothing does.

    Nothing does for a class of the user's own, or where somebody watches what the module does.
    """
    if module is None or "forward" in vars(module):
        return None
    if type(module) is LeakyReLU:
        return "leaky_relu", {"negative_slope": module.negative_slope}
    if type(module) is ELU:
        return "elu", {"alpha": module.alpha}
    if type(module) is GELU:
        return ("gelu" if module.approximate == "none" else "gelu_tanh"), {}
    name = _FUSED.get(type(module))
    return None if name is None else (name, {})
