"""Layers that look things up or compare: Embedding, EmbeddingBag, Bilinear, RBF."""

from __future__ import annotations

import math
from typing import Any, Self

from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops.bilinear_forms import bilinear
from tensorgrad.ops.creation import empty
from tensorgrad.ops.elementwise import exp, square
from tensorgrad.ops.lookup import (
    check_mode,
    checked_padding,
    embedding,
    embedding_bag,
    limits,
)
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.random import Generator
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import expand_dims
from tensorgrad.tensor import Tensor

__all__ = ["RBF", "Bilinear", "Embedding", "EmbeddingBag"]


class _Table(Module):
    """What ``Embedding`` and ``EmbeddingBag`` share: a matrix with a row for each number."""

    _shown = ("num_embeddings", "embedding_dim")
    _output_argument = "embedding_dim"

    def _set(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = checked_padding(name, padding_idx, num_embeddings)
        self.max_norm, self.norm_type = limits(name, max_norm, norm_type)
        if sparse and scale_grad_by_freq:
            raise ValueError(f"{name}: scale_grad_by_freq needs dense gradients, not sparse=True")
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse

    def _draw(self, device: str | None, dtype: Any, generator: Generator | None) -> None:
        shape = (self.num_embeddings, self.embedding_dim)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **options: Any) -> Self:
        """A layer with these vectors, (num_embeddings, embedding_dim), whose memory is shared.

        freeze: whether they are not trained. options: as for the class.

        Raises ShapeError for what is no matrix.
        """
        if len(embeddings.shape) != 2:
            raise ShapeError(
                f"{cls.__name__}.from_pretrained: a matrix is needed, with a row for each number; "
                f"got shape {tuple(embeddings.shape)}"
            )
        make: Any = cls
        alone = Generator(0)  # nothing is drawn that others would miss
        layer: Self = make(1, 1, **{"generator": alone, **options, "padding_idx": None})
        layer.num_embeddings, layer.embedding_dim = embeddings.shape
        layer.padding_idx = checked_padding(
            cls.__name__, options.get("padding_idx"), layer.num_embeddings
        )
        given = embeddings if isinstance(embeddings, Tensor) else Tensor(embeddings)
        layer.weight = Parameter(given, requires_grad=not freeze)
        return layer

    def _check_input(self, input: Any) -> None:
        if getattr(input, "dtype", None) not in INTEGERS:
            raise DtypeError(
                f"{type(self).__name__}: the input must be a tensor of integers, numbers of "
                f"vectors; got {getattr(input, 'dtype', type(input).__name__)}"
            )

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if x.dtype in INTEGERS:
            return None
        return Misfit(
            None, f"the input must hold integers, not {x.dtype}",
            "check with an integer tensor, as model.check(tg.zeros((8, 5), dtype=tg.int64)), and "
            "convert the input with .astype(tg.int64)",
            None, self._shape_for(x.shape),
        )  # fmt: skip

    def _shape_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the output for an input of ``shape``."""
        return (*shape, self.weight.shape[1])

    def extra_repr(self) -> str:
        """The sizes, and what is not as usual."""
        parts = [f"{name}={getattr(self, name)}" for name in self._shown]
        usual = {
            "padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False,
            "mode": "mean", "sparse": False, "include_last_offset": False,
        }  # fmt: skip
        for name, value in usual.items():
            if getattr(self, name, value) != value:
                parts.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(parts)


class Embedding(_Table):
    """A vector for each of ``num_embeddings`` things, found by number.

    embedding_dim: the length of the vectors.
    padding_idx: a number whose vector begins at 0 and gets no gradient.
    max_norm, norm_type: vectors that are looked up are scaled to this norm first, if theirs is
        larger.
    scale_grad_by_freq: divide the gradient of a vector by how often it was looked up.
    sparse: keep the gradient as rows and their numbers (``SparseGradient``): ``SGD`` without
        momentum and decay, ``Adagrad`` and ``SparseAdam`` then update no others.
    device, dtype, generator: as in Linear. The vectors begin normally distributed.

    Raises ValueError for sizes that are not positive integers, a padding_idx out of range, or
    other options that ``nn.functional.embedding`` refuses.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        self._set(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq,
            sparse,
        )  # fmt: skip
        self._draw(device, dtype, generator)

    def forward(self, indices: Tensor) -> Tensor:
        """Integers of any shape -> (*shape, embedding_dim); a negative one counts from the end.

        Raises DtypeError for what are no integers, IndexError for one out of range (on the CPU).
        """
        self._check_input(indices)
        return embedding(
            indices, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse,
        )  # fmt: skip


class EmbeddingBag(_Table):
    """Vectors found by number, of which those of a bag are added, averaged, or the largest taken.

    mode: "sum", "mean" or "max".
    include_last_offset: the last offset given is where the last bag ends.
    The others are as in ``Embedding``; what ``padding_idx`` names counts as absent.

    Raises ValueError as ``Embedding``, and for another mode or options that it does not have.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        self._set(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq,
            sparse,
        )  # fmt: skip
        check_mode("EmbeddingBag", mode, sparse, scale_grad_by_freq)
        self.mode, self.include_last_offset = mode, include_last_offset
        self._draw(device, dtype, generator)

    def forward(
        self, input: Tensor, offsets: Any = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Integers (bags, length), or in a row with offsets -> (bags, embedding_dim).

        Raises as ``nn.functional.embedding_bag``.
        """
        self._check_input(input)
        return embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
            self.mode, self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if len(x.shape) == 2 or others:
            return super()._misfit(x, *others)
        return Misfit(
            None, f"the input must have two axes, a bag in each row, not {len(x.shape)}",
            "check with numbers of shape (bags, length), or call the layer with offsets",
            None, self._shape_for(x.shape),
        )  # fmt: skip

    def _shape_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:1], self.weight.shape[1])


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
        return bilinear(x1, x2, self.weight, self.bias)

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
