"""Activation functions as modules, for use in Sequential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.dtypes import get_default_dtype
from tensorgrad.errors import ShapeError
from tensorgrad.nn.fit import Misfit, channels
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops import activations as functions
from tensorgrad.ops import elementwise
from tensorgrad.ops import further_activations as further
from tensorgrad.ops.creation import full
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
    "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SiLU",
    "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh",
    "Tanhshrink", "Threshold",
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
Mish = _module("Mish", functions.mish)
ReLU6 = _module("ReLU6", further.relu6)
Hardsigmoid = _module("Hardsigmoid", further.hardsigmoid)
Hardswish = _module("Hardswish", further.hardswish)
LogSigmoid = _module("LogSigmoid", further.logsigmoid)
Softsign = _module("Softsign", further.softsign)
Tanhshrink = _module("Tanhshrink", further.tanhshrink)


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` where ``beta * x`` is above ``threshold``.

    Raises ValueError for ``beta`` 0.
    """

    _shown = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        if not beta:
            raise ValueError("Softplus: beta must not be 0, by which the result is divided")
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """``softplus(x, beta, threshold)``, of the shape of ``x``."""
        return functions.softplus(x, self.beta, self.threshold)


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


class CELU(Module):
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)`` (Barron, 2017).

    Raises ValueError for ``alpha`` 0.
    """

    _shown = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        if not alpha:
            raise ValueError("CELU: alpha must not be 0, by which x is divided")
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """``celu(x, alpha)``, of the shape of ``x``."""
        return further.celu(x, self.alpha)


class Hardshrink(Module):
    """``x``, and 0 within [-lambd, lambd]."""

    _shown = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        """``hardshrink(x, lambd)``, of the shape of ``x``."""
        return further.hardshrink(x, self.lambd)


class Softshrink(Module):
    """``x`` nearer to 0 by ``lambd``, and 0 within [-lambd, lambd].

    Raises ValueError for a negative ``lambd``.
    """

    _shown = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd
        further.not_negative("Softshrink", "lambd", lambd)

    def forward(self, x: Tensor) -> Tensor:
        """``softshrink(x, lambd)``, of the shape of ``x``."""
        return further.softshrink(x, self.lambd)


class Threshold(Module):
    """``x`` where it is above ``threshold``, else ``value``."""

    _shown = ("threshold", "value")

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = threshold
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """``threshold(x, threshold, value)``, of the shape of ``x``."""
        return further.threshold(x, self.threshold, self.value)


class PReLU(Module):
    """``x`` where positive, else ``weight * x``, with a slope that is learned (He et al., 2015).

    num_parameters: 1 for one slope, or the size of axis 1 for one each.
    init: where the slopes begin. device, dtype: of the slopes; the defaults if ``None``.

    Raises ValueError for a number that is no positive integer.
    """

    _shown = ("num_parameters",)

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        check_sizes("PReLU", num_parameters=num_parameters)
        self.num_parameters = num_parameters
        wanted = get_default_dtype() if dtype is None else dtype
        self.weight = Parameter(full((num_parameters,), init, dtype=wanted, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``prelu(x, weight)``, of the shape of ``x``."""
        return further.prelu(x, self.weight)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if self.num_parameters == 1:
            return None
        n = self.num_parameters
        return channels(x, "num_parameters", n, range(2, 65), "(N, {}, ...)")


class RReLU(Module):
    """``x`` where positive, else ``slope * x`` (Xu et al., 2015).

    In training each slope is drawn from [lower, upper); after ``eval()`` it is their middle.
    generator: the source of the slopes; the default one if ``None``.

    Raises ValueError if ``lower`` is above ``upper``.
    """

    _shown = ("lower", "upper")

    def __init__(
        self, lower: float = 1.0 / 8.0, upper: float = 1.0 / 3.0, generator: Generator | None = None
    ) -> None:
        further.check_limits("RReLU", lower, upper)
        self.lower = lower
        self.upper = upper
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """``rrelu(x, lower, upper)``, of the shape of ``x``."""
        return further.rrelu(x, self.lower, self.upper, self.training, generator=self.generator)


class GLU(Module):
    """``a * sigmoid(b)``, a and b being the halves of ``x`` along ``axis``."""

    _shown = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """``glu(x, axis)``, half as large along ``axis``. Raises ShapeError for an odd size."""
        return further.glu(x, self.axis)


class Softmin(Module):
    """``softmax(-x)`` along ``axis``."""

    _shown = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """``softmin(x, axis)``, of the shape of ``x``."""
        return further.softmin(x, self.axis)


class Softmax2d(Module):
    """``softmax`` over the channels of images, for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W) or (C, H, W), in its shape. Raises ShapeError for another."""
        if len(x.shape) not in (3, 4):
            raise ShapeError(
                f"Softmax2d: the input must have shape (N, C, H, W) or (C, H, W), got {x.shape}"
            )
        return functions.softmax(x, -3)


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
    if type(module) is Softplus:
        return ("softplus", {}) if (module.beta, module.threshold) == (1.0, 20.0) else None
    name = _FUSED.get(type(module))
    return None if name is None else (name, {})
