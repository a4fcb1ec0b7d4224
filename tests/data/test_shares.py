"""Shares of classes in parts, folds and batches, over many seeds: rare classes above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import (
    DataLoader,
    DatasetError,
    StratifiedSampler,
    TensorDataset,
    WeightedSampler,
    k_fold,
    random_split,
)
from tensorgrad.ops.random import Generator

LABELS = np.repeat([0, 1, 2, 3, 4], [89, 5, 3, 2, 1])
SHARES = (0.7, 0.15, 0.15)


def counts(indices: Any) -> Any:
    """How many examples of each class there are."""
    return np.bincount(LABELS[indices], minlength=5)


def split(seed: int) -> list[Any]:
    return [part.indices for part in random_split(range(100), SHARES, seed, stratify=LABELS)]


def folds(seed: int) -> list[Any]:
    return [part.indices for _, part in k_fold(range(100), 5, seed, stratify=LABELS)]


def batches(seed: int) -> list[Any]:
    return np.split(StratifiedSampler(LABELS).order(Generator(seed)), [20, 50])


@pytest.mark.parametrize(
    ("parts", "shares"),
    [(split, SHARES), (folds, (0.2,) * 5), (batches, (0.2, 0.3, 0.5))],
    ids=["split", "folds", "batches"],
)
def test_every_part_gets_its_share_of_every_class(
    parts: Callable[[int], list[Any]], shares: tuple[float, ...]
) -> None:
    """In each draw up to an example or so, and on average exactly: also of a class of one."""
    draws = 1200
    total = np.zeros((len(shares), 5))
    for seed in range(draws):
        found = np.array([counts(part) for part in parts(seed)])
        expected = np.outer(shares, np.bincount(LABELS))
        off = np.abs(found - expected)
        assert off[:, 1:].max() <= 1.5
        assert off.max() <= 3  # the frequent class makes up for the others
        assert found.sum() == 100
        total += found
    # Five standard deviations of a share that is drawn independently, which these are not quite.
    for part, share in zip(total / draws, shares, strict=True):
        for mean, size in zip(part, np.bincount(LABELS), strict=True):
            assert abs(mean - share * size) < 5 * np.sqrt(
                share * (1 - share) * min(size, 5) / draws
            )


def test_many_classes_of_one_example_are_spread() -> None:
    """They do not all go into the same part."""
    labels = np.r_[np.zeros(80, int), np.arange(1, 21)]
    for seed in range(50):
        for part, share in zip(random_split(range(100), SHARES, seed, stratify=labels), SHARES):
            assert abs((labels[part.indices] > 0).sum() - 20 * share) <= 2


@pytest.mark.parametrize("replacement", [True, False])
def test_weighted_draws_have_the_shares_of_their_weights(replacement: bool) -> None:
    """Over many epochs: what is drawn first, and with replacement also all the rest."""
    weights = np.array([1.0, 2.0, 0.0, 3.0, 4.0])
    sampler = WeightedSampler(weights, 4, replacement)
    draws = 4000
    first = np.zeros(5)
    last = np.zeros(5)
    for seed in range(draws):
        order = sampler.order(Generator(seed))
        first[order[0]] += 1
        last[order[-1]] += 1
        assert replacement or len(set(order)) == 4
    share = weights / 10
    bound = 5 * np.sqrt(share * (1 - share) / draws)
    assert (np.abs(first / draws - share) <= bound).all()
    if replacement:
        assert (np.abs(last / draws - share) <= bound).all()
    else:  # the light ones come last
        assert last[0] > last[1] > last[3] > last[4] > last[2] == 0


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", True, np.nan])
def test_numbers_of_draws_that_are_none(count: Any) -> None:
    """A whole number from 1."""
    with pytest.raises(DatasetError, match="num_samples"):
        WeightedSampler([1.0, 2.0], count)


@pytest.mark.parametrize(
    "sampler",
    [WeightedSampler(np.ones(9)), WeightedSampler(np.ones(11), 3), StratifiedSampler([0, 1] * 3)],
)
def test_a_sampler_for_another_data_set(sampler: Any) -> None:
    """Examples without a weight would never be drawn; those that are not there would."""
    data = TensorDataset(np.arange(10))
    with pytest.raises(DatasetError, match=f"is for a data set of {sampler.examples} examples"):
        DataLoader(data, 2, sampler=sampler)
