"""Layers that look things up or compare: Embedding, Bilinear, RBF."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.dtypes import INTEGERS, int64
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops.creation import empty
from tensorgrad.ops.elementwise import exp, square, where
from tensorgrad.ops.linear_algebra import einsum
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.random import Generator
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import expand_dims
from tensorgrad.tensor import Tensor

__all__ = ["RBF", "Bilinear", "Embedding"]


class Embedding(Module):
    """A vector for each of ``num_embeddings`` things, found by number.

    embedding_dim: the length of the vectors.
    padding_idx: a number whose vector begins at 0 and gets no gradient.
    device, dtype, generator: as in Linear. The vectors begin normally distributed.

    Raises ValueError for sizes that are not positive integers, or a padding_idx out of range.
    """

    _shown = ("num_embeddings", "embedding_dim", "padding_idx")
    _output_argument = "embedding_dim"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx must be one of {num_embeddings} numbers, got "
                    f"{padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        shape = (num_embeddings, embedding_dim)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])

    def forward(self, indices: Tensor) -> Tensor:
        """Integers of any shape -> (*shape, embedding_dim); a negative one counts from the end.

        Raises DtypeError for what are no integers, IndexError for one out of range (on the CPU).
        """
        if getattr(indices, "dtype", None) not in INTEGERS:
            raise DtypeError(
                "Embedding: the input must be a tensor of integers, numbers of vectors; got "
                f"{getattr(indices, 'dtype', type(indices).__name__)}"
            )
        found = self.weight[indices]
        if self.padding_idx is None:
            return found
        number = indices.astype(int64)  # in which the count of all vectors has room
        number = where(number < 0, number + self.num_embeddings, number)
        keep = (number != self.padding_idx).reshape(*indices.shape, 1)
        return where(keep, found, found.detach())

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if x.dtype in INTEGERS:
            return None
        return Misfit(
            None, f"the input must hold integers, not {x.dtype}",
            "check with an integer tensor, as model.check(tg.zeros((8, 5), dtype=tg.int64)), and "
            "convert the input with .astype(tg.int64)",
            None, (*x.shape, self.weight.shape[1]),
        )  # fmt: skip


class Bilinear(Module):
    """``y[o] = x1 @ weight[o] @ x2 + bias[o]``: products of two inputs.

    in1_features, in2_features, out_features: the sizes of the last axes.
    bias, device, dtype, generator: as in Linear. Both parameters begin spread evenly over
    ``1 / sqrt(in1_features)`` to both sides of 0, as in PyTorch.

    Raises ValueError for sizes that are not positive integers.
    """

    _shown = ("in1_features", "in2_features", "out_features")
    _output_argument = "out_features"

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes(
            "Bilinear",
            in1_features=in1_features,
            in2_features=in2_features,
            out_features=out_features,
        )
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        shape = (out_features, in1_features, in2_features)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.bias = Parameter(empty((out_features,), device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        limit = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -limit, limit, generator=generator)
        if self.bias is not None:
            init.uniform_(self.bias, -limit, limit, generator=generator)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., in1_features) and (..., in2_features) -> (..., out_features)."""
        y = einsum("...i,oij,...j->...o", x1, self.weight, x2)
        return y if self.bias is None else y + self.bias

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if len(others) != 1 or not isinstance(others[0], Tensor):
            return None
        out, in1, in2 = self.weight.shape
        first = last_axis(x, "in1_features", in1, out)
        return first or last_axis(others[0], "in2_features", in2, out)


class RBF(Module):
    """Radial basis functions: ``exp(-beta[k] * |x - centers[k]|**2)``.

    in_features: the size of the last axis. num_centers: how many functions there are.
    beta: where their widths begin; the widths are trained as well.
    device, dtype, generator: as in Linear. The centers begin normally distributed.

    Source: Broomhead and Lowe, 1988. Raises ValueError for sizes that are not positive integers,
    or a beta that is not positive.
    """

    _shown = ("in_features", "num_centers")
    _output_argument = "num_centers"

    def __init__(
        self,
        in_features: int,
        num_centers: int,
        beta: float = 1.0,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("RBF", in_features=in_features, num_centers=num_centers)
        if beta <= 0:
            raise ValueError(f"RBF: beta must be above 0, got {beta!r}")
        self.in_features, self.num_centers = in_features, num_centers
        shape = (num_centers, in_features)
        self.centers = Parameter(empty(shape, device=device, dtype=dtype))
        self.beta = Parameter(empty((num_centers,), device=device, dtype=dtype))
        init.normal_(self.centers, generator=generator)
        init.constant_(self.beta, beta)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., in_features) -> (..., num_centers), in (0, 1]."""
        if not x.shape or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"RBF: the last axis of the input must have size {self.in_features}, got {x.shape}"
            )
        return _radial(x, self.centers, self.beta)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "in_features", self.in_features, len(self.beta))


@in_float32
def _radial(x: Tensor, centers: Tensor, beta: Tensor) -> Tensor:
    apart = expand_dims(x, -2) - centers
    return exp(-beta * total(square(apart), axis=-1))
