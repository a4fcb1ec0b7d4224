"""Parts of a data set: training, validation and test, and the k folds of cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad.data.datasets import Dataset, DatasetError, Subset
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor


def random_split(
    dataset: Dataset,
    lengths: Sequence[float],
    seed: int | Generator = 0,
    *,
    stratify: Any = None,
) -> list[Subset]:
    """Parts of a data set without common examples, chosen at random: train, validation, test.

    lengths: how many examples go into each part, which must sum to ``len(dataset)``; or fractions
        that sum to 1, as in ``(0.8, 0.1, 0.1)``, where each cut is rounded to an example.
    seed: the same seed gives the same parts; or a Generator to draw from.
    stratify: labels, one for each example; every part then holds the classes in about the
        proportion in which the whole does.

    Raises DatasetError if lengths or labels do not fit the data set.
    """
    bounds = _bounds(lengths, len(dataset))
    order = _order("random_split", len(dataset), seed, stratify)
    return [Subset(dataset, order[a:b]) for a, b in itertools.pairwise(bounds)]


def k_fold(
    dataset: Dataset,
    k: int,
    seed: int | Generator = 0,
    *,
    stratify: Any = None,
) -> list[tuple[Subset, Subset]]:
    """The k pairs (training, validation) of cross-validation.

    Each example is in one validation part and in the k - 1 other training parts; the validation
    parts differ by at most one example in size.

    k: how many parts, from 2 to ``len(dataset)``.
    seed, stratify: as for ``random_split``.

    Raises DatasetError if k or the labels do not fit the data set.
    """
    n = len(dataset)
    if not isinstance(k, int | np.integer) or not 2 <= k <= n:
        raise DatasetError(
            f"k_fold: k must be a whole number from 2 to {n}, the number of examples; got {k!r}"
        )
    parts = np.array_split(_order("k_fold", n, seed, stratify), k)
    return [
        (Subset(dataset, np.concatenate(parts[:i] + parts[i + 1 :])), Subset(dataset, part))
        for i, part in enumerate(parts)
    ]


def _order(name: str, n: int, seed: int | Generator, stratify: Any) -> ndarray[Any, Any]:
    """A random order of n examples, of which every run is a fair part if labels are given."""
    generator = seed if isinstance(seed, Generator) else Generator(seed)
    order: ndarray[Any, Any] = generator.permutation(n, device="cpu").data
    if stratify is None:
        return order
    labels = np.asarray(stratify.cpu().data if isinstance(stratify, Tensor) else stratify)
    if labels.shape != (n,):
        raise DatasetError(
            f"{name}: stratify must hold one label per example, shape ({n},); got {labels.shape}"
        )
    return order[interleaved(labels[order], generator)]


def _bounds(lengths: Sequence[float], n: int) -> list[int]:
    """The positions at which the parts begin, and n."""
    sums = list(itertools.accumulate(lengths, initial=0))
    if len(lengths) and all(x >= 0 for x in lengths):
        if sums[-1] == n and all(isinstance(x, int | np.integer) for x in lengths):
            return [int(x) for x in sums]
        if abs(sums[-1] - 1) < 1e-6:
            return [round(x * n) for x in sums]
    raise DatasetError(
        f"random_split: lengths must be numbers of examples that sum to {n}, or fractions that "
        f"sum to 1, as (0.8, 0.1, 0.1); got {tuple(lengths)}"
    )


def interleaved(labels: ndarray[Any, Any], generator: Generator) -> ndarray[Any, Any]:
    """An order in which every run of examples holds the classes in proportion.

    Member k of a class of m is placed at (k + s) / m of the way, with a shift s from 0 to 1 that
    is drawn for each class: so the only example of a class is as often in one run as in another
    of the same length. The shifts of all classes together are spread evenly.
    """
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    count = len(sizes)
    cells: ndarray[Any, Any] = generator.permutation(count, device="cpu").data
    within: ndarray[Any, Any] = generator.uniform((count,), dtype="float64", device="cpu").data
    shifts = (cells + within) / max(count, 1)
    grouped = np.argsort(which, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(labels))
    place[grouped] = (
        np.arange(len(labels)) - np.repeat(starts, sizes) + np.repeat(shifts, sizes)
    ) / np.repeat(sizes, sizes)
    return np.argsort(place, kind="stable")
