"""Samplers: which examples an epoch goes through, and in which order."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from tensorgrad.data.datasets import DatasetError
from tensorgrad.data.splits import interleaved
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor


class Sampler(Protocol):
    """What ``DataLoader(sampler=...)`` needs."""

    def __len__(self) -> int:
        """The number of examples in an epoch."""

    def order(self, generator: Generator) -> ndarray[Any, Any]:
        """The positions of the examples of an epoch, integers [len], drawn from ``generator``."""


class WeightedSampler:
    """Draws each example with a probability in proportion to its weight.

    weights: numbers from 0, one for each example, [n].
    num_samples: how many are drawn in an epoch; n if left out.
    replacement: whether an example can be drawn again. Without it, the method is the one of
        Efraimidis and Spirakis (2006), "Weighted random sampling with a reservoir".

    ``WeightedSampler.balanced(labels)`` gives every class the same share.

    Raises DatasetError for weights that are negative, not finite or all 0, or too few of them.
    """

    def __init__(
        self, weights: Any, num_samples: int | None = None, replacement: bool = True
    ) -> None:
        self.weights = np.asarray(_host(weights), np.float64)
        if (
            self.weights.ndim != 1
            or not np.isfinite(self.weights).all()
            or not self.weights.sum() > 0
            or self.weights.min() < 0
        ):
            raise DatasetError(
                "WeightedSampler: weights must be one number from 0 for each example, not all 0; "
                f"got shape {self.weights.shape}"
            )
        self.examples = len(self.weights)  # of the data set it is for
        self.num_samples = self.examples if num_samples is None else num_samples
        self.replacement = replacement
        positive = int((self.weights > 0).sum())
        whole = isinstance(self.num_samples, int | np.integer)
        if (
            not whole
            or isinstance(self.num_samples, bool)
            or self.num_samples < 1
            or (not replacement and self.num_samples > positive)
        ):
            raise DatasetError(
                "WeightedSampler: num_samples must be a whole number from 1"
                + ("" if replacement else f" to {positive}, the number of weights above 0")
                + f"; got {num_samples}"
            )

    @classmethod
    def balanced(cls, labels: Any, num_samples: int | None = None) -> WeightedSampler:
        """Weights with which every class is drawn equally often. labels: [n]."""
        _, which, counts = np.unique(_host(labels), return_inverse=True, return_counts=True)
        return cls(1.0 / counts[which], num_samples)

    def __len__(self) -> int:
        return self.num_samples

    def order(self, generator: Generator) -> ndarray[Any, Any]:
        """Positions drawn from ``generator``."""
        if self.replacement:
            sums = np.cumsum(self.weights)
            drawn = generator.uniform((self.num_samples,), dtype="float64", device="cpu")
            found = np.searchsorted(sums, drawn.data * sums[-1], side="right")
            last = int(np.flatnonzero(self.weights)[-1])  # rounding must not lead beyond it
            return np.minimum(found, last)
        drawn = generator.uniform((len(self.weights),), dtype="float64", device="cpu")
        with np.errstate(divide="ignore"):
            keys = -np.log1p(-drawn.data) / self.weights  # an exponential race: the smallest win
        return np.argsort(keys, kind="stable")[: self.num_samples]


class StratifiedSampler:
    """Goes through all examples in a random order in which every batch holds a fair share.

    labels: the class of each example, [n]. Any stretch of the order contains the classes in about
        the proportion in which the whole does.
    """

    def __init__(self, labels: Any) -> None:
        self.labels: ndarray[Any, Any] = np.array(_host(labels))
        if self.labels.ndim != 1:
            raise DatasetError(
                f"StratifiedSampler: labels must have shape (n,); got {self.labels.shape}"
            )
        self.examples = len(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, generator: Generator) -> ndarray[Any, Any]:
        """Positions drawn from ``generator``."""
        order: ndarray[Any, Any] = generator.permutation(len(self), device="cpu").data
        return order[interleaved(self.labels[order], generator)]


def _host(values: Any) -> Any:
    return values.cpu().data if isinstance(values, Tensor) else values
