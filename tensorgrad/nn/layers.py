"""The basic layers: Linear, Dropout, Flatten, Unflatten, Identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.activations import FusedActivation
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops.activations import linear_activation
from tensorgrad.ops.creation import empty
from tensorgrad.ops.linear_algebra import linear
from tensorgrad.ops.random import Generator, dropout
from tensorgrad.ops.shaping import flatten, normalize_axis
from tensorgrad.tensor import Tensor

__all__ = ["Dropout", "Flatten", "Identity", "Linear", "Unflatten"]


class Linear(Module):
    """``y = x @ weight.T + bias``: from shape (..., in_features) to (..., out_features).

    bias: False for a layer without.
    device, dtype: of the parameters; the defaults if ``None``.
    generator: the source of the initial values; the default one if ``None``.

    weight (out_features, in_features) and bias (out_features,) begin spread evenly over
    ``1 / sqrt(in_features)`` to both sides of 0, as in PyTorch: Kaiming's with a = sqrt(5).

    Raises ValueError for sizes that are not positive integers.
    """

    _output_argument = "out_features"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty((out_features, in_features), device=device, dtype=dtype))
        self.bias = Parameter(empty((out_features,), device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        if self.bias is not None:
            limit = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -limit, limit, generator=generator)

    def forward(self, x: Tensor, activation: FusedActivation | None = None) -> Tensor:
        """``x`` (..., in_features) -> (..., out_features).

        activation: what ``fused`` says of an activation module to come, applied here in one pass
            with the bias.
        """
        if activation is not None and self.bias is not None:
            name, options = activation
            return linear_activation(x, self.weight, self.bias, name, **options)
        return linear(x, self.weight, self.bias)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "in_features", self.in_features, self.out_features)

    def extra_repr(self) -> str:
        """The sizes, and whether there is a bias."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Identity(Module):
    """Returns its input. Any arguments are taken, so that it can stand in for another module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        """``x``."""
        return x


class Flatten(Module):
    """Makes one axis of those from ``start_axis`` to ``end_axis``; the batch stays by default."""

    _shown = ("start_axis", "end_axis")

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis = start_axis
        self.end_axis = end_axis

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, a, b, ...) -> (N, a * b * ...)."""
        return flatten(x, self.start_axis, self.end_axis)


class Unflatten(Module):
    """Makes several axes of one.

    axis: which one. unflattened_size: their sizes; one of them may be -1, for what is left.
    """

    _shown = ("axis", "unflattened_size")

    def __init__(self, axis: int, unflattened_size: Sequence[int]) -> None:
        sizes = tuple(unflattened_size)
        if not sizes or sizes.count(-1) > 1 or not all(type(n) is int and n >= -1 for n in sizes):
            raise ValueError(
                "Unflatten: unflattened_size must have integers, of which one may be -1; got "
                f"{unflattened_size!r}"
            )
        self.axis = axis
        self.unflattened_size = sizes

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., a * b, ...) -> (..., a, b, ...).

        Raises ShapeError if the sizes do not fit.
        """
        axis = normalize_axis("Unflatten", self.axis, x)
        sizes, n = self.unflattened_size, x.shape[axis]
        known = math.prod(k for k in sizes if k != -1)
        if known == 0 or n % known if -1 in sizes else known != n:
            raise ShapeError(
                f"Unflatten: the product of {sizes} must be the size of axis {axis} of the input, "
                f"{n}; got shape {x.shape}"
            )
        whole = tuple([n // known if k == -1 else k for k in sizes])
        return x.reshape((*x.shape[:axis], *whole, *x.shape[axis + 1 :]))


class Dropout(Module):
    """In training, sets each element to 0 with probability ``p`` and scales the others up.

    p: the probability, in [0, 1].
    generator: the source of the masks; the default one if ``None``.

    Srivastava et al., 2014, in the form that scales by 1 / (1 - p) in training and leaves ``eval``
    alone. Raises ValueError for another ``p``.
    """

    _shown = ("p",)

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must lie in [0, 1], got {p!r}")
        self.p = p
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with elements left out; ``x`` itself after ``eval()``."""
        return dropout(x, self.p, self.training, generator=self.generator)
