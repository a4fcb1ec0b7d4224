"""Samplers, folds and joined data sets."""

from __future__ import annotations

import numpy as np
import pytest

from tensorgrad.data import (
    ConcatDataset,
    DataLoader,
    DatasetError,
    StratifiedSampler,
    TensorDataset,
    WeightedSampler,
    k_fold,
)
from tensorgrad.errors import ShapeError
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor

LABELS = np.array([0] * 80 + [1] * 15 + [2] * 5)


def test_weighted() -> None:
    """Shares as the weights say; nothing of weight 0."""
    found = WeightedSampler([0, 1, 3, 0], 4000).order(Generator(0))
    counts = np.bincount(found, minlength=4)
    assert counts[0] == counts[3] == 0
    assert 0.7 < counts[2] / 4000 < 0.8
    balanced = LABELS[WeightedSampler.balanced(LABELS, 3000).order(Generator(1))]
    assert (abs(np.bincount(balanced) - 1000) < 120).all()


def test_weighted_without_replacement() -> None:
    """Each once, heavy ones more often among the first."""
    weights = np.array([0.0, 1, 1, 50])
    sampler = WeightedSampler(weights, 3, replacement=False)
    orders = [sampler.order(Generator(seed)).tolist() for seed in range(50)]
    assert all(sorted(order) == [1, 2, 3] for order in orders)
    assert sum(order[0] == 3 for order in orders) > 40
    with pytest.raises(DatasetError, match="from 1 to 3"):
        WeightedSampler(weights, 4, replacement=False)
    for bad in ([], [0, 0], [-1, 2], [np.nan], [[1]]):
        with pytest.raises(DatasetError, match="WeightedSampler"):
            WeightedSampler(bad)


def test_stratified() -> None:
    """Every batch holds every class in proportion."""
    sampler = StratifiedSampler(Tensor(LABELS))
    order = sampler.order(Generator(0))
    assert sorted(order) == list(range(100))
    for start in range(0, 100, 20):
        assert np.bincount(LABELS[order[start : start + 20]]).tolist() == [16, 3, 1]
    assert sampler.order(Generator(1)).tolist() != order.tolist()


def test_loader_with_a_sampler() -> None:
    """Its length is the sampler's; epochs differ and can be repeated."""
    data = TensorDataset(np.arange(100), LABELS)
    loader = DataLoader(data, 8, sampler=WeightedSampler.balanced(LABELS, 30), seed=3)
    assert len(loader) == 4
    first, second = ([x.tolist() for x, _ in loader] for _ in range(2))
    assert sum(map(len, first)) == 30
    assert first != second
    again = DataLoader(data, 8, sampler=WeightedSampler.balanced(LABELS, 30), seed=3)
    assert [x.tolist() for x, _ in again] == first
    with pytest.raises(DatasetError, match="leave out shuffle"):
        DataLoader(data, 8, shuffle=True, sampler=StratifiedSampler(LABELS))


@pytest.mark.parametrize("stratify", [False, True])
def test_k_fold(stratify: bool) -> None:
    """Every example is validated once and trained on k - 1 times (D8)."""
    data = TensorDataset(np.arange(100), LABELS)
    folds = k_fold(data, 5, seed=1, stratify=LABELS if stratify else None)
    assert len(folds) == 5
    assert sorted(i for _, part in folds for i in part.indices.tolist()) == list(range(100))
    for train, validation in folds:
        assert sorted([*train.indices, *validation.indices]) == list(range(100))
        if stratify:
            assert np.bincount(LABELS[validation.indices]).tolist() == [16, 3, 1]
    assert [len(v) for _, v in k_fold(TensorDataset(np.arange(7)), 3)] == [3, 2, 2]
    for k in (1, 101, 2.5):
        with pytest.raises(DatasetError, match="from 2 to 100"):
            k_fold(data, k)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="one label per example"):
        k_fold(data, 5, stratify=LABELS[:3])


def test_concat() -> None:
    """As if the arrays were joined, whether taken one by one or at once."""
    x = np.arange(20.0).reshape(10, 2)
    parts = [TensorDataset(x[a:b], np.arange(a, b)) for a, b in ((0, 3), (3, 4), (4, 10))]
    joined, whole = ConcatDataset(*parts), TensorDataset(x, np.arange(10))
    assert len(joined) == 10
    for i in (0, 2, 3, 9, -1, -10):
        assert [v.tolist() for v in joined[i]] == [v.tolist() for v in whole[i]]
    for indices in ([], [5], [9, 0, 3, 0, -7], list(range(10))):
        for a, b in zip(joined.take(indices), whole.take(np.array(indices, int)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert [len(x) for x, _ in DataLoader(joined, 4, True, seed=0)] == [4, 4, 2]
    for bad in (10, -11):
        with pytest.raises(IndexError):
            joined[bad]
        with pytest.raises(IndexError, match="below 10"):
            joined.take([bad])
    with pytest.raises(DatasetError, match="at least one"):
        ConcatDataset()
    other = ConcatDataset(TensorDataset(np.zeros((2, 2))), TensorDataset(np.zeros((2, 3))))
    with pytest.raises(ShapeError, match=r"\(2,\) float64 and \(3,\) float64"):
        other.take([0, 3])
