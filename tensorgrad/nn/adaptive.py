"""The softmax of very many classes, in which frequent ones cost less than rare ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn.containers import ModuleList, Sequential
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.ops.activations import log_softmax
from tensorgrad.ops.indexing import scatter_add, take_along_axis
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import concat, reshape
from tensorgrad.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class AdaptiveOutput(NamedTuple):
    """What ``AdaptiveLogSoftmaxWithLoss`` gives: log-probabilities of the labels, and the loss."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log-softmax of many classes, ordered by frequency, in clusters; and its mean loss.

    in_features: the size of the inputs. n_classes: how many classes there are, the frequent ones
        first.
    cutoffs: where the clusters end: [10, 100] puts classes 0 to 9 into the head, which every input
        is compared with, 10 to 99 into one cluster and the others into another.
    div_value: by so much the inputs get narrower from one cluster to the next.
    head_bias: whether the head has a bias.
    device, dtype, generator: as in Linear.

    A cluster is computed for the inputs alone whose label is in it: their number depends on the
    labels, so that a program cannot contain it. On a GPU it waits for the labels.
    Source: Grave and others, "Efficient softmax approximation for GPUs", 2017.
    Raises ValueError for cutoffs that do not rise from above 0 to below ``n_classes``.
    """

    _output_argument = "n_classes"

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        name = "AdaptiveLogSoftmaxWithLoss"
        check_sizes(name, in_features=in_features, n_classes=n_classes)
        ends = [*cutoffs, n_classes]
        whole = all(isinstance(end, int) for end in ends)
        if not whole or len(ends) < 2 or any(a >= b for a, b in pairwise([0, *ends])):
            raise ValueError(
                f"{name}: cutoffs must be integers that rise from above 0 to below n_classes, "
                f"{n_classes}; got {list(cutoffs)}"
            )
        if div_value <= 0:
            raise ValueError(f"{name}: div_value must be above 0, got {div_value!r}")
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs, self.div_value, self.head_bias = ends, div_value, head_bias
        options: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.head = Linear(in_features, ends[0] + len(ends) - 1, head_bias, **options)
        self.tail = ModuleList()
        for k, (start, end) in enumerate(pairwise(ends), 1):
            narrow = int(in_features // div_value**k)
            if not narrow:
                raise ValueError(
                    f"{name}: cluster {k} would have inputs of size 0: {in_features} divided by "
                    f"{div_value}**{k}; take fewer cutoffs or a smaller div_value"
                )
            parts = (
                Linear(in_features, narrow, False, **options),
                Linear(narrow, end - start, False, **options),
            )
            self.tail.append(Sequential(*parts))

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters(generator)

    def forward(self, input: Tensor, target: Any) -> AdaptiveOutput:
        """The log-probabilities of the labels, and the mean of their negatives.

        input: shape (N, in_features), or (in_features,). target: labels, integers of shape (N,), or
        (). Raises ShapeError, DtypeError for others, IndexError for a label out of range.
        """
        target = target if isinstance(target, Tensor) else Tensor(target, device=input.device)
        shape, batch = target.shape, input.shape[:-1]
        if len(shape) > 1 or batch != shape or input.shape[-1:] != (self.in_features,):
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: input must have shape (N, {self.in_features}) and "
                f"target (N,), or ({self.in_features},) and (); got {input.shape} and {shape}"
            )
        if target.dtype not in INTEGERS:
            raise DtypeError(f"AdaptiveLogSoftmaxWithLoss: labels are integers; got {target.dtype}")
        x = reshape(input, (-1, self.in_features))
        labels = target.cpu().numpy().reshape(-1).astype(np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < self.n_classes:
            raise IndexError(f"a label must lie between 0 and {self.n_classes - 1}; got {labels}")
        clusters = np.searchsorted(self.cutoffs, labels, "right")
        first = self.cutoffs[0]
        found = self._picked(self.head(x), np.where(clusters, first + clusters - 1, labels))
        for k, (start, part) in enumerate(zip(self.cutoffs, self.tail), 1):
            (rows,) = np.nonzero(clusters == k)
            if rows.size:
                within = self._picked(part(x[rows]), labels[rows] - start)
                found = scatter_add(found, Tensor(rows, device=x.device), within, 0)
        return AdaptiveOutput(reshape(found, shape), -found.mean())

    @staticmethod
    def _picked(logits: Tensor, labels: Any) -> Tensor:
        """The log-probability of each row's label."""
        at = Tensor(labels[:, None], device=logits.device)
        return reshape(take_along_axis(log_softmax(logits, axis=1), at, axis=1), (-1,))

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes, shape (N, n_classes), for inputs (N, in_features).

        It computes every cluster for every input.
        """
        head = log_softmax(self.head(input), axis=-1)
        first = self.cutoffs[0]
        parts = [head[..., :first]]
        for k, part in enumerate(self.tail):
            own = head[..., first + k : first + k + 1]
            parts.append(log_softmax(part(input), axis=-1) + own)
        return concat(parts, axis=-1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of each input."""
        return self.log_prob(input).argmax(axis=-1)

    def extra_repr(self) -> str:
        """The sizes and the ends of the clusters."""
        return (
            f"in_features={self.in_features}, n_classes={self.n_classes}, "
            f"cutoffs={self.cutoffs[:-1]}, div_value={self.div_value}"
        )
